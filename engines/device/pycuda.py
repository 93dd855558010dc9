"""Memory through pycuda, for machines on which somebody built it.

Its contexts live on a stack of each thread, and a thread that ends with one on it ends the process, so the
primary context is pushed and popped around every piece of work. It has no graphs; those are the driver's own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any

import numpy as np
from numpy.typing import NDArray

from liveaffect.engines.device.capture import CapturingMemory, DriverGraphs
from liveaffect.engines.device_memory import DeviceError

cuda: Any = import_module("pycuda.driver")
_NON_BLOCKING = 1
"""CU_STREAM_NON_BLOCKING, for which pycuda has no name."""


class PycudaMemory(CapturingMemory):
    """One device."""

    name = "pycuda"

    def __init__(self, device: int = 0) -> None:
        _pycuda_call(cuda.init)
        self._context: Any = _pycuda_call(_pycuda_call(cuda.Device, device).retain_primary_context)
        self._made = 0
        self._memory: dict[int, Any] = {}
        self._streams: dict[int, Any] = {}
        self._events: dict[int, Any] = {}
        self._graphs = DriverGraphs()

    @property
    def allocations(self) -> int:
        """What was made so far."""
        return self._made + self._graphs.made

    @contextmanager
    def _activate(self) -> Iterator[None]:
        _pycuda_call(self._context.push)
        try:
            yield
        finally:
            _pycuda_call(self._context.pop)

    def active(self) -> Any:
        """Push the primary context, and pop it again."""
        return self._activate()

    def allocate(self, size: int) -> int:
        """Device memory."""
        made = _pycuda_call(cuda.mem_alloc, size)
        self._made += 1
        self._memory[int(made)] = made
        return int(made)

    def free(self, address: int) -> None:
        """Give it back."""
        _pycuda_call(self._memory.pop(address).free)

    def pinned(self, size: int) -> NDArray[np.uint8]:
        """Page-locked memory, seen as an array."""
        made: NDArray[np.uint8] = _pycuda_call(cuda.pagelocked_empty, size, np.uint8)
        self._made += 1
        return made

    def free_pinned(self, array: NDArray[np.uint8]) -> None:
        """Give it back."""
        _pycuda_call(array.base.free)  # type: ignore[union-attr]

    def stream(self) -> int:
        """A stream that does not wait for the default one."""
        made = _pycuda_call(cuda.Stream, _NON_BLOCKING)
        self._made += 1
        self._streams[int(made.handle)] = made
        return int(made.handle)

    def close_stream(self, stream: int) -> None:
        """pycuda ends it with the last reference."""
        del self._streams[stream]

    def synchronise(self, stream: int) -> None:
        """Wait for everything in it."""
        _pycuda_call(self._streams[stream].synchronize)

    def copy_in(self, address: int, array: NDArray[Any], stream: int) -> None:
        """Host to device."""
        _pycuda_call(cuda.memcpy_htod_async, address, array, self._streams[stream])

    def copy_out(self, array: NDArray[Any], address: int, stream: int) -> None:
        """Device to host."""
        _pycuda_call(cuda.memcpy_dtoh_async, array, address, self._streams[stream])

    def event(self) -> int:
        """One that knows when it was passed."""
        made = _pycuda_call(cuda.Event)
        self._made += 1
        self._events[self._made] = made
        return self._made

    def close_event(self, event: int) -> None:
        """pycuda ends it with the last reference."""
        del self._events[event]

    def record(self, event: int, stream: int) -> None:
        """Put it into the stream."""
        _pycuda_call(self._events[event].record, self._streams[stream])

    def wait(self, event: int) -> None:
        """Wait until it was passed."""
        _pycuda_call(self._events[event].synchronize)

    def elapsed_ms(self, first: int, second: int) -> float:
        """As the device measured it."""
        return float(_pycuda_call(self._events[first].time_till, self._events[second]))

    def free_bytes(self) -> int:
        """As the driver says."""
        free, _total = _pycuda_call(cuda.mem_get_info)
        return int(free)

    def close(self) -> None:
        """Release the primary context, which ends with its last user."""
        if self._context is not None:
            context, self._context = self._context, None
            _pycuda_call(context.push)
            _pycuda_call(context.detach)


def _pycuda_call(function: Callable[..., Any], *arguments: Any) -> Any:
    """The answer of one call, with pycuda's errors turned into ours."""
    try:
        return function(*arguments)
    except cuda.Error as err:
        call, _, said = str(err).partition(" failed: ")
        raise DeviceError(call, said or type(err).__name__) from err
