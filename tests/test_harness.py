"""The measuring tools measure: times are right, restlessness is said, and a slowdown is found."""

from __future__ import annotations

import importlib.util
import itertools
import json
import sys
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
