"""Is there an NVIDIA GPU that TensorRT could use? Asked of the driver itself, before anything else.

A TensorRT runtime that is made without a working driver ends the whole process with a segmentation
fault, so the driver library is loaded and initialised by hand first; every step says what was missing.
"""

from __future__ import annotations

import ctypes
import sys
from importlib.util import find_spec

TENSORRT_MODULES = ("tensorrt", "tensorrt_rtx")
_LIBRARY = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"


def why_no_gpu(library: str = _LIBRARY) -> str | None:
    """Why the driver offers no GPU, in a few words; None if it offers one."""
    try:
        driver = ctypes.CDLL(library)
    except OSError:
        return f"no NVIDIA driver is installed ({library} is not there)"
    try:
        status = int(driver.cuInit(0))
        count, version = ctypes.c_int(0), ctypes.c_int(0)
        if status == 0:
            status = int(driver.cuDeviceGetCount(ctypes.byref(count)))
        driver.cuDriverGetVersion(ctypes.byref(version))
    except AttributeError as err:
        return f"{library} is not an NVIDIA driver ({err})"
    release = f"CUDA {version.value // 1000}.{version.value % 1000 // 10}"
    if status != 0:
        return f"the NVIDIA driver ({release}) finds no GPU it can use (cuInit error {status})"
    if count.value == 0:
        return f"the NVIDIA driver ({release}) lists no GPU"
    return None


def why_no_tensorrt() -> str | None:
    """Why TensorRT cannot be used here, in a few words; None if driver and package are both there."""
    if why := why_no_gpu():
        return why
    if not any(find_spec(name) for name in TENSORRT_MODULES):
        return "neither tensorrt nor tensorrt_rtx is installed (pip install 'liveaffect[rtx]')"
    return None
