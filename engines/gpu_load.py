"""Opens a network on the GPU: finds what that takes, and takes the first way that answers right.

TensorRT, TensorRT-RTX and torch are tried in this order; the driver is asked before anything of them exists.
Half precision is what is built and run; other plans are tried where somebody built them, and which of them
is the fastest at the sizes in use is measured once for each card and remembered beside the plans. Every plan
is compared with fp32 on the CPU; none is believed.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from importlib import metadata
from pathlib import Path

from liveaffect.engines import device_memory, gpu_driver, manifest, parity, plans, stopwatch
from liveaffect.engines.device_memory import DeviceMemory
from liveaffect.engines.gpu_driver import Backend, Gpu, find_backend
from liveaffect.engines.manifest import Manifest
from liveaffect.engines.plans import PlanMissing
from liveaffect.engines.protocol import (
    Engine,
    EngineError,
    EngineFailed,
    EngineFileError,
    EngineUnavailable,
)
from liveaffect.engines.tensorrt_engine import RunOptions, TensorRTEngine

BUILT = ("fp16", "fp32")
"""What is built unasked: fp32 only where fp16 cannot be had or answers otherwise."""
TRIED = ("fp16", "int8", "fp32")
"""Which plans are looked for; fp32-tf32 is for measuring."""
TORCH = "torch-"
"""Before a precision: the way without a plan."""
SIZES_IN_USE = (1, 4, 16)
"""Batches at which plans are timed: one face, a few, a room."""
ITEMS = 16
"""Made-up inputs on which a plan is compared with the CPU: enough to see whether answers follow."""
ROUNDS = 20
BUILD = "build it with 'liveaffect build --precision fp16'"

Report = Callable[[str], None]
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class GpuTools:
    """What running a plan takes on this machine."""

    backend: Backend
    gpu: Gpu
    open_memory: Callable[[], DeviceMemory] = device_memory.open_memory


def find_tools() -> GpuTools:
    """Driver, GPU, TensorRT and device memory. Raises EngineUnavailable with the first that is missing."""
    if why := gpu_driver.why_driver_refuses():
        raise EngineUnavailable(why)
    backend = find_backend()
    gpu = find_gpu(backend.flavour)
    if why := gpu_driver.why_refused(backend.flavour, gpu):
        raise EngineUnavailable(why)
    whys = [device_memory.why_no_memory(name) for name in ("cuda-python", "pycuda")]
    if all(whys):
        raise EngineUnavailable(f"no way to the memory of {gpu.name}: {'; '.join(filter(None, whys))}")
    return GpuTools(backend, gpu, partial(device_memory.open_memory, "auto", gpu.uuid))


def find_gpu(flavour: str = "") -> Gpu:
    """The first card that runs this flavour of TensorRT, else the first one."""
    found = gpu_driver.gpus()
    if not found:
        raise EngineUnavailable("the NVIDIA driver lists a GPU and does not describe it")
    return next((gpu for gpu in found if gpu_driver.why_refused(flavour, gpu) is None), found[0])


def why_no_tensorrt() -> str | None:
    """Why no plan can run on a GPU here, in a few words; None if one can."""
    try:
        find_tools()
    except EngineUnavailable as err:
        return str(err)
    return None


def why_no_torch() -> str | None:
    """Why torch cannot be tried on a GPU here, without importing it; None if it can."""
    if why := gpu_driver.why_no_gpu():
        return why
    try:
        version = metadata.version("torch")
    except metadata.PackageNotFoundError:
        return "torch is not installed (pip install 'liveaffect[torch-gpu]')"
    return f"the torch that is installed ({version}) is for the CPU" if version.endswith("+cpu") else None


def build_plans(found: Manifest, folder: Path, tools: GpuTools, report: Report = _log.info) -> None:
    """Build the plan of this network if it is not there yet. Raises EngineError if none can be had."""
    failed = []
    for precision in BUILT:
        try:
            plans.obtain(
                plans.key_of(found, precision, tools.backend, tools.gpu),
                partial(plans.source_bytes, found, folder, precision),
                tools.backend,
                report=report,
            )
        except (EngineError, ImportError) as err:
            failed.append(f"{precision}: {err}")
            report(f"{found.kind} {precision}: no plan: {err}")
        else:
            return
    raise EngineUnavailable(f"no plan could be built for the {found.kind} network: {'; '.join(failed)}")


def open_plan(found: Manifest, precision: str, tools: GpuTools) -> TensorRTEngine:
    """One plan out of the cache, warm.

    Raises PlanMissing if there is none that is whole, EngineFileError if TensorRT refuses it, EngineFailed if
    the GPU does.
    """
    key = plans.key_of(found, precision, tools.backend, tools.gpu)
    try:
        plan = plans.read_plan(key)
    except EngineFileError as err:
        raise PlanMissing(str(err)) from err
    kept = plans.runtime_cache_path(key, tools.gpu)
    kernels = kept.read_bytes() if kept.is_file() else b""
    engine = TensorRTEngine(
        found,
        precision,
        plan,
        backend=tools.backend,
        memory=tools.open_memory(),
        options=RunOptions(runtime_cache=kernels, owns_memory=True),
    )
    with ExitStack() as undo:
        undo.callback(engine.close)
        engine.warm_up()
        made = engine.runtime_cache()
        if made and made != kernels:
            manifest.write_whole(kept, made)
        undo.pop_all()
    return engine


def open_torch(found: Manifest, folder: Path, precision: str = "fp16") -> Engine:
    """The network on torch on a GPU, with CUDA graphs, warm. Raises EngineUnavailable."""
    try:
        from liveaffect.engines import torch_engine
    except ImportError as err:
        raise EngineUnavailable(f"torch cannot be used: {err}; pip install 'liveaffect[torch-gpu]'") from err
    if why := torch_engine.why_no_cuda():
        raise EngineUnavailable(why)
    device = torch_engine.device_of(find_gpu().uuid)
    options = torch_engine.TorchOptions(device=device, precision=precision, graphs=True)
    return torch_engine.open_weights(found, folder, options)


def open_way(found: Manifest, folder: Path, way: str) -> Engine:
    """What was found to be best: a plan of one precision, or torch."""
    if way.startswith(TORCH):
        return open_torch(found, folder, way.removeprefix(TORCH))
    return open_plan(found, way, find_tools())


def open_any(
    found: Manifest, folder: Path, reference: Engine, report: Report = _log.info
) -> tuple[Engine, str, str]:
    """The best way there is, after building what it lacks: the engine, what to say of it, and its name.

    Raises EngineUnavailable with what is wrong with each.
    """
    try:
        tools = find_tools()
        build_plans(found, folder, tools, report)
        plan, said = open_best(found, reference, tools, report)
        return plan, said, plan.precision
    except EngineError as err:
        why = str(err)
    try:
        if why_not := why_no_torch():
            raise EngineUnavailable(why_not)
        engine, said, way = best_torch(found, folder, reference)
    except EngineError as err:
        raise EngineUnavailable(f"{why}; nor on torch: {err}") from err
    return engine, f"{said}; not TensorRT: {why}", way


def best_torch(found: Manifest, folder: Path, reference: Engine) -> tuple[Engine, str, str]:
    """The network on torch, if it answers like `reference`, what to say about it, and the way's name."""
    refused = []
    for precision in BUILT:
        try:
            engine = open_torch(found, folder, precision)
        except EngineFailed as err:
            refused.append(f"{precision}: {err}")
            continue
        if (why := _why_unlike(found, precision, reference, engine)) is None:
            return engine, f"; {precision}, with CUDA graphs", TORCH + precision
        engine.close()
        refused.append(f"{precision}: {why}")
    raise EngineUnavailable(f"the {found.kind} network on torch: {'; '.join(refused)}")


