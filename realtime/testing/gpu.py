"""A GPU that is not there: a driver library and TensorRT's runtime, both on the host's memory.

The driver is compiled when a test wants it, so that the packages for device memory run unchanged. It keeps
the promises that code can break by mistake: a current context on the calling thread, live handles, and
captured work that waits for its launch.

The runtime has the names and the signatures of the real module, as far as this project uses them, and a
test compares the two. Its plans hold an ONNX file, which ONNX Runtime computes when the stream comes to it.
What the real one leaves undefined is an error here: a context that was changed after a graph was captured
from it, an address that was freed, a shape outside of the profile, scratch memory that nobody gave.
"""

from __future__ import annotations

import enum
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from liveaffect.engines import device_memory
from liveaffect.engines import manifest as manifests
from liveaffect.engines.device_memory import DeviceError, HostMemory
from liveaffect.engines.gpu_driver import Backend, Gpu
from liveaffect.engines.gpu_load import GpuTools
from liveaffect.engines.manifest import Manifest
from liveaffect.engines.plans import BuiltPlan, batch_ranges

DRIVER = "libcuda.so.1"

SOURCE = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>
#include <stdint.h>
#include <time.h>
typedef unsigned long long Ptr;
static __thread void *stack[64];
static __thread int top;
static int context_users, live_things;
static size_t used;
struct Copy { void *to; const void *from; size_t size; struct Copy *next; };
struct Stream { int capturing; struct Copy *first, **last; };
struct Event { double ms; };
static double now_ms(void) {
    struct timespec t; clock_gettime(CLOCK_MONOTONIC, &t); return t.tv_sec * 1e3 + t.tv_nsec / 1e6;
}
#define NEED if (!top || !stack[top - 1]) return 201; if (context_users < 1) return 201
int cuInit(unsigned flags) { return INIT; }
int cuDriverGetVersion(int *v) { *v = VERSION; return 0; }
int cuDeviceGetCount(int *n) { *n = COUNT; return 0; }
int cuDeviceGet(int *d, int i) { *d = 10 + i; return i < COUNT ? 0 : 101; }
int cuDeviceGetName(char *name, int size, int d) {
    strncpy(name, d == 10 ? "NVIDIA Made Up 4090" : "NVIDIA Made Up 2080", size); return 0;
}
int cuDeviceTotalMem_v2(size_t *n, int d) { *n = (size_t)24 << 30; return d == 12 ? 999 : 0; }
int cuDeviceGetAttribute(int *v, int what, int d) {
    *v = what == 75 ? (d == 10 ? 8 : 7) : what == 76 ? (d == 10 ? 9 : 5) : 0; return 0;
}
int cuDeviceGetUuid_v2(char *mark, int d) { memset(mark, d, 16); return 0; }
int cuDevicePrimaryCtxRetain(void **c, int d) { context_users++; *c = &context_users; return 0; }
int cuDevicePrimaryCtxRelease_v2(int d) { return context_users-- > 0 ? 0 : 201; }
int cuCtxSetCurrent(void *c) { if (!top) top = 1; stack[top - 1] = c; return 0; }
int cuCtxGetCurrent(void **c) { *c = top ? stack[top - 1] : 0; return 0; }
int cuCtxPushCurrent_v2(void *c) { stack[top++] = c; return 0; }
int cuCtxPopCurrent_v2(void **c) { if (!top) return 201; top--; if (c) *c = stack[top]; return 0; }
int cuCtxGetDevice(int *d) { NEED; *d = 0; return 0; }
int cuCtxGetApiVersion(void *c, unsigned *v) { *v = 13030; return 0; }
int cuCtxSynchronize(void) { NEED; return 0; }
int cuMemAlloc_v2(Ptr *p, size_t n) {
    NEED; if (n > (1u << 30) - used) return 2;
    char *raw = malloc(n + 64); *(size_t *)raw = n; used += n; live_things++; *p = (Ptr)(raw + 64); return 0;
}
int cuMemFree_v2(Ptr p) {
    NEED; char *raw = (char *)p - 64; used -= *(size_t *)raw; free(raw); live_things--; return 0;
}
int cuMemHostAlloc(void **p, size_t n, unsigned f) { NEED; *p = malloc(n); live_things++; return 0; }
int cuMemFreeHost(void *p) { NEED; free(p); live_things--; return 0; }
int cuMemGetInfo_v2(size_t *f, size_t *t) { NEED; *f = (1u << 30) - used; *t = 1u << 30; return 0; }
int cuStreamCreate(struct Stream **s, unsigned f) {
    NEED; if (f != 1) return 1; *s = calloc(1, sizeof **s); live_things++; return 0;
}
int cuStreamDestroy_v2(struct Stream *s) { NEED; free(s); live_things--; return 0; }
int cuStreamSynchronize(struct Stream *s) { NEED; return s->capturing ? 900 : 0; }
static int copy(void *to, const void *from, size_t n, struct Stream *s) {
    if (!s->capturing) { memcpy(to, from, n); return 0; }
    struct Copy *c = malloc(sizeof *c); c->to = to; c->from = from; c->size = n; c->next = 0;
    *s->last = c; s->last = &c->next; return 0;
}
int cuMemcpyHtoDAsync_v2(Ptr to, const void *from, size_t n, struct Stream *s) {
    NEED; return copy((void *)to, from, n, s);
}
int cuMemcpyDtoHAsync_v2(void *to, Ptr from, size_t n, struct Stream *s) {
    NEED; return copy(to, (void *)from, n, s);
}
int cuEventCreate(struct Event **e, unsigned f) { NEED; *e = calloc(1, sizeof **e); live_things++; return 0; }
int cuEventDestroy_v2(struct Event *e) { NEED; free(e); live_things--; return 0; }
int cuEventRecord(struct Event *e, struct Stream *s) { NEED; e->ms = now_ms(); return 0; }
int cuEventSynchronize(struct Event *e) { NEED; return 0; }
int cuEventElapsedTime_v2(float *ms, struct Event *a, struct Event *b) {
    NEED; *ms = b->ms - a->ms; return 0;
}
int cuEventElapsedTime(float *ms, struct Event *a, struct Event *b) {
    return cuEventElapsedTime_v2(ms, a, b);
}
int cuStreamBeginCapture_v2(struct Stream *s, int mode) {
    NEED; if (s->capturing) return 901; s->capturing = 1; s->first = 0; s->last = &s->first; return 0;
}
int cuStreamEndCapture(struct Stream *s, struct Copy **g) {
    NEED; if (!s->capturing) return 901; s->capturing = 0; *g = s->first; live_things++; return 0;
}
int cuGraphInstantiateWithFlags(struct Copy **e, struct Copy *g, Ptr flags) {
    NEED; *e = g; live_things++; return 0;
}
int cuGraphDestroy(struct Copy *g) { live_things--; return 0; }
int cuGraphExecDestroy(struct Copy *e) { NEED; live_things--; return 0; }
int cuGraphLaunch(struct Copy *e, struct Stream *s) {
    NEED; for (; e; e = e->next) copy(e->to, e->from, e->size, s); return 0;
}
int cuGetErrorName(int status, const char **name) {
    *name = status == 2 ? "CUDA_ERROR_OUT_OF_MEMORY"
        : status == 201 ? "CUDA_ERROR_INVALID_CONTEXT" : "CUDA_ERROR";
    return 0;
}
int cuGetErrorString(int status, const char **text) {
    *text = status == 2 ? "out of memory" : "failed"; return 0;
}
int standInLive(void) { return live_things; }
int standInUsers(void) { return context_users; }
int cuGetProcAddress_v2(const char *symbol, void **found, int version, Ptr flags, int *status) {
    char name[128]; Dl_info self; dladdr((void *)cuInit, &self);
    void *here = dlopen(self.dli_fname, RTLD_NOW | RTLD_NOLOAD);
    strcpy(name, symbol); strcat(name, "_v2");
    *found = dlsym(here, name);
    if (!*found) *found = dlsym(here, symbol);
    if (status) *status = *found ? 0 : 1;
    return *found ? 0 : 500;
}
int cuGetProcAddress(const char *symbol, void **found, int version, Ptr flags) {
    return cuGetProcAddress_v2(symbol, found, version, flags, 0);
}
"""


def build_driver(
    folder: Path, for_library: Path | None = None, *, init: int = 0, count: int = 1, version: int = 13030
) -> Path:
    """The driver as a file in `folder`, whose initialisation, number of cards and CUDA are those given.

    With a library that links to a driver, all that it wants is defined. Of three cards the third is broken.

    Raises FileNotFoundError where there is no C compiler.
    """
    compiler = shutil.which("cc")
    if compiler is None:
        raise FileNotFoundError("a stand-in driver is built by the C compiler 'cc', which is not there")
    known = set(re.findall(r"^int (cu\w+)\(", SOURCE, re.MULTILINE))
    unused = sorted(_wanted_symbols(for_library) - known) if for_library else []
    source = folder / "driver.c"
    source.write_text(SOURCE + "".join(f"int {name}(void) {{ return 801; }}\n" for name in unused))
    library = folder / DRIVER
    answers = [f"-DINIT={init}", f"-DCOUNT={count}", f"-DVERSION={version}"]
    subprocess.run([compiler, "-w", "-shared", "-fPIC", *answers, "-o", library, source, "-ldl"], check=True)
    return library


def _wanted_symbols(library: Path) -> set[str]:
    listed = subprocess.run(
        ["nm", "-D", "--undefined-only", library], capture_output=True, text=True, check=True
    )
    return set(re.findall(r"\b(cu[A-Z]\w*)", listed.stdout))


__version__ = "0.scripted"
SIZES = (1, 4, 8)
_MAGIC = b"scripted plan 1\n"
_KERNELS = b"scripted kernels\n"
_SCRATCH = 512


TensorIOMode = enum.Enum("TensorIOMode", {"INPUT": 1, "OUTPUT": 2})
DataType = enum.Enum("DataType", {"FLOAT": 0, "UINT8": 5})
CudaGraphStrategy = enum.Enum("CudaGraphStrategy", {"DISABLED": 0})
DynamicShapesKernelSpecializationStrategy = enum.Enum(
    "DynamicShapesKernelSpecializationStrategy", {"EAGER": 1}
)
ExecutionContextAllocationStrategy = enum.Enum(
    "ExecutionContextAllocationStrategy", {"STATIC": 0, "USER_MANAGED": 2}
)


def nptype(trt_type: DataType) -> type:
    """NumPy's type for it."""
    return {DataType.FLOAT: np.float32, DataType.UINT8: np.uint8}[trt_type]


