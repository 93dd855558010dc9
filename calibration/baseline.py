"""What one person's neutral face and voice look like to a network, as numbers that set its answers right.

Some faces look sad at rest, some voices angry. The mean log-probabilities m of a neutral stretch say how far
every label stands below neutral on this person; one usual distance holds for everybody. The shift of a
label's logit takes back a share of the difference:

    shift[label] = -trust * clip(m[label] - m[neutral] + usual, -most, most),    shift[neutral] = 0
    trust        = seconds / (seconds + doubt)

So a label that this face pretends is lowered, one that it hides is raised, little evidence moves little, and
nothing moves by more than `most`. With the voice go mean and variance of its sound, so that the network
need not learn them anew in every run. No picture and no sound is in it, and none can be made from it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from liveaffect.calibration.av_offset import MediaReader
from liveaffect.engines.recipe import LABELS, SAMPLE_RATE, SpeakerStatistics
from liveaffect.realtime.clock import MS, SECOND
from liveaffect.realtime.crop import quality
from liveaffect.realtime.errors import CalibrationRefused, EndOfStream
from liveaffect.realtime.face_analyzer import FaceAnalyzer
from liveaffect.realtime.frame import AudioBlock, VideoFrame
from liveaffect.realtime.profile import Baseline, BaselineRefused, Side, VoiceStatistics
from liveaffect.realtime.ring import AudioRing
from liveaffect.realtime.voice_analyzer import VoiceAnalyzer
from liveaffect.realtime.window import PieceGrid
from liveaffect.realtime.wiring import Tools

LEAST_S: Mapping[str, float] = {"face": 2.0, "voice": 1.5}
"""Less is refused."""
LEAST_READINGS = 4

Values = NDArray[np.floating[Any]]


@dataclass(frozen=True, slots=True)
class Terms:
    """The constants of the formula."""

    usual: float
    """So many nats a label stands below neutral when somebody is neutral."""
    most: float
    doubt_s: float
    """Evidence of this length is trusted by half."""


TERMS: Mapping[str, Terms] = {"face": Terms(2.0, 2.0, 3.0), "voice": Terms(1.0, 1.0, 6.0)}
"""Chosen by trial, see docs/personal.md. Voices are judged in their own statistics, so less is left to do."""


def measure_baseline(modality: str, network: str, logits: Sequence[Values], seconds: float) -> Side:
    """The shift that a neutral stretch asks for; `logits` are those of single crops or pieces of sound.

    Raises BaselineRefused for too little, or for numbers that are none.
    """
    if len(logits) < LEAST_READINGS or seconds < LEAST_S[modality]:
        raise BaselineRefused(
            f"only {len(logits)} readings of the {modality} over {seconds:.1f} s; "
            f"{LEAST_READINGS} over {LEAST_S[modality]:.1f} s are needed"
        )
    stacked = np.stack([np.asarray(row, np.float64) for row in logits])
    if stacked.shape[1:] != (len(LABELS),) or not np.isfinite(stacked).all():
        raise BaselineRefused(
            f"the {modality} network gave readings that are no {len(LABELS)} finite numbers"
        )
    return Side(network, shift_of(modality, log_softmax(stacked).mean(axis=0), seconds), seconds)


def shift_of(modality: str, mean_log: Values, seconds: float) -> tuple[float, ...]:
    """The formula above."""
    terms = TERMS[modality]
    trust = seconds / (seconds + terms.doubt_s)
    shift = -trust * np.clip(mean_log - mean_log[0] + terms.usual, -terms.most, terms.most)
    shift[0] = 0.0
    return tuple(shift.tolist())


def sound_of(statistics: SpeakerStatistics) -> VoiceStatistics:
    """What is kept of a speaker's running statistics."""
    mean, istd = statistics.normaliser()
    variance = 1.0 / np.square(istd.astype(np.float64))
    seconds = statistics.weight * statistics.kept.unit_s
    return VoiceStatistics(tuple(map(float, mean)), tuple(map(float, variance)), seconds)


def log_softmax(logits: Values) -> NDArray[np.float64]:
    """Log-probabilities of every row."""
    raised = np.asarray(logits, np.float64)
    raised = raised - raised.max(axis=-1, keepdims=True)
    return np.asarray(raised - np.log(np.exp(raised).sum(axis=-1, keepdims=True)), np.float64)


SECONDS = 5.0
GOOD = 0.5
"""Looks of poorer quality than this are left out."""
ALONE = 0.25
"""A second face that is there for a larger share of the time makes it unclear whose profile it would be."""
_LONGEST_NS = 100 * MS
_RING_S = 10
Logits = NDArray[np.floating[Any]]


