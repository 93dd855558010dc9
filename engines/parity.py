"""Do two engines answer alike? The inputs to ask them on, and the answer of `liveaffect engines compare A B`.

Inputs are made from a seed, near enough to the real thing: a network answers nearly the same to all plain
noise, and INT8 ranges are set for pictures and voices. Differences are measured against how far the first
engine's answers move over the inputs: an error of 0.01 means nothing for an answer that spans 100 and
everything for one that spans 0.02. Batches of different sizes are mixed in, because an engine may be right
alone and wrong in company.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from liveaffect.engines.protocol import VECTOR, Engine, EngineInputError, Tensors, TensorSpec
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


ITEMS = 64
BATCHES = (1, 3, 16)


@dataclass(frozen=True, slots=True)
class Tolerance:
    """How far two engines may differ; None means: reported, not judged."""

    largest: float | None
    """Largest difference as a share of the spread, in every output."""
    cosine: float | None
    """Lowest cosine between the answers, in every output of more than one number."""
    flips: float | None
    """Share of items whose label may change."""
    follows: float | None = None
    """Lowest cosine of what is left of an answer without what all answers share."""


EXACT = Tolerance(largest=1e-4, cosine=0.9999, flips=0.0)
"""For two ways of computing the same fp32 network."""
HALF = Tolerance(largest=0.01, cosine=0.9999, flips=0.02, follows=0.999)
"""For half precision behind an fp32 front end; the shipped face network differs by 0.0015 on ONNX Runtime."""
QUANTISED = Tolerance(largest=None, cosine=0.99, flips=None, follows=0.95)
"""For INT8 with weights whose labels mean nothing; trained weights state their own."""
FOLLOWS = Tolerance(largest=None, cosine=None, flips=None, follows=0.95)
"""For deciding in a moment whether INT8 may be used on this machine: what is asked must move the answers."""


@dataclass(frozen=True, slots=True)
class Difference:
    """One output, over all items."""

    output: str
    largest: float
    """As a share of the spread."""
    mean: float
    """As a share of the spread."""
    spread: float
    """How far the first engine's answers move over the inputs, in the number that moves most; at least a
    hundredth of their size, below which fp32 itself is not sure."""
    cosine: float
    """Over all items at once."""
    follows: float
    """The same of how each answer lies off the first engine's mean one. Most of an answer is what all of them
    share, so an engine that says the same to everything may have a fine cosine; here it has none."""
    columns: int


@dataclass(frozen=True, slots=True)
class Report:
    """What a comparison found."""

    a: str
    b: str
    items: int
    differences: tuple[Difference, ...]
    flips: int
    """Items whose label is another."""
    tolerance: Tolerance

    @property
    def complaints(self) -> tuple[str, ...]:
        """What is beyond the tolerance; empty when the engines answer alike."""
        limit = self.tolerance
        found = []
        for one in self.differences:
            # Written so that a difference that is not a number is beyond every limit.
            if limit.largest is not None and not one.largest <= limit.largest:
                found.append(
                    f"{one.output} differs by {one.largest:.2e} of its spread, allowed {limit.largest:.0e}"
                )
            if limit.cosine is not None and one.columns > 1 and not one.cosine >= limit.cosine:
                found.append(f"{one.output} has a cosine of {one.cosine:.5f}, wanted {limit.cosine}")
            if limit.follows is not None and one.columns > 1 and not one.follows >= limit.follows:
                found.append(
                    f"{one.output} follows what is asked with a cosine of {one.follows:.3f}, "
                    f"wanted {limit.follows}"
                )
        if limit.flips is not None and not self.flips <= limit.flips * self.items:
            found.append(f"{self.flips} of {self.items} labels flip, allowed {limit.flips:.1%}")
        return tuple(found)

    @property
    def alike(self) -> bool:
        """Whether everything is within the tolerance."""
        return not self.complaints

    def lines(self) -> list[str]:
        """A table and a verdict for a person."""
        table = [f"'{self.b}' against '{self.a}', {self.items} inputs, differences as shares of the spread"]
        table.append(f"{'output':<10}{'largest':>10}{'mean':>10}{'spread':>11}{'cosine':>10}{'follows':>9}")
        table += [
            f"{d.output:<10}{d.largest:>10.1e}{d.mean:>10.1e}{d.spread:>11.4g}{d.cosine:>10.6f}{d.follows:>9.4f}"
            for d in self.differences
        ]
        table.append(f"labels that flip: {self.flips} of {self.items}")
        return [
            *table,
            *(f"beyond tolerance: {c}" for c in self.complaints),
            "alike" if self.alike else "NOT alike",
        ]

    def to_json(self) -> dict[str, Any]:
        """Plain types only."""
        return {**asdict(self), "alike": self.alike, "complaints": list(self.complaints)}


def compare(
    a: Engine, b: Engine, inputs: Tensors, *, tolerance: Tolerance, batches: tuple[int, ...] = BATCHES
) -> Report:
    """Run both over the inputs. `a` sees items one by one and is the truth, `b` sees these batches."""
    if (a.spec.inputs, a.spec.outputs) != (b.spec.inputs, b.spec.outputs):
        raise EngineInputError(f"'{a.spec.name}' and '{b.spec.name}' are not of the same kind")
    wanted, given = _answers(a, inputs, (1,)), _answers(b, inputs, batches)
    differences = tuple(_difference(name, wanted[name], given[name]) for name in wanted)
    flips = int((wanted["logits"].argmax(1) != given["logits"].argmax(1)).sum())
    return Report(a.spec.name, b.spec.name, len(wanted["logits"]), differences, flips, tolerance)


def _answers(engine: Engine, inputs: Tensors, batches: tuple[int, ...]) -> dict[str, NDArray[np.float64]]:
    parts = [engine.infer(part) for part in split(dict(inputs), batches)]
    return {name: np.concatenate([part[name] for part in parts]).astype(np.float64) for name in parts[0]}


def _difference(name: str, wanted: NDArray[np.float64], given: NDArray[np.float64]) -> Difference:
    off = np.abs(wanted - given)
    moves, least = float(np.ptp(wanted, axis=0).max()), float(np.abs(wanted).max()) / 100
    spread = max(moves, least) or 1.0
    cosine = _cosine(wanted, given)
    middle = wanted.mean(0)
    return Difference(
        output=name,
        largest=float(off.max()) / spread,
        mean=float(off.mean()) / spread,
        spread=spread,
        cosine=cosine,
        follows=_cosine(wanted - middle, given - middle) if moves > least else cosine,
        columns=wanted.shape[1],
    )


def _cosine(wanted: NDArray[np.float64], given: NDArray[np.float64]) -> float:
    length = float(np.linalg.norm(wanted) * np.linalg.norm(given))
    return float((wanted * given).sum()) / length if length else float(np.array_equal(wanted, given))
