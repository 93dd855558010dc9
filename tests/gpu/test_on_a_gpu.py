"""On a real GPU every way to run a network keeps the contract, answers like the processor, and may be lost.

Needed: NumPy, pytest, ONNX Runtime to compare with, and TensorRT with a package for device memory, or torch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from liveaffect.engines import device_memory, gpu_driver, gpu_load, manifest, parity, plans
from liveaffect.engines.device_memory import DeviceError, DeviceMemory, open_memory, why_no_memory
from liveaffect.engines.fallback import LOST, FallbackEngine
from liveaffect.engines.load import load
from liveaffect.engines.manifest import SHIPPED, Manifest
from liveaffect.engines.protocol import EngineFileError
from liveaffect.engines.slots import SlotEngine
from liveaffect.engines.tensorrt_engine import RunOptions, TensorRTEngine
from liveaffect.realtime.networks import Networks, Row
from liveaffect.realtime.testing.contracts import check_engine, check_memory

pytestmark = pytest.mark.gpu
SLACK = 2 << 20
"""Bytes: the driver itself may take a page or two while others use the card."""
ROWS = 0.01
"""What the size of a batch may change in half precision: another size may run other kernels."""
Open = Callable[..., Any]


@pytest.fixture(scope="session", autouse=True)
def _cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    if why := gpu_driver.why_no_gpu():
        pytest.skip(f"needs an NVIDIA GPU: {why}")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session", params=["face", "voice"])
def found(request: pytest.FixtureRequest) -> Manifest:
    return manifest.read(SHIPPED / f"{request.param}.json")


@pytest.fixture(params=["tensorrt", "torch"])
def opened(request: pytest.FixtureRequest, found: Manifest) -> Open:
    """Opens the network on this way, warm."""
    if request.param == "torch":
        if why := gpu_load.why_no_torch():
            pytest.skip(f"needs torch for an NVIDIA GPU: {why}")
        return lambda: gpu_load.open_torch(found, SHIPPED)
    return lambda: plan_of(found)


def plan_of(found: Manifest, memory: Any = None, **options: Any) -> TensorRTEngine:
    if why := gpu_load.why_no_tensorrt():
        pytest.skip(f"needs TensorRT on an NVIDIA GPU: {why}")
    tools = gpu_load.find_tools()
    gpu_load.build_plans(found, SHIPPED, tools)
    plan = plans.read_plan(plans.key_of(found, "fp16", tools.backend, tools.gpu))
    run = RunOptions(owns_memory=memory is None, **options)
    engine = TensorRTEngine(
        found, "fp16", plan, backend=tools.backend, memory=memory or tools.open_memory(), options=run
    )
    engine.warm_up()
    return engine


def inputs(found: Manifest, count: int, seed: int = 0) -> parity.Batch:
    return parity.for_tensors(found.kind, count, found.inputs, seed=seed)


@pytest.mark.parametrize("name", [name for name in device_memory.NAMES if name != "host"])
def test_every_package_for_device_memory_keeps_its_contract(name: str) -> None:
    if why := why_no_memory(name):
        pytest.skip(f"needs an NVIDIA GPU and {name}: {why}")
    check_memory(lambda: open_memory(name))


def test_every_way_keeps_the_engine_contract(opened: Open, found: Manifest) -> None:
    check_engine(opened, lambda count: inputs(found, count, seed=count), tolerance=ROWS)


def test_every_way_answers_like_the_processor(opened: Open, found: Manifest) -> None:
    wanted, given = load(found.kind, choice="onnx"), opened()
    report = parity.compare(wanted, given, inputs(found, 128), tolerance=parity.HALF)
    assert report.alike, "\n".join(report.lines())
    if found.kind == "voice":
        ours, theirs = (engine.infer(inputs(found, 16)) for engine in (wanted, given))
        for name in ("stat_sum", "stat_sumsq"):  # The sound front end stays fp32.
            np.testing.assert_allclose(theirs[name], ours[name], rtol=2e-4, atol=1e-2)
    given.close()


def test_every_size_is_a_graph_and_several_batches_keep_their_answers(opened: Open, found: Manifest) -> None:
    engine: SlotEngine = opened()
    assert all(slot.graphed for slots in engine.slots.values() for slot in slots), engine.notes
    alone = [engine.infer(inputs(found, 4, seed)) for seed in range(5)]
    waiting = [engine.submit(inputs(found, 4, seed)) for seed in range(5)]
    for one, pending in reversed(list(zip(alone, waiting, strict=True))):
        np.testing.assert_array_equal(pending.result()["logits"], one["logits"])
    engine.close()


class Watched:
    """A device that counts who waits, and that can be lost at will."""

    def __init__(self, memory: DeviceMemory) -> None:
        self._memory = memory
        self.waits = 0
        self.lost = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._memory, name)

    def wait(self, event: int) -> None:
        self.waits += 1
        if self.lost:
            raise DeviceError("cuEventSynchronize", "CUDA_ERROR_ILLEGAL_ADDRESS")
        self._memory.wait(event)


def test_steady_work_makes_nothing_and_waits_once_for_each_batch(found: Manifest) -> None:
    memory = Watched(open_memory())
    engine = plan_of(found, memory)
    sizes = [1, 1, 4, 2, 16, 1, 9, 3]
    for size in sizes * 3:
        engine.infer(inputs(found, size))
    with memory.active():
        made, free = memory.allocations, memory.free_bytes()
    memory.waits = 0
    for size in sizes * 20:
        engine.infer(inputs(found, size))
    assert memory.waits == 20 * len(sizes)
    with memory.active():
        assert memory.allocations == made
        assert abs(memory.free_bytes() - free) <= SLACK
    engine.close()
    memory.close()


def test_a_lost_gpu_costs_no_answer_and_is_told_in_one_line(found: Manifest) -> None:
    memory = Watched(open_memory())
    engine = FallbackEngine(plan_of(found, memory), lambda: load(found.kind, choice="onnx"))
    face, voice, fusion = (load(kind, choice="scripted") for kind in ("face", "voice", "fusion"))
    networks = Networks(
        engine if found.kind == "face" else face, engine if found.kind == "voice" else voice, fusion
    )
    batch = inputs(found, 2)
    rows: list[Row] = [{name: array[at] for name, array in batch.items()} for at in range(2)]
    asked = (rows, []) if found.kind == "face" else ([], rows)
    first = networks.ask(*asked)
    memory.lost = True
    again = networks.ask(*asked)
    for before, after in zip([*first[0], *first[1]], [*again[0], *again[1]], strict=True):
        assert before is not None
        assert after is not None
        np.testing.assert_allclose(before["logits"], after["logits"], atol=0.05)
    assert networks.notices == (LOST,)
    networks.close()


def test_kernels_of_the_first_start_are_used_by_the_second(found: Manifest) -> None:
    plan_of(found).close()
    tools = gpu_load.find_tools()
    if not tools.backend.is_rtx:
        pytest.skip("only TensorRT-RTX makes kernels on the user's NVIDIA GPU")
    gpu_load.open_plan(found, "fp16", tools).close()
    kept = plans.runtime_cache_path(plans.key_of(found, "fp16", tools.backend, tools.gpu), tools.gpu)
    assert kept.read_bytes()
    gpu_load.open_plan(found, "fp16", tools).close()


def test_a_plan_that_was_cut_short_is_refused_and_the_process_goes_on(found: Manifest) -> None:
    plan_of(found).close()
    tools, memory = gpu_load.find_tools(), open_memory()
    plan = plans.read_plan(plans.key_of(found, "fp16", tools.backend, tools.gpu))
    with pytest.raises(EngineFileError, match="cannot open the plan"):
        TensorRTEngine(found, "fp16", plan[: len(plan) // 2], backend=tools.backend, memory=memory)
    memory.close()
    plan_of(found).close()


def test_a_required_gpu_is_taken_whichever_way_it_runs_and_is_never_replaced(found: Manifest) -> None:
    engine = load(found.kind, require_gpu=True)
    assert isinstance(engine, SlotEngine)
    assert "fp16" in engine.spec.name
    engine.close()