@dataclass(slots=True, eq=False)
class _Looks:
    """What one track gave."""

    logits: list[Logits] = field(default_factory=list)
    covers_ns: int = 0
    seen_ns: int | None = None
    poor: int = 0


class Sitting:
    """Takes the items of one person at rest. One caller."""

    def __init__(self, tools: Tools) -> None:
        self._tools = tools
        self._sights: dict[str, FaceAnalyzer] = {}
        self._people: defaultdict[int, _Looks] = defaultdict(_Looks)
        self._ring = AudioRing(_RING_S * SAMPLE_RATE)
        self._grid: PieceGrid = tools.pieces
        self._hearing = VoiceAnalyzer("the sitter", self._ring, self._grid)
        self._voice: list[Logits] = []
        self._pictures = self._blocks = 0

    def all_of(self, reader: MediaReader) -> None:
        """Everything until the end."""
        while True:
            try:
                item = reader.read(1.0)
            except EndOfStream:
                return
            if isinstance(item, VideoFrame):
                self._see(item)
            elif item is not None:
                self._hear(item)

    def result(self, networks: Mapping[str, str], wanted: Sequence[str]) -> Baseline:
        """The profile. Raises CalibrationRefused with what was missing, for anything that was wanted."""
        sides: dict[str, Side] = {}
        try:
            if "face" in wanted and "face" in networks:
                sides["face"] = self._face(networks["face"])
            if "voice" in wanted and "voice" in networks:
                seconds = len(self._voice) * self._grid.hop / SAMPLE_RATE
                if not self._voice:
                    raise BaselineRefused(
                        "no speech was heard: read a sentence or two in your ordinary voice, "
                        "or leave the voice out: --mic none"
                    )
                sides["voice"] = measure_baseline("voice", networks["voice"], self._voice, seconds)
            sound = sound_of(self._hearing.present_statistics()) if "voice" in sides else None
            return Baseline(sides, sound)
        except BaselineRefused as refusal:
            raise CalibrationRefused(f"no profile was made: {refusal}") from refusal

    def _face(self, network: str) -> Side:
        if not self._people:
            raise BaselineRefused("no face was in view: sit in front of the camera, with light on your face")
        looks = sorted(self._people.values(), key=lambda seen: -(len(seen.logits) + seen.poor))
        if len(looks) > 1 and len(looks[1].logits) > ALONE * max(len(looks[0].logits), 1):
            raise BaselineRefused("more than one face was in view: a profile is of one person, alone")
        if looks[0].poor > len(looks[0].logits):
            raise BaselineRefused(
                f"{looks[0].poor} looks at the face were small, dark, blurred or turned, and only "
                f"{len(looks[0].logits)} good: come nearer, with light on your face"
            )
        return measure_baseline("face", network, looks[0].logits, looks[0].covers_ns / SECOND)

    def _see(self, frame: VideoFrame) -> None:
        if frame.source not in self._sights:
            self._sights[frame.source] = FaceAnalyzer(frame.source, *self._tools.make_finders())
        for face in self._sights[frame.source].step(frame).faces:
            seen = self._people[face.track]
            if seen.seen_ns is not None:
                seen.covers_ns += min(max(frame.captured_ns - seen.seen_ns, 0), _LONGEST_NS)
            seen.seen_ns = frame.captured_ns
            if quality(face.crop, face.points).score < GOOD:
                seen.poor += 1
                continue
            (answer,), _ = self._tools.networks.ask([{"crop": face.crop}], [])
            if answer is not None:
                seen.logits.append(answer["logits"])

    def _hear(self, block: AudioBlock) -> None:
        self._ring.push(block)
        for piece in self._hearing.due(hop_doubled=False):
            _, (answer,) = self._tools.networks.ask([], [self._hearing.inputs(piece)])
            if answer is None:
                continue
            if self._hearing.take(piece, answer):
                self._voice.append(answer["logits"])


def measured(
    source: MediaReader, tools: Tools, networks: Mapping[str, str], wanted: Sequence[str]
) -> Baseline:
    """What an opened source says of one person.

    `wanted` are 'face', 'voice' or both, `networks` the names of what judges them.
    """
    sitting = Sitting(tools)
    sitting.all_of(source)
    return sitting.result(networks, wanted)


def baseline_in_words(baseline: Baseline) -> str:
    """What the profile will do."""
    parts = []
    for modality, side in baseline.sides.items():
        moved = sorted(zip(side.shift, LABELS, strict=True))
        low, high = [f"{label} {shift:+.1f}" for shift, label in (moved[0], moved[-1])]
        parts.append(f"{modality} from {side.seconds:.1f} s ({low} to {high})")
    return ", ".join(parts)
