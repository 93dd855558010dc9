"""Cues to a server that may be slow, absent or restarted: `mqtt://`, `nats://`, `osc://`, `lsl`.

The run hands cues to a ring and goes on; a thread connects, sends, and connects again with growing pauses.
What the ring could not hold meanwhile is counted and said at the end. What a protocol needs is a `Link`.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from liveaffect.realtime.clock import MS, epoch_ns
from liveaffect.realtime.cue import Cue
from liveaffect.realtime.errors import SinkError
from liveaffect.realtime.frame import AudioBlock, VideoFrame
from liveaffect.realtime.ring import Ring

HELD = 16
"""Grid points that wait for a server: older ones are of no use to whoever follows a person."""
PAUSES_S = (0.5, 1.0, 2.0, 5.0)
_LOG = logging.getLogger(__name__)


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

    def close(self) -> None:
        """Safe at any time."""
        ...


class NetworkSink:
    """Hands cues to a link from a thread of its own."""

    wants_pictures = False
    wants_sound = False

    def __init__(self, name: str, make: Callable[[], Link]) -> None:
        self.name = name
        self._make = make
        self._cues: Ring[tuple[Cue, ...]] = Ring(HELD)
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
            batch = self._cues.wait_since(cursor, 1.0)
            self.missed += batch.missed
            cursor = batch.cursor
            for number, cues in enumerate(batch.items):
                try:
                    link.send(cues)
                    self.sent += 1
                except LinkLost as lost:
                    self._note_break(lost, first=True)
                    connected = False
                    link.close()
                    link = self._make()
                    self.missed += len(batch.items) - number
                    break
            if self._cues.closed and cursor == self._cues.written:
                break
        self.missed += self._cues.written - cursor
        link.close()

    def _note_break(self, lost: LinkLost, *, first: bool) -> None:
        self.breaks += 1
        if first:
            _LOG.warning("%s: %s; trying again", self.name, lost)


def sent_cue(cue: Cue) -> dict[str, object]:
    """A cue as it is sent: what the documented one says, and how long ago it was made."""
    age_ms = None if cue.epoch_ns is None else max(0, epoch_ns() - cue.epoch_ns) // MS
    return {**cue.to_json(), "sent_after_ms": age_ms}
