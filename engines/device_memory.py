"""Memory on a device, behind one small interface, so that the engine does not care who provides it.

    pycuda        what many CUDA programs use; published as source only
    cuda-python   the vendor's bindings to the driver, as wheels
    host          NumPy: no GPU at all, for walking every line without one

Streams, events, graphs and addresses are plain numbers, because numbers are what TensorRT takes. Copies are
asynchronous and in the order of their stream; memory for them is page-locked, or they would not be. Nothing
here is thread-safe, and whoever calls from another thread does so inside `active()`.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from importlib import import_module
from importlib.util import find_spec
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from liveaffect.engines import gpu_driver
from liveaffect.engines.protocol import EngineUnavailable

_MODULES = {
    "pycuda": ("liveaffect.engines.device.packages", "PycudaMemory"),
    "cuda-python": ("liveaffect.engines.device.packages", "CudaPythonMemory"),
    "host": ("liveaffect.engines.device.host", "HostMemory"),
}
NAMES = tuple(_MODULES)
_PACKAGES = {"pycuda": "pycuda.driver", "cuda-python": "cuda.bindings.driver"}
_INSTALL = {
    "pycuda": "it is published as source only: pip install pycuda, with nvcc and the CUDA headers",
    "cuda-python": "pip install cuda-python",
}


class DeviceError(Exception):
    """The device or its driver refused something; after an error while running it is usually lost."""

    def __init__(self, call: str, code: str) -> None:
        super().__init__(f"{call} failed with {code}")
        self.call = call
        """The function of the driver."""
        self.code = code
        """Its answer, such as CUDA_ERROR_ILLEGAL_ADDRESS."""


class DeviceMemory(Protocol):
    """One device. Every method may raise DeviceError; those that make something are counted."""

    @property
    def name(self) -> str: ...

    @property
    def allocations(self) -> int: ...

    # Inside, the device is the one that this thread works on. Cheap, and may be nested.
    def active(self) -> AbstractContextManager[None]: ...

    # Bytes on the device, by their address; page-locked ones on the host, by the array that was given.
    def allocate(self, size: int) -> int: ...
    def free(self, address: int) -> None: ...
    def pinned(self, size: int) -> NDArray[np.uint8]: ...
    def free_pinned(self, array: NDArray[np.uint8]) -> None: ...

    # A stream works on its own beside others; a contiguous array is copied when its turn comes.
    def stream(self) -> int: ...
    def close_stream(self, stream: int) -> None: ...
    def synchronise(self, stream: int) -> None: ...
    def copy_in(self, address: int, array: NDArray[Any], stream: int) -> None: ...
    def copy_out(self, array: NDArray[Any], address: int, stream: int) -> None: ...

    # A mark is put into a stream again and again; waiting for one that was never put anywhere takes no time.
    def event(self) -> int: ...
    def close_event(self, event: int) -> None: ...
    def record(self, event: int, stream: int) -> None: ...
    def wait(self, event: int) -> None: ...
    def elapsed_ms(self, first: int, second: int) -> float: ...

    # From `begin_capture` on work is noted down instead of done; `launch` does all of it at once,
    # with the addresses it was noted with. If anything noted was an error `end_capture` raises it.
    def begin_capture(self, stream: int) -> None: ...
    def end_capture(self, stream: int) -> int: ...
    def launch(self, graph: int, stream: int) -> None: ...
    def close_graph(self, graph: int) -> None: ...

    def free_bytes(self) -> int: ...

    # Everything that was made on it was given back before. Safe to call twice.
    def close(self) -> None: ...


def index_of(uuid: str | None) -> int:
    """The number under which the driver knows a card in this process. Raises DeviceError if it is gone."""
    found = [gpu.index for gpu in gpu_driver.gpus() if uuid in (None, gpu.uuid)]
    if not found:
        raise DeviceError(f"looking for {uuid or 'a GPU'}", "CUDA_ERROR_NO_DEVICE")
    return found[0]


def why_no_memory(name: str) -> str | None:
    """Why this kind of memory cannot be used here, with what mends it, in a few words; None if it can."""
    if name not in NAMES:
        raise EngineUnavailable(f"no device memory '{name}'; known are {', '.join(NAMES)}")
    if name == "host":
        return None
    if not _installed(_PACKAGES[name]):
        return f"{name} is not installed; {_INSTALL[name]}"
    # Without a driver pycuda cannot even be imported, and its own message names a symbol.
    if why := gpu_driver.why_no_gpu():
        return why
    try:
        import_module(_PACKAGES[name])
    except (ImportError, OSError, RuntimeError) as err:
        line = (str(err).splitlines() or [type(err).__name__])[0]
        return f"{name} cannot be imported ({line}); {_advice(name, line)}"
    return None


def open_memory(name: str = "auto", uuid: str | None = None) -> DeviceMemory:
    """The memory of the card with this UUID, or of the first. 'auto' takes cuda-python, else pycuda.

    Raises EngineUnavailable with what is missing for each that was tried.
    """
    tried = []
    for one in ("cuda-python", "pycuda") if name == "auto" else (name,):
        why = why_no_memory(one)
        if why is None:
            module, kind = _MODULES[one]
            memory: DeviceMemory = getattr(import_module(module), kind)(uuid)
            return memory
        tried.append(why)
    raise EngineUnavailable(f"no way to the memory of a GPU: {'; '.join(dict.fromkeys(tried))}")


def _installed(package: str) -> bool:
    """Whether there is such a package, without importing what needs a driver."""
    try:
        return find_spec(package.rpartition(".")[0]) is not None
    except (ModuleNotFoundError, ValueError):
        return False


def _advice(name: str, line: str) -> str:
    if "undefined symbol" in line:
        return "the NVIDIA driver is older than the CUDA it was built for; install a newer driver"
    if "libcurand" in line:
        return f"it was built with cuRAND, which is missing (pip install nvidia-curand); {_INSTALL[name]}"
    return f"install it anew: {_INSTALL[name]}"
