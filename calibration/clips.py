"""The clips on which confidence is fitted, each sent through the live path: faces, voices, and both together.

Pictures of faces are enlarged, moved as by a hand, found, followed and cut out like anybody before a
camera. Voices are heard through the same microphone stream as live. Of both together there are no films:
the voice is heard as always, whose it is is told, and what the face network would say is played (see
`pairs_watched`).

What a user sees is an estimate, so every estimate is kept. It holds the answers of the fusion before any
temperature; what would have been seen under other temperatures follows from the records without another
run.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from liveaffect.engines import manifest as manifests
from liveaffect.engines.protocol import FACE_INPUTS, FACE_OUTPUTS, Done, Engine, EngineSpec, Pending, Tensors
from liveaffect.engines.recipe import CROP_SIZE, LABELS, SAMPLE_RATE, SUBSETS
from liveaffect.engines.training import corpora_faces, corpora_voices, splits
from liveaffect.engines.training.corpora_faces import load_split
from liveaffect.engines.training.corpora_voices import Take
from liveaffect.realtime.attribution import Attribution, Voice
from liveaffect.realtime.clock import SECOND
from liveaffect.realtime.errors import EndOfStream
from liveaffect.realtime.estimate import Confidence, Estimate, LabelSettings, is_little
from liveaffect.realtime.frame import AudioBlock, Face, Sighting
from liveaffect.realtime.lockstep import Watched, analyse
from liveaffect.realtime.networks import Networks
from liveaffect.realtime.portrait import Portraits
from liveaffect.realtime.ring import AudioRing, Ring
from liveaffect.realtime.scheduler import Scheduler
from liveaffect.realtime.sinks import Outputs
from liveaffect.realtime.voice_analyzer import VoiceAnalyzer
from liveaffect.realtime.window import FUSION_STEP_NS, PieceGrid
from liveaffect.realtime.wiring import Finders, Tools


@dataclass(slots=True)
class Records:
    """What was estimated in one clip, by person in the order of their appearance."""

    people: dict[int | None, list[Estimate]] = field(default_factory=dict)

    def keep(self, estimate: Estimate) -> None:
        """Take in one estimate that says something."""
        if estimate.answered and estimate.fresh > 0.0:
            self.people.setdefault(estimate.track, []).append(estimate)

    def confidence(self) -> Confidence:
        """One that changes nothing and is watched."""
        return Confidence(watch=self.keep)


@dataclass(frozen=True, slots=True, eq=False)
class ClipTrace:
    """Everything that was said about the person of one clip."""

    clip: str
    group: str
    """The speaker, or where nobody knows the people, the picture."""
    side: str
    truth: int
    estimates: tuple[Estimate, ...]

    @property
    def counted(self) -> NDArray[np.bool_]:
        """Which of them are cues with an opinion: on the grid, and with enough evidence."""
        plain = LabelSettings()
        return np.array(
            [one.at_ns % FUSION_STEP_NS == 0 and not is_little(one, plain) for one in self.estimates],
            np.bool_,
        )


def relived(watch: ClipTrace, confidence: Confidence) -> list[Estimate]:
    """What would have been shown of every counted cue under another confidence, "not sure" included."""
    labeller = confidence.labeller()
    said = [labeller.label(one) for one in watch.estimates]
    return [one for one, counts in zip(said, watch.counted, strict=True) if counts]


def watch_of(records: Records, clip: str, group: str, side: str, truth: int) -> ClipTrace | None:
    """The person who was in view longest; None if nobody was there long enough for a single cue."""
    longest = max(records.people.values(), key=len, default=[])
    found = ClipTrace(clip, group, side, truth, tuple(longest))
    return found if found.counted.any() else None


class ClipTraces:
    """The counted cues of many clips as columns, to try temperatures on all of them at once."""

    def __init__(self, watches: Sequence[ClipTrace]) -> None:
        self.watches = tuple(watches)
        rows = [
            (clip, one)
            for clip, watch in enumerate(watches)
            for one, counts in zip(watch.estimates, watch.counted, strict=True)
            if counts
        ]
        self.clips = np.array([clip for clip, _ in rows], np.int64)
        """For every counted cue, which watch it is of."""
        self._logits = np.array([one.logits for _, one in rows]).reshape(-1, len(SUBSETS), len(LABELS))
        self._shares = np.array([one.shares for _, one in rows]).reshape(-1, len(SUBSETS))
        self._fresh = np.array([one.fresh for _, one in rows])
        self._shown = np.array([one.scores for _, one in rows]).reshape(-1, len(LABELS))

    def take(self, chosen: Sequence[int]) -> ClipTraces:
        """Some of them."""
        return ClipTraces([self.watches[k] for k in chosen])

    def scores(self, temperatures: Mapping[str, float]) -> NDArray[np.float64]:
        """(cues, 7): what users would have seen, cue by counted cue."""
        raised = self._logits / np.array([temperatures.get(subset, 1.0) for subset in SUBSETS])[:, None]
        powers = np.exp(raised - raised.max(axis=-1, keepdims=True))
        joint = (powers / powers.sum(axis=-1, keepdims=True) * self._shares[..., None]).sum(axis=1)
        return np.asarray(self._fresh[:, None] * joint + (1.0 - self._fresh[:, None]) / len(LABELS))

    def largest_difference(self) -> float:
        """Between what is worked out here at temperature one and what the runs showed; it must be nothing."""
        return float(np.abs(self.scores({}) - self._shown).max(initial=0.0))


PICTURE_PX, CANVAS_PX = 160, 320
"""A picture of a face is enlarged to this side, in the middle of a canvas of that side."""
FPS, PICTURES = 10.0, 10
BLOCK = SAMPLE_RATE // 20
SOUND = "sound"
SIDES = ("calibrate", "test")
CHOSEN = {"calibrate": 800, "test": 500}
"""Pictures of each side."""
TAKES = 90
"""Of each speaker."""
Say = Callable[[str], None]
_CAMERA, _TRACK = "camera:played", 1
_POINTS = np.array([[80, 90], [120, 90], [100, 110], [100, 130], [60, 95], [140, 95]], np.float32)


@dataclass(frozen=True, slots=True, eq=False)
class Engines:
    """The engines of all clips, loaded once."""

    face: Engine
    voice: Engine
    fusion: Engine
    finders: Finders
    pieces: PieceGrid

    def tools(self, records: Records) -> Tools:
        """What one clip's run uses."""
        networks = Networks(self.face, self.voice, self.fusion, records.confidence())
        return Tools(networks, lambda: self.finders, self.pieces)


