"""Inputs made from a seed, near enough to the real thing to compare engines on.

Plain noise would not do: a network answers nearly the same to all of it, so a comparison relative to
the spread of the answers would mean nothing, and INT8 ranges are set for pictures and voices.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from liveaffect.engines.protocol import VECTOR, TensorSpec
from liveaffect.engines.recipe import (
    CROP_SIZE,
    LABELS,
    PIECE,
    SAMPLE_RATE,
    Statistics,
)

Batch = dict[str, NDArray[Any]]


def inputs(
    kind: str, count: int, *, seed: int = 0, piece: int = PIECE, statistics: Statistics | None = None
) -> Batch:
    """`count` items for one kind of network; the same seed gives the same items."""
    rng = np.random.default_rng(seed)
    if kind == "voice":
        return _voices(rng, count, piece, statistics or Statistics())
    return {"face": _faces, "fusion": _evidence}[kind](rng, count)


def for_tensors(kind: str, count: int, wanted: Sequence[TensorSpec], *, seed: int = 0) -> Batch:
    """Items for a network of which no more is known than its input tensors."""
    shapes = {tensor.name: tensor.shape for tensor in wanted}
    if kind != "voice":
        return inputs(kind, count, seed=seed)
    kept = Statistics.of_width(shapes["mean"][0])
    return inputs(kind, count, seed=seed, piece=shapes["samples"][0], statistics=kept)


def split(batch: Batch, sizes: tuple[int, ...]) -> list[Batch]:
    """The same items in batches of these sizes, over and over until none is left."""
    total = len(next(iter(batch.values())))
    parts: list[Batch] = []
    start = 0
    while start < total:
        stop = start + sizes[len(parts) % len(sizes)]
        parts.append({name: array[start:stop] for name, array in batch.items()})
        start = stop
    return parts


def _faces(rng: np.random.Generator, count: int) -> Batch:
    """Skin-coloured clouds with two dark spots and a mouth where the crop template has them."""
    frequency = np.hypot(np.fft.fftfreq(CROP_SIZE)[:, None], np.fft.rfftfreq(CROP_SIZE)[None])
    noise = rng.normal(size=(count, 3, CROP_SIZE, CROP_SIZE))
    clouds = np.fft.irfft2(np.fft.rfft2(noise) / (frequency + 0.02) ** 1.5, s=(CROP_SIZE, CROP_SIZE))
    clouds /= clouds.std((1, 2, 3), keepdims=True)
    y, x = np.mgrid[0:CROP_SIZE, 0:CROP_SIZE] / CROP_SIZE
    features = np.zeros((count, 1, CROP_SIZE, CROP_SIZE))
    for at_x, at_y, width, height in (
        (0.315, 0.39, 0.08, 0.04),
        (0.69, 0.39, 0.08, 0.04),
        (0.5, 0.79, 0.16, 0.05),
    ):
        size = rng.uniform(0.6, 1.5, (count, 2, 1, 1))
        spot = np.exp(
            -(((x - at_x) / (width * size[:, :1])) ** 2) - ((y - at_y) / (height * size[:, 1:])) ** 2
        )
        features += rng.uniform(0.3, 1.0, (count, 1, 1, 1)) * spot
    skin = np.array([190.0, 150.0, 130.0])[:, None, None] * rng.uniform(0.4, 1.2, (count, 1, 1, 1))
    picture = skin + clouds * rng.uniform(10, 40, (count, 1, 1, 1)) - 110 * features
    return {"crop": np.ascontiguousarray(picture.transpose(0, 2, 3, 1).clip(0, 255)).astype(np.uint8)}


def _voices(rng: np.random.Generator, count: int, piece: int, statistics: Statistics) -> Batch:
    """A buzz with moving pitch through two resonances, room noise, and a speaker's statistics."""
    at_s = np.arange(piece) / SAMPLE_RATE
    pitch_hz = rng.uniform(90, 280, (count, 1)) * (
        1 + 0.15 * np.sin(2 * np.pi * rng.uniform(1, 6, (count, 1)) * at_s)
    )
    phase = 2 * np.pi * np.cumsum(pitch_hz, axis=1) / SAMPLE_RATE
    formants_hz = rng.uniform((300, 900), (800, 2400), (count, 2))
    sound = np.zeros((count, piece))
    for number in range(1, 21):
        height = np.exp(-(((number * pitch_hz[:, :1] - formants_hz) / 300) ** 2)).sum(1, keepdims=True)
        sound += (height + 0.3 / number**2) * np.sin(number * phase)
    swell = 0.6 + 0.4 * np.sin(2 * np.pi * rng.uniform(2, 6, (count, 1)) * at_s)
    loud = 10 ** rng.uniform(-2.5, -0.7, (count, 1))
    room = 10 ** rng.uniform(-4, -2.5, (count, 1)) * rng.normal(size=(count, piece))
    mean, variance = statistics.prior
    spread = np.sqrt(variance) * rng.uniform(0.7, 1.4, (count, statistics.width))
    return {
        "samples": (loud * swell * sound / 2 + room).clip(-1, 1).astype(np.float32),
        "mean": (mean + rng.normal(0, 1, (count, statistics.width))).astype(np.float32),
        "istd": (1 / spread).astype(np.float32),
    }


def _evidence(rng: np.random.Generator, count: int) -> Batch:
    """Pooled vectors and logits; what the mask leaves out is zero, as the live path gives it."""
    mask = rng.integers(0, 2, (count, 3))
    mask[np.arange(count), rng.integers(0, 2, count)] = 1
    present = mask.astype(np.float32)
    batch: Batch = {}
    for column, name in enumerate(("face", "voice", "words")):
        for scale in () if name == "words" else ("short", "long"):
            batch[f"{name}_{scale}"] = _normal(rng, count, VECTOR) * present[:, column, None]
        batch[f"{name}_logits"] = 2 * _normal(rng, count, len(LABELS)) * present[:, column, None]
    return {**batch, "mask": present}


def _normal(rng: np.random.Generator, *shape: int) -> NDArray[np.float32]:
    return rng.normal(size=shape).astype(np.float32)
