"""What Triton's Python back end runs: the ONNX file beside it, by ONNX Runtime on one thread.

`liveaffect export --triton DIR --backend python` copies this file into the repository; it stands alone there,
for a server that was built without the ONNX back end. All requests that the batcher joined are one run.
"""

from __future__ import annotations

import json
import os
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np


class TritonPythonModel:
    """Triton calls the three methods; the names are its own."""

    def initialize(self, args: dict[str, str]) -> None:
        """Open the file."""
        # Before it is loaded: it would ask for a host of its vendor otherwise.
        os.environ["ORT_DISABLE_TELEMETRY"] = "1"
        import onnxruntime as ort  # type: ignore[import-untyped]

        config = json.loads(args["model_config"])
        self._inputs = [each["name"] for each in config["input"]]
        self._outputs = [each["name"] for each in config["output"]]
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        path = Path(args["model_repository"]) / args["model_version"] / "model.onnx"
        self._session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])

    def execute(self, requests: list[Any]) -> list[Any]:
        """One run for all of them; each gets its own rows."""
        triton: Any = import_module("triton_python_backend_utils")

        parts = {
            name: [triton.get_input_tensor_by_name(request, name).as_numpy() for request in requests]
            for name in self._inputs
        }
        answers: Any = self._session.run(
            self._outputs, {name: np.concatenate(rows) for name, rows in parts.items()}
        )
        ends = np.cumsum([len(rows) for rows in parts[self._inputs[0]]])[:-1]
        shares = zip(*(np.split(answer, ends) for answer in answers), strict=True)
        return [
            triton.InferenceResponse([triton.Tensor(n, a) for n, a in zip(self._outputs, share, strict=True)])
            for share in shares
        ]

    def finalize(self) -> None:
        """Nothing to free."""