def open_best(
    found: Manifest, reference: Engine, tools: GpuTools, report: Report = _log.info
) -> tuple[TensorRTEngine, str]:
    """The fastest plan in the cache that answers like `reference`, and what to say about it.

    `reference` is the network in fp32 on the CPU. Raises PlanMissing if there is no plan in any precision,
    EngineUnavailable if none of those there are can be used, with the reason of each.
    """
    remembered = plans.choice_path(plans.key_of(found, "fp16", tools.backend, tools.gpu), tools.gpu)
    there = _plans_there(found, tools)
    opened: list[TensorRTEngine] = []
    refused: list[str] = []
    with ExitStack() as undo:
        chosen = _remembered(remembered, there)
        for precision in [chosen] if chosen else there:
            try:
                engine = open_plan(found, precision, tools)
            except EngineError as err:
                refused.append(f"{precision}: {err}")
                continue
            undo.callback(engine.close)
            if why := _why_unlike(found, precision, reference, engine):
                refused.append(f"{precision}: {why}")
                continue
            opened.append(engine)
        if not opened and not refused:
            raise PlanMissing(f"there is no plan for the {found.kind} network yet; {BUILD}")
        if not opened:
            remembered.unlink(missing_ok=True)
            raise EngineUnavailable(f"no plan of the {found.kind} network can be used: {'; '.join(refused)}")
        best, times = opened[0], ""
        if len(opened) > 1:
            best, times = _fastest(found, opened)
            manifest.write_whole(
                remembered, json.dumps({"precision": best.precision, "of": there}).encode() + b"\n"
            )
        for line in (*(f"{found.kind}: not in {why}" for why in refused), *best.notes):
            report(line)
        undo.pop_all()
    for engine in opened:
        if engine is not best:
            engine.close()
    return best, times or f"; {best.precision}{', the fastest here before' if chosen else ''}"