class ILogger:
    """Is told what happens; a subclass keeps it."""

    Severity = enum.Enum("Severity", {"ERROR": 1})

    def log(self, severity: Severity, msg: str) -> None:
        """One line."""


class Runtime:
    """Opens plans."""

    def __init__(self, logger: ILogger) -> None:
        self._logger = logger

    def deserialize_cuda_engine(self, serialized_engine: bytes) -> ICudaEngine | None:
        try:
            if not serialized_engine.startswith(_MAGIC):
                raise ValueError("it has another version tag")
            about, content = serialized_engine[len(_MAGIC) :].split(b"\n", 1)
            return ICudaEngine(json.loads(about), _session_of(content), self._logger)
        except Exception as err:  # noqa: BLE001  ONNX Runtime's errors have no class in common
            self._logger.log(ILogger.Severity.ERROR, f"The serialized engine is damaged: {err}")  # noqa: G004  no logging
            return None


class ICudaEngine:
    """One network."""

    num_io_tensors = num_optimization_profiles = 0
    device_memory_size_v2 = _SCRATCH

    def __init__(self, about: dict[str, Any], session: Any, logger: ILogger) -> None:
        self._tensors: dict[str, dict[str, Any]] = {tensor["name"]: tensor for tensor in about["tensors"]}
        self._profiles = about["profiles"]
        self._session = session
        self._logger = logger
        self.num_io_tensors = len(self._tensors)
        self.num_optimization_profiles = len(self._profiles)

    def get_tensor_name(self, index: int) -> str:
        return list(self._tensors)[index]

    def get_tensor_mode(self, name: str) -> TensorIOMode:
        return TensorIOMode.INPUT if self._tensors[name]["input"] else TensorIOMode.OUTPUT

    def get_tensor_dtype(self, name: str) -> DataType:
        return {"tensor(float)": DataType.FLOAT, "tensor(uint8)": DataType.UINT8}[self._tensors[name]["type"]]

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return (-1, *self._tensors[name]["shape"])

    def get_tensor_profile_shape(self, name: str, profile_index: int) -> list[tuple[int, ...]]:
        low, high = self._profiles[profile_index]
        return [(batch, *self._tensors[name]["shape"]) for batch in (low, high, high)]

    def create_runtime_config(self) -> IRuntimeConfig:
        return IRuntimeConfig()

    def create_execution_context(self, runtime_config: Any = None) -> IExecutionContext:
        config = runtime_config if isinstance(runtime_config, IRuntimeConfig) else IRuntimeConfig()
        strategy = config._strategy if config is runtime_config else runtime_config
        if strategy is not ExecutionContextAllocationStrategy.USER_MANAGED:
            raise AssertionError("every context is to share the scratch memory of its stream")
        return IExecutionContext(self, config)


