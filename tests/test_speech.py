"""The demo's voices are several, one after another; without a synthesiser something still hums."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from liveaffect.engines.recipe import SAMPLE_RATE
from liveaffect.realtime import acting


def pitch_hz(samples: NDArray[np.float32]) -> float:
    """Of the loudest quarter of a second, by its autocorrelation."""
    size = SAMPLE_RATE // 4
    starts = range(0, len(samples) - size, size // 4)
    loudest = max((samples[k : k + size] for k in starts), key=lambda part: float(np.square(part).sum()))
    centred = loudest - loudest.mean()
    alike = np.correlate(centred, centred, "full")[size - 1 :]
    low, high = SAMPLE_RATE // 400, SAMPLE_RATE // 60
    return SAMPLE_RATE / (low + int(alike[low:high].argmax()))


@pytest.mark.skipif(shutil.which("espeak-ng") is None, reason="needs espeak-ng")
def test_each_sentence_of_the_demo_has_a_voice_of_its_own(tmp_path: Path) -> None:
    acting.make_voices(tmp_path)
    heights = [pitch_hz(acting.read_wav(tmp_path / f"voice{k}.wav")) for k in range(len(acting.VOICES))]
    assert heights[1] > 1.2 * heights[0] > 1.2 * 1.2 * heights[2]


@pytest.mark.skipif(shutil.which("espeak-ng") is None, reason="needs espeak-ng")
def test_all_sentences_are_in_one_file(tmp_path: Path) -> None:
    whole = acting.read_wav(acting.make_voices(tmp_path))
    parts = [acting.read_wav(tmp_path / f"voice{k}.wav") for k in range(len(acting.VOICES))]
    assert len(whole) == pytest.approx(sum(map(len, parts)) + 1.5 * SAMPLE_RATE, abs=10)


def test_without_a_synthesiser_tones_stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    samples = acting.read_wav(acting.make_voices(tmp_path))
    assert len(samples) > 7 * SAMPLE_RATE
    assert float(np.abs(samples).max()) > 0.05