@dataclass(frozen=True, slots=True, eq=False)
class Clip:
    """A picture (grey) or a sound (16 kHz), and what is known of it."""

    name: str
    group: str
    side: str
    truth: int
    content: NDArray[np.uint8] | NDArray[np.floating]
    face_logits: NDArray[np.float32] | None = None
    """For a sound: what the face network would say of the same take."""


def first_by_hash(names: Sequence[str], most: int) -> list[int]:
    """Which of them are used where there are more than enough: a choice that nobody made."""
    order = sorted(range(len(names)), key=lambda k: hashlib.sha256(names[k].encode()).digest())
    return sorted(order[:most])


def frozen_sides(weights: Path | None) -> Path:
    """The sides that the weights were trained on."""
    own = (weights or manifests.SHIPPED) / splits.FROZEN.name
    return splits.FROZEN if weights is None or not own.exists() else own


def face_clips(data: Path, weights: Path | None) -> list[Clip]:
    """Pictures of faces; those that people called none of the seven are left out."""
    found = manifests.read((weights or manifests.SHIPPED) / "face.json")
    sides = load_split(corpora_faces.find_faces(data), frozen_sides(weights), add=False)
    splits.refuse_other_sides(found, sides.corpora, sides.digest)
    clips = []
    for side, faces in zip(SIDES, (sides.calibrate, sides.test), strict=True):
        labelled = faces.take(np.flatnonzero(faces.label >= 0))
        for k in first_by_hash(labelled.names, CHOSEN[side]):
            truth = int(labelled.label[k])
            clips.append(Clip(labelled.names[k], labelled.groups[k], side, truth, labelled.pictures[k]))
    return clips


def voice_clips(data: Path, weights: Path | None, say: Say) -> list[Clip]:
    """Takes of acted speech, as many of each speaker."""
    from liveaffect.engines.training import splits

    found = manifests.read((weights or manifests.SHIPPED) / "voice.json")
    takes = splits.found_in(data)
    side_of, digest = splits.sided(takes, frozen_sides(weights), add=False)
    splits.refuse_other_sides(found, tuple(takes), digest)
    chosen: list[Take] = []
    for these in takes.values():
        for speaker in sorted({take.speaker for take in these if side_of[take.speaker] in SIDES}):
            mine = [take for take in these if take.speaker == speaker]
            chosen += [mine[k] for k in first_by_hash([take.name for take in mine], TAKES)]
    return _sound_clips(chosen, side_of, say)