class IExecutionContext:
    """Shapes and addresses for one run after the other."""

    def __init__(self, engine: ICudaEngine, config: IRuntimeConfig) -> None:
        self._engine = engine
        self._config = config
        self._profile = 0
        self._rows: dict[str, int] = {}
        self._addresses: dict[str, int] = {}
        self._scratch = 0
        self._changes = 0

    def set_optimization_profile_async(self, profile_index: int, stream_handle: int) -> bool:
        device_memory.owner(stream_handle)
        self._profile = profile_index
        self._changes += 1
        return True

    def set_input_shape(self, name: str, shape: Sequence[int]) -> bool:
        low, _best, high = self._engine.get_tensor_profile_shape(name, self._profile)
        if tuple(shape[1:]) != low[1:] or not low[0] <= shape[0] <= high[0]:
            return self._refuse(f"{name} {tuple(shape)} is outside of profile {self._profile}")
        self._rows[name] = int(shape[0])
        self._changes += 1
        return True

    def update_device_memory_size_for_shapes(self) -> int:
        return _SCRATCH * max(self._rows.values())

    def set_device_memory(self, memory: int, size: int) -> None:
        if size < self.update_device_memory_size_for_shapes():
            raise AssertionError(f"{size} bytes of scratch memory are too few")
        self._scratch = memory

    def is_stream_capturable(self, stream: int) -> bool:
        return device_memory.owner(stream) is not None

    def set_tensor_address(self, name: str, memory: int) -> bool:
        if memory % 256:
            return self._refuse(f"the address of {name} is not aligned")
        self._addresses[name] = memory
        self._changes += 1
        return True

    def execute_async_v3(self, stream_handle: int) -> bool:
        engine, memory = self._engine, device_memory.owner(stream_handle)
        inputs = [n for n in engine._tensors if engine.get_tensor_mode(n) == TensorIOMode.INPUT]
        if missing := [name for name in engine._tensors if name not in self._addresses]:
            return self._refuse(f"no address is set for {', '.join(missing)}")
        addresses, rows, changes = dict(self._addresses), self._rows[inputs[0]], self._changes
        is_captured = memory.capturing(stream_handle)
        memory.view(self._scratch, _SCRATCH * rows)
        if self._config._cache is not None:
            self._config._cache._made.add(f"{self._profile}:{rows}")

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


