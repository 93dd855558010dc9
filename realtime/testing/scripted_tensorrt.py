"""A stand-in for TensorRT's runtime on the host's memory, so that every line around it runs without a GPU.

It has the names and the signatures of the real module, as far as this project uses them, and a test compares
the two. Its plans hold an ONNX file, which ONNX Runtime computes when the stream comes to it. What the real
one leaves undefined is an error here: a context that was changed after a graph was captured from it, an
address that was freed, a shape outside of the profile, scratch memory that nobody gave.
"""

from __future__ import annotations

import enum
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from liveaffect.engines import manifest as manifests
from liveaffect.engines.build.plan import BuiltPlan, batch_ranges
from liveaffect.engines.device import host
from liveaffect.engines.device.host import HostMemory
from liveaffect.engines.device_memory import DeviceError
from liveaffect.engines.gpu_driver import Gpu
from liveaffect.engines.gpu_load import GpuTools
from liveaffect.engines.manifest import Manifest
from liveaffect.engines.tensorrt_backend import Backend

__version__ = "0.scripted"
NAMES = (
    "CudaGraphStrategy",
    "DataType",
    "DynamicShapesKernelSpecializationStrategy",
    "ExecutionContextAllocationStrategy",
    "ICudaEngine",
    "IExecutionContext",
    "ILogger",
    "IRuntimeCache",
    "IRuntimeConfig",
    "Runtime",
    "TensorIOMode",
    "nptype",
)
"""Everything here that stands for a name of the real module; whatever is public in them stands for it too."""
SIZES = (1, 4, 8)
_MAGIC = b"scripted plan 1\n"
_KERNELS = b"scripted kernels\n"
_SCRATCH = 512


TensorIOMode = enum.Enum("TensorIOMode", {"INPUT": 1, "OUTPUT": 2})
DataType = enum.Enum("DataType", {"FLOAT": 0, "UINT8": 5})
CudaGraphStrategy = enum.Enum("CudaGraphStrategy", {"DISABLED": 0})
DynamicShapesKernelSpecializationStrategy = enum.Enum(
    "DynamicShapesKernelSpecializationStrategy", {"EAGER": 1}
)
ExecutionContextAllocationStrategy = enum.Enum(
    "ExecutionContextAllocationStrategy", {"STATIC": 0, "USER_MANAGED": 2}
)


def nptype(trt_type: DataType) -> type:
    """NumPy's type for it."""
    return {DataType.FLOAT: np.float32, DataType.UINT8: np.uint8}[trt_type]


class ILogger:
    """Is told what happens; a subclass keeps it."""

    Severity = enum.Enum("Severity", {"ERROR": 1})

    def log(self, severity: Severity, msg: str) -> None:
        """One line."""


class Runtime:
    """Opens plans."""

    def __init__(self, logger: ILogger) -> None:
        self._logger = logger

    def deserialize_cuda_engine(self, serialized_engine: bytes) -> ICudaEngine | None:
        try:
            if not serialized_engine.startswith(_MAGIC):
                raise ValueError("it has another version tag")
            about, content = serialized_engine[len(_MAGIC) :].split(b"\n", 1)
            return ICudaEngine(json.loads(about), _session_of(content), self._logger)
        except Exception as err:  # noqa: BLE001  ONNX Runtime's errors have no class in common
            self._logger.log(ILogger.Severity.ERROR, f"The serialized engine is damaged: {err}")  # noqa: G004  no logging
            return None


