"""Whole networks of a few thousand weights, for tests that need a real weight file in milliseconds.

They take and give exactly the tensors of the engine protocol, with random weights from a seed, and
hold one of everything that export and quantisation treat specially: a convolution, a sound front end
that ends in a logarithm, and a product of two activations. Made with `onnx` alone, no torch.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from liveaffect.engines import manifest as manifests
from liveaffect.engines import recipe
from liveaffect.engines.protocol import VECTOR, TensorSpec

PRESET = "tiny"
_OPSET = 17
_TYPES = {"uint8": TensorProto.UINT8, "float32": TensorProto.FLOAT}


def write_tiny(folder: Path, kind: str, *, seed: int = 0, trained: bool = False) -> Path:
    """Write weights and manifest of one network; the manifest's path."""
    content = network(kind, seed).SerializeToString()
    manifest = manifests.record_file(manifests.describe(kind, PRESET), "fp32", content)
    if trained:
        manifest = manifests.extended(manifest, training={"corpora": ["made up"], "seed": seed})
    folder.mkdir(parents=True, exist_ok=True)
    manifests.write_whole(folder / manifests.file_name(kind, "fp32"), content)
    path = folder / f"{kind}.json"
    manifests.write(manifest, path)
    return path


def network(kind: str, seed: int = 0) -> onnx.ModelProto:
    """The graph of one network."""
    graph = _Graph(seed)
    {"face": _face_nodes, "voice": _voice_nodes, "fusion": _fusion_nodes}[kind](graph)
    inputs, outputs = manifests.tensors(kind)
    made = helper.make_graph(
        graph.nodes,
        kind,
        [_value(tensor) for tensor in inputs],
        [_value(tensor) for tensor in outputs],
        graph.weights,
    )
    return helper.make_model(
        made, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=8, producer_name="liveaffect"
    )


def _value(tensor: TensorSpec) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(tensor.name, _TYPES[tensor.dtype], ["n", *tensor.shape])


class _Graph:
    """Nodes and weights as they are added."""

    def __init__(self, seed: int) -> None:
        self._rng = np.random.default_rng(seed)
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []

    def add(self, op: str, *inputs: str, out: str = "", **attributes: Any) -> str:
        out = out or f"{op.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, inputs, [out], name=f"{op}_{len(self.nodes)}", **attributes))
        return out

    def const(self, array: NDArray[Any] | np.float32) -> str:
        name = f"weight_{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(np.ascontiguousarray(array), name))
        return name

    def random(self, *shape: int) -> str:
        scale = 1.0 / np.sqrt(np.prod(shape[1:]))
        return self.const(self._rng.normal(0, scale, shape).astype(np.float32))

    def linear(self, given: str, n_in: int, n_out: int, out: str = "") -> str:
        weight, bias = self.random(n_out, n_in), self.const(np.zeros(n_out, np.float32))
        return self.add("Gemm", given, weight, bias, transB=1, out=out)

    def heads(self, vector: str) -> None:
        self.linear(vector, VECTOR, 1, out="score")
        self.linear(vector, VECTOR, len(recipe.LABELS), out="logits")


def _face_nodes(graph: _Graph) -> None:
    planes = graph.add("Transpose", graph.add("Cast", "crop", to=TensorProto.FLOAT), perm=[0, 3, 1, 2])
    light = graph.add("Div", planes, graph.const(np.float32(255)))
    for width_in, width_out in ((3, 16), (16, 32), (32, 32)):
        weight, bias = graph.random(width_out, width_in, 3, 3), graph.const(np.zeros(width_out, np.float32))
        light = graph.add("Relu", graph.add("Conv", light, weight, bias, strides=[2, 2], pads=[1, 1, 1, 1]))
    pooled = graph.add("Flatten", graph.add("GlobalAveragePool", light))
    graph.heads(graph.linear(pooled, 32, VECTOR, out="vector"))


def _voice_nodes(graph: _Graph) -> None:
    angle = 2 * np.pi * np.outer(np.arange(1, recipe.MEL_BANDS + 1), np.arange(recipe.STFT_WINDOW))
    waves = np.hanning(recipe.STFT_WINDOW) * np.cos(angle / recipe.STFT_WINDOW)
    shaped = graph.add("Unsqueeze", "samples", graph.const(np.array([1])))
    weight = graph.const(waves[:, None, :].astype(np.float32))
    bands = graph.add("Conv", shaped, weight, strides=[recipe.STFT_STEP])
    mixing = graph.const(np.eye(recipe.MEL_BANDS, dtype=np.float32))
    power = graph.add("MatMul", mixing, graph.add("Mul", bands, bands))
    log_mel = graph.add("Log", graph.add("Add", power, graph.const(np.float32(recipe.LOG_FLOOR))))
    time_axis = graph.const(np.array([2]))
    graph.add("ReduceSum", log_mel, time_axis, keepdims=0, out="stat_sum")
    graph.add("ReduceSum", graph.add("Mul", log_mel, log_mel), time_axis, keepdims=0, out="stat_sumsq")
    moments = [graph.add("Unsqueeze", name, time_axis) for name in ("mean", "istd")]
    level = graph.add("Mul", graph.add("Sub", log_mel, moments[0]), moments[1])
    frames = graph.add("Transpose", level, perm=[0, 2, 1])
    hidden = graph.add("Tanh", graph.add("MatMul", frames, graph.random(recipe.MEL_BANDS, VECTOR)))
    # Attention: both products are of two activations and must stay out of quantisation.
    turned = graph.add("Transpose", hidden, perm=[0, 2, 1])
    attended = graph.add("MatMul", graph.add("Softmax", graph.add("MatMul", hidden, turned), axis=-1), hidden)
    fed = graph.add("MatMul", attended, graph.random(VECTOR, VECTOR))
    pooled = graph.add("ReduceMean", fed, axes=[1], keepdims=0)
    vector = graph.linear(pooled, VECTOR, VECTOR, out="vector")
    graph.heads(vector)
    graph.add("Sigmoid", graph.linear(vector, VECTOR, 1), out="speech")


def _fusion_nodes(graph: _Graph) -> None:
    vectors = graph.add("Concat", "face_short", "face_long", "voice_short", "voice_long", axis=1)
    logits = graph.add("Concat", "face_logits", "voice_logits", "words_logits", axis=1)
    both = graph.add("Concat", vectors, logits, "mask", axis=1)
    hidden = graph.add("Relu", graph.linear(both, 4 * VECTOR + 3 * len(recipe.LABELS) + 3, VECTOR))
    graph.linear(hidden, VECTOR, len(recipe.LABELS), out="logits")
    open_ = graph.add("Mul", graph.add("Exp", graph.linear(hidden, VECTOR, 3)), "mask")
    total = graph.add("ReduceSum", open_, graph.const(np.array([1])), keepdims=1)
    graph.add("Div", open_, graph.add("Add", total, graph.const(np.float32(1e-6))), out="weights")
