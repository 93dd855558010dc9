"""Makes a batch of pieces sound as laptops would have heard them, all at once: the batched augmentation.

The same events as `augment_sound` works on recordings one by one, as tensors over a batch: vocal tract,
gain, microphone, band limits, echo, and noise of some colour. On band powers all are sums and products.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from liveaffect.engines.recipe import LOG_FLOOR, MEL_BANDS, SAMPLE_RATE, STFT_STEP

_FRAME_S = STFT_STEP / SAMPLE_RATE
_KNOTS = 6
_GRAINS = 3_000_000


@dataclass(frozen=True, slots=True)
class Rooms:
    """How often each thing happens, and how far it goes. Levels in nats of power."""

    warp: float = 0.6
    bands_warp: float = 0.07
    """Vocal tracts this much shorter or longer."""
    coloured: float = 0.6
    colour: float = 0.5
    gain: float = 0.7
    gains: tuple[float, float] = (-5.5, 2.3)
    band_limit: float = 0.15
    noise: float = 0.4
    snr_db: tuple[float, float] = (5.0, 45.0)
    echo: float = 0.15
    decay_s: tuple[float, float] = (0.15, 0.6)
    """Time in which an echo falls by 60 dB."""


@dataclass(frozen=True, slots=True, eq=False)
class Drawn:
    """The rooms of one batch."""

    warp: Tensor
    """(n, bands, bands)."""
    gain: Tensor
    """(n, bands), nats."""
    noise: Tensor
    """(n, bands): shares of the loudness of speech; zero where there is none."""
    decay: NDArray[np.float64]
    """(n,): what is left of an echo after one frame; zero where there is none."""
    wet: NDArray[np.float64]
    """(n,): the echo's energy against the direct sound's."""


def grain(rng: np.random.Generator) -> Tensor:
    """The unrest of noise: powers of a spectrum's cells, to be cut anywhere."""
    return torch.from_numpy((0.05 + 0.9 * rng.exponential(1.0, _GRAINS)).astype(np.float32))


def drawn(count: int, rooms: Rooms, rng: np.random.Generator) -> Drawn:
    """A room for each of so many pieces."""
    band = np.arange(MEL_BANDS)
    stretch = np.where(rng.random(count) < rooms.warp, rooms.bands_warp * rng.uniform(-1, 1, count), 0.0)
    place = np.clip(band * (1 + stretch[:, None]), 0, MEL_BANDS - 1)
    below = np.minimum(place.astype(np.int64), MEL_BANDS - 2)
    share = (place - below).astype(np.float32)
    warp = np.zeros((count, MEL_BANDS, MEL_BANDS), np.float32)
    np.put_along_axis(warp, below[..., None], 1 - share[..., None], 2)
    np.put_along_axis(warp, below[..., None] + 1, share[..., None], 2)
    gain = _smooth(count, rooms.colour, rng) * (rng.random((count, 1)) < rooms.coloured)
    gain += rng.uniform(*rooms.gains, (count, 1)) * (rng.random((count, 1)) < rooms.gain)
    low, high = rng.uniform(0.0, 0.15, (count, 1)), rng.uniform(0.6, 1.05, (count, 1))
    outside = np.maximum(low - band / MEL_BANDS, 0) + np.maximum(band / MEL_BANDS - high, 0)
    gain -= 40.0 * outside * (rng.random((count, 1)) < rooms.band_limit)
    loud = 10 ** (-rng.uniform(*rooms.snr_db, (count, 1)) / 10) * (rng.random((count, 1)) < rooms.noise)
    noise = np.exp(_smooth(count, 1.5, rng)) * loud
    echoes = rng.random(count) < rooms.echo
    decay = np.where(echoes, 10 ** (-6 * _FRAME_S / rng.uniform(*rooms.decay_s, count)), 0.0)
    return Drawn(
        warp=torch.from_numpy(warp),
        gain=torch.from_numpy(gain.astype(np.float32)),
        noise=torch.from_numpy(noise.astype(np.float32)),
        decay=decay,
        wet=rng.uniform(0.1, 0.8, count),
    )


def heard_in_rooms(
    picture: Tensor, speech: Tensor, room: Drawn, grains: Tensor, rng: np.random.Generator
) -> Tensor:
    """(n, bands, frames): log spectra of the same in these rooms."""
    power = (torch.bmm(room.warp, picture) + room.gain[:, :, None]).exp()
    if len(rows := np.flatnonzero(room.decay)):
        power[rows] = _with_echo(power[rows], room.decay[rows], room.wet[rows])
    spoken = speech.float()
    counted = torch.where(spoken.sum(1, keepdim=True) > 0, spoken, torch.ones_like(spoken))
    loud = (power * counted[:, None]).sum((1, 2)) / (counted.sum(1) * MEL_BANDS)
    start = int(rng.integers(0, len(grains) - power.numel()))
    unrest = grains[start : start + power.numel()].view_as(power)
    power.addcmul_(unrest, (room.noise * loud[:, None])[:, :, None])
    return power.add_(LOG_FLOOR).log_()


def _with_echo(power: Tensor, decay: NDArray[np.float64], wet: NDArray[np.float64]) -> Tensor:
    keep = torch.from_numpy(decay.astype(np.float32))[:, None]
    share = torch.from_numpy((wet * (1 - decay)).astype(np.float32))[:, None]
    tail, out = torch.zeros_like(power[:, :, 0]), power.clone()
    for frame in range(1, power.shape[2]):
        tail = keep * tail + power[:, :, frame - 1]
        out[:, :, frame] += share * tail
    return out


def _smooth(count: int, swing: float, rng: np.random.Generator) -> NDArray[np.float64]:
    """(count, bands): a curve through a few chance values."""
    knots = rng.normal(0, swing, (count, _KNOTS))
    place = np.linspace(0, _KNOTS - 1, MEL_BANDS)
    left = np.minimum(place.astype(int), _KNOTS - 2)
    return np.asarray(knots[:, left] * (1 - (place - left)) + knots[:, left + 1] * (place - left))
