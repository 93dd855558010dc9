"""A network on ONNX Runtime, the back end of every machine without a GPU, and the library with telemetry off.

One thread per session and no spinning: an idle pool that spins burns a core that the camera, the
browser or a call needs. On the CPU there is nothing to overlap with, so `submit` does the work at once
and `result` only hands it over; answers that are not finite are an error here, never a reading.

Since 1.31 the library writes a device number and a database below the user's cache and asks for a host of its
vendor, unless it is told not to before it is loaded. Nothing of ours may be sent, so nobody imports it past
this module; a test starts the program in a fresh home and finds no foreign file.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from liveaffect.engines import manifest as manifests
from liveaffect.engines import whisper
from liveaffect.engines.manifest import Manifest
from liveaffect.engines.protocol import (
    Done,
    EngineError,
    EngineFailed,
    EngineFileError,
    EngineSpec,
    Pending,
    Tensors,
    TensorSpec,
    check_finite,
    check_inputs,
    zeros_for,
)

os.environ["ORT_DISABLE_TELEMETRY"] = "1"

import onnxruntime as ort  # type: ignore[import-untyped]

ort.disable_telemetry_events()
failures: Any = import_module("onnxruntime.capi.onnxruntime_pybind11_state")
"""What it raises; a module in C++ without a description of its types."""

__all__ = ["PROVIDER", "RUNTIME_ERRORS", "OnnxEngine", "failures", "ort", "session_options"]


PROVIDER = "CPUExecutionProvider"
_TYPES = {"uint8": "tensor(uint8)", "float32": "tensor(float)"}
# ONNX Runtime's errors have no class of their own in common; these are all it defines.
RUNTIME_ERRORS: tuple[type[Exception], ...] = (
    RuntimeError,
    ValueError,
    *(kind for kind in vars(failures).values() if isinstance(kind, type) and issubclass(kind, Exception)),
)


class OnnxEngine:
    """One session on the CPU. Not thread-safe: one caller."""

    def __init__(
        self, manifest: Manifest, folder: Path, precision: str = "fp32", *, threads: int = 1
    ) -> None:
        """Check the file against its manifest and open it. Raises EngineFileError."""
        self._spec = manifest.spec(precision, "onnx" if precision == "fp32" else f"onnx-{precision}")
        path = folder / manifests.file_name(manifest.kind, precision)
        content = manifests.load_bytes(manifest, folder, precision)
        options = session_options(threads)
        if borrowed := whisper.tensors(manifest):
            values = [ort.OrtValue.ortvalue_from_numpy(tensor) for tensor in borrowed.values()]
            options.add_external_initializers(list(borrowed), values)
        try:
            session = ort.InferenceSession(content, options, providers=[PROVIDER])
        except RUNTIME_ERRORS as err:
            raise EngineFileError(
                f"ONNX Runtime {ort.__version__} cannot open {path}: {_first_line(err)}; "
                f"{manifests.mend(path)}"
            ) from err
        _check_graph(path, "inputs", session.get_inputs(), self._spec.inputs)
        _check_graph(path, "outputs", session.get_outputs(), self._spec.outputs)
        self._session: ort.InferenceSession | None = session
        self._names = [tensor.name for tensor in self._spec.outputs]

    @property
    def spec(self) -> EngineSpec:
        """What goes in and what comes out."""
        return self._spec

    def submit(self, inputs: Tensors) -> Pending:
        """Run one batch at once, on this thread."""
        if self._session is None:
            raise EngineError(f"engine '{self._spec.name}' is closed")
        check_inputs(self._spec, inputs)
        feeds = {name: np.ascontiguousarray(array) for name, array in inputs.items()}
        try:
            answers: Sequence[Any] = self._session.run(self._names, feeds)
        except RUNTIME_ERRORS as err:
            raise EngineFailed(f"engine '{self._spec.name}' failed: {_first_line(err)}") from err
        outputs = dict(zip(self._names, answers, strict=True))
        check_finite(self._spec, outputs)
        return Done(outputs)

    def infer(self, inputs: Tensors) -> Tensors:
        """`submit` and wait."""
        return self.submit(inputs).result()

    def warm_up(self) -> None:
        """Run one blank item, so that memory is laid out and code paged in before the first real one."""
        self.infer(zeros_for(self._spec))

    def close(self) -> None:
        """Free the session. Safe to call twice."""
        self._session = None


def session_options(threads: int) -> ort.SessionOptions:
    """One operator after the other, on this many threads, none of which spins while it waits."""
    if threads < 1:
        raise ValueError(f"an engine needs at least one thread, got {threads}")
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.log_severity_level = 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return options


def _check_graph(path: Path, what: str, found: Sequence[Any], wanted: tuple[TensorSpec, ...]) -> None:
    """The file itself must say what its manifest says, with a free batch axis."""
    graph = {node.name: (node.type, tuple(node.shape[1:]), node.shape[:1]) for node in found}
    for tensor in wanted:
        kind, shape, batch = graph.pop(tensor.name, ("nothing", (), []))
        if kind != _TYPES[tensor.dtype] or shape != tensor.shape:
            raise EngineFileError(
                f"{path} is of another network: among its {what} is wanted {tensor}, "
                f"found {kind} {shape}; {manifests.mend(path)}"
            )
        if isinstance(batch[0], int):
            raise EngineFileError(
                f"{path} takes batches of {batch[0]} only: '{tensor.name}' has a fixed batch axis; "
                f"{manifests.mend(path)}"
            )
    if graph:
        raise EngineFileError(
            f"{path} is of another network: it has the further {what} {', '.join(graph)}; "
            f"{manifests.mend(path)}"
        )


def _first_line(err: BaseException) -> str:
    return (str(err).strip().splitlines() or [type(err).__name__])[0]
