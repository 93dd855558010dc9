"""One camera and one microphone, or a file, read together for some seconds: what calibrations measure on.

Nothing is kept here: items are handed on in the order in which they come and are forgotten.
"""

from __future__ import annotations

import queue
from collections.abc import Sequence

from liveaffect.realtime.clock import SECOND, Clock
from liveaffect.realtime.errors import EndOfStream, SourceError, SourceLost
from liveaffect.realtime.feeds import Feed
from liveaffect.realtime.source import Item
from liveaffect.realtime.supervisor import Supervisor

WAITING = 256
"""Items that wait at most; more are dropped, which the stamps of the next ones show."""
START_S = 15.0
"""A device that has not delivered by then is given up."""


class LiveRecording:
    """Feeds read for `seconds` from when all of them deliver; `read` raises EndOfStream after that."""

    def __init__(self, feeds: Sequence[Feed], clock: Clock, seconds: float) -> None:
        self._clock = clock
        self._seconds = seconds
        self._items: queue.Queue[Item] = queue.Queue(WAITING)
        self._supervisors = [Supervisor(f.make, clock, self._take, live=f.live, watch=f.watch) for f in feeds]
        self._opened_ns = 0
        self._until_ns: int | None = None

    def open(self) -> None:
        """Start them all."""
        self._opened_ns = self._clock.now_ns()
        for supervisor in self._supervisors:
            supervisor.start()

    def read(self, timeout_s: float) -> Item | None:
        """The next item of any of them; None if nothing came in time. SourceError if one never came."""
        now_ns = self._clock.now_ns()
        if self._until_ns is None:
            self._await_all(now_ns)
        if (self._until_ns is not None and now_ns >= self._until_ns) or self._all_ended():
            raise EndOfStream("the time is over")
        try:
            item = self._items.get(timeout=min(timeout_s, 0.1))
        except queue.Empty:
            return None
        # What came before everything was there belongs to no comparison.
        return None if self._until_ns is None else item

    def close(self) -> None:
        """Let go of the devices. Safe to call twice."""
        for supervisor in self._supervisors:
            supervisor.stop()

    def _take(self, item: Item) -> None:
        try:
            self._items.put_nowait(item)
        except queue.Full:
            return

    def _await_all(self, now_ns: int) -> None:
        states = [supervisor.state for supervisor in self._supervisors]
        if all(state.delivered for state in states):
            self._until_ns = now_ns + round(self._seconds * SECOND)
            return
        for supervisor, state in zip(self._supervisors, states, strict=True):
            late = now_ns - self._opened_ns > START_S * SECOND
            if not state.delivered and (state.phase == "ended" or late):
                reason = supervisor.error or f"{state.name} delivered nothing for {START_S:.0f} s"
                raise reason if isinstance(reason, SourceError) else SourceLost(str(reason))

    def _all_ended(self) -> bool:
        ended = all(supervisor.state.phase == "ended" for supervisor in self._supervisors)
        return ended and self._items.empty()
