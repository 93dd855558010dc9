"""Opens a network on the GPU: finds what that takes, and of the plans that answer right the fastest.

The driver is asked before anything of TensorRT exists. Every plan is compared with fp32 on the CPU, and those
that answer alike are timed on this very card; neither is assumed.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from liveaffect.engines import device_memory, gpu_driver, manifest, parity, plans, probe, stopwatch
from liveaffect.engines.build.plan import source_of
from liveaffect.engines.device_memory import DeviceMemory
from liveaffect.engines.gpu_driver import Gpu
from liveaffect.engines.manifest import Manifest
from liveaffect.engines.plans import PlanMissing
from liveaffect.engines.protocol import Engine, EngineError, EngineFileError, EngineUnavailable
from liveaffect.engines.tensorrt_backend import Backend, find_backend
from liveaffect.engines.tensorrt_engine import RunOptions, TensorRTEngine

PRECISIONS = ("fp16", "int8", "fp32")
"""As they are tried; the fastest that answers right is taken."""
ITEMS = 16
"""Made-up inputs on which a plan is compared with the CPU: enough to see whether answers follow."""
ROUNDS = 20
BUILD = "build it with 'liveaffect build --precision fp32,fp16,int8'"

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
    found = gpu_driver.gpus()
    if not found:
        raise EngineUnavailable("the NVIDIA driver lists a GPU and does not describe it")
    whys = [device_memory.why_no_memory(name) for name in ("pycuda", "cuda-python")]
    if all(whys):
        raise EngineUnavailable(f"no way to the memory of {found[0].name}: {'; '.join(filter(None, whys))}")
    return GpuTools(backend, found[0])


def why_no_card() -> str | None:
    """Why no network can run on a GPU here, in a few words; None if one can."""
    try:
        find_tools()
    except EngineUnavailable as err:
        return str(err)
    return None


def precisions_of(found: Manifest) -> tuple[str, ...]:
    """The precisions that this network has files for."""
    return tuple(one for one in PRECISIONS if found.has("int8") or one != "int8")


def build_plans(found: Manifest, folder: Path, tools: GpuTools, report: Report = _log.info) -> None:
    """Build whatever plan of this network is not there yet. Raises EngineError if none can be had."""
    failed = []
    for precision in precisions_of(found):
        try:
            plans.obtain(
                plans.key_of(found, precision, tools.backend, tools.gpu),
                partial(manifest.load_bytes, found, folder, source_of(precision)),
                tools.backend,
                report=report,
            )
        except (EngineError, ImportError) as err:
            failed.append(f"{precision}: {err}")
            report(f"{found.kind} {precision}: no plan: {err}")
    if len(failed) == len(precisions_of(found)):
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


def open_best(
    found: Manifest, reference: Engine, tools: GpuTools, report: Report = _log.info
) -> tuple[TensorRTEngine, str]:
    """The fastest plan in the cache that answers like `reference`, and what to say about it.

    `reference` is the network in fp32 on the CPU. Raises PlanMissing if there is no plan in any precision,
    EngineUnavailable if none of those there are can be used, with the reason of each.
    """
    opened: list[tuple[TensorRTEngine, str]] = []
    refused: list[str] = []
    with ExitStack() as undo:
        for precision in precisions_of(found):
            try:
                engine = _alike(found, precision, reference, tools)
            except PlanMissing:
                continue
            except EngineError as err:
                refused.append(f"{precision}: {err}")
                continue
            undo.callback(engine.close)
            opened.append((engine, precision))
        if not opened and not refused:
            raise PlanMissing(f"there is no plan for the {found.kind} network yet; {BUILD}")
        if not opened:
            raise EngineUnavailable(f"no plan of the {found.kind} network can be used: {'; '.join(refused)}")
        best, times = _fastest(
            opened, probe.inputs(found.kind, 1, piece=found.recipe.piece, statistics=found.recipe.statistics)
        )
        for line in (*(f"{found.kind}: not in {why}" for why in refused), *best.notes):
            report(line)
        undo.pop_all()
    for engine, _ in opened:
        if engine is not best:
            engine.close()
    return best, f", the fastest here ({times})"


def tolerance_of(precision: str) -> parity.Tolerance:
    """How far a plan may answer otherwise than fp32 on the CPU, on inputs whose labels mean nothing."""
    return parity.FOLLOWS if precision == "int8" else replace(parity.HALF, flips=None)


def _alike(found: Manifest, precision: str, reference: Engine, tools: GpuTools) -> TensorRTEngine:
    """One plan, if it answers like the CPU; else EngineUnavailable that says where it does not."""
    engine = open_plan(found, precision, tools)
    with ExitStack() as undo:
        undo.callback(engine.close)
        inputs = probe.inputs(found.kind, ITEMS, piece=found.recipe.piece, statistics=found.recipe.statistics)
        compared = parity.compare(reference, engine, inputs, tolerance=tolerance_of(precision))
        if not compared.alike:
            raise EngineUnavailable(f"answers otherwise than the CPU: {'; '.join(compared.complaints)}")
        undo.pop_all()
    return engine


def _fastest(opened: Sequence[tuple[TensorRTEngine, str]], one: probe.Batch) -> tuple[TensorRTEngine, str]:
    """By wall time of a batch of one, because the work is the device's and not this thread's."""
    calls = [partial(engine.infer, one) for engine, _ in opened]
    costs_ns = stopwatch.median_ns(calls, rounds=ROUNDS, now=stopwatch.wall_ns)
    times = ", ".join(f"{ns / 1e6:.2f} ms in {name}" for ns, (_, name) in zip(costs_ns, opened, strict=True))
    return opened[costs_ns.index(min(costs_ns))][0], times
