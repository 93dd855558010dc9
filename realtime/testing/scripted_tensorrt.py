"""A stand-in for TensorRT's runtime on the host's memory, so that every line around it runs without a GPU.

It has the names and the signatures of the real module, as far as this project uses them, and a test compares
the two. Its plans hold an ONNX file, which ONNX Runtime computes when the stream comes to it. What the real
one leaves undefined is an error here: a context that was changed after a graph was captured from it, an
address that was freed, a shape outside of the profile.
"""

from __future__ import annotations

import enum
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from liveaffect.engines import manifest as manifests
from liveaffect.engines.build.plan import BuiltPlan
from liveaffect.engines.device import host
from liveaffect.engines.device.host import HostMemory
from liveaffect.engines.device_memory import DeviceError
from liveaffect.engines.gpu_driver import Gpu
from liveaffect.engines.gpu_load import GpuTools
from liveaffect.engines.manifest import Manifest
from liveaffect.engines.tensorrt_backend import Backend
from liveaffect.realtime.testing import scripted_tensorrt

__all__ = [
    "CudaGraphStrategy",
    "DataType",
    "DynamicShapesKernelSpecializationStrategy",
    "ICudaEngine",
    "IExecutionContext",
    "IHostMemory",
    "ILogger",
    "IRuntimeCache",
    "IRuntimeConfig",
    "Runtime",
    "TensorIOMode",
    "backend",
    "nptype",
    "plan",
]
__version__ = "0.scripted"
_MAGIC = b"scripted plan 1\n"
NAMES = tuple(name for name in __all__ if name not in ("backend", "plan"))
"""Everything here that stands for a name of the real module; whatever is public in them stands for it too."""


def backend(flavour: str = "tensorrt-rtx") -> Backend:
    """This module in the place of an installed TensorRT of one flavour or the other."""
    import sys

    return Backend(sys.modules[__name__], flavour, __version__)


def plan(content: bytes, sizes: Sequence[int] = (1, 4, 16, 64)) -> bytes:
    """A plan that computes this ONNX file, with a profile for each size; they meet without a gap."""
    session = _session_of(content)
    tensors = [
        {"name": node.name, "type": node.type, "shape": node.shape[1:], "input": is_input}
        for is_input, nodes in ((True, session.get_inputs()), (False, session.get_outputs()))
        for node in nodes
    ]
    profiles = [(below + 1, size) for below, size in zip((0, *sizes[:-1]), sizes, strict=True)]
    about = {"tensors": tensors, "profiles": profiles}
    return _MAGIC + json.dumps(about).encode() + b"\n" + content


class Runtime:
    """Opens plans."""

    def __init__(self, logger: ILogger) -> None:
        self._logger = logger

    def deserialize_cuda_engine(self, serialized_engine: bytes) -> ICudaEngine | None:
        """The engine, or None after a line in the log."""
        if not serialized_engine.startswith(_MAGIC):
            self._logger.log(ILogger.Severity.ERROR, "The serialized engine has another version tag")
            return None
        try:
            about, content = serialized_engine[len(_MAGIC) :].split(b"\n", 1)
            return ICudaEngine(json.loads(about), _session_of(content), self._logger)
        except Exception as err:  # noqa: BLE001  ONNX Runtime's errors have no class in common
            why = f"The serialized engine is damaged: {err}"
            self._logger.log(ILogger.Severity.ERROR, why)
            return None


