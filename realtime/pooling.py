"""Evidence of one modality, and what many pieces of it come to.

A crop or a piece of sound passes its network once; what remains is a vector, logits and a score. The
weight of item i is exp(score_i), halved every `half_life` that it is older than the newest, and since a
factor common to all items cancels, the running form (a maximum and two sums) *is* the batch form. This is the
long trunk, which forgets slowly; `expression` is the short one, which knows when something changed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from liveaffect.realtime.clock import SECOND

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
