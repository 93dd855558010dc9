"""Measures what this machine's GPU does with the networks: one command, also without internet.

    python benchmarks/gpu/run.py --networks FOLDER [--minutes 20] [--out FOLDER]
    python benchmarks/gpu/run.py --dry-run

The first question is whether TensorRT runs on this card at all; if it refuses, its words are kept and torch
as a CUDA graph is measured in its place. Parts come in order of importance, so that a time limit leaves the
best; the same command again goes on with what is missing. The dry run walks the same lines on the host's
memory with a scripted TensorRT, and measures nothing.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any

BENCHMARKS = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(BENCHMARKS)]
sys.path.append(str(BENCHMARKS.parent))

from gpu import checking, equipment, first_start, measuring, networks, report, samples, streams
from gpu.card import Watch
from gpu.equipment import Found, Machine
from gpu.lanes import Path as GpuPath
from gpu.measuring import Run
from harness import RESULTS, machine

from liveaffect.engines import device_memory
from liveaffect.engines.protocol import EngineError

FIRST = "first use"
MOODS = ("works", "refuses", "limps", "bare")
RECORD, PAGE, CHART = "report.json", "report.md", "latency.png"
Part = tuple[str, Callable[[Watch], dict[str, Any]]]


@dataclass
class Session:
    """One run of the command: what is measured, and the record that grows."""

    run: Run
    machine: Machine
    found: Found
    folder: Path
    record: dict[str, Any]

    def do(self, name: str, part: Callable[[Watch], dict[str, Any]]) -> None:
        """One part, unless it is done or the time is up; whatever happens to it stands in the record."""
        before = self.record["parts"].get(name, {})
        if before.get("status") == "done" and not before["data"].get("not_reached"):
            self.run.say(f"== {name}: done before")
            return
        if not self.run.in_time:
            self.record["parts"].setdefault(name, {"status": "not run", "why": "the time given was up"})
            return
        self.run.say(f"== {name}")
        watch, start_ns = Watch(self.found.nvml), self.run.now()
        watch.look()
        entry: dict[str, Any] = {"status": "done"}
        try:
            data = part(watch)
            entry["data"] = report.blanked(data) if self.run.is_dry else data
        except EngineError as err:
            entry |= {"status": "refused", "why": str(err)}
        except Exception as err:  # noqa: BLE001  a part that breaks is quoted; the others go on
            entry |= {"status": "broken", "why": repr(err), "trace": traceback.format_exc()}
        watch.look()
        entry |= {"seconds": (self.run.now() - start_ns) / 1e9, "card": watch.to_json()}
        self.record["parts"][name] = entry
        write(self.record, self.run.out)

    @property
    def refusal(self) -> str | None:
        """Why TensorRT runs nothing on this card, in its own words."""
        first = self.record["parts"].get(FIRST, {})
        refused = first.get("data", {}).get("refused") or first.get("why")
        return str(refused) if refused else None


def parts(run: Run) -> list[Part]:
    """Everything after the first use, the most important first."""
    if not run.ways:
        return []
    live = [run.prepared.first(kind) for kind in ("face", "voice")]
    rest = [network for network in run.prepared.networks if network not in live]
    main, others = run.ways[0], run.ways[1:]
    every, few = run.effort.batches, run.effort.few_batches
    out = [
        (f"ticks, {main.name}", lambda watch: measuring.ticks(run, watch, main)),
        _latency(run, live[0], main, every),
        *(_parity(run, network, main) for network in live),
        _latency(run, live[1], main, every),
        (f"streams, {main.name}", lambda watch: streams.streams(run, watch, main)),
        ("tests for GPUs", lambda watch: checking.run_tests(run, watch)),
    ]
    for way in others:
        batches = few if way.name.startswith("torch") else every
        out += [_latency(run, network, way, batches) for network in live]
        out.append(_ticks(run, way))
    out += [_parity(run, network, main) for network in rest]
    out += [_parity(run, network, way) for way in others for network in live if way.graph]
    out += [_latency(run, network, way, few) for network in rest for way in run.ways if way.graph]
    return out


def _latency(run: Run, network: networks.Network, way: GpuPath, batches: Sequence[int]) -> Part:
    name = f"latency {network.name}, {way.name}"
    return name, lambda watch: measuring.latency(run, watch, network, way, batches)


def _parity(run: Run, network: networks.Network, way: GpuPath) -> Part:
    return f"parity {network.name}, {way.name}", lambda watch: checking.parity_of(run, watch, network, way)


def _ticks(run: Run, way: GpuPath) -> Part:
    return f"ticks, {way.name}", lambda watch: measuring.ticks(run, watch, way)


def begin(run: Run, found: Found, options: Sequence[str]) -> dict[str, Any]:
    """The record of a fresh run: what is measured, where, and with what."""
    prepared, gpu = run.prepared.record, found.gpu
    here = machine()
    here = {**here, "packages": {**here["packages"], **_versions()}}
    same = networks.source_sum() == prepared["sources"]
    return {
        "dry_run": run.is_dry,
        "commit": here["commit"] or prepared["machine"]["commit"],
        "sources": networks.source_sum(),
        "same_sources": "those that prepared the networks" if same else "others than prepared the networks",
        "machine": here,
        "gpu": {
            "name": gpu.name,
            "capability": gpu.sm,
            "driver": "{}.{}".format(*gpu.driver),
            "memory_gb": round(gpu.memory / 1e9, 1),
        },
        "options": list(options),
        "tensorrt": str(found.backend or found.why_no_backend),
        "card": ", ".join(f"{key} {value}" for key, value in found.nvml.fixed().items()),
        "effort": asdict(run.effort),
        "clock_cost_ms": samples.clock_cost_ms(),
        "networks": [one.name for one in run.prepared.networks],
        "left_out": [f"{one['name']}, {one['why']}" for one in prepared["left_out"]],
        "notes": [],
        "parts": {},
    }


def _versions() -> dict[str, str]:
    """Of packages that matter here and to no other benchmark."""
    installed = {(one.name or "").lower(): one.version for one in metadata.distributions()}
    wanted = ("cuda-bindings", "pycuda", "onnx", "tensorrt-rtx-cu13", "tensorrt-cu13", "pytest")
    return {name: found for name in wanted if (found := installed.get(name.lower()))}


def resumed(fresh: dict[str, Any], out: Path) -> dict[str, Any]:
    """The record that is there, if it is of the same code, card and networks; else the fresh one."""
    if fresh["dry_run"]:
        return fresh
    try:
        before: dict[str, Any] = json.loads((out / RECORD).read_text("utf-8"))
    except (OSError, ValueError):
        return fresh
    keys = ("dry_run", "sources", "gpu", "options", "tensorrt", "networks", "effort")
    wanted = json.loads(json.dumps({key: fresh[key] for key in keys}))
    if any(before.get(key) != wanted[key] for key in keys):
        return fresh
    return {**fresh, "parts": before["parts"]}


def write(record: dict[str, Any], out: Path) -> None:
    """Record, page and chart; a run that is cut off leaves what it had."""
    record["budgets"] = report.verdicts(record)
    out.mkdir(parents=True, exist_ok=True)
    (out / RECORD).write_text(json.dumps(record, indent=1) + "\n", "utf-8")
    (out / PAGE).write_text(report.markdown(record), "utf-8")
    (out / CHART).write_bytes(report.picture(record))


def measure(session: Session) -> None:
    """The first use, then everything it allows."""
    run, machine, found = session.run, session.machine, session.found
    notes: list[str] = session.record["notes"]
    if found.backend is None:
        found.notes.append(f"TensorRT is not measured: {found.why_no_backend}")
    else:
        outer = equipment.outer_starter(machine, session.folder)
        session.do(FIRST, lambda watch: first_start.first_times(run, watch, outer))
        if refused := session.refusal:
            found.notes.append(f"{found.backend} does not run on this card: {refused}")
    if session.refusal is None:
        run.ways += equipment.tensorrt_ways(machine, found, run.effort)
    run.ways += equipment.torch_ways(machine, found, run.effort)
    notes += found.notes
    session.record["measured_path"] = run.ways[0].name if run.ways else None
    for name, part in parts(run):
        session.do(name, part)
    found.close()
    write(session.record, run.out)


def folder_for(name: str, is_dry: bool) -> Path:
    """Where the report of this card belongs. That of a dry run never lies among results."""
    short = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
    return Path(tempfile.gettempdir()) / "liveaffect-dry-run" if is_dry else RESULTS / short


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, or walk; 1 where something broke or there is no GPU."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--networks", type=Path, help="what prepare.py wrote")
    parser.add_argument("--minutes", type=float, default=20.0, help="start nothing new after (default 20)")
    parser.add_argument("--out", type=Path, help="default: benchmarks/results/<gpu>")
    parser.add_argument("--memory", choices=("auto", "pycuda", "cuda-python"), default="auto")
    parser.add_argument("--dry-run", choices=MOODS, nargs="?", const="works")
    parser.add_argument("--start", help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    memory = partial(device_memory.open_memory, given.memory)
    effort, here = samples.Effort(), Machine(memory=memory, options=("--memory", given.memory))
    if given.dry_run:
        from gpu import dry

        effort, here = samples.DRY, dry.machine(given.dry_run)
        given.networks = given.networks or dry.networks()
    if given.networks is None:
        parser.error("--networks FOLDER is wanted: what 'python benchmarks/gpu/prepare.py FOLDER' wrote")
    try:
        found = equipment.look(here)
        if given.start:
            starter = equipment.make_starter(here, found, effort)
            first_start.answer(given.start, given.networks, starter)
            return 0
        out = given.out or folder_for(found.gpu.name, bool(given.dry_run))
        if given.dry_run and RESULTS in (out.resolve(), *out.resolve().parents):
            parser.error(f"a dry run measures nothing, so its report may not lie under {RESULTS}")
        prepared = networks.read(given.networks)
    except EngineError as err:
        print(f"run: {err}", file=sys.stderr)
        return 1
    say = _say_dry if given.dry_run else _say
    deadline_ns = time.perf_counter_ns() + int(given.minutes * 60e9)
    run = Run(prepared, effort, found.nvml, out, [], deadline_ns, bool(given.dry_run), say)
    session = Session(run, here, found, given.networks, resumed(begin(run, found, here.options), out))
    measure(session)
    say(f"wrote {out / PAGE}")
    for one in session.record["budgets"]:
        say(f"{one['what']}: {one['verdict']}")
    return int(any(part["status"] == "broken" for part in session.record["parts"].values()))


def _say(line: str) -> None:
    print(line, flush=True)


def _say_dry(line: str) -> None:
    print(f"dry run, no GPU: {line}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
