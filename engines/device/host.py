"""A device that is not there: the host's own memory, with streams that put everything off.

A stream works only when somebody waits for it, so code that forgets to wait reads what was there before, here
as on a GPU. Only addresses that were allocated here can be used; a stray one is the error it would be there.
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

Work = Callable[[], object]
_handles = itertools.count(0x1000)
_owners: WeakValueDictionary[int, HostMemory] = WeakValueDictionary()
"""By stream, so that a scripted runtime finds the memory behind the number it is given."""
TOTAL, ALIGNED = 1 << 30, 256


class _Stream:
    def __init__(self) -> None:
        self.waiting: list[Work] = []
        self.done = 0
        self.captured: list[Work] | None = None
        """What is being noted down for a graph."""


class HostMemory:
    """Everything a device has, on the host. Refuses to be used outside of `active` and to be left untidy."""

    name = "host"

    def __init__(self, uuid: str | None = None) -> None:
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
    def active(self) -> Iterator[None]:
        self._depth += 1
        try:
            yield
        finally:
            self._depth -= 1

    def allocate(self, size: int) -> int:
        self._check("cuMemAlloc")
        if size > self.free_bytes():
            raise DeviceError("cuMemAlloc", "CUDA_ERROR_OUT_OF_MEMORY")
        array = np.full(size + ALIGNED, 0xA5, np.uint8)
        array = array[-int(array.ctypes.data) % ALIGNED :][:size]
        return self._kept(self._memory, array, int(array.ctypes.data))

    def free(self, address: int) -> None:
        self._given_back(self._memory, address)

    def pinned(self, size: int) -> NDArray[np.uint8]:
        self._check("cuMemHostAlloc")
        array = np.full(size, 0xA5, np.uint8)
        self._kept(self._pinned, array, int(array.ctypes.data))
        return array

    def free_pinned(self, array: NDArray[np.uint8]) -> None:
        self._given_back(self._pinned, int(array.ctypes.data))

    def stream(self) -> int:
        handle = self._kept(self._streams, _Stream())
        _owners[handle] = self
        return handle

    def close_stream(self, stream: int) -> None:
        self._given_back(self._streams, stream)

    def synchronise(self, stream: int) -> None:
        found = self._of(stream)
        self._run(found, found.done + len(found.waiting))

    def copy_in(self, address: int, array: NDArray[Any], stream: int) -> None:
        target = self.view(address, array.nbytes)
        self.enqueue(stream, lambda: np.copyto(target, _bytes(array)))

    def copy_out(self, array: NDArray[Any], address: int, stream: int) -> None:
        source = self.view(address, array.nbytes)
        self.enqueue(stream, lambda: np.copyto(_bytes(array), source))

    def event(self) -> int:
        return self._kept(self._events, (0, 0))

    def close_event(self, event: int) -> None:
        self._given_back(self._events, event)

    def record(self, event: int, stream: int) -> None:
        def pass_by() -> None:
            self._passed_ns[event] = stopwatch.wall_ns()

        self.enqueue(stream, pass_by)
        found = self._of(stream)
        self._events[event] = (stream, found.done + len(found.waiting))

    def wait(self, event: int) -> None:
        self._check("cuEventSynchronize")
        stream, place = self._events[event]
        if stream in self._streams:
            self._run(self._streams[stream], place)

    def elapsed_ms(self, first: int, second: int) -> float:
        return (self._passed_ns[second] - self._passed_ns[first]) / 1e6

    def begin_capture(self, stream: int) -> None:
        self._of(stream).captured = []

    def end_capture(self, stream: int) -> int:
        found = self._of(stream)
        noted, found.captured = found.captured, None
        return self._kept(self._graphs, noted)

    def launch(self, graph: int, stream: int) -> None:
        noted = self._graphs[graph]
        self.enqueue(stream, lambda: [work() for work in noted])

    def close_graph(self, graph: int) -> None:
        self._given_back(self._graphs, graph)

    def free_bytes(self) -> int:
        return TOTAL - sum(len(array) for array in self._memory.values())

    def close(self) -> None:
        things: dict[str, Sized] = {"memory": self._memory, "pinned memory": self._pinned}
        things |= {"streams": self._streams, "events": self._events, "graphs": self._graphs}
        forgotten = [f"{len(left)} {what}" for what, left in things.items() if left]
        self._closed = True
        if forgotten:
            raise DeviceError("cuDevicePrimaryCtxRelease", f"left behind: {', '.join(forgotten)}")

    def enqueue(self, stream: int, work: Work) -> None:
        """Hand in what a kernel would do."""
        found = self._of(stream)
        (found.waiting if found.captured is None else found.captured).append(work)

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
        self.waits += 1
        if stream.captured is not None:
            raise DeviceError("cuStreamSynchronize", "CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED")
        while stream.done < until and stream.waiting:
            stream.done += 1
            stream.waiting.pop(0)()

    def _kept(self, where: dict[int, Any], thing: Any, handle: int | None = None) -> int:
        self._check("making something")
        handle = next(_handles) if handle is None else handle
        where[handle] = thing
        self.allocations += 1
        return handle

    def _given_back(self, where: dict[int, Any], handle: int) -> None:
        self._check("giving something back")
        del where[handle]

    def _of(self, stream: int) -> _Stream:
        self._check("using a stream")
        return self._streams[stream]

    def _check(self, call: str) -> None:
        if self._closed or not self._depth:
            raise DeviceError(call, "CUDA_ERROR_INVALID_CONTEXT")


def owner(stream: int) -> HostMemory:
    """The memory that a stream belongs to."""
    return _owners[stream]


def _bytes(array: NDArray[Any]) -> NDArray[np.uint8]:
    flat: NDArray[np.uint8] = array.reshape(-1).view(np.uint8)
    return flat
