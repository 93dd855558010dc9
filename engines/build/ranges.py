"""How large the numbers in a network get, and where INT8 had better cut them off.

The first pass over the inputs finds the largest magnitude of each tensor, the second counts magnitudes. Every
method then chooses its cut from the same counts, so that methods differ in nothing else, and whatever the
number of inputs the memory stays the same. Ranges are symmetric, as TensorRT demands.
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from liveaffect.engines.onnx_engine import PROVIDER, session_options
from liveaffect.engines.onnx_runtime import ort
from liveaffect.engines.protocol import EngineInputError, Tensors, TensorSpec

BINS = 2048
LEVELS = 127
"""Steps of INT8 on either side of zero."""
WITHIN = 0.9999
"""The share of all numbers that `percentile` keeps."""
STEP = 8
"""Bins between two cuts that are tried."""

Counts = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Observed:
    """What some inputs did to the tensors of one graph."""

    largest: dict[str, float]
    counts: dict[str, Counts]
    """Per tensor, magnitudes from zero to the largest in BINS bins."""
    items: int
    """How many inputs there were."""
    sha256: str
    """Of the inputs, so that nobody mistakes others for them."""

    def cuts(self, method: str) -> dict[str, float]:
        """The magnitude of each tensor at which INT8 ends."""
        cut = METHODS[method]
        return {name: self.largest[name] * cut(self.counts[name]) for name in self.counts}

    def size(self, name: str) -> float:
        """How many numbers a tensor holds for one input."""
        return float(self.counts[name].sum() / self.items)


def observe(
    graph: onnx.ModelProto, nodes: Collection[str], batches: Sequence[Tensors], inputs: Sequence[TensorSpec]
) -> Observed:
    """Run a graph and watch what goes into these nodes and comes out.

    Raises EngineInputError for inputs of another network and for any number that is not finite.
    """
    digest, items = hashlib.sha256(), 0
    for place, batch in enumerate(batches):
        _check_batch(place, batch, inputs)
        for name in sorted(batch):
            digest.update(name.encode() + np.ascontiguousarray(batch[name]).tobytes())
        items += len(next(iter(batch.values())))
    names = _watched(graph, nodes)
    session = _watched_session(graph, names)
    largest = dict.fromkeys(names, 0.0)
    for place, batch in enumerate(batches):
        for name, values in zip(names, session.run(names, dict(batch)), strict=True):
            largest[name] = max(largest[name], float(np.abs(values).max()))
            if not np.isfinite(values).all():
                raise EngineInputError(f"batch {place} of the calibration inputs overflows at '{name}'")
    largest = {name: value or 1.0 for name, value in largest.items()}
    counts = {name: np.zeros(BINS) for name in names}
    for batch in batches:
        for name, values in zip(names, session.run(names, dict(batch)), strict=True):
            bins = (np.abs(values).ravel() * (BINS / largest[name])).astype(np.int32)
            counts[name] += np.bincount(np.minimum(bins, BINS - 1), minlength=BINS)
    return Observed(largest, counts, items, digest.hexdigest())


def relieved(graph: onnx.ModelProto, cuts: Mapping[str, float]) -> dict[str, float]:
    """The same cuts, but what only a ReLU reads is cut where the ReLU's own output is.

    What is negative comes out as zero anyway, and with one and the same scale before and after it the second
    rounding changes nothing.
    """
    readers: dict[str, list[onnx.NodeProto]] = {}
    for node in graph.graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    after = {
        name: these[0].output[0]
        for name, these in readers.items()
        if len(these) == 1 and these[0].op_type == "Relu"
    }
    return {name: cuts.get(after.get(name, name), cut) for name, cut in cuts.items()}


def _check_batch(place: int, batch: Tensors, inputs: Sequence[TensorSpec]) -> None:
    wanted = {tensor.name: tensor for tensor in inputs}
    if set(batch) != set(wanted):
        raise EngineInputError(
            f"batch {place} of the calibration inputs has {', '.join(sorted(batch))}; "
            f"the network takes {', '.join(map(str, inputs))}: these are samples of another network"
        )
    for name, tensor in wanted.items():
        values = batch[name]
        if values.shape[1:] != tensor.shape or str(values.dtype) != tensor.dtype:
            raise EngineInputError(
                f"batch {place} of the calibration inputs has '{name}' as {values.dtype} {values.shape}; "
                f"the network takes {tensor}: these are samples of another network"
            )
        if values.dtype.kind == "f" and not np.isfinite(values).all():
            items = sorted({int(row) for row in np.argwhere(~np.isfinite(values))[:, 0]})
            raise EngineInputError(
                f"batch {place} of the calibration inputs holds numbers that are not finite in '{name}' "
                f"(items {items})"
            )


def _watched(graph: onnx.ModelProto, nodes: Collection[str]) -> list[str]:
    """Activations into and out of these nodes, and what a ReLU behind them lets through."""
    constants = {weight.name for weight in graph.graph.initializer}
    found: dict[str, None] = {}
    for node in graph.graph.node:
        if node.name in nodes:
            found |= dict.fromkeys(name for name in node.input[:2] if name not in constants)
            found[node.output[0]] = None
    relus = [node.output[0] for node in graph.graph.node if node.op_type == "Relu" and node.input[0] in found]
    return list(found | dict.fromkeys(relus))


def _watched_session(graph: onnx.ModelProto, names: Sequence[str]) -> Any:
    """The graph with further outputs."""
    watched = copy.deepcopy(graph)
    known = {output.name for output in watched.graph.output}
    for name in names:
        if name not in known:
            watched.graph.output.append(onnx.helper.make_empty_tensor_value_info(name))
    content = watched.SerializeToString()
    return ort.InferenceSession(content, session_options(1), providers=[PROVIDER])


def _everything(counts: Counts) -> float:
    """Nothing is cut off."""
    return 1.0


def _percentile(counts: Counts) -> float:
    """All but the rarest, largest numbers."""
    below = np.cumsum(counts) / counts.sum()
    return float(np.searchsorted(below, WITHIN) + 1) / BINS


def _least_square(counts: Counts) -> float:
    """The cut with the least mean square error of rounding and cutting together."""
    middle = (np.arange(BINS) + 0.5) / BINS

    def error(cut: float) -> float:
        step = cut / LEVELS
        kept = np.minimum(np.rint(middle / step), LEVELS) * step
        return float(counts @ np.square(middle - kept))

    return min((last / BINS for last in range(LEVELS + 1, BINS + 1, STEP)), key=error)


def _least_entropy(counts: Counts) -> float:
    """The cut after which the numbers tell least less than before: TensorRT's former method."""
    seen = counts.copy()
    seen[0] = seen[1]  # Exact zeros stay exact; as many as a ReLU makes would drown everything else.

    def lost(last: int) -> float:
        kept = seen[:last].copy()
        level = np.arange(last) * (LEVELS + 1) // last
        occupied = np.bincount(level, kept > 0, minlength=LEVELS + 1)
        each = np.bincount(level, kept, minlength=LEVELS + 1) / np.maximum(occupied, 1)
        told = np.where(kept > 0, each[level], 0.0)
        kept[-1] += seen[last:].sum()
        if not told.any():
            return np.inf
        p, q = kept / kept.sum(), np.maximum(told / told.sum(), 1e-9)
        return float((p[p > 0] * np.log(p[p > 0] / q[p > 0])).sum())

    return min(range(LEVELS + 1, BINS + 1, STEP), key=lost) / BINS


METHODS: dict[str, Callable[[Counts], float]] = {
    "minmax": _everything,
    "percentile": _percentile,
    "entropy": _least_entropy,
    "mse": _least_square,
}
"""From counts to the cut, as a share of the largest magnitude."""
