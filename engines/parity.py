"""Do two engines answer alike? The question behind `liveaffect engines compare A B`.

Differences are measured against how far the first engine's answers move over the inputs: an error of
0.01 means nothing for an answer that spans 100 and everything for one that spans 0.02. Batches of
different sizes are mixed in, because an engine may be right alone and wrong in company.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from liveaffect.engines import probe
from liveaffect.engines.protocol import Engine, EngineInputError, Tensors

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
    parts = [engine.infer(part) for part in probe.split(dict(inputs), batches)]
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
