"""Makes samples sound as a laptop would have heard them: pace and pitch, room, microphone, noise, level.

The networks on Whisper's log-mel take samples, and their statistics are of features that no sum of band
powers predicts; so, unlike for the older networks, everything is done to the sound itself. Filters and rooms
are one product in the frequency domain.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from liveaffect.engines.recipe import SAMPLE_RATE

Samples = NDArray[np.float32]
_TAIL = SAMPLE_RATE // 2
_KNOTS_HZ = np.array([0.0, 150.0, 400.0, 1000.0, 2500.0, 5000.0, 8000.0])


@dataclass(frozen=True, slots=True)
class Hearing:
    """How often each thing happens, and how far it goes."""

    pace: float = 0.6
    octaves: float = 0.25
    """Pace and pitch together, as of a tape that runs faster or slower."""
    colour: float = 0.6
    colour_db: float = 4.0
    band_limit: float = 0.25
    room: float = 0.35
    decay_s: tuple[float, float] = (0.1, 0.5)
    noise: float = 0.5
    snr_db: tuple[float, float] = (5.0, 40.0)
    level: float = 0.7
    level_db: tuple[float, float] = (-45.0, -18.0)


def heard(samples: Samples, rng: np.random.Generator, hearing: Hearing | None = None) -> Samples:
    """The same sound somewhere else. What happens depends on nothing but the generator."""
    how = hearing or Hearing()
    if rng.random() < how.pace:
        samples = paced(samples, float(2 ** rng.uniform(-how.octaves, how.octaves)))
    samples = _placed(samples, rng, how)
    loud = float(np.sqrt(np.mean(np.square(samples)))) + 1e-9
    if rng.random() < how.noise:
        snr_db = rng.uniform(*how.snr_db)
        noise = _noise(len(samples), rng) * np.float32(loud * 10 ** (-snr_db / 20))
        samples = np.asarray(samples + noise, np.float32)
    if rng.random() < how.level:
        samples = samples * np.float32(10 ** (rng.uniform(*how.level_db) / 20) / loud)
    return np.asarray(np.clip(samples, -1.0, 1.0), np.float32)


def paced(samples: Samples, rate: float) -> Samples:
    """So many times as fast, and as high."""
    at = np.arange(int(len(samples) / rate)) * rate
    return np.asarray(np.interp(at, np.arange(len(samples)), samples), np.float32)


def _placed(samples: Samples, rng: np.random.Generator, how: Hearing) -> Samples:
    """Through a microphone's response, a band limit and a room."""
    length = 1 << (len(samples) + _TAIL - 1).bit_length()
    hertz = np.fft.rfftfreq(length, 1 / SAMPLE_RATE)
    response = np.ones(len(hertz), np.complex128)
    if rng.random() < how.colour:
        knots = rng.normal(0, how.colour_db, len(_KNOTS_HZ))
        response *= 10 ** (np.interp(np.log(hertz + 30), np.log(_KNOTS_HZ + 30), knots) / 20)
    if rng.random() < how.band_limit:
        low_hz, high_hz = rng.uniform(50, 300), rng.uniform(3300, 7500)
        response /= np.sqrt(1 + (low_hz / (hertz + 1)) ** 6) * np.sqrt(1 + (hertz / high_hz) ** 12)
    if rng.random() < how.room:
        at_s = np.arange(_TAIL) / SAMPLE_RATE
        tail = rng.normal(size=_TAIL) * 10 ** (-3 * at_s / rng.uniform(*how.decay_s))
        tail[: int(rng.uniform(0.001, 0.01) * SAMPLE_RATE)] = 0.0
        tail *= rng.uniform(0.1, 0.9) / (np.linalg.norm(tail) + 1e-9)
        response *= 1.0 + np.fft.rfft(tail, length)
    spectrum = np.fft.rfft(samples, length) * response
    return np.asarray(np.fft.irfft(spectrum, length)[: len(samples)], np.float32)


def _noise(count: int, rng: np.random.Generator) -> Samples:
    """White to brown, of loudness one."""
    spectrum = np.fft.rfft(rng.normal(size=count))
    hertz = np.maximum(np.fft.rfftfreq(count, 1 / SAMPLE_RATE), 40.0)
    sound = np.fft.irfft(spectrum * hertz ** -rng.uniform(0.0, 1.0), count)
    return np.asarray(sound / (np.sqrt(np.mean(np.square(sound))) + 1e-9), np.float32)
