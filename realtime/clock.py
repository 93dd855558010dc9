"""The only module that reads time or sleeps.

Time is an integer number of nanoseconds since an arbitrary start and never goes back. Everything that
needs it takes a `Clock`; pure code takes the time as an argument. `MediaClock` is the clock of files in
lock-step: it shows how far the file has been read and stands still otherwise.
"""

from __future__ import annotations

import threading
import time
from typing import Protocol

MS = 1_000_000
SECOND = 1_000_000_000


class Clock(Protocol):
    """Reading and waiting belong together: a fake that cannot wait cannot fake a thread."""

    def now_ns(self) -> int:
        """Time since an arbitrary start; never goes back."""
        ...

    def wait_until(self, deadline_ns: int, stop: threading.Event) -> bool:
        """Sleep until the deadline; return False at once if `stop` is set first."""
        ...


class MonotonicClock:
    """The machine's monotonic clock, counted from when this object was made."""

    def __init__(self) -> None:
        self._start_ns = time.monotonic_ns()

    def now_ns(self) -> int:
        """Nanoseconds since this clock was made."""
        return time.monotonic_ns() - self._start_ns

    def from_monotonic_ns(self, stamp_ns: int) -> int:
        """A stamp of the machine's monotonic clock (a driver's, say) on this clock's scale."""
        return stamp_ns - self._start_ns

    def wait_until(self, deadline_ns: int, stop: threading.Event) -> bool:
        """Sleep until the deadline; return False at once if `stop` is set first."""
        while (left_ns := deadline_ns - self.now_ns()) > 0:
            if stop.wait(left_ns / SECOND):
                return False
        return not stop.is_set()


class MediaClock:
    """The clock of a file read in lock-step: moved by the reader, never by the machine."""

    def __init__(self) -> None:
        self._now_ns = 0

    def now_ns(self) -> int:
        """How far the media have been read."""
        return self._now_ns

    def advance_to(self, media_ns: int) -> None:
        """Move on; a time that lies behind is ignored, because time never goes back."""
        self._now_ns = max(self._now_ns, media_ns)

    def wait_until(self, deadline_ns: int, stop: threading.Event) -> bool:
        """Waiting on media time is moving it: nobody else would."""
        self.advance_to(deadline_ns)
        return not stop.is_set()


def epoch_ns() -> int:
    """Wall-clock time, for the `epoch_ns` field of live cues and for nothing else."""
    return time.time_ns()


def cpu_ns() -> int:
    """Processor time of this thread, for the busy figures of health and benchmarks."""
    return time.thread_time_ns()


def process_cpu_ns() -> int:
    """Processor time of all threads of this process."""
    return time.process_time_ns()
