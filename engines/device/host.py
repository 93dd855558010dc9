"""A device that is not there: the host's own memory, with streams that put everything off.

Nothing is done when it is handed in. A stream works only when somebody waits for it, so code that forgets to
wait reads what was there before, here as on a GPU. Addresses are real ones, but only those that were
allocated here can be used; a stray one is the error it would be there. A stream that is being captured notes
work down for its graph and refuses to be waited for.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sized
from contextlib import contextmanager
from typing import Any
from weakref import WeakValueDictionary

import numpy as np
from numpy.typing import NDArray

from liveaffect.engines import stopwatch
from liveaffect.engines.device_memory import DeviceError

Work = Callable[[], None]
_handles = itertools.count(0x1000)
_owners: WeakValueDictionary[int, HostMemory] = WeakValueDictionary()
"""By stream, so that a scripted runtime finds the memory behind the number it is given."""
TOTAL = 1 << 30
ALIGNED = 256
"""A real device gives addresses that are multiples of this."""


class _Stream:
    """Work that waits for its turn, and how much of it was done."""

    def __init__(self) -> None:
        self.waiting: list[Work] = []
        self.done = 0
        self.captured: list[Work] | None = None
        self.broken = False


class HostMemory:
    """Everything a device has, on the host."""

    name = "host"

    def __init__(self, device: int = 0) -> None:
        self.allocations = 0
        self.waits = 0
        """How often somebody waited, for tests that allow one wait."""
        self._memory: dict[int, NDArray[np.uint8]] = {}
        self._pinned: dict[int, NDArray[np.uint8]] = {}
        self._streams: dict[int, _Stream] = {}
        self._events: dict[int, tuple[int, int]] = {}
        self._passed_ns: dict[int, int] = {}
        self._graphs: dict[int, list[Work]] = {}
        self._depth = 0
        self._closed = False

    @contextmanager
    def _activate(self) -> Iterator[None]:
        self._depth += 1
        try:
            yield
        finally:
            self._depth -= 1

    def active(self) -> Any:
        """Everything else is refused outside of it."""
        return self._activate()

    def allocate(self, size: int) -> int:
        """Bytes that only work in a stream may touch."""
        self._check("cuMemAlloc")
        if size <= 0:
            raise DeviceError("cuMemAlloc", "CUDA_ERROR_INVALID_VALUE")
        if size > self.free_bytes():
            raise DeviceError("cuMemAlloc", "CUDA_ERROR_OUT_OF_MEMORY")
        array = np.full(size + ALIGNED, 0xA5, np.uint8)
        array = array[-int(array.ctypes.data) % ALIGNED :][:size]
        address = int(array.ctypes.data)
        self._memory[address] = array
        self.allocations += 1
        return address

    def free(self, address: int) -> None:
        """Give them back."""
        self._check("cuMemFree")
        if self._memory.pop(address, None) is None:
            raise DeviceError("cuMemFree", "CUDA_ERROR_INVALID_VALUE")

    def pinned(self, size: int) -> NDArray[np.uint8]:
        """Ordinary bytes."""
        self._check("cuMemHostAlloc")
        array = np.full(size, 0xA5, np.uint8)
        self._pinned[int(array.ctypes.data)] = array
        self.allocations += 1
        return array

    def free_pinned(self, array: NDArray[np.uint8]) -> None:
        """Give them back."""
        self._check("cuMemFreeHost")
        if self._pinned.pop(int(array.ctypes.data), None) is None:
            raise DeviceError("cuMemFreeHost", "CUDA_ERROR_INVALID_VALUE")

    def stream(self) -> int:
        """A list of work."""
        handle = self._made()
        self._streams[handle] = _Stream()
        _owners[handle] = self
        return handle

    def close_stream(self, stream: int) -> None:
        """What was not waited for is never done."""
        self._of(stream)
        del self._streams[stream], _owners[stream]

    def synchronise(self, stream: int) -> None:
        """Do everything."""
        found = self._of(stream)
        self.waits += 1
        self._run(found, found.done + len(found.waiting))

    def copy_in(self, address: int, array: NDArray[Any], stream: int) -> None:
        """Reads the array when the stream comes to it."""
        target = self.view(address, array.nbytes)
        self.enqueue(stream, lambda: np.copyto(target, _bytes(array)))

    def copy_out(self, array: NDArray[Any], address: int, stream: int) -> None:
        """Fills the array when the stream comes to it."""
        source = self.view(address, array.nbytes)
        self.enqueue(stream, lambda: np.copyto(_bytes(array), source))

    def event(self) -> int:
        """A place in a stream."""
        handle = self._made()
        self._events[handle] = (0, 0)
        return handle

    def close_event(self, event: int) -> None:
        """Give it back."""
        self._check("cuEventDestroy")
        if self._events.pop(event, None) is None:
            raise DeviceError("cuEventDestroy", "CUDA_ERROR_INVALID_HANDLE")

    def record(self, event: int, stream: int) -> None:
        """Notes the place, and the time when the stream comes to it."""

        def pass_by() -> None:
            self._passed_ns[event] = stopwatch.wall_ns()

        self.enqueue(stream, pass_by)
        found = self._of(stream)
        self._events[event] = (stream, found.done + len(found.waiting))

    def wait(self, event: int) -> None:
        """Do what stands before the mark, in its own stream."""
        self._check("cuEventSynchronize")
        stream, place = self._events[event]
        self.waits += 1
        if stream in self._streams:
            self._run(self._streams[stream], place)

    def elapsed_ms(self, first: int, second: int) -> float:
        """Time of the host."""
        if first not in self._passed_ns or second not in self._passed_ns:
            raise DeviceError("cuEventElapsedTime", "CUDA_ERROR_NOT_READY")
        return (self._passed_ns[second] - self._passed_ns[first]) / 1e6

    def begin_capture(self, stream: int) -> None:
        """Note down from here on."""
        found = self._of(stream)
        found.captured, found.broken = [], False

    def end_capture(self, stream: int) -> int:
        """What was noted."""
        found = self._of(stream)
        noted, found.captured = found.captured, None
        if noted is None or found.broken:
            raise DeviceError("cuStreamEndCapture", "CUDA_ERROR_STREAM_CAPTURE_INVALIDATED")
        handle = self._made()
        self._graphs[handle] = noted
        return handle

    def launch(self, graph: int, stream: int) -> None:
        """All of it, as one piece of work."""
        noted = self._graphs[graph]

        def all_of_it() -> None:
            for work in noted:
                work()

        self.enqueue(stream, all_of_it)

    def close_graph(self, graph: int) -> None:
        """Give it back."""
        del self._graphs[graph]

    def free_bytes(self) -> int:
        """As if the device had a gibibyte."""
        return TOTAL - sum(len(array) for array in self._memory.values())

    def close(self) -> None:
        """What is left then was forgotten, and that is an error here."""
        left: dict[str, Sized] = {
            "memory": self._memory,
            "pinned memory": self._pinned,
            "streams": self._streams,
            "events": self._events,
            "graphs": self._graphs,
        }
        forgotten = [f"{len(things)} {what}" for what, things in left.items() if things]
        self._closed = True
        if forgotten:
            raise DeviceError("cuDevicePrimaryCtxRelease", f"left behind: {', '.join(forgotten)}")

    def enqueue(self, stream: int, work: Work) -> None:
        """Hand in what a kernel would do."""
        found = self._of(stream)
        if found.captured is not None:
            found.captured.append(work)
        else:
            found.waiting.append(work)

    def capturing(self, stream: int) -> bool:
        """Whether its work is being noted down."""
        return self._of(stream).captured is not None

    def view(self, address: int, size: int) -> NDArray[np.uint8]:
        """The bytes at an address, or the error that a stray address is."""
        for start, array in self._memory.items():
            if start <= address and address + size <= start + len(array):
                return array[address - start : address - start + size]
        raise DeviceError("access to memory", "CUDA_ERROR_ILLEGAL_ADDRESS")

    def _run(self, stream: _Stream, until: int) -> None:
        if stream.captured is not None:
            stream.broken = True
            raise DeviceError("cuStreamSynchronize", "CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED")
        while stream.done < until and stream.waiting:
            stream.done += 1
            stream.waiting.pop(0)()

    def _made(self) -> int:
        self._check("creating")
        self.allocations += 1
        return next(_handles)

    def _of(self, stream: int) -> _Stream:
        self._check("using a stream")
        if stream not in self._streams:
            raise DeviceError("using a stream", "CUDA_ERROR_INVALID_HANDLE")
        return self._streams[stream]

    def _check(self, call: str) -> None:
        if self._closed or not self._depth:
            raise DeviceError(call, "CUDA_ERROR_INVALID_CONTEXT")


def owner(stream: int) -> HostMemory:
    """The memory that a stream belongs to."""
    if stream not in _owners:
        raise DeviceError("using a stream", "CUDA_ERROR_INVALID_HANDLE")
    return _owners[stream]


def _bytes(array: NDArray[Any]) -> NDArray[np.uint8]:
    flat: NDArray[np.uint8] = array.reshape(-1).view(np.uint8)
    return flat
