"""INT8 by the one recipe that ONNX Runtime and TensorRT both take: symmetric, per channel, explicit Q/DQ.

Only products of an activation with a constant are quantised. The sound front end up to the sums of its
log-mel and every product of two activations stay fp32: quantised, they turn the answer into noise and
TensorRT refuses the file. So do products too small to gain, such as the heads: 25 % of the time of the live
face network. All are found in the graph, not by name. Which inputs to calibrate on and which further layers
to leave out is the caller's choice; the same inputs give the same bytes.

The ranges come from two passes: the first finds the largest magnitude of each tensor, the second counts
magnitudes. Every method chooses its cut from the same counts, so that methods differ in nothing else, and
whatever the number of inputs the memory stays the same.
"""

from __future__ import annotations

import copy
import hashlib
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from liveaffect.engines import manifest as manifests
from liveaffect.engines.build.onnx_graph import PRODUCTS, check_graph, folded, front_end
from liveaffect.engines.manifest import Manifest
from liveaffect.engines.onnx_engine import PROVIDER, ort, session_options
from liveaffect.engines.protocol import EngineInputError, Tensors, TensorSpec

# isort: split
# Behind ours, which tells the library to send nothing before it is loaded.
from onnxruntime.quantization import CalibrationMethod, QuantType  # type: ignore[import-untyped]
from onnxruntime.quantization.calibrate import TensorsData  # type: ignore[import-untyped]
from onnxruntime.quantization.qdq_quantizer import QDQQuantizer  # type: ignore[import-untyped]

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


# isort: split
# Behind ours, which tells the library to send nothing before it is loaded.

RECIPE = "qdq-s8s8-per-channel"
OP_TYPES = PRODUCTS
QUANTISED_KINDS = ("face", "voice")
"""Fusion is too small to gain anything."""
LEAST_DEPTH = 32
"""Products that add up fewer terms than this, such as the first convolution of a picture, stay fp32."""
LEAST_WEIGHTS = 1_024
LEAST_GEMM = 65_536
"""A Gemm works once an item, not once a pixel or a moment: small ones only lose."""
OPTIONS = {
    "ActivationSymmetric": True,
    "WeightSymmetric": True,
    "QuantizeBias": False,
    # What follows a MatMul is computed in fp32: rounding before it costs time and exactness.
    "OpTypesToExcludeOutputQuantization": ["MatMul"],
}


@dataclass(frozen=True, slots=True, eq=False)
class PreparedNetwork:
    """A network in fp32, ready to be quantised in any number of ways."""

    manifest: Manifest
    graph: onnx.ModelProto
    layers: tuple[str, ...]
    """What the recipe quantises, in graph order."""

    def observe(self, batches: Iterable[Tensors]) -> Observed:
        """What inputs do to the layers. Raises EngineInputError for samples of another network."""
        given = list(batches)
        if not given:
            raise ValueError("quantising needs at least one batch of calibration inputs, got none")
        return observe(self.graph, self.layers, given, self.manifest.inputs)

    def quantised(self, cuts: Mapping[str, float], exclude: Collection[str] = ()) -> bytes:
        """The content of an INT8 file whose activations end at `cuts`."""
        name = self.manifest.name
        if unknown := sorted(set(exclude) - set(self.layers)):
            known = ", ".join(self.layers)
            raise ValueError(f"'{name}' has no quantisable node {', '.join(unknown)}; it has {known}")
        chosen = [layer for layer in self.layers if layer not in exclude]
        if not chosen:
            raise ValueError(f"nothing is left of '{name}' to quantise")
        result = _quantised(self.graph, relieved(self.graph, cuts), chosen)
        check_graph(result, name)
        content: bytes = result.SerializeToString(deterministic=True)
        return content

    def kinds(self, exclude: Collection[str] = ()) -> dict[str, int]:
        """How many nodes of which operator are quantised."""
        chosen = set(self.layers) - set(exclude)
        return dict(sorted(Counter(n.op_type for n in self.graph.graph.node if n.name in chosen).items()))

    def work(self, observed: Observed) -> dict[str, float]:
        """Each layer's share of the multiplications in all of them."""
        weights = {weight.name: tuple(weight.dims) for weight in self.graph.graph.initializer}
        found = {}
        for node in self.graph.graph.node:
            if node.name in self.layers:
                weight = next(weights[name] for name in node.input[:2] if name in weights)
                found[node.name] = observed.size(node.output[0]) * _depth(node, weight)
        return {name: count / sum(found.values()) for name, count in found.items()}