def pair_clips(data: Path, weights: Path | None, say: Say) -> list[Clip]:
    """Takes whose speaker's face is known through action units, with what stands in for the face network."""
    from liveaffect.engines.training import evaluate_fusion, pairs, splits

    found = manifests.read((weights or manifests.SHIPPED) / "fusion.json")
    evaluate_fusion.refuse_other_actors(found, frozen_sides(weights))
    known = pairs.read_pairs(data)
    logits = evaluate_fusion.at_scale(known.face, known, float(found.training["temperature"]["face"]))
    faces = dict(zip(known.names, logits, strict=True))
    takes = {take.name[3:]: take for take in splits.found_in(data)["ravdess"]}
    sides = dict(zip(known.actors, known.sides.tolist(), strict=True))
    both = [take for name, take in sorted(takes.items()) if name in faces and sides[take.speaker] in SIDES]
    clips = _sound_clips(both, sides, say)
    return [Clip(one.name, one.group, one.side, one.truth, one.content, faces[one.name[3:]]) for one in clips]


def _sound_clips(takes: Sequence[Take], sides: dict[str, str], say: Say) -> list[Clip]:
    clips = []
    for corpus in sorted({take.corpus for take in takes}):
        mine = [take for take in takes if take.corpus == corpus]
        for take, samples in zip(
            mine, corpora_voices.load_takes(mine, corpora_voices.default_folder(), say), strict=True
        ):
            truth = LABELS.index(take.label)
            clips.append(Clip(take.name, take.speaker, sides[take.speaker], truth, samples))
    return clips


