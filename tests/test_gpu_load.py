"""On a machine with a GPU the first way that answers right is taken, and the CPU until it is ready."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from liveaffect.engines import device_memory, gpu_driver, gpu_load, manifest, parity, plans, stopwatch
from liveaffect.engines import overview as engine_list
from liveaffect.engines.build.quantize import quantize
from liveaffect.engines.device_memory import DeviceError, HostMemory
from liveaffect.engines.fallback import LOST, FallbackEngine
from liveaffect.engines.gpu_driver import Backend, Gpu
from liveaffect.engines.gpu_load import GpuTools
from liveaffect.engines.load import folders_of, load
from liveaffect.engines.manifest import Manifest
from liveaffect.engines.overview import engine_lines
from liveaffect.engines.protocol import Engine, EngineLost, EngineUnavailable
from liveaffect.engines.tensorrt_engine import TensorRTEngine
from liveaffect.realtime.testing import engines, gpu
from liveaffect.realtime.testing import gpu as scripted_gpu
from liveaffect.realtime.testing.gpu import LosableMemory


@pytest.fixture(scope="module")
def quantised(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("weights")
    for kind in manifest.KINDS:
        path = engines.write_tiny(folder, kind)
        if kind != "fusion":
            quantize(path, parity.split(parity.inputs(kind, 16), (16,)))
    return folder


@pytest.fixture
def weights(quantised: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Weights that a test may spoil, beside an empty cache, on a machine with a GPU that is not there."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(plans, "build_plan", scripted_gpu.build_scripted)
    monkeypatch.setattr(gpu_driver, "why_no_gpu", lambda *_, **__: None)
    monkeypatch.setattr(gpu_load, "find_tools", scripted_gpu.tools)
    return Path(shutil.copytree(quantised, tmp_path / "weights"))


def build(weights: Path, *precisions: str) -> manifest.Manifest:
    """The plans that somebody asked for."""
    found, tools = manifest.read(weights / "face.json"), scripted_gpu.tools()
    for precision in precisions or gpu_load.TRIED:
        key = plans.key_of(found, precision, tools.backend, tools.gpu)
        content = manifest.load_bytes(found, weights, "int8" if precision == "int8" else "fp32")
        plans.write_plan(key, getattr(plans, "build_plan")(content, precision=precision))  # noqa: B009  as it is replaced
    return found


def times(monkeypatch: pytest.MonkeyPatch, **costs_ns: int) -> None:
    """What `open_best` will measure, by precision; other measurements are left as they are."""
    real = stopwatch.median_ns

    def median_ns(calls: Any, *, rounds: int, now: Any = stopwatch.thread_cpu_ns) -> list[int]:
        if rounds != gpu_load.ROUNDS:
            return real(calls, rounds=rounds, now=now)
        return [costs_ns[call.func.__self__.precision] for call in calls]

    monkeypatch.setattr(stopwatch, "median_ns", median_ns)


@pytest.mark.parametrize("kind", ["face", "voice"])
def test_without_a_plan_the_cpu_works_and_the_engine_waits_for_the_gpu(weights: Path, kind: str) -> None:
    said: list[str] = []
    engine = load(kind, weights=weights, report=said.append)
    assert isinstance(engine, FallbackEngine)
    assert engine.wants_gpu
    assert "tiny/onnx" in engine.spec.name
    assert (
        f"not TensorRT yet: there is no plan for the {kind} network yet; build it with 'liveaffect"
        in said[-1]
    )
    assert len(said) == 1


@pytest.mark.parametrize("fast", ["fp16", "int8", "fp32"])
def test_the_fastest_of_the_plans_is_found_once_and_remembered(
    weights: Path, monkeypatch: pytest.MonkeyPatch, fast: str
) -> None:
    build(weights)
    times(monkeypatch, **{"fp16": 300_000, "int8": 300_000, "fp32": 300_000, fast: 100_000})
    said: list[str] = []
    engine = load("face", weights=weights, report=said.append)
    assert engine.spec.name == f"face-tiny/tensorrt-rtx-{fast}"
    assert isinstance(engine, FallbackEngine)
    assert not engine.wants_gpu
    in_half = "0.30" if fast == "fp16" else "0.90"
    assert f"the fastest here (batches of 1, 4, 16: {in_half} ms in fp16" in said[-1]
    wanted = load("face", choice="onnx", weights=weights).infer(parity.inputs("face", 5))
    given = engine.infer(parity.inputs("face", 5))
    np.testing.assert_allclose(given["vector"], wanted["vector"], atol=0.2 if fast == "int8" else 1e-4)
    engine.close()
    opened: list[str] = []
    real = gpu_load.open_plan

    def open_plan(found: Manifest, precision: str, tools: GpuTools) -> TensorRTEngine:
        opened.append(precision)
        return real(found, precision, tools)

    monkeypatch.setattr(gpu_load, "open_plan", open_plan)
    monkeypatch.setattr(stopwatch, "median_ns", lambda *_, **__: [1 / 0])
    later = load("face", weights=weights, report=said.append)
    assert (later.spec.name, opened) == (engine.spec.name, [fast])
    assert f"; {fast}, the fastest here before" in said[-1]
    later.close()


def test_a_plan_that_came_later_is_measured_with_the_others(
    weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build(weights, "fp16", "fp32")
    times(monkeypatch, fp16=2, fp32=1, int8=0)
    load("face", weights=weights).close()
    build(weights, "int8")
    engine = load("face", weights=weights)
    assert engine.spec.name == "face-tiny/tensorrt-rtx-int8"
    engine.close()


def test_half_precision_alone_is_built_unasked_and_opened_without_measuring(
    weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    monkeypatch.setattr(stopwatch, "median_ns", lambda *_, **__: [1 / 0])
    engine = load("face", weights=weights, require_gpu=True, report=said.append)
    assert isinstance(engine, TensorRTEngine)
    assert engine.precision == "fp16"
    assert {plan.key.precision for plan in plans.listed() if plan.key} == {"fp16"}
    engine.close()


def test_a_plan_that_answers_otherwise_is_left_out_and_said_so(
    weights: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    other = engines.write_tiny(tmp_path / "other", "face", seed=1)
    wrong = manifest.load_bytes(manifest.read(other), other.parent, "fp32")

    def build_wrong(content: bytes, *, precision: str, **rest: object) -> Any:
        return scripted_gpu.build_scripted(wrong if precision == "fp16" else content)

    monkeypatch.setattr(plans, "build_plan", build_wrong)
    build(weights)
    times(monkeypatch, fp16=1, int8=2, fp32=3)
    said: list[str] = []
    engine = load("face", weights=weights, report=said.append)
    assert engine.spec.name == "face-tiny/tensorrt-rtx-int8"
    assert any(
        "face: not in fp16: answers otherwise than the CPU: vector differs by" in line for line in said
    )
    monkeypatch.setattr(gpu_load, "TRIED", ("fp16",))
    with pytest.raises(EngineUnavailable, match=r"network can be used: fp16: answers .*; nor on torch: "):
        load("face", weights=weights, require_gpu=True)
    cpu = load("face", weights=weights, report=said.append)
    assert "/onnx" in cpu.spec.name
    assert isinstance(cpu, FallbackEngine)
    assert not cpu.wants_gpu


def test_plans_that_are_not_taken_give_everything_back(
    weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cards: list[HostMemory] = []

    def plug_in() -> HostMemory:
        cards.append(HostMemory())
        return cards[-1]

    monkeypatch.setattr(gpu_load, "find_tools", lambda: scripted_gpu.tools(plug_in))
    build(weights)
    engine = load("face", weights=weights)
    in_use = [card for card in cards if not card._closed]
    assert (len(cards), len(in_use)) == (len(gpu_load.TRIED), 1)
    engine.close()
    assert in_use[0]._closed


def test_a_damaged_plan_counts_as_missing(weights: Path) -> None:
    found = build(weights)
    for precision in gpu_load.TRIED:
        tools = scripted_gpu.tools()
        path = plans.plan_path(plans.key_of(found, precision, tools.backend, tools.gpu))
        path.write_bytes(path.read_bytes()[:-1])
    engine = load("face", weights=weights)
    assert isinstance(engine, FallbackEngine)
    assert engine.wants_gpu


def test_choosing_tensorrt_builds_first_and_goes_on_by_the_cpu_if_it_is_lost(
    weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cards: list[LosableMemory] = []

    def plug_in() -> HostMemory:
        cards.append(LosableMemory())
        return cards[-1]

    monkeypatch.setattr(gpu_load, "find_tools", lambda: scripted_gpu.tools(plug_in))
    engine = load("face", choice="tensorrt", weights=weights)
    wanted = engine.infer(parity.inputs("face", 2))
    for card in cards:
        card.lost = True
    given = engine.infer(parity.inputs("face", 2))
    assert isinstance(engine, FallbackEngine)
    assert engine.notice == LOST
    assert "face-tiny/onnx" in engine.spec.name
    assert (given["logits"].argmax(1) == wanted["logits"].argmax(1)).all()
    required = load("face", require_gpu=True, weights=weights)
    cards[0].lost = True
    for card in cards:
        card.lost = True
    with pytest.raises(EngineLost):
        required.infer(parity.inputs("face", 1))


def test_where_no_plan_can_be_built_every_reason_is_told(
    weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_content: bytes, *, precision: str, **_rest: object) -> Any:
        raise EngineUnavailable(f"no {precision} today")

    monkeypatch.setattr(plans, "build_plan", refuse)
    with pytest.raises(
        EngineUnavailable, match=r"for the face network: fp16: no fp16 today; fp32: no fp32 .*; nor on torch"
    ):
        load("face", weights=weights, require_gpu=True)


def test_kernels_made_on_a_card_are_kept_beside_the_plan_and_used_the_next_time(
    weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = build(weights)
    tools = scripted_gpu.tools()
    kept = plans.runtime_cache_path(plans.key_of(found, "fp16", tools.backend, tools.gpu), tools.gpu)
    gpu_load.open_plan(found, "fp16", tools).close()
    before = kept.read_bytes()
    given: list[bytes] = []
    real = gpu.IRuntimeCache.deserialize

    def deserialize(cache: Any, blob: bytes) -> bool:
        given.append(blob)
        return bool(real(cache, blob))

    monkeypatch.setattr(gpu.IRuntimeCache, "deserialize", deserialize)
    gpu_load.open_plan(found, "fp16", tools).close()
    assert given == [before]
    assert kept.read_bytes() == before


HOPPER = Gpu(0, "NVIDIA H200", (9, 0), (13, 0), 139 << 30, "GPU-a")
ADA = Gpu(1, "NVIDIA L4", (8, 9), (13, 0), 24 << 30, "GPU-b")


@pytest.fixture
def cards(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """A machine with TensorRT-RTX, cuda-python and these cards."""

    def put(*found: Gpu, flavour: str = "tensorrt-rtx") -> None:
        monkeypatch.setattr(gpu_driver, "why_no_gpu", lambda *_, **__: None)
        monkeypatch.setattr(gpu_driver, "why_driver_refuses", lambda: None)
        monkeypatch.setattr(gpu_load, "find_backend", lambda: Backend(None, flavour, "1.7"))
        monkeypatch.setattr(gpu_driver, "gpus", lambda: found)
        monkeypatch.setattr(device_memory, "why_no_memory", lambda name: None)

    return put


def test_the_first_thing_that_is_missing_is_named(
    cards: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    cards()
    assert "does not describe it" in str(gpu_load.why_no_tensorrt())
    cards(ADA)
    assert gpu_load.why_no_tensorrt() is None
    monkeypatch.setattr(device_memory, "why_no_memory", lambda name: f"{name} is not installed")
    assert gpu_load.why_no_tensorrt() == (
        "no way to the memory of NVIDIA L4: cuda-python is not installed; pycuda is not installed"
    )
    monkeypatch.setattr(gpu_driver, "why_driver_refuses", lambda: "no NVIDIA driver is installed")
    assert gpu_load.why_no_tensorrt() == "no NVIDIA driver is installed"


def test_a_card_that_rtx_refuses_is_told_before_anything_is_built_and_torch_takes_it(
    quantised: Path, cards: Callable[..., None], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(plans, "build_plan", lambda *_, **__: pytest.fail("a plan was built"))
    cards(HOPPER)
    why = str(gpu_load.why_no_tensorrt())
    assert "does not run on NVIDIA H200, which has compute capability 9.0; it supports 8.0, 8.6" in why
    assert "pip install 'liveaffect[torch-gpu]'" in why
    with pytest.raises(EngineUnavailable, match=r"compute capability 9\.0"):
        load("face", choice="tensorrt", weights=quantised)
    monkeypatch.setattr(metadata, "version", lambda _: "2.13.0+cpu")
    with pytest.raises(EngineUnavailable, match=r"9\.0; .*the torch that is installed .* is for the CPU"):
        load("face", weights=quantised, require_gpu=True)
    monkeypatch.setattr(metadata, "version", lambda _: "2.15.0")
    made = load("face", choice="onnx", weights=quantised)
    monkeypatch.setattr(gpu_load, "open_torch", lambda *_: made)
    said: list[str] = []
    assert load("face", weights=quantised, require_gpu=True, report=said.append) is made
    assert "; fp16, with CUDA graphs; not TensorRT: TensorRT-RTX does not run on NVIDIA H200" in said[-1]
    waiting = load("face", weights=quantised, report=said.append)
    assert isinstance(waiting, FallbackEngine)
    assert waiting.wants_gpu
    cards(HOPPER, flavour="tensorrt")
    assert gpu_load.why_no_tensorrt() is None, "TensorRT itself runs there"


def test_on_torch_the_precision_that_answers_right_is_the_one_that_is_opened_again(
    quantised: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    other = engines.write_tiny(tmp_path, "face", seed=1)
    folders = {"fp16": other.parent, "fp32": quantised}
    opened: list[str] = []

    def open_torch(found: Manifest, folder: Path, precision: str = "fp16") -> Engine:
        opened.append(precision)
        return load("face", choice="onnx", weights=folders[precision])

    monkeypatch.setattr(gpu_load, "open_torch", open_torch)
    found = manifest.read(quantised / "face.json")
    _, _, way = gpu_load.best_torch(found, quantised, load("face", choice="onnx", weights=quantised))
    gpu_load.open_way(found, quantised, way)
    assert opened == ["fp16", "fp32", "fp32"]


def test_of_several_cards_one_is_taken_that_runs_plans_and_named_by_its_uuid(
    cards: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    cards(HOPPER, ADA)
    asked: list[tuple[str, str]] = []
    monkeypatch.setattr(device_memory, "open_memory", lambda name, uuid: asked.append((name, uuid)))
    tools = gpu_load.find_tools()
    tools.open_memory()
    assert (tools.gpu, asked) == (ADA, [("auto", "GPU-b")])
    assert device_memory.index_of("GPU-b") == 1
    with pytest.raises(DeviceError, match="looking for GPU-c failed with CUDA_ERROR_NO_DEVICE"):
        device_memory.index_of("GPU-c")


def test_the_list_of_engines_does_not_promise_fusion_on_a_gpu(
    weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine_list, "KINDS", ("face", "fusion"))
    monkeypatch.setattr(engine_list, "CHOICES", ("tensorrt",))
    face, fusion = engine_lines(folders_of(weights, None))
    assert fusion == "fusion  tensorrt   no   it is tiny and always runs in fp32 on the CPU"
    assert face.startswith("face    tensorrt   yes")
