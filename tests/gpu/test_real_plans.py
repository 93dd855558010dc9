"""On a real GPU every plan keeps the engine contract and answers like ONNX Runtime on the processor."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from liveaffect.engines import device_memory, gpu_load, parity, plans, probe
from liveaffect.engines.build.plan import SIZES
from liveaffect.engines.device_memory import open_memory, why_no_memory
from liveaffect.engines.fallback import FallbackEngine
from liveaffect.engines.gpu_load import GpuTools
from liveaffect.engines.load import load
from liveaffect.engines.manifest import Manifest
from liveaffect.engines.protocol import EngineFileError
from liveaffect.engines.tensorrt_engine import RunOptions, TensorRTEngine
from liveaffect.realtime.testing.engine_contract import check_engine
from liveaffect.realtime.testing.memory_contract import check_memory

pytestmark = pytest.mark.gpu

ITEMS = 128
AGREEING = 0.99
"""Share of labels that have to be the same wherever a network runs, and how far probabilities may differ."""
APART = 0.02
TOLERANCES = {"fp32": parity.EXACT, "fp16": parity.HALF, "int8": parity.QUANTISED}
ROWS = {"fp32": 1e-4, "fp16": 0.01, "int8": 0.05}
"""What the size of a batch may change: another size may run other kernels, which round otherwise."""


@pytest.mark.parametrize("name", [name for name in device_memory.NAMES if name != "host"])
def test_every_package_for_device_memory_keeps_its_contract(card: GpuTools, name: str) -> None:
    if why := why_no_memory(name):
        pytest.skip(f"needs an NVIDIA GPU and {name}: {why}")
    check_memory(lambda: open_memory(name))


def test_every_plan_keeps_the_engine_contract(card: GpuTools, found: Manifest, precision: str) -> None:
    check_engine(
        lambda: gpu_load.open_plan(found, precision, card),
        lambda count: probe.for_tensors(found.kind, count, found.inputs, seed=count),
        tolerance=ROWS[precision],
    )


def test_every_plan_answers_like_the_processor(card: GpuTools, found: Manifest, precision: str) -> None:
    pytest.importorskip("onnxruntime", reason="compares the GPU with ONNX Runtime")
    wanted = load(found.kind, choice="onnx")
    given = gpu_load.open_plan(found, precision, card)
    inputs = probe.for_tensors(found.kind, ITEMS, found.inputs)
    report = parity.compare(wanted, given, inputs, tolerance=TOLERANCES[precision])
    assert report.alike, "\n".join(report.lines())
    if precision != "int8":
        some = {name: array[: given.spec.max_batch] for name, array in inputs.items()}
        ours, theirs = wanted.infer(some)["logits"], given.infer(some)["logits"]
        assert (ours.argmax(1) == theirs.argmax(1)).mean() >= AGREEING
        assert np.abs(chances(ours) - chances(theirs)).max() <= APART
    given.close()
    wanted.close()


def test_the_log_mel_of_the_sound_front_end_is_that_of_the_processor(
    card: GpuTools, found: Manifest, precision: str
) -> None:
    """It stays fp32 in every precision, because a logarithm magnifies what is lost before it."""
    if found.kind != "voice":
        pytest.skip("only the voice network has a sound front end on the GPU")
    pytest.importorskip("onnxruntime", reason="compares the GPU with ONNX Runtime")
    inputs = probe.for_tensors("voice", 16, found.inputs)
    wanted, given = load("voice", choice="onnx"), gpu_load.open_plan(found, precision, card)
    ours, theirs = wanted.infer(inputs), given.infer(inputs)
    for name in ("stat_sum", "stat_sumsq"):
        np.testing.assert_allclose(theirs[name], ours[name], rtol=2e-4, atol=1e-2)
    given.close()


@pytest.mark.parametrize("size", SIZES)
def test_a_graph_answers_like_the_plain_way(
    card: GpuTools, found: Manifest, precision: str, size: int
) -> None:
    plan = plans.read_plan(plans.key_of(found, precision, card.backend, card.gpu))
    inputs = probe.for_tensors(found.kind, size, found.inputs, seed=7)
    answers = []
    for graphs in (True, False):
        options = RunOptions(graphs=graphs, measure=False, owns_memory=True)
        engine = TensorRTEngine(
            found, precision, plan, backend=card.backend, memory=card.open_memory(), options=options
        )
        engine.warm_up()
        if size > engine.spec.max_batch:
            pytest.skip(f"this GPU's plan ends at {engine.spec.max_batch}")
        if graphs:
            assert all(lane.graphed for lane in engine.run.lanes) or engine.notes
        answers.append(engine.infer(inputs))
        engine.close()
    for name, plain in answers[1].items():
        scale = max(float(np.abs(plain).max()), 1e-6)
        assert float(np.abs(plain - answers[0][name]).max()) <= 1e-3 * scale, name


def test_kernels_of_the_first_start_are_used_by_the_second(card: GpuTools, found: Manifest) -> None:
    if not card.backend.is_rtx:
        pytest.skip("only TensorRT-RTX makes kernels on the user's GPU")
    gpu_load.open_plan(found, "fp32", card).close()
    kept = plans.runtime_cache_path(plans.key_of(found, "fp32", card.backend, card.gpu), card.gpu)
    before = kept.read_bytes()
    engine = gpu_load.open_plan(found, "fp32", card)
    assert engine.runtime_cache()
    engine.close()
    assert before


def test_a_plan_that_was_cut_short_is_refused_and_the_process_goes_on(
    card: GpuTools, found: Manifest
) -> None:
    plan = plans.read_plan(plans.key_of(found, "fp32", card.backend, card.gpu))
    memory = card.open_memory()
    with pytest.raises(EngineFileError, match="cannot open the plan"):
        TensorRTEngine(
            found, "fp32", plan[: len(plan) // 2], backend=card.backend, memory=memory, options=RunOptions()
        )
    memory.close()
    engine = gpu_load.open_plan(found, "fp32", card)
    engine.close()


def test_auto_takes_the_gpu_and_a_required_one_is_never_replaced(
    card: GpuTools, found: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("onnxruntime", reason="compares the GPU with ONNX Runtime")
    monkeypatch.setattr("liveaffect.engines.load.why_no_tensorrt", lambda: None)
    monkeypatch.setattr(gpu_load, "find_tools", lambda: card)
    said: list[str] = []
    engine = load(found.kind, report=said.append)
    assert isinstance(engine, FallbackEngine)
    assert "/tensorrt" in engine.spec.name, said
    engine.close()
    required = load(found.kind, require_gpu=True)
    assert isinstance(required, TensorRTEngine)
    required.close()


def chances(logits: NDArray[np.float32]) -> NDArray[np.float64]:
    grown = np.exp(logits.astype(np.float64) - logits.max(1, keepdims=True))
    chance: NDArray[np.float64] = grown / grown.sum(1, keepdims=True)
    return chance
