"""Makes a recording sound as a laptop would have heard it: another room, microphone, distance, speaker.

Everything is done on band powers, where gain, noise, reverberation, filters and a coarse codec are sums and
products of a few thousand numbers. On samples the same would cost more than training the network.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from liveaffect.engines.recipe import LOG_FLOOR, SAMPLE_RATE, STFT_STEP

Power = NDArray[np.float32]
"""(bands, frames), linear."""
_FRAME_S = STFT_STEP / SAMPLE_RATE
_LONGEST_TAIL = 40
"""Frames of reverberation that are worked out: half a second."""


@dataclass(frozen=True, slots=True)
class Strength:
    """How often each thing happens, and how far it goes."""

    gain_db: tuple[float, float] = (-24.0, 10.0)
    noise: float = 0.25
    snr_db: tuple[float, float] = (3.0, 35.0)
    reverb: float = 0.15
    decay_s: tuple[float, float] = (0.15, 0.7)
    """Time in which reverberation falls by 60 dB."""
    colour: float = 0.3
    colour_db: float = 6.0
    band_limit: float = 0.1
    codec: float = 0.05
    warp: float = 0.6
    bands_warp: float = 0.08
    """Vocal tracts this much shorter or longer: formants move, so few speakers look like many."""
    time_warp: float = 0.12
    shift: float = 0.5
    longest_shift_s: float = 0.8


NONE = Strength(
    gain_db=(0.0, 0.0), noise=0.0, reverb=0.0, colour=0.0, band_limit=0.0, codec=0.0, warp=0.0, shift=0.0
)


def heard_elsewhere(
    picture: NDArray[np.float32],
    speech: NDArray[np.bool_],
    noises: Sequence[NDArray[np.float32]],
    rng: np.random.Generator,
    strength: Strength,
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """A log spectrum and its frames of speech, as another room and microphone would give them.

    `noises` are log spectra to mix in; a recording without any speech may be passed through as well.
    """
    if rng.random() < strength.warp:
        picture, speech = warped(picture, speech, rng, strength)
    power = np.exp(picture) - np.float32(LOG_FLOOR)
    np.maximum(power, 0.0, out=power)
    if rng.random() < strength.shift:
        power, speech = _moved_on_grid(power, speech, rng, strength)
    if rng.random() < strength.reverb:
        power = reverberated(power, rng.uniform(*strength.decay_s), rng.uniform(0.1, 1.0))
    loud = float(power[:, speech].mean()) if speech.any() else float(power.mean())
    if noises and rng.random() < strength.noise:
        snr_db = rng.uniform(*strength.snr_db)
        noise = _stretch(noises[int(rng.integers(len(noises)))], power.shape[1], rng)
        power = power + noise * np.float32(loud / (noise.mean() + 1e-12) * 10 ** (-snr_db / 10))
    if rng.random() < strength.colour:
        power *= _smooth_gain(len(power), strength.colour_db, rng)
    if rng.random() < strength.band_limit:
        power *= _band_pass(len(power), rng)
    power *= np.float32(10 ** (rng.uniform(*strength.gain_db) / 10))
    out = np.log(power + np.float32(LOG_FLOOR))
    return (coded(out, rng) if rng.random() < strength.codec else out), speech


def warped(
    picture: NDArray[np.float32], speech: NDArray[np.bool_], rng: np.random.Generator, strength: Strength
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Another length of vocal tract, another pace."""
    bands, frames = picture.shape
    stretch = 1 + rng.uniform(-strength.time_warp, strength.time_warp)
    along = np.linspace(0, frames - 1, max(round(frames * stretch), 2))
    across = np.clip(np.arange(bands) * (1 + rng.uniform(-1, 1) * strength.bands_warp), 0, bands - 1)
    picture = _between(_between(picture, along).T, across).T
    return np.ascontiguousarray(picture), speech[np.rint(along).astype(int)]


