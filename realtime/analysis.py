"""The analysing threads of a live run: one that looks for each camera, one that steps the scheduler.

Networks and the face detector take a second or two to load, and a picture must be there sooner, so they
are made here, behind the display's back. What goes wrong while loading ends the run with its message;
what goes wrong later is recorded once and shown, and the picture goes on without analysis. `load`, `look`
and `think` are one step each, so that a test can take the place of the threads.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from liveaffect.realtime.clock import MS, SECOND, Clock
from liveaffect.realtime.health import StageReport
from liveaffect.realtime.ring import Ring
from liveaffect.realtime.scheduler import Snapshot
from liveaffect.realtime.window import FUSION_STEP_NS
from liveaffect.realtime.wiring import Wiring

_LOG = logging.getLogger(__name__)
_WAIT_S = 0.1
_PERIOD_NS = 33 * MS
_GRACE_NS = 40 * MS
"""A grid point waits this long for the next sighting, which then serves both: one step instead of two."""
BOARDS = 8
JOIN_S = 2.0
"""How long `stop` waits for a thread; one that still loads frees what it loaded when it is done."""


class Analysis:
    """Looks and thinks in threads of its own. `start` once, `stop` once."""

    def __init__(self, make_wiring: Callable[[], Wiring], clock: Clock) -> None:
        self.snapshots: Ring[tuple[int, Snapshot]] = Ring(BOARDS)
        """Each with the time at which it was ready."""
        self.wiring: Wiring | None = None
        """None until everything is loaded."""
        self.failed: Exception | None = None
        """Why the analysis is not running."""
        self._make_wiring = make_wiring
        self._clock = clock
        self._cursors: dict[str, int] = {}
        self._stop = threading.Event()
        self._wake = threading.Event()
        self._threads = [threading.Thread(target=self._run, name="scheduler", daemon=True)]

    def start(self) -> None:
        """Begin to load; returns at once."""
        self._threads[0].start()

    def stop(self) -> None:
        """End all threads and free the networks."""
        self._stop.set()
        self._wake.set()
        for thread in list(self._threads):
            if thread.ident is not None:
                thread.join(JOIN_S)
        # A thread that is still in the middle of a call closes them itself when it is done.
        if self.wiring is not None and not self._threads[0].is_alive():
            self.wiring.networks.close()

    def costs(self) -> list[StageReport]:
        """What each stage cost so far; none before everything is loaded."""
        return [] if self.wiring is None else [s.report() for s in list(self.wiring.health.stages.values())]

    def load(self) -> Wiring:
        """Make networks, finders and stations."""
        self.wiring = self._make_wiring()
        self._cursors = dict.fromkeys(self.wiring.rings.frames, 0)
        return self.wiring

    def look(self, wiring: Wiring, source: str, timeout_s: float = 0.0) -> bool:
        """Look at the newest picture of one camera; older ones are left out. False: there was none."""
        batch = wiring.rings.frames[source].wait_since(self._cursors[source], timeout_s)
        self._cursors[source] = batch.cursor
        if not batch.items:
            return False
        wiring.health.left_out["pictures not looked at"] += batch.missed + len(batch.items) - 1
        began_ns = self._clock.now_ns()
        wiring.look(batch.items[-1])
        wiring.health.stage(f"look {source}", _PERIOD_NS).add(self._clock.now_ns() - began_ns)
        self._wake.set()
        return True

    def think(self, wiring: Wiring) -> None:
        """One step of the scheduler, and its board to the display."""
        began_ns = self._clock.now_ns()
        snapshot = wiring.scheduler.step(began_ns)
        done_ns = self._clock.now_ns()
        self.snapshots.push((done_ns, snapshot))
        wiring.health.stage("step", FUSION_STEP_NS).add(done_ns - began_ns)

    def _run(self) -> None:
        """The scheduler's thread: load, then step whenever something was seen or a grid point is due."""
        try:
            wiring = self.load()
            for name in wiring.rings.frames:
                looker = threading.Thread(
                    target=self._look_on, args=(wiring, name), name=f"looks at {name}", daemon=True
                )
                self._threads.append(looker)
                looker.start()
            while not self._stop.is_set():
                self._wait_for_work()
                self.think(wiring)
        except Exception as error:  # noqa: BLE001  the one place that records why this thread ended
            self._record(error)
        finally:
            self.snapshots.close(self.failed)
            if self._stop.is_set() and self.wiring is not None:
                self.wiring.networks.close()

    def _wait_for_work(self) -> None:
        """Until something was seen, or a grid point has passed that no sighting came for."""
        to_grid_ns = FUSION_STEP_NS - self._clock.now_ns() % FUSION_STEP_NS
        self._wake.wait((to_grid_ns + _GRACE_NS) / SECOND)
        self._wake.clear()

    def _look_on(self, wiring: Wiring, source: str) -> None:
        """One camera's thread."""
        ring = wiring.rings.frames[source]
        try:
            while not self._stop.is_set():
                if not self.look(wiring, source, _WAIT_S) and ring.closed:
                    return
        except Exception as error:  # noqa: BLE001  the one place that records why this thread ended
            self._record(error)

    def _record(self, error: Exception) -> None:
        self.failed = error
        _LOG.error("%s: %s", threading.current_thread().name, error, exc_info=error)
