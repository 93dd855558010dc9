"""A live run: supervised sources, the analysing threads, and the display loop in the main thread.

The display never waits for a network: it draws the newest picture with the newest answer at the camera's
rate, says "starting" until there is one, and says so in words when a source stands still. Windows belong
to the main thread, so this loop is it.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Generator, Sequence
from contextlib import closing

from liveaffect.realtime.analysis import Analysis, Watchdog
from liveaffect.realtime.clock import MS, SECOND, Clock
from liveaffect.realtime.cue import Cue
from liveaffect.realtime.errors import SourceNotFound
from liveaffect.realtime.feeds import Feed
from liveaffect.realtime.frame import AudioBlock, Item, Sighting, VideoFrame
from liveaffect.realtime.health import HealthBook, losses_in_words
from liveaffect.realtime.ring import Ring
from liveaffect.realtime.scheduler import Snapshot
from liveaffect.realtime.screen import HISTORY_STEP_NS, NO_CAMERA, Pace, RunStatus, Screen, blank_picture
from liveaffect.realtime.sinks import Outputs
from liveaffect.realtime.supervisor import Supervisor
from liveaffect.realtime.wiring import Rings, Watcher, Wiring

_IDLE_S = 0.05
_NOTICE_NS = 200 * MS
_STILL_NS = 500 * MS
"""A picture that stands this long is drawn again, with the reason."""
_GONE_NS = SECOND
"""A sighting older than this says nothing about who is there now."""
_LOCK_S = 0.03
"""How long a locked display waits for the result of its picture."""
CUES = 256
SOUND_BLOCKS = 512
ARRIVALS = 32
"""Pictures whose time of arrival is remembered, to measure how long their results take."""


class LiveRun:
    """Start with `run`; it returns when the user, the clock or the sources say so."""

    def __init__(
        self,
        feeds: Sequence[Feed],
        make_wiring: Callable[[Rings, Callable[[tuple[Cue, ...]], None]], Wiring],
        outputs: Outputs,
        clock: Clock,
        *,
        overlay: str = "auto",
        mirrored: bool = False,
    ) -> None:
        cameras = [feed.name for feed in feeds if feed.pictures]
        self._feeds = tuple(feeds)
        self.rings = Rings.plain(cameras, [feed.name for feed in feeds if feed.sound])
        self.health = HealthBook()
        self.cues: Ring[tuple[Cue, ...]] = Ring(CUES)
        self.pace = Pace(overlay)
        self.text_scale: Callable[[str], float] = lambda source: 1.0
        """How much larger than usual text on the pictures of a source must be; a window knows."""
        self._sound: Ring[AudioBlock] = Ring(SOUND_BLOCKS)
        self._clock = clock
        self._outputs = outputs
        self.patient = False
        """Whether sources that are not there yet are waited for, as where nobody sits at the machine."""
        self._fresh = threading.Event()
        self.analysis = Analysis(lambda: make_wiring(self.rings, self.cues.push), clock)
        self.watchdog = Watchdog(self.analysis, self.cues, clock)
        self.supervisors = [
            Supervisor(f.make, clock, self.deliver, live=f.live, watch=f.watch) for f in feeds
        ]
        shown = cameras or [NO_CAMERA]
        self.screens = {name: Screen(name, "starting", mirrored=mirrored) for name in shown}
        self._cursors = dict.fromkeys(cameras, 0)
        self._last: dict[str, tuple[VideoFrame, int]] = {}
        self._arrived = {name: [(-1, 0)] * ARRIVALS for name in shown}
        self._cue_cursor = self._sound_cursor = self._snapshot_cursor = 0
        self._snapshot: Snapshot | None = None
        self._named = False
        self._noticed: tuple[int, tuple[str, ...]] = (0, ())

    def run(self, *, seconds: float = 0.0, wants_stop: Callable[[], bool] = lambda: False) -> None:
        """Until `seconds` are over (0: no limit), `wants_stop` says so, or every source has ended.

        Raises what kept the analysis from loading, because a run without any is not what was asked for.
        """
        started_ns = self._clock.now_ns()
        with closing(self.turns()) as turns:
            for ended in turns:
                if ended or wants_stop() or 0 < seconds * SECOND <= self._clock.now_ns() - started_ns:
                    break

    def turns(self) -> Generator[bool]:
        """Start, and take a turn whenever asked for the next; True once every source has ended.

        Raises as `run` does. Closing the generator ends threads, sources and outputs.
        """
        # A film waits for the networks; what a camera shows meanwhile is shown without them.
        waiting = [s for s, feed in zip(self.supervisors, self._feeds, strict=True) if not feed.live]
        try:
            self.analysis.start()
            self.watchdog.start()
            for supervisor in self.supervisors:
                if supervisor not in waiting:
                    supervisor.start()
            while True:
                self.turn()
                if self.analysis.wiring is not None:
                    while waiting:
                        waiting.pop().start()
                if self.analysis.wiring is None and self.analysis.failed is not None:
                    raise self.analysis.failed
                if not self.patient:
                    self._refuse_what_was_never_there()
                yield self._ended()
        finally:
            self._close()

    def turn(self, wait_s: float = _IDLE_S) -> None:
        """One turn of the display: draw what is new, hand cues and sound to the outputs.

        Waits up to `wait_s` for a picture; a test that takes the place of the threads does not.
        """
        self._fresh.wait(wait_s)
        self._fresh.clear()
        self.watchdog.turned()
        for name in self.screens:
            self._draw_newest(name)
        self._hand_on()

    def watch(self, watch: Callable[[str], Watcher]) -> None:
        """Have every hand-over watched, as tests do; before `run`."""
        self.rings = Rings.plain(list(self.rings.frames), list(self.rings.sounds), watch)

    def switch_pace(self) -> None:
        """Locked becomes late and the other way round."""
        self.pace.switch()

    def switch_mirror(self) -> None:
        """Show the picture as in a mirror, or not."""
        for screen in self.screens.values():
            screen.mirrored = not screen.mirrored

    def report(self) -> str:
        """One line about the whole run, for the person at the keyboard."""
        self.check_ledger()
        ledgers = self.health.ledgers.values()
        shown = sum(ledger.shown for ledger in ledgers)
        captured = sum(ledger.captured for ledger in ledgers)
        wiring = self.analysis.wiring
        skipped = 0 if wiring is None else wiring.scheduler.skipped["grid points"]
        failures = self.health.failures if wiring is None else self.health.failures + wiring.health.failures
        left_out = {} if wiring is None else wiring.health.left_out + wiring.scheduler.lost_sound()
        return (
            f"{captured} pictures captured, {shown} drawn, {self.health.dropped()} dropped, "
            f"{captured - shown - self.health.dropped()} in flight; {skipped} answers skipped"
        ) + losses_in_words(
            sum((Counter(s.state.losses) for s in self.supervisors), Counter[str]()), left_out, failures
        )

    def check_ledger(self) -> None:
        """Raise AssertionError unless every captured picture is accounted for. Call after `run`."""
        for name, ring in self.rings.frames.items():
            self.health.ledger(name).captured = ring.written
            self.health.ledger(name).check(in_flight=ring.written - self._cursors[name])

    def deliver(self, item: Item) -> None:
        """What a source brings; called from its thread."""
        if isinstance(item, VideoFrame):
            self._arrived[item.source][item.seq % ARRIVALS] = (item.seq, self._clock.now_ns())
        self.rings.take(item)
        if isinstance(item, VideoFrame):
            self._fresh.set()
        elif self._outputs.want_sound:
            self._sound.push(item)

    def _draw_newest(self, name: str) -> None:
        if name == NO_CAMERA:
            now_ns = self._clock.now_ns()
            if now_ns - self._last.get(name, (None, 0))[1] >= HISTORY_STEP_NS:
                self._show(name, blank_picture(name, now_ns))
            return
        batch = self.rings.frames[name].read_since(self._cursors[name])
        self._cursors[name] = batch.cursor
        ledger = self.health.ledger(name)
        ledger.dropped["overwritten before it was drawn"] += batch.missed
        if batch.items:
            ledger.dropped["a newer picture was there"] += len(batch.items) - 1
            ledger.shown += 1
            self._show(name, batch.items[-1])
            return
        now_ns = self._clock.now_ns()
        frame, drawn_ns = self._last.get(name, (None, 0))
        if now_ns - drawn_ns < _STILL_NS:
            return
        # Nothing came for a while: draw what there is again, so that the words on it are true.
        self._show(name, frame or blank_picture(name, now_ns), stands_in=self._awaited(name))

    def _awaited(self, camera: str) -> bool:
        """Whether the first picture of a camera may come at any moment: none did, and nothing failed yet."""
        return self._cursors[camera] == 0 and any(
            s.state.name == camera and s.error is None for s in self.supervisors
        )

    def _show(self, name: str, frame: VideoFrame, *, stands_in: bool = False) -> None:
        self._wait_for_result(name, frame)
        now_ns = self._clock.now_ns()
        self._last[name] = (frame, now_ns)
        if not self._outputs.want_pictures:
            return
        screen = self.screens[name]
        wiring = self.analysis.wiring
        if wiring is not None and not self._named:
            self._named = True
            for each in self.screens.values():
                each.engine = wiring.networks.name
        picture = screen.draw(
            frame,
            self._sighting(name),
            self._snapshot,
            RunStatus(
                now_ns,
                self.pace.mode,
                dropped=self.health.dropped(),
                skipped=0 if wiring is None else wiring.scheduler.skipped["grid points"],
                notices=self._notices(),
                disclosure=self._outputs.disclose,
                text_scale=self.text_scale(name),
            ),
        )
        self._outputs.show(picture, frame, stands_in=stands_in)

    def _wait_for_result(self, name: str, frame: VideoFrame) -> None:
        """Take in new results; locked, wait a moment for the one that belongs to this picture."""
        deadline_ns = self._clock.now_ns() + round(_LOCK_S * SECOND)
        while True:
            batch = self.analysis.snapshots.read_since(self._snapshot_cursor)
            self._snapshot_cursor = batch.cursor
            for done_ns, snapshot in batch.items:
                self._note_delay(name, snapshot, done_ns)
                self._snapshot = snapshot
            there = self._snapshot is not None and self._snapshot.seen.get(name, -1) >= frame.seq
            left_ns = deadline_ns - self._clock.now_ns()
            if there or not self.pace.locked or self.analysis.wiring is None or left_ns <= 0:
                return
            news = self.analysis.snapshots.wait_since(self._snapshot_cursor, left_ns / SECOND)
            if not news.items or self.analysis.failed is not None:
                return

    def _note_delay(self, name: str, snapshot: Snapshot, done_ns: int) -> None:
        """How long the result of a picture took, once for each picture."""
        seq = snapshot.seen.get(name, -1)
        slot = seq % ARRIVALS
        arrived_seq, arrived_ns = self._arrived[name][slot]
        if seq >= 0 and arrived_seq == seq:
            self._arrived[name][slot] = (-1, 0)
            self.pace.note(done_ns - arrived_ns)

    def _sighting(self, name: str) -> Sighting | None:
        """The newest sighting, as long as it is about this moment."""
        newest = self.rings.sightings[name].newest() if name in self.rings.sightings else None
        if newest is None or self._clock.now_ns() - newest.captured_ns > _GONE_NS:
            return None
        return newest

    def _hand_on(self) -> None:
        """Cues and sound to the outputs."""
        batch = self.cues.read_since(self._cue_cursor)
        self._cue_cursor = batch.cursor
        self.health.failures["cues that outputs were too slow for"] += batch.missed
        for cues in batch.items:
            self._outputs.tell(cues)
        blocks = self._sound.read_since(self._sound_cursor)
        self._sound_cursor = blocks.cursor
        self.health.failures["sound that outputs were too slow for"] += blocks.missed
        for block in blocks.items:
            self._outputs.hear(block)

    def _notices(self) -> tuple[str, ...]:
        """What the user must know; asked for every so often, because counting losses costs."""
        now_ns = self._clock.now_ns()
        if now_ns - self._noticed[0] >= _NOTICE_NS or now_ns < _NOTICE_NS:
            self._noticed = (now_ns, self._look_round())
        return self._noticed[1]

    def _look_round(self) -> tuple[str, ...]:
        notices = [
            state.message or f"{state.name}: {state.phase}"
            for state in (supervisor.state for supervisor in self.supervisors)
            if state.phase != "running"
        ]
        notices.extend(self.watchdog.notices)
        if self.analysis.wiring is None:
            notices.append("starting")
        elif (caveat := self.analysis.wiring.networks.caveat) is not None:
            notices.append(caveat)
        return (*notices, *self._outputs.failures)

    def _refuse_what_was_never_there(self) -> None:
        """A run none of whose sources can ever deliver is a mistyped command, not a patient wait."""
        errors = [s.error for s in self.supervisors if _hopeless(s)]
        if len(errors) == len(self.supervisors) and any(errors):
            raise SourceNotFound("; ".join(dict.fromkeys(str(error) for error in errors if error)))

    def _ended(self) -> bool:
        """With a film its end is the end, also where a microphone could go on for ever.

        A camera that was never there is not waited for once everything else has ended.
        """
        both = list(zip(self.supervisors, self._feeds, strict=True))
        decisive = [s for s, feed in both if feed.pictures] or self.supervisors
        if all(supervisor.state.phase == "ended" for supervisor in decisive):
            return True
        return not self.patient and all(s.state.phase == "ended" or _hopeless(s) for s in self.supervisors)

    def _close(self) -> None:
        self.watchdog.stop()
        # Each may take a moment; together they take no longer than the slowest.
        for supervisor in self.supervisors:
            supervisor.ask_to_stop()
        closers = [threading.Thread(target=s.stop, name=f"closing {s.state.name}") for s in self.supervisors]
        for closer in closers:
            closer.start()
        for closer in closers:
            closer.join()
        self.analysis.stop()
        self._hand_on()
        self._outputs.close()


def _hopeless(source: Supervisor) -> bool:
    never_there = source.state.phase == "ended" or isinstance(source.error, SourceNotFound)
    return never_there and source.state.delivered == 0
