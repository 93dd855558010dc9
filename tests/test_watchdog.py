"""Nothing of a live run stops without a word: it is said within two seconds, and started again."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
import pytest
from numpy.typing import NDArray

from liveaffect.engines.recipe import SAMPLE_RATE
from liveaffect.realtime import analysis
from liveaffect.realtime.analysis import EVERY_NS, SCHEDULER, STILL_NS, Analysis, Watchdog
from liveaffect.realtime.blazeface import Found
from liveaffect.realtime.clock import MS, SECOND
from liveaffect.realtime.cue import Cue
from liveaffect.realtime.frame import AudioBlock, VideoFrame
from liveaffect.realtime.ring import Ring
from liveaffect.realtime.testing.people import Actor, ScriptedFinder, scene
from liveaffect.realtime.testing.virtual_time import FakeClock, constant_networks
from liveaffect.realtime.voice_analyzer import LATE
from liveaffect.realtime.window import PIECES
from liveaffect.realtime.wiring import Rings, Wiring

CAMERA = "camera:0"
ACTOR = Actor(48, 40, 32, who=1)
IMAGE = scene((96, 80), [ACTOR])
SAYS = f"looking at {CAMERA}"
REAL_S = 10.0
HUM = np.full(800, 0.01, np.float32)


@dataclass
class Finder(ScriptedFinder):
    """A finder that fails or hangs when it is told to."""

    bench: Bench | None = None
    stuck: threading.Event = field(default_factory=threading.Event)

    def find(self, image: NDArray[np.uint8]) -> list[Found]:
        assert self.bench is not None
        if self.bench.breaks:
            raise RuntimeError("the detector gave up")
        if self.bench.hanging == SAYS:
            self.stuck.set()
            self.bench.let_go.wait(REAL_S)
        whole = image if image.base is None else image.base
        assert isinstance(whole, np.ndarray)
        self.show(whole, [ACTOR])
        return super().find(image)


class Shown(ScriptedFinder):
    """A finder that always finds the one who is there."""

    def find(self, image: NDArray[np.uint8]) -> list[Found]:
        whole = image if image.base is None else image.base
        assert isinstance(whole, np.ndarray)
        self.show(whole, [ACTOR])
        return super().find(image)


class Bench:
    """The real threads of an analysis on a clock that the test moves."""

    def __init__(self) -> None:
        self.clock = FakeClock(SECOND)
        self.rings = Rings.plain([CAMERA], [])
        self.cues: Ring[tuple[Cue, ...]] = Ring(256)
        self.finders: list[Finder] = []
        self.breaks = False
        self.hanging = ""
        self.let_go = threading.Event()
        self.loaded = 0
        self.analysis = Analysis(self._wire, self.clock)
        self.watchdog = Watchdog(self.analysis, self.cues, self.clock)
        self._seq = 0

    def _wire(self) -> Wiring:
        self.loaded += 1
        return Wiring(self.rings, constant_networks(), self._make_finders, self.cues.push)

    def _make_finders(self) -> tuple[Finder, Finder]:
        pair = Finder(bench=self), Finder(bench=self)
        self.finders += pair
        return pair

    def go(self, step_ns: int = EVERY_NS) -> None:
        """A picture comes, time passes, whoever can comes round, and the watchdog looks."""
        self.rings.frames[CAMERA].push(VideoFrame(CAMERA, self._seq, self.clock.now_ns(), IMAGE.copy()))
        self._seq += 1
        self.clock.advance(step_ns)
        self.come_round()
        self.watchdog.turned()
        self.watchdog.check(self.clock.now_ns())

    def come_round(self) -> None:
        """Real time passes until every thread has come round that does not hang."""
        now_ns, tick = self.clock.now_ns(), threading.Event()
        tick.wait(0.2 if self.hanging else 0.01)
        for _ in range(200):
            workers = list(self.analysis._workers.values())
            if all(w.beat_ns >= now_ns or w.failed or w.name in self.hanging for w in workers):
                break
            tick.wait(0.01)

    def go_until(self, done: Callable[[], bool], most_ns: int) -> int:
        """How long that took."""
        began_ns = self.clock.now_ns()
        while not done():
            assert self.clock.now_ns() - began_ns < most_ns, self.watchdog.notices
            self.go()
        return self.clock.now_ns() - began_ns

    def said(self, words: str) -> bool:
        return any(words in text for text in self.watchdog.notices)


@pytest.fixture
def bench() -> Iterator[Bench]:
    with running() as made:
        yield made


@contextmanager
def running() -> Iterator[Bench]:
    made = Bench()
    made.analysis.start()
    try:
        made.go_until(lambda: made.cues.written > 0, 10 * SECOND)
        yield made
    finally:
        made.hanging = ""
        made.let_go.set()
        made.analysis.stop()


def test_a_finder_that_hangs_is_said_within_two_seconds_and_another_takes_its_place(bench: Bench) -> None:
    bench.hanging = SAYS
    assert bench.go_until(lambda: bench.said(f"{SAYS} has stood still"), 5 * SECOND) <= 2 * SECOND
    before = len(bench.finders)
    bench.go_until(lambda: len(bench.finders) > before, 5 * SECOND)
    bench.hanging = ""
    answered = bench.cues.written
    bench.go_until(lambda: bench.cues.written > answered + 2, 3 * SECOND)
    assert bench.analysis.failed is None
    assert bench.loaded == 1


def test_what_a_replaced_finder_brings_late_is_dropped(bench: Bench) -> None:
    bench.hanging = SAYS
    before = len(bench.finders)
    bench.go_until(lambda: len(bench.finders) > before, 10 * SECOND)
    bench.hanging = ""
    bench.go()
    seen = [s.seq for s in bench.rings.sightings[CAMERA].read_since(0).items]
    bench.let_go.set()
    bench.go()
    after = [s.seq for s in bench.rings.sightings[CAMERA].read_since(0).items]
    assert after == sorted(after)
    assert after[: len(seen)] == seen


def test_looking_that_fails_once_goes_on_with_a_new_finder(bench: Bench) -> None:
    bench.breaks = True
    bench.go_until(lambda: bench.said(f"{SAYS} failed (the detector gave up)"), 2 * SECOND)
    bench.breaks = False
    answered = bench.cues.written
    bench.go_until(lambda: bench.cues.written > answered + 2, 4 * SECOND)
    assert bench.analysis.failed is None


def test_looking_that_fails_always_is_tried_again_with_growing_pauses(bench: Bench) -> None:
    bench.breaks = True
    wiring = bench.analysis.wiring
    assert wiring is not None
    for _ in range(80):
        bench.clock.advance(EVERY_NS)
        bench.go(0)
    assert 3 <= wiring.health.failures[f"times {SAYS} was started again"] <= 6


def test_a_scheduler_that_fails_is_loaded_anew(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    wiring = bench.analysis.wiring
    assert wiring is not None
    monkeypatch.setattr(wiring.scheduler, "step", _broken)
    bench.go_until(lambda: bench.said(f"{SCHEDULER} failed (arithmetic)"), 2 * SECOND)
    bench.go_until(lambda: bench.loaded == 2, 2 * SECOND)
    answered = bench.cues.written
    bench.go_until(lambda: bench.cues.written > answered + 2, 4 * SECOND)


def test_a_network_that_hangs_is_said_and_everything_is_loaded_anew(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    wiring = bench.analysis.wiring
    assert wiring is not None
    monkeypatch.setattr(wiring.scheduler, "step", lambda _: bench.let_go.wait(REAL_S))
    bench.hanging = SCHEDULER
    assert bench.go_until(lambda: bench.said(f"{SCHEDULER} has stood still"), 5 * SECOND) <= 2 * SECOND
    bench.go_until(lambda: bench.loaded == 2, 6 * SECOND)
    bench.hanging = ""
    answered = bench.cues.written
    bench.go_until(lambda: bench.cues.written > answered + 2, 4 * SECOND)


def test_what_is_loaded_anew_goes_on_counting_where_the_other_stopped() -> None:
    """Ids, figures and the place in the sound; people and speakers are met anew."""
    clock, microphone = FakeClock(SECOND), "mic:0"
    rings, cues = Rings.plain([CAMERA], [microphone]), Ring[tuple[Cue, ...]](1024)
    finders: list[Shown] = [Shown(), Shown()]
    run = Analysis(
        lambda: Wiring(rings, constant_networks(), lambda: (finders[0], finders[1]), cues.push), clock
    )

    def go(wiring: Wiring | None, steps: int) -> set[int | None]:
        before = cues.written
        for _ in range(steps):
            seq = rings.frames[CAMERA].written
            clock.advance(50 * MS)
            rings.take(AudioBlock(microphone, 800 * seq, clock.now_ns() - 50 * MS, HUM))
            rings.take(VideoFrame(CAMERA, seq, clock.now_ns(), IMAGE.copy()))
            if wiring is not None:
                assert run.look(wiring, CAMERA)
                run.think(wiring)
        return {cue.track for batch in cues.read_since(before).items for cue in batch}

    first = run.load()
    assert go(first, 200) == {1}
    first.health.left_out["pictures not analysed"] += 100
    hops = first.scheduler.lost_sound()
    first.scheduler.retire()
    go(None, 40)  # Two seconds in which nobody comes round.
    second = run.load()
    assert go(second, 60) == {2}
    assert second.health.left_out["pictures not analysed"] == 100 + 40
    lost = second.scheduler.lost_sound() - hops
    assert 0 < lost[LATE] <= 2 * SECOND / (PIECES.hop * SECOND // SAMPLE_RATE)
    assert second.scheduler.skipped["grid points"] >= 5


def test_faces_without_answers_are_said_within_two_seconds(bench: Bench) -> None:
    """Pictures that are too old when they are looked at: nobody is in view any more, and no cue comes."""
    answered = bench.cues.written

    def old_picture() -> bool:
        bench.rings.frames[CAMERA].push(VideoFrame(CAMERA, 1000, bench.clock.now_ns() - SECOND, IMAGE.copy()))
        bench.clock.advance(EVERY_NS)
        bench.come_round()
        bench.watchdog.turned()
        bench.watchdog.check(bench.clock.now_ns())
        return bench.said("faces are found, but there has been no answer")

    began_ns = bench.clock.now_ns()
    while not old_picture():
        assert bench.clock.now_ns() - began_ns <= 3 * SECOND, (bench.cues.written, answered)
    assert bench.clock.now_ns() - began_ns <= 2 * SECOND + 500 * MS


def test_a_display_that_stands_still_is_said(bench: Bench) -> None:
    bench.watchdog.turned()
    for _ in range(STILL_NS // EVERY_NS):
        bench.clock.advance(EVERY_NS)
        bench.come_round()
        bench.watchdog.check(bench.clock.now_ns())
    assert bench.said("the display has stood still for 1.5 s")


def test_a_program_that_was_stopped_as_a_whole_is_excused(bench: Bench) -> None:
    bench.clock.advance(60 * SECOND)
    bench.watchdog.check(bench.clock.now_ns())
    bench.go()
    assert bench.watchdog.notices == ()


def test_no_more_than_a_few_hanging_threads_are_left_behind(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(analysis, "GIVEN_UP_NS", SECOND)
    monkeypatch.setattr(analysis, "_pause_ns", lambda _: 0)
    bench.hanging = SAYS
    before = len(bench.finders)
    for _ in range(6 * (analysis.MOST_ABANDONED + 2)):
        bench.go()
    assert len(bench.finders) - before == 2 * analysis.MOST_ABANDONED


def test_a_program_without_a_processor_is_not_started_again(bench: Bench) -> None:
    """Everything comes late, the watchdog too: nobody is at fault, and loading again would make it worse."""
    bench.hanging = SAYS  # as if it got no turn
    before = len(bench.finders), bench.loaded
    for _ in range(10):
        bench.clock.advance(5 * SECOND)
        bench.watchdog.turned()
        bench.watchdog.check(bench.clock.now_ns())
    assert (len(bench.finders), bench.loaded) == before


def _broken(_: int) -> None:
    raise ArithmeticError("arithmetic")
