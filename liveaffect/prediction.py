"""One answer for a whole picture, sound or video, as `liveaffect predict` and `liveaffect.predict` give it.

A picture is searched thoroughly and every face is judged by itself. Sound and video go through the same
causal path as live use; the answer is the mean over its cues, weighted by how much evidence each had.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from liveaffect.engines.recipe import CROP_SIZE, LABELS, SAMPLE_RATE
from liveaffect.progress import ProgressBar, clear_line, say, written_out
from liveaffect.realtime.clock import MS, SECOND
from liveaffect.realtime.cue import FACE, NOT_SURE, VERSION, VOICE, Cue, Scores, distribution
from liveaffect.realtime.endings import PICTURES
from liveaffect.realtime.errors import (
    EndOfStream,
    RealtimeError,
    SourceError,
    SourceNotFound,
    SourceRefused,
)
from liveaffect.realtime.estimate import LabelSettings, softmax
from liveaffect.realtime.face_analyzer import find_in_picture
from liveaffect.realtime.frame import AudioBlock, CountsLosses, VideoFrame
from liveaffect.realtime.health import losses_in_words
from liveaffect.realtime.lockstep import ItemReader, Watched, analyse, watched
from liveaffect.realtime.replay import MediaFile, Picture, read_picture
from liveaffect.realtime.sinks import Outputs
from liveaffect.realtime.wiring import Tools

_SILENT_BLOCK = 1_600


@dataclass(frozen=True, slots=True)
class PredictedFace:
    """What one face shows."""

    track: int | None
    """The person's number in a video; None in a picture."""
    box: tuple[int, ...]
    """x, y, width, height in pixels; in a video where it was last. Empty if it is not known."""
    face: Scores
    label: str
    """One of LABELS, or 'not sure'."""
    confidence: float
    reason: str | None

    def to_json(self) -> dict[str, Any]:
        """Plain types only; `track` only where there are tracks."""
        track = {} if self.track is None else {"track": self.track}
        verdict = {"label": self.label, "confidence": self.confidence, "reason": self.reason}
        return {**track, "box": list(self.box), "face": distribution(self.face), **verdict}


@dataclass(frozen=True, slots=True)
class Prediction:
    """What a picture, a piece of sound or a video shows as a whole."""

    path: str | None
    """The file as it was named; None for an array."""
    kind: Literal["picture", "sound", "video"]
    faces: tuple[PredictedFace, ...]
    """Of a picture the largest first, of a video who was seen longest."""
    voice: Scores | None
    fused: Scores | None
    """Everything together; of a picture its largest face. None without face and speech."""
    label: str
    """One of LABELS, or 'not sure'."""
    confidence: float
    """How likely the label is right; with 'not sure', of the label that would have been said."""
    reason: str | None
    """Why the label is 'not sure'."""
    damage: str | None = None
    """What of the file could not be used, although there is an answer; not in the JSON form."""

    def to_json(self) -> dict[str, Any]:
        """The object that `liveaffect predict --json` writes."""
        return {
            "v": VERSION,
            "path": self.path,
            "kind": self.kind,
            "faces": [face.to_json() for face in self.faces],
            "voice": distribution(self.voice),
            "fused": distribution(self.fused),
            "label": self.label,
            "confidence": self.confidence,
            "reason": self.reason,
        }

    def __str__(self) -> str:
        """The same for a person: file, label, how sure, and what it rests on."""
        people = len(self.faces)
        rests = [f"{people} {'face' if people == 1 else 'faces'}"] if people else []
        rests += ["voice"] if self.voice is not None else []
        why = f" ({self.reason})" if self.reason else ""
        verdict = f"{self.label}{why} {self.confidence:.2f}"
        return written_out(f"{self.path or self.kind}: {verdict} [{', '.join(rests) or 'nothing found'}]")


