"""Sound keeps its time: whatever the rate, jitter, bursts and losses, a sample is where it belongs."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from liveaffect.engines.recipe import SAMPLE_RATE
from liveaffect.realtime import devices, sound_device
from liveaffect.realtime.clock import MS, SECOND
from liveaffect.realtime.errors import MissingLibrary, SourceError, SourceLost, SourceNotFound
from liveaffect.realtime.frame import AudioBlock
from liveaffect.realtime.microphone import Microphone
from liveaffect.realtime.sound_device import SoundTime
from liveaffect.realtime.testing.devices import FakeSound
from liveaffect.realtime.testing.virtual_time import FakeClock

Samples = NDArray[np.float32]


class Desk:
    """A microphone on a fake sound system, whose time passes as it hears."""

    def __init__(self, rate_hz: int = SAMPLE_RATE, channels: int = 1) -> None:
        self.clock = FakeClock(5 * SECOND)
        self.sound = FakeSound(rate_hz, channels)
        self.microphone = Microphone("default", self.clock, self.sound)
        self.microphone.open()
        self.start_ns = self.clock.now_ns()
        self._heard = 0

    def hear(self, samples: Samples, *, flagged: bool = False) -> None:
        """The block is delivered the moment its last sample was captured."""
        self._heard += len(samples)
        self.clock.advance_to(self.start_ns + self._heard * SECOND // self.sound.rate_hz)
        self.sound.hear(samples, age_s=len(samples) / self.sound.rate_hz, flagged=flagged)

    def lose(self, count: int) -> None:
        """The device captures samples that nobody ever gets."""
        self._heard += count

    def read_all(self) -> list[AudioBlock]:
        blocks = []
        while (block := self.microphone.read(0.0)) is not None:
            blocks.append(block)
        return blocks


def laid_out(blocks: list[AudioBlock]) -> Samples:
    """The stream with zeros where it has gaps."""
    out = np.zeros(blocks[-1].end, np.float32)
    for block in blocks:
        out[block.first : block.end] = block.samples
    return out


def chirp(seconds: float, rate_hz: int, low: float = 200.0, high: float = 3000.0) -> Samples:
    t = np.arange(round(seconds * rate_hz)) / rate_hz
    phase = 2 * np.pi * (low * t + (high - low) / (2 * seconds) * t**2)
    return (0.5 * np.sin(phase)).astype(np.float32)


@pytest.mark.parametrize("channels", [1, 2, 6])
@pytest.mark.parametrize("rate_hz", [8000, 16_000, 22_050, 44_100, 48_000, 96_000])
def test_a_chirp_at_any_rate_lies_exactly_where_a_16_khz_microphone_would_have_it(
    rate_hz: int, channels: int
) -> None:
    desk = Desk(rate_hz, channels)
    given_samples, wanted = chirp(1.0, rate_hz), chirp(1.0, SAMPLE_RATE)
    block = rate_hz // 50 + 7
    for at in range(0, len(given_samples), block):
        desk.hear(given_samples[at : at + block])
    blocks = desk.read_all()
    got = laid_out(blocks)
    inner = slice(800, len(got) - 100)
    assert len(got) >= SAMPLE_RATE * 0.99
    # One sample off would be an error of 0.4 at 3 kHz.
    assert np.abs(got[inner] - wanted[: len(got)][inner]).max() < 0.02
    for part in blocks:
        assert abs(part.captured_ns - (desk.start_ns + part.first * SECOND // SAMPLE_RATE)) < MS // 10


@pytest.mark.parametrize("rate_hz", [8000, 22_050, 44_100, 48_000, 96_000])
def test_an_impulse_comes_out_at_its_own_time(rate_hz: int) -> None:
    desk = Desk(rate_hz)
    samples = np.zeros(rate_hz, np.float32)
    samples[rate_hz // 2] = 1.0
    for part in np.array_split(samples, 50):
        desk.hear(part)
    power = laid_out(desk.read_all()).astype(np.float64) ** 2
    centre = float((np.arange(len(power)) * power).sum() / power.sum())
    assert abs(centre - SAMPLE_RATE / 2) < 0.01


def test_16_khz_mono_passes_unchanged_with_both_channels_averaged() -> None:
    desk = Desk(SAMPLE_RATE, 2)
    left, right = chirp(0.1, SAMPLE_RATE), np.zeros(1600, np.float32)
    desk.sound.hear(np.stack([left, right], axis=1))
    assert np.array_equal(laid_out(desk.read_all()), left / 2)


@pytest.mark.parametrize("rate_hz", [16_000, 44_100])
def test_a_flagged_loss_is_a_gap_of_its_own_length_at_its_own_place(rate_hz: int) -> None:
    desk = Desk(rate_hz)
    sound = chirp(2.0, rate_hz)
    step, lost = rate_hz // 50, rate_hz // 10
    for at in range(0, rate_hz, step):
        desk.hear(sound[at : at + step])
    desk.lose(lost)
    for at in range(rate_hz + lost, len(sound), step):
        desk.hear(sound[at : at + step], flagged=at == rate_hz + lost)
    blocks = desk.read_all()
    gaps = [(a.end, b.first - a.end) for a, b in pairwise(blocks) if b.first != a.end]
    assert len(gaps) == 1
    assert abs(gaps[0][0] - SAMPLE_RATE) <= 1
    assert abs(gaps[0][1] - SAMPLE_RATE // 10) <= 2
    assert abs(desk.microphone.losses["samples lost by the device"] - 1600) <= 2
    got, wanted = laid_out(blocks), chirp(2.0, SAMPLE_RATE)
    later = slice(SAMPLE_RATE + 1700, len(got) - 100)
    assert np.abs(got[later] - wanted[: len(got)][later]).max() < 0.45


def test_a_loss_that_the_device_hides_is_found_by_its_time_within_a_second() -> None:
    desk = Desk()
    for _ in range(50):
        desk.hear(np.ones(320, np.float32))
    desk.lose(3200)
    for _ in range(50):
        desk.hear(np.ones(320, np.float32))
    blocks = desk.read_all()
    assert abs(blocks[-1].end - (100 * 320 + 3200)) <= 32
    assert abs(desk.microphone.losses["samples lost by the device"] - 3200) <= 32
    assert abs(blocks[-1].captured_ns - (desk.clock.now_ns() - 20 * MS)) < 2 * MS


def test_blocks_nobody_fetches_are_bounded_counted_and_leave_a_gap_of_exactly_their_length() -> None:
    desk = Desk()
    for number in range(400):
        desk.hear(np.full(320, number / 512, np.float32))
    blocks = desk.read_all()
    assert len(blocks) == 256
    assert blocks[0].samples[0] == 144 / 512
    assert blocks[0].first == 144 * 320 == desk.microphone.losses["samples nobody fetched in time"]
    assert abs(blocks[0].captured_ns - (desk.start_ns + 144 * 20 * MS)) < MS


def test_samples_that_are_not_numbers_or_absurd_become_silence_and_are_counted() -> None:
    desk = Desk()
    bad = np.ones(320, np.float32)
    bad[10:13] = [np.nan, np.inf, -np.inf]
    bad[13] = 1e20
    desk.hear(bad)
    block = desk.read_all()[0]
    assert block.samples[10:14].tolist() == [0, 0, 0, 0]
    assert block.samples.sum() == 316
    assert desk.microphone.losses == {
        "samples that were not numbers": 3,
        "samples that were absurdly loud": 1,
    }


def test_the_devices_own_format_is_used_when_it_refuses_ours() -> None:
    desk = Desk(44_100, 2)
    assert desk.sound.refused == [(16_000, 1), (44_100, 1)]
    assert desk.sound.active


def test_a_device_that_refuses_every_format_says_which_were_tried() -> None:
    class Stubborn(FakeSound):
        def own_format(self, device: object) -> tuple[int, int]:
            return 48_000, 2

    microphone = Microphone("default", FakeClock(), Stubborn(11_025, 1))
    with pytest.raises(SourceError, match=r"does none of \[\(16000, 1\), \(48000, 1\), \(48000, 2\)"):
        microphone.open()


def test_an_unknown_microphone_is_answered_with_the_list_of_known_ones() -> None:
    for spec in ("headset", "7"):
        with pytest.raises(SourceNotFound) as failure:
            Microphone(spec, FakeClock(), FakeSound()).open()
        assert "0: Fake Microphone (fake)" in str(failure.value)
        assert "--mic none" in str(failure.value)


def test_a_microphone_that_is_gone_is_lost_after_its_last_sound_was_read() -> None:
    desk = Desk()
    desk.hear(np.ones(320, np.float32))
    desk.sound.active = False
    assert desk.microphone.read(0.0) is not None
    with pytest.raises(SourceLost, match="mic:default stopped"):
        desk.microphone.read(0.0)


def test_a_missing_portaudio_is_told_by_the_package_that_brings_it(monkeypatch: pytest.MonkeyPatch) -> None:
    class Absent:
        def find_spec(self, name: str, *_: object) -> None:
            if name == "sounddevice":
                raise OSError("PortAudio library not found")

    monkeypatch.delitem(sys.modules, "sounddevice", raising=False)
    monkeypatch.setattr(sys, "meta_path", [Absent(), *sys.meta_path])
    with pytest.raises(MissingLibrary, match="apt-get install libportaudio2"):
        Microphone("default", FakeClock()).open()


BLOCK = 320


def watch(time: SoundTime, first: int, true_ns: int, *, off_ns: int = 0, late_ns: int = 5 * MS) -> int:
    """One block that began at `true_ns`, stamped `off_ns` beside it, handed over `late_ns` after its end."""
    end_ns = true_ns + BLOCK * SECOND // SAMPLE_RATE
    return time.observe(first, BLOCK, true_ns + off_ns, end_ns + late_ns)


def observed(
    true_ns: Callable[[int], int], *, seconds: int, noise_ms: float = 3.0, seed: int = 0
) -> SoundTime:
    rng = np.random.default_rng(seed)
    time = SoundTime(SAMPLE_RATE)
    for first in range(0, seconds * SAMPLE_RATE, BLOCK):
        noise_ns = round(rng.normal(0, noise_ms) * MS)
        assert watch(time, first, true_ns(first), off_ns=noise_ns, late_ns=40 * MS) == 0
    return time


@pytest.mark.parametrize("ppm", [-100.0, 0.0, 100.0])
def test_a_slow_drift_is_followed_through_the_jitter(ppm: float) -> None:
    def true_ns(sample: int) -> int:
        return SECOND + round(sample * (1 + ppm * 1e-6) / SAMPLE_RATE * SECOND)

    time = observed(true_ns, seconds=60)
    assert abs(time.drift_ppm - ppm) < 20
    assert abs(time.time_of(60 * SAMPLE_RATE) - true_ns(60 * SAMPLE_RATE)) < 1.5 * MS


@settings(max_examples=20)
@given(st.integers(0, 2**31), st.floats(-150, 150), st.floats(0, 6))
def test_the_time_of_a_sample_stays_true_for_any_jitter_and_drift(
    seed: int, ppm: float, noise_ms: float
) -> None:
    def true_ns(sample: int) -> int:
        return round(sample * (1 + ppm * 1e-6) / SAMPLE_RATE * SECOND)

    time = observed(true_ns, seconds=20, noise_ms=noise_ms, seed=seed)
    assert abs(time.time_of(20 * SAMPLE_RATE) - true_ns(20 * SAMPLE_RATE)) < (1 + noise_ms) * MS


def test_stamps_that_are_wrong_for_the_first_second_are_no_loss() -> None:
    """As PulseAudio does: 0.6 s too early at first, then nearer with every block, in steady arrival."""
    time = SoundTime(SAMPLE_RATE)
    for number in range(200):
        off_ns = -min(600, max(0, (60 - number) * 20)) * MS
        assert watch(time, number * BLOCK, number * 20 * MS, off_ns=off_ns) == 0
    assert abs(time.time_of(200 * BLOCK) - 4 * SECOND) < 5 * MS


def test_a_first_block_that_was_handed_over_late_is_corrected() -> None:
    time = SoundTime(SAMPLE_RATE)
    watch(time, 0, 0, off_ns=150 * MS, late_ns=150 * MS)
    for first in range(BLOCK, SAMPLE_RATE, BLOCK):
        assert watch(time, first, first * SECOND // SAMPLE_RATE) == 0
    assert abs(time.time_of(SAMPLE_RATE) - SECOND) < MS


def test_a_few_wild_stamps_change_nothing() -> None:
    time = SoundTime(SAMPLE_RATE)
    for number in range(500):
        wild_ns = -150 * MS if number % 40 in (3, 4, 5) else 0
        assert watch(time, number * BLOCK, number * 20 * MS, off_ns=wild_ns) == 0
    assert abs(time.time_of(160_000) - 10 * SECOND) < MS // 10
    assert abs(time.drift_ppm) < 1


def test_bursts_do_not_move_the_time() -> None:
    """Five blocks at once, each with its true stamp: handed over up to 80 ms after its end."""
    time = SoundTime(SAMPLE_RATE)
    for number in range(500):
        late_ns = (4 - number % 5) * 20 * MS
        assert watch(time, number * BLOCK, number * 20 * MS, late_ns=late_ns) == 0
    assert abs(time.time_of(160_000) - 10 * SECOND) < MS // 10


class PortAudioError(Exception):
    """As `sounddevice` has it."""


class Library:
    """Stands in for `sounddevice` with PortAudio's rule: its end ends every stream, and it is mute then."""

    PortAudioError = PortAudioError
    default = SimpleNamespace(device=(0, 1))

    def __init__(self) -> None:
        self.begun: int | None = 0
        self._ends = 0

    def _terminate(self) -> None:
        self._ends += 1
        self.begun = None
        time.sleep(0.05)

    def _initialize(self) -> None:
        self.begun = self._ends

    def ask(self) -> None:
        for pause_s in (0.0, 0.02):
            time.sleep(pause_s)
            if self.begun is None:
                raise PortAudioError("PortAudio not initialized", -10000)

    def query_hostapis(self) -> list[dict[str, str]]:
        self.ask()
        return [{"name": "ALSA"}]

    def query_devices(self, index: int | None = None) -> object:
        self.ask()
        known = [
            {"name": f"Mic {at}", "hostapi": 0, "max_input_channels": 1, "default_samplerate": 16_000.0}
            for at in range(2)
        ]
        return known if index is None else known[index]

    def InputStream(self, **wish: object) -> LibraryStream:  # noqa: N802  the library's own name
        self.ask()
        return LibraryStream(self)


