"""A live run on a clock that the test moves: an hour passes in seconds, and every run is the same.

`FakeClock` is for tests of threads: a test says how many it expects to sleep, waits for exactly those and
advances, so a thread wakes at the very nanosecond it asked for; real time only notices a `stop` and a test
that hangs. `Stepped` plays the threads of the same `LiveRun`, `Analysis` and stations as live;
`PlayedMoment` sends one source with a script of faults through it. Meanwhile monitors watch every ring:
numbers rise, time never falls, sizes are those announced, one thread writes. A violation raises at once in
the thread that caused it and is kept, because a capture thread turns every failure into the end of its
stream; `Monitors.check` brings it to the test.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from liveaffect.engines.recipe import SAMPLE_RATE
from liveaffect.realtime.clock import MS, SECOND, Clock
from liveaffect.realtime.cue import Cue
from liveaffect.realtime.errors import EndOfStream
from liveaffect.realtime.feeds import Feed
from liveaffect.realtime.frame import AudioBlock, Item, Sighting, Source, SourceState, VideoFrame
from liveaffect.realtime.live import LiveRun
from liveaffect.realtime.networks import Networks
from liveaffect.realtime.portrait import Portraits
from liveaffect.realtime.replay import MediaFile
from liveaffect.realtime.ring import AudioRing, Ring
from liveaffect.realtime.scheduler import Snapshot
from liveaffect.realtime.sinks import Outputs, Sink
from liveaffect.realtime.testing.devices import DrivenCamera, DrivenMicrophone, World
from liveaffect.realtime.testing.engines import ConstantEngine
from liveaffect.realtime.testing.faults import Fault, FaultLine, FaultySource
from liveaffect.realtime.testing.people import Actor, ScriptedFinder
from liveaffect.realtime.wiring import Rings, Wiring

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


_SLACK_NS = 50 * MS
"""How far a sound stamp may stray from the sample count: clocks drift, and stamps jitter."""


class Monitor:
    """Watches one hand-over: call it with every item, as a ring's `on_push` does."""

    def __init__(self, place: str, *, size: tuple[int, int] | None = None) -> None:
        self.place = place
        self.seen = 0
        self.violations: list[str] = []
        self._size = size
        self._writer: threading.Thread | None = None
        self._last: Any = None
        self._busy = threading.Lock()

    def __call__(self, item: object) -> None:
        """Raise AssertionError that names the hand-over if this item must not follow the one before."""
        if not self._busy.acquire(blocking=False):
            self._violated("two threads write at the same moment")
        try:
            self._check_writer()
            if isinstance(item, AudioBlock):
                self._check_block(item)
            elif isinstance(item, VideoFrame | Sighting):
                self._check_picture(item)
            self._last = item
            self.seen += 1
        finally:
            self._busy.release()

    def _check_writer(self) -> None:
        thread = threading.current_thread()
        if self._writer is None:
            self._writer = thread
        elif thread is not self._writer:
            self._violated(f"thread '{thread.name}' writes, but '{self._writer.name}' is the writer")

    def _check_picture(self, item: VideoFrame | Sighting) -> None:
        size = item.size
        if self._size is not None and size != self._size:
            self._violated(f"#{item.seq} is {size[0]}x{size[1]}, announced {self._size[0]}x{self._size[1]}")
        if isinstance(item, VideoFrame) and item.image.flags.writeable:
            self._violated(f"the picture of #{item.seq} can be written to")
        if not isinstance(last := self._last, VideoFrame | Sighting):
            return
        self._check_source(last.source, item.source)
        if item.seq <= last.seq:
            self._violated(f"#{item.seq} came after #{last.seq}; numbers have to rise")
        if item.captured_ns < last.captured_ns:
            self._violated(
                f"#{item.seq} was captured {(last.captured_ns - item.captured_ns) / MS:.3f} ms "
                f"before #{last.seq}; time never falls"
            )

    def _check_block(self, item: AudioBlock) -> None:
        if item.samples.flags.writeable:
            self._violated(f"the samples from {item.first} on can be written to")
        if not isinstance(last := self._last, AudioBlock):
            return
        self._check_source(last.source, item.source)
        if item.first < last.end:
            self._violated(f"sample {item.first} came after sample {last.end - 1}; numbers have to rise")
        if item.captured_ns < last.captured_ns:
            self._violated(f"sample {item.first} was captured before sample {last.first}; time never falls")
        wanted_ns = last.captured_ns + (item.first - last.first) * SECOND // SAMPLE_RATE
        if abs(item.captured_ns - wanted_ns) > _SLACK_NS:
            self._violated(
                f"sample {item.first} is stamped {(item.captured_ns - wanted_ns) / MS:+.1f} ms off "
                "its place; lost sound has to be a gap of its length"
            )

    def _check_source(self, before: str, now: str) -> None:
        if before != now:
            self._violated(f"items of '{now}' follow items of '{before}'")

    def _violated(self, what: str) -> None:
        text = f"hand-over '{self.place}' after {self.seen} items: {what}"
        self.violations.append(text)
        raise AssertionError(text)


