"""A voice counts less the more noise it is in and the more of it is cut off; silence is no reproach."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from liveaffect.engines.recipe import HOP, PIECE, SAMPLE_RATE
from liveaffect.realtime.signs import ClarityMeter, clipped_share, evidence_share


def speech(seconds: float = 6.0) -> NDArray[np.float32]:
    """Syllables of a buzzing voice with pauses between them, four a second."""
    t = np.arange(round(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    pitch = 2 * np.pi * np.cumsum(130 + 25 * np.sin(2 * np.pi * 0.7 * t)) / SAMPLE_RATE
    buzz = np.asarray(sum(np.sin(k * pitch) / k for k in range(1, 12)))
    syllables = np.clip(np.sin(2 * np.pi * 4 * t), 0, None) ** 2
    return np.asarray(0.12 * syllables * buzz, np.float32)


def noise(samples: NDArray[np.float32], ratio_db: float) -> NDArray[np.float32]:
    power = float(np.mean(np.square(samples)))
    rng = np.random.default_rng(0)
    return np.asarray(rng.normal(size=len(samples)) * np.sqrt(power) * 10 ** (-ratio_db / 20), np.float32)


def judged(samples: NDArray[np.float32]) -> tuple[float, str | None]:
    """Mean score over all pieces, and the last weakness."""
    meter, scores = ClarityMeter(), []
    for start in range(0, len(samples) - PIECE + 1, HOP):
        meter.hear(samples[start : start + PIECE], HOP, speech=True)
        scores.append(meter.read().score)
    return float(np.mean(scores)), meter.read().weakness


def test_the_more_noise_the_worse() -> None:
    clear = speech()
    scores = [judged(clear + noise(clear, ratio_db))[0] for ratio_db in (40, 20, 12, 6, 0, -6)]
    assert scores == sorted(scores, reverse=True)
    assert scores[0] > 0.95
    assert scores[-1] < 0.2
    assert judged(clear + noise(clear, -3))[1] == "voice noisy"
    assert judged(clear)[1] is None


def test_the_more_is_cut_off_the_worse() -> None:
    loud = [np.asarray(np.clip(speech() * gain, -1, 1), np.float32) for gain in (1, 4, 8, 16)]
    scores = [judged(samples)[0] for samples in loud]
    assert scores == sorted(scores, reverse=True)
    assert scores[0] > 0.9
    assert scores[-1] < 0.2
    assert judged(loud[-1])[1] == "voice clipped"


def test_quiet_speech_is_as_clear_as_loud_speech() -> None:
    assert judged(speech() * np.float32(0.02))[0] == pytest.approx(judged(speech())[0], abs=0.05)


def test_silence_and_what_is_no_speech_are_no_reproach() -> None:
    meter = ClarityMeter()
    assert meter.read().score == 1.0
    rustle = np.random.default_rng(0).normal(0, 0.1, PIECE).astype(np.float32)
    meter.hear(rustle, HOP, speech=False)
    assert meter.read().score == 1.0
    assert clipped_share(np.zeros(PIECE, np.float32)) == 0.0
    meter.hear(np.zeros(PIECE, np.float32), HOP, speech=True)
    assert np.isfinite(meter.read().score)


def test_a_voice_without_a_pause_is_measured_against_what_was_heard_before_it() -> None:
    t = np.arange(PIECE) / SAMPLE_RATE
    tones = (np.sin(2 * np.pi * (117.3 * k + 3.1 * k**2) * t) for k in range(1, 12))
    vowel = np.asarray(0.1 * sum(tones), np.float32)
    hiss = np.random.default_rng(0).normal(0, 0.1, PIECE).astype(np.float32)
    scores = []
    for room in (0.0, 0.3, 1.0):
        meter = ClarityMeter()
        for _ in range(10):
            meter.hear(room * hiss, HOP, speech=False)
        meter.hear(vowel + room * hiss, HOP, speech=True)
        scores.append(meter.read().score)
    assert scores == sorted(scores, reverse=True)
    assert scores[0] > scores[-1] + 0.3


def test_little_speech_counts_little_and_two_seconds_fully() -> None:
    shares = [evidence_share(seconds) for seconds in (0.0, 0.4, 1.0, 1.9, 2.0, 60.0)]
    assert shares == sorted(shares)
    assert (shares[0], shares[-2], shares[-1]) == (0.0, 1.0, 1.0)
