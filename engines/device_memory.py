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
    "pycuda": ("liveaffect.engines.device.pycuda", "PycudaMemory"),
    "cuda-python": ("liveaffect.engines.device.cuda_python", "CudaPythonMemory"),
    "host": ("liveaffect.engines.device.host", "HostMemory"),
}
NAMES = tuple(_MODULES)
_PACKAGES = {"pycuda": "pycuda.driver", "cuda-python": "cuda.bindings.driver"}
_INSTALL = {
    "pycuda": "it is published as source only: benchmarks/gpu/build_pycuda.sh makes a wheel of it",
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
    """One device. Every method may raise DeviceError."""

    @property
    def name(self) -> str:
        """One of NAMES."""
        ...

    @property
    def allocations(self) -> int:
        """How many things were made so far: memory, streams, events, graphs. Steady work makes none."""
        ...

    def active(self) -> AbstractContextManager[None]:
        """Inside, the device is the one that this thread works on. Cheap, and may be nested."""
        ...

    def allocate(self, size: int) -> int:
        """This many bytes on the device; their address."""
        ...

    def free(self, address: int) -> None:
        """Give them back."""
        ...

    def pinned(self, size: int) -> NDArray[np.uint8]:
        """This many page-locked bytes on the host."""
        ...

    def free_pinned(self, array: NDArray[np.uint8]) -> None:
        """Give them back; the very array that `pinned` gave, and no view of it is used any more."""
        ...

    def stream(self) -> int:
        """A stream, which works on its own beside the others."""
        ...

    def close_stream(self, stream: int) -> None:
        """End it; its work is done or abandoned."""
        ...

    def synchronise(self, stream: int) -> None:
        """Wait for everything in it."""
        ...

    def copy_in(self, address: int, array: NDArray[Any], stream: int) -> None:
        """Copy a whole contiguous array to the device, when its turn comes."""
        ...

    def copy_out(self, array: NDArray[Any], address: int, stream: int) -> None:
        """Fill a whole contiguous array from the device, when its turn comes."""
        ...

    def event(self) -> int:
        """A mark that can be put into a stream, again and again."""
        ...

    def close_event(self, event: int) -> None:
        """Give it back."""
        ...

    def record(self, event: int, stream: int) -> None:
        """Put the mark after what the stream holds now."""
        ...

    def wait(self, event: int) -> None:
        """Wait until the stream has passed the mark; at once if it was never recorded."""
        ...

    def elapsed_ms(self, first: int, second: int) -> float:
        """Time of the device between two marks that were both passed."""
        ...

    def begin_capture(self, stream: int) -> None:
        """From here on the stream's work is noted down instead of done."""
        ...

    def end_capture(self, stream: int) -> int:
        """A graph of what was noted. If anything noted was an error this raises; the stream works again."""
        ...

    def launch(self, graph: int, stream: int) -> None:
        """Do all of it at once, with the addresses it was noted with."""
        ...

    def close_graph(self, graph: int) -> None:
        """Give it back."""
        ...

    def free_bytes(self) -> int:
        """How much memory of the device nobody uses."""
        ...

    def close(self) -> None:
        """Give the device back. Safe to call twice; everything made on it was given back before."""
        ...


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


def open_memory(name: str = "auto", device: int = 0) -> DeviceMemory:
    """The memory of one device. 'auto' takes pycuda where somebody built it, else cuda-python.

    Raises EngineUnavailable with what is missing for each that was tried.
    """
    tried = []
    for one in ("pycuda", "cuda-python") if name == "auto" else (name,):
        why = why_no_memory(one)
        if why is None:
            module, kind = _MODULES[one]
            memory: DeviceMemory = getattr(import_module(module), kind)(device)
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
