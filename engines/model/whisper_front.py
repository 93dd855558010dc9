"""Whisper's picture of sound, as layers: raw samples to its log-mel, with its floor and its scale.

Whisper was trained on logarithms to base ten of eighty Slaney bands, cut eight below the loudest cell and
moved near zero. Its layers understand nothing else, so this is its arithmetic and not the house's; only the
reflected borders are left out, because a live piece has none. Everything stays fp32 in every precision.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from liveaffect.engines.recipe import SAMPLE_RATE

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
