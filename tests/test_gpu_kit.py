"""The kit for GPUs: one command, one record, one page; here it runs on a TensorRT that is not there."""

from __future__ import annotations

import json
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from liveaffect.bench import gpu
from liveaffect.bench.gpu import Watch
from liveaffect.engines import gpu_driver, gpu_load
from liveaffect.engines.device_memory import HostMemory
from liveaffect.engines.manifest import KINDS, Manifest
from liveaffect.engines.protocol import EngineUnavailable
from liveaffect.engines.slots import SlotEngine
from liveaffect.engines.tensorrt_engine import RunOptions, TensorRTEngine
from liveaffect.realtime.testing import engines
from liveaffect.realtime.testing import gpu as absent

ROOT = Path(__file__).resolve().parent.parent
FEW = gpu.Effort(calls=3, queued=2, paced_s=0.1, trial_s=0.05, most_streams=2, items=4, pictures=2)


def scripted(found: Manifest, folder: Path, *, graphs: bool) -> SlotEngine:
    """A network on a TensorRT that is not there."""
    _, plan = absent.plan_of(folder, found.kind, (1, 4, 16, 64))
    options = RunOptions(graphs=graphs, owns_memory=True)
    return TensorRTEngine(found, "fp16", plan, backend=absent.backend(), memory=HostMemory(), options=options)


@pytest.mark.slow
def test_every_part_is_measured_in_the_time_given_and_lies_on_one_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for kind in KINDS:
        engines.write_tiny(tmp_path / "networks", kind)
    ways = [gpu.Way(f"graphs {one}", partial(scripted, graphs=one)) for one in (True, False)]
    monkeypatch.setattr(gpu, "real_ways", lambda: (ways, []))
    measured = partial(gpu.run_gpu, tmp_path / "networks", out=tmp_path, say=lambda _: None, effort=FEW)
    assert measured(minutes=7.0) == 0
    record = json.loads((tmp_path / "gpu.json").read_text())
    assert len(record["parts"]) == 7, "latency, parity, ticks of two ways, streams of the first"
    assert not [part for part in record["parts"].values() if "why_not" in part], record["parts"]
    rows = record["parts"]["latency, graphs True"]["rows"]
    assert [(row["network"], row["batch"]) for row in rows] == [
        (kind, size) for kind in gpu.KINDS for size in gpu.SIZES
    ]
    assert all(row["graph"] for row in rows)
    assert "whole_p99_ms" not in rows[0], "three samples carry no p99"
    page = (tmp_path / "gpu.html").read_text()
    assert page.count("data:image/png") == 2
    assert "http://" not in page, "the page needs nothing else"
    assert "https://" not in page, "the page needs nothing else"
    assert measured(minutes=0.0) == 0
    parts = json.loads((tmp_path / "gpu.json").read_text())["parts"].values()
    assert {part["why_not"] for part in parts} == {"the time given was up"}


def test_without_a_card_the_command_says_what_is_missing_and_writes_nothing(tmp_path: Path) -> None:
    if gpu_driver.why_no_gpu() is None:
        pytest.skip("an NVIDIA GPU is here")
    command = [sys.executable, str(ROOT / "benchmarks/gpu/run.py"), "--out", str(tmp_path)]
    ran = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert ran.returncode == 1
    assert ran.stderr.startswith("run: there is no GPU to measure: ")
    assert not list(tmp_path.iterdir())


def test_a_percentile_needs_the_samples_that_carry_it() -> None:
    assert gpu.percentiles("x", [1.0] * 999) == {"x_p50_ms": 1.0, "x_p90_ms": 1.0}
    assert gpu.percentiles("x", [1.0] * 1000)["x_p99_ms"] == 1.0


@pytest.mark.parametrize(("most", "found"), [(0, 0), (1, 1), (37, 36), (5000, 4096)])
def test_the_number_of_streams_is_found_to_a_tenth_and_never_too_high(most: int, found: int) -> None:
    asked: list[int] = []

    def keeps_up(count: int) -> bool:
        asked.append(count)
        return count <= most

    assert gpu.largest(keeps_up, 4096, lambda: True) == found
    assert len(asked) < 20
    assert gpu.largest(keeps_up, 4096, lambda: False) == 0


def test_budgets_are_judged_on_the_first_way_and_what_is_missing_is_not_passed() -> None:
    rows = [{"network": "face", "batch": 1, "whole_p50_ms": 0.09, "whole_p99_ms": 0.2}]
    record: dict[str, Any] = {"ways": ["a", "b"], "parts": {"latency, a": {"rows": rows}}}
    assert [one["verdict"] for one in gpu.budgets(record)] == ["PASS", "FAIL", "not measured"]
    record["ways"] = ["b", "a"]
    assert {one["verdict"] for one in gpu.budgets(record)} == {"not measured"}


def test_a_machine_without_a_card_or_a_way_is_refused_with_every_reason(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(gpu_driver, "why_no_gpu", lambda *_: "no driver")
    with pytest.raises(EngineUnavailable, match="no GPU to measure: no driver"):
        gpu.real_ways()
    monkeypatch.setattr(gpu_driver, "why_no_gpu", lambda *_: None)
    monkeypatch.setattr(gpu_load, "why_no_tensorrt", lambda: "compute capability 9.0")
    monkeypatch.setattr(gpu_load, "why_no_torch", lambda: "not installed")
    with pytest.raises(EngineUnavailable, match=r"TensorRT: compute capability 9\.0; torch: not installed"):
        gpu.real_ways()
    monkeypatch.setattr(gpu_load, "why_no_torch", lambda: None)
    ways, missing = gpu.real_ways()
    assert [way.name for way in ways] == ["torch, graph", "torch, eager", "torch, compiled"]
    assert missing == ["TensorRT: compute capability 9.0"]


def test_clocks_that_cannot_be_read_are_said_so() -> None:
    watch = Watch("GPU-none", library=object())
    watch.look()
    assert "clocks and power were not read" in watch.taken()["clocks"]