class Monitors:
    """All hand-overs of a run. Give `at` to the pipeline as its factory of `on_push` hooks."""

    def __init__(self) -> None:
        self._places: dict[str, Monitor] = {}

    def at(self, place: str) -> Monitor:
        """The monitor of that hand-over, made on first use."""
        return self._places.setdefault(place, Monitor(place))

    @property
    def seen(self) -> Counter[str]:
        """How many items passed each hand-over."""
        return Counter({place: monitor.seen for place, monitor in self._places.items()})

    def check(self) -> None:
        """Raise AssertionError with every violation, also those that a thread swallowed."""
        violations = [text for monitor in self._places.values() for text in monitor.violations]
        if violations:
            raise AssertionError("; ".join(violations))


def monitored_ring(place: str, capacity: int, *, size: tuple[int, int] | None = None) -> Ring[Any]:
    """A ring whose every item is watched."""
    return Ring(capacity, on_push=Monitor(place, size=size))


def monitored_audio_ring(place: str, capacity: int) -> AudioRing:
    """The same for sound."""
    return AudioRing(capacity, on_push=Monitor(place))


Make = Callable[[], Source]
Script = Callable[[VideoFrame], Sequence[Actor]]
"""Who is in a picture."""


def constant_networks() -> Networks:
    """Everybody is happy and every sound is speech."""
    return Networks(
        ConstantEngine("face", "happy"), ConstantEngine("voice", "happy"), ConstantEngine("fusion", "happy")
    )


def _nobody(_: VideoFrame) -> Sequence[Actor]:
    return ()


class Stepped:
    """A live run in the hand of the test, with every hand-over watched."""

    def __init__(
        self,
        clock: Clock,
        cameras: Mapping[str, Make],
        microphones: Mapping[str, Make] | None = None,
        *,
        networks: Networks | None = None,
        actors: Script = _nobody,
        sinks: Sequence[Sink] = (),
    ) -> None:
        """The overlay starts late; `run.switch_pace` makes it locked."""
        self.clock = clock
        self.monitors = Monitors()
        self.networks = networks or constant_networks()
        self.outputs = Outputs(sinks)
        self._actors = actors
        self._finders: list[ScriptedFinder] = []
        feeds = [Feed(name, make, pictures=True, sound=False, live=True) for name, make in cameras.items()]
        feeds += [
            Feed(name, make, pictures=False, sound=True, live=True)
            for name, make in (microphones or {}).items()
        ]
        self.run = LiveRun(feeds, self._wire, self.outputs, clock, overlay="late")
        self.run.watch(self.monitors.at)
        self.wiring = self.run.analysis.load()

    def deliver(self, item: Item) -> None:
        """What a source brings."""
        self.run.deliver(item)

    def look(self, source: str) -> bool:
        """Look at the newest picture of a camera, as its thread does."""
        newest = self.run.rings.frames[source].newest()
        if newest is None:
            return False
        for finder in self._finders:
            finder.show(newest.image, self._actors(newest))
            finder.calls.clear()
        return self.run.analysis.look(self.wiring, source)

    def think(self) -> Snapshot:
        """One step of the scheduler."""
        self.run.analysis.think(self.wiring)
        newest = self.run.analysis.snapshots.newest()
        assert newest is not None
        return newest[1]

    def turn(self) -> None:
        """One turn of the display."""
        self.run.turn(0.0)

    def round(self) -> None:
        """Look everywhere, think, draw."""
        for name in self.run.rings.frames:
            self.look(name)
        self.think()
        self.turn()

    def check(self) -> None:
        """Raise AssertionError unless the ledger balances and every hand-over made sense."""
        self.run.check_ledger()
        self.monitors.check()

    def _wire(self, rings: Rings, publish: Callable[[tuple[Cue, ...]], None]) -> Wiring:
        return Wiring(rings, self.networks, self._make_finders, publish)

    def _make_finders(self) -> tuple[ScriptedFinder, ScriptedFinder]:
        finder = ScriptedFinder()
        self._finders.append(finder)
        return finder, finder


def never(name: str) -> Make:
    """Makes a source that delivers nothing: the test delivers its items itself."""
    return lambda: _Never(name)


class _Never:
    def __init__(self, name: str) -> None:
        self.name = name

    def open(self) -> None:
        """Nothing to open."""

    def read(self, timeout_s: float) -> Item | None:
        """Nothing comes from here."""
        return None

    def close(self) -> None:
        """Nothing to close."""


