"""Memory through cuda-python: the vendor's bindings to the driver, as wheels for every Python.

The bindings are used rather than the classes of `cuda.core`, which is built on them: those have moved between
modules from version to version, while the driver's functions stay what they are. The context is the primary
one of the device, which TensorRT and torch use too.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any

import numpy as np
from numpy.typing import NDArray

from liveaffect.engines.device.capture import CapturingMemory, DriverGraphs
from liveaffect.engines.device_memory import DeviceError

driver: Any = import_module("cuda.bindings.driver")


class CudaPythonMemory(CapturingMemory):
    """One device."""

    name = "cuda-python"

    def __init__(self, device: int = 0) -> None:
        _call(driver.cuInit, 0)
        self._device = _call(driver.cuDeviceGet, device)
        self._context: Any = _call(driver.cuDevicePrimaryCtxRetain, self._device)
        self._made = 0
        self._streams: dict[int, Any] = {}
        self._events: dict[int, Any] = {}
        self._graphs = DriverGraphs()

    @property
    def allocations(self) -> int:
        """What was made so far."""
        return self._made + self._graphs.made

    @contextmanager
    def _activate(self) -> Iterator[None]:
        # A context that stays current does no harm: it is the one that everybody in this process uses.
        _call(driver.cuCtxSetCurrent, self._context)
        yield

    def active(self) -> Any:
        """Make the primary context current on this thread."""
        return self._activate()

    def allocate(self, size: int) -> int:
        """Device memory."""
        address = int(_call(driver.cuMemAlloc, size))
        self._made += 1
        return address

    def free(self, address: int) -> None:
        """Give it back."""
        _call(driver.cuMemFree, address)

    def pinned(self, size: int) -> NDArray[np.uint8]:
        """Page-locked memory, seen as an array."""
        address = int(_call(driver.cuMemHostAlloc, size, 0))
        self._made += 1
        return np.ctypeslib.as_array((ctypes.c_uint8 * size).from_address(address))

    def free_pinned(self, array: NDArray[np.uint8]) -> None:
        """Give it back."""
        _call(driver.cuMemFreeHost, _address(array))

    def stream(self) -> int:
        """A stream that does not wait for the default one."""
        made = _call(driver.cuStreamCreate, driver.CUstream_flags.CU_STREAM_NON_BLOCKING)
        self._made += 1
        self._streams[int(made)] = made
        return int(made)

    def close_stream(self, stream: int) -> None:
        """End it."""
        _call(driver.cuStreamDestroy, self._streams.pop(stream))

    def synchronise(self, stream: int) -> None:
        """Wait for everything in it."""
        _call(driver.cuStreamSynchronize, self._streams[stream])

    def copy_in(self, address: int, array: NDArray[Any], stream: int) -> None:
        """Host to device."""
        _call(driver.cuMemcpyHtoDAsync, address, _address(array), array.nbytes, self._streams[stream])

    def copy_out(self, array: NDArray[Any], address: int, stream: int) -> None:
        """Device to host."""
        _call(driver.cuMemcpyDtoHAsync, _address(array), address, array.nbytes, self._streams[stream])

    def event(self) -> int:
        """One that knows when it was passed."""
        made = _call(driver.cuEventCreate, 0)
        self._made += 1
        self._events[int(made)] = made
        return int(made)

    def close_event(self, event: int) -> None:
        """Give it back."""
        _call(driver.cuEventDestroy, self._events.pop(event))

    def record(self, event: int, stream: int) -> None:
        """Put it into the stream."""
        _call(driver.cuEventRecord, self._events[event], self._streams[stream])

    def wait(self, event: int) -> None:
        """Wait until it was passed."""
        _call(driver.cuEventSynchronize, self._events[event])

    def elapsed_ms(self, first: int, second: int) -> float:
        """As the device measured it."""
        return float(_call(driver.cuEventElapsedTime, self._events[first], self._events[second]))

    def free_bytes(self) -> int:
        """As the driver says."""
        free, _total = _call(driver.cuMemGetInfo)
        return int(free)

    def close(self) -> None:
        """Release the primary context, which ends with its last user."""
        if self._context is not None:
            self._context = None
            _call(driver.cuDevicePrimaryCtxRelease, self._device)


def _call(function: Any, *arguments: Any) -> Any:
    """The answer of one driver function, or the error it reports."""
    status, *answer = function(*arguments)
    if status != driver.CUresult.CUDA_SUCCESS:
        raise DeviceError(function.__name__, status.name)
    return answer[0] if len(answer) == 1 else answer


def _address(array: NDArray[Any]) -> int:
    return int(array.__array_interface__["data"][0])
