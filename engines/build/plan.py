"""From an ONNX file to a plan, the form in which TensorRT runs a network.

Only what TensorRT 10.16, 11 and TensorRT-RTX share is used: a strongly typed network, so the types in the
file are the types that run; INT8 by explicit Q/DQ; half precision by converting the file first. The batch
axis gets one profile for each size, and the profiles meet without a gap, so every batch up to the largest
fits one of them. TF32 is off unless asked for: the log-mel of the sound front end shows its error.
TensorRT-RTX builds without a GPU, and its plans are finished by the card that loads them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from liveaffect.engines import stopwatch
from liveaffect.engines.gpu_driver import Backend
from liveaffect.engines.protocol import EngineFileError, EngineUnavailable

PRECISIONS = ("fp32", "fp32-tf32", "fp16", "int8")
PORTABLE = "portable"
_REMEMBERED = 1_000
"""Lines of TensorRT's log."""
SIZES = (1, 4, 16, 64)
"""Batches that plans are made for: one face, a few, a room, as many as one tick may bring."""


@dataclass(frozen=True, slots=True)
class BuiltPlan:
    """A plan and how it came about."""

    plan: bytes
    log: tuple[str, ...]
    """What TensorRT said while it built, from its information level up."""
    seconds: float
    """Wall time of parsing and building."""


def build_plan(
    content: bytes,
    *,
    precision: str,
    backend: Backend,
    sizes: Sequence[int] = SIZES,
) -> BuiltPlan:
    """Build one network. `content` is the ONNX file as its manifest lists it: the INT8 file for 'int8',
    the fp32 file for everything else; half precision is made from it here.

    Raises EngineFileError for a file that TensorRT or the precision refuses, with the nodes at fault, and
    ValueError for sizes or a precision that there are not.
    """
    started_ns = stopwatch.wall_ns()
    prepared = prepare_plan(content, precision=precision, backend=backend, sizes=sizes)
    built = prepared.builder.build_serialized_network(prepared.network, prepared.config)
    said = prepared.said
    if built is None:
        raise EngineFileError(f"{backend} cannot build this network in {precision}: {said.complaint()}")
    seconds = (stopwatch.wall_ns() - started_ns) / 1e9
    return BuiltPlan(bytes(built), tuple(said.lines), seconds)


@dataclass(frozen=True, slots=True)
class Prepared:
    """What TensorRT is about to build: its own objects, of which the builder must outlive the others."""

    said: Any
    """The logger."""
    builder: Any
    network: Any
    config: Any
    profiles: tuple[Any, ...]
    """In the order of the sizes."""


def prepare_plan(
    content: bytes,
    *,
    precision: str,
    backend: Backend,
    sizes: Sequence[int] = SIZES,
) -> Prepared:
    """Everything that `build_plan` does before the build itself, and refuses."""
    _check_wanted(precision, sizes)
    if precision == "fp16":
        content = _half(content)
    trt = backend.module
    said = listener(trt)
    builder = trt.Builder(said)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    _parsed(trt, network, said, content, backend)
    _check_network(trt, network, precision)
    config = builder.create_builder_config()
    if precision == "fp32-tf32":
        config.set_flag(trt.BuilderFlag.TF32)
    else:
        config.clear_flag(trt.BuilderFlag.TF32)
    profiles = tuple(_profile(builder, config, network, *batches) for batches in batch_ranges(sizes))
    return Prepared(said, builder, network, config, profiles)


def source_of(precision: str) -> str:
    """The precision of the ONNX file that a plan in this one is built from."""
    return "int8" if precision == "int8" else "fp32"


def batch_ranges(sizes: Sequence[int]) -> tuple[tuple[int, int], ...]:
    """The smallest and largest batch of each profile: (1, 4, 16) gives (1, 1), (2, 4), (5, 16).

    A profile is tuned for its largest batch.
    """
    return tuple((below + 1, size) for below, size in zip((0, *sizes[:-1]), sizes, strict=True))


