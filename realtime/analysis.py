"""The analysing threads of a live run: one that looks for each camera, one that thinks; and their watchdog.

Networks and the face detector take a second or two to load, and a picture must be there sooner, so they are
made here, behind the display's back. What goes wrong while loading ends the run with its message. What goes
wrong later ends one thread, which `mend` replaces together with everything it used: a thread that hangs or
failed cannot be trusted with its state. `load`, `look` and `think` are one step each, so that a test can
take the place of the threads.

Everything of a live run comes round several times a second, so what did not for a second and a half stands
still. Where the whole program was stopped (a laptop slept) or has no processor, the watchdog comes late
itself: by so much everybody is excused, since to start anything again would only make it worse.
"""

from __future__ import annotations

import atexit
import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass, field

from liveaffect.engines.protocol import EngineError
from liveaffect.realtime.clock import MS, SECOND, Clock
from liveaffect.realtime.cue import Cue
from liveaffect.realtime.errors import RealtimeError
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
"""How long `stop` waits for all threads; one that still loads frees what it loaded when it is done."""
LOADING_S = 30.0
"""How long the end of the process waits for that one."""
STILL_NS = 1500 * MS
"""A thread that did not come round for so long stands still: it does so every tenth of a second."""
GIVEN_UP_NS = 6 * SECOND
"""After so long it is left to itself, and another takes its place."""
MOST_ABANDONED = 4
"""No further replacement while so many hang: each holds the memory of its networks."""
_LONGEST_PAUSE_NS = 60 * SECOND
_STEADY_NS = 60 * SECOND
"""What ran for so long is replaced at once when it fails; what fails again and again is given pauses."""
SCHEDULER = "the analysis"
_LOOKING = "looking at "


@dataclass(slots=True, eq=False)
class _Worker:
    """One of the threads: when it last came round, and how often it had to be replaced."""

    name: str
    began_ns: int
    beat_ns: int
    loading: bool
    """It may take as long as it takes."""
    replaced: bool = False
    """Another has taken its place: it must touch nothing more."""
    failed: Exception | None = None
    restarts: int = 0
    thread: threading.Thread = field(init=False)


