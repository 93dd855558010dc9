"""`liveaffect bench gpu`: one run of the kit, its record `gpu.json` and its page `gpu.html`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from liveaffect.bench import gpu, page
from liveaffect.bench.card import Watch
from liveaffect.bench.measure import machine
from liveaffect.engines import gpu_driver, gpu_load, stopwatch

RECORD, PAGE = "gpu.json", "gpu.html"
DRY_RUN = "DRY RUN: walked without a GPU; no figure below is one"


def run_gpu(
    networks: Path,
    minutes: float,
    out: Path,
    *,
    say: gpu.Say,
    dry: tuple[Sequence[gpu.Way], gpu.Effort] | None = None,
) -> int:
    """Measure and write; 1 if a part broke. Raises EngineUnavailable where there is nothing to measure."""
    ways: Sequence[gpu.Way]
    missing: Sequence[str]
    if dry is None:
        card = gpu_load.find_gpu() if gpu_driver.why_no_gpu() is None else None
        (ways, missing), effort = gpu.real_ways(), gpu.Effort()
    else:
        (ways, effort), missing, card = dry, [], None
    record: gpu.Figures = {
        "dry_run": DRY_RUN if dry else "",
        "machine": machine(),
        "networks": str(networks),
        "gpu": {"name": card.name, "capability": card.sm, "uuid": card.uuid} if card else {},
        "not_measured": list(missing),
    }
    run = gpu.GpuRun(
        folder=networks,
        ways=ways,
        effort=effort,
        deadline_ns=stopwatch.wall_ns() + round(minutes * 60e9),
        watch=Watch(card.uuid if card else ""),
        write=lambda found: page.write_record(out / RECORD, found),
        say=say,
        record=record,
    )
    try:
        found = gpu.measure_gpu(run)
    finally:
        _write_page(record, out)
    say(f"\n{page.as_text(found.get('budgets', ()))}\n\nwrote {out / RECORD} and {out / PAGE}")
    return int(any(part.get("broken") for part in found["parts"].values()))


def _write_page(record: gpu.Figures, out: Path) -> None:
    """The page of what there is; a run that was cut off has had less."""
    about = [{"": name, "is": _about(record[name])} for name in ("gpu", "machine", "networks")]
    parts = [("Machine", page.as_html(about))]
    if record["dry_run"]:
        parts.insert(0, (record["dry_run"], ""))
    if "budgets" in record:
        parts.append(("Budgets", page.as_html(record["budgets"])))
    if record["not_measured"]:
        parts.append(("Not measured", page.as_html([{"why": why} for why in record["not_measured"]])))
    if points := _latencies(record):
        parts.append(("Whole time, p50", page.plot(points, x="batch", y="milliseconds", log=True)))
    if ages := _ages(record):
        parts.append(("Age of a picture, p99", page.plot(ages, x="streams", y="milliseconds", log=True)))
    for name, part in record.get("parts", {}).items():
        rows = [{key: value for key, value in row.items() if key != "trials"} for row in part.get("rows", ())]
        said = page.as_html([{"why not": part["why_not"]}]) if "why_not" in part else page.as_html(rows)
        clocks = page.as_html([{"seconds": part.get("seconds"), **part.get("card", {})}])
        parts.append((name, said + clocks))
    page.write_page(out / PAGE, f"A GPU: {record['gpu'].get('name', 'none')}", parts)


def _about(found: Any) -> str:
    return (
        ", ".join(f"{key} {value}" for key, value in found.items()) if isinstance(found, dict) else str(found)
    )


def _latencies(record: gpu.Figures) -> dict[str, list[tuple[float, float]]]:
    """By network and way, the whole time at each batch."""
    out: dict[str, list[tuple[float, float]]] = {}
    for name, part in record.get("parts", {}).items():
        if name.startswith("latency"):
            for row in part.get("rows", ()):
                line = f"{row['network']}, {name.removeprefix('latency, ')}"
                out.setdefault(line, []).append((row["batch"], row["whole_p50_ms"]))
    return out


def _ages(record: gpu.Figures) -> dict[str, list[tuple[float, float]]]:
    """By way, the age at each number of streams that was tried."""
    out: dict[str, list[tuple[float, float]]] = {}
    for name, part in record.get("parts", {}).items():
        if name.startswith("streams"):
            trials = {
                one["streams"]: one["age_p99_ms"] for row in part.get("rows", ()) for one in row["trials"]
            }
            out[name] = sorted(trials.items())
    return {name: points for name, points in out.items() if points}