class ICudaEngine:
    """One network."""

    num_io_tensors = num_optimization_profiles = 0
    device_memory_size_v2 = _SCRATCH

    def __init__(self, about: dict[str, Any], session: Any, logger: ILogger) -> None:
        self._tensors: dict[str, dict[str, Any]] = {tensor["name"]: tensor for tensor in about["tensors"]}
        self._profiles = about["profiles"]
        self._session = session
        self._logger = logger
        self.num_io_tensors = len(self._tensors)
        self.num_optimization_profiles = len(self._profiles)

    def get_tensor_name(self, index: int) -> str:
        return list(self._tensors)[index]

    def get_tensor_mode(self, name: str) -> TensorIOMode:
        return TensorIOMode.INPUT if self._tensors[name]["input"] else TensorIOMode.OUTPUT

    def get_tensor_dtype(self, name: str) -> DataType:
        return {"tensor(float)": DataType.FLOAT, "tensor(uint8)": DataType.UINT8}[self._tensors[name]["type"]]

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return (-1, *self._tensors[name]["shape"])

    def get_tensor_profile_shape(self, name: str, profile_index: int) -> list[tuple[int, ...]]:
        low, high = self._profiles[profile_index]
        return [(batch, *self._tensors[name]["shape"]) for batch in (low, high, high)]

    def create_runtime_config(self) -> IRuntimeConfig:
        return IRuntimeConfig()

    def create_execution_context(self, runtime_config: Any = None) -> IExecutionContext:
        config = runtime_config if isinstance(runtime_config, IRuntimeConfig) else IRuntimeConfig()
        strategy = config._strategy if config is runtime_config else runtime_config
        if strategy is not ExecutionContextAllocationStrategy.USER_MANAGED:
            raise AssertionError("every context is to share the scratch memory of its stream")
        return IExecutionContext(self, config)


class IExecutionContext:
    """Shapes and addresses for one run after the other."""

    def __init__(self, engine: ICudaEngine, config: IRuntimeConfig) -> None:
        self._engine = engine
        self._config = config
        self._profile = 0
        self._rows: dict[str, int] = {}
        self._addresses: dict[str, int] = {}
        self._scratch = 0
        self._changes = 0

    def set_optimization_profile_async(self, profile_index: int, stream_handle: int) -> bool:
        host.owner(stream_handle)
        self._profile = profile_index
        self._changes += 1
        return True

    def set_input_shape(self, name: str, shape: Sequence[int]) -> bool:
        low, _best, high = self._engine.get_tensor_profile_shape(name, self._profile)
        if tuple(shape[1:]) != low[1:] or not low[0] <= shape[0] <= high[0]:
            return self._refuse(f"{name} {tuple(shape)} is outside of profile {self._profile}")
        self._rows[name] = int(shape[0])
        self._changes += 1
        return True

    def update_device_memory_size_for_shapes(self) -> int:
        return _SCRATCH * max(self._rows.values())

    def set_device_memory(self, memory: int, size: int) -> None:
        if size < self.update_device_memory_size_for_shapes():
            raise AssertionError(f"{size} bytes of scratch memory are too few")
        self._scratch = memory

    def is_stream_capturable(self, stream: int) -> bool:
        return host.owner(stream) is not None

    def set_tensor_address(self, name: str, memory: int) -> bool:
        if memory % 256:
            return self._refuse(f"the address of {name} is not aligned")
        self._addresses[name] = memory
        self._changes += 1
        return True

    def execute_async_v3(self, stream_handle: int) -> bool:
        engine, memory = self._engine, host.owner(stream_handle)
        inputs = [n for n in engine._tensors if engine.get_tensor_mode(n) == TensorIOMode.INPUT]
        if missing := [name for name in engine._tensors if name not in self._addresses]:
            return self._refuse(f"no address is set for {', '.join(missing)}")
        addresses, rows, changes = dict(self._addresses), self._rows[inputs[0]], self._changes
        is_captured = memory.capturing(stream_handle)
        memory.view(self._scratch, _SCRATCH * rows)
        if self._config._cache is not None:
            self._config._cache._made.add(f"{self._profile}:{rows}")

        def work() -> None:
            if is_captured and changes != self._changes:
                raise DeviceError("cuGraphLaunch", "CUDA_ERROR_ILLEGAL_ADDRESS")
            given = {name: _view(memory, engine, name, addresses[name], rows) for name in inputs}
            names = [name for name in addresses if name not in given]
            for name, answer in zip(names, engine._session.run(names, given), strict=True):
                np.copyto(_view(memory, engine, name, addresses[name], rows), answer)

        memory.enqueue(stream_handle, work)
        return True

    def _refuse(self, why: str) -> bool:
        self._engine._logger.log(ILogger.Severity.ERROR, why)
        return False