def enlarged(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A grey picture of a face in colour and as large as it is shown."""
    wide = cv2.resize(picture, (PICTURE_PX, PICTURE_PX), interpolation=cv2.INTER_CUBIC)
    return np.repeat(np.asarray(wide, np.uint8)[..., None], 3, axis=2)


def faces_watched(clips: Sequence[Clip], cast: Engines) -> Iterator[ClipTrace | None]:
    """One for every picture; None where the finder saw no face, or not for long enough."""
    for clip in clips:
        portrait = enlarged(np.asarray(clip.content, np.uint8))
        seed = int.from_bytes(hashlib.sha256(clip.name.encode()).digest()[:4], "big")
        source = Portraits([portrait], (CANVAS_PX, CANVAS_PX), FPS, seed=seed, frames=PICTURES)
        source.open()
        records = Records()
        analyse(Watched(source, source.name, None), cast.tools(records), Outputs([]), _ignore)
        yield watch_of(records, clip.name, clip.group, clip.side, clip.truth)


def voices_watched(clips: Sequence[Clip], cast: Engines) -> Iterator[ClipTrace | None]:
    """One for every sound; None where no speech was heard in it, or not for long enough."""
    for clip in clips:
        records = Records()
        reader = PlayedSound(np.asarray(clip.content, np.float32))
        analyse(Watched(reader, None, SOUND), cast.tools(records), Outputs([]), _ignore)
        yield watch_of(records, clip.name, clip.group, clip.side, clip.truth)


def pairs_watched(clips: Sequence[Clip], cast: Engines) -> Iterator[ClipTrace | None]:
    """Sounds whose speaker is in view: the face's logits are played, everything after them is the live path.

    The played face is a good one in every picture, and the voice is known to be this person's, because there
    is no film in which a mouth could be seen to move.
    """
    for clip in clips:
        if clip.face_logits is None:
            raise ValueError(f"{clip.name} has no face to play")
        records = Records()
        _play(clip, _Played(clip.face_logits), cast, records)
        yield watch_of(records, clip.name, clip.group, clip.side, clip.truth)


def _play(clip: Clip, face: Engine, cast: Engines, records: Records) -> None:
    samples = np.asarray(clip.content, np.float32)
    sightings: Ring[Sighting] = Ring(8)
    sound = AudioRing(max(len(samples), SAMPLE_RATE))
    trained = cast.voice.spec.trained
    voice_analyzer = VoiceAnalyzer(SOUND, sound, cast.pieces, believe_speech=trained, attribution=_Told())
    scheduler = Scheduler(
        Networks(face, cast.voice, cast.fusion, records.confidence()),
        sightings={_CAMERA: sightings},
        voice_analyzers=[voice_analyzer],
        publish=_ignore,
    )
    step = FUSION_STEP_NS * SAMPLE_RATE // SECOND
    for point in range(len(samples) // step + 1):
        now_ns = point * FUSION_STEP_NS
        if point:
            begin = (point - 1) * step
            block = samples[begin : begin + step]
            sound.push(AudioBlock(SOUND, begin, now_ns - FUSION_STEP_NS, block))
        seen = Face(_TRACK, (50, 50, 100, 100), _POINTS, (0.0, 0.0), now_ns, 0.9, _CROP)
        sightings.push(Sighting(_CAMERA, point, now_ns, (640, 480), (seen,)))
        scheduler.step(now_ns)


class Remembering:
    """A voice network that is asked once about each piece, however many runs a take passes through.

    Only the same samples in the same statistics are the same piece, so no answer differs from a fresh one.
    """

    def __init__(self, engine: Engine) -> None:
        self.spec = engine.spec
        self._engine = engine
        self._known: dict[bytes, dict[str, NDArray[Any]]] = {}

    def submit(self, inputs: Tensors) -> Pending:
        """Hand in one batch."""
        rows = [
            {name: array[k : k + 1] for name, array in inputs.items()} for k in range(len(inputs["mean"]))
        ]
        answers = [self._answer(row) for row in rows]
        return Done({name: np.concatenate([one[name] for one in answers]) for name in answers[0]})

    def infer(self, inputs: Tensors) -> Tensors:
        """`submit` and wait."""
        return self.submit(inputs).result()

    def warm_up(self) -> None:
        """As the network does."""
        self._engine.warm_up()

    def close(self) -> None:
        """As the network does."""
        self._engine.close()

    def _answer(self, row: Tensors) -> dict[str, NDArray[Any]]:
        key = hashlib.sha256(b"".join(row[name].tobytes() for name in sorted(row))).digest()
        if key not in self._known:
            self._known[key] = dict(self._engine.infer(row))
        return self._known[key]


class PlayedSound:
    """Samples as a source of blocks."""

    def __init__(self, samples: NDArray[np.float32]) -> None:
        self._samples = samples
        self._next = 0

    def read(self, timeout_s: float) -> AudioBlock:
        """The next block."""
        first, self._next = self._next, self._next + BLOCK
        if first >= len(self._samples):
            raise EndOfStream(f"{SOUND} is at its end")
        return AudioBlock(
            SOUND, first, first * SECOND // SAMPLE_RATE, self._samples[first : first + BLOCK].copy()
        )


class _Told(Attribution):
    """Knows whose voice it is whenever somebody speaks."""

    def decide(self, now_ns: int) -> Voice:
        """As told."""
        heard = super().decide(now_ns)
        return heard if heard.state == "nobody speaks" else Voice("track", _TRACK, 1.0)


class _Played:
    """Stands in the place of a face network and says the same of every crop."""

    def __init__(self, logits: NDArray[np.float32]) -> None:
        self.spec = EngineSpec("face/played", FACE_INPUTS, FACE_OUTPUTS, 64, "played", True)
        self._logits = logits

    def submit(self, inputs: Tensors) -> Pending:
        """The logits for every row; vectors are zero, so a fusion of vectors cannot be judged with it."""
        count = len(inputs["crop"])
        out = {tensor.name: np.zeros((count, *tensor.shape), np.float32) for tensor in FACE_OUTPUTS}
        out["logits"][:] = self._logits
        return Done(out)

    def infer(self, inputs: Tensors) -> Tensors:
        """`submit` and wait."""
        return self.submit(inputs).result()

    def warm_up(self) -> None:
        """Nothing to do."""

    def close(self) -> None:
        """Nothing to free."""


def _crop() -> NDArray[np.uint8]:
    """A crop with light and detail, so that a played face is a good one."""
    grain = np.random.default_rng(0).normal(128, 40, (CROP_SIZE, CROP_SIZE, 1))
    return np.repeat(np.clip(grain, 0, 255), 3, axis=2).astype(np.uint8)


def _ignore(cues: object) -> None:
    """Everything worth knowing is in the records."""


_CROP = _crop()
