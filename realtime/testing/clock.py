"""A clock for tests of threads: time stands still until the test moves it.

A test says how many threads it expects to sleep, waits for exactly those, and then advances. So a thread
wakes at the very nanosecond it asked for, whatever else the machine is doing, and an hour of stream
passes in seconds. Real time is used only to notice a `stop` and to give up on a test that hangs.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

_NOTICE_S = 0.01
"""How long a sleeper takes to notice that somebody set its `stop`."""
_STUCK_S = 20.0
"""Real time after which a test that waits for sleepers has hung."""


class FakeClock:
    """A `Clock` whose time only the test moves. Any number of threads may sleep on it."""

    def __init__(self, start_ns: int = 0) -> None:
        self._now_ns = start_ns
        self._deadlines: list[int] = []
        self._changed = threading.Condition()

    def now_ns(self) -> int:
        """The time the test has set."""
        with self._changed:
            return self._now_ns

    def wait_until(self, deadline_ns: int, stop: threading.Event) -> bool:
        """Sleep until the test moves time to the deadline; return False if `stop` is set first."""
        with self._changed:
            self._deadlines.append(deadline_ns)
            self._changed.notify_all()
            try:
                while self._now_ns < deadline_ns and not stop.is_set():
                    self._changed.wait(_NOTICE_S)
            finally:
                self._deadlines.remove(deadline_ns)
                self._changed.notify_all()
            return not stop.is_set()

    def advance(self, step_ns: int) -> None:
        """Move time on and wake whoever is due."""
        with self._changed:
            self._move_to(self._now_ns + step_ns)

    def advance_to(self, when_ns: int) -> None:
        """Move time to `when_ns` and wake whoever is due."""
        with self._changed:
            self._move_to(when_ns)

    def wait_for_sleepers(self, count: int, *, give_up_s: float = _STUCK_S) -> None:
        """Return once exactly `count` threads sleep towards a deadline that is still ahead.

        A thread that is due but has not woken yet does not count: advancing past it would make its
        wake-up late by one step, depending on who got the processor first.
        """
        with self._changed:
            self._await_sleepers(count, give_up_s)

    def run_until(self, end_ns: int, *, sleepers: int, give_up_s: float = _STUCK_S) -> None:
        """Go from deadline to deadline up to `end_ns`, each time waiting until `sleepers` threads sleep.

        Nobody is passed over: every thread wakes exactly when it asked to. Returns with all of them
        asleep again, so what they did is complete.
        """
        with self._changed:
            while True:
                self._await_sleepers(sleepers, give_up_s)
                next_ns = min((d for d in self._deadlines if d > self._now_ns), default=end_ns)
                if self._now_ns >= end_ns:
                    return
                self._move_to(min(next_ns, end_ns))

    def _await_sleepers(self, count: int, give_up_s: float) -> None:
        if not self._changed.wait_for(lambda: self._ahead() == count, give_up_s):
            raise AssertionError(
                f"expected {count} sleeping threads at {self._now_ns} ns, saw {self._ahead()} "
                f"with deadlines {sorted(self._deadlines)}"
            )

    def _ahead(self) -> int:
        return sum(deadline_ns > self._now_ns for deadline_ns in self._deadlines)

    def _move_to(self, when_ns: int) -> None:
        if when_ns < self._now_ns:
            raise ValueError(f"time never goes back: it is {self._now_ns} ns, asked for {when_ns} ns")
        self._now_ns = when_ns
        self._changed.notify_all()


class TickingClock:
    """A clock that one thread moves by waiting on it, and that calls `tick` on the way.

    So a source that is read in its own thread and the rest of a live run take turns in that thread: what
    takes minutes of stream takes no time, in the same order every time. From `end_ns` on time stands still
    and `over` is set.
    """

    def __init__(self, end_ns: int, step_ns: int) -> None:
        self.over = threading.Event()
        self.tick: Callable[[], None] = lambda: None
        self._now_ns = 0
        self._end_ns = end_ns
        self._step_ns = step_ns
        self._next_ns = step_ns

    def now_ns(self) -> int:
        """How far waiting has moved it."""
        return self._now_ns

    def wait_until(self, deadline_ns: int, stop: threading.Event) -> bool:
        """Move to the deadline, ticking on the way; return False if `stop` is set or time is over."""
        while self._now_ns < deadline_ns and not stop.is_set():
            if self._now_ns >= self._end_ns:
                self.over.set()
                stop.wait(0.001)
                return False
            self._now_ns = min(deadline_ns, self._next_ns, self._end_ns)
            if self._now_ns == self._next_ns:
                self._next_ns += self._step_ns
                self.tick()
        return not stop.is_set()
