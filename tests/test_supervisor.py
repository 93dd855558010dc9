"""A supervised source is one unbroken stream: it comes back by itself, and what is wrong is always named."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import ClassVar

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from liveaffect.engines.recipe import SAMPLE_RATE
from liveaffect.realtime.clock import MS, SECOND
from liveaffect.realtime.errors import (
    EndOfStream,
    MissingLibrary,
    SettingsError,
    SourceChanged,
    SourceLost,
    SourceNotFound,
)
from liveaffect.realtime.frame import AudioBlock, Item, Source, SourceState, VideoFrame
from liveaffect.realtime.supervisor import Numbering, Supervisor
from liveaffect.realtime.testing.devices import ScriptedSource, picture, tone
from liveaffect.realtime.testing.virtual_time import FakeClock

Step = tuple[int, Item | Exception]
PERIOD_NS = 33 * MS


def counted(count: int, *, level: int = 100) -> list[Step]:
    """Pictures numbered from 0, the first after one period."""
    return [((i + 1) * PERIOD_NS, picture(i, (i + 1) * PERIOD_NS, level=level)) for i in range(count)]


class Stage:
    """A supervisor over scripts, one per opening, on a clock that the test moves."""

    def __init__(self, *scripts: list[Step], live: bool = True, watch: Callable[[], object] | None = None):
        self.clock = FakeClock()
        self.items: list[Item] = []
        self.made: list[ScriptedSource] = []
        self.ends: list[Exception | None] = []
        self._scripts = list(scripts)
        self.supervisor = Supervisor(self._make, self.clock, self.items.append, live=live, watch=watch)

    def _make(self) -> Source:
        script = self._scripts.pop(0) if self._scripts else [(0, SourceNotFound("there is no camera 'x'"))]
        source = ScriptedSource(self.clock, script)
        self.made.append(source)
        return source

    def run_until(self, when_ns: int) -> SourceState:
        self.clock.run_until(when_ns, sleepers=1)
        return self.supervisor.state

    @property
    def seqs(self) -> list[int]:
        return [item.seq for item in self.items if isinstance(item, VideoFrame)]


@contextmanager
def playing(stage: Stage) -> Iterator[Stage]:
    stage.supervisor.start(stage.ends.append)
    try:
        yield stage
    finally:
        assert stage.supervisor.stop(), "the supervisor did not stop"


def wait_for(condition: Callable[[], bool], timeout_s: float = 5.0) -> None:
    """Real time, for threads that no fake clock drives."""
    tick = threading.Event()
    for _ in range(round(timeout_s / 0.005)):
        if condition():
            return
        tick.wait(0.005)
    raise AssertionError("it did not happen in time")


def test_a_healthy_source_is_opening_and_then_running() -> None:
    stage = Stage(counted(5))
    phases = [stage.supervisor.state.phase]
    with playing(stage):
        state = stage.run_until(5 * PERIOD_NS)
        assert (state.phase, state.message, state.delivered, state.restarts) == ("running", "", 5, 0)
        assert stage.seqs == [0, 1, 2, 3, 4]
    assert [*phases, stage.supervisor.state.phase] == ["opening", "ended"]
    assert stage.ends == [None]


def test_silence_is_named_within_a_second_and_the_picture_is_back_two_seconds_later() -> None:
    stage = Stage(counted(3), counted(3))
    with playing(stage):
        last_ns = 3 * PERIOD_NS
        state = stage.run_until(last_ns + SECOND)
        assert state.phase == "stalled"
        assert "delivered nothing for" in state.message
        state = stage.run_until(last_ns + 1900 * MS)
        assert state.phase == "lost"
        assert "after 3 items" in state.message
        state = stage.run_until(last_ns + 2200 * MS)
        assert (state.phase, state.restarts) == ("running", 1)
        assert stage.seqs == [0, 1, 2, 3, 4, 5]
        assert [source.closed > 0 for source in stage.made] == [True, False]


def test_a_loss_is_told_apart_from_the_end() -> None:
    lost = Stage([*counted(2), (3 * PERIOD_NS, SourceLost("unplugged"))], counted(1))
    with playing(lost):
        state = lost.run_until(3 * PERIOD_NS + MS)
        assert (state.phase, state.message) == ("lost", "unplugged")
        assert isinstance(lost.supervisor.error, SourceLost)
        assert lost.run_until(SECOND).phase == "running"
        assert lost.supervisor.error is None
    ended = Stage([*counted(2), (3 * PERIOD_NS, EndOfStream("the end"))])
    ended.supervisor.start(ended.ends.append)
    ended.clock.run_until(3 * PERIOD_NS - MS, sleepers=1)
    ended.clock.advance(2 * MS)
    wait_for(lambda: ended.supervisor.state.phase == "ended")
    wait_for(lambda: ended.ends == [None])
    assert ended.supervisor.error is None
    assert len(ended.made) == 1


def test_pauses_double_from_a_quarter_second_to_five_and_attempts_never_stop() -> None:
    stage = Stage()
    with playing(stage):
        attempts = []
        for when_ms in (200, 300, 800, 1800, 3800, 7800, 12800, 17800, 62800):
            stage.run_until(when_ms * MS)
            attempts.append(len(stage.made))
        # Opened at 0, .25, .75, 1.75, 3.75, 7.75, 12.75, 17.75, then every five seconds.
        assert attempts == [1, 2, 3, 4, 5, 6, 7, 8, 17]
        state = stage.supervisor.state
        assert (state.phase, state.delivered) == ("lost", 0)
        assert state.message == "there is no camera 'x'"


def test_a_device_that_appears_cuts_the_pause_short() -> None:
    devices: list[str] = []
    absent: list[Step] = [(0, SourceNotFound("not there"))]
    stage = Stage(*[list(absent) for _ in range(6)], counted(100), watch=lambda: tuple(devices))
    with playing(stage):
        stage.run_until(8 * SECOND)
        assert stage.supervisor.state.phase == "lost"
        devices.append("camera")
        assert stage.run_until(8 * SECOND + 500 * MS).phase == "running"


def test_a_changed_picture_size_is_opened_again_at_once() -> None:
    stage = Stage([*counted(1), (2 * PERIOD_NS, SourceChanged("640 became 320"))], counted(1))
    with playing(stage):
        state = stage.run_until(3 * PERIOD_NS + MS)
        assert (state.phase, state.restarts, stage.seqs) == ("running", 1, [0, 1])


def test_black_pictures_are_named_within_a_second_and_opened_again_but_stay_named() -> None:
    stage = Stage(counted(200, level=0), counted(200, level=0))
    with playing(stage):
        state = stage.run_until(PERIOD_NS + SECOND)
        assert state.phase == "stalled"
        assert "black" in state.message
        state = stage.run_until(3500 * MS)
        assert (state.phase, state.restarts) == ("stalled", 1)
        assert stage.seqs == list(range(len(stage.seqs)))


def test_black_pictures_are_opened_again_less_and_less_often() -> None:
    stage = Stage(*[counted(2000, level=0) for _ in range(8)])
    with playing(stage):
        restarts = [stage.run_until(seconds * SECOND).restarts for seconds in (4, 10, 23, 47)]
    assert restarts == [1, 2, 3, 4]


def test_losses_add_up_over_reopenings_and_none_is_counted_twice() -> None:
    class Lossy(ScriptedSource):
        losses: ClassVar = {"pictures that could not be decoded": 3}

    clock = FakeClock()
    scripts = [[*counted(1), (2 * PERIOD_NS, SourceLost("unplugged"))], counted(1)]
    supervisor = Supervisor(lambda: Lossy(clock, scripts.pop(0)), clock, lambda item: None)
    supervisor.start()
    lost = []
    for when_ns in (PERIOD_NS + MS, 3 * PERIOD_NS, SECOND):
        clock.run_until(when_ns, sleepers=1)
        lost.append((supervisor.state.phase, supervisor.state.lost))
    assert lost == [("running", 3), ("lost", 3), ("running", 6)]
    assert supervisor.stop()


def test_digital_silence_is_named_and_not_opened_again() -> None:
    block_ns = 100 * MS
    silent = np.zeros(1600, np.float32)
    script: list[Step] = [
        ((i + 1) * block_ns, AudioBlock("mic:scripted", i * 1600, i * block_ns, silent)) for i in range(100)
    ]
    loud: Step = (101 * block_ns, tone(160_000, 1600, 100 * block_ns))
    stage = Stage([*script, loud])
    with playing(stage):
        assert "silence" in stage.run_until(1200 * MS).message
        assert stage.run_until(10_050 * MS).restarts == 0
        assert stage.run_until(10_150 * MS).phase == "running"


def test_sound_goes_on_after_a_reopening_with_a_gap_as_long_as_the_absence() -> None:
    numbering = Numbering()
    before = [numbering.renumber(tone(i * 1600, 1600, i * 100 * MS)) for i in range(3)]
    numbering.reopened()
    after = [numbering.renumber(tone(i * 1600, 1600, 2 * SECOND + i * 100 * MS)) for i in range(2)]
    firsts = [item.first for item in (*before, *after) if isinstance(item, AudioBlock)]
    assert firsts == [0, 1600, 3200, 32_000, 33_600]
    assert numbering.missed_samples == 32_000 - 4800


@given(
    st.lists(
        st.lists(st.tuples(st.booleans(), st.integers(1, 400)), min_size=1, max_size=8),
        min_size=1,
        max_size=5,
    ),
    st.lists(st.integers(0, 3 * SECOND), min_size=5, max_size=5),
)
def test_numbers_never_repeat_and_time_never_falls_over_any_reopenings(
    openings: list[list[tuple[bool, int]]], pauses: list[int]
) -> None:
    numbering = Numbering()
    now_ns, next_seq, next_sample, last_ns = 0, 0, 0, 0
    for opening, pause_ns in zip(openings, pauses, strict=False):
        seq = first = 0
        for is_video, length in opening:
            if is_video:
                out = numbering.renumber(picture(seq, now_ns))
                assert isinstance(out, VideoFrame)
                assert out.seq == next_seq
                assert out.captured_ns >= last_ns
                next_seq, seq, last_ns = next_seq + 1, seq + 1, out.captured_ns
            else:
                block = numbering.renumber(tone(first, length, now_ns))
                assert isinstance(block, AudioBlock)
                assert block.first >= next_sample
                next_sample, first = block.end, first + length
                now_ns += length * SECOND // SAMPLE_RATE
        now_ns += pause_ns
        numbering.reopened()


@pytest.mark.parametrize("error", [SettingsError("no such setting"), MissingLibrary("libportaudio2")])
def test_what_no_new_attempt_can_mend_ends_the_stream_with_its_error(error: Exception) -> None:
    stage = Stage([(0, error)])
    stage.supervisor.start(stage.ends.append)
    wait_for(lambda: bool(stage.ends))
    assert stage.ends == [error]
    assert (stage.supervisor.state.phase, stage.supervisor.state.message) == ("ended", str(error))


def test_a_file_that_cannot_be_opened_ends_with_its_error() -> None:
    stage = Stage([(0, SourceNotFound("there is no file 'x'"))], live=False)
    stage.supervisor.start(stage.ends.append)
    wait_for(lambda: bool(stage.ends))
    assert isinstance(stage.ends[0], SourceNotFound)
    assert len(stage.made) == 1


def test_a_failure_of_the_reader_itself_ends_the_stream_and_is_not_swallowed(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def refuse(item: Item) -> None:
        raise ValueError("the ring refused it")

    clock, ends = FakeClock(), list[Exception | None]()
    supervisor = Supervisor(lambda: ScriptedSource(clock, counted(1)), clock, refuse)
    with caplog.at_level(logging.ERROR):
        supervisor.start(ends.append)
        clock.wait_for_sleepers(1)
        clock.advance(PERIOD_NS)
        wait_for(lambda: bool(ends))
    assert isinstance(ends[0], ValueError)
    assert "the ring refused it" in caplog.text


def test_stop_returns_within_a_second_in_the_middle_of_a_pause() -> None:
    stage = Stage()
    with playing(stage):
        stage.run_until(8 * SECOND)
    assert stage.supervisor.state.phase == "ended"


def test_a_program_that_was_stopped_does_not_take_its_device_for_unplugged() -> None:
    """Ten seconds pass within one read, as when a laptop sleeps: the device is given its time."""
    with playing(Stage([*counted(10), (11 * SECOND, picture(10, 11 * SECOND))])) as stage:
        stage.run_until(400 * MS)
        stage.clock.advance(9800 * MS)
        state = stage.run_until(12 * SECOND)
        assert stage.seqs == list(range(11))
        assert (state.restarts, stage.supervisor.error) == (0, None)
