"""What does one inference cost, and what do INT8, a second thread and a batch change about it?

    python benchmarks/bench_engine.py [--kinds face,voice] [--presets live,fv2es] [--seconds 6] [--write]

All engines of a table take turns in one process, so only their ratios to ONNX Runtime in fp32 on one thread
are claims about the engines. One thread is judged by processor time, two by wall time. Weights are random,
which changes no cost. Torch's row is the reference, eager. The face network may take 0.4 ms in INT8, the
voice network 3 ms. Exports to a temporary folder, so it needs torch.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from time import perf_counter

import torch
from harness import Result, compare_calls

from liveaffect.engines import manifest as manifests
from liveaffect.engines import parity
from liveaffect.engines.build import export_onnx
from liveaffect.engines.build.quantize import quantize
from liveaffect.engines.load import load
from liveaffect.engines.protocol import Engine

BATCHES = (1, 4, 16)
BUDGETS_MS = {"face/live": 0.4, "voice/student": 3.0}
PRESETS = {"face": "live,fv2es", "voice": "student,fv2es"}
CALIBRATION_ITEMS = 8
SLOW_ITEMS = 100_000_000
"""Files beyond this size are measured at batch 1 only: a call takes a quarter of a second."""

Calls = dict[str, Callable[[], object]]


def main() -> None:
    """Export what is asked for, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--kinds", default="face,voice")
    parser.add_argument("--presets", help="instead of live or student, and fv2es")
    parser.add_argument("--seconds", type=float, default=6.0, help="for each table")
    parser.add_argument("--write", action="store_true", help="keep the records in benchmarks/results")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as scratch:
        for kind in asked.kinds.split(","):
            presets = (asked.presets or PRESETS[kind]).split(",")
            folders = [built(kind, preset, Path(scratch)) for preset in presets]
            for batch in BATCHES:
                small = [folder for folder in folders if batch == 1 or not is_slow(kind, folder)]
                show(kind, batch, one_thread(kind, small, batch, asked.seconds), "cpu")
                show(kind, batch, two_threads(kind, small, batch, asked.seconds), "wall")


def built(kind: str, preset: str, scratch: Path) -> Path:
    """A folder with one network with random weights in fp32 and INT8."""
    path = export_onnx.export(kind, preset, scratch / preset)
    inputs = parity.for_tensors(kind, CALIBRATION_ITEMS, manifests.read(path).inputs)
    quantize(path, parity.split(inputs, (4,)))
    return path.parent


def is_slow(kind: str, folder: Path) -> bool:
    """Whether one call takes so long that a batch of them would tell nothing new."""
    return (folder / manifests.file_name(kind, "fp32")).stat().st_size > SLOW_ITEMS


def one_thread(kind: str, folders: list[Path], batch: int, seconds: float) -> dict[str, Result]:
    """Every engine on one thread."""
    calls: Calls = {}
    for folder in folders:
        for choice in ("onnx", "onnx-int8", "torch"):
            name = f"{kind}/{folder.name}/{choice}/batch {batch}"
            calls[name] = call_of(load(kind, choice=choice, weights=folder), kind, batch)
    return measured(calls, seconds, "cpu")


def two_threads(kind: str, folders: list[Path], batch: int, seconds: float) -> dict[str, Result]:
    """What a second thread brings, against one."""
    calls: Calls = {}
    for folder in folders:
        for choice in ("onnx", "onnx-int8"):
            for threads in (1, 2):
                name = f"{kind}/{folder.name}/{choice}/batch {batch}/threads {threads}"
                engine = load(kind, choice=choice, weights=folder, threads=threads)
                calls[name] = call_of(engine, kind, batch)
    return measured(calls, seconds, "wall")


def call_of(engine: Engine, kind: str, batch: int) -> Callable[[], object]:
    """One inference on the same inputs every time."""
    inputs = parity.for_tensors(kind, batch, engine.spec.inputs)
    return lambda: engine.infer(inputs)


def measured(calls: Calls, seconds: float, by: str) -> dict[str, Result]:
    """As many rounds as fit into the time, at least nine."""
    start_s = perf_counter()
    for call in calls.values():
        call()
    rounds = int(min(200, max(9, seconds / (perf_counter() - start_s))))
    found = compare_calls(calls, rounds=rounds, by="wall" if by == "wall" else "cpu")
    return {name: judged(result) for name, result in found.items()}


def judged(result: Result) -> Result:
    """The same with its budget, if it has one: the live presets in INT8, one item, one thread."""
    kind, preset, choice, batch, *threads = result.name.split("/")
    budget_ms = BUDGETS_MS.get(f"{kind}/{preset}")
    if budget_ms is None or choice != "onnx-int8" or batch != "batch 1" or threads:
        return result
    return replace(result, judged=("cpu_p50_ms", *result.judged), budget_ms=budget_ms)


def show(kind: str, batch: int, results: dict[str, Result], by: str) -> None:
    """A table for a person on standard error, a record a line on standard output."""
    clock = {"cpu": "processor", "wall": "wall"}[by]
    print(f"\n{kind}, batch {batch}, {clock} time of one call", file=sys.stderr)
    for name, result in results.items():
        rest = name.removeprefix(f"{kind}/").replace(f"/batch {batch}", "")
        own = results[f"{kind}/{rest.split('/')[0]}/onnx/batch {batch}{'/threads 1' if by == 'wall' else ''}"]
        middle_ms = result.figures[f"{by}_p50_ms"]
        ratio = middle_ms / own.figures[f"{by}_p50_ms"]
        verdict = {True: "  within budget", False: "  OVER BUDGET", None: ""}[result.within_budget]
        settled = "" if result.settled else "  not settled"
        print(
            f"  {rest:<28}{middle_ms:>9.3f} ms {ratio:>6.2f} of its own fp32{verdict}{settled}",
            file=sys.stderr,
        )
        result.print_json()


if __name__ == "__main__":
    main()
