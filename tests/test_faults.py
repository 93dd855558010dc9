"""A script of faults does to a stream exactly what it says, and the ledger balances under any script."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from liveaffect.engines.recipe import SAMPLE_RATE
from liveaffect.realtime.clock import MS, SECOND, MediaClock
from liveaffect.realtime.errors import EndOfStream, SourceChanged, SourceLost, SourceNotFound
from liveaffect.realtime.frame import AudioBlock, Item, VideoFrame
from liveaffect.realtime.ring import Ring
from liveaffect.realtime.testing.faults import (
    Delivery,
    Drop,
    Fault,
    FaultLine,
    FaultySource,
    FormatChange,
    LateBurst,
    Repeat,
    Script,
    Silence,
    Stall,
    TimeGoesBack,
    Unplug,
    deliveries,
    scripts,
)
from liveaffect.realtime.testing.virtual_time import FakeClock

PERIOD_NS = 40 * MS
BLOCK = 640
"""Samples in one block: as long as a picture."""


def frames(count: int) -> list[Item]:
    image = np.full((12, 16, 3), 200, np.uint8)
    return [VideoFrame("camera:0", k, k * PERIOD_NS, image) for k in range(count)]


def blocks(count: int) -> list[Item]:
    samples = np.full(BLOCK, 0.5, np.float32)
    return [AudioBlock("mic:0", k * BLOCK, k * PERIOD_NS, samples) for k in range(count)]


def numbers(stream: Iterator[Delivery]) -> list[int]:
    return [d.item.seq if isinstance(d.item, VideoFrame) else -1 for d in stream]


def items(stream: Iterator[Delivery]) -> list[Item]:
    return [d.item for d in stream if d.item is not None]


def test_without_faults_everything_arrives_when_it_was_captured() -> None:
    clean = frames(5)
    stream = deliveries(clean, [])
    assert [(d.at_ns, d.item) for d in stream] == [(k * PERIOD_NS, clean[k]) for k in range(5)]


def test_a_block_arrives_when_its_last_sample_was_captured() -> None:
    assert [d.at_ns for d in deliveries(blocks(3), [])] == [PERIOD_NS, 2 * PERIOD_NS, 3 * PERIOD_NS]


def test_dropped_items_leave_a_gap_in_the_numbers() -> None:
    assert numbers(deliveries(frames(6), [Drop(2, 3)])) == [0, 1, 5]


def test_a_stalled_camera_goes_on_later_without_a_gap_in_the_numbers() -> None:
    stream = list(deliveries(frames(4), [Stall(2, SECOND)]))
    assert numbers(iter(stream)) == [0, 1, 2, 3]
    assert [d.at_ns for d in stream] == [0, PERIOD_NS, 2 * PERIOD_NS + SECOND, 3 * PERIOD_NS + SECOND]


def test_a_stalled_microphone_leaves_a_gap_as_long_as_the_stall() -> None:
    got = items(deliveries(blocks(3), [Stall(1, SECOND)]))
    assert [b.first for b in got if isinstance(b, AudioBlock)] == [
        0,
        BLOCK + SAMPLE_RATE,
        2 * BLOCK + SAMPLE_RATE,
    ]


def test_a_late_burst_arrives_together_but_keeps_its_stamps() -> None:
    stream = list(deliveries(frames(6), [LateBurst(1, 3)]))
    assert [d.at_ns // PERIOD_NS for d in stream] == [0, 3, 3, 3, 4, 5]
    assert [d.item.captured_ns // PERIOD_NS for d in stream if d.item] == [0, 1, 2, 3, 4, 5]


def test_a_burst_that_the_end_of_the_stream_cuts_off_still_arrives() -> None:
    assert numbers(deliveries(frames(3), [LateBurst(1, 9)])) == [0, 1, 2]


def test_a_repeated_item_arrives_again_as_it_is() -> None:
    assert numbers(deliveries(frames(3), [Repeat(1, 2)])) == [0, 1, 1, 1, 2]


def test_time_goes_back_in_the_stamps_only() -> None:
    stream = list(deliveries(frames(4), [TimeGoesBack(2, PERIOD_NS * 5, 1)]))
    assert [d.item.captured_ns // PERIOD_NS for d in stream if d.item] == [0, 1, -3, 3]
    assert [d.at_ns // PERIOD_NS for d in stream] == [0, 1, 2, 3]


def test_pictures_change_their_size_and_keep_it() -> None:
    got = items(deliveries(frames(3), [FormatChange(1, 8, 6)]))
    assert [f.size for f in got if isinstance(f, VideoFrame)] == [(16, 12), (8, 6), (8, 6)]


def test_sound_that_changes_its_format_has_to_be_opened_again() -> None:
    stream = list(deliveries(blocks(3), [FormatChange(1, 8, 6)]))
    assert [type(d.error) for d in stream] == [type(None), SourceChanged, type(None)]


def test_silence_is_zeros_in_pictures_and_in_sound() -> None:
    for stream in (frames(4), blocks(4)):
        sums = [
            float(np.sum(i.image if isinstance(i, VideoFrame) else i.samples))
            for i in items(deliveries(stream, [Silence(1, 2)]))
        ]
        assert [s > 0 for s in sums] == [True, False, False, True]


def test_an_unplugged_device_is_lost_once_and_comes_back_after_its_time() -> None:
    stream = list(deliveries(frames(8), [Unplug(2, 3 * PERIOD_NS)]))
    assert numbers(iter(stream)) == [0, 1, -1, 5, 6, 7]
    assert isinstance(stream[2].error, SourceLost)
    assert stream[2].at_ns == 2 * PERIOD_NS


def test_a_device_that_never_comes_back_delivers_nothing_more() -> None:
    assert numbers(deliveries(frames(8), [Unplug(2), LateBurst(0, 2), Repeat(5)])) == [0, 1, -1]


def test_what_a_burst_held_back_is_lost_when_the_device_goes() -> None:
    assert numbers(deliveries(frames(8), [LateBurst(1, 5), Unplug(3, PERIOD_NS)])) == [0, -1, 4, 5, 6, 7]


@given(scripts(30, PERIOD_NS), st.booleans())
def test_nothing_ever_arrives_before_something_that_arrived_earlier(script: Script, sound: bool) -> None:
    stream = list(deliveries(blocks(30) if sound else frames(30), script))
    assert [d.at_ns for d in stream] == sorted(d.at_ns for d in stream)
    assert all((d.item is None) != (d.error is None) for d in stream)


@given(scripts(60, PERIOD_NS), st.integers(1, 8), st.integers(1, 20))
def test_captured_equals_shown_plus_dropped_plus_in_flight(
    script: list[Fault], capacity: int, read_every: int
) -> None:
    ring: Ring[VideoFrame] = Ring(capacity)
    arrived, shown, overwritten, cursor = 0, 0, 0, 0
    for delivery in deliveries(frames(60), script):
        if isinstance(delivery.item, VideoFrame):
            ring.push(delivery.item)
            arrived += 1
        if arrived % read_every == 0:
            batch = ring.read_since(cursor)
            cursor, shown, overwritten = batch.cursor, shown + len(batch.items), overwritten + batch.missed
    rest = ring.read_since(cursor)
    assert shown + overwritten + len(rest.items) + rest.missed == arrived


class Recorded:
    """A source that has its items ready and counts its openings and closings."""

    name = "camera:0"

    def __init__(self, stream: list[Item]) -> None:
        self.stream = stream
        self.opened = self.closed = 0

    def open(self) -> None:
        self.opened += 1

    def read(self, timeout_s: float) -> Item | None:
        if not self.stream:
            raise EndOfStream
        return self.stream.pop(0)

    def close(self) -> None:
        self.closed += 1


@settings(deadline=None)
@given(
    scripts(20, PERIOD_NS).filter(lambda s: not any(isinstance(f, Unplug) and f.away_ns is None for f in s))
)
def test_a_faulty_source_delivers_what_the_pure_form_says_at_the_time_it_says(script: list[Fault]) -> None:
    clock, inner = MediaClock(), Recorded(frames(20))
    source = FaultySource(inner, FaultLine(script), clock)
    got: list[tuple[int, int | None]] = []
    source.open()
    while True:
        try:
            item = source.read(10 * SECOND)
        except EndOfStream:
            break
        except SourceLost:
            got.append((clock.now_ns(), None))
            source.close()
            clock.advance_to(max(clock.now_ns(), source._line.away_until_ns))
            source = FaultySource(inner, source._line, clock)
            source.open()
            continue
        if isinstance(item, VideoFrame):
            got.append((clock.now_ns(), item.seq))
    wanted = [
        (d.at_ns, d.item.seq if isinstance(d.item, VideoFrame) else None)
        for d in deliveries(frames(20), script)
    ]
    assert [number for _, number in got] == [number for _, number in wanted]
    assert all(at_ns >= wanted_ns for (at_ns, _), (wanted_ns, _) in zip(got, wanted, strict=True))


def test_an_unplugged_source_cannot_be_opened_until_it_is_back() -> None:
    clock, inner = MediaClock(), Recorded(frames(9))
    line = FaultLine([Unplug(1, SECOND)])
    source = FaultySource(inner, line, clock)
    source.open()
    assert isinstance(source.read(1.0), VideoFrame)
    with pytest.raises(SourceLost, match="camera:0 was unplugged"):
        source.read(1.0)
    again = FaultySource(inner, line, clock)
    with pytest.raises(SourceNotFound, match="unplugged"):
        again.open()
    clock.advance_to(PERIOD_NS + SECOND)
    again.open()
    assert inner.opened == 2


def test_a_source_that_never_comes_back_can_never_be_opened() -> None:
    clock = MediaClock()
    line = FaultLine([Unplug(0)])
    with pytest.raises(SourceLost):
        FaultySource(Recorded(frames(2)), line, clock).read(1.0)
    clock.advance_to(10_000 * SECOND)
    with pytest.raises(SourceNotFound):
        FaultySource(Recorded(frames(2)), line, clock).open()


def test_a_read_that_waits_in_a_stall_returns_nothing_in_time_and_the_item_later() -> None:
    clock = MediaClock()
    source = FaultySource(Recorded(frames(2)), FaultLine([Stall(0, SECOND)]), clock)
    assert source.read(0.4) is None
    assert clock.now_ns() == 400 * MS
    assert source.read(0.4) is None
    assert isinstance(source.read(0.4), VideoFrame)
    assert clock.now_ns() == SECOND


def test_closing_from_another_thread_ends_a_read_that_waits() -> None:
    clock, inner = FakeClock(), Recorded(frames(2))
    source = FaultySource(inner, FaultLine([Stall(0, SECOND)]), clock)
    failures: list[SourceLost] = []

    def read() -> None:
        try:
            source.read(5.0)
        except SourceLost as failure:
            failures.append(failure)

    thread = threading.Thread(target=read)
    thread.start()
    clock.wait_for_sleepers(1)
    source.close()
    thread.join(5)
    assert "camera:0 was closed" in str(failures[0])
    assert inner.closed == 1
