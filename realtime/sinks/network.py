"""Cues to a server that may be slow, absent or restarted: `mqtt://`, `nats://`, `osc://`, `lsl`.

The run hands cues to a ring and goes on; a thread connects, sends, and connects again with growing pauses.
What the ring could not hold meanwhile is counted and said at the end. What a protocol needs is a `Link`.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from liveaffect.realtime.clock import MS, epoch_ns
from liveaffect.realtime.cue import Cue
from liveaffect.realtime.errors import SinkError
from liveaffect.realtime.frame import AudioBlock, VideoFrame
from liveaffect.realtime.ring import Ring

KEPT = 600
"""Grid points that wait for a server which keeps what it gets: a minute."""
HELD = 16
"""Grid points that wait for a server: older ones are of no use to whoever follows a person."""
PAUSES_S = (0.5, 1.0, 2.0, 5.0)
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Alert:
    """A camera is down, or back; goes where its cues go."""

    source: str
    up: bool
    message: str
    epoch_ns: int

    def to_json(self) -> dict[str, object]:
        """The wire form."""
        return {
            "v": 1,
            "source": self.source,
            "up": self.up,
            "message": self.message,
            "epoch_ns": self.epoch_ns,
        }


class LinkLost(Exception):
    """The server is not there, or not any more; it is tried again."""


class Link(Protocol):
    """One protocol; used by one thread."""

    def connect(self) -> None:
        """Raises LinkLost."""
        ...

    def send(self, cues: Sequence[Cue]) -> None:
        """Those of one grid point. Raises LinkLost."""
        ...

    def warn(self, alert: Alert) -> None:
        """Pass it on, or leave it. Raises LinkLost."""
        ...

    def close(self) -> None:
        """Safe at any time."""
        ...


class NetworkSink:
    """Hands cues to a link from a thread of its own."""

    wants_pictures = False
    wants_sound = False

    def __init__(self, name: str, make: Callable[[], Link], *, keeps: bool = False) -> None:
        """`keeps`: the server stores what it gets, so what it has not got yet is sent again."""
        self.name = name
        self._make = make
        self._keeps = keeps
        self._cues: Ring[tuple[Cue, ...] | Alert] = Ring(KEPT if keeps else HELD)
        self._stop = threading.Event()
        self.sent = self.missed = self.breaks = 0
        """Grid points that were sent and that were lost; how often the server was not there."""
        self._thread = threading.Thread(target=self._run, name=f"sends to {name}", daemon=True)
        self._thread.start()

    def show(self, picture: NDArray[np.uint8], frame: VideoFrame) -> None:
        """Nothing to do."""

    def tell(self, cues: Sequence[Cue]) -> None:
        """Never waits."""
        if self._cues.closed:
            raise SinkError(f"{self.name} was closed")
        if cues:
            self._cues.push(tuple(cues))

    def warn(self, alert: Alert) -> None:
        """As `tell`, and by the same thread."""
        if not self._cues.closed:
            self._cues.push(alert)

    def hear(self, block: AudioBlock) -> None:
        """Nothing to do."""

    def close(self) -> str | None:
        """Send what waits if the server takes it, and say what did not reach it."""
        self._cues.close()
        self._stop.set()
        self._thread.join()
        if not self.missed:
            return None
        return f"{self.name}: {self.missed} grid points were lost, because the server was away or slow"

    def _run(self) -> None:
        cursor = attempt = 0
        link = self._make()
        connected = False
        waiting: deque[tuple[Cue, ...] | Alert] = deque()
        while True:
            if not connected:
                try:
                    link.connect()
                    connected, attempt = True, 0
                except LinkLost as lost:
                    self._note_break(lost, first=attempt == 0)
                    link.close()
                    link = self._make()
                    if self._stop.wait(PAUSES_S[min(attempt, len(PAUSES_S) - 1)]):
                        break
                    attempt += 1
                    continue
            if not waiting:
                batch = self._cues.wait_since(cursor, 1.0)
                self.missed += batch.missed
                cursor = batch.cursor
                waiting.extend(batch.items)
            try:
                self._send_all(link, waiting)
            except LinkLost as lost:
                self._note_break(lost, first=True)
                connected = False
                link.close()
                link = self._make()
                if not self._keeps:
                    self.missed += len(waiting)
                    waiting.clear()
            if self._cues.closed and cursor == self._cues.written and not waiting:
                break
        self.missed += self._cues.written - cursor + len(waiting)
        link.close()

    def _send_all(self, link: Link, waiting: deque[tuple[Cue, ...] | Alert]) -> None:
        """What was sent leaves the queue, so that only the rest is sent again."""
        while waiting:
            first = waiting[0]
            if isinstance(first, Alert):
                link.warn(first)
            else:
                link.send(first)
            waiting.popleft()
            self.sent += 1

    def _note_break(self, lost: LinkLost, *, first: bool) -> None:
        self.breaks += 1
        if first:
            _LOG.warning("%s: %s; trying again", self.name, lost)


def sent_cue(cue: Cue) -> dict[str, object]:
    """A cue as it is sent: what the documented one says, and how long ago it was made."""
    age_ms = None if cue.epoch_ns is None else max(0, epoch_ns() - cue.epoch_ns) // MS
    return {**cue.to_json(), "sent_after_ms": age_ms}
