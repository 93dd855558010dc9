"""Measures calls, says whether the figures settled, and writes them down with the machine they came from.

Processor time is what budgets are judged by: on a shared machine it is the call's own, while wall time is
also the neighbours'. Both are recorded. A figure counts as settled when median and p95 of the last three
windows agree within 10 %; otherwise the record says that they did not, and nothing is hidden by averaging.

    result = measure("ring/push", push, budget_ms=0.01)
    result.print_json()                # one line; with --write also into benchmarks/results/<script>.jsonl
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Literal

import numpy as np

from liveaffect.bench.measure import machine as measured_machine

RESULTS = Path(__file__).resolve().parent / "results"
AGREEMENT = 0.10
_WINDOWS = 3
_MOST_WINDOWS = 12
_WINDOW_NS = 200_000_000
_WARM_UP_NS = 100_000_000
_SAMPLE_NS = 50_000
"""Shorter calls are timed several at once, or the clock would be measured instead."""
_MS = 1e6
_written: set[Path] = set()


@dataclass(frozen=True, slots=True)
class Result:
    """Figures of one case. Their names end with the unit."""

    name: str
    figures: Mapping[str, float]
    settled: bool = True
    spread: float = 0.0
    """How far the medians of the last windows lay apart, relative to the middle one."""
    judged: tuple[str, ...] = ()
    """The figures that `compare.py` looks at. Lower is better, unless the name ends with `_per_s`."""
    budget_ms: float | None = None
    notes: Mapping[str, Any] = field(default_factory=dict)

    @property
    def within_budget(self) -> bool | None:
        """Whether the first judged figure keeps the budget; None if there is none."""
        return None if self.budget_ms is None else self.figures[self.judged[0]] <= self.budget_ms

    def print_json(self) -> None:
        """One line on standard output; with `--write` on the command line also into the results file."""
        print_record(self)


def print_record(result: Result, *, write: bool | None = None) -> None:
    """Print a result with the machine's record, and keep it if asked to."""
    record: dict[str, Any] = {
        "name": result.name,
        "figures": {name: float(f"{value:.5g}") for name, value in result.figures.items()},
        "settled": result.settled,
        "spread": round(result.spread, 4),
        "judged": list(result.judged),
    }
    if result.budget_ms is not None:
        record |= {"budget_ms": result.budget_ms, "within_budget": result.within_budget}
    record |= {**result.notes, "machine": {**machine(), "load": load()}}
    line = json.dumps(record)
    print(line, flush=True)
    if "--write" in sys.argv if write is None else write:
        path = RESULTS / f"{Path(sys.argv[0]).stem}.jsonl"
        path.parent.mkdir(exist_ok=True)
        with path.open("a" if path in _written else "w", encoding="utf-8") as file:
            file.write(line + "\n")
        _written.add(path)


def measure(
    name: str,
    call: Callable[[], object],
    *,
    budget_ms: float | None = None,
    items: int = 1,
    by: Literal["cpu", "wall"] = "cpu",
) -> Result:
    """Time `call` until it settles. Figures are for one of the `items` that a call works on.

    `by` says what is judged: processor time of the calling thread, or wall time for work on another
    device. Percentiles are over samples; a sample is one call, or `calls_a_sample` very short ones.
    """
    calls = _calls_a_sample(call)
    windows = [_window(call, calls, items) for _ in range(_WINDOWS)]
    while not _agree(windows, by) and len(windows) < _MOST_WINDOWS:
        windows.append(_window(call, calls, items))
    last = windows[-_WINDOWS:]
    notes = {"windows": len(windows), "samples": sum(len(w.wall_ms) for w in last), "calls_a_sample": calls}
    return Result(
        name=name,
        figures=_figures(last),
        settled=_agree(windows, by),
        spread=_spread([w.middle(by) for w in last]),
        judged=(f"{by}_p50_ms",),
        budget_ms=budget_ms,
        notes={**notes, "items": items},
    )


