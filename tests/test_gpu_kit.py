"""The kit for GPUs: one command, one record, one page; its dry run walks all of it and measures nothing."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from liveaffect.bench import gpu
from liveaffect.bench.gpu import Watch
from liveaffect.engines import gpu_driver, gpu_load
from liveaffect.engines.protocol import EngineUnavailable

ROOT = Path(__file__).resolve().parent.parent
COMMAND = [sys.executable, str(ROOT / "benchmarks/gpu/run.py")]


def run(out: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [*COMMAND, *arguments, "--out", str(out)]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=out)


@pytest.mark.slow
def test_the_dry_run_walks_every_part_and_says_on_the_page_that_it_is_one(tmp_path: Path) -> None:
    ran = run(tmp_path, "--dry-run")
    assert ran.returncode == 0, ran.stdout + ran.stderr
    record = json.loads((tmp_path / "gpu.json").read_text())
    assert record["dry_run"].startswith("DRY RUN")
    assert len(record["parts"]) == 7, "latency, parity, ticks of two ways, streams of the first"
    assert not [part for part in record["parts"].values() if "why_not" in part], record["parts"]
    rows = record["parts"]["latency, scripted, graph"]["rows"]
    assert [(row["network"], row["batch"]) for row in rows] == [
        (kind, size) for kind in gpu.KINDS for size in gpu.SIZES
    ]
    assert all(row["graph"] for row in rows)
    assert "whole_p99_ms" not in rows[0], "three samples carry no p99"
    page = (tmp_path / "gpu.html").read_text()
    assert "DRY RUN" in page
    assert "budgets" not in record, "what measures nothing judges nothing"
    assert page.count("data:image/png") == 2
    assert "http://" not in page, "the page needs nothing else"
    assert "https://" not in page, "the page needs nothing else"
    late = run(tmp_path, "--dry-run", "--minutes", "0")
    assert late.returncode == 0
    parts = json.loads((tmp_path / "gpu.json").read_text())["parts"].values()
    assert {part["why_not"] for part in parts} == {"the time given was up"}


def test_without_a_card_the_command_says_what_is_missing_and_writes_nothing(tmp_path: Path) -> None:
    if gpu_driver.why_no_gpu() is None:
        pytest.skip("an NVIDIA GPU is here")
    ran = run(tmp_path)
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
