"""`liveaffect predict`: pictures, sound, videos and folders in, one JSON line per file out.

A picture is searched thoroughly and every face is judged by itself. Sound and video go through the same
causal path as live use; the answer is the mean over its cues, weighted by how much evidence each had.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from liveaffect.engines.recipe import CROP_SIZE, LABELS
from liveaffect.progress import ProgressBar
from liveaffect.realtime import freshness
from liveaffect.realtime.clock import MS
from liveaffect.realtime.cue import NOT_SURE, VERSION, Cue, Scores, distribution
from liveaffect.realtime.endings import PICTURES
from liveaffect.realtime.errors import RealtimeError, SourceError, SourceNotFound, SourceRefused
from liveaffect.realtime.estimate import softmax
from liveaffect.realtime.face_analyzer import find_in_picture
from liveaffect.realtime.health import losses_in_words
from liveaffect.realtime.labelling import LabelSettings
from liveaffect.realtime.lockstep import analyse, watch
from liveaffect.realtime.picture import read_picture
from liveaffect.realtime.replay import MediaFile
from liveaffect.realtime.sinks.outputs import Outputs
from liveaffect.realtime.wiring import Tools

Warn = Callable[[str], None]
"""Is told what of a file could not be used, although there is an answer."""


def predict(
    path: Path,
    tools: Tools,
    *,
    cropped: bool = False,
    warn: Warn = lambda _: None,
) -> dict[str, Any]:
    """The JSON line of one file. Raises SourceError if it cannot be read."""
    try:
        there = path.exists()
    except OSError as error:
        raise SourceRefused(f"'{path}' cannot be read: {error.strerror}") from error
    if not there:
        raise SourceNotFound(f"there is no file {path}")
    if path.suffix.lower() in PICTURES:
        return _predict_picture(path, tools, cropped, warn)
    return _predict_media(path, tools, warn)


def predict_files(
    paths: Sequence[Path], tools: Tools, *, cropped: bool = False, as_json: bool = False
) -> dict[Path, str]:
    """An answer on standard output for each; returns those that failed, with the reason."""
    failed: dict[Path, str] = {}
    bar = ProgressBar("", len(paths), "files")
    for number, path in enumerate(paths):
        bar.name = str(path)
        bar.show(number)
        try:
            answer = predict(path, tools, cropped=cropped, warn=bar.say)
        except RealtimeError as error:
            failed[path] = str(error)
            continue
        bar.clear()
        sys.stdout.write((json.dumps(answer) if as_json else sentence(answer)) + "\n")
        sys.stdout.flush()
    bar.clear()
    return failed


def _predict_picture(path: Path, tools: Tools, cropped: bool, warn: Warn) -> dict[str, Any]:
    picture = read_picture(path)
    if picture.damage is not None:
        warn(f"'{path}': {picture.damage}")
    image = picture.image
    if cropped:
        whole = cv2.resize(image, (CROP_SIZE, CROP_SIZE), interpolation=cv2.INTER_AREA)
        box = [0, 0, image.shape[1] * picture.shrunk, image.shape[0] * picture.shrunk]
        found = [(box, np.asarray(whole, np.uint8))]
    else:
        found = [
            ([round(v * picture.shrunk) for v in face.box], face.crop)
            for face in find_in_picture(*tools.make_finders(), image)
        ]
    tools.networks.forgive()
    confidence = tools.networks.confidence
    threshold = confidence.picture_threshold or LabelSettings().threshold
    answers, _ = tools.networks.ask([{"crop": crop} for _, crop in found], [])
    faces = []
    for (box, _), answer in zip(found, answers, strict=True):
        if answer is None:
            raise SourceError(f"{path}: {'; '.join(tools.networks.failing.values())}")
        scores = softmax(answer["logits"], confidence.of_reading("face"))
        faces.append(_face(box, scores, threshold))
    faces.sort(key=lambda face: -face["box"][2] * face["box"][3])
    line = {"v": VERSION, "path": str(path), "kind": "picture", "faces": faces, "voice": None}
    main = faces[0]["face"] if faces else None
    return line | {"fused": main} | _verdict(main, "no face found", threshold)


def _face(box: list[int], scores: Scores, threshold: float) -> dict[str, Any]:
    named = distribution(scores)
    return {"box": box, "face": named} | _verdict(named, "", threshold)


def _verdict(named: dict[str, float] | None, reason: str, threshold: float) -> dict[str, Any]:
    if named is None:
        return {"label": NOT_SURE, "confidence": 0.0, "reason": reason}
    best = max(LABELS, key=lambda label: named[label])
    if named[best] < threshold:
        return {"label": NOT_SURE, "confidence": named[best], "reason": "scores too close"}
    return {"label": best, "confidence": named[best], "reason": None}


def sentence(line: dict[str, Any]) -> str:
    """The same for a person: file, label, how sure, and what it rests on."""
    people = len(line["faces"])
    rests = [f"{people} {'face' if people == 1 else 'faces'}"] if people else []
    rests += ["voice"] if line["voice"] else []
    why = f" ({line['reason']})" if line["reason"] else ""
    verdict = f"{line['label']}{why} {line['confidence']:.2f}"
    return f"{line['path']}: {verdict} [{', '.join(rests) or 'nothing found'}]"


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
    box: list[int] | None = None
    cues: int = 0

    def add(self, cue: Cue) -> None:
        face_weight, voice_weight = (
            lifetime.share(None if age is None else age * MS)
            for lifetime, age in zip((freshness.FACE, freshness.VOICE), cue.age_ms, strict=True)
        )
        self.face.add(cue.face, face_weight)
        self.voice.add(cue.voice, voice_weight)
        self.fused.add(cue.raw, max(face_weight, voice_weight))
        self.box = list(cue.box) if cue.box is not None else self.box
        self.cues += 1


def _predict_media(path: Path, tools: Tools, warn: Warn) -> dict[str, Any]:
    tallies: dict[int | None, _Tally] = {}
    everyone = _Tally()

    def collect(cues: tuple[Cue, ...]) -> None:
        for cue in cues:
            tallies.setdefault(cue.track, _Tally()).add(cue)
            everyone.add(cue)

    media = MediaFile(path)
    media.open()
    try:
        has_pictures = media.has_video
        summary = analyse(watch(media), tools, Outputs([]), collect)
    finally:
        media.close()
    if summary.losses:
        warn(f"'{path}'{losses_in_words(summary.losses)}".replace("';", "':", 1))
    needed, plain = tools.networks.confidence.thresholds, LabelSettings().threshold
    faces = []
    for track, tally in sorted(tallies.items(), key=lambda pair: -pair[1].cues):
        scores = tally.face.scores()
        if track is not None and scores is not None:
            faces.append({"track": track} | _face(tally.box or [], scores, needed.get("face", plain)))
    fused, voice = distribution(everyone.fused.scores()), distribution(everyone.voice.scores())
    subset = "+".join(["face"] * bool(faces) + ["voice"] * (voice is not None))
    return {
        "v": VERSION,
        "path": str(path),
        "kind": "video" if has_pictures else "sound",
        "faces": faces,
        "voice": voice,
        "fused": fused,
    } | _verdict(fused, tools.networks.caveat or "no face and no speech found", needed.get(subset, plain))
