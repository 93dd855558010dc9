"""Steadies the answer about one person, and says "not sure" with its reason instead of guessing.

Probabilities run through an exponential average whose constant is a time, not a number of calls, so a
late grid point changes nothing but its own age. Averaging probabilities rather than logits keeps a single
overconfident picture from deciding alone. Labels change with hysteresis. Pure: the time is an argument.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from liveaffect.engines.recipe import LABELS
from liveaffect.realtime.clock import MS
from liveaffect.realtime.cue import NOT_SURE, Reading, Scores

_UNKNOWN: Scores = (1 / len(LABELS),) * len(LABELS)


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
class SmoothingSettings:
    """What the steadying trades delay against calm with."""

    time_constant_ms: float = 150.0
    """After this time a sudden change has been followed to 63 %."""
    step_ms: float = 100.0
    """Usual time between two answers; only `LabelSmoother.delay_ms` depends on it."""
    threshold: float = 0.45
    """Confidence from which a label is shown where calibration found no other."""
    thresholds: Mapping[str, float] = field(default_factory=dict)
    """What calibration found instead, for 'face', 'voice' and 'face+voice'."""
    slack: float = 0.05
    """A label that is shown stays until its confidence is this far below what it needed."""
    margin: float = 0.10
    """A new label takes over at once when it leads the old one by this much."""
    patience_ms: float = 300.0
    """A new label with a smaller lead takes over when it has led for this long."""
    close: float = 0.05
    """Two best labels nearer than this are too close to call, unless one of them is shown already."""
    little_ms: float = 500.0
    """Less evidence than this is too little."""
    poor_quality_price: float = 0.20
    """A worthless face or voice with nothing beside it must be this much more certain; a good one nothing."""
    overlap: float = 0.35
    """Face and voice disagree when they share less of their probability than this."""
    disagreement_price: float = 0.10
    """When they disagree, the answer must be this much more certain."""
    face_fades_ms: float = 300.0
    """A face reading begins to fade at this age."""
    face_expires_ms: float = 500.0
    """From this age on a face reading counts nothing."""
    voice_fades_ms: float = 1_500.0
    """A voice reading begins to fade at this age."""
    voice_expires_ms: float = 2_000.0
    """From this age on a voice reading counts nothing."""

    def __post_init__(self) -> None:
        for name in ("time_constant_ms", "step_ms", "patience_ms", "little_ms"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name} is a time of 0 ms or more, got {getattr(self, name)}")
        for modality in ("face", "voice"):
            fades, expires = getattr(self, f"{modality}_fades_ms"), getattr(self, f"{modality}_expires_ms")
            if not 0 <= fades < expires:
                raise ValueError(
                    f"a {modality} reading fades before it expires, got {fades} and {expires} ms"
                )


@dataclass(frozen=True, slots=True)
class Circumstances:
    """What is known beside the scores of one person."""

    network_failed: bool = False
    voice: str | None = None
    """State of the `Voice` that attribution decided on; None without a microphone."""
    two_voices: bool = False
    """More than one person speaks at the same time."""


@dataclass(frozen=True, slots=True)
class Basis:
    """What the answer about one person rests on at one moment."""

    face: Reading | None
    voice: Reading | None
    evidence_ns: int
    """How much time the evidence covers, face and voice together."""
    circumstances: Circumstances = Circumstances()

    @property
    def alone(self) -> Reading | None:
        """The only reading there is."""
        return None if self.face is not None and self.voice is not None else self.face or self.voice

    @property
    def subset(self) -> str:
        """Which readings there are."""
        there = (("face", self.face), ("voice", self.voice))
        return "+".join(name for name, reading in there if reading is not None)


@dataclass(frozen=True, slots=True)
class Shown:
    """What is said about one person."""

    scores: Scores
    """Smoothed; sums to one."""
    label: str
    """One of LABELS, or 'not sure'."""
    confidence: float
    """Probability of the leading label, whether it is shown or not."""
    reason: str | None
    """Why the label is 'not sure', else None."""


def freshness(age_ns: int, fades_ms: float, expires_ms: float) -> float:
    """Weight of a reading by its age: 1 until it begins to fade, then in a straight line to 0."""
    return min(max((expires_ms - age_ns / MS) / (expires_ms - fades_ms), 0.0), 1.0)


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


def decide_label(
    fused: Scores | None, basis: Basis, settings: SmoothingSettings, *, leading: str, shown: bool
) -> tuple[str, float, Reason | None]:
    """Label, confidence and reason for smoothed scores; `fused` is None when there is no evidence.

    `leading` is the label that hysteresis holds to; `shown` says whether it was shown until now.
    """
    if fused is None:
        return NOT_SURE, 0.0, _why_nothing(basis)
    confidence = fused[LABELS.index(leading)]
    if basis.evidence_ns < settings.little_ms * MS:
        return NOT_SURE, confidence, Reason.LITTLE_EVIDENCE
    needed = settings.thresholds.get(basis.subset, settings.threshold)
    needed += _poverty(basis) * settings.poor_quality_price
    disagree = _disagree(basis, settings)
    if disagree:
        needed += settings.disagreement_price
    lead = confidence - max(score for label, score in zip(LABELS, fused, strict=True) if label != leading)
    # A label that hysteresis holds may lie behind by less than the margin; that is no reason to drop it.
    wanted_lead = -settings.margin if shown else settings.close
    if confidence >= needed - (settings.slack if shown else 0.0) and lead >= wanted_lead:
        return leading, confidence, None
    return NOT_SURE, confidence, _why_unsure(basis, disagree)


def _why_nothing(basis: Basis) -> Reason:
    if basis.circumstances.network_failed:
        return Reason.NETWORK_FAILED
    if basis.circumstances.voice == "nobody in view":
        return Reason.VOICE_OF_NOBODY
    if basis.circumstances.voice == "nobody speaks":
        return Reason.NO_SPEECH
    return Reason.NOTHING


def _why_unsure(basis: Basis, disagree: bool) -> Reason:
    for reading in (basis.face, basis.voice):
        if reading is not None and reading.weakness in set(Reason):
            return Reason(reading.weakness)
    if basis.circumstances.two_voices:
        return Reason.TWO_VOICES
    return Reason.DISAGREEMENT if disagree else Reason.TOO_CLOSE


def _poverty(basis: Basis) -> float:
    return 0.0 if basis.alone is None else 1.0 - min(max(basis.alone.quality, 0.0), 1.0)


def _disagree(basis: Basis, settings: SmoothingSettings) -> bool:
    if basis.face is None or basis.voice is None:
        return False
    shared = sum(map(min, basis.face.scores, basis.voice.scores))
    return shared < settings.overlap


class LabelSmoother:
    """The steadied answer about one person; lives and dies with the track. One caller."""

    def __init__(self, settings: SmoothingSettings | None = None) -> None:
        self.settings = settings or SmoothingSettings()
        self._scores: Scores | None = None
        self._at_ns = 0
        self._leading: str | None = None
        self._rival_since_ns: int | None = None
        self._shown = False

    @property
    def delay_ms(self) -> float:
        """How far the smoothed scores lag behind, one answer per `step_ms`; a part of every latency."""
        keep = self._keep(round(self.settings.step_ms * MS))
        return self.settings.step_ms * keep / (1.0 - keep)

    def step(
        self,
        now_ns: int,
        raw: Scores | None,
        *,
        face: Reading | None,
        voice: Reading | None,
        evidence_ns: int,
        circumstances: Circumstances,
    ) -> Shown:
        """Move on to `now_ns` with the fused scores of that time, or None when nothing could be fused.

        The newer of the two readings decides how fresh the scores are: stale ones fade towards knowing
        nothing. A time that lies behind counts as no time passed. ValueError for scores that make no sense.
        """
        basis = Basis(face, voice, evidence_ns, circumstances)
        fresh = 0.0 if raw is None else self._freshness(now_ns, face, voice)
        passed_ns = max(0, now_ns - self._at_ns)
        self._at_ns = max(now_ns, self._at_ns)
        if raw is None or fresh == 0.0:
            self._scores, self._leading, self._rival_since_ns, self._shown = None, None, None, False
            label, confidence, reason = decide_label(
                None, basis, self.settings, leading=LABELS[0], shown=False
            )
            return Shown(_UNKNOWN, label, confidence, reason)
        target = _mix(checked(raw), _UNKNOWN, fresh)
        self._scores = target if self._scores is None else _mix(self._scores, target, self._keep(passed_ns))
        leading = self._lead(self._scores)
        label, confidence, reason = decide_label(
            self._scores, basis, self.settings, leading=leading, shown=self._shown
        )
        self._shown = reason is None
        return Shown(self._scores, label, confidence, reason)

    def _keep(self, passed_ns: int) -> float:
        constant_ns = self.settings.time_constant_ms * MS
        return math.exp(-passed_ns / constant_ns) if constant_ns else 0.0

    def _freshness(self, now_ns: int, face: Reading | None, voice: Reading | None) -> float:
        s = self.settings
        fresh: list[float] = []
        if face is not None:
            fresh.append(freshness(now_ns - face.captured_ns, s.face_fades_ms, s.face_expires_ms))
        if voice is not None:
            fresh.append(freshness(now_ns - voice.captured_ns, s.voice_fades_ms, s.voice_expires_ms))
        return max(fresh, default=1.0)

    def _lead(self, scores: Scores) -> str:
        """The label that leads, with hysteresis: a rival needs a clear lead or a lasting one."""
        best = max(range(len(scores)), key=scores.__getitem__)
        rival = LABELS[best]
        if self._leading is None or self._leading == rival:
            self._leading, self._rival_since_ns = rival, None
            return rival
        if self._rival_since_ns is None:
            self._rival_since_ns = self._at_ns
        clear = scores[best] - scores[LABELS.index(self._leading)] >= self.settings.margin
        lasting = self._at_ns - self._rival_since_ns >= self.settings.patience_ms * MS
        if clear or lasting:
            self._leading, self._rival_since_ns = rival, None
        return self._leading


def _mix(a: Scores, b: Scores, share: float) -> Scores:
    """`share` of `a` and the rest of `b`."""
    return tuple(share * x + (1.0 - share) * y for x, y in zip(a, b, strict=True))
