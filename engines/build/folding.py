"""A graph with its constants folded, so that a transposed weight is seen to be a weight."""

from __future__ import annotations

import tempfile
from pathlib import Path

import onnx
import onnxruntime  # type: ignore[import-untyped]

from engines.onnx_engine import PROVIDER, session_options


def folded(content: bytes) -> onnx.ModelProto:
    """The same graph; only standard operators, as few as ONNX Runtime needs for it."""
    options = session_options(1)
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    with tempfile.TemporaryDirectory() as scratch:
        options.optimized_model_filepath = str(Path(scratch) / "folded.onnx")
        onnxruntime.InferenceSession(content, options, providers=[PROVIDER])
        return onnx.load(options.optimized_model_filepath)