def _half(content: bytes) -> bytes:
    try:
        from liveaffect.engines.build.onnx_graph import to_half
    except ImportError as err:
        raise EngineUnavailable(
            f"half precision is made with the package onnx ({err}); pip install onnx, or build int8"
        ) from err
    return to_half(content)


def _check_wanted(precision: str, sizes: Sequence[int]) -> None:
    if precision not in PRECISIONS:
        raise ValueError(f"no precision '{precision}'; plans are built in {', '.join(PRECISIONS)}")
    if not sizes or list(sizes) != sorted(set(sizes)) or sizes[0] < 1:
        raise ValueError(f"profiles need rising batch sizes from 1 up, got {list(sizes)}")


def _parsed(trt: Any, network: Any, said: Any, content: bytes, backend: Backend) -> None:
    """Raises EngineFileError that quotes what the parser refused, node by node."""
    parser = trt.OnnxParser(network, said)
    if parser.parse(content):
        return
    faults = [parser.get_error(at) for at in range(parser.num_errors)]
    where = [
        f"node '{fault.node_name()}' ({fault.node_operator()}): {fault.desc()}"
        if fault.node_name()
        else fault.desc()
        for fault in faults
    ]
    raise EngineFileError(f"{backend} cannot read this network: {'; '.join(where) or said.complaint()}")


def _check_network(trt: Any, network: Any, precision: str) -> None:
    """What was parsed must be what was asked for: free batch axis, known types, Q/DQ exactly in INT8."""
    inputs = [network.get_input(at) for at in range(network.num_inputs)]
    outputs = [network.get_output(at) for at in range(network.num_outputs)]
    if not inputs or not outputs:
        raise EngineFileError("there is no network in this file: it has no inputs or no outputs")
    known = {trt.DataType.FLOAT, trt.DataType.UINT8}
    for tensor in (*inputs, *outputs):
        if tensor.dtype not in known:
            raise EngineFileError(
                f"'{tensor.name}' is of type {tensor.dtype.name}; plans take float32 and uint8"
            )
    for tensor in inputs:
        first, *rest = tensor.shape
        if first != -1 or any(size < 1 for size in rest):
            raise EngineFileError(
                f"the input '{tensor.name}' has the shape {tuple(tensor.shape)}; "
                "wanted a free batch axis and fixed sizes after it"
            )
    layers = (network.get_layer(at) for at in range(network.num_layers))
    quantised = sum(layer.type == trt.LayerType.DEQUANTIZE for layer in layers)
    if precision == "int8" and not quantised:
        raise EngineFileError(
            "nothing in this network is quantised; an int8 plan is built from the INT8 file"
        )
    if precision != "int8" and quantised:
        raise EngineFileError(
            f"this network is quantised ({quantised} layers); "
            f"a plan in {precision} is built from the fp32 file"
        )


def _profile(builder: Any, config: Any, network: Any, low: int, high: int) -> Any:
    profile = builder.create_optimization_profile()
    for at in range(network.num_inputs):
        tensor = network.get_input(at)
        rest = tuple(tensor.shape)[1:]
        profile.set_shape(tensor.name, (low, *rest), (high, *rest), (high, *rest))
    if config.add_optimization_profile(profile) < 0:
        raise EngineUnavailable(f"TensorRT refuses a profile for batches of {low} to {high}")
    return profile


def listener(trt: Any) -> Any:
    """A logger with `lines`, the newest from the information level up, and `complaint()`; prints nothing."""

    class Listener(trt.ILogger):  # type: ignore[misc]
        """Its class derives from the module's."""

        def __init__(self) -> None:
            super().__init__()
            self.lines: deque[str] = deque(maxlen=_REMEMBERED)

        def log(self, severity: Any, msg: str) -> None:
            if severity.name != "VERBOSE":
                self.lines.append(f"{severity.name} {msg}")

        def complaint(self) -> str:
            """The errors, or that there were none."""
            said = (line.partition("ERROR ")[2] for line in self.lines if "ERROR" in line.split(" ")[0])
            return "; ".join(said) or "TensorRT does not say why"

    return Listener()
