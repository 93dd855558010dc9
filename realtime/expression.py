"""What a face shows, or a voice, at this moment: evidence since the last change.

Evidence is summed up for as long as it tells of one expression, and from anew when it tells of another. When
the present expression began is not known, so every look begins a hypothesis "it began here"; a hidden Markov
model over (beginning, label) weighs them. What is shown is the mean of the evidence since the beginning,
averaged over the hypotheses: steady while nothing changes, because it rests on all of it, and quick when
something does, because hypotheses that hold older looks lose their weight within a few new ones.

Looks of one face are not independent. For noise that is forgotten at a rate of 1/correlation, a look that
comes `dt` after the last one tells tanh(dt / 2 correlation) of what an independent one would: sixty looks a
second prove no more than twenty. Why these numbers: docs/decisions/0021-the-present-expression.md.
"""

from __future__ import annotations

import bisect
import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from liveaffect.engines.recipe import LABELS
from liveaffect.realtime.clock import MS, SECOND
from liveaffect.realtime.pooling import Evidence, Forgetting, Pooled
from liveaffect.realtime.resting import Rest

FIRST_SHARE = 1 / 3
"""How much of an independent look the first one of a face is."""
LEAST_SHARE = 1e-3
"""A look in the very moment of the last one tells hardly anything, but is not nothing."""
_ONE = np.ones(1, np.float32)
MERGED_AT_ONCE = 8
"""Beginnings that lie too far back wait for so many, because merging costs as much as a look."""
IMPOSSIBLE = 1e-12
"""The least probability that a label has just begun."""


@dataclass(frozen=True, slots=True)
class Dynamics:
    """How one modality's expressions come and go, and how its evidence is correlated."""

    correlation_ns: int
    """After this time the errors of two looks have little to do with each other."""
    dwell_ns: int
    """How long an expression lasts on average, as far as is known beforehand."""
    memory_ns: int
    """Evidence of an expression that lasts is forgotten at this rate; older beginnings are not told apart."""
    temperature: float
    """What logits of one item are divided by to become likelihoods."""

    def __post_init__(self) -> None:
        if min(self.correlation_ns, self.dwell_ns, self.memory_ns) <= 0 or not self.temperature > 0:
            raise ValueError(f"times and temperature of an expression are positive, got {self}")

    def told(self, dt_ns: int) -> float:
        """How much of an independent look one tells that comes so long after the last."""
        return max(LEAST_SHARE, math.tanh(max(dt_ns, 0) / (2 * self.correlation_ns)))


FACE = Dynamics(50 * MS, 2 * SECOND, SECOND, 0.66)
VOICE = Dynamics(800 * MS, 12 * SECOND, 4 * SECOND, 1.1)