def predict_file(
    path: Path, tools: Tools, *, cropped: bool = False, bar: ProgressBar | None = None
) -> Prediction:
    """The answer for one file; of a film `bar` shows the seconds. Raises SourceError if it cannot be read."""
    try:
        there = path.exists()
    except OSError as error:
        raise SourceRefused(f"'{path}' cannot be read: {error.strerror}") from error
    if not there:
        raise SourceNotFound(f"there is no file {path}")
    if path.suffix.lower() in PICTURES:
        return predict_picture(read_picture(path), tools, cropped=cropped, path=str(path))
    media = MediaFile(path)
    media.open()
    if bar is not None:
        bar.begin(str(path), media.duration_s)
    try:
        return _predict_media(watched(media), tools, str(path), bar)
    finally:
        media.close()


def predict_files(
    paths: Sequence[Path], tools: Tools, *, cropped: bool = False, as_json: bool = False
) -> dict[Path, str]:
    """An answer on standard output for each; returns those that failed, with the reason."""
    failed: dict[Path, str] = {}
    files, film = ProgressBar("", len(paths), "files"), ProgressBar("", None)
    for number, path in enumerate(paths):
        files.name = str(path)
        files.show(number)
        try:
            found = predict_file(path, tools, cropped=cropped, bar=film)
        except RealtimeError as error:
            failed[path] = str(error)
            continue
        if found.damage is not None:
            say(written_out(f"'{path}': {found.damage}"))
        clear_line()
        sys.stdout.write((json.dumps(found.to_json()) if as_json else str(found)) + "\n")
        sys.stdout.flush()
    clear_line()
    return failed


def predict_picture(
    picture: Picture, tools: Tools, *, cropped: bool = False, path: str | None = None
) -> Prediction:
    """The answer for a picture, which is a face and nothing else if it is `cropped`."""
    image, shrunk = picture.image, picture.shrunk
    if cropped:
        whole_box: tuple[int, ...] = (0, 0, image.shape[1] * shrunk, image.shape[0] * shrunk)
        whole = cv2.resize(image, (CROP_SIZE, CROP_SIZE), interpolation=cv2.INTER_AREA)
        found = [(whole_box, np.asarray(whole, np.uint8))]
    else:
        found = [
            (tuple(round(v * shrunk) for v in face.box), face.crop)
            for face in find_in_picture(*tools.make_finders(), image)
        ]
    tools.networks.forgive()
    confidence = tools.networks.confidence
    threshold = confidence.picture_threshold or LabelSettings().threshold
    answers, _ = tools.networks.ask([{"crop": crop} for _, crop in found], [])
    faces = []
    for (box, _), answer in zip(found, answers, strict=True):
        if answer is None:
            raise SourceError(f"{path or 'the picture'}: {'; '.join(tools.networks.failing.values())}")
        scores = softmax(answer["logits"], confidence.of_reading("face"))
        faces.append(PredictedFace(None, box, scores, *_verdict(scores, "", threshold)))
    faces.sort(key=lambda face: -face.box[2] * face.box[3])
    main = faces[0].face if faces else None
    verdict = _verdict(main, "no face found", threshold)
    return Prediction(path, "picture", tuple(faces), None, main, *verdict, picture.damage)


def predict_sound(blocks: Sequence[AudioBlock], tools: Tools) -> Prediction:
    """The answer for sound in blocks of one source."""
    return _predict_media(Watched(_Blocks(iter(blocks)), None, blocks[0].source), tools, None)


@dataclass(slots=True)
class _Blocks:
    """Sound that is there already, as a source."""

    blocks: Iterator[AudioBlock]

    def read(self, timeout_s: float) -> AudioBlock:
        for block in self.blocks:
            return block
        raise EndOfStream