SOURCES = ("portraits", "video file", "sound file", "camera", "microphone")
PERIOD_NS = {"picture": SECOND // 25, "sound": 20 * MS}
END_NS = 7 * SECOND
"""No item is captured after this, except for what a stall puts off."""
VOICE = 0.2 * np.sin(2 * np.pi * 180 / SAMPLE_RATE * np.arange(8 * SAMPLE_RATE)).astype(np.float32)


class Reopened:
    """A file or portrait as a device: whenever it is opened it begins at that moment and counts from 0."""

    def __init__(self, source: Source, clock: TickingClock, sent: list[Item]) -> None:
        self._source, self._clock, self._sent = source, clock, sent
        self._since_ns = 0
        self.name = source.name

    def open(self) -> None:
        """Its time begins now."""
        self._since_ns = self._clock.now_ns()
        self._source.open()

    def read(self, timeout_s: float) -> Item | None:
        """The next item on the run's time; the end comes with that of the run."""
        item = self._source.read(timeout_s)
        if item is None or item.captured_ns + self._since_ns >= END_NS:
            raise EndOfStream
        self._sent.append(item)
        return replace(item, captured_ns=item.captured_ns + self._since_ns)

    def close(self) -> None:
        """Close what is inside."""
        self._source.close()


@dataclass(frozen=True, slots=True)
class PlayedMoment:
    """How things stood at one tick."""

    at_ns: int
    state: SourceState
    arrived: int
    """Pictures or samples in the rings so far."""
    shown: int


class Case:
    """One source with one fault, played to the end of virtual time."""

    def __init__(self, kind: str, script: list[Fault], media: Path) -> None:
        """`media` holds clip.mp4 and voice.wav. `voice` may be changed before `play`."""
        self.clock = TickingClock(END_NS + 2 * SECOND, 40 * MS)
        self.kind = kind
        self.sent: list[Item] = []
        self.world: World | None = None
        self.log: list[PlayedMoment] = []
        blocks = VOICE.reshape(-1, SAMPLE_RATE // 50)
        self.voice: Callable[[int], NDArray[np.float32]] = lambda k: blocks[k % len(blocks)]
        make = self._maker(script, media)
        name = make().name
        sound = "sound" in kind or kind == "microphone"
        self.stage = Stepped(
            self.clock, {} if sound else {name: make}, {name: make} if sound else {}, actors=_somebody
        )
        self.name = name
        (self.supervisor,) = self.stage.run.supervisors
        self.clock.tick = self._tick

    def play(self) -> None:
        """Until the source or time ends; fails if neither happens."""
        self.supervisor.start(lambda _: self.clock.over.set())
        assert self.clock.over.wait(20.0), f"it hangs at {self.clock.now_ns() / SECOND:.3f} s"
        assert self.supervisor.stop(), "the supervisor did not stop"
        assert self.supervisor.error is None or "unplugged" in str(self.supervisor.error)
        self.stage.turn()

    @property
    def state(self) -> SourceState:
        """How the source is doing."""
        return self.supervisor.state

    def moments(self, phase: str) -> list[PlayedMoment]:
        """The ticks at which the source was in that phase."""
        return [moment for moment in self.log if moment.state.phase == phase]

    def _tick(self) -> None:
        self.stage.round()
        ring = self.stage.run.rings
        arrived = sum(r.written for r in ring.frames.values()) + sum(r.end for r in ring.sounds.values())
        shown = sum(ledger.shown for ledger in self.stage.run.health.ledgers.values())
        self.log.append(PlayedMoment(self.clock.now_ns(), self.supervisor.state, arrived, shown))

    def _maker(self, script: list[Fault], media: Path) -> Callable[[], Source]:
        clock = self.clock
        if self.kind in ("camera", "microphone"):
            world = self.world = World(script, PERIOD_NS["picture" if self.kind == "camera" else "sound"])
            if self.kind == "camera":
                return lambda: DrivenCamera(world, clock)
            return lambda: DrivenMicrophone(world, clock, lambda k: self.voice(k))
        line = FaultLine(script)
        return lambda: FaultySource(Reopened(self._plain(media), clock, self.sent), line, clock)

    def _plain(self, media: Path) -> Source:
        if self.kind == "portraits":
            return Portraits([np.full((40, 30, 3), 190, np.uint8)], (128, 64), fps=25.0)
        return MediaFile(media / ("clip.mp4" if self.kind == "video file" else "voice.wav"))


def _somebody(frame: VideoFrame) -> list[Actor]:
    width, height = frame.size
    return [Actor(width / 2, height / 2, height / 2)]
