"""The real callback, its bursts and its stamps: what PulseAudio plays comes out in its place."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from numpy.typing import NDArray

from liveaffect.engines.recipe import SAMPLE_RATE
from liveaffect.realtime.clock import SECOND, MonotonicClock
from liveaffect.realtime.errors import SourceNotFound
from liveaffect.realtime.frame import AudioBlock
from liveaffect.realtime.microphone import Microphone
from liveaffect.realtime.testing.contracts import check_source
from liveaffect.realtime.testing.devices import virtual_microphone, why_no_virtual_microphone

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(why_no_virtual_microphone() is not None, reason=why_no_virtual_microphone() or ""),
]

RATE_HZ = 48_000
CHIRPS = 4
SPACING_S = 0.5


def chirp(rate_hz: int) -> NDArray[np.float32]:
    t = np.arange(round(0.05 * rate_hz)) / rate_hz
    sweep = np.sin(2 * np.pi * (500 * t + 30_000 * t**2))
    return (0.5 * sweep * np.hanning(len(t))).astype(np.float32)


def programme() -> NDArray[np.float32]:
    """A chirp every half second, then a second of 700 Hz."""
    quiet = np.zeros(round(CHIRPS * SPACING_S * RATE_HZ), np.float32)
    for number in range(CHIRPS):
        at = round(number * SPACING_S * RATE_HZ)
        quiet[at : at + len(chirp(RATE_HZ))] = chirp(RATE_HZ)
    tone = 0.3 * np.sin(2 * np.pi * 700 * np.arange(RATE_HZ) / RATE_HZ)
    return np.concatenate([quiet, tone.astype(np.float32)])


def recorded(microphone: Microphone, clock: MonotonicClock, until_ns: int) -> list[AudioBlock]:
    blocks = []
    while clock.now_ns() < until_ns:
        block = microphone.read(0.1)
        if block is not None:
            blocks.append(block)
    return blocks


def laid_out(blocks: list[AudioBlock]) -> NDArray[np.float32]:
    out = np.zeros(blocks[-1].end, np.float32)
    for block in blocks:
        out[block.first : block.end] = block.samples
    return out


def places(sound: NDArray[np.float32]) -> list[int]:
    """Where the chirps begin, by matched filter."""
    match = np.abs(np.correlate(sound, chirp(SAMPLE_RATE), "valid"))
    found = []
    for _ in range(CHIRPS):
        best = int(match.argmax())
        found.append(best)
        match[max(0, best - 4000) : best + 4000] = 0
    return sorted(found)


def test_chirps_and_a_tone_come_through_in_their_places_and_what_is_lost_is_stated() -> None:
    clock = MonotonicClock()
    with virtual_microphone(RATE_HZ) as virtual:
        microphone = Microphone("default", clock)
        microphone.open()
        try:
            while microphone.read(0.1) is None:
                assert clock.now_ns() < 6 * SECOND, "the microphone never woke up"
            player = virtual.play(programme(), RATE_HZ)
            blocks = recorded(microphone, clock, clock.now_ns() + 4 * SECOND)
            player.wait(5.0)
            blocks += recorded(microphone, clock, clock.now_ns() + SECOND // 2)
        finally:
            microphone.close()
    gaps = sum(after.first - before.end for before, after in pairwise(blocks))
    lost = sum(microphone.losses.values())
    assert gaps == lost <= SAMPLE_RATE // 4
    sound = laid_out(blocks)
    found = places(sound)
    spacing = round(SPACING_S * SAMPLE_RATE)
    assert all(abs(after - before - spacing) <= max(80, lost) for before, after in pairwise(found))
    tone = sound[found[-1] + spacing + 1600 :][:8192]
    spectrum = np.abs(np.fft.rfft(tone * np.hanning(len(tone))))
    assert abs(int(spectrum.argmax()) * SAMPLE_RATE / 8192 - 700) < 3
    assert all(after.captured_ns >= before.captured_ns for before, after in pairwise(blocks))


def test_the_virtual_microphone_keeps_the_contract_of_a_source() -> None:
    with virtual_microphone():
        clock = MonotonicClock()
        check_source(lambda: Microphone("pulse", clock), kinds=frozenset({"audio"}), live=True, items=20)


def test_without_a_sound_server_the_answer_is_a_sentence_and_not_a_crash() -> None:
    with pytest.raises(SourceNotFound, match="no microphone matches 'headset'"):
        Microphone("headset", MonotonicClock()).open()