@dataclass(slots=True)
class _ThenSilence:
    """Another source of sound, followed by so much silence: what was said last is heard out, as live."""

    reader: ItemReader
    left: int
    """Samples of silence that are still to come."""
    last: AudioBlock | None = None

    @property
    def losses(self) -> Mapping[str, int]:
        """Those of the other."""
        return self.reader.losses if isinstance(self.reader, CountsLosses) else {}

    def read(self, timeout_s: float) -> VideoFrame | AudioBlock | None:
        """The next item."""
        try:
            item = self.reader.read(timeout_s)
        except EndOfStream:
            if self.last is None or self.left <= 0:
                raise
            count, before = min(self.left, _SILENT_BLOCK), self.last
            self.left -= count
            end_ns = before.captured_ns + len(before.samples) * SECOND // SAMPLE_RATE
            silence = np.zeros(count, np.float32)
            item = AudioBlock(before.source, before.first + len(before.samples), end_ns, silence)
        self.last = item if isinstance(item, AudioBlock) else self.last
        return item


def _verdict(scores: Scores | None, reason: str, threshold: float) -> tuple[str, float, str | None]:
    """Label, confidence and reason of a distribution as it is written."""
    named = distribution(scores)
    if named is None:
        return NOT_SURE, 0.0, reason
    best = max(LABELS, key=lambda label: named[label])
    if named[best] < threshold:
        return NOT_SURE, named[best], "scores too close"
    return best, named[best], None


@dataclass(slots=True)
class _Mean:
    """A weighted mean of distributions."""

    total: NDArray[np.float64] = field(default_factory=lambda: np.zeros(len(LABELS)))
    weight: float = 0.0

    def add(self, scores: Scores | None, weight: float) -> None:
        if scores is not None and weight > 0:
            self.total += weight * np.asarray(scores)
            self.weight += weight

    def scores(self) -> Scores | None:
        return tuple((self.total / self.weight).tolist()) if self.weight > 0 else None


@dataclass(slots=True)
class _Tally:
    """What the cues of one track came to."""

    face: _Mean = field(default_factory=_Mean)
    voice: _Mean = field(default_factory=_Mean)
    fused: _Mean = field(default_factory=_Mean)
    box: tuple[int, ...] = ()
    cues: int = 0

    def add(self, cue: Cue) -> None:
        face_weight, voice_weight = (
            lifetime.share(None if age is None else age * MS)
            for lifetime, age in zip((FACE, VOICE), cue.age_ms, strict=True)
        )
        self.face.add(cue.face, face_weight)
        self.voice.add(cue.voice, voice_weight)
        self.fused.add(cue.raw, max(face_weight, voice_weight))
        self.box = cue.box if cue.box is not None else self.box
        self.cues += 1


def _predict_media(
    watched: Watched, tools: Tools, path: str | None, bar: ProgressBar | None = None
) -> Prediction:
    if watched.camera is None:
        watched = replace(watched, reader=_ThenSilence(watched.reader, tools.pieces.lead))
    tallies: dict[int | None, _Tally] = {}
    everyone = _Tally()

    def collect(cues: tuple[Cue, ...]) -> None:
        for cue in cues:
            tallies.setdefault(cue.track, _Tally()).add(cue)
            everyone.add(cue)

    summary = analyse(watched, tools, Outputs([]), collect, bar.show if bar is not None else lambda _: None)
    damage = losses_in_words(summary.losses).removeprefix("; ") or None
    needed, plain = tools.networks.confidence.thresholds, LabelSettings().threshold
    faces = []
    for track, tally in sorted(tallies.items(), key=lambda pair: -pair[1].cues):
        scores = tally.face.scores()
        if track is not None and scores is not None:
            verdict = _verdict(scores, "", needed.get("face", plain))
            faces.append(PredictedFace(track, tally.box, scores, *verdict))
    fused, voice = everyone.fused.scores(), everyone.voice.scores()
    subset = "+".join(["face"] * bool(faces) + ["voice"] * (voice is not None))
    reason = tools.networks.caveat or "no face and no speech found"
    verdict = _verdict(fused, reason, needed.get(subset, plain))
    kind: Literal["sound", "video"] = "sound" if watched.camera is None else "video"
    return Prediction(path, kind, tuple(faces), voice, fused, *verdict, damage)
