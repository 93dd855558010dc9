"""The torch engine for GPUs: half precision answers like fp32, and what the card refuses is said."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="tests the engine on torch")

from liveaffect.engines import gpu_load, manifest, parity
from liveaffect.engines.build.export_onnx import export
from liveaffect.engines.load import load
from liveaffect.engines.manifest import Manifest
from liveaffect.engines.protocol import EngineLost, EngineUnavailable
from liveaffect.engines.torch_engine import TorchOptions, open_weights


@pytest.fixture(scope="module", params=["face", "voice"])
def found(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Manifest, Path]:
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("live")
    preset = {"face": "live", "voice": "student"}[request.param]
    return manifest.read(export(request.param, preset, folder)), folder


def inputs(found: Manifest, count: int, seed: int = 0) -> parity.Batch:
    return parity.for_tensors(found.kind, count, found.inputs, seed=seed)


def test_half_precision_answers_like_fp32_on_onnx_runtime(found: tuple[Manifest, Path]) -> None:
    engine = open_weights(*found, TorchOptions(precision="fp16"))
    wanted = load(found[0].kind, choice="onnx", weights=found[1])
    # Random layers spread `speech` so little that rounding is a hundredth of it.
    tolerance = replace(gpu_load.tolerance_of("fp16"), largest=0.02)
    report = parity.compare(wanted, engine, inputs(found[0], 16), tolerance=tolerance)
    assert report.alike, "\n".join(report.lines())
    assert max(one.largest for one in report.differences) > 1e-6, "nothing ran in half precision"
    if found[0].kind == "voice":
        worst = {one.output: one.largest for one in report.differences}
        assert worst["stat_sum"] < 1e-3, "statistics follow closer than half precision"


def test_what_cannot_be_captured_is_said_and_runs_plainly(found: tuple[Manifest, Path]) -> None:
    engine = open_weights(*found, TorchOptions(graphs=True))
    assert set(engine.notes) == {
        f"'{engine.spec.name}' runs batches of 1 plainly: there are no CUDA graphs on the CPU"
    }
    batch = inputs(found[0], 3)
    np.testing.assert_array_equal(engine.infer(batch)["logits"], open_weights(*found).infer(batch)["logits"])


def test_an_error_of_a_card_that_worked_means_that_it_is_lost(found: tuple[Manifest, Path]) -> None:
    engine = open_weights(*found)
    engine._options = TorchOptions(device="cuda:0")

    def gone(*_: object) -> Any:
        raise RuntimeError("CUDA error: an illegal memory access was encountered\nmore lines")

    engine.slots[1][0]._run.module = gone  # type: ignore[attr-defined]
    with pytest.raises(EngineLost, match="lost its GPU while handing in a batch: torch failed with CUDA err"):
        engine.submit(inputs(found[0], 1))


def test_without_a_card_it_says_what_to_install(found: tuple[Manifest, Path]) -> None:
    if torch.cuda.is_available():
        pytest.skip("an NVIDIA GPU is here, so torch has nothing to refuse")
    with pytest.raises(EngineUnavailable, match=r"finds no GPU it can use; pip install 'liveaffect\[torch-g"):
        gpu_load.open_torch(*found)
