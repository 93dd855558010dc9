"""Preprocessing inside the network is what SciPy computes, and what a user's microphone cannot upset."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.fft
import scipy.signal
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

pytest.importorskip("torch", reason="networks are built with torch: pip install liveaffect[train]")

import torch
from torch import Tensor

from liveaffect.engines import parity
from liveaffect.engines.model import presets
from liveaffect.engines.model.frontend import (
    CropFront,
    Sound,
    SoundFront,
    SoundPreset,
    mel_filters,
)
from liveaffect.engines.recipe import LOG_FLOOR, MEL_BANDS, SAMPLE_RATE, STFT_FRAMES

torch.set_num_threads(1)  # tensors are small; a second thread only waits

SOUNDS = {
    "plain": SoundPreset(),
    "fv2es": presets.VOICE_FV2ES.sound,
    "amfbp": presets.VOICE_AMFBP.sound,
}
FLAT = (torch.full((1, MEL_BANDS), -6.0), torch.full((1, MEL_BANDS), 0.5))


def voice(piece: int, count: int = 2) -> Tensor:
    return torch.from_numpy(parity.inputs("voice", count, seed=4, piece=piece)["samples"])


def heard(preset: SoundPreset, samples: Tensor) -> Sound:
    mean, istd = (one.expand(len(samples), -1) for one in FLAT)
    sound: Sound = SoundFront(preset)(samples, mean, istd)
    return sound


def scipy_log_power(preset: SoundPreset, samples: NDArray[np.float32]) -> NDArray[np.float64]:
    """The same by SciPy's FFT and bands written as interpolation, in double precision."""
    taper = scipy.signal.get_window(preset.taper, preset.window)
    frames = sliding_window_view(samples.astype(np.float64), preset.window, axis=1)[:, :: preset.step]
    power = np.abs(scipy.fft.rfft(frames * taper, n=preset.n_fft).swapaxes(1, 2)) ** 2
    hertz = scipy.fft.rfftfreq(preset.n_fft, 1 / SAMPLE_RATE)
    mel = np.linspace(0, 2595 * np.log10(1 + SAMPLE_RATE / 2 / 700), preset.bands + 2)
    edges = 700 * (10 ** (mel / 2595) - 1)
    bands = np.array([np.interp(hertz, edges[i : i + 3], [0, 1, 0], 0, 0) for i in range(preset.bands)])
    banded: NDArray[np.float64] = power[:, : preset.bands] if preset.scale == "linear" else bands @ power
    return np.log(banded + LOG_FLOOR)


@pytest.mark.parametrize("name", SOUNDS)
def test_the_log_spectrum_is_scipys_to_one_part_in_ten_thousand_of_its_range(name: str) -> None:
    preset = SOUNDS[name]
    samples = voice(preset.piece)
    want = scipy_log_power(preset, samples.numpy())
    got = SoundFront(preset).log_power(samples).numpy()
    assert got.shape == want.shape == (2, preset.bands, preset.frames)
    assert np.abs(got - want).max() <= 1e-4 * np.ptp(want)


@pytest.mark.parametrize("name", SOUNDS)
def test_no_band_is_empty(name: str) -> None:
    filters = SoundFront(SOUNDS[name]).filters
    assert filters.sum((1, 2)).min() > 0.5


def test_the_published_spectrum_had_four_empty_bands() -> None:
    assert (mel_filters(128, 201).sum(1) == 0).sum() == 4


def test_sums_are_those_of_log_mel_before_anything_was_normalised_or_cut() -> None:
    preset = SOUNDS["plain"]
    samples = voice(preset.piece)
    log_mel = SoundFront(preset).log_power(samples)
    sound = heard(preset, samples)
    assert preset.frames == STFT_FRAMES
    torch.testing.assert_close(sound.stat_sum, log_mel.sum(2), rtol=1e-5, atol=1e-3)
    torch.testing.assert_close(sound.stat_sumsq, (log_mel**2).sum(2), rtol=1e-5, atol=1e-2)
    torch.testing.assert_close(sound.mean(), log_mel.mean(2))
    torch.testing.assert_close(sound.spread(), log_mel.std(2, correction=0), rtol=1e-2, atol=2e-2)


@pytest.mark.parametrize("name", ["fv2es", "amfbp"])
def test_every_network_keeps_the_same_speaker_statistics(name: str) -> None:
    """64 bands and 32 spectra's worth of sums, whatever the network's own picture is."""
    preset = SOUNDS[name]
    samples = voice(preset.piece)
    log_power = SoundFront(preset).log_power(samples)
    groups = np.array_split(np.arange(preset.bands), MEL_BANDS) if preset.bands == 128 else None
    sound = heard(preset, samples)
    assert sound.stat_sum.shape == sound.stat_sumsq.shape == (2, MEL_BANDS)
    torch.testing.assert_close(sound.mean().mean(), log_power.mean(), rtol=0.02, atol=0.05)
    for band, members in enumerate(groups or []):
        torch.testing.assert_close(sound.mean()[:, band], log_power[:, members].mean((1, 2)))


def test_the_picture_is_normalised_with_the_speakers_own_statistics() -> None:
    preset = SOUNDS["plain"]
    samples = voice(preset.piece)
    front = SoundFront(preset)
    log_mel = front.log_power(samples)
    mean, istd = log_mel.mean(2), 1 / log_mel.std(2, correction=0)
    picture = front(samples, mean, istd).picture
    torch.testing.assert_close(picture.mean(2), torch.zeros(2, MEL_BANDS), rtol=0, atol=1e-3)
    torch.testing.assert_close(picture.std(2, correction=0), torch.ones(2, MEL_BANDS), rtol=1e-3, atol=0)


def test_mixed_precision_in_training_does_not_touch_the_spectrum() -> None:
    preset = SOUNDS["plain"]
    samples = voice(preset.piece)
    want = heard(preset, samples)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got = heard(preset, samples)
    assert all(torch.equal(a, b) for a, b in zip(got, want, strict=True))


def test_a_crop_is_read_as_rgb_and_normalised_per_channel() -> None:
    crop = torch.from_numpy(parity.inputs("face", 2)["crop"])
    want = (crop.float() - torch.tensor([159.0, 111.0, 102.0])) / torch.tensor([37.0, 33.0, 32.0])
    front = CropFront(64, presets.FACE_FV2ES.mean, presets.FACE_FV2ES.std)
    torch.testing.assert_close(front(crop), want.permute(0, 3, 1, 2))


def test_the_live_face_network_sees_brightness_not_colour() -> None:
    front = CropFront(64, presets.FACE_LIVE.mean, presets.FACE_LIVE.std)
    red = torch.zeros(1, 64, 64, 3, dtype=torch.uint8)
    red[..., 0] = 200
    shade = front(red)
    assert shade.shape == (1, 1, 64, 64)
    torch.testing.assert_close(shade, torch.full_like(shade, (0.299 * 200 - 127.5) / 64))


def test_a_crop_is_shrunk_for_the_published_network_without_moving() -> None:
    """A ramp stays the same ramp: its left and right edge values and its middle are kept."""
    ramp = torch.arange(64, dtype=torch.uint8)[None, None, :, None].expand(1, 64, 64, 3)
    front = CropFront(48, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
    row = front(ramp)[0, 0, 0]
    want = (torch.arange(48) + 0.5) * 64 / 48 - 0.5
    torch.testing.assert_close(row[1:-1], want[1:-1])
