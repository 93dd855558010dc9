"""INT8 by the one recipe that ONNX Runtime and TensorRT both take: symmetric, per channel, explicit Q/DQ.

Only products of an activation with a constant are quantised. The sound front end up to the sums of its
log-mel and every product of two activations stay fp32: quantised, they turn the answer into noise and
TensorRT refuses the file. So do products too small to gain, such as the heads: 25 % of the time of the live
face network. All are found in the graph, not by name. Which inputs to calibrate on and which further layers
to leave out is the caller's choice; the same inputs give the same bytes.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import tempfile
from collections import Counter
from collections.abc import Collection, Iterable
from itertools import chain
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime  # type: ignore[import-untyped]
from numpy.typing import NDArray
from onnxruntime.quantization import (  # type: ignore[import-untyped]
    CalibrationDataReader,
    CalibrationMethod,
    QuantFormat,
    QuantType,
    quantize_static,
)

from engines import manifest as manifests
from engines.build.front_end import PRODUCTS, front_end
from engines.build.validity import check_graph
from engines.onnx_engine import session_options
from engines.protocol import Tensors

OP_TYPES = PRODUCTS
METHODS = {
    "minmax": CalibrationMethod.MinMax,
    "percentile": CalibrationMethod.Percentile,
    "entropy": CalibrationMethod.Entropy,
}
QUANTISED_KINDS = ("face", "voice")
"""Fusion is too small to gain anything."""
LEAST_DEPTH = 32
"""Products that add up fewer terms than this, such as the first convolution of a picture, stay fp32."""
LEAST_WEIGHTS = 1_024
LEAST_GEMM = 65_536
"""A Gemm works once an item, not once a pixel or a moment: small ones only lose."""
OPTIONS = {"ActivationSymmetric": True, "WeightSymmetric": True, "QuantizeBias": False}


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
    manifest = manifests.read(manifest_path)
    if manifest.kind not in QUANTISED_KINDS:
        raise ValueError(
            f"a {manifest.kind} network is not quantised; {' and '.join(QUANTISED_KINDS)} networks are"
        )
    if method not in METHODS:
        raise ValueError(f"no calibration method '{method}'; known are {', '.join(METHODS)}")
    folder = manifest_path.parent
    graph = folded(manifests.load_bytes(manifest, folder, "fp32"))
    chosen = quantisable(graph)
    if unknown := sorted(set(exclude) - set(chosen)):
        raise ValueError(
            f"'{manifest.name}' has no quantisable node {', '.join(unknown)}; it has {', '.join(chosen)}"
        )
    chosen = [name for name in chosen if name not in exclude]
    if not chosen:
        raise ValueError(f"nothing is left of '{manifest.name}' to quantise")
    first = next(iterator := iter(batches), None)
    if first is None:
        raise ValueError("quantising needs at least one batch of calibration inputs, got none")
    reader = _Batches(chain([first], iterator))
    result = _quantized(graph, reader, method, chosen)
    check_graph(result, manifest.name)
    content: bytes = result.SerializeToString(deterministic=True)
    kinds = Counter(node.op_type for node in graph.graph.node if node.name in set(chosen))
    part = {
        "recipe": "qdq-s8s8-per-channel",
        "method": method,
        "items": reader.items,
        "inputs_sha256": reader.digest(),
        "quantised": dict(sorted(kinds.items())),
        "excluded": sorted(exclude),
        "from": manifest.files[manifests.file_name(manifest.kind, "fp32")],
    }
    manifest = manifests.record_file(manifests.extended(manifest, quantisation=part), "int8", content)
    path = folder / manifests.file_name(manifest.kind, "int8")
    manifests.write_whole(path, content)
    manifests.write(manifest, manifest_path)
    return path


def folded(content: bytes) -> onnx.ModelProto:
    """The graph with its constants folded, so that a transposed weight is seen to be a weight."""
    options = session_options(1)
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    with tempfile.TemporaryDirectory() as scratch:
        options.optimized_model_filepath = str(Path(scratch) / "folded.onnx")
        onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        return onnx.load(options.optimized_model_filepath)


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
    depth = prod(shape[1:]) if node.op_type == "Conv" else shape[-2]
    return depth >= LEAST_DEPTH and prod(shape) >= LEAST_WEIGHTS


def _quantized(graph: onnx.ModelProto, reader: _Batches, method: str, chosen: list[str]) -> onnx.ModelProto:
    with tempfile.TemporaryDirectory() as scratch:
        target = Path(scratch) / "int8.onnx"
        _mark_prepared(graph)
        with contextlib.redirect_stdout(io.StringIO()):  # The calibrator prints its progress.
            quantize_static(
                graph,
                str(target),
                reader,
                quant_format=QuantFormat.QDQ,
                op_types_to_quantize=list(OP_TYPES),
                per_channel=True,
                activation_type=QuantType.QInt8,
                weight_type=QuantType.QInt8,
                nodes_to_quantize=chosen,
                calibrate_method=METHODS[method],
                extra_options=dict(OPTIONS),
            )
        result = onnx.load(str(target))
        del result.metadata_props[:]
        return result


def _mark_prepared(graph: onnx.ModelProto) -> None:
    """Tell the quantiser that folding is done, or it advises to do it."""
    prepared = graph.metadata_props.add()
    prepared.key, prepared.value = "onnx.quant.pre_process", "onnxruntime.quant"


class _Batches(CalibrationDataReader):  # type: ignore[misc]
    """Hands batches to the calibrator and remembers what they were."""

    def __init__(self, batches: Iterable[Tensors]) -> None:
        self._left = iter(batches)
        self._hash = hashlib.sha256()
        self.items = 0

    def get_next(self) -> dict[str, NDArray[Any]]:
        batch = next(self._left, None)
        if batch is None:
            return {}
        for name in sorted(batch):
            self._hash.update(name.encode() + np.ascontiguousarray(batch[name]).tobytes())
        self.items += len(next(iter(batch.values())))
        return dict(batch)

    def digest(self) -> str:
        return self._hash.hexdigest()