class Expression:
    """One modality of one person. Dies with the track; one caller."""

    def __init__(self, dynamics: Dynamics) -> None:
        self._dynamics = dynamics
        self._at_ns = 0
        self._begun_ns: list[int] = []
        self._belief = np.zeros((0, len(LABELS)))
        """Probability of (beginning, label)."""
        self._sums = np.zeros((0, 0))
        """Of vector, logits and 1 since each beginning, weighted and forgotten."""
        self._highest = -math.inf
        """Score that the weights of the sums are relative to."""
        self._pooled: Pooled | None = None
        """What was read of the newest evidence."""

    def add(self, item: Evidence) -> None:
        """Take in one look or one piece of sound; what comes out of order counts as simultaneous."""
        first = not self._begun_ns
        dt_ns = 0 if first else max(0, item.captured_ns - self._at_ns)
        share = FIRST_SHARE if first else self._dynamics.told(dt_ns)
        self._at_ns = max(self._at_ns, item.captured_ns)
        self._pooled = None
        self._begin(dt_ns, width=len(item.vector) + len(LABELS) + 1)
        told = item.logits.astype(np.float64) * (share * item.share / self._dynamics.temperature)
        belief = self._belief[: len(self._begun_ns)]
        belief *= np.exp(told - np.maximum.reduce(told))
        belief /= np.add.reduce(belief, None)
        self._sum_up(item, share, math.exp(-dt_ns / self._dynamics.memory_ns))
        self._merge()

    def read(self) -> Pooled | None:
        """The mean of the present expression's evidence; None before the first."""
        count = len(self._begun_ns)
        if count and self._pooled is None:
            sums = self._sums[:count]
            shares = np.add.reduce(self._belief[:count], 1) / sums[:, -1]
            mean = (shares @ sums[:, :-1]).astype(np.float32)
            self._pooled = Pooled(vector=mean[: -len(LABELS)], logits=mean[-len(LABELS) :])
        return self._pooled

    def _begin(self, dt_ns: int, *, width: int) -> None:
        """One hypothesis more: that the label changed since the last look."""
        count = len(self._begun_ns)
        if count == len(self._belief):
            self._make_room(width)
        if count:
            stay = math.exp(-dt_ns / self._dynamics.dwell_ns)
            belief = self._belief[:count]
            # All probabilities sum to one, so what is not of a label is one less that. What nearly is
            # impossible must not become so for ever.
            others = np.maximum(1.0 - np.add.reduce(belief, 0), IMPOSSIBLE)
            self._belief[count] = (1 - stay) / (len(LABELS) - 1) * others
            belief *= stay
        else:
            self._belief[count] = 1 / len(LABELS)
        self._sums[count] = 0.0
        self._begun_ns.append(self._at_ns)

    def _sum_up(self, item: Evidence, share: float, kept: float) -> None:
        if item.score > self._highest:
            kept *= math.exp(self._highest - item.score) if self._highest > -math.inf else 0.0
            self._highest = item.score
        weight = share * math.exp(item.score - self._highest)
        sums = self._sums[: len(self._begun_ns)]
        sums *= kept
        row: NDArray[np.float32] = np.concatenate((item.vector, item.logits, _ONE))
        sums += weight * row

    def _merge(self) -> None:
        """Beginnings that lie further back than the memory become one."""
        before_ns = self._at_ns - self._dynamics.memory_ns
        old = bisect.bisect_right(self._begun_ns, before_ns)
        if old < MERGED_AT_ONCE:
            return
        count = len(self._begun_ns)
        shares = self._belief[:old].sum(axis=1) + IMPOSSIBLE
        shares /= shares.sum()
        # Means, not sums, are mixed: an improbable beginning must not gain by the looks it holds.
        weight = float(shares @ self._sums[:old, -1])
        self._sums[0] = (shares / self._sums[:old, -1]) @ self._sums[:old] * weight
        self._belief[0] = self._belief[:old].sum(axis=0)
        left = count - old
        self._sums[1 : 1 + left] = self._sums[old:count].copy()
        self._belief[1 : 1 + left] = self._belief[old:count].copy()
        self._begun_ns[:old] = [self._begun_ns[old - 1]]

    def _make_room(self, width: int) -> None:
        """Arrays twice as long; as many beginnings as looks fit into the memory are kept."""
        count = len(self._begun_ns)
        belief, sums = np.zeros((2 * count + 8, len(LABELS))), np.zeros((2 * count + 8, width))
        belief[:count] = self._belief
        if count:
            sums[:count] = self._sums
        self._belief, self._sums = belief, sums


class Memory:
    """What is remembered of one modality of one person. Dies with the track."""

    def __init__(self, dynamics: Dynamics, *, rest: Rest | None = None) -> None:
        """`rest`: learn what this one looks like at rest, and judge the expression by that."""
        self.rest = rest
        self.newest_ns: int | None = None
        """When the newest evidence was captured."""
        self.evidence_ns = 0
        """How much time the evidence covers, counted while it came in."""
        self._short = Expression(dynamics)
        self._long = Forgetting()

    def add(self, item: Evidence, covers_ns: int) -> None:
        """Take in one item that stands for `covers_ns` of time."""
        judged = item
        if self.rest is not None:
            logits = self.rest.taken_out(item.logits)
            judged = Evidence(item.captured_ns, item.vector, logits, item.score, item.share)
        self._short.add(judged)
        self._long.add(judged)
        self.newest_ns = item.captured_ns
        self.evidence_ns += covers_ns
        if self.rest is not None and (believed := self._short.read()) is not None:
            self.rest.learn(item, covers_ns / SECOND, believed)

    def read(self) -> tuple[Pooled, Pooled] | None:
        """Of the present expression, and of everything so far; None before the first item."""
        short, long = self._short.read(), self._long.read()
        return None if short is None or long is None else (short, long)
