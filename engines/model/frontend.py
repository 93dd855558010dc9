"""Preprocessing as layers: raw uint8 crops and raw samples go in, so no second implementation can drift.

The spectrum is a convolution with a fixed windowed Fourier basis, which every run-time has, instead of an
FFT, which few export. Everything up to the logarithm stays fp32 in every precision: `log(x + 1e-6)` of
half-precision power is noise in quiet bands.

Whisper was trained on logarithms to base ten of eighty Slaney bands, cut eight below the loudest cell and
moved near zero. Its layers understand nothing else, so its front is its arithmetic and not the house's;
only the reflected borders are left out, because a live piece has none.
"""

from __future__ import annotations

import math
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from liveaffect.engines.recipe import (
    CROP_SIZE,
    HOP,
    LOG_FLOOR,
    MEL_BANDS,
    PIECE,
    SAMPLE_RATE,
    STFT_FRAMES,
    STFT_STEP,
    STFT_WINDOW,
)

LUMA = (0.299, 0.587, 0.114)


class CropFront(nn.Module):
    """uint8 (n, 64, 64, 3) RGB to normalised float (n, channels, size, size)."""

    def __init__(self, size: int, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        super().__init__()
        self.scale = size / CROP_SIZE
        self.grey = len(mean) == 1
        self.mean: Tensor
        self.istd: Tensor
        self.luma: Tensor
        self.register_buffer("mean", torch.tensor(mean).reshape(1, -1, 1, 1), persistent=False)
        self.register_buffer("istd", 1.0 / torch.tensor(std).reshape(1, -1, 1, 1), persistent=False)
        self.register_buffer("luma", torch.tensor(LUMA).reshape(1, 3, 1, 1), persistent=False)

    def forward(self, crop: Tensor) -> Tensor:
        x = crop.permute(0, 3, 1, 2).float()
        if self.grey:
            x = (x * self.luma).sum(1, keepdim=True)
        if self.scale != 1.0:
            x = functional.interpolate(x, scale_factor=self.scale, mode="bilinear", align_corners=False)
        return (x - self.mean) * self.istd


@dataclass(frozen=True, slots=True)
class SoundPreset:
    """How samples become a picture of sound."""

    piece: int = PIECE
    """Samples in one piece."""
    hop: int = HOP
    """Samples between the starts of two pieces."""
    window: int = STFT_WINDOW
    step: int = STFT_STEP
    taper: str = "hann"
    n_fft: int = STFT_WINDOW
    bands: int = MEL_BANDS
    scale: str = "mel"
    """'mel': triangles of the HTK scale up to half the sample rate; 'linear': the lowest bins as they are."""

    @property
    def frames(self) -> int:
        """Spectra in one piece; uncentred, so each uses only samples that are there."""
        return 1 + (self.piece - self.window) // self.step


class Sound(NamedTuple):
    """What the front end hands on."""

    picture: Tensor
    """(n, bands, frames), normalised with the speaker's statistics."""
    stat_sum: Tensor
    """(n, 64): log-mel before normalisation, its mean over the piece times 32 frames."""
    stat_sumsq: Tensor

    def mean(self) -> Tensor:
        """(n, 64): the piece's own mean of log-mel."""
        return self.stat_sum / STFT_FRAMES

    def spread(self) -> Tensor:
        """(n, 64): the piece's own deviation of log-mel over time."""
        variance = self.stat_sumsq / STFT_FRAMES - self.mean() ** 2
        return (variance.clamp(min=0.0) + 1e-4).sqrt()


class SoundFront(nn.Module):
    """Samples and the speaker's statistics to a normalised log spectrum and its sums.

    Speaker statistics always have 64 bands. A preset with more shares one among neighbours, so every voice
    network runs with the same statistics.
    """

    def __init__(self, preset: SoundPreset) -> None:
        super().__init__()
        self.preset = preset
        bins = preset.n_fft // 2 + 1
        filters = mel_filters(preset.bands, bins) if preset.scale == "mel" else np.eye(preset.bands, bins)
        used = np.flatnonzero(filters.sum(0))
        self.basis: Tensor
        self.filters: Tensor
        self.share: Tensor
        self.group: Tensor
        basis = fourier_basis(preset)[:, used].reshape(2 * used.size, 1, preset.window)
        self._fixed("basis", basis)
        self._fixed("filters", filters[:, used, None])
        group = np.arange(preset.bands) * MEL_BANDS // preset.bands
        member = group == np.arange(MEL_BANDS)[:, None]
        self._fixed("share", (member / member.sum(1, keepdims=True))[:, :, None])
        self.register_buffer("group", torch.from_numpy(group), persistent=False)

    def _fixed(self, name: str, values: NDArray[np.floating]) -> None:
        self.register_buffer(name, torch.from_numpy(values.astype(np.float32)), persistent=False)

    def forward(self, samples: Tensor, mean: Tensor, istd: Tensor) -> Sound:
        with _full_precision(samples.device.type):
            log_power = self.log_power(samples.float())
            grouped = self.preset.bands != MEL_BANDS
            log_mel = functional.conv1d(log_power, self.share) if grouped else log_power
            if grouped:
                mean, istd = mean[:, self.group], istd[:, self.group]
            picture = (log_power - mean[:, :, None]) * istd[:, :, None]
            square = (log_mel * log_mel).mean(2)
            return Sound(picture, log_mel.mean(2) * STFT_FRAMES, square * STFT_FRAMES)

    def log_power(self, samples: Tensor) -> Tensor:
        """(n, bands, frames): natural logarithm of band power plus 1e-6."""
        parts = functional.conv1d(samples[:, None, :], self.basis, stride=self.preset.step)
        half = parts.shape[1] // 2
        power = parts[:, :half] ** 2 + parts[:, half:] ** 2
        return torch.log(functional.conv1d(power, self.filters) + LOG_FLOOR)


def _full_precision(device: str) -> AbstractContextManager[object]:
    """Leave mixed precision, on devices that have it."""
    has_it = torch.amp.autocast_mode.is_autocast_available(device)
    return torch.autocast(device, enabled=False) if has_it else nullcontext()


def fourier_basis(preset: SoundPreset) -> NDArray[np.float64]:
    """(2, bins, window): cosine and sine times the periodic window, zero-padded to n_fft when longer."""
    sample = np.arange(preset.window)
    offset, swing = {"hann": (0.5, 0.5), "hamming": (0.54, 0.46)}[preset.taper]
    taper = offset - swing * np.cos(2 * np.pi * sample / preset.window)
    angle = 2 * np.pi * np.outer(np.arange(preset.n_fft // 2 + 1), sample) / preset.n_fft
    return np.stack([np.cos(angle), np.sin(angle)]) * taper


def mel_filters(bands: int, bins: int, sample_rate: int = SAMPLE_RATE) -> NDArray[np.float64]:
    """(bands, bins): triangles of height one, evenly spaced on the HTK mel scale from 0 to half the rate."""
    top = 2595.0 * np.log10(1.0 + sample_rate / 2 / 700.0)
    edges = 700.0 * (10.0 ** (np.linspace(0.0, top, bands + 2) / 2595.0) - 1.0)
    hertz = np.linspace(0.0, sample_rate / 2, bins)
    up = (hertz - edges[:-2, None]) / np.diff(edges)[:-1, None]
    down = (edges[2:, None] - hertz) / np.diff(edges)[1:, None]
    return np.maximum(0.0, np.minimum(up, down))


BANDS = 80
WINDOW, STEP = 400, 160
_FAINTEST = 1e-10
_DEPTH = 8.0
"""Cells this far below the loudest of the piece, in powers of ten, are cut."""
_SHIFT, _SCALE = 4.0, 4.0
_HEARD_DEPTH, _HEARD_EDGE = 3.0, 4.0
"""Moments 30 dB below the loudest count half; the edge is this steep."""


@dataclass(frozen=True, slots=True)
class WhisperSound:
    """How a piece of sound is cut for networks that stand on Whisper's log-mel."""

    piece: int
    hop: int

    @property
    def frames(self) -> int:
        """Spectra in one piece, 10 ms apart."""
        return 1 + (self.piece - WINDOW) // STEP

    @property
    def lead(self) -> int:
        """Samples of a piece that were heard before its newest part; silence where a stream begins."""
        return self.piece - self.hop

    @property
    def moments(self) -> int:
        """What the encoder makes of them, 20 ms apart."""
        return (self.frames + 1) // 2


class WhisperFront(nn.Module):
    """(n, piece) samples to (n, 80, frames) of Whisper's log-mel."""

    def __init__(self, sound: WhisperSound) -> None:
        super().__init__()
        self.sound = sound
        sample = np.arange(WINDOW)
        taper = 0.5 - 0.5 * np.cos(2 * np.pi * sample / WINDOW)
        angle = 2 * np.pi * np.outer(np.arange(WINDOW // 2 + 1), sample) / WINDOW
        filters = slaney_filters()
        used = np.flatnonzero(filters.sum(0))
        basis = (np.stack([np.cos(angle), np.sin(angle)]) * taper)[:, used].reshape(-1, 1, WINDOW)
        self.basis: Tensor
        self.filters: Tensor
        for name, values in (("basis", basis), ("filters", filters[:, used, None])):
            self.register_buffer(name, torch.from_numpy(values.astype(np.float32)), persistent=False)

    def forward(self, samples: Tensor) -> Tensor:
        parts = functional.conv1d(samples.float()[:, None, :], self.basis, stride=STEP)
        half = parts.shape[1] // 2
        power = parts[:, :half] ** 2 + parts[:, half:] ** 2
        power = functional.conv1d(power, self.filters).clamp(min=_FAINTEST)
        log_mel = torch.log(power) * (1.0 / math.log(10.0))
        log_mel = torch.maximum(log_mel, log_mel.amax((1, 2), keepdim=True) - _DEPTH)
        return (log_mel + _SHIFT) / _SCALE


def heard_share(log_mel: Tensor) -> Tensor:
    """(n, moments): how much each moment counts; those far below the loudest of the piece hardly do.

    Silence before a first word would otherwise stand in every mean, and the first second of a voice would
    be judged by how much silence it brought along.
    """
    level = torch.logsumexp(log_mel * (_SCALE * math.log(10.0)), dim=1) * (1.0 / math.log(10.0))
    # Two frames make a moment; with an odd number the last moment has one.
    level = functional.avg_pool1d(level[:, None], 2, ceil_mode=True)[:, 0]
    deep = level - level.amax(1, keepdim=True) + _HEARD_DEPTH
    share = torch.sigmoid(_HEARD_EDGE * deep)
    return share / share.sum(1, keepdim=True)


def slaney_filters(bands: int = BANDS, bins: int = WINDOW // 2 + 1) -> NDArray[np.float64]:
    """(bands, bins): triangles of equal area, linear below 1 kHz and logarithmic above: Slaney's."""
    edges = _hertz(np.linspace(0.0, _mel(SAMPLE_RATE / 2), bands + 2))
    hertz = np.linspace(0.0, SAMPLE_RATE / 2, bins)
    up = (hertz - edges[:-2, None]) / np.diff(edges)[:-1, None]
    down = (edges[2:, None] - hertz) / np.diff(edges)[1:, None]
    area = 2.0 / (edges[2:] - edges[:-2])
    return np.maximum(0.0, np.minimum(up, down)) * area[:, None]


_KNEE_HZ, _KNEE_MEL, _PER_MEL = 1000.0, 15.0, math.log(6.4) / 27.0


def _mel(hertz: float) -> float:
    linear = hertz * _KNEE_MEL / _KNEE_HZ
    return linear if hertz < _KNEE_HZ else _KNEE_MEL + math.log(hertz / _KNEE_HZ) / _PER_MEL


def _hertz(mel: NDArray[np.float64]) -> NDArray[np.float64]:
    above = _KNEE_HZ * np.exp(_PER_MEL * (mel - _KNEE_MEL))
    return np.where(mel < _KNEE_MEL, mel * _KNEE_HZ / _KNEE_MEL, above)
