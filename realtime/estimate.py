"""What is known about one person at one moment, from the evidence to the label.

One record is handed along: `people` lays the opinions of face and voice into it, `fusion` adds what they come
to together, `labelling` what is said about it. It keeps the logits of the fusion as they were before any
temperature, so calibration fits temperatures on records of what users saw and needs no second path.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from liveaffect.engines.recipe import LABELS, SUBSETS
from liveaffect.realtime import freshness
from liveaffect.realtime.cue import NOT_SURE, Scores
from liveaffect.realtime.pooling import Pooled

UNKNOWN: Scores = (1 / len(LABELS),) * len(LABELS)
"""What is said of somebody about whom nothing is known."""


@dataclass(frozen=True, slots=True, eq=False)
class Opinion:
    """What one modality says by itself, and how good its evidence is."""

    captured_ns: int
    """When the newest evidence behind it was captured."""
    short: Pooled
    """Of the present expression."""
    long: Pooled
    quality: float = 1.0
    """How good the evidence is, 0..1."""
    weakness: str | None = None
    """Why the quality is low, in words a user understands."""
    say: float = 1.0
    """How far it is to be heard beside another modality, 0..1."""

    def scores(self, temperature: float) -> Scores:
        """As probabilities."""
        return softmax(self.short.logits, temperature)


@dataclass(frozen=True, slots=True, eq=False)
class SpokenEvidence:
    """What somebody's last words tell of them."""

    captured_ns: int
    """When the last of them ended."""
    logits: NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class SpokenOpinion:
    """What somebody's last words say, and how far it counts beside face and voice."""

    scores: Scores
    """As probabilities: what a cue has under `words`."""
    weight: float
    """0..1: small for words that tell of no emotion, and falling to nothing after the last of them."""

    def joined(self, others: Scores) -> Scores:
        """Face and voice together with these words. That they are neutral says nothing about a person."""
        told = sum(self.scores[1:])
        if self.weight <= 0.0 or told <= 0.0:
            return others
        pairs = zip(others, (0.0, *self.scores[1:]), strict=True)
        return tuple((1.0 - self.weight) * other + self.weight * own / told for other, own in pairs)


@dataclass(frozen=True, slots=True)
class Circumstances:
    """What is known beside the evidence about one person."""

    network_failed: bool = False
    voice: str | None = None
    """State of the `Voice` that attribution decided on; None without a microphone."""
    two_voices: bool = False
    """More than one person speaks at the same time."""


@dataclass(frozen=True, slots=True, eq=False)
class Estimate:
    """About one person at one moment."""

    at_ns: int
    track: int | None
    face: Opinion | None = None
    voice: Opinion | None = None
    evidence_ns: int = 0
    """How much time the evidence covers, face and voice together."""
    circumstances: Circumstances = Circumstances()
    strength: tuple[float, ...] | None = None
    """How far the face has come from rest to each label; None without a face."""
    logits: NDArray[np.float64] = field(default_factory=lambda: np.zeros((len(SUBSETS), len(LABELS))))
    """What the fusion answered for each of SUBSETS, before any temperature."""
    shares: tuple[float, ...] = (0.0,) * len(SUBSETS)
    """How much each of those answers counts; they sum to one, or are zero without an answer."""
    weights: tuple[float, float, float] = (0.0, 0.0, 0.0)
    """Share of face, voice and words in the answer."""
    raw: Scores = UNKNOWN
    """What it comes to; sums to one."""
    scores: Scores = UNKNOWN
    """The same, faded by its age: what is shown."""
    label: str = NOT_SURE
    """One of LABELS, or 'not sure'."""
    confidence: float = 0.0
    """Probability of the leading label, whether it is shown or not."""
    reason: str | None = None
    """Why the label is 'not sure', else None."""
    words: SpokenOpinion | None = None
    """None where words are not heard, or nothing was said lately."""

    @property
    def subset(self) -> str:
        """Which evidence there is: one of SUBSETS, or nothing."""
        there = (("face", self.face), ("voice", self.voice))
        return "+".join(name for name, opinion in there if opinion is not None)

    @property
    def answered(self) -> bool:
        """Whether the fusion could say anything."""
        return any(self.shares)

    @property
    def fresh(self) -> float:
        """How much it counts by the age of the newer opinion, 0 to 1."""
        face, voice = (
            None if one is None else freshness.age_ns(self.at_ns, one.captured_ns)
            for one in (self.face, self.voice)
        )
        return max(freshness.FACE.share(face), freshness.VOICE.share(voice))

    def joint(self, temperatures: Mapping[str, float]) -> Scores:
        """All answers together, each believed as far as its subset's temperature says."""
        if not self.answered:
            return UNKNOWN
        parts = [
            (share, softmax(self.logits[row], temperatures.get(SUBSETS[row], 1.0)))
            for row, share in enumerate(self.shares)
            if share
        ]
        joint = tuple(sum(share * scores[k] for share, scores in parts) for k in range(len(LABELS)))
        return joint if self.words is None else self.words.joined(joint)


def softmax(logits: NDArray[np.floating], temperature: float = 1.0) -> Scores:
    """Seven probabilities that sum to one."""
    raised = np.asarray(logits, np.float64) / temperature
    powers = np.exp(raised - raised.max())
    return tuple((powers / powers.sum()).tolist())