class Analysis:
    """Looks and thinks in threads of its own. `start` once, `stop` once."""

    def __init__(self, make_wiring: Callable[[], Wiring], clock: Clock) -> None:
        self.snapshots: Ring[tuple[int, Snapshot]] = Ring(BOARDS)
        """Each with the time at which it was ready."""
        self.wiring: Wiring | None = None
        """None until everything is loaded."""
        self._make_wiring = make_wiring
        self._clock = clock
        self._cursors: dict[str, int] = {}
        self._stop = threading.Event()
        self._wake = threading.Event()
        self._workers: dict[str, _Worker] = {}
        self._abandoned: list[_Worker] = []
        self._said_level = 0

    @property
    def failed(self) -> Exception | None:
        """Why the analysis, or that of one camera, is not running at this moment."""
        failures = (worker.failed for worker in list(self._workers.values()))
        return next((failure for failure in failures if failure is not None), None)

    def start(self) -> None:
        """Begin to load; returns at once."""
        self._begin(SCHEDULER)

    def stop(self) -> None:
        """End all threads and free the networks."""
        self._stop.set()
        self._wake.set()
        if self.wiring is not None and self.wiring.hearing is not None:
            # Not left to the scheduler's thread, for which nobody waits long: a process that ends in the
            # middle of loading Whisper, or of a pass, crashes in it.
            self.wiring.hearing.close()
        until_ns = self._clock.now_ns() + round(JOIN_S * SECOND)
        for worker in list(self._workers.values()):
            worker.thread.join(max(0.0, (until_ns - self._clock.now_ns()) / SECOND))
            if worker.loading and worker.thread.is_alive():
                # Who closes at once need not wait, but a process must not end in the middle of loading.
                atexit.register(worker.thread.join, LOADING_S)
        # A thread that is still in the middle of a call closes them itself when it is done.
        scheduler = self._workers.get(SCHEDULER)
        if self.wiring is not None and not (scheduler and scheduler.thread.is_alive()):
            self.wiring.networks.close()

    def costs(self) -> list[StageReport]:
        """What each stage cost so far; none before everything is loaded."""
        return [] if self.wiring is None else [s.report() for s in list(self.wiring.health.stages.values())]

    def load(self) -> Wiring:
        """Make networks, finders and stations."""
        wiring = self._make_wiring()
        if self.wiring is None:
            self._cursors = dict.fromkeys(wiring.rings.frames, 0)
        else:
            wiring.go_on_after(self.wiring)
            for source in wiring.rings.frames:
                self._pass_over(wiring, source)
        self.wiring = wiring
        return wiring

    def look(self, wiring: Wiring, source: str, timeout_s: float = 0.0) -> bool:
        """Look at the newest picture of one camera; older ones are left out. False: there was none."""
        batch = wiring.rings.frames[source].wait_since(self._cursors[source], timeout_s)
        self._cursors[source] = batch.cursor
        if not batch.items:
            return False
        wiring.health.left_out["pictures not analysed"] += batch.missed + len(batch.items) - 1
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
        if wiring is self.wiring:
            self.snapshots.push((done_ns, snapshot))
        wiring.health.stage("step", FUSION_STEP_NS).add(done_ns - began_ns)
        shedder = wiring.scheduler.shedder
        if shedder.level > self._said_level:
            # Once for each level: without a picture nobody would see the notice.
            self._said_level = shedder.level
            _LOG.warning("too much for this machine: %s", shedder.says())

    def mend(self, now_ns: int) -> list[str]:
        """What stands still at the moment, in words; what failed or hangs is replaced.

        Called by the watchdog a few times a second.
        """
        said = []
        for name, worker in list(self._workers.items()):
            still_ns = now_ns - worker.beat_ns
            if self._stop.is_set() or worker.loading:
                continue
            if worker.failed is not None:
                said.append(f"{name} failed ({_in_short(worker.failed)}) and is started again")
                if now_ns >= worker.beat_ns + _pause_ns(worker):
                    self._replace(name, worker)
            elif still_ns >= STILL_NS and worker.thread.is_alive():
                said.append(f"{name} has stood still for {still_ns / SECOND:.1f} s")
                if still_ns >= GIVEN_UP_NS + _pause_ns(worker):
                    self._replace(name, worker)
        return said

    def excuse(self, by_ns: int) -> None:
        """For so long nobody could come round: the whole program was stopped, or had no processor."""
        for worker in list(self._workers.values()):
            worker.beat_ns += by_ns

    def _begin(self, name: str, restarts: int = 0, wiring: Wiring | None = None) -> None:
        now_ns = self._clock.now_ns()
        worker = _Worker(name, now_ns, now_ns, loading=wiring is None, restarts=restarts)
        title = "scheduler" if name == SCHEDULER else name
        worker.thread = threading.Thread(target=self._work, args=(worker, wiring), name=title, daemon=True)
        self._workers[name] = worker
        worker.thread.start()

    def _replace(self, name: str, worker: _Worker) -> None:
        self._abandoned = [old for old in self._abandoned if old.thread.is_alive()]
        if len(self._abandoned) >= MOST_ABANDONED or self.wiring is None:
            return
        worker.replaced = True
        if worker.thread.is_alive():
            self._abandoned.append(worker)
        steady = worker.beat_ns - worker.began_ns >= _STEADY_NS
        restarts = 0 if steady else worker.restarts + 1
        self.wiring.health.failures[f"times {name} was started again"] += 1
        _LOG.warning("%s is started again", name)
        if name == SCHEDULER:
            # It may be in the middle of anything: everything it used is made anew.
            self.wiring.scheduler.retire()
            for looker in [w for w in self._workers.values() if w.name != SCHEDULER]:
                looker.replaced = True
                del self._workers[looker.name]
            self._begin(SCHEDULER, restarts)
        else:
            self.wiring.renew(name.removeprefix(_LOOKING))
            self._begin(name, restarts, self.wiring)

    def _work(self, worker: _Worker, wiring: Wiring | None) -> None:
        """One thread, from its beginning to its end."""
        try:
            if wiring is None:
                self._load_and_think(worker)
            else:
                self._look_on(worker, wiring, worker.name.removeprefix(_LOOKING))
        except Exception as error:  # noqa: BLE001  the one place that records why this thread ended
            self._record(worker, error)

    def _load_and_think(self, worker: _Worker) -> None:
        """The scheduler's thread: load, then step whenever something was seen or a grid point is due."""
        wiring = self.load()
        try:
            for name in wiring.rings.frames:
                self._begin(_LOOKING + name, wiring=wiring)
            if wiring.hearing is not None:
                wiring.hearing.start(self._clock)
            while not (self._stop.is_set() or worker.replaced):
                self._wait_for_work()
                self._come_round(worker)
                self.think(wiring)
                worker.loading = False
        finally:
            if wiring.hearing is not None:
                wiring.hearing.close()
            if self._stop.is_set() or worker.replaced:
                wiring.networks.close()

    def _wait_for_work(self) -> None:
        """Until something was seen, or a grid point has passed that no sighting came for."""
        to_grid_ns = FUSION_STEP_NS - self._clock.now_ns() % FUSION_STEP_NS
        self._wake.wait((to_grid_ns + _GRACE_NS) / SECOND)
        self._wake.clear()

    def _look_on(self, worker: _Worker, wiring: Wiring, source: str) -> None:
        """One camera's thread: as often as the machine carries, and not at all if it does not."""
        ring, shedder = wiring.rings.frames[source], wiring.scheduler.shedder
        number = list(wiring.rings.frames).index(source)
        due_ns = 0
        while not (self._stop.is_set() or worker.replaced):
            now_ns = self._come_round(worker)
            if number >= shedder.cameras:
                self._pass_over(wiring, source)
                self._clock.wait_until(now_ns + FUSION_STEP_NS, self._stop)
            elif shedder.look_period_ns and now_ns < due_ns:
                self._clock.wait_until(min(due_ns, now_ns + FUSION_STEP_NS), self._stop)
            elif self.look(wiring, source, _WAIT_S):
                due_ns = max(due_ns, now_ns - shedder.look_period_ns) + shedder.look_period_ns
            elif ring.closed:
                return

    def _pass_over(self, wiring: Wiring, source: str) -> None:
        batch = wiring.rings.frames[source].read_since(self._cursors[source])
        self._cursors[source] = batch.cursor
        wiring.health.left_out["pictures not analysed"] += batch.missed + len(batch.items)

    def _come_round(self, worker: _Worker) -> int:
        worker.beat_ns = self._clock.now_ns()
        return worker.beat_ns

    def _record(self, worker: _Worker, error: Exception) -> None:
        if worker.replaced:
            return
        known = isinstance(error, RealtimeError | EngineError)
        if self.wiring is not None or not known:
            # What keeps a run from beginning is said by the run, which ends with it.
            _LOG.error("%s: %s", worker.name, error, exc_info=None if known or worker.restarts else error)
        worker.beat_ns, worker.failed, worker.loading = self._clock.now_ns(), error, False


