"""The ring never makes its writer wait, tells readers what they missed, and ends once; monitors watch it."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator

import numpy as np
import pytest

from liveaffect.engines.recipe import SAMPLE_RATE
from liveaffect.realtime.clock import MS, SECOND
from liveaffect.realtime.errors import SourceLost
from liveaffect.realtime.frame import AudioBlock, Sighting, VideoFrame
from liveaffect.realtime.ring import Ring
from liveaffect.realtime.testing.virtual_time import Monitor, Monitors, monitored_audio_ring, monitored_ring


def picture(seq: int, captured_ns: int, *, source: str = "camera:0", side: int = 8) -> VideoFrame:
    return VideoFrame(source, seq, captured_ns, np.zeros((side, side, 3), np.uint8))


def block(first: int, captured_ns: int, count: int = 160, *, source: str = "mic:0") -> AudioBlock:
    return AudioBlock(source, first, captured_ns, np.zeros(count, np.float32))


def test_a_ring_for_nothing_is_refused_with_the_number_in_the_message() -> None:
    with pytest.raises(ValueError, match="capacity 0"):
        Ring(0)


def test_a_reader_that_comes_late_gets_the_newest_and_the_count_of_the_rest() -> None:
    ring: Ring[int] = Ring(3)
    for number in range(10):
        ring.push(number)
    batch = ring.read_since(2)
    assert (batch.items, batch.missed, batch.cursor) == ((7, 8, 9), 5, 10)
    assert ring.read_since(batch.cursor).items == ()
    assert (ring.newest(), ring.capacity, ring.written) == (9, 3, 10)


def test_an_empty_ring_has_no_newest_item() -> None:
    assert Ring[int](2).newest() is None


@pytest.mark.parametrize("cursor", [-1, 3])
def test_a_cursor_of_another_ring_is_refused(cursor: int) -> None:
    ring: Ring[int] = Ring(2)
    ring.push(1)
    with pytest.raises(ValueError, match=f"cursor {cursor}"):
        ring.read_since(cursor)


def test_nothing_can_be_pushed_after_the_end_and_what_was_there_stays() -> None:
    ring: Ring[int] = Ring(2)
    ring.push(1)
    ring.close(SourceLost("camera:0 is gone"))
    ring.close()
    with pytest.raises(RuntimeError, match="outlived"):
        ring.push(2)
    assert ring.closed
    assert isinstance(ring.error, SourceLost)
    assert ring.read_since(0).items == (1,)


def test_an_item_that_the_hook_refuses_is_not_in_the_ring() -> None:
    def refuse(item: int) -> None:
        raise AssertionError(f"no {item}")

    ring: Ring[int] = Ring(2, on_push=refuse)
    with pytest.raises(AssertionError, match="no 5"):
        ring.push(5)
    assert (ring.written, ring.newest()) == (0, None)


def test_a_waiting_reader_wakes_for_an_item_and_for_the_end() -> None:
    ring: Ring[int] = Ring(2)
    got: list[tuple[tuple[int, ...], bool]] = []

    def read() -> None:
        cursor = 0
        while not (ring.closed and cursor == ring.written):
            batch = ring.wait_since(cursor, 10)
            cursor = batch.cursor
            got.append((batch.items, ring.closed))

    reader = threading.Thread(target=read)
    reader.start()
    ring.push(7)
    while not got:
        pass
    ring.close()
    reader.join(5)
    assert not reader.is_alive()
    assert got[0][0] == (7,)


def test_waiting_for_nothing_ends_with_an_empty_batch() -> None:
    batch = Ring[int](2).wait_since(0, 0.01)
    assert (batch.items, batch.missed, batch.cursor) == ((), 0, 0)


@pytest.fixture
def _restless() -> Iterator[None]:
    """Threads change places as often as the interpreter lets them."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


@pytest.mark.usefixtures("_restless")
@pytest.mark.parametrize("capacity", [1, 7])
def test_three_readers_beside_a_writer_account_for_every_item(capacity: int) -> None:
    ring: Ring[int] = Ring(capacity)
    total = 3_000
    seen: list[tuple[list[int], int]] = []

    def read(wait: bool) -> None:
        mine: list[int] = []
        cursor = missed = 0
        while cursor < total:
            batch = ring.wait_since(cursor, 1.0) if wait else ring.read_since(cursor)
            cursor, missed = batch.cursor, missed + batch.missed
            mine.extend(batch.items)
        seen.append((mine, missed))

    readers = [threading.Thread(target=read, args=(wait,)) for wait in (True, True, False)]
    for reader in readers:
        reader.start()
    for number in range(total):
        ring.push(number)
    for reader in readers:
        reader.join(10)
    assert len(seen) == 3
    for mine, missed in seen:
        assert mine == sorted(set(mine))
        assert len(mine) + missed == total


VIOLATIONS = [
    ([picture(1, 0), picture(1, 5)], "#1 came after #1"),
    ([picture(1, MS), picture(2, 0)], "#2 was captured 1.000 ms before #1"),
    ([picture(1, 0), picture(2, 0, source="camera:1")], "items of 'camera:1' follow"),
    ([picture(1, 0, side=9)], "#1 is 9x9, announced 8x8"),
    ([Sighting("camera:0", 4, 0, (8, 8)), Sighting("camera:0", 3, 0, (8, 8))], "#3 came after #4"),
    ([block(0, 0), block(100, 10 * MS)], "sample 100 came after sample 159"),
    ([block(0, MS), block(160, 0)], "sample 160 was captured before sample 0"),
    ([block(0, 0), block(160, SECOND)], "sample 160 is stamped .990.0 ms off"),
]


@pytest.mark.parametrize(("items", "words"), VIOLATIONS)
def test_a_monitor_names_the_hand_over_and_what_is_wrong(
    items: list[VideoFrame | AudioBlock | Sighting], words: str
) -> None:
    monitor = Monitor("camera:0 > ring", size=(8, 8))
    for item in items[:-1]:
        monitor(item)
    with pytest.raises(AssertionError, match=f"'camera:0 > ring' after {len(items) - 1} items: .*{words}"):
        monitor(items[-1])


def test_a_monitor_accepts_gaps_that_are_as_long_as_the_time_that_passed() -> None:
    sound = monitored_audio_ring("mic", 1_000)
    sound.push(block(0, 0))
    sound.push(block(SAMPLE_RATE, SECOND))
    pictures = monitored_ring("camera", 2, size=(8, 8))
    pictures.push(picture(0, 0))
    pictures.push(picture(9, 0))
    assert (sound.end, pictures.written) == (SAMPLE_RATE + 160, 2)


def test_an_array_that_can_still_be_written_to_is_a_violation() -> None:
    frame = picture(0, 0)
    frame.image.setflags(write=True)
    with pytest.raises(AssertionError, match="can be written to"):
        Monitor("here")(frame)
    sound = block(0, 0)
    sound.samples.setflags(write=True)
    with pytest.raises(AssertionError, match="can be written to"):
        Monitor("here")(sound)


def test_a_second_writer_is_caught_even_when_its_thread_swallows_the_failure() -> None:
    monitors = Monitors()
    ring: Ring[VideoFrame] = Ring(4, on_push=monitors.at("camera"))
    ring.push(picture(0, 0))
    monitors.check()

    def intrude() -> None:
        with pytest.raises(AssertionError):
            ring.push(picture(1, 1))

    thread = threading.Thread(target=intrude, name="intruder")
    thread.start()
    thread.join(5)
    with pytest.raises(AssertionError, match="thread 'intruder' writes, but 'MainThread' is the writer"):
        monitors.check()
    assert monitors.seen == {"camera": 1}