class LibraryStream:
    """Alive until the library ends."""

    def __init__(self, library: Library) -> None:
        self._library = library
        self._of: int | None = None

    def start(self) -> None:
        self._library.ask()
        self._of = self._library.begun

    @property
    def active(self) -> bool:
        return self._of is not None and self._of == self._library.begun

    def abort(self, *, ignore_errors: bool) -> None: ...

    def close(self, *, ignore_errors: bool) -> None:
        self._of = None


@pytest.mark.parametrize("later_s", [0.0, 0.03, 0.08, 0.12])
def test_two_microphones_that_open_together_both_hear(
    monkeypatch: pytest.MonkeyPatch, later_s: float
) -> None:
    library = Library()
    for module in (devices, sound_device):
        monkeypatch.setattr(module, "portaudio", lambda: library)
    microphones = [Microphone(str(at), FakeClock()) for at in range(2)]
    with ThreadPoolExecutor() as pool:
        first = pool.submit(microphones[0].open)
        time.sleep(later_s)
        second = pool.submit(microphones[1].open)
        first.result()
        second.result()
    assert [one.read(0.0) for one in microphones] == [None, None], "a stream that ended raises"
    for one in microphones:
        one.close()


def test_a_library_that_fails_while_it_lists_is_a_source_error(monkeypatch: pytest.MonkeyPatch) -> None:
    library = Library()
    library.begun = None
    monkeypatch.setattr(devices, "portaudio", lambda: library)
    with pytest.raises(SourceError, match=r"does not name its devices: .*not initialized"):
        devices.list_microphones()