class IRuntimeCache:
    """Kernels that were made on this machine."""

    def __init__(self) -> None:
        self._made: set[str] = set()

    def deserialize(self, blob: bytes) -> bool:
        if not blob.startswith(_KERNELS):
            return False
        self._made |= set(blob[len(_KERNELS) :].decode().split())
        return True

    def serialize(self) -> bytes:
        return _KERNELS + " ".join(sorted(self._made)).encode()


class IRuntimeConfig:
    """How a context runs."""

    def __init__(self) -> None:
        self.cuda_graph_strategy: CudaGraphStrategy | None = None
        self.dynamic_shapes_kernel_specialization_strategy: Any = None
        self._cache: IRuntimeCache | None = None
        self._strategy = ExecutionContextAllocationStrategy.STATIC

    def create_runtime_cache(self) -> IRuntimeCache:
        return IRuntimeCache()

    def set_runtime_cache(self, cache: IRuntimeCache) -> bool:
        self._cache = cache
        return True

    def set_execution_context_allocation_strategy(self, strategy: ExecutionContextAllocationStrategy) -> None:
        self._strategy = strategy


def backend(flavour: str = "tensorrt-rtx") -> Backend:
    """This module in the place of an installed TensorRT of one flavour or the other."""
    return Backend(sys.modules[__name__], flavour, __version__)


