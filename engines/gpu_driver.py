"""What the GPU path needs of this machine: a card, its driver, asked before anything else, and a TensorRT.

A TensorRT runtime that is made without a working driver ends the whole process with a segmentation fault,
so the driver library is loaded and initialised by hand first; every step says what was missing. A driver
that is older than the CUDA that TensorRT was built with refuses every plan, so that is asked too.

No other module imports TensorRT; they are handed the `Backend` that is found: `tensorrt`, else
`tensorrt_rtx`, which have the same interface as far as this project uses it. Nothing here makes a runtime
object.
"""

from __future__ import annotations

import ctypes
import re
import sys
from dataclasses import dataclass
from importlib import import_module, metadata
from importlib.util import find_spec
from typing import Any
from uuid import UUID

from liveaffect.engines.protocol import EngineUnavailable

TENSORRT_MODULES = ("tensorrt", "tensorrt_rtx")
FLAVOURS = {"tensorrt": "TensorRT", "tensorrt-rtx": "TensorRT-RTX"}
"""The module's name with a dash, and how a person says it."""
INSTALL = {"tensorrt": "pip install 'liveaffect[trt]'", "tensorrt-rtx": "pip install 'liveaffect[rtx]'"}
OLDEST_DRIVER = {12: ((12, 2), "535"), 13: ((13, 0), "580")}
"""By the CUDA that a TensorRT package was built for: the CUDA its driver must offer, and the first release
on Linux that does. TensorRT and TensorRT-RTX ask for the same."""
NEWEST_CUDA = max(OLDEST_DRIVER)

RTX_RUNS = "8.0, 8.6, 8.9, 12.0 and above"
"""The compute capabilities on which TensorRT-RTX 1.7 runs a plan, as the library says. It refuses 8.7, 9.0
(Hopper) and 10.0, also with a plan in hand; a plan for Turing (7.5) would have to be built for it alone."""
TORCH_INSTEAD = "torch runs there: pip install 'liveaffect[torch-gpu]'"

LIBRARY = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"
_MAJOR, _MINOR = 75, 76
"""CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR and _MINOR."""


@dataclass(frozen=True, slots=True)
class Gpu:
    """One device, as the driver describes it."""

    index: int
    name: str
    """Such as 'NVIDIA GeForce RTX 4070'."""
    capability: tuple[int, int]
    """Compute capability, such as (8, 9)."""
    driver: tuple[int, int]
    """The newest CUDA that the driver offers, such as (13, 0)."""
    memory: int
    """Bytes."""
    uuid: str = ""
    """Such as 'GPU-4c4a1f6e-...': the one name of a card that does not depend on who counts."""

    @property
    def sm(self) -> str:
        """The compute capability as it is written, such as '8.9'."""
        return f"{self.capability[0]}.{self.capability[1]}"


def why_refused(flavour: str, gpu: Gpu) -> str | None:
    """Why this flavour of TensorRT runs nothing on this card; None if it does."""
    if flavour != "tensorrt-rtx" or gpu.capability in ((8, 0), (8, 6), (8, 9)) or gpu.capability >= (12, 0):
        return None
    return (
        f"TensorRT-RTX does not run on {gpu.name}, which has compute capability {gpu.sm}; it supports "
        f"{RTX_RUNS}; {TORCH_INSTEAD}, or TensorRT itself from NVIDIA's own package index"
    )


def gpus(library: str = LIBRARY) -> tuple[Gpu, ...]:
    """Every GPU that the driver offers, in its order; none where `why_no_gpu` has an answer."""
    if why_no_gpu(library) is not None:
        return ()
    driver = ctypes.CDLL(library)
    version = _driver_version(driver)
    count = ctypes.c_int(0)
    driver.cuDeviceGetCount(ctypes.byref(count))
    found = (_described(driver, index, version) for index in range(count.value))
    return tuple(gpu for gpu in found if gpu is not None)


def why_no_gpu(library: str = LIBRARY, flavour: str | None = None) -> str | None:
    """Why the driver offers no GPU, in a few words; None if it offers one.

    With a flavour of TensorRT, also why the driver that offers one is too old for it.
    """
    try:
        driver = ctypes.CDLL(library)
    except OSError:
        return f"no NVIDIA driver is installed ({library} is not there)"
    count = ctypes.c_int(0)
    try:
        status = int(driver.cuInit(0))
        if status == 0:
            status = int(driver.cuDeviceGetCount(ctypes.byref(count)))
        version = _driver_version(driver)
    except AttributeError as err:
        return f"{library} is not an NVIDIA driver ({err})"
    release = "CUDA {}.{}".format(*version)
    if status != 0:
        return f"the NVIDIA driver ({release}) finds no GPU it can use (cuInit error {status})"
    if count.value == 0:
        return f"the NVIDIA driver ({release}) lists no GPU"
    return None if flavour is None else why_too_old(flavour, library)