def _pause_ns(worker: _Worker) -> int:
    return 0 if not worker.restarts else min(SECOND * 2**worker.restarts, _LONGEST_PAUSE_NS)


def _in_short(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]


EVERY_NS = 250 * MS
"""How often it looks."""
LATE_NS = 100 * MS
"""When it comes so much too late itself, the others could not come either."""
SHOWN_NS = 4 * SECOND
"""How long it is still shown what has stood still."""
DISPLAY = "the display has stood still for {:.1f} s: an output (a disk, a window) holds it up"
NO_ANSWERS = (
    "faces are found, but there has been no answer for {:.1f} s: pictures are too old when they arrive"
)


class Watchdog:
    """Looks after one live run in a thread of its own. `check` is one look, for tests."""

    def __init__(self, analysis: Analysis, cues: Ring[tuple[Cue, ...]], clock: Clock) -> None:
        self._analysis = analysis
        self._cues = cues
        self._clock = clock
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watchdog", daemon=True)
        self._checked_ns = self.turned_ns = self._answered_ns = clock.now_ns()
        self._answers = -1
        self._said: dict[str, tuple[int, str]] = {}

    def start(self) -> None:
        """Begin to look; returns at once."""
        self._checked_ns = self.turned_ns = self._answered_ns = self._clock.now_ns()
        self._thread.start()

    def stop(self) -> None:
        """End."""
        self._stop.set()
        if self._thread.ident is not None:
            self._thread.join()

    def turned(self) -> None:
        """The display came round."""
        self.turned_ns = self._clock.now_ns()

    @property
    def notices(self) -> tuple[str, ...]:
        """What stands still, or did until a moment ago, for the overlay."""
        now_ns = self._clock.now_ns()
        return tuple(text for at_ns, text in list(self._said.values()) if now_ns - at_ns <= SHOWN_NS)

    def check(self, now_ns: int) -> None:
        """Look at everything once."""
        late_ns = now_ns - self._checked_ns - EVERY_NS
        self._checked_ns = now_ns
        if late_ns > LATE_NS:
            _LOG.debug("the program stood still for %.1f s", late_ns / SECOND)
            self._analysis.excuse(late_ns)
            self.turned_ns += late_ns
            self._answered_ns += late_ns
        for line in self._analysis.mend(now_ns):
            self._say(line, now_ns)
        if now_ns - self.turned_ns >= STILL_NS:
            self._say(DISPLAY.format((now_ns - self.turned_ns) / SECOND), now_ns)
        self._check_answers(now_ns)

    def _check_answers(self, now_ns: int) -> None:
        """Faces in fresh sightings must lead to cues."""
        written, wiring = self._cues.written, self._analysis.wiring
        newest = [] if wiring is None else [ring.newest() for ring in wiring.rings.sightings.values()]
        if written != self._answers or not any(sighting and sighting.faces for sighting in newest):
            self._answers, self._answered_ns = written, now_ns
        elif now_ns - self._answered_ns >= STILL_NS:
            self._say(NO_ANSWERS.format((now_ns - self._answered_ns) / SECOND), now_ns)

    def _say(self, line: str, now_ns: int) -> None:
        """Keep it for the overlay, and log it when it is new; the seconds in it count up."""
        subject = line.split(" for ")[0]
        if now_ns - self._said.get(subject, (-SHOWN_NS, ""))[0] >= SHOWN_NS:
            _LOG.warning("%s", line)
        self._said[subject] = (now_ns, line)

    def _run(self) -> None:
        while self._clock.wait_until(self._clock.now_ns() + EVERY_NS, self._stop):
            self.check(self._clock.now_ns())
