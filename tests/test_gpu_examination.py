"""The doctor tells driver, cards, TensorRT, device memory and plans apart, and dies of none of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from liveaffect import doctor as gpu_examination
from liveaffect.engines import device_memory, gpu_driver, plans
from liveaffect.engines.gpu_driver import Backend, Gpu
from liveaffect.engines.plans import BuiltPlan, PlanKey
from liveaffect.findings import Finding

CARD = Gpu(0, "NVIDIA Made Up 4090", (8, 9), (13, 0), 24 << 30)
RTX = Backend(None, "tensorrt-rtx", "1.7.1")


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))


def found() -> dict[str, Finding]:
    return {finding.name: finding for finding in gpu_examination.gpu()}


def test_a_machine_without_a_driver_is_healthy_and_every_cure_is_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(gpu_driver, "why_no_gpu", lambda *_: "no NVIDIA driver is installed")
    monkeypatch.setattr(gpu_driver, "find_backend", lambda: RTX)
    rows = found()
    assert rows["GPU"] == Finding("GPU", "absent", "no NVIDIA driver is installed", gpu_examination.DRIVER)
    assert rows["TensorRT"].state == "ok"
    assert "TensorRT-RTX 1.7.1; needs a driver for CUDA 13.0" in rows["TensorRT"].detail
    assert "broken" not in {row.state for row in rows.values()}
    assert all(row.cure for row in rows.values() if row.state == "absent")


def test_every_card_has_a_row_with_what_plans_depend_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_driver, "why_no_gpu", lambda *_: None)
    monkeypatch.setattr(gpu_driver, "gpus", lambda: (CARD,))
    rows = found()
    assert rows["driver"] == Finding("driver", "ok", "offers CUDA 13.0")
    assert rows["GPU 0"].detail == "NVIDIA Made Up 4090, compute capability 8.9, 24.0 GiB"
    monkeypatch.setattr(gpu_driver, "gpus", lambda: ())
    assert found()["GPU"].state == "broken"


def test_an_old_driver_is_said_where_tensorrt_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_driver, "find_backend", lambda: RTX)
    monkeypatch.setattr(gpu_driver, "why_too_old", lambda flavour: f"the driver is too old for {flavour}")
    row = found()["TensorRT"]
    assert (row.state, row.detail) == (
        "absent",
        "TensorRT-RTX 1.7.1, but the driver is too old for tensorrt-rtx",
    )


def test_an_installed_tensorrt_that_cannot_be_imported_is_broken_and_none_at_all_is_absent(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "hurt_trt.py").write_text("raise ImportError('libnvinfer.so.11: cannot open')\n")
    monkeypatch.syspath_prepend(tmp_path)
    for name, state, words in (
        ("hurt_trt", "broken", "cannot be imported (libnvinfer"),
        ("no_such_trt", "absent", "no_such_trt is not installed"),
    ):
        monkeypatch.setattr(gpu_driver, "TENSORRT_MODULES", (name,))
        row = found()["TensorRT"]
        assert (row.state, row.cure) == (state, gpu_examination.PACKAGE)
        assert words in row.detail


def test_each_way_to_the_memory_is_told_with_its_own_cure(monkeypatch: pytest.MonkeyPatch) -> None:
    why = {"pycuda": "pycuda is not installed; build it", "cuda-python": None}
    monkeypatch.setattr(device_memory, "why_no_memory", why.__getitem__)
    rows = found()
    assert rows["cuda-python"] == Finding("cuda-python", "ok", "works")
    assert (rows["pycuda"].state, rows["pycuda"].cure) == ("absent", gpu_examination.PYCUDA)


def test_plans_are_counted(tmp_path: Path) -> None:
    assert found()["plans"].detail.startswith(f"none in {tmp_path / 'liveaffect' / 'plans'}")
    key = PlanKey("face", "0" * 64, "fp16", (1,), "tensorrt-rtx", "1.7", "portable", "portable")
    plans.write_plan(key, BuiltPlan(b"x" * 1_500_000, (), 0.0))
    assert found()["plans"].detail.startswith("1, 1.5 MB in ")
