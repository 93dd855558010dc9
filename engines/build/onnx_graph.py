"""Graphs of ONNX: folded and checked, where the front end ends, and in half precision.

TensorRT runs the types that it finds in a file, so half precision is a conversion of the file. Only
operations that are known to bear it are converted; whatever is not on the list stays fp32, and so do

* the front end, that is everything before the first product with a learnt weight: spectrum, mel, logarithm
  and normalisation of sound, and the light of a crop;
* sums over many numbers, exponentials, softmax, norms and squares, which leave the range of half precision;
* an operation with a constant that half precision does not know, such as an epsilon that would become zero.

Inputs and outputs keep the types of the manifest. Everything is found in the graph, not by name.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from liveaffect.engines.onnx_engine import PROVIDER, RUNTIME_ERRORS, ort, session_options
from liveaffect.engines.protocol import EngineFileError
from liveaffect.engines.recipe import MEL_BANDS

PRODUCTS = ("Conv", "Gemm", "MatMul")
FRONT_END_OUTPUTS = ("stat_sum", "stat_sumsq")
PLAIN = frozenset(
    {
        *("Add", "Clip", "Div", "Gemm", "Conv", "MatMul", "Mul", "Neg", "Sub", "Max", "Min", "Where"),
        *("Elu", "Erf", "Gelu", "HardSigmoid", "HardSwish", "LeakyRelu", "PRelu", "Relu", "Sigmoid", "Tanh"),
        *("Concat", "Expand", "Flatten", "Gather", "Identity", "MaxPool", "Pad", "Reshape", "Slice", "Split"),
        *("Squeeze", "Tile", "Transpose", "Unsqueeze"),
    }
)
"""What may run in half precision."""
SHAPELY = frozenset(("Shape", "Size"))
"""What takes any type and answers with whole numbers."""
LARGEST = float(np.finfo(np.float16).max)
HALF, FULL = TensorProto.FLOAT16, TensorProto.FLOAT


def folded(content: bytes) -> onnx.ModelProto:
    """The same graph; only standard operators, as few as ONNX Runtime needs for it."""
    options = session_options(1)
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
    with tempfile.TemporaryDirectory() as scratch:
        options.optimized_model_filepath = str(Path(scratch) / "folded.onnx")
        ort.InferenceSession(content, options, providers=[PROVIDER])
        return onnx.load(options.optimized_model_filepath)


def front_end(graph: onnx.ModelProto) -> set[str]:
    """The names of all nodes that a logarithm or the sums of the log-mel depend on.

    Sums of another width are of features behind the layers, which are quantised as any others.
    """
    maker = {name: node for node in graph.graph.node for name in node.output}
    logs = [node.output[0] for node in graph.graph.node if node.op_type == "Log"]
    outputs = [output.name for output in graph.graph.output if _width(output) == MEL_BANDS]
    ahead = logs + [name for name in FRONT_END_OUTPUTS if name in outputs]
    found: set[str] = set()
    while ahead:
        node = maker.get(ahead.pop())
        if node is not None and node.name not in found:
            found.add(node.name)
            ahead.extend(node.input)
    return found


def _width(output: onnx.ValueInfoProto) -> int:
    return int(output.type.tensor_type.shape.dim[-1].dim_value)


def check_graph(graph: onnx.ModelProto, name: str) -> None:
    """The ONNX checker and strict shape inference; raises EngineFileError with what they found."""
    try:
        onnx.checker.check_model(graph, full_check=True)
        onnx.shape_inference.infer_shapes(graph, check_type=True, strict_mode=True, data_prop=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as err:
        raise EngineFileError(f"the graph built for '{name}' is not valid ONNX: {err}") from err


def to_half(content: bytes) -> bytes:
    """The same network with everything that bears it in half precision.

    Raises EngineFileError for a graph that is quantised, whose types are not known, or that holds nothing
    to convert.
    """
    try:
        model = folded(content)
    except RUNTIME_ERRORS as err:
        raise EngineFileError(f"ONNX Runtime cannot read this network: {str(err).splitlines()[0]}") from err
    if any(node.op_type == "DequantizeLinear" for node in model.graph.node):
        raise EngineFileError("this network is quantised; a plan in fp16 is built from the fp32 file")
    _constants_to_weights(model.graph)
    types = _types(model)
    chosen = half_nodes(model)
    if not chosen:
        raise EngineFileError(f"nothing in '{model.graph.name}' can run in half precision")
    _Conversion(model.graph, types, chosen).run()
    del model.graph.value_info[:]
    check_graph(model, f"{model.graph.name} in half precision")
    converted: bytes = model.SerializeToString(deterministic=True)
    return converted


def half_nodes(model: onnx.ModelProto) -> frozenset[str]:
    """The first outputs of the nodes that run in half precision."""
    weights = {weight.name: weight for weight in model.graph.initializer}
    front = front_end(model)
    behind: set[str] = set()
    """Values that depend on a product with a learnt weight."""
    chosen = set()
    for node in model.graph.node:
        learnt = node.op_type in PRODUCTS and node.name not in front and _weighs(node, weights)
        if learnt or any(name in behind for name in node.input):
            behind.update(node.output)
            if _bears_it(node, weights):
                chosen.add(node.output[0])
    return frozenset(chosen)


def _weighs(node: onnx.NodeProto, weights: Mapping[str, onnx.TensorProto]) -> bool:
    return any(name in weights for name in node.input[:2])


def _bears_it(node: onnx.NodeProto, weights: Mapping[str, onnx.TensorProto]) -> bool:
    if node.op_type not in PLAIN:
        return False
    constants = [weights[name] for name in node.input if name in weights]
    if node.op_type == "Mul" and len(set(node.input)) == 1:
        return False
    if node.op_type == "Div" and node.input[1] not in weights:
        return False
    return all(_survives(numpy_helper.to_array(one)) for one in constants if one.data_type == FULL)


def _survives(constant: NDArray[np.float32]) -> bool:
    """Whether half precision knows these numbers; of many, small ones may vanish."""
    if constant.size == 0 or not np.isfinite(constant).all():
        return constant.size == 0
    if float(np.abs(constant).max()) > LARGEST:
        return False
    return constant.size > 1 or bool(np.float16(constant.reshape(-1)[0])) or not constant.any()


def _constants_to_weights(graph: onnx.GraphProto) -> None:
    """Constant nodes become initializers, so that there is one kind of constant."""
    left = []
    for node in graph.node:
        value = next((a for a in node.attribute if a.name == "value"), None)
        if node.op_type != "Constant" or value is None:
            left.append(node)
            continue
        weight = graph.initializer.add()
        weight.CopyFrom(value.t)
        weight.name = node.output[0]
    del graph.node[:]
    graph.node.extend(left)


def _types(model: onnx.ModelProto) -> dict[str, int]:
    """The element type of every value."""
    inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True).graph
    values = (*inferred.input, *inferred.output, *inferred.value_info)
    types = {value.name: value.type.tensor_type.elem_type for value in values}
    types |= {weight.name: weight.data_type for weight in model.graph.initializer}
    made = [name for node in model.graph.node for name in node.output if name]
    if unknown := [name for name in made if not types.get(name)]:
        raise EngineFileError(f"the type of {', '.join(unknown[:3])} in '{model.graph.name}' is not known")
    return types


class _Conversion:
    """Rewrites a graph; values change their type only through a Cast, made once for each value."""

    def __init__(self, graph: onnx.GraphProto, types: dict[str, int], chosen: Iterable[str]) -> None:
        self._graph = graph
        self._types = types
        self._chosen = frozenset(chosen)
        self._weights = {weight.name: weight for weight in graph.initializer}
        self._outputs = {value.name for value in graph.output}
        self._nodes: list[onnx.NodeProto] = []
        self._casts: dict[tuple[str, int], str] = {}
        self._renamed: dict[str, str] = {}
        """Outputs of the network, which keep their type, to what is computed for them."""

    def run(self) -> None:
        for node in list(self._graph.node):
            half = node.output[0] in self._chosen
            if node.op_type not in SHAPELY:
                self._feed(node, HALF if half else FULL)
            else:
                node.input[:] = [self._renamed.get(name, name) for name in node.input]
            self._nodes.append(node)
            if half:
                self._answer_in_half(node)
        del self._graph.node[:]
        self._graph.node.extend(self._nodes)
        used = {name for node in self._nodes for name in node.input}
        kept = [weight for weight in self._graph.initializer if weight.name in used]
        del self._graph.initializer[:]
        self._graph.initializer.extend(kept)

    def _feed(self, node: onnx.NodeProto, wanted: int) -> None:
        """Give every real-valued input the type that the node runs in."""
        for at, name in enumerate(node.input):
            name = self._renamed.get(name, name)
            if name and self._types[name] in (HALF, FULL) and self._types[name] != wanted:
                name = self._as(name, wanted)
            node.input[at] = name

    def _as(self, name: str, wanted: int) -> str:
        if (name, wanted) in self._casts:
            return self._casts[name, wanted]
        turned = f"{name}_{'half' if wanted == HALF else 'full'}"
        if name in self._weights:
            array = numpy_helper.to_array(self._weights[name]).astype(np.float16)
            self._graph.initializer.append(numpy_helper.from_array(array, turned))
        else:
            self._nodes.append(helper.make_node("Cast", [name], [turned], name=f"cast_{turned}", to=wanted))
        self._types[turned] = wanted
        self._casts[name, wanted] = turned
        return turned

    def _answer_in_half(self, node: onnx.NodeProto) -> None:
        for at, name in enumerate(node.output):
            if not name or self._types[name] != FULL:
                continue
            if name not in self._outputs:
                self._types[name] = HALF
                continue
            inner = f"{name}_half"
            node.output[at] = inner
            self._types[inner] = HALF
            self._renamed[name] = inner
            self._nodes.append(helper.make_node("Cast", [inner], [name], name=f"cast_{name}", to=FULL))
            self._casts[inner, FULL] = name