class IRuntimeCache:
    """Kernels that were made on this machine."""

    def __init__(self) -> None:
        self._made: set[str] = set()

    def deserialize(self, blob: bytes) -> bool:
        if not blob.startswith(_KERNELS):
            return False
        self._made |= set(blob[len(_KERNELS) :].decode().split())
        return True

    def serialize(self) -> bytes:
        return _KERNELS + " ".join(sorted(self._made)).encode()


class IRuntimeConfig:
    """How a context runs."""

    def __init__(self) -> None:
        self.cuda_graph_strategy: CudaGraphStrategy | None = None
        self.dynamic_shapes_kernel_specialization_strategy: Any = None
        self._cache: IRuntimeCache | None = None
        self._strategy = ExecutionContextAllocationStrategy.STATIC

    def create_runtime_cache(self) -> IRuntimeCache:
        return IRuntimeCache()

    def set_runtime_cache(self, cache: IRuntimeCache) -> bool:
        self._cache = cache
        return True

    def set_execution_context_allocation_strategy(self, strategy: ExecutionContextAllocationStrategy) -> None:
        self._strategy = strategy


def backend(flavour: str = "tensorrt-rtx") -> Backend:
    """This module in the place of an installed TensorRT of one flavour or the other."""
    return Backend(sys.modules[__name__], flavour, __version__)


def plan(content: bytes, sizes: Sequence[int] = SIZES) -> bytes:
    """A plan that computes this ONNX file, with a profile for each size."""
    session = _session_of(content)
    tensors = [
        {"name": node.name, "type": node.type, "shape": node.shape[1:], "input": is_input}
        for is_input, nodes in ((True, session.get_inputs()), (False, session.get_outputs()))
        for node in nodes
    ]
    about = {"tensors": tensors, "profiles": batch_ranges(sizes)}
    return _MAGIC + json.dumps(about).encode() + b"\n" + content


def plan_of(folder: Path, kind: str, sizes: Sequence[int] = SIZES) -> tuple[Manifest, bytes]:
    """The manifest of one network in a folder, and a plan that computes it in fp32."""
    found = manifests.read(folder / f"{kind}.json")
    return found, plan(manifests.load_bytes(found, folder, "fp32"), sizes)


class LosableMemory(HostMemory):
    """The memory of a GPU that can be unplugged."""

    lost = False

    def _check(self, call: str) -> None:
        if self.lost:
            raise DeviceError(call, "CUDA_ERROR_DEVICE_UNAVAILABLE")
        super()._check(call)


def tools(memory: Callable[[], HostMemory] = HostMemory, flavour: str = "tensorrt-rtx") -> GpuTools:
    """What running plans takes, on a card that is not there."""
    card = Gpu(0, "Scripted", (8, 9), (13, 0), 1 << 30, "GPU-0")
    return GpuTools(backend(flavour), card, memory)


def build_scripted(content: bytes, **_rest: object) -> BuiltPlan:
    """In the place of `build_plan`: a plan that computes the file as it is, for fewer sizes, to be quick."""
    return BuiltPlan(plan(content, (1, 16)), ("scripted",), 0.5)


def _view(memory: HostMemory, engine: ICudaEngine, name: str, address: int, rows: int) -> NDArray[Any]:
    shape = (rows, *engine.get_tensor_shape(name)[1:])
    kind = np.dtype(nptype(engine.get_tensor_dtype(name)))
    return memory.view(address, int(np.prod(shape)) * kind.itemsize).view(kind).reshape(shape)


def _session_of(content: bytes) -> Any:
    from liveaffect.engines.onnx_engine import PROVIDER, session_options
    from liveaffect.engines.onnx_runtime import ort

    return ort.InferenceSession(content, session_options(1), providers=[PROVIDER])
