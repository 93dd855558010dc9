"""On a real GPU steady work waits once for each network and makes nothing; a lost GPU costs no answer."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from liveaffect.engines import gpu_load, manifest, plans, probe
from liveaffect.engines.device_memory import DeviceError, DeviceMemory
from liveaffect.engines.fallback import LOST, FallbackEngine
from liveaffect.engines.gpu_load import GpuTools
from liveaffect.engines.load import load
from liveaffect.engines.manifest import SHIPPED, Manifest
from liveaffect.engines.tensorrt_engine import RunOptions, TensorRTEngine
from liveaffect.realtime.networks import Networks, Row

pytestmark = pytest.mark.gpu

ROUNDS = 200
SLACK = 2 << 20
"""Bytes: the driver itself may take a page or two while others use the card."""


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

    def synchronise(self, stream: int) -> None:
        self.waits += 1
        self._memory.synchronise(stream)


def opened(card: GpuTools, found: Manifest, memory: Any) -> TensorRTEngine:
    plan = plans.read_plan(plans.key_of(found, "fp32", card.backend, card.gpu))
    engine = TensorRTEngine(found, "fp32", plan, backend=card.backend, memory=memory, options=RunOptions())
    engine.warm_up()
    return engine


def inputs(found: Manifest, count: int, seed: int = 0) -> probe.Batch:
    return probe.for_tensors(found.kind, count, found.inputs, seed=seed)


def test_steady_work_makes_nothing_and_takes_no_memory(card: GpuTools, found: Manifest) -> None:
    memory = card.open_memory()
    engine = opened(card, found, memory)
    sizes = [1, 1, 4, 2, 16, 1, 9, 3]
    batches = {size: inputs(found, size) for size in set(sizes)}
    for size in sizes * 3:
        engine.infer(batches[size])
    with memory.active():
        made, free = memory.allocations, memory.free_bytes()
    for at in range(ROUNDS):
        size = sizes[at % len(sizes)]
        engine.infer(batches[size])
    with memory.active():
        assert memory.allocations == made
        assert abs(memory.free_bytes() - free) <= SLACK
    engine.close()
    memory.close()


def test_faces_and_sound_run_on_streams_of_their_own_with_one_wait_each(card: GpuTools) -> None:
    paths = [SHIPPED / f"{kind}.json" for kind in ("face", "voice")]
    networks = [manifest.read(path) for path in paths if path.exists()]
    if not networks:
        pytest.skip("no weights are shipped to run on the GPU")
    # With one network shipped it stands for both: what is tested are the two streams.
    pair = [networks[0], networks[-1]]
    for network in pair:
        gpu_load.build_plans(network, SHIPPED, card)
    memory = Watched(card.open_memory())
    engines = [opened(card, network, memory) for network in pair]
    assert engines[0].run.stream != engines[1].run.stream
    alone = [[e.infer(inputs(n, 4, seed)) for seed in range(3)] for e, n in zip(engines, pair, strict=True)]
    memory.waits = 0
    for seed in range(3):
        pending = [e.submit(inputs(n, 4, seed)) for e, n in zip(engines, pair, strict=True)]
        assert memory.waits == 2 * seed, "submit waited"
        for at in (1, 0):
            given = pending[at].result()
            np.testing.assert_allclose(given["logits"], alone[at][seed]["logits"], rtol=1e-3, atol=1e-4)
        assert memory.waits == 2 * (seed + 1)
    for engine in engines:
        engine.close()
    memory.close()


def test_a_lost_gpu_costs_no_answer_and_is_told_in_one_line(card: GpuTools, found: Manifest) -> None:
    pytest.importorskip("onnxruntime", reason="falls back from the GPU to ONNX Runtime")
    memory = Watched(card.open_memory())
    gpu = opened(card, found, memory)
    engine = FallbackEngine(gpu, lambda: load(found.kind, choice="onnx"))
    others = [load(kind, choice="scripted") for kind in ("face", "voice", "fusion")]
    networks = Networks(
        engine if found.kind == "face" else others[0],
        engine if found.kind == "voice" else others[1],
        others[2],
    )
    batch = inputs(found, 2)
    rows: list[Row] = [{name: array[at] for name, array in batch.items()} for at in range(2)]
    crops, pieces = (rows, []) if found.kind == "face" else ([], rows)
    asked = networks.ask(crops, pieces)
    memory.lost = True
    again = networks.ask(crops, pieces)
    for before, after in zip([*asked[0], *asked[1]], [*again[0], *again[1]], strict=True):
        assert before is not None
        assert after is not None
        np.testing.assert_allclose(before["logits"], after["logits"], atol=0.02)
    assert networks.notices == (LOST,)
    assert "/onnx" in engine.spec.name
    networks.close()
    memory.close()


def test_engines_come_and_go_without_leaving_anything(card: GpuTools, found: Manifest) -> None:
    memory = card.open_memory()
    opened(card, found, memory).close()
    with memory.active():
        free = memory.free_bytes()
    for _ in range(3):
        opened(card, found, memory).close()
    with memory.active():
        assert free - memory.free_bytes() <= SLACK
    memory.close()