class ICudaEngine:
    """One network."""

    def __init__(self, about: dict[str, Any], session: Any, logger: ILogger) -> None:
        self._tensors: dict[str, dict[str, Any]] = {tensor["name"]: tensor for tensor in about["tensors"]}
        self._profiles = about["profiles"]
        self._session = session
        self._logger = logger

    @property
    def num_io_tensors(self) -> int:
        """Inputs and outputs."""
        return len(self._tensors)

    @property
    def num_optimization_profiles(self) -> int:
        """Ranges of batches."""
        return len(self._profiles)

    def get_tensor_name(self, index: int) -> str:
        """By number."""
        return list(self._tensors)[index]

    def get_tensor_mode(self, name: str) -> TensorIOMode:
        """Which way it goes."""
        return TensorIOMode.INPUT if self._tensors[name]["input"] else TensorIOMode.OUTPUT

    def get_tensor_dtype(self, name: str) -> DataType:
        """What it holds."""
        return {"tensor(float)": DataType.FLOAT, "tensor(uint8)": DataType.UINT8}[self._tensors[name]["type"]]

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        """With -1 for the batch."""
        return (-1, *self._tensors[name]["shape"])

    def get_tensor_profile_shape(self, name: str, profile_index: int) -> list[tuple[int, ...]]:
        """The smallest, the best and the largest."""
        low, high = self._profiles[profile_index]
        return [(batch, *self._tensors[name]["shape"]) for batch in (low, high, high)]

    def create_runtime_config(self) -> IRuntimeConfig:
        """A plain one."""
        return IRuntimeConfig()

    def create_execution_context(self, runtime_config: IRuntimeConfig | None = None) -> IExecutionContext:
        """One that can run."""
        return IExecutionContext(self, runtime_config)


class IExecutionContext:
    """Shapes and addresses for one run after the other."""

    def __init__(self, engine: ICudaEngine, config: IRuntimeConfig | None) -> None:
        self._engine = engine
        self._config = config
        self._profile = 0
        self._rows: dict[str, int] = {}
        self._addresses: dict[str, int] = {}
        self._changes = 0

    def set_optimization_profile_async(self, profile_index: int, stream_handle: int) -> bool:
        """Which range the next batches are of."""
        host.owner(stream_handle)
        if not 0 <= profile_index < self._engine.num_optimization_profiles:
            return self._refuse(f"there is no profile {profile_index}")
        self._profile = profile_index
        self._changes += 1
        return True

    def set_input_shape(self, name: str, shape: Sequence[int]) -> bool:
        """How many rows come."""
        low, _best, high = self._engine.get_tensor_profile_shape(name, self._profile)
        if tuple(shape[1:]) != low[1:] or not low[0] <= shape[0] <= high[0]:
            return self._refuse(
                f"{name} {tuple(shape)} is outside of profile {self._profile}: {low} to {high}"
            )
        self._rows[name] = int(shape[0])
        self._changes += 1
        return True

    def set_tensor_address(self, name: str, memory: int) -> bool:
        """Where it lies."""
        if memory % 256:
            return self._refuse(f"the address of {name} is not aligned")
        self._addresses[name] = memory
        self._changes += 1
        return True

    def execute_async_v3(self, stream_handle: int) -> bool:
        """Hand it to the stream."""
        engine = self._engine
        inputs = [n for n in engine._tensors if engine.get_tensor_mode(n) == TensorIOMode.INPUT]
        if missing := [name for name in engine._tensors if name not in self._addresses]:
            return self._refuse(f"no address is set for {', '.join(missing)}")
        if len({self._rows.get(name, 0) for name in inputs}) != 1 or 0 in self._rows.values():
            return self._refuse(f"the inputs are of different batches: {self._rows}")
        memory = host.owner(stream_handle)
        addresses, rows, changes = dict(self._addresses), self._rows[inputs[0]], self._changes
        is_captured = memory.capturing(stream_handle)
        if self._config is not None and self._config._cache is not None:
            self._config._cache._make(f"{self._profile}:{rows}")

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


def _view(memory: host.HostMemory, engine: ICudaEngine, name: str, address: int, rows: int) -> NDArray[Any]:
    shape = (rows, *engine.get_tensor_shape(name)[1:])
    kind = np.dtype(nptype(engine.get_tensor_dtype(name)))
    return memory.view(address, int(np.prod(shape)) * kind.itemsize).view(kind).reshape(shape)


def _session_of(content: bytes) -> Any:
    from liveaffect.engines.onnx_engine import PROVIDER, session_options
    from liveaffect.engines.onnx_runtime import ort

    return ort.InferenceSession(content, session_options(1), providers=[PROVIDER])


