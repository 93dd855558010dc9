"""A graph with its constants folded, so that a transposed weight is seen to be a weight."""

from __future__ import annotations

import tempfile
from pathlib import Path

import onnx

from liveaffect.engines.onnx_engine import PROVIDER, session_options
from liveaffect.engines.onnx_runtime import ort
from liveaffect.engines.protocol import EngineFileError
from liveaffect.engines.recipe import MEL_BANDS


def folded(content: bytes) -> onnx.ModelProto:
    """The same graph; only standard operators, as few as ONNX Runtime needs for it."""
    options = session_options(1)
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
    with tempfile.TemporaryDirectory() as scratch:
        options.optimized_model_filepath = str(Path(scratch) / "folded.onnx")
        ort.InferenceSession(content, options, providers=[PROVIDER])
        return onnx.load(options.optimized_model_filepath)


PRODUCTS = ("Conv", "Gemm", "MatMul")
FRONT_END_OUTPUTS = ("stat_sum", "stat_sumsq")


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