def tolerance_of(precision: str) -> parity.Tolerance:
    """How far a plan may answer otherwise than fp32 on the CPU, on inputs whose labels mean nothing."""
    return parity.FOLLOWS if precision == "int8" else replace(parity.HALF, flips=None)


def _plans_there(found: Manifest, tools: GpuTools) -> list[str]:
    """The precisions in which a whole plan is in the cache."""
    there = []
    for precision in TRIED:
        try:
            plans.read_plan(plans.key_of(found, precision, tools.backend, tools.gpu))
        except EngineFileError:
            continue
        there.append(precision)
    return there


def _remembered(path: Path, there: Sequence[str]) -> str | None:
    """The precision that was the fastest, as long as the plans are those it was measured among."""
    try:
        kept = json.loads(path.read_bytes())
        return str(kept["precision"]) if kept["of"] == list(there) else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _why_unlike(found: Manifest, precision: str, reference: Engine, engine: Engine) -> str | None:
    compared = parity.compare(reference, engine, _made_up(found, ITEMS), tolerance=tolerance_of(precision))
    return None if compared.alike else f"answers otherwise than the CPU: {'; '.join(compared.complaints)}"


def _fastest(found: Manifest, opened: Sequence[TensorRTEngine]) -> tuple[TensorRTEngine, str]:
    """By wall time at the sizes in use, because the work is the device's and not this thread's."""
    sums_ns = [0] * len(opened)
    for size in SIZES_IN_USE:
        batch = _made_up(found, size)
        calls = [partial(engine.infer, batch) for engine in opened]
        costs_ns = stopwatch.median_ns(calls, rounds=ROUNDS, now=stopwatch.wall_ns)
        sums_ns = [sum_ns + cost_ns for sum_ns, cost_ns in zip(sums_ns, costs_ns, strict=True)]
    times = ", ".join(f"{ns / 1e6:.2f} ms in {e.precision}" for ns, e in zip(sums_ns, opened, strict=True))
    sizes = ", ".join(map(str, SIZES_IN_USE))
    return opened[sums_ns.index(min(sums_ns))], f", the fastest here (batches of {sizes}: {times})"


def _made_up(found: Manifest, count: int) -> parity.Batch:
    return parity.for_tensors(found.kind, count, found.inputs)