def prepare_network(manifest_path: Path) -> PreparedNetwork:
    """Read and fold the fp32 network of a manifest. Raises ValueError for a kind that is not quantised."""
    manifest = manifests.read(manifest_path)
    if manifest.kind not in QUANTISED_KINDS:
        raise ValueError(
            f"a {manifest.kind} network is not quantised; {' and '.join(QUANTISED_KINDS)} networks are"
        )
    graph = folded(manifests.load_bytes(manifest, manifest_path.parent, "fp32"))
    return PreparedNetwork(manifest, graph, tuple(quantisable(graph)))


def quantize(
    manifest_path: Path,
    batches: Iterable[Tensors],
    *,
    method: str = "minmax",
    exclude: Collection[str] = (),
) -> Path:
    """Write `<kind>.int8.onnx` beside the fp32 file and extend the manifest; the new file's path.

    `exclude` names further nodes that stay fp32, out of those that `quantisable` lists.
    """
    prepared = prepare_network(manifest_path)
    if method not in METHODS:
        raise ValueError(f"no calibration method '{method}'; known are {', '.join(METHODS)}")
    observed = prepared.observe(batches)
    content = prepared.quantised(observed.cuts(method), exclude)
    return record_int8(
        manifest_path, prepared, content, quantisation_part(prepared, observed, method, exclude)
    )


def quantisation_part(
    prepared: PreparedNetwork, observed: Observed, method: str, exclude: Collection[str] = ()
) -> dict[str, Any]:
    """What a manifest says under `quantisation`."""
    manifest = prepared.manifest
    return {
        "recipe": RECIPE,
        "method": method,
        "items": observed.items,
        "inputs_sha256": observed.sha256,
        "quantised": prepared.kinds(exclude),
        "excluded": sorted(exclude),
        "from": manifest.files[manifests.file_name(manifest.kind, "fp32")],
    }


def record_int8(
    manifest_path: Path, prepared: PreparedNetwork, content: bytes, part: Mapping[str, Any]
) -> Path:
    """Write an INT8 file and what the manifest says of it; the file's path."""
    manifest = manifests.extended(prepared.manifest, quantisation=part)
    path = manifest_path.parent / manifests.file_name(manifest.kind, "int8")
    manifests.write_whole(path, content)
    manifests.write(manifests.record_file(manifest, "int8", content), manifest_path)
    return path


def quantisable(graph: onnx.ModelProto) -> list[str]:
    """What the recipe quantises, in graph order: an activation times a constant, behind the front end."""
    weights = {weight.name: tuple(weight.dims) for weight in graph.graph.initializer}
    front = front_end(graph)
    return [
        node.name
        for node in graph.graph.node
        if node.op_type in OP_TYPES
        and node.name not in front
        and sum(name in weights for name in node.input[:2]) == 1
        and _is_worth_it(node, next(weights[name] for name in node.input[:2] if name in weights))
    ]


def _is_worth_it(node: onnx.NodeProto, shape: tuple[int, ...]) -> bool:
    """Whether INT8 saves more than the conversion before and after it costs."""
    if node.op_type == "Gemm":
        return prod(shape) >= LEAST_GEMM
    return _depth(node, shape) >= LEAST_DEPTH and prod(shape) >= LEAST_WEIGHTS


def _depth(node: onnx.NodeProto, shape: Sequence[int]) -> int:
    """How many products each number that comes out is the sum of."""
    if node.op_type == "Gemm":
        return shape[1 if any(a.name == "transB" and a.i for a in node.attribute) else 0]
    return prod(shape[1:]) if node.op_type == "Conv" else shape[-2]


def _quantised(graph: onnx.ModelProto, cuts: Mapping[str, float], chosen: Sequence[str]) -> onnx.ModelProto:
    reach: dict[str, Any] = {name: (np.float32(-cut), np.float32(cut)) for name, cut in cuts.items()}
    quantiser = QDQQuantizer(
        copy.deepcopy(graph),
        per_channel=True,
        reduce_range=False,
        weight_qType=QuantType.QInt8,
        activation_qType=QuantType.QInt8,
        tensors_range=TensorsData(CalibrationMethod.MinMax, reach),
        nodes_to_quantize=list(chosen),
        nodes_to_exclude=[],
        op_types_to_quantize=list(OP_TYPES),
        extra_options=dict(OPTIONS),
    )
    quantiser.quantize_model()
    quantiser.model.topological_sort()
    result: onnx.ModelProto = quantiser.model.model
    del result.metadata_props[:]
    return result
