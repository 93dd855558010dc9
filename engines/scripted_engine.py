"""Engines that need no weights: they judge pictures and sound by plain rules.

They stand in until networks are there and drive the tests of the live path. Every answer depends on the
content, so a mixed-up track, a late crop or a swapped channel shows. Each row is worked out by itself,
which makes answers the same in any batch, bit for bit. `trained` is False: the overlay says so.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from liveaffect.engines.protocol import (
    FACE_INPUTS,
    FACE_OUTPUTS,
    FUSION_INPUTS,
    FUSION_OUTPUTS,
    VECTOR,
    VOICE_INPUTS,
    VOICE_OUTPUTS,
    Done,
    EngineError,
    EngineSpec,
    Pending,
    Tensors,
    TensorSpec,
    check_inputs,
)
from liveaffect.engines.recipe import LABELS, LOG_FLOOR, MEL_BANDS, SAMPLE_RATE, STFT_STEP, STFT_WINDOW

Row = dict[str, NDArray[Any]]
_SIDE = 8
_FUSION_SHARES = np.array([0.6, 0.3, 0.1])
_SPEECH_DB = -40.0
"""At this level speech and no speech are equally likely; an ordinary room is at about -55."""
_LAGS = slice(SAMPLE_RATE // 400, SAMPLE_RATE // 60)
"""Pitch is looked for between 60 and 400 Hz."""


class _Scripted:
    """What the three have in common: checks, rows, and an end."""

    def __init__(
        self,
        name: str,
        tensors: tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]],
        answer: Callable[[Row], Row],
        max_batch: int,
    ) -> None:
        self._spec = EngineSpec(
            name=f"{name}/scripted",
            inputs=tensors[0],
            outputs=tensors[1],
            max_batch=max_batch,
            model="scripted",
            trained=False,
        )
        self._answer = answer
        self._closed = False

    @property
    def spec(self) -> EngineSpec:
        """What goes in and what comes out."""
        return self._spec

    def submit(self, inputs: Tensors) -> Pending:
        """Hand in one batch; the answer is there at once."""
        if self._closed:
            raise EngineError(f"engine '{self._spec.name}' was closed; make a new one")
        size = check_inputs(self._spec, inputs)
        rows = [self._answer({name: array[i] for name, array in inputs.items()}) for i in range(size)]
        return Done(
            {t.name: np.stack([row[t.name] for row in rows]).astype(t.dtype) for t in self._spec.outputs}
        )

    def infer(self, inputs: Tensors) -> Tensors:
        """`submit` and wait."""
        return self.submit(inputs).result()

    def warm_up(self) -> None:
        """There is nothing that only the first call does slowly."""

    def close(self) -> None:
        """Safe to call twice."""
        self._closed = True


class ScriptedFace(_Scripted):
    """Judges a crop by its brightness, its contrasts and the curve of the mouth."""

    def __init__(self, *, max_batch: int = 64) -> None:
        super().__init__("face", (FACE_INPUTS, FACE_OUTPUTS), _face_rule, max_batch)


class ScriptedVoice(_Scripted):
    """Judges a piece of sound by its level, its pitch and how fast it changes sign."""

    def __init__(self, *, max_batch: int = 64) -> None:
        super().__init__("voice", (VOICE_INPUTS, VOICE_OUTPUTS), _voice_rule, max_batch)


class ScriptedFusion(_Scripted):
    """Weighs what is there with fixed shares; what the mask leaves out has no influence."""

    def __init__(self, *, max_batch: int = 64) -> None:
        super().__init__("fusion", (FUSION_INPUTS, FUSION_OUTPUTS), _fusion_rule, max_batch)


def log_mel(samples: NDArray[np.float32]) -> NDArray[np.float64]:
    """(frames, 64): logarithm of the mel power of uncentred Hann windows, as the recipe says."""
    frames = sliding_window_view(samples.astype(np.float64), STFT_WINDOW)[::STFT_STEP]
    power = np.abs(np.fft.rfft(frames * _hann(), axis=1)) ** 2
    return np.log(power @ _mel_filters() + LOG_FLOOR)


def _face_rule(row: Row) -> Row:
    grey = row["crop"].astype(np.float64) @ np.array([0.299, 0.587, 0.114]) / 255.0
    brightness, contrast = float(grey.mean()), float(grey.std())
    brows, eyes, nose, mouth = grey[12:22, 12:52], grey[20:30, 12:52], grey[30:42, 24:40], grey[42:60, 16:48]
    smile = _curve(mouth)
    openness = max(0.0, brightness - float(mouth[6:12, 10:22].mean()))
    logits = [
        0.8,
        0.8 * smile,
        -0.8 * smile + (0.4 - brightness),
        8.0 * (float(eyes.mean()) - float(brows.mean())),
        6.0 * (float(eyes.std()) - contrast),
        6.0 * (float(nose.std()) - contrast),
        6.0 * openness - 1.0,
    ]
    sharpness = float(np.abs(np.diff(grey, axis=0)).mean() + np.abs(np.diff(grey, axis=1)).mean())
    step = len(grey) // _SIDE
    small = grey.reshape(_SIDE, step, _SIDE, step).mean(axis=(1, 3)).ravel()
    return {
        "vector": _cosines() @ small,
        "score": np.array([np.clip(np.log(20.0 * sharpness + 1e-3), -4.0, 2.0)]),
        "logits": np.clip(logits, -6.0, 6.0),
    }


def _curve(mouth: NDArray[np.float64]) -> float:
    """How many pixels lower the dark of the mouth lies in its middle than at its ends."""
    dark = np.maximum(mouth.mean() - mouth, 0.0) + 1e-6
    heights = np.arange(len(mouth)) @ dark / dark.sum(axis=0)
    third = mouth.shape[1] // 3
    ends = (heights[:third].mean() + heights[-third:].mean()) / 2
    return float(heights[third:-third].mean() - ends)


def _voice_rule(row: Row) -> Row:
    samples = row["samples"].astype(np.float64)
    level_db = 10.0 * float(np.log10(np.mean(samples**2) + 1e-12))
    crossings = float(np.mean(np.diff(np.signbit(samples)) != 0))
    pitch_hz, strength = _pitch(samples)
    loud = np.clip((level_db + 35.0) / 10.0, -2.0, 2.0)
    high = np.clip((pitch_hz - 160.0) / 60.0, -2.0, 2.0) * strength
    logits = [
        0.8,
        0.5 * loud + 0.8 * high,
        -0.8 * loud - 0.6 * high,
        1.0 * loud - 0.4 * high,
        0.8 * high - 0.6 * loud,
        10.0 * (crossings - 0.2),
        0.9 * high + 0.3 * loud - 0.5,
    ]
    mel = log_mel(row["samples"])
    normalised = (mel - row["mean"]) * row["istd"]
    return {
        "vector": _cosines() @ np.clip(normalised.mean(axis=0), -10.0, 10.0),
        "score": np.array([np.log(0.1 + strength)]),
        "logits": np.clip(logits, -6.0, 6.0),
        "speech": np.array([1.0 / (1.0 + np.exp(-np.clip((level_db - _SPEECH_DB) / 3.0, -30, 30)))]),
        "stat_sum": mel.sum(axis=0),
        "stat_sumsq": (mel**2).sum(axis=0),
    }


def _pitch(samples: NDArray[np.float64]) -> tuple[float, float]:
    """The strongest period as a frequency in Hz, and how periodic the sound is, 0..1."""
    centred = samples - samples.mean()
    size = 1 << (2 * len(centred) - 1).bit_length()
    correlation = np.fft.irfft(np.abs(np.fft.rfft(centred, size)) ** 2, size)
    energy = float(correlation[0])
    if energy <= 1e-9:
        return 160.0, 0.0
    lag = _LAGS.start + int(np.argmax(correlation[_LAGS]))
    return SAMPLE_RATE / lag, float(np.clip(correlation[lag] / energy, 0.0, 1.0))


def _fusion_rule(row: Row) -> Row:
    shares = _FUSION_SHARES * (row["mask"] > 0.5)
    weights = shares / shares.sum() if shares.any() else shares
    logits = np.zeros(len(LABELS))
    for weight, name in zip(weights, ("face_logits", "voice_logits", "words_logits"), strict=True):
        logits += weight * row[name]
    return {"logits": logits, "weights": weights}


@cache
def _cosines() -> NDArray[np.float64]:
    """An orthonormal 64x64 basis, so that vectors lie as far apart as what they were made from."""
    index = np.arange(VECTOR)
    basis: NDArray[np.float64] = np.cos(np.pi / VECTOR * np.outer(index, index + 0.5))
    basis *= np.sqrt(2.0 / VECTOR)
    basis[0] /= np.sqrt(2.0)
    return basis


@cache
def _hann() -> NDArray[np.float64]:
    window: NDArray[np.float64] = 0.5 - 0.5 * np.cos(2.0 * np.pi * np.arange(STFT_WINDOW) / STFT_WINDOW)
    return window


@cache
def _mel_filters() -> NDArray[np.float64]:
    """(bins, 64) triangles on the HTK mel scale from 0 to half the sample rate."""
    top_mel = 2595.0 * np.log10(1.0 + SAMPLE_RATE / 2 / 700.0)
    corners = 700.0 * (10.0 ** (np.linspace(0.0, top_mel, MEL_BANDS + 2) / 2595.0) - 1.0)
    bins = np.fft.rfftfreq(STFT_WINDOW, 1.0 / SAMPLE_RATE)[:, None]
    rise = (bins - corners[:-2]) / (corners[1:-1] - corners[:-2])
    fall = (corners[2:] - bins) / (corners[2:] - corners[1:-1])
    filters: NDArray[np.float64] = np.maximum(0.0, np.minimum(rise, fall))
    return filters
