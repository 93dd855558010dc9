"""INT8 by the one recipe that ONNX Runtime and TensorRT both take: symmetric, per channel, explicit Q/DQ.

Only products of an activation with a constant are quantised. The sound front end up to the sums of its
log-mel and every product of two activations stay fp32: quantised, they turn the answer into noise and
TensorRT refuses the file. So do products too small to gain, such as the heads: 25 % of the time of the live
face network. All are found in the graph, not by name. Which inputs to calibrate on and which further layers
to leave out is the caller's choice; the same inputs give the same bytes.
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from liveaffect.engines import manifest as manifests
from liveaffect.engines.build import ranges
from liveaffect.engines.build.onnx_graph import PRODUCTS, check_graph, folded, front_end
from liveaffect.engines.build.ranges import METHODS, Observed
from liveaffect.engines.manifest import Manifest
from liveaffect.engines.protocol import Tensors

# isort: split
# Behind ours, which tells the library to send nothing before it is loaded.
from onnxruntime.quantization import CalibrationMethod, QuantType  # type: ignore[import-untyped]
from onnxruntime.quantization.calibrate import TensorsData  # type: ignore[import-untyped]
from onnxruntime.quantization.qdq_quantizer import QDQQuantizer  # type: ignore[import-untyped]

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
        return ranges.observe(self.graph, self.layers, given, self.manifest.inputs)

    def quantised(self, cuts: Mapping[str, float], exclude: Collection[str] = ()) -> bytes:
        """The content of an INT8 file whose activations end at `cuts`."""
        name = self.manifest.name
        if unknown := sorted(set(exclude) - set(self.layers)):
            known = ", ".join(self.layers)
            raise ValueError(f"'{name}' has no quantisable node {', '.join(unknown)}; it has {known}")
        chosen = [layer for layer in self.layers if layer not in exclude]
        if not chosen:
            raise ValueError(f"nothing is left of '{name}' to quantise")
        result = _quantised(self.graph, ranges.relieved(self.graph, cuts), chosen)
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
