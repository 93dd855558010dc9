"""A bounded hand-over from one capture thread to any number of readers.

The writer never waits: when the ring is full the oldest item is lost. Readers keep their own cursor, so
a slow overlay cannot starve the scheduler, and every reader is told how many items it missed. Latency is
therefore bounded by construction, and loss is counted instead of hidden.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

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
