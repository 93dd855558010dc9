"""Memory of a GPU through cuda-python or pycuda; streams, marks, copies and graphs through the driver itself.

Both packages give memory and contexts, and pycuda gives no graphs, so everything that is the same for both
is a dozen functions of libcuda by ctypes, with the numbers that the packages give. The context is the
primary one of the device, which TensorRT and torch use too.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any

import numpy as np
from numpy.typing import NDArray

from liveaffect.engines.device_memory import DeviceError, index_of
from liveaffect.engines.gpu_driver import LIBRARY

_NON_BLOCKING = 1
"""CU_STREAM_NON_BLOCKING: it does not wait for the default stream."""
_THREAD_LOCAL = 1
"""CU_STREAM_CAPTURE_MODE_THREAD_LOCAL: other threads may go on allocating meanwhile."""


class DriverWork:
    """What the driver itself is asked for; the caller has the context current."""

    def __init__(self) -> None:
        self._driver = ctypes.CDLL(LIBRARY)
        self.allocations = 0

    def stream(self) -> int:
        return self._made("cuStreamCreate", ctypes.c_uint(_NON_BLOCKING))

    def close_stream(self, stream: int) -> None:
        self._do("cuStreamDestroy_v2", ctypes.c_void_p(stream))

    def synchronise(self, stream: int) -> None:
        self._do("cuStreamSynchronize", ctypes.c_void_p(stream))

    def copy_in(self, address: int, array: NDArray[Any], stream: int) -> None:
        host, size = ctypes.c_void_p(_address(array)), ctypes.c_size_t(array.nbytes)
        self._do("cuMemcpyHtoDAsync_v2", ctypes.c_uint64(address), host, size, ctypes.c_void_p(stream))

    def copy_out(self, array: NDArray[Any], address: int, stream: int) -> None:
        host, size = ctypes.c_void_p(_address(array)), ctypes.c_size_t(array.nbytes)
        self._do("cuMemcpyDtoHAsync_v2", host, ctypes.c_uint64(address), size, ctypes.c_void_p(stream))

    def event(self) -> int:
        return self._made("cuEventCreate", ctypes.c_uint(0))

    def close_event(self, event: int) -> None:
        self._do("cuEventDestroy_v2", ctypes.c_void_p(event))

    def record(self, event: int, stream: int) -> None:
        self._do("cuEventRecord", ctypes.c_void_p(event), ctypes.c_void_p(stream))

    def wait(self, event: int) -> None:
        self._do("cuEventSynchronize", ctypes.c_void_p(event))

    def elapsed_ms(self, first: int, second: int) -> float:
        taken = ctypes.c_float()
        self._do("cuEventElapsedTime", ctypes.byref(taken), ctypes.c_void_p(first), ctypes.c_void_p(second))
        return taken.value

    def begin_capture(self, stream: int) -> None:
        self._do("cuStreamBeginCapture_v2", ctypes.c_void_p(stream), ctypes.c_int(_THREAD_LOCAL))

    def end_capture(self, stream: int) -> int:
        graph = ctypes.c_void_p()
        self._do("cuStreamEndCapture", ctypes.c_void_p(stream), ctypes.byref(graph))
        try:
            return self._made("cuGraphInstantiateWithFlags", graph, ctypes.c_ulonglong(0))
        finally:
            self._do("cuGraphDestroy", graph)

    def launch(self, graph: int, stream: int) -> None:
        self._do("cuGraphLaunch", ctypes.c_void_p(graph), ctypes.c_void_p(stream))

    def close_graph(self, graph: int) -> None:
        self._do("cuGraphExecDestroy", ctypes.c_void_p(graph))

    def free_bytes(self) -> int:
        free, total = ctypes.c_size_t(), ctypes.c_size_t()
        self._do("cuMemGetInfo_v2", ctypes.byref(free), ctypes.byref(total))
        return free.value

    def _made(self, name: str, *arguments: object) -> int:
        handle = ctypes.c_void_p()
        self._do(name, ctypes.byref(handle), *arguments)
        self.allocations += 1
        return int(handle.value or 0)

    def _do(self, name: str, *arguments: object) -> None:
        if status := int(getattr(self._driver, name)(*arguments)):
            text = ctypes.c_char_p()
            unknown = self._driver.cuGetErrorName(status, ctypes.byref(text)) or not text.value
            raise DeviceError(name, f"CUDA error {status}" if unknown else str(text.value, "ascii"))  # type: ignore[arg-type]


class CudaPythonMemory(DriverWork):
    """One device, by the vendor's bindings: the driver's functions, which stay what they are."""

    name = "cuda-python"

    def __init__(self, uuid: str | None = None) -> None:
        self._bindings: Any = import_module("cuda.bindings.driver")
        self._call("cuInit", 0)
        self._device = self._call("cuDeviceGet", index_of(uuid))
        self._context: Any = self._call("cuDevicePrimaryCtxRetain", self._device)
        super().__init__()

    @contextmanager
    def active(self) -> Iterator[None]:
        # A context that stays current does no harm: it is the one that everybody in this process uses.
        self._call("cuCtxSetCurrent", self._context)
        yield

    def allocate(self, size: int) -> int:
        address = int(self._call("cuMemAlloc", size))
        self.allocations += 1
        return address

    def free(self, address: int) -> None:
        self._call("cuMemFree", address)

    def pinned(self, size: int) -> NDArray[np.uint8]:
        address = int(self._call("cuMemHostAlloc", size, 0))
        self.allocations += 1
        return np.ctypeslib.as_array((ctypes.c_uint8 * size).from_address(address))

    def free_pinned(self, array: NDArray[np.uint8]) -> None:
        self._call("cuMemFreeHost", _address(array))

    def close(self) -> None:
        if self._context is not None:
            self._context = None
            self._call("cuDevicePrimaryCtxRelease", self._device)

    def _call(self, name: str, *arguments: Any) -> Any:
        status, *answer = getattr(self._bindings, name)(*arguments)
        if status != self._bindings.CUresult.CUDA_SUCCESS:
            raise DeviceError(name, status.name)
        return answer[0] if answer else None


class PycudaMemory(DriverWork):
    """One device. Contexts of pycuda live on a stack of each thread, and a thread that ends with one on it
    ends the process, so the primary context is pushed and popped around every piece of work."""

    name = "pycuda"

    def __init__(self, uuid: str | None = None) -> None:
        self._pycuda: Any = import_module("pycuda.driver")
        self._call(self._pycuda.init)
        self._context: Any = self._call(
            self._call(self._pycuda.Device, index_of(uuid)).retain_primary_context
        )
        self._memory: dict[int, Any] = {}
        super().__init__()

    @contextmanager
    def active(self) -> Iterator[None]:
        self._call(self._context.push)
        try:
            yield
        finally:
            self._call(self._context.pop)

    def allocate(self, size: int) -> int:
        made = self._call(self._pycuda.mem_alloc, size)
        self.allocations += 1
        self._memory[int(made)] = made
        return int(made)

    def free(self, address: int) -> None:
        self._call(self._memory.pop(address).free)

    def pinned(self, size: int) -> NDArray[np.uint8]:
        made: NDArray[np.uint8] = self._call(self._pycuda.pagelocked_empty, size, np.uint8)
        self.allocations += 1
        return made

    def free_pinned(self, array: NDArray[np.uint8]) -> None:
        self._call(array.base.free)  # type: ignore[union-attr]

    def close(self) -> None:
        if self._context is not None:
            context, self._context = self._context, None
            self._call(context.push)
            self._call(context.detach)

    def _call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        try:
            return function(*arguments)
        except self._pycuda.Error as err:
            call, _, said = str(err).partition(" failed: ")
            raise DeviceError(call, said or type(err).__name__) from err


def _address(array: NDArray[Any]) -> int:
    return int(array.__array_interface__["data"][0])
