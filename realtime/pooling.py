"""Sums up evidence over time: attention pooling over cached vectors, exactly incremental.

A crop or a piece of sound passes its network once; what remains is a vector, logits and a score. The
weight of item i is exp(score_i), halved every `half_life` that it is older than the newest, and since a
factor common to all items cancels, the running form (a maximum and two sums) *is* the batch form. Two
time scales are kept: a short window that reacts, and a long forgetting one that is steady.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from liveaffect.realtime.clock import SECOND

_LN2 = float(np.log(2.0))
LONG_HALF_LIFE_NS = 8 * SECOND
FACE_WINDOW_NS = 2 * SECOND
VOICE_WINDOW_NS = 4 * SECOND
_SILENT = 1e-6


@dataclass(frozen=True, slots=True, eq=False)
class Evidence:
    """What a network said about one crop or one piece of sound."""

    captured_ns: int
    vector: NDArray[np.float32]
    logits: NDArray[np.float32]
    score: float
    """Logarithm of its weight before forgetting."""


@dataclass(frozen=True, slots=True, eq=False)
class Pooled:
    """Evidence summed up at one time scale."""

    vector: NDArray[np.float32]
    logits: NDArray[np.float32]


def weighted_score(score: float, share: float) -> float:
    """The score of evidence of which only a share counts: quality of a crop, speech in a piece of sound."""
    return score + float(np.log(max(share, _SILENT)))


def pool(items: Sequence[Evidence], half_life_ns: int | None) -> Pooled:
    """The batch form: all items at once. The running forms below give the same result.

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


class Window:
    """The evidence of the last `length_ns`, every item with its own score.

    Vectors and logits lie side by side in one array that slides along, because stacking sixty small
    arrays anew for every picture would cost more than the network that made them.
    """

    def __init__(self, length_ns: int) -> None:
        self._length_ns = length_ns
        self._times: deque[int] = deque()
        self._rows = np.zeros((0, 0), np.float32)
        self._first = self._end = 0
        self._split = 0

    def add(self, item: Evidence) -> None:
        """Take in one item."""
        self._split = len(item.vector)
        width = self._split + len(item.logits) + 1
        if self._end == len(self._rows):
            self._make_room(width)
        row = self._rows[self._end]
        row[: self._split], row[self._split : -1], row[-1] = item.vector, item.logits, item.score
        self._times.append(item.captured_ns)
        self._end += 1

    def read(self, now_ns: int) -> Pooled | None:
        """The pooled window that ends at `now_ns`; None when it is empty. Older items are let go."""
        while self._times and self._times[0] <= now_ns - self._length_ns:
            self._times.popleft()
            self._first += 1
        if not self._times:
            return None
        rows = self._rows[self._first : self._end]
        scores = rows[:, -1]
        weights = np.exp(scores - scores.max())
        pooled = (weights / weights.sum()) @ rows[:, :-1]
        return Pooled(vector=pooled[: self._split], logits=pooled[self._split :])

    def __len__(self) -> int:
        return len(self._times)

    def _make_room(self, width: int) -> None:
        """Slide what is still needed to the front of an array twice its size."""
        kept = self._rows[self._first : self._end]
        rows = np.zeros((max(32, 2 * len(kept)), width), np.float32)
        if len(kept):
            rows[: len(kept)] = kept
        self._rows, self._first, self._end = rows, 0, len(kept)


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


class Memory:
    """What is remembered of one modality of one person. Dies with the track."""

    def __init__(self, window_ns: int) -> None:
        self._short = Window(window_ns)
        self._long = Forgetting()
        self.newest_ns: int | None = None
        """When the newest evidence was captured."""
        self.evidence_ns = 0
        """How much time the evidence covers, counted while it came in."""

    def add(self, item: Evidence, covers_ns: int) -> None:
        """Take in one item that stands for `covers_ns` of time."""
        self._short.add(item)
        self._long.add(item)
        self.newest_ns = item.captured_ns
        self.evidence_ns += covers_ns

    def read(self, now_ns: int) -> tuple[Pooled, Pooled] | None:
        """Short and long pooled evidence; None when nothing recent is there."""
        short = self._short.read(now_ns)
        long = self._long.read()
        return None if short is None or long is None else (short, long)
