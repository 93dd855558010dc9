"""The doctor's look at the way to a GPU: driver, cards, TensorRT, device memory, plans; each asked by itself.

The driver is asked first. TensorRT is imported and nothing of it is made, because a runtime of it without a
driver ends the process.
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec

from realtime.run.doctor import Finding

DRIVER = "install NVIDIA's driver for the card; the CPU needs nothing"
PACKAGE = "uv sync --inexact --extra rtx"
PYCUDA = "sh benchmarks/gpu/build_pycuda.sh"
GIB = 1 << 30


def gpu() -> Iterator[Finding]:
    """Everything that a plan needs to run here, in the order in which one thing needs another."""
    yield from cards()
    yield tensorrt()
    yield from memory()
    yield kept_plans()


def cards() -> Iterator[Finding]:
    """The driver and what it offers."""
    from engines.gpu_driver import gpus, why_no_gpu

    if why := why_no_gpu():
        yield Finding("GPU", "absent", why, DRIVER)
        return
    found = gpus()
    if not found:
        yield Finding(
            "GPU", "broken", "the driver counts a GPU and cannot describe it", "restart the machine"
        )
        return
    yield Finding("driver", "ok", "offers CUDA {}.{}".format(*found[0].driver))
    for card in found:
        about = f"{card.name}, compute capability {card.sm}, {card.memory / GIB:.1f} GiB"
        yield Finding(f"GPU {card.index}", "ok", about)


def tensorrt() -> Finding:
    """Which TensorRT is installed, and whether the driver is new enough for it."""
    from engines.gpu_driver import TENSORRT_MODULES, oldest_driver, why_too_old
    from engines.protocol import EngineUnavailable
    from engines.tensorrt_backend import find_backend

    try:
        backend = find_backend()
    except EngineUnavailable as err:
        is_there = any(find_spec(name) for name in TENSORRT_MODULES)
        return Finding("TensorRT", "broken" if is_there else "absent", str(err), PACKAGE)
    if why := why_too_old(backend.flavour):
        return Finding("TensorRT", "absent", f"{backend}, but {why}", DRIVER)
    (major, minor), release = oldest_driver(backend.flavour)
    needs = f"needs a driver for CUDA {major}.{minor} (release {release} on Linux)"
    return Finding("TensorRT", "ok", f"{backend}; {needs}")


def memory() -> Iterator[Finding]:
    """Each way to the memory of a card; one of them is enough."""
    from engines.device_memory import why_not
    from engines.gpu_driver import why_no_gpu

    without_driver = why_no_gpu()
    for name, cure in (("cuda-python", PACKAGE), ("pycuda", PYCUDA)):
        why = why_not(name)
        if why is None:
            yield Finding(name, "ok", "works")
        else:
            yield Finding(name, "absent", why, DRIVER if why == without_driver else cure)


def kept_plans() -> Finding:
    """How many plans were built for this user."""
    from engines import plans

    found = plans.listed()
    size = sum(plan.size for plan in found)
    where = plans.plans_dir()
    about = f"{len(found)}, {size / 1e6:.1f} MB in {where}" if found else f"none in {where}"
    return Finding("plans", "ok", f"{about}; see 'liveaffect engines list'")
