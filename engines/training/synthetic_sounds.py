"""Sounds that are no speech, made from a seed: what a microphone hears while nobody talks.

The voice network learns its `speech` output on these against speech. They are made, not recorded, so no
corpus of noise with a licence of its own is needed.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from liveaffect.engines.recipe import SAMPLE_RATE

Samples = NDArray[np.float32]
LENGTH_S = 4.0


def make(kind: str, rng: np.random.Generator, length_s: float = LENGTH_S) -> Samples:
    """Some seconds of one kind of sound at a random level between -70 and -10 dB."""
    count = round(length_s * SAMPLE_RATE)
    sound = KINDS[kind](rng, count)
    peak = float(np.sqrt(np.mean(np.square(sound)))) + 1e-12
    level = 10 ** (rng.uniform(-70, -10) / 20)
    return np.asarray(np.clip(sound / peak * level, -1, 1), np.float32)


def bank(each: int, seed: int) -> dict[str, list[Samples]]:
    """`each` sounds of every kind; the same seed makes the same ones."""
    rng = np.random.default_rng(seed)
    return {kind: [make(kind, rng) for _ in range(each)] for kind in KINDS}


def _noise_of(rng: np.random.Generator, count: int) -> NDArray[np.float64]:
    """White to brown, steady: a fan, rain, an air conditioner."""
    spectrum = np.fft.rfft(rng.normal(size=count))
    frequency = np.maximum(np.fft.rfftfreq(count, 1 / SAMPLE_RATE), 40.0)
    sound: NDArray[np.float64] = np.fft.irfft(spectrum * frequency ** -rng.uniform(0.0, 1.0), count)
    return sound


def _gusts(rng: np.random.Generator, count: int) -> NDArray[np.float64]:
    """Noise that swells and fades: traffic, wind, breath on the microphone."""
    knots = rng.uniform(-2.5, 0.0, max(count * int(rng.integers(2, 9)) // SAMPLE_RATE, 2))
    swell = np.interp(np.linspace(0, len(knots) - 1, count), np.arange(len(knots)), knots)
    return _noise_of(rng, count) * np.power(10.0, swell)


def _hum(rng: np.random.Generator, count: int) -> NDArray[np.float64]:
    """The mains, a motor."""
    at_s = np.arange(count) / SAMPLE_RATE
    base_hz = rng.choice([50.0, 60.0, rng.uniform(30, 400)])
    strength = rng.exponential(size=20) / np.arange(1, 21)
    waves = np.sin(2 * np.pi * base_hz * np.outer(np.arange(1, 21), at_s) + rng.uniform(0, 6, (20, 1)))
    sound: NDArray[np.float64] = strength @ waves
    return sound + 0.02 * rng.normal(size=count)


def _knocks(rng: np.random.Generator, count: int) -> NDArray[np.float64]:
    """Keys, steps, drums, doors: short, with a ring."""
    sound = 1e-3 * rng.normal(size=count)
    at_s = np.arange(round(0.25 * SAMPLE_RATE)) / SAMPLE_RATE
    for start in rng.integers(0, count, int(rng.integers(3, 40))):
        ring = np.sin(2 * np.pi * rng.uniform(60, 5000) * at_s) + rng.normal(size=len(at_s))
        knock = rng.exponential() * ring * np.exp(-at_s / rng.uniform(0.003, 0.06))
        sound[start : start + len(knock)] += knock[: count - start]
    return sound


def _music(rng: np.random.Generator, count: int) -> NDArray[np.float64]:
    """Chords and a tune over them, plucked or held, with or without a beat."""
    sound = np.zeros(count)
    beat = round(rng.uniform(0.15, 0.6) * SAMPLE_RATE)
    scale = rng.uniform(60, 240) * 2 ** (np.array([0, 2, 4, 5, 7, 9, 11, 12, 14, 16]) / 12)
    fall_s = rng.uniform(0.1, 1.5)
    brightness = rng.uniform(0.8, 2.0)
    for start in range(0, count, beat):
        length = min(round(beat * rng.integers(1, 4)), count - start)
        at_s = np.arange(length) / SAMPLE_RATE
        attack = np.minimum(at_s / 0.01, 1.0) * np.exp(-at_s / fall_s)
        for note_hz in rng.choice(scale, int(rng.integers(1, 4)), replace=False):
            numbers = np.arange(1, max(2, min(16, int(7000 / note_hz))))
            overtones = numbers**-brightness
            sound[start : start + length] += attack * (
                overtones @ np.sin(2 * np.pi * note_hz * np.outer(numbers, at_s))
            )
    if rng.random() < 0.5:
        hits = np.exp(-(np.arange(count) % beat) / (0.03 * SAMPLE_RATE))
        sound += rng.uniform(0.1, 1.0) * hits * rng.normal(size=count)
    return sound + 1e-3 * rng.normal(size=count)


def _tones(rng: np.random.Generator, count: int) -> NDArray[np.float64]:
    """Beeps, sirens, sweeps."""
    at_s = np.arange(count) / SAMPLE_RATE
    pitch_hz = rng.uniform(200, 3000) * 2 ** (
        rng.uniform(0, 1) * np.sin(2 * np.pi * rng.uniform(0.1, 4) * at_s)
    )
    sound = np.sin(2 * np.pi * np.cumsum(pitch_hz) / SAMPLE_RATE)
    if rng.random() < 0.5:
        sound *= np.sin(2 * np.pi * rng.uniform(0.5, 4) * at_s) > rng.uniform(-0.5, 0.8)
    return sound + 1e-3 * rng.normal(size=count)


def _silence(rng: np.random.Generator, count: int) -> NDArray[np.float64]:
    """A good microphone in a quiet room, or one that is switched off."""
    if rng.random() < 0.3:
        return np.zeros(count)
    return np.rint(rng.normal(size=count) * rng.uniform(0.3, 3)) + 1e-3 * rng.normal(size=count)


KINDS: dict[str, Callable[[np.random.Generator, int], NDArray[np.float64]]] = {
    "noise": _noise_of,
    "gusts": _gusts,
    "hum": _hum,
    "knocks": _knocks,
    "music": _music,
    "tones": _tones,
    "silence": _silence,
}
