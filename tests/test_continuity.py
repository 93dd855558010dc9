"""One stream out of several openings: numbers rise, time never falls, and what is missing is counted."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from liveaffect.realtime.clock import MS, SECOND
from liveaffect.realtime.frame import AudioBlock, VideoFrame
from liveaffect.realtime.supervisor import Numbering
from liveaffect.realtime.testing.devices import picture, tone
from liveaffect.realtime.testing.faults import Fault, deliveries, scripts
from liveaffect.realtime.testing.virtual_time import Monitor

PERIOD_NS, BLOCK = 40 * MS, 640


def block(first: int, captured_ns: int) -> AudioBlock:
    return tone(first, BLOCK, captured_ns)


def test_a_picture_that_comes_again_is_left_out_and_counted() -> None:
    numbering = Numbering()
    passed = [numbering.renumber(picture(seq, seq * PERIOD_NS)) for seq in (0, 1, 1, 0, 2)]
    assert [item.seq for item in passed if isinstance(item, VideoFrame)] == [0, 1, 2]
    assert numbering.losses(gaps=True) == {"pictures that came again": 2}


def test_sound_that_comes_again_is_left_out_and_its_samples_are_counted() -> None:
    numbering = Numbering()
    passed = [numbering.renumber(block(k * BLOCK, k * PERIOD_NS)) for k in (0, 1, 1, 2)]
    assert [item.first for item in passed if isinstance(item, AudioBlock)] == [0, BLOCK, 2 * BLOCK]
    assert numbering.losses(gaps=True) == {"samples that came again": BLOCK}


def test_missing_numbers_are_losses_unless_the_source_counts_them_itself() -> None:
    numbering = Numbering()
    for k in (0, 1, 5):
        numbering.renumber(picture(k, k * PERIOD_NS))
        numbering.renumber(block(k * BLOCK, k * PERIOD_NS))
    assert numbering.losses(gaps=True) == {
        "pictures missing in its numbers": 3,
        "samples missing in its numbers": 3 * BLOCK,
    }
    assert numbering.losses(gaps=False) == {}


def stamped(*stamps_ns: int) -> list[int]:
    """How far from its place each block is published, given the stamps of blocks in a row, in ms."""
    numbering = Numbering()
    passed = [numbering.renumber(block(k * BLOCK, stamp)) for k, stamp in enumerate(stamps_ns)]
    return [(item.captured_ns - stamps_ns[0]) // MS - 40 * k for k, item in enumerate(passed) if item]


def test_a_stamp_of_sound_that_goes_back_for_once_moves_it_little() -> None:
    assert stamped(0, PERIOD_NS, 2 * PERIOD_NS - 3 * SECOND, 3 * PERIOD_NS) == [0, 0, -20, 0]


def test_a_clock_that_was_wrong_at_first_is_followed_without_a_step_back() -> None:
    """A sound server was seen to be 0.6 s off for the first second."""
    for off_ns in (-600 * MS, 600 * MS):
        off_ms = stamped(0, *(k * PERIOD_NS + off_ns for k in range(1, 40)))
        assert off_ms[-1] == off_ns // MS
        assert all(-20 <= after - before <= 40 for before, after in pairwise(off_ms))


def test_a_stamp_far_behind_its_place_is_lost_sound() -> None:
    numbering = Numbering()
    passed = [
        numbering.renumber(block(k * BLOCK, stamp)) for k, stamp in enumerate((0, PERIOD_NS + 2 * SECOND))
    ]
    assert [item.first for item in passed if isinstance(item, AudioBlock)] == [0, BLOCK + 32_000]
    assert numbering.losses(gaps=False) == {"samples that its clock passed over": 32_000}


@given(scripts(40, PERIOD_NS), st.booleans())
def test_whatever_a_device_does_the_stream_passes_every_monitor_and_adds_up(
    script: list[Fault], sound: bool
) -> None:
    """Delivered and lost together are all that was sent, counted in pictures or in samples."""
    image, samples = np.zeros((4, 6, 3), np.uint8), np.zeros(BLOCK, np.float32)
    clean = [
        AudioBlock("mic:0", k * BLOCK, k * PERIOD_NS, samples)
        if sound
        else VideoFrame("camera:0", k, k * PERIOD_NS, image)
        for k in range(40)
    ]
    numbering, monitor = Numbering(), Monitor("published")
    sent = delivered = 0
    opened_at: int | None = 0
    for delivery in deliveries(clean, script):
        item = delivery.item
        if item is None:
            numbering.reopened()
            opened_at = None
            continue
        sent += len(item.samples) if isinstance(item, AudioBlock) else 1
        if opened_at is None and isinstance(item, VideoFrame):
            opened_at = item.seq
        if isinstance(item, VideoFrame):
            # A device that is opened anew counts from 0.
            item = VideoFrame(item.source, max(0, item.seq - (opened_at or 0)), item.captured_ns, item.image)
        passed = numbering.renumber(item)
        if passed is not None:
            monitor(passed)
            delivered += len(passed.samples) if isinstance(passed, AudioBlock) else 1
    again = sum(count for cause, count in numbering.losses(gaps=True).items() if "again" in cause)
    assert delivered + again == sent
