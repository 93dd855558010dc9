"""Every engine that runs a weight file keeps the whole engine contract."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from liveaffect.engines import manifest as manifests
from liveaffect.engines import parity
from liveaffect.engines.build.quantize import quantize
from liveaffect.engines.device_memory import HostMemory
from liveaffect.engines.load import load
from liveaffect.engines.protocol import Engine, Tensors
from liveaffect.engines.tensorrt_engine import RunOptions, TensorRTEngine
from liveaffect.realtime.testing import engines, gpu
from liveaffect.realtime.testing.contracts import check_engine

INT8_STEP = 0.05
"""In another batch a sum may round to the next of 255 steps, and that error goes on through the layers."""


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tiny")
    for kind in manifests.KINDS:
        path = engines.write_tiny(folder, kind)
        if kind != "fusion":
            quantize(path, [parity.inputs(kind, 32)])
    return folder


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch = pytest.importorskip("torch", reason="exports the live presets and needs torch for it")
    from liveaffect.engines.build import export_onnx

    torch.set_num_threads(1)  # More of them spin while they wait for one another.
    folder = tmp_path_factory.mktemp("live")
    for kind, preset in (("face", "live"), ("voice", "student")):
        path = export_onnx.export(kind, preset, folder)
        quantize(path, [items(kind, folder)(8)])
    export_onnx.export("fusion", "late-masked", folder)
    return folder


def items(kind: str, weights: Path) -> Callable[[int], Tensors]:
    wanted = manifests.read(weights / f"{kind}.json").inputs
    return lambda count: parity.for_tensors(kind, count, wanted, seed=count)


def made(kind: str, choice: str, weights: Path) -> Callable[[], Engine]:
    return lambda: load(kind, choice=choice, weights=weights)


CASES = [(kind, choice) for kind in ("face", "voice") for choice in ("auto", "onnx", "onnx-int8")]
LIVE_CASES = [("face", "onnx-int8"), ("voice", "onnx-int8"), ("fusion", "onnx")]


@pytest.mark.parametrize(("kind", "choice"), [*CASES, ("fusion", "onnx")])
def test_an_engine_on_a_tiny_network_keeps_the_contract(tiny: Path, kind: str, choice: str) -> None:
    check_engine(
        made(kind, choice, tiny), items(kind, tiny), tolerance=1e-4 if choice == "onnx" else INT8_STEP
    )


@pytest.mark.parametrize(("kind", "choice"), LIVE_CASES)
def test_an_engine_on_a_live_preset_keeps_the_contract(live: Path, kind: str, choice: str) -> None:
    check_engine(
        made(kind, choice, live), items(kind, live), tolerance=1e-4 if choice == "onnx" else INT8_STEP
    )


@pytest.mark.parametrize("flavour", ["tensorrt", "tensorrt-rtx"])
@pytest.mark.parametrize("graphs", [True, False])
@pytest.mark.parametrize("kind", ["face", "voice"])
def test_the_tensorrt_engine_keeps_the_contract_on_the_host(
    tiny: Path, kind: str, graphs: bool, flavour: str
) -> None:
    found = manifests.read(tiny / f"{kind}.json")
    plan = gpu.plan(manifests.load_bytes(found, tiny, "fp32"), (1, 4, 16))

    def make() -> Engine:
        return TensorRTEngine(
            found,
            "fp32",
            plan,
            backend=gpu.backend(flavour),
            memory=HostMemory(),
            options=RunOptions(graphs=graphs, owns_memory=True),
        )

    check_engine(make, items(kind, tiny))


@pytest.mark.parametrize("kind", manifests.KINDS)
def test_the_torch_reference_keeps_the_contract(live: Path, kind: str) -> None:
    check_engine(made(kind, "torch", live), items(kind, live))


@pytest.mark.parametrize("kind", ["face", "voice"])
def test_the_torch_engine_for_gpus_keeps_the_contract_in_half_precision_on_the_cpu(
    live: Path, kind: str
) -> None:
    torch_engine = pytest.importorskip("liveaffect.engines.torch_engine", reason="needs torch")
    found = manifests.read(live / f"{kind}.json")
    options = torch_engine.TorchOptions(precision="fp16")
    check_engine(lambda: torch_engine.open_weights(found, live, options), items(kind, live), tolerance=0.01)