def why_driver_refuses() -> str | None:
    """Why TensorRT cannot be used here, in a few words; None if driver and package are both there."""
    if why := why_no_gpu():
        return why
    installed = [name for name in TENSORRT_MODULES if find_spec(name)]
    if not installed:
        return f"neither tensorrt nor tensorrt_rtx is installed ({INSTALL['tensorrt-rtx']})"
    return why_too_old(installed[0].replace("_", "-"))


def why_too_old(flavour: str, library: str = LIBRARY) -> str | None:
    """Why the driver is too old for the installed package of this flavour; None if there is no driver."""
    try:
        version = _driver_version(ctypes.CDLL(library))
    except (OSError, AttributeError):
        return None
    wanted, release = oldest_driver(flavour)
    if version >= wanted:
        return None
    return (
        "the NVIDIA driver (CUDA {}.{}) is too old for {}, which needs one for CUDA {}.{} or newer "
        "(release {} or newer on Linux); install a newer driver"
    ).format(*version, FLAVOURS.get(flavour, flavour), *wanted, release)


def cuda_of(flavour: str) -> int:
    """The major version of CUDA that the installed package was built for; the newest known if it is silent.

    The packages say it in their names, such as tensorrt-cu12-libs and tensorrt-rtx-cu13-libs.
    """
    pattern = re.compile(rf"{flavour}-cu(\d+)(-|$)")
    names = (re.sub("[-_.]+", "-", one.name or "").lower() for one in metadata.distributions())
    found = [int(match[1]) for name in names if (match := pattern.match(name))]
    return max(found, default=NEWEST_CUDA)


def oldest_driver(flavour: str) -> tuple[tuple[int, int], str]:
    """The CUDA that the driver must offer for the installed package, and its first release on Linux."""
    cuda = cuda_of(flavour)
    return OLDEST_DRIVER.get(cuda, ((cuda, 0), f"for CUDA {cuda}"))


def _driver_version(driver: ctypes.CDLL) -> tuple[int, int]:
    version = ctypes.c_int(0)
    driver.cuDriverGetVersion(ctypes.byref(version))
    return version.value // 1000, version.value % 1000 // 10


def _described(driver: ctypes.CDLL, index: int, version: tuple[int, int]) -> Gpu | None:
    """One device, or None if the driver fails to describe it."""
    device, memory, name = ctypes.c_int(0), ctypes.c_size_t(0), ctypes.create_string_buffer(256)
    parts = [ctypes.c_int(0), ctypes.c_int(0)]
    statuses = [
        driver.cuDeviceGet(ctypes.byref(device), index),
        driver.cuDeviceGetName(name, len(name), device),
        driver.cuDeviceTotalMem_v2(ctypes.byref(memory), device),
        driver.cuDeviceGetAttribute(ctypes.byref(parts[0]), _MAJOR, device),
        driver.cuDeviceGetAttribute(ctypes.byref(parts[1]), _MINOR, device),
    ]
    if any(statuses):
        return None
    mark = (ctypes.c_ubyte * 16)()
    parted = "" if driver.cuDeviceGetUuid_v2(mark, device) else f"GPU-{UUID(bytes=bytes(mark))}"
    capability = (parts[0].value, parts[1].value)
    return Gpu(index, name.value.decode("utf-8", "replace"), capability, version, memory.value, parted)


@dataclass(frozen=True, slots=True)
class Backend:
    """One installed TensorRT."""

    module: Any
    """`tensorrt` or `tensorrt_rtx`."""
    flavour: str
    """'tensorrt' or 'tensorrt-rtx'."""
    version: str
    """Such as '1.7.1.116'; a plan works with exactly this one."""

    @property
    def is_rtx(self) -> bool:
        """Whether plans are finished on the user's card (TensorRT-RTX) or while building (TensorRT)."""
        return self.flavour == "tensorrt-rtx"

    def __str__(self) -> str:
        return f"{FLAVOURS[self.flavour]} {self.version}"


def find_backend() -> Backend:
    """The TensorRT that is installed, the data-centre edition first.

    Raises EngineUnavailable with what was tried and the command that installs one.
    """
    tried: list[str] = []
    for name in TENSORRT_MODULES:
        try:
            module = import_module(name)
            version = str(module.__version__)
        except ModuleNotFoundError as err:
            missing = "is not installed" if err.name == name else f"lacks a part ({err})"
            tried.append(f"{name} {missing}")
        except (ImportError, OSError, AttributeError) as err:
            tried.append(f"{name} cannot be imported ({(str(err).splitlines() or [''])[0]})")
        else:
            return Backend(module, name.replace("_", "-"), version)
    raise EngineUnavailable(
        f"there is no TensorRT: {', '.join(tried)}; {INSTALL['tensorrt-rtx']}, "
        f"or {INSTALL['tensorrt']} where the vendor's own package index can be reached"
    )
