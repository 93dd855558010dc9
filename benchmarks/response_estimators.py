"""Ways to say what a face shows from its looks: what the path does, what it did before, and none."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from liveaffect.engines.recipe import LABELS, SUBSETS
from liveaffect.realtime import expression
from liveaffect.realtime.clock import MS, SECOND
from liveaffect.realtime.cue import NOT_SURE, Scores
from liveaffect.realtime.estimate import Confidence, Estimate, Labeller, Opinion, softmax
from liveaffect.realtime.expression import Dynamics, Evidence, Memory, Rest, weighted_score

FUSION_TEMPERATURE = 0.6607
"""What the shipped fusion divides the logits of a face alone by."""
LONGEST_LOOK_NS = SECOND // 10
FRAMES, STACKED, PRESENT = "frame by frame", "window", "correlation"
"""How the names of the ways begin."""
Logits = NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class Look:
    """One look at one face, as the network judged it."""

    at_ns: int
    logits: Logits
    score: float
    quality: float


class Estimator(Protocol):
    """Of one face; lives and dies with the track."""

    def see(self, look: Look) -> tuple[Scores, str]:
        """What is shown after this look, and the label."""
        ...


class Present:
    """What the path does: evidence since the last change, against the face's own rest."""

    def __init__(
        self, confidence: Confidence, dynamics: Dynamics = expression.FACE, *, rest: bool = True
    ) -> None:
        self._memory = Memory(dynamics, rest=Rest(dynamics.temperature) if rest else None)
        self._labeller: Labeller = confidence.labeller()
        self._before_ns: int | None = None

    def see(self, look: Look) -> tuple[Scores, str]:
        """After one look."""
        covers_ns = 0 if self._before_ns is None else min(look.at_ns - self._before_ns, LONGEST_LOOK_NS)
        self._before_ns = look.at_ns
        score = weighted_score(look.score, look.quality)
        item = Evidence(look.at_ns, np.zeros(1, np.float32), look.logits, score, look.quality)
        self._memory.add(item, covers_ns)
        pooled = self._memory.read()
        assert pooled is not None
        logits = np.zeros((len(SUBSETS), len(LABELS)))
        logits[0] = pooled[0].logits / FUSION_TEMPERATURE
        face = Opinion(look.at_ns, *pooled, quality=look.quality)
        known = Estimate(
            look.at_ns, 1, face, evidence_ns=self._memory.evidence_ns, logits=logits, shares=(1.0, 0.0, 0.0)
        )
        said = self._labeller.label(known)
        return said.scores, said.label


class FrameByFrame:
    """Every look for itself, as other programs do."""

    def __init__(self, confidence: Confidence) -> None:
        self._temperature = FUSION_TEMPERATURE * confidence.fused.get("face", 1.0)
        self._threshold = confidence.thresholds.get("face", 0.45)

    def see(self, look: Look) -> tuple[Scores, str]:
        """After one look."""
        scores = softmax(look.logits, self._temperature)
        best = max(range(len(scores)), key=scores.__getitem__)
        return scores, LABELS[best] if scores[best] >= self._threshold else NOT_SURE


@dataclass(frozen=True, slots=True)
class Stages:
    """The constants of what the path did before: one stage after the other."""

    window_s: float = 2.0
    constant_s: float = 0.15
    again_s: float = 0.05
    little_s: float = 0.5
    margin: float = 0.10
    patience_s: float = 0.3
    slack: float = 0.05
    close: float = 0.05
    price: float = 0.20


@dataclass(slots=True)
class Stacked:
    """What the path did before: window, running average, hysteresis, patience and caution."""

    confidence: Confidence
    stages: Stages = Stages()
    _looks: deque[Look] = field(default_factory=deque)
    _mean: NDArray[np.float64] | None = None
    _at_s: float = -1.0
    _seen_s: float = 0.0
    _leading: int | None = None
    _rival_s: float | None = None
    _shown: tuple[Scores, str] = ((1 / 7,) * 7, NOT_SURE)

    def see(self, look: Look) -> tuple[Scores, str]:
        """After one look; between grid points the answer was renewed every 50 ms."""
        s, now_s = self.stages, look.at_ns / SECOND
        if self._looks:
            self._seen_s += min(now_s - self._looks[-1].at_ns / SECOND, 0.1)
        self._looks.append(look)
        while self._looks[0].at_ns / SECOND <= now_s - s.window_s:
            self._looks.popleft()
        if now_s - self._at_s < s.again_s and int(now_s * 10) == int(self._at_s * 10):
            return self._shown
        heights = np.array([weighted_score(one.score, one.quality) for one in self._looks])
        weights = np.exp(heights - heights.max())
        pooled = (weights / weights.sum()) @ np.stack([one.logits for one in self._looks])
        raw = np.array(softmax(pooled, FUSION_TEMPERATURE * self.confidence.fused.get("face", 1.0)))
        keep = math.exp(-(now_s - self._at_s) / s.constant_s) if s.constant_s else 0.0
        self._mean = raw if self._mean is None else keep * self._mean + (1 - keep) * raw
        self._at_s = now_s
        self._shown = (tuple(self._mean.tolist()), self._label(self._mean, look.quality))
        return self._shown

    def _label(self, scores: NDArray[np.float64], quality: float) -> str:
        s, best = self.stages, int(scores.argmax())
        if self._leading is None or best == self._leading:
            self._leading, self._rival_s = best, None
        else:
            self._rival_s = self._at_s if self._rival_s is None else self._rival_s
            clear = scores[best] - scores[self._leading] >= s.margin
            if clear or self._at_s - self._rival_s >= s.patience_s:
                self._leading, self._rival_s = best, None
        shown, leading = self._shown[1] != NOT_SURE, self._leading
        needed = self.confidence.thresholds.get("face", 0.45) + (1 - quality) * s.price - shown * s.slack
        lead = scores[leading] - np.delete(scores, leading).max()
        enough = self._seen_s >= s.little_s and scores[leading] >= needed
        return LABELS[leading] if enough and lead >= (-s.margin if shown else s.close) else NOT_SURE


def ways(confidence: Confidence, before: Confidence) -> dict[str, Callable[[], Estimator]]:
    """Points of the curve by name: each makes an estimator for a new face."""
    found: dict[str, Callable[[], Estimator]] = {FRAMES: partial(FrameByFrame, before)}
    for window_s, constant_s in ((2.0, 0.15), (1.0, 0.15), (0.5, 0.15), (0.3, 0.1), (0.15, 0.05)):
        name = f"{STACKED} {window_s:g} s, {1000 * constant_s:g} ms"
        found[name] = partial(Stacked, before, Stages(window_s, constant_s))
    for milliseconds in (10, 20, 50, 100, 200, 400):
        dynamics = replace(expression.FACE, correlation_ns=milliseconds * MS)
        found[f"{PRESENT} {milliseconds} ms"] = partial(Present, confidence, dynamics)
        found[f"{PRESENT} {milliseconds} ms, no rest"] = partial(Present, confidence, dynamics, rest=False)
    return found
