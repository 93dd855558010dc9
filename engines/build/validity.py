"""Is a graph valid ONNX? Asked of everything that is built, before it is written."""

from __future__ import annotations

import onnx

from engines.protocol import EngineFileError


def check_graph(graph: onnx.ModelProto, name: str) -> None:
    """The ONNX checker and strict shape inference; raises EngineFileError with what they found."""
    try:
        onnx.checker.check_model(graph, full_check=True)
        onnx.shape_inference.infer_shapes(graph, check_type=True, strict_mode=True, data_prop=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as err:
        raise EngineFileError(f"the graph built for '{name}' is not valid ONNX: {err}") from err
