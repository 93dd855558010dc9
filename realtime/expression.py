"""What a face shows, or a voice, at this moment: evidence since the last change, judged by this face at rest.

Evidence is summed up for as long as it tells of one expression, and from anew when it tells of another.
When the present expression began is not known, so every look begins a hypothesis "it began here"; a hidden
Markov model over (beginning, label) weighs them. What is shown is the mean of the evidence since the
beginning, averaged over the hypotheses: steady while nothing changes, and quick when something does,
because hypotheses that hold older looks lose their weight within a few new ones. Looks of one face are not
independent. For noise that is forgotten at a rate of 1/correlation, a look that comes `dt` after the last
one tells tanh(dt / 2 correlation) of what an independent one would: sixty looks a second prove no more than
twenty. Why these numbers: docs/decisions/0021-the-present-expression.md.

The pool is the long trunk, which forgets slowly. The weight of item i is exp(score_i), halved every
`half_life` that it is older than the newest; a factor common to all items cancels, so the running form (a
maximum and two sums) *is* the batch form.

A network that knows no face by name calls small smiles neutral, though on one and the same face every smile
scores higher than rest. So the log-odds of every label against neutral are averaged over the looks at which
the face is believed to be neutral, and what is odd about this face is taken out of its logits. An
expression that lasts is never taken for rest, and a face that was never seen neutral is judged like
everybody's.
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from liveaffect.engines.recipe import LABELS
from liveaffect.realtime.clock import MS, SECOND

_LN2 = float(np.log(2.0))
LONG_HALF_LIFE_NS = 8 * SECOND
_SILENT = 1e-6


@dataclass(frozen=True, slots=True, eq=False)
class Evidence:
    """What a network said about one crop or one piece of sound."""

    captured_ns: int
    vector: NDArray[np.float32]
    logits: NDArray[np.float32]
    score: float
    """Logarithm of its weight before forgetting."""
    share: float = 1.0
    """How much of it can be trusted, 0..1; what is half hidden proves less, whatever its weight."""


@dataclass(frozen=True, slots=True, eq=False)
class Pooled:
    """Evidence summed up at one time scale."""

    vector: NDArray[np.float32]
    logits: NDArray[np.float32]


def weighted_score(score: float, share: float) -> float:
    """The score of evidence of which only a share counts: quality of a crop, speech in a piece of sound."""
    return score + float(np.log(max(share, _SILENT)))


def pool(items: Sequence[Evidence], half_life_ns: int | None) -> Pooled:
    """The batch form: all items at once. The running form below gives the same result.

    Raises ValueError without items, because an average of nothing is not zero.
    """
    if not items:
        raise ValueError("there is no evidence to pool")
    heights = np.array([_height(item, half_life_ns) for item in items])
    weights = np.exp(heights - heights.max())
    weights /= weights.sum()
    return Pooled(
        vector=(weights @ np.stack([item.vector for item in items])).astype(np.float32),
        logits=(weights @ np.stack([item.logits for item in items])).astype(np.float32),
    )


def _height(item: Evidence, half_life_ns: int | None) -> float:
    """Score plus the logarithm of forgetting, counted from time zero; only differences matter."""
    return item.score if half_life_ns is None else item.score + _LN2 * item.captured_ns / half_life_ns


class Forgetting:
    """All evidence so far, each item worth half as much every `half_life_ns`; three numbers of state."""

    def __init__(self, half_life_ns: int = LONG_HALF_LIFE_NS) -> None:
        self._half_life_ns = half_life_ns
        self._highest = -np.inf
        self._weight = 0.0
        self._vector: NDArray[np.float64] | None = None
        self._logits: NDArray[np.float64] | None = None

    def add(self, item: Evidence) -> None:
        """Take in one item; costs the same however long the run."""
        height = _height(item, self._half_life_ns)
        if self._vector is None or self._logits is None:
            self._vector = np.zeros(len(item.vector))
            self._logits = np.zeros(len(item.logits))
        if height > self._highest:
            shrink = float(np.exp(self._highest - height))
            self._weight *= shrink
            self._vector *= shrink
            self._logits *= shrink
            self._highest = height
        weight = float(np.exp(height - self._highest))
        self._weight += weight
        self._vector += weight * item.vector
        self._logits += weight * item.logits

    def read(self) -> Pooled | None:
        """The pooled past; None before the first item."""
        if self._vector is None or self._logits is None:
            return None
        return Pooled(
            vector=(self._vector / self._weight).astype(np.float32),
            logits=(self._logits / self._weight).astype(np.float32),
        )


NEUTRAL = LABELS.index("neutral")
USUAL = 2.5
"""So many nats every label stands below neutral on a face at rest, once what is odd about it is taken out."""
MOST_LOWERED = 2.0
MOST_RAISED: dict[str, float] = {"happy": 6.0}
"""Small smiles are missed for want of this. Of no other label it was measured that raising helps."""
DOUBT_S = 0.5
"""Rest of this length is trusted by half."""
MEMORY_S = 60.0
"""Later looks are averaged over this time: light and posture change, faces hardly."""
SURE = 0.6
"""From this probability of neutral on a look teaches."""
ANYBODY, FULL = -5.5, 5.5
"""Log-odds against neutral of an expression on a face at rest that nobody knows yet, and when fully shown."""

_LOWERED = np.full(len(LABELS), MOST_LOWERED)
_RAISED = np.array([MOST_RAISED.get(label, 0.0) for label in LABELS])


class Rest:
    """Of one face. Dies with the track; one caller."""

    def __init__(self, temperature: float) -> None:
        """`temperature` makes log-odds out of logits."""
        self._temperature = temperature
        self._odds = np.full(len(LABELS), ANYBODY)
        self._shift = np.zeros(len(LABELS))
        """Added to log-odds: what is odd about this face, with the other sign."""
        self.seen_s = 0.0
        """How long the face was seen at rest."""

    @property
    def trust(self) -> float:
        """How far what was learnt is believed, 0 to 1."""
        return self.seen_s / (self.seen_s + DOUBT_S)

    def taken_out(self, logits: NDArray[np.float32]) -> NDArray[np.float32]:
        """Logits without what is odd about this face."""
        return np.asarray(logits + self._temperature * self._shift, np.float32)

    def learn(self, item: Evidence, covers_s: float, believed: Pooled) -> None:
        """Take in one look as the network judged it; `believed` says whether the face rests."""
        against = (believed.logits - believed.logits[NEUTRAL]).astype(np.float64) / self._temperature
        weight = covers_s * item.share
        if SURE * float(np.exp(against).sum()) > 1.0 or weight <= 0.0:
            return
        self.seen_s += weight
        odds = (item.logits - item.logits[NEUTRAL]) / self._temperature
        self._odds += min(1.0, weight / min(self.seen_s, MEMORY_S)) * (odds - self._odds)
        wanted = -USUAL - self._odds
        self._shift = self.trust * np.minimum(np.maximum(wanted, -_LOWERED), _RAISED)
        self._shift[NEUTRAL] = 0.0

    def strength(self, believed: Pooled) -> tuple[float, ...]:
        """How far the face has come from rest to a full expression of every label, 0 to 1; 0 for neutral."""
        raised = (believed.logits - believed.logits[NEUTRAL]).astype(np.float64) / self._temperature
        # Of this face as the network sees it, without what was taken out.
        rest = self.trust * self._odds + (1.0 - self.trust) * ANYBODY
        way = np.clip((raised - self._shift - rest) / (FULL - rest), 0.0, 1.0)
        way[NEUTRAL] = 0.0
        return tuple(way.tolist())


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
