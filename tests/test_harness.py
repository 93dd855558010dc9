"""The measuring tools measure: times are right, restlessness is said, and a slowdown is found."""

from __future__ import annotations

import importlib.util
import json
import sys
import threading
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

BENCHMARKS = Path(__file__).resolve().parent.parent / "benchmarks"


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, BENCHMARKS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


harness, compare = load("harness"), load("compare")


@pytest.fixture(autouse=True)
def _short_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(harness, "_WINDOW_NS", 10_000_000)
    monkeypatch.setattr(harness, "_WARM_UP_NS", 5_000_000)


def work(size: int) -> object:
    return sum(range(size))


def test_twice_the_work_takes_twice_the_time_in_an_interleaved_run() -> None:
    results = harness.compare_calls({"one": lambda: work(20_000), "two": lambda: work(40_000)}, rounds=60)
    assert results["two"].figures["ratio"] == pytest.approx(2.0, rel=0.25)
    assert "ratio" not in results["one"].figures


def test_waiting_costs_wall_time_and_hardly_any_processor_time() -> None:
    wait = threading.Event()
    result = harness.measure("wait", lambda: wait.wait(0.002))
    assert result.figures["wall_p50_ms"] >= 2.0
    assert result.figures["cpu_p50_ms"] < 1.0


def test_figures_are_for_one_item_of_a_call() -> None:
    whole = harness.measure("whole", lambda: work(20_000))
    item = harness.measure("item", lambda: work(20_000), items=10)
    assert whole.figures["cpu_p50_ms"] / item.figures["cpu_p50_ms"] == pytest.approx(10, rel=0.5)


def test_percentiles_rise_and_a_budget_is_judged_by_the_median() -> None:
    result = harness.measure("work", lambda: work(2_000), budget_ms=1_000)
    for kind in ("cpu", "wall"):
        p50, p95, p99 = (result.figures[f"{kind}_p{p}_ms"] for p in (50, 95, 99))
        assert 0 < p50 <= p95 <= p99
    assert result.within_budget
    assert not harness.measure("work", lambda: work(2_000), budget_ms=1e-9).within_budget


def test_a_call_that_keeps_getting_slower_is_said_to_be_unsettled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(harness, "_MOST_WINDOWS", 4)
    size = 1_000

    def slower_and_slower() -> None:
        nonlocal size
        size += size // 50
        work(size)

    result = harness.measure("growing", slower_and_slower)
    assert not result.settled
    assert result.spread > harness.AGREEMENT


def test_a_record_is_one_line_that_names_the_machine(capsys: pytest.CaptureFixture[str]) -> None:
    harness.Result("case", {"cpu_p50_ms": 1 / 3}, judged=("cpu_p50_ms",), budget_ms=0.3).print_json()
    record = json.loads(capsys.readouterr().out)
    assert record["figures"] == {"cpu_p50_ms": 0.33333}
    assert record["within_budget"] is False
    assert record["machine"]["packages"]["numpy"]
    assert record["machine"]["cpu"]


def test_written_results_replace_those_of_an_earlier_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(harness, "RESULTS", tmp_path / "results")
    monkeypatch.setattr(sys, "argv", ["bench_case.py", "--write"])
    path = tmp_path / "results" / "bench_case.jsonl"
    path.parent.mkdir()
    path.write_text("old\n", "utf-8")
    for name in ("a", "b"):
        harness.print_record(harness.Result(name, {"cpu_p50_ms": 1.0}))
    assert list(compare.read_results(path)) == ["a", "b"]
    assert len(capsys.readouterr().out.splitlines()) == 2


def record(name: str, ms: float, **changes: Any) -> dict[str, Any]:
    return {
        "name": name,
        "figures": {"cpu_p50_ms": ms, "pictures_per_s": 1_000 / ms},
        "settled": True,
        "spread": 0.01,
        "judged": ["cpu_p50_ms"],
        "machine": {"cpu": "one"},
        **changes,
    }


@pytest.mark.parametrize(
    ("after", "is_worse", "word"),
    [
        (record("x", 1.30), True, "WORSE"),
        (record("x", 1.05), False, "same"),
        (record("x", 0.50), False, "better"),
        (record("x", 1.30, spread=0.2), False, "same"),
        (record("x", 1.30, settled=False), False, "did not settle"),
        (record("x", 1.30, machine={"cpu": "two"}), False, "other processor"),
        (record("x", 1.30, judged=["pictures_per_s"]), True, "WORSE"),
        (record("y", 1.30), False, "no longer measured"),
    ],
)
def test_only_a_settled_slowdown_beyond_noise_fails(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], after: dict[str, Any], is_worse: bool, word: str
) -> None:
    paths = [tmp_path / "before.jsonl", tmp_path / "after.jsonl"]
    for path, one in zip(paths, (record("x", 1.0), after), strict=True):
        path.write_text(json.dumps(one) + "\n", "utf-8")
    assert compare.main([str(path) for path in paths]) == int(is_worse)
    assert word in capsys.readouterr().out


def test_a_file_that_holds_no_results_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        compare.main([str(tmp_path / "none"), str(tmp_path / "none")])
    assert "not a results file" in capsys.readouterr().err