def reverberated(power: Power, decay_s: float, share: float) -> Power:
    """Adds a tail that falls by 60 dB in `decay_s`; `share` is its energy against the direct sound's."""
    fall = 10 ** (-6 * _FRAME_S / decay_s)
    weights = fall ** np.arange(1, _LONGEST_TAIL + 1)
    weights *= share / weights.sum()
    out = power.copy()
    for delay, weight in enumerate(weights[weights > 1e-4], start=1):
        if delay < power.shape[1]:
            out[:, delay:] += np.float32(weight) * power[:, :-delay]
    return out


def coded(picture: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
    """What a coarse codec leaves: steps instead of values, and nothing where a neighbour is far louder."""
    step = rng.uniform(0.3, 0.9)
    depth = rng.uniform(4.0, 7.0)
    around = np.maximum(picture, 0)
    around = np.pad(picture, ((3, 3), (0, 0)), mode="edge")
    masking = np.max([around[i : i + len(picture)] for i in range(7)], axis=0)
    kept = np.where(picture < masking - depth, np.log(LOG_FLOOR), np.rint(picture / step) * step)
    out: NDArray[np.float32] = np.maximum(kept, np.log(LOG_FLOOR)).astype(np.float32)
    return out


def masked(
    power: NDArray[np.float32], mean: NDArray[np.float32], rng: np.random.Generator, *, share: float = 0.7
) -> None:
    """SpecAugment in place: in a piece of (n, bands, frames) stripes of bands and of time become the mean."""
    count, bands, frames = power.shape
    per_band = mean[:, np.arange(bands) * mean.shape[1] // bands]
    for i in np.flatnonzero(rng.random(count) < share):
        wide, low = int(rng.integers(0, bands // 6)), int(rng.integers(0, bands))
        power[i, low : low + wide] = per_band[i, low : low + wide, None]
        long, first = int(rng.integers(0, frames // 4)), int(rng.integers(0, frames))
        power[i, :, first : first + long] = per_band[i, :, None]


def _moved_on_grid(
    power: Power, speech: NDArray[np.bool_], rng: np.random.Generator, strength: Strength
) -> tuple[Power, NDArray[np.bool_]]:
    """Begins elsewhere on the grid: later, or after silence as quiet as the recording's own room."""
    frames = int(rng.integers(1, round(strength.longest_shift_s / _FRAME_S)))
    if rng.random() < 0.5 and frames < power.shape[1] // 3 and not speech[:frames].any():
        return power[:, frames:], speech[frames:]
    quiet = np.percentile(power, 5, axis=1).astype(np.float32)[:, None]
    room = quiet * rng.exponential(1.0, (len(power), frames)).astype(np.float32)
    return np.concatenate([room, power], axis=1), np.concatenate([np.zeros(frames, np.bool_), speech])


def _stretch(noise: NDArray[np.float32], frames: int, rng: np.random.Generator) -> Power:
    """Linear power of a noise from a random place, repeated when it is too short."""
    start = int(rng.integers(noise.shape[1]))
    out: Power = np.exp(np.take(noise, np.arange(start, start + frames), axis=1, mode="wrap"))
    return out


def _smooth_gain(bands: int, swing_db: float, rng: np.random.Generator) -> Power:
    """(bands, 1): the frequency response of some microphone."""
    knots = np.interp(np.arange(bands), np.linspace(0, bands - 1, 6), rng.normal(0, swing_db / 2, 6))
    return np.asarray(10 ** (knots / 10), np.float32)[:, None]


def _band_pass(bands: int, rng: np.random.Generator) -> Power:
    """(bands, 1): a telephone, a small loudspeaker, a muffled corner."""
    index = np.arange(bands) / bands
    low, high = rng.uniform(0.0, 0.15), rng.uniform(0.6, 1.05)
    nats = -40.0 * np.maximum(low - index, 0) - 40.0 * np.maximum(index - high, 0)
    return np.asarray(np.exp(nats), np.float32)[:, None]


def _between(rows: NDArray[np.float32], at: NDArray[np.floating]) -> NDArray[np.float32]:
    """Linear interpolation along the last axis."""
    left = np.minimum(at.astype(int), rows.shape[-1] - 2)
    share = (at - left).astype(np.float32)
    return np.asarray(rows[..., left] * (1 - share) + rows[..., left + 1] * share, np.float32)
