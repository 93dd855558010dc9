"""Bounded hand-overs from one capture thread to many readers: of items, and of sound by sample number.

The writer never waits: when a ring is full the oldest is lost. Readers keep their own cursor, so a slow
overlay cannot starve the scheduler, and every reader is told what it missed. Latency is therefore bounded
by construction, and loss is counted instead of hidden. What a sound device lost is silence *at its place*
with a note, never a splice; time comes from the newest block's stamp and the sample count.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from liveaffect.engines.recipe import SAMPLE_RATE
from liveaffect.realtime.clock import SECOND
from liveaffect.realtime.frame import AudioBlock

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Batch(Generic[T]):
    """What one read brought."""

    items: tuple[T, ...]
    missed: int
    """Items that were overwritten before this reader came."""
    cursor: int
    """Pass it to the next read."""


class Ring(Generic[T]):
    """The newest `capacity` items. One writer thread, many reader threads."""

    def __init__(self, capacity: int, *, on_push: Callable[[T], None] | None = None) -> None:
        if capacity < 1:
            raise ValueError(f"a ring holds at least one item, got capacity {capacity}")
        self._items: deque[T] = deque(maxlen=capacity)
        self._written = 0
        self._closed = False
        self._error: Exception | None = None
        self._changed = threading.Condition()
        self._on_push = on_push

    @property
    def capacity(self) -> int:
        """How many items it can hold."""
        return self._items.maxlen or 0

    @property
    def written(self) -> int:
        """How many items were pushed so far."""
        with self._changed:
            return self._written

    @property
    def closed(self) -> bool:
        """True once the writer said that nothing more will come."""
        with self._changed:
            return self._closed

    @property
    def error(self) -> Exception | None:
        """Why the stream ended, if it did not end by itself."""
        with self._changed:
            return self._error

    def push(self, item: T) -> None:
        """Add an item; overwrite the oldest if full. Never blocks on a reader."""
        with self._changed:
            if self._closed:
                raise RuntimeError("push() after close(): the capture thread outlived its ring")
            if self._on_push is not None:
                self._on_push(item)
            self._items.append(item)
            self._written += 1
            self._changed.notify_all()

    def read_since(self, cursor: int) -> Batch[T]:
        """Everything after `cursor` that is still here; start with cursor 0."""
        with self._changed:
            return self._since(cursor)

    def newest(self) -> T | None:
        """The newest item, or None before the first."""
        with self._changed:
            return self._items[-1] if self._items else None

    def wait_since(self, cursor: int, timeout_s: float) -> Batch[T]:
        """Like `read_since`, but wait up to `timeout_s` for something to come or for the end."""
        with self._changed:
            self._changed.wait_for(lambda: self._written > cursor or self._closed, timeout_s)
            return self._since(cursor)

    def close(self, error: Exception | None = None) -> None:
        """Nothing more will come; `error` says why if it was not the natural end. Safe to call twice."""
        with self._changed:
            if not self._closed:
                self._closed = True
                self._error = error
                self._changed.notify_all()

    def _since(self, cursor: int) -> Batch[T]:
        if not 0 <= cursor <= self._written:
            raise ValueError(f"cursor {cursor} is not from this ring, which has written {self._written}")
        oldest = self._written - len(self._items)
        first = max(cursor, oldest)
        items = tuple(self._items)[first - oldest :]
        return Batch(items=items, missed=first - cursor, cursor=self._written)


@dataclass(frozen=True, slots=True, eq=False)
class Stretch:
    """A stretch of sound as asked for."""

    first: int
    samples: NDArray[np.float32]
    """A copy; where sound was lost it holds zeros."""
    captured_ns: int
    """When the first sample reached the device."""
    lost: int
    """How many of the samples were lost by the device."""


class AudioRing:
    """The newest `capacity` samples of one stream. One writer thread, many reader threads."""

    def __init__(self, capacity: int, *, on_push: Callable[[AudioBlock], None] | None = None) -> None:
        if capacity < 1:
            raise ValueError(f"an audio ring holds at least one sample, got capacity {capacity}")
        self._samples = np.zeros(capacity, np.float32)
        self._start = 0
        self._end = 0
        self._anchor: tuple[int, int] | None = None
        self._gaps: deque[tuple[int, int]] = deque()
        self._lost_total = 0
        self._closed = False
        self._error: Exception | None = None
        self._lock = threading.Lock()
        self._on_push = on_push

    @property
    def capacity(self) -> int:
        """How many samples it can hold."""
        return len(self._samples)

    @property
    def start(self) -> int:
        """Number of the oldest sample that is still here."""
        with self._lock:
            return max(self._start, self._end - self.capacity)

    @property
    def end(self) -> int:
        """Number of the next sample to come."""
        with self._lock:
            return self._end

    @property
    def lost(self) -> int:
        """Samples the device lost so far."""
        with self._lock:
            return self._lost_total

    @property
    def closed(self) -> bool:
        """True once the writer said that nothing more will come."""
        with self._lock:
            return self._closed

    @property
    def error(self) -> Exception | None:
        """Why the stream ended, if it did not end by itself."""
        with self._lock:
            return self._error

    def push(self, block: AudioBlock) -> None:
        """Put a block at its place. A jump forward becomes silence that is counted as lost."""
        with self._lock:
            if self._closed:
                raise RuntimeError("push() after close(): the microphone outlived its ring")
            if self._on_push is not None:
                self._on_push(block)
            if self._anchor is None:
                self._start = self._end = block.first
            if block.first < self._end:
                raise ValueError(
                    f"{block.source} delivered sample {block.first} again; {self._end} is next. "
                    "A source that starts anew continues the numbers"
                )
            self._note_gap(self._end, block.first)
            self._write(block.first, block.samples)
            self._end = block.end
            self._anchor = (block.first, block.captured_ns)

    def time_of(self, sample: int) -> int | None:
        """When that sample was or will be captured; None before the first block."""
        with self._lock:
            return self._time_of(sample)

    def read(self, first: int, count: int) -> Stretch | None:
        """Exactly those samples, or None if some have not come yet or are no longer here."""
        with self._lock:
            captured_ns = self._time_of(first)
            oldest = max(self._start, self._end - self.capacity)
            if captured_ns is None or count < 1 or first < oldest or first + count > self._end:
                return None
            at = np.arange(first, first + count) % self.capacity
            return Stretch(first, self._samples[at], captured_ns, lost=self._lost_in(first, count))

    def lost_in(self, first: int, count: int) -> int:
        """How many of those samples the device lost; known as long as the end of their gap is here."""
        with self._lock:
            return self._lost_in(first, count)

    def close(self, error: Exception | None = None) -> None:
        """Nothing more will come; `error` says why if it was not the natural end. Safe to call twice."""
        with self._lock:
            if not self._closed:
                self._closed = True
                self._error = error

    def _lost_in(self, first: int, count: int) -> int:
        return sum(max(0, min(b, first + count) - max(a, first)) for a, b in self._gaps)

    def _time_of(self, sample: int) -> int | None:
        if self._anchor is None:
            return None
        first, captured_ns = self._anchor
        return captured_ns + (sample - first) * SECOND // SAMPLE_RATE

    def _note_gap(self, begin: int, end: int) -> None:
        if end > begin:
            self._lost_total += end - begin
            self._gaps.append((begin, end))
            fill_from = max(begin, end - self.capacity)
            self._samples[np.arange(fill_from, end) % self.capacity] = 0.0

    def _write(self, first: int, samples: NDArray[np.float32]) -> None:
        kept = samples[-self.capacity :]
        begin = first + len(samples) - len(kept)
        split = begin % self.capacity
        head = min(len(kept), self.capacity - split)
        self._samples[split : split + head] = kept[:head]
        self._samples[: len(kept) - head] = kept[head:]
        oldest = first + len(samples) - self.capacity
        while self._gaps and self._gaps[0][1] <= oldest:
            self._gaps.popleft()