def compare_calls(
    calls: Mapping[str, Callable[[], object]], *, rounds: int = 200, by: Literal["cpu", "wall"] = "cpu"
) -> dict[str, Result]:
    """Time several calls in turns, so that a change of the machine's pace hits all of them alike.

    Every result but the first holds `ratio`: the median over all rounds of its time to the first one's.
    """
    for call in calls.values():
        _warm_up(call)
    sizes = {name: _calls_a_sample(call) for name, call in calls.items()}
    taken: dict[str, list[_Window]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            taken[name].append(_samples(call, sizes[name], 1, 1))
    first = np.array([window.middle(by) for window in next(iter(taken.values()))])
    out: dict[str, Result] = {}
    for name, windows in taken.items():
        thirds = [_joined(windows[k::_WINDOWS]) for k in range(_WINDOWS)]
        ratios = np.array([window.middle(by) for window in windows]) / np.maximum(first, 1e-9)
        figures = _figures(windows)
        if out:
            figures["ratio"] = float(np.median(ratios))
        out[name] = Result(
            name=name,
            figures=figures,
            settled=_agree(thirds, by),
            spread=_spread([third.middle(by) for third in thirds]),
            judged=("ratio",) if out else (f"{by}_p50_ms",),
            notes={"rounds": rounds, "compared_with": next(iter(calls))},
        )
    return out


@dataclass(frozen=True, slots=True)
class _Window:
    """Times of one item in each sample, and of the whole process over all of them."""

    wall_ms: tuple[float, ...]
    cpu_ms: tuple[float, ...]
    process_ms: float

    def percentile(self, by: str, share: float) -> float:
        return float(np.percentile(self.wall_ms if by == "wall" else self.cpu_ms, share))

    def middle(self, by: str) -> float:
        return self.percentile(by, 50)


def _warm_up(call: Callable[[], object]) -> int:
    """Wall time of one call in nanoseconds once it is warm."""
    end_ns = time.perf_counter_ns() + _WARM_UP_NS
    shortest_ns = 1 << 62
    rounds = 0
    while rounds < 3 or time.perf_counter_ns() < end_ns:
        start_ns = time.perf_counter_ns()
        call()
        shortest_ns = min(shortest_ns, time.perf_counter_ns() - start_ns)
        rounds += 1
    return max(shortest_ns, 1)


def _calls_a_sample(call: Callable[[], object]) -> int:
    return max(1, -(-_SAMPLE_NS // _warm_up(call)))


def _window(call: Callable[[], object], calls: int, items: int) -> _Window:
    return _samples(call, calls, items, None)


def _samples(call: Callable[[], object], calls: int, items: int, count: int | None) -> _Window:
    """`count` samples, or as many as fit into a window."""
    wall: list[float] = []
    cpu: list[float] = []
    share = _MS * calls * items
    process_ns, end_ns = time.process_time_ns(), time.perf_counter_ns() + _WINDOW_NS
    while len(wall) < (count or 5) or (count is None and time.perf_counter_ns() < end_ns):
        wall_ns, cpu_ns = time.perf_counter_ns(), time.thread_time_ns()
        for _ in range(calls):
            call()
        cpu.append((time.thread_time_ns() - cpu_ns) / share)
        wall.append((time.perf_counter_ns() - wall_ns) / share)
    process_ms = (time.process_time_ns() - process_ns) / share / len(wall)
    return _Window(tuple(wall), tuple(cpu), process_ms)


def _joined(windows: list[_Window]) -> _Window:
    return _Window(
        tuple(ms for window in windows for ms in window.wall_ms),
        tuple(ms for window in windows for ms in window.cpu_ms),
        float(np.mean([window.process_ms for window in windows])),
    )


def _figures(windows: list[_Window]) -> dict[str, float]:
    whole = _joined(windows)
    out = {f"{by}_p{p}_ms": whole.percentile(by, p) for by in ("cpu", "wall") for p in (50, 95, 99)}
    return {**out, "process_cpu_ms": whole.process_ms}


def _agree(windows: list[_Window], by: str) -> bool:
    last = windows[-_WINDOWS:]
    return all(_spread([w.percentile(by, share) for w in last]) <= AGREEMENT for share in (50, 95))


def _spread(values: list[float]) -> float:
    middle = float(np.median(values))
    return 0.0 if middle <= 0 else (max(values) - min(values)) / middle


@cache
def machine() -> dict[str, Any]:
    """What the figures depend on and that does not change during a run."""
    here = measured_machine()
    return {"cpu": here.pop("processor"), **{name: value for name, value in here.items() if name != "load"}}


def load() -> float | None:
    """How many processes wanted a processor in the last minute; a busy machine explains a bad figure."""
    return round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None


def film_as_devices(film: Path) -> list[str]:
    """Chromium's flags that make a film its camera and the WAV beside it its microphone."""
    return [
        "--no-sandbox",
        "--disable-gpu",
        "--use-fake-ui-for-media-stream",
        "--use-fake-device-for-media-stream",
        f"--use-file-for-fake-video-capture={film}",
        f"--use-file-for-fake-audio-capture={film.with_suffix('.wav')}",
    ]
