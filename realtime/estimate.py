"""What is known about one person at one moment, how far that is believed, and the label or why there is none.

One record is handed along: `people` lays the opinions of face and voice into it, `fusion` adds what they
come to together, `Labeller` what is said about it. It keeps the logits of the fusion as they were before
any temperature, so calibration fits temperatures on records of what users saw and needs no second path.

There is nothing left to smooth: an estimate is steady by the evidence it rests on. A label that is shown is
held on to a little longer than it would be taken up, so that it does not flicker where two are close.
Without calibration every temperature is 1 and the threshold is the labeller's own; then `caveat` says so,
and the overlay with it. Whoever wires a run reads it from the manifests; the path itself knows neither
manifests nor calibration. Pure: the time stands in the estimate.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from liveaffect.engines.recipe import LABELS, SUBSETS
from liveaffect.realtime import cue
from liveaffect.realtime.clock import MS
from liveaffect.realtime.cue import NOT_SURE, Scores
from liveaffect.realtime.expression import Pooled

_NEUTRAL = LABELS.index("neutral")
WORDS_GAIN = 0.19
"""How much words count beside face and voice, which count one: learnt and judged by
`benchmarks/accuracy/words_beside.py` on made-up pairs, for no film at hand has all three."""
_LEAST = 1e-6
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
    """What somebody's last words say, and how far it still counts beside face and voice.

    That words are plain says nothing of a person; so an emotion counts by how much likelier than neutral it
    is, and words without one change nothing.
    """

    scores: Scores
    """As probabilities: what a cue has under `words`."""
    fresh: float = 1.0
    """1, and falling to nothing after the last of them."""
    weighed: bool = False
    """A fusion that learnt how much words count has them already; joined again they would count twice."""

    @property
    def lead(self) -> float:
        """How far an emotion leads neutral, 0..1; nothing for a fusion that weighed it."""
        return 0.0 if self.weighed else self.fresh * max(0.0, max(self.scores[1:]) - self.scores[0])

    @property
    def weight(self) -> float:
        """Share of the words in an answer with face or voice."""
        return WORDS_GAIN * self.lead / (1.0 + WORDS_GAIN * self.lead)

    @property
    def emotions(self) -> Scores:
        """What they say once they are taken for emotional at all."""
        told = max(sum(self.scores[1:]), _LEAST)
        return (0.0, *(score / told for score in self.scores[1:]))

    def joined(self, others: Scores) -> Scores:
        """Face and voice together with these words, as a product: what all doubt stays doubtful."""
        if self.lead <= 0.0:
            return others
        plain, power = max(self.scores[0], _LEAST), WORDS_GAIN * self.fresh
        pairs = zip(others, self.scores, strict=True)
        raised = [other * max(1.0, own / plain) ** power for other, own in pairs]
        whole = sum(raised)
        return tuple(one / whole for one in raised)


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
            None if one is None else cue.age_ns(self.at_ns, one.captured_ns)
            for one in (self.face, self.voice)
        )
        return max(cue.FACE.share(face), cue.VOICE.share(voice))

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


class Reason(StrEnum):
    """Why nothing is claimed. Where several hold, the first in this order is given."""

    NETWORK_FAILED = "network failed"
    VOICE_OF_NOBODY = "voice of nobody in view"
    NO_SPEECH = "no speech"
    NOTHING = "no face or voice"
    LITTLE_EVIDENCE = "little evidence"
    FACE_SMALL = "face small"
    FACE_TURNED = "face turned"
    FACE_DARK = "face dark"
    FACE_BLURRED = "face blurred"
    VOICE_NOISY = "voice noisy"
    VOICE_CLIPPED = "voice clipped"
    TWO_VOICES = "two voices"
    DISAGREEMENT = "face and voice disagree"
    TOO_CLOSE = "scores too close"


@dataclass(frozen=True, slots=True)
class LabelSettings:
    """From when on something is said, and for how long it is held on to."""

    threshold: float = 0.45
    """Confidence from which a label is shown where calibration found no other."""
    thresholds: Mapping[str, float] = field(default_factory=dict)
    """What calibration found instead, for 'face', 'voice' and 'face+voice'."""
    slack: float = 0.05
    """A label that is shown stays until its confidence is this far below what it needed."""
    margin: float = 0.10
    """A new label takes over when it leads the old one by this much."""
    close: float = 0.05
    """Two best labels nearer than this are too close to call, unless one of them is shown already."""
    little_face_ms: float = 60.0
    """A face seen for less than this is too little: one look, or two of a fast camera."""
    little_voice_ms: float = 500.0
    """A voice alone heard for less than this is too little."""
    poor_quality_price: float = 0.20
    """A worthless face or voice with nothing beside it must be this much more certain; a good one nothing."""
    lively_price: float = 0.06
    """A voice alone must be this much more certain of anything but neutral: most talk is plain."""
    overlap: float = 0.35
    """Face and voice, or both and words, disagree when they share less of their probability than this."""
    telling_words: float = 0.5
    """Words in which no emotion leads neutral by so much are not asked whether they disagree."""
    disagreement_price: float = 0.10
    """When they disagree, the answer must be this much more certain."""

    def __post_init__(self) -> None:
        for name in ("little_face_ms", "little_voice_ms"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name} is a time of 0 ms or more, got {getattr(self, name)}")


def is_little(estimate: Estimate, settings: LabelSettings) -> bool:
    """Whether there is too little evidence to say anything yet."""
    least_ms = settings.little_voice_ms if estimate.face is None else settings.little_face_ms
    return estimate.evidence_ns < least_ms * MS


class Labeller:
    """Says what one person shows; lives and dies with the track. One caller."""

    def __init__(
        self,
        settings: LabelSettings | None = None,
        *,
        joint: Mapping[str, float] | None = None,
        alone: Mapping[str, float] | None = None,
    ) -> None:
        """Temperatures of joint answers by subset, and of what each modality says alone."""
        self.settings = settings or LabelSettings()
        self._joint, self._alone = joint or {}, alone or {}
        self._leading: int | None = None
        self._shown = False

    def label(self, estimate: Estimate) -> Estimate:
        """The estimate with what is said about it. ValueError for scores that make no sense.

        The newer of the two opinions decides how fresh it is: stale ones fade towards knowing nothing.
        """
        fresh = estimate.fresh if estimate.answered else 0.0
        if fresh == 0.0:
            self._leading, self._shown = None, False
            return replace(estimate, reason=_why_nothing(estimate))
        raw = checked(estimate.joint(self._joint))
        scores = raw
        if fresh < 1.0:
            scores = tuple(fresh * a + (1.0 - fresh) * b for a, b in zip(raw, UNKNOWN, strict=True))
        leading = self._lead(scores)
        reason = self._why_unsure(estimate, scores, leading)
        self._shown = reason is None
        label = NOT_SURE if reason else LABELS[leading]
        return replace(
            estimate, raw=raw, scores=scores, label=label, confidence=scores[leading], reason=reason
        )

    def _lead(self, scores: Scores) -> int:
        """The label that leads, with hysteresis: a rival needs a clear lead."""
        best = max(range(len(scores)), key=scores.__getitem__)
        if self._leading is None or scores[best] - scores[self._leading] >= self.settings.margin:
            self._leading = best
        return self._leading

    def _why_unsure(self, estimate: Estimate, scores: Scores, leading: int) -> Reason | None:
        """None when the label can be said."""
        s = self.settings
        if is_little(estimate, s):
            return Reason.LITTLE_EVIDENCE
        opinions = [one for one in (estimate.face, estimate.voice) if one is not None]
        needed = s.thresholds.get(estimate.subset, s.threshold)
        if len(opinions) == 1:
            needed += (1.0 - min(max(opinions[0].quality, 0.0), 1.0)) * s.poor_quality_price
        if estimate.face is None and leading != _NEUTRAL:
            needed += s.lively_price
        disagree = self._disagree(estimate.face, estimate.voice)
        said = estimate.words
        if said is not None and said.lead >= s.telling_words:
            without = replace(estimate, words=None).joint(self._joint)
            disagree = disagree or sum(map(min, without, said.emotions)) < s.overlap
        if disagree:
            needed += s.disagreement_price
        lead = scores[leading] - max(score for k, score in enumerate(scores) if k != leading)
        # A label that hysteresis holds may lie behind by less than the margin; that is no reason to drop it.
        wanted = -s.margin if self._shown else s.close
        if scores[leading] >= needed - (s.slack if self._shown else 0.0) and lead >= wanted:
            return None
        known = set(Reason)
        for opinion in opinions:
            if opinion.weakness in known:
                return Reason(opinion.weakness)
        if estimate.circumstances.two_voices:
            return Reason.TWO_VOICES
        return Reason.DISAGREEMENT if disagree else Reason.TOO_CLOSE

    def _disagree(self, face: Opinion | None, voice: Opinion | None) -> bool:
        if face is None or voice is None:
            return False
        both = (one.scores(self._alone.get(name, 1.0)) for name, one in (("face", face), ("voice", voice)))
        return bool(sum(map(min, *both)) < self.settings.overlap)


def _why_nothing(estimate: Estimate) -> Reason:
    if estimate.circumstances.network_failed:
        return Reason.NETWORK_FAILED
    if estimate.circumstances.voice == "nobody in view":
        return Reason.VOICE_OF_NOBODY
    if estimate.circumstances.voice == "nobody speaks":
        return Reason.NO_SPEECH
    return Reason.NOTHING


def checked(scores: Scores) -> Scores:
    """The same distribution, summing to one exactly; ValueError names the entry that makes no sense."""
    if len(scores) != len(LABELS):
        raise ValueError(f"a distribution has {len(LABELS)} entries, got {len(scores)}")
    for label, score in zip(LABELS, scores, strict=True):
        if not 0.0 <= score <= 1.0 + 1e-6:
            raise ValueError(f"the score of '{label}' is {score}; it must be a probability from 0 to 1")
    total = math.fsum(scores)
    if abs(total - 1.0) > 1e-3:
        raise ValueError(
            f"the scores sum to {total:.6f} instead of 1: {dict(zip(LABELS, scores, strict=True))}"
        )
    return tuple(score / total for score in scores)


@dataclass(frozen=True, slots=True)
class Confidence:
    """One for a whole run."""

    readings: Mapping[str, float] = field(default_factory=dict)
    """Temperature of what 'face' and 'voice' say each on their own."""
    fused: Mapping[str, float] = field(default_factory=dict)
    """Temperature of a fused answer, by the evidence it rests on: 'face', 'voice', 'face+voice'."""
    thresholds: Mapping[str, float] = field(default_factory=dict)
    """By the same names."""
    picture_threshold: float | None = None
    """For a single picture, which is never fused."""
    caveat: str | None = None
    """What must be said as long as not everything that is judged was calibrated."""
    watch: Callable[[Estimate], None] | None = None
    """Is shown every estimate that was labelled; calibration keeps them."""

    def of_reading(self, modality: str) -> float:
        """The temperature of one modality on its own."""
        return self.readings.get(modality, 1.0)

    def labeller(self) -> Labeller:
        """What says what one person shows, from now on."""
        settings = LabelSettings(thresholds=self.thresholds)
        return Labeller(settings, joint=self.fused, alone=self.readings)
