"""The measuring tools of the benchmarks measure: times are right, and restlessness is said."""

from __future__ import annotations

import importlib.util
import itertools
import json
import sys
from pathlib import Path
from types import ModuleType

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


harness = load("harness")


class Machine:
    """Time as the harness reads it, moved by the work that is done and by nothing else."""

    def __init__(self) -> None:
        self.wall_ns = self.cpu_ns = 0

    def perf_counter_ns(self) -> int:
        self.wall_ns += 20
        return self.wall_ns

    def thread_time_ns(self) -> int:
        return self.cpu_ns

    def process_time_ns(self) -> int:
        return self.cpu_ns

    def work(self, us: float) -> None:
        self.wall_ns += round(us * 1_000)
        self.cpu_ns += round(us * 1_000)

    def wait(self, us: float) -> None:
        self.wall_ns += round(us * 1_000)


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    made = Machine()
    monkeypatch.setattr(harness, "time", made)
    monkeypatch.setattr(harness, "_WINDOW_NS", 10_000_000)
    monkeypatch.setattr(harness, "_WARM_UP_NS", 5_000_000)
    return made


def test_twice_the_work_takes_twice_the_time_in_an_interleaved_run(machine: Machine) -> None:
    calls = {"one": lambda: machine.work(200), "two": lambda: machine.work(400)}
    results = harness.compare_calls(calls, rounds=60)
    assert results["two"].figures["ratio"] == pytest.approx(2.0)
    assert "ratio" not in results["one"].figures


def test_waiting_costs_wall_time_and_no_processor_time(machine: Machine) -> None:
    result = harness.measure("wait", lambda: machine.wait(2_000))
    assert result.figures["wall_p50_ms"] == pytest.approx(2.0, rel=1e-3)
    assert result.figures["cpu_p50_ms"] == 0.0


def test_figures_are_for_one_item_of_a_call(machine: Machine) -> None:
    whole = harness.measure("whole", lambda: machine.work(200))
    item = harness.measure("item", lambda: machine.work(200), items=10)
    assert whole.figures["cpu_p50_ms"] == pytest.approx(0.2)
    assert item.figures["cpu_p50_ms"] == pytest.approx(0.02)


def test_calls_too_short_for_the_clock_are_timed_several_at_once(machine: Machine) -> None:
    result = harness.measure("short", lambda: machine.work(1))
    assert result.notes["calls_a_sample"] > 10
    assert result.figures["cpu_p50_ms"] == pytest.approx(0.001)


def test_percentiles_rise_and_a_budget_is_judged_by_the_median(machine: Machine) -> None:
    sizes = itertools.cycle([100.0] * 9 + [300.0])
    result = harness.measure("work", lambda: machine.work(next(sizes)), budget_ms=0.1001)
    p50, p95, p99 = (result.figures[f"cpu_p{p}_ms"] for p in (50, 95, 99))
    assert p50 == pytest.approx(0.1)
    assert p50 < p95 <= p99 == pytest.approx(0.3)
    assert result.settled
    assert result.within_budget
    assert not harness.measure("work", lambda: machine.work(100), budget_ms=0.09).within_budget


def test_a_call_that_keeps_getting_slower_is_said_to_be_unsettled(machine: Machine) -> None:
    size = 100.0

    def slower_and_slower() -> None:
        nonlocal size
        size *= 1.01
        machine.work(size)

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
    assert [json.loads(line)["name"] for line in path.read_text().splitlines()] == ["a", "b"]
    assert len(capsys.readouterr().out.splitlines()) == 2
