"""The small things of the stand-in for TensorRT: enumerations, logger, settings, and the kernels it keeps."""

from __future__ import annotations

import enum

import numpy as np

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
