"""Memory on a device, behind one small interface, so that the engine does not care who provides it.

    pycuda        what many CUDA programs use; published as source only
    cuda-python   the vendor's bindings to the driver, as wheels
    host          NumPy: no GPU at all, for walking every line without one

Streams, events, graphs and addresses are plain numbers, because numbers are what TensorRT takes. Copies are
asynchronous and in the order of their stream; memory for them is page-locked, or they would not be. Nothing
here is thread-safe, and whoever calls from another thread does so inside `active()`.

Both packages give memory and contexts, and pycuda gives no graphs, so everything that is the same for both
is a dozen functions of libcuda by ctypes. The context is the primary one of the device, which TensorRT and
torch use too. A stream of the host works only when somebody waits for it, so code that forgets to wait
reads what was there before, here as on a GPU; an address that was not allocated is the error it would be
there.
"""

from __future__ import annotations

import ctypes
import itertools
from collections.abc import Callable, Iterator, Sized
from contextlib import AbstractContextManager, contextmanager
from importlib import import_module
from importlib.util import find_spec
from typing import Any, Protocol
from weakref import WeakValueDictionary

import numpy as np
from numpy.typing import NDArray

from liveaffect.engines import gpu_driver, stopwatch
from liveaffect.engines.gpu_driver import LIBRARY
from liveaffect.engines.protocol import EngineUnavailable

NAMES = ("pycuda", "cuda-python", "host")
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
            kinds: dict[str, Callable[[str | None], DeviceMemory]] = {
                "pycuda": PycudaMemory,
                "cuda-python": CudaPythonMemory,
                "host": HostMemory,
            }
            return kinds[one](uuid)
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
