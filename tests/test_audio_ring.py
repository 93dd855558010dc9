"""Samples are found by number or not at all, lost sound is silence at its place, time follows the count."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from numpy.typing import NDArray

from liveaffect.engines.recipe import SAMPLE_RATE
from liveaffect.realtime.clock import SECOND
from liveaffect.realtime.errors import SourceLost
from liveaffect.realtime.frame import AudioBlock
from liveaffect.realtime.ring import AudioRing, Stretch

SAMPLE_NS = SECOND // SAMPLE_RATE


def block(first: int, count: int, captured_ns: int | None = None) -> AudioBlock:
    """Sample n holds the value n + 1, so that zero only ever means lost."""
    at_ns = first * SAMPLE_NS if captured_ns is None else captured_ns
    return AudioBlock("mic:0", first, at_ns, np.arange(first + 1, first + count + 1, dtype=np.float32))


class AudioRingMachine(RuleBasedStateMachine):
    """Blocks with gaps and drifting stamps against a list that keeps every sample."""

    @initialize(capacity=st.integers(1, 40), start=st.integers(0, 10_000), zero_ns=st.integers(0, SECOND))
    def begin(self, capacity: int, start: int, zero_ns: int) -> None:
        self.ring = AudioRing(capacity)
        self.capacity, self.start, self.zero_ns = capacity, start, zero_ns
        self.heard: list[float] = []
        """Every sample from `start` on; 0 where it was lost."""
        self.anchor: tuple[int, int] | None = None
        self.closed = False

    @property
    def end(self) -> int:
        return self.start + len(self.heard)

    @rule(gap=st.just(0) | st.integers(0, 60), count=st.integers(0, 60), drift_ns=st.integers(-999, 999))
    def push(self, gap: int, count: int, drift_ns: int) -> None:
        if self.anchor is None:
            gap = 0
        first = self.end + gap
        new = block(first, count, self.zero_ns + first * SAMPLE_NS + drift_ns)
        if self.closed:
            with pytest.raises(RuntimeError, match="outlived"):
                self.ring.push(new)
            return
        self.ring.push(new)
        self.heard += [0.0] * gap + [float(value) for value in new.samples]
        self.anchor = (first, new.captured_ns)

    @rule(back=st.just(1) | st.integers(1, 50))
    def push_again(self, back: int) -> None:
        if self.anchor is None or self.closed:
            return
        with pytest.raises(ValueError, match=f"delivered sample {self.end - back} again; {self.end} is next"):
            self.ring.push(block(self.end - back, 3))

    @rule(back=st.integers(-5, 90), count=st.integers(-1, 50))
    def read(self, back: int, count: int) -> None:
        self.check_read(self.end - back, count)

    def check_read(self, first: int, count: int) -> None:
        oldest = max(self.start, self.end - self.capacity)
        got = self.ring.read(first, count)
        if self.anchor is None or count < 1 or first < oldest or first + count > self.end:
            assert got is None
            return
        assert isinstance(got, Stretch)
        wanted = self.heard[first - self.start : first - self.start + count]
        assert got.samples.tolist() == wanted
        assert got.lost == wanted.count(0.0)
        assert got.first == first
        assert got.captured_ns == self.anchor[1] + (first - self.anchor[0]) * SAMPLE_NS
        got.samples[:] = -1

    @rule()
    def close(self) -> None:
        self.ring.close(None if self.closed else SourceLost("gone"))
        self.closed = True

    @invariant()
    def agrees(self) -> None:
        if not hasattr(self, "ring"):
            return
        assert self.ring.closed == self.closed
        assert isinstance(self.ring.error, SourceLost) == self.closed
        if self.anchor is None:
            assert self.ring.time_of(0) is None
            return
        assert self.ring.end == self.end
        assert self.ring.start == max(self.start, self.end - self.capacity)
        assert self.ring.lost == self.heard.count(0.0)
        oldest = self.ring.start
        self.check_read(oldest, self.end - oldest)
        self.check_read(oldest - 1, 2)
        self.check_read(oldest, self.end - oldest + 1)
        self.check_read(oldest, (self.end - oldest) // 2)
        for sample in (self.start, self.end, self.end + 1_000):
            when_ns = self.ring.time_of(sample)
            assert when_ns is not None
            assert when_ns == self.anchor[1] + (sample - self.anchor[0]) * SAMPLE_NS


TestAudioRing = AudioRingMachine.TestCase
TestAudioRing.settings = settings(max_examples=80, stateful_step_count=30, deadline=None)


def test_a_ring_without_room_is_refused() -> None:
    with pytest.raises(ValueError, match="capacity 0"):
        AudioRing(0)


def test_lost_sound_is_silence_at_its_place_with_a_count() -> None:
    ring = AudioRing(20)
    ring.push(block(0, 4))
    ring.push(block(7, 3))
    got = ring.read(2, 8)
    assert got is not None
    assert got.samples.tolist() == [3, 4, 0, 0, 0, 8, 9, 10]
    assert (got.lost, ring.lost) == (3, 3)


def test_silence_replaces_old_samples_when_a_gap_laps_the_ring() -> None:
    ring = AudioRing(5)
    ring.push(block(0, 5))
    ring.push(block(1_000, 2))
    got = ring.read(997, 5)
    assert got is not None
    assert got.samples.tolist() == [0, 0, 0, 1_001, 1_002]
    assert (got.lost, ring.lost) == (3, 995)


def test_readers_beside_a_writer_never_see_a_sample_out_of_place() -> None:
    ring = AudioRing(97)
    wrong: list[NDArray[np.float32]] = []
    done = threading.Event()

    def read() -> None:
        while not done.is_set():
            first = max(ring.start, ring.end - 50)
            got = ring.read(first, 40)
            if got is not None and got.samples.tolist() != list(range(first + 1, first + 41)):
                wrong.append(got.samples)

    readers = [threading.Thread(target=read) for _ in range(2)]
    for reader in readers:
        reader.start()
    for number in range(1_500):
        ring.push(block(number * 13, 13))
    done.set()
    for reader in readers:
        reader.join(5)
    assert wrong == []
