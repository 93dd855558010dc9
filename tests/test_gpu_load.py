"""On a machine with a GPU the fastest plan that answers right is taken, and the CPU until there is one."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from liveaffect.engines import device_memory, gpu_driver, gpu_load, manifest, plans, probe, stopwatch
from liveaffect.engines import load as loading
from liveaffect.engines import overview as engine_list
from liveaffect.engines.build.quantize import quantize
from liveaffect.engines.device.host import HostMemory
from liveaffect.engines.fallback import LOST, FallbackEngine
from liveaffect.engines.gpu_load import GpuTools
from liveaffect.engines.load import load
from liveaffect.engines.overview import engine_lines
from liveaffect.engines.protocol import Done, Engine, EngineLost, EngineUnavailable, Pending, Tensors
from liveaffect.engines.tensorrt_backend import Backend
from liveaffect.engines.tensorrt_engine import TensorRTEngine
from liveaffect.realtime.testing import scripted_tensorrt, tiny_networks
from liveaffect.realtime.testing import scripted_tensorrt as scripted_gpu
from liveaffect.realtime.testing.scripted_tensorrt import LosableMemory


@pytest.fixture(scope="module")
def quantised(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("weights")
    for kind in manifest.KINDS:
        path = tiny_networks.write_tiny(folder, kind)
        if kind != "fusion":
            quantize(path, probe.split(probe.inputs(kind, 16), (16,)))
    return folder


@pytest.fixture
def weights(quantised: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Weights that a test may spoil, beside an empty cache, on a machine with a GPU that is not there."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(plans, "build_plan", scripted_gpu.build_scripted)
    monkeypatch.setattr(gpu_driver, "why_driver_refuses", lambda: None)
    monkeypatch.setattr(gpu_load, "find_tools", scripted_gpu.tools)
    return Path(shutil.copytree(quantised, tmp_path / "weights"))


def build(weights: Path, kind: str = "face") -> manifest.Manifest:
    found = manifest.read(weights / f"{kind}.json")
    gpu_load.build_plans(found, weights, scripted_gpu.tools(), lambda _: None)
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
    assert f"not TensorRT: there is no plan for the {kind} network yet; build it with 'liveaffect" in said[-1]
    assert len(said) == 1


@pytest.mark.parametrize(("fast", "slow"), [("int8", "fp16"), ("fp16", "int8"), ("fp32", "int8")])
def test_the_fastest_of_the_plans_is_taken(
    weights: Path, monkeypatch: pytest.MonkeyPatch, fast: str, slow: str
) -> None:
    build(weights)
    times(monkeypatch, **{"fp16": 300_000, "int8": 300_000, "fp32": 300_000, fast: 100_000, slow: 200_000})
    said: list[str] = []
    engine = load("face", weights=weights, report=said.append)
    assert engine.spec.name == f"face-tiny/tensorrt-rtx-{fast}"
    assert isinstance(engine, FallbackEngine)
    assert not engine.wants_gpu
    assert (
        f"the fastest here (0.{'30' if fast == 'fp32' else '10' if fast == 'fp16' else '20'} ms in fp16"
        in said[-1]
    )
    wanted = load("face", choice="onnx", weights=weights).infer(probe.inputs("face", 5))
    given = engine.infer(probe.inputs("face", 5))
    np.testing.assert_allclose(given["vector"], wanted["vector"], atol=0.2 if fast == "int8" else 1e-4)
    engine.close()


def test_a_plan_that_answers_otherwise_is_left_out_and_said_so(
    weights: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    other = tiny_networks.write_tiny(tmp_path / "other", "face", seed=1)
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
    monkeypatch.setattr(gpu_load, "precisions_of", lambda found: ("fp16",))
    with pytest.raises(EngineUnavailable, match="no plan of the face network can be used: fp16: answers"):
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
    assert (len(cards), len(in_use)) == (len(gpu_load.PRECISIONS), 1)
    engine.close()
    assert in_use[0]._closed


def test_a_damaged_plan_counts_as_missing(weights: Path) -> None:
    found = build(weights)
    for precision in gpu_load.PRECISIONS:
        tools = scripted_gpu.tools()
        path = plans.plan_path(plans.key_of(found, precision, tools.backend, tools.gpu))
        path.write_bytes(path.read_bytes()[:-1])
    engine = load("face", weights=weights)
    assert isinstance(engine, FallbackEngine)
    assert engine.wants_gpu


def test_a_gpu_that_is_required_builds_first_and_is_never_replaced(weights: Path) -> None:
    said: list[str] = []
    engine = load("face", weights=weights, require_gpu=True, report=said.append)
    assert isinstance(engine, TensorRTEngine)
    for precision in gpu_load.PRECISIONS:
        assert any(line.startswith(f"face {precision}: building a plan") for line in said)
    engine.close()


def test_choosing_tensorrt_builds_first_and_goes_on_by_the_cpu_if_it_is_lost(
    weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cards: list[LosableMemory] = []

    def plug_in() -> HostMemory:
        cards.append(LosableMemory())
        return cards[-1]

    monkeypatch.setattr(gpu_load, "find_tools", lambda: scripted_gpu.tools(plug_in))
    engine = load("face", choice="tensorrt", weights=weights)
    wanted = engine.infer(probe.inputs("face", 2))
    for card in cards:
        card.lost = True
    given = engine.infer(probe.inputs("face", 2))
    assert isinstance(engine, FallbackEngine)
    assert engine.notice == LOST
    assert "face-tiny/onnx" in engine.spec.name
    assert (given["logits"].argmax(1) == wanted["logits"].argmax(1)).all()
    required = load("face", require_gpu=True, weights=weights)
    cards[0].lost = True
    for card in cards:
        card.lost = True
    with pytest.raises(EngineLost):
        required.infer(probe.inputs("face", 1))


def test_where_no_plan_can_be_built_every_reason_is_told(
    weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_content: bytes, *, precision: str, **_rest: object) -> Any:
        raise EngineUnavailable(f"no {precision} today")

    monkeypatch.setattr(plans, "build_plan", refuse)
    with pytest.raises(EngineUnavailable, match="for the face network: fp16: no fp16 today; int8: no int8"):
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
    real = scripted_tensorrt.IRuntimeCache.deserialize

    def deserialize(cache: Any, blob: bytes) -> bool:
        given.append(blob)
        return bool(real(cache, blob))

    monkeypatch.setattr(scripted_tensorrt.IRuntimeCache, "deserialize", deserialize)
    gpu_load.open_plan(found, "fp16", tools).close()
    assert given == [before]
    assert kept.read_bytes() == before


def test_a_network_without_an_int8_file_gets_no_int8_plan(tmp_path: Path) -> None:
    path = tiny_networks.write_tiny(tmp_path, "voice")
    assert gpu_load.precisions_of(manifest.read(path)) == ("fp16", "fp32")


def test_the_first_thing_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_driver, "why_driver_refuses", lambda: "no NVIDIA driver is installed")
    assert gpu_load.why_no_card() == "no NVIDIA driver is installed"
    monkeypatch.setattr(gpu_driver, "why_driver_refuses", lambda: None)
    monkeypatch.setattr(gpu_load, "find_backend", lambda: Backend(None, "tensorrt-rtx", "1"))
    monkeypatch.setattr(gpu_driver, "gpus", lambda: ())
    assert "does not describe it" in str(gpu_load.why_no_card())
    monkeypatch.setattr(gpu_driver, "gpus", lambda: (scripted_gpu.tools().gpu,))
    monkeypatch.setattr(device_memory, "why_no_memory", lambda name: f"{name} is not installed")
    assert gpu_load.why_no_card() == (
        "no way to the memory of Scripted: pycuda is not installed; cuda-python is not installed"
    )
    monkeypatch.setattr(device_memory, "why_no_memory", lambda name: None if name == "pycuda" else "no")
    assert gpu_load.why_no_card() is None
    assert isinstance(gpu_load.find_tools(), GpuTools)


def test_int8_that_resembles_fp32_but_does_not_follow_what_is_asked_is_not_taken(
    quantised: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = loading._onnx

    class Stubborn:
        """Answers what it would answer on average, whatever is asked."""

        def __init__(self, engine: Engine) -> None:
            self.spec, self.warm_up, self.close = engine.spec, engine.warm_up, engine.close
            self._mean = {
                name: array.mean(0, keepdims=True)
                for name, array in engine.infer(probe.inputs("face", 32)).items()
            }

        def submit(self, inputs: Tensors) -> Pending:
            return Done(
                {name: np.repeat(array, len(inputs["crop"]), 0) for name, array in self._mean.items()}
            )

        def infer(self, inputs: Tensors) -> Tensors:
            return self.submit(inputs).result()

    def stubborn(found: Any, folder: Path, precision: str, threads: int) -> Engine:
        engine = real(found, folder, precision, threads)
        return Stubborn(engine) if precision == "int8" else engine

    monkeypatch.setattr(loading, "_onnx", stubborn)
    said: list[str] = []
    assert load("face", weights=quantised, report=said.append).spec.name == "face-tiny/onnx"
    assert "not INT8: its answers differ from fp32 here (vector follows" in said[0]


def test_the_list_of_engines_does_not_promise_fusion_on_a_gpu(
    weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine_list, "KINDS", ("face", "fusion"))
    monkeypatch.setattr(engine_list, "CHOICES", ("tensorrt",))
    face, fusion = engine_lines(weights)
    assert fusion == "fusion  tensorrt   no   it is tiny and always runs in fp32 on the CPU"
    assert face.startswith("face    tensorrt   yes")