def plan(content: bytes, sizes: Sequence[int] = SIZES) -> bytes:
    """A plan that computes this ONNX file, with a profile for each size."""
    session = _session_of(content)
    tensors = [
        {"name": node.name, "type": node.type, "shape": node.shape[1:], "input": is_input}
        for is_input, nodes in ((True, session.get_inputs()), (False, session.get_outputs()))
        for node in nodes
    ]
    about = {"tensors": tensors, "profiles": batch_ranges(sizes)}
    return _MAGIC + json.dumps(about).encode() + b"\n" + content


def plan_of(folder: Path, kind: str, sizes: Sequence[int] = SIZES) -> tuple[Manifest, bytes]:
    """The manifest of one network in a folder, and a plan that computes it in fp32."""
    found = manifests.read(folder / f"{kind}.json")
    return found, plan(manifests.load_bytes(found, folder, "fp32"), sizes)


class LosableMemory(HostMemory):
    """The memory of a GPU that can be unplugged."""

    lost = False

    def _check(self, call: str) -> None:
        if self.lost:
            raise DeviceError(call, "CUDA_ERROR_DEVICE_UNAVAILABLE")
        super()._check(call)


def tools(memory: Callable[[], HostMemory] = HostMemory, flavour: str = "tensorrt-rtx") -> GpuTools:
    """What running plans takes, on a card that is not there."""
    card = Gpu(0, "Scripted", (8, 9), (13, 0), 1 << 30, "GPU-0")
    return GpuTools(backend(flavour), card, memory)


def build_scripted(content: bytes, **_rest: object) -> BuiltPlan:
    """In the place of `build_plan`: a plan that computes the file as it is, for fewer sizes, to be quick."""
    return BuiltPlan(plan(content, (1, 16)), ("scripted",), 0.5)


def _view(memory: HostMemory, engine: ICudaEngine, name: str, address: int, rows: int) -> NDArray[Any]:
    shape = (rows, *engine.get_tensor_shape(name)[1:])
    kind = np.dtype(nptype(engine.get_tensor_dtype(name)))
    return memory.view(address, int(np.prod(shape)) * kind.itemsize).view(kind).reshape(shape)


def _session_of(content: bytes) -> Any:
    from liveaffect.engines.onnx_engine import PROVIDER, ort, session_options

    return ort.InferenceSession(content, session_options(1), providers=[PROVIDER])