_KERNELS = b"scripted kernels\n"


class TensorIOMode(enum.Enum):
    """Which way a tensor goes."""

    NONE = 0
    INPUT = 1
    OUTPUT = 2


class DataType(enum.Enum):
    """What a tensor holds, of the types that plans of this project have."""

    FLOAT = 0
    UINT8 = 5


class CudaGraphStrategy(enum.Enum):
    """Whether the runtime makes graphs itself."""

    DISABLED = 0
    WHOLE_GRAPH_CAPTURE = 1


class DynamicShapesKernelSpecializationStrategy(enum.Enum):
    """When kernels for a shape are made."""

    LAZY = 0
    EAGER = 1
    NONE = 2


def nptype(trt_type: DataType) -> type:
    """NumPy's type for it."""
    return {DataType.FLOAT: np.float32, DataType.UINT8: np.uint8}[trt_type]


class ILogger:
    """Is told what happens; a subclass keeps it."""

    class Severity(enum.Enum):
        """How bad it is."""

        INTERNAL_ERROR = 0
        ERROR = 1
        WARNING = 2
        INFO = 3
        VERBOSE = 4

    def log(self, severity: Severity, msg: str) -> None:
        """One line."""


class IHostMemory(bytes):
    """Bytes that the runtime made."""

    @property
    def nbytes(self) -> int:
        """How many."""
        return len(self)


class IRuntimeCache:
    """Kernels that were made on this machine."""

    def __init__(self) -> None:
        self._made: set[str] = set()

    def deserialize(self, blob: bytes) -> bool:
        """Take over what an earlier run made; False if it is not for this machine."""
        if not blob.startswith(_KERNELS):
            return False
        self._made |= set(blob[len(_KERNELS) :].decode().split())
        return True

    def serialize(self) -> IHostMemory:
        """What a later run can take over."""
        return IHostMemory(_KERNELS + " ".join(sorted(self._made)).encode())

    def _make(self, kernel: str) -> None:
        self._made.add(kernel)


class IRuntimeConfig:
    """How a context runs."""

    def __init__(self) -> None:
        self.cuda_graph_strategy = CudaGraphStrategy.DISABLED
        self.dynamic_shapes_kernel_specialization_strategy = DynamicShapesKernelSpecializationStrategy.LAZY
        self._cache: IRuntimeCache | None = None

    def create_runtime_cache(self) -> IRuntimeCache:
        """An empty one."""
        return IRuntimeCache()

    def set_runtime_cache(self, cache: IRuntimeCache) -> bool:
        """Use it, and add to it."""
        self._cache = cache
        return True


SIZES = (1, 4, 8)


def plan_of(folder: Path, kind: str, sizes: Sequence[int] = SIZES) -> tuple[Manifest, bytes]:
    """The manifest of one network in a folder, and a plan that computes it in fp32."""
    found = manifests.read(folder / f"{kind}.json")
    return found, scripted_tensorrt.plan(manifests.load_bytes(found, folder, "fp32"), sizes)


class LosableMemory(HostMemory):
    """The memory of a GPU that can be unplugged."""

    lost = False

    def _check(self, call: str) -> None:
        if self.lost:
            raise DeviceError(call, "CUDA_ERROR_DEVICE_UNAVAILABLE")
        super()._check(call)


def tools(memory: Callable[[], HostMemory] = HostMemory, flavour: str = "tensorrt-rtx") -> GpuTools:
    """What running plans takes, on a card that is not there."""
    card = Gpu(0, "Scripted", (8, 9), (13, 0), 1 << 30)
    return GpuTools(scripted_tensorrt.backend(flavour), card, memory)


def build_scripted(content: bytes, **_rest: object) -> BuiltPlan:
    """In the place of `build_plan`: a plan that computes the file as it is, for fewer sizes, to be quick."""
    return BuiltPlan(scripted_tensorrt.plan(content, (1, 16)), ("scripted",), 0.5)
