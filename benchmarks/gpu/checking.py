"""The parts that check before anything is believed: answers against ONNX Runtime, and the tests for GPUs.

A fast plan with wrong answers is no result. Every plan is held against what ONNX Runtime answered to the same
items while the networks were prepared, in batches of several sizes.
"""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from typing import Any

from gpu.card import Watch
from gpu.lanes import Path as GpuPath
from gpu.measuring import Run
from gpu.networks import ROOT, Network, Recorded

from liveaffect.engines import parity
from liveaffect.engines.parity import EXACT, QUANTISED, Tolerance
from liveaffect.engines.protocol import EngineError

TOLERANCES = {
    "fp32": EXACT,
    "fp32-tf32": Tolerance(largest=None, cosine=0.999, flips=None, follows=0.99),
    "fp16": Tolerance(largest=None, cosine=0.999, flips=None, follows=0.99),
    "int8": QUANTISED,
}
"""TF32 and half precision keep ten bits; INT8 is judged as on the processor."""
BATCHES = (1, 3, 16)
TESTS = ROOT / "tests" / "gpu"
TESTS_TIMEOUT_S = 240


def parity_of(run: Run, watch: Watch, network: Network, way: GpuPath) -> dict[str, Any]:
    """Every precision of one network against ONNX Runtime in fp32; INT8 also against its own INT8."""
    rows: list[dict[str, Any]] = []
    late = 0
    for precision in run.precisions(way):
        if not run.in_time:
            late += 1
            continue
        try:
            opened = way.open(network, precision)
        except EngineError as err:
            rows.append({"network": network.name, "precision": precision, "why_not": str(err)})
            continue
        try:
            for truth in ("fp32", "int8") if precision == "int8" else ("fp32",):
                rows.append(_row(run, network, way, opened.engine, precision, truth))
        finally:
            opened.close()
        watch.look()
    return {"path": way.name, "rows": rows, "not_reached": late}


def _row(run: Run, network: Network, way: GpuPath, engine: Any, precision: str, truth: str) -> dict[str, Any]:
    most = engine.spec.max_batch
    report = parity.compare(
        Recorded(network, truth),
        engine,
        network.inputs(run.effort.parity_items),
        tolerance=TOLERANCES[precision],
        batches=tuple(min(batch, most) for batch in BATCHES),
    )
    worst = max(report.differences, key=lambda one: one.largest)
    run.say(f"parity {network.name} {precision} against {truth}: {'alike' if report.alike else 'NOT alike'}")
    return {
        "network": network.name,
        "precision": precision,
        "path": way.name,
        "against": f"ONNX Runtime, {truth}",
        "largest": float(f"{worst.largest:.3g}"),
        "in": worst.output,
        "cosine": round(min(one.cosine for one in report.differences), 6),
        "flips": report.flips,
        "items": report.items,
        "alike": report.alike,
        "complaints": list(report.complaints),
    }


def run_tests(run: Run, watch: Watch) -> dict[str, Any]:
    """The project's tests for GPUs, by pytest where it is."""
    if not TESTS.is_dir():
        return {"why_not": f"there is no {TESTS.relative_to(ROOT)}"}
    if importlib.util.find_spec("pytest") is None:
        return {"why_not": "pytest is not installed here"}
    command = [sys.executable, "-m", "pytest", "-q", "-o", "addopts=", "--import-mode=importlib"]
    command += [
        "-p",
        "no:cacheprovider",
        "-m",
        "gpu",
        *(["--collect-only"] if run.is_dry else []),
        str(TESTS),
    ]
    try:
        ran = subprocess.run(
            command, cwd=ROOT, capture_output=True, text=True, timeout=TESTS_TIMEOUT_S, check=False
        )
    except subprocess.TimeoutExpired:
        return {"why_not": f"the tests did not end within {TESTS_TIMEOUT_S} s"}
    watch.look()
    lines = (ran.stdout + ran.stderr).strip().splitlines()
    run.say(f"tests: {lines[-1] if lines else 'nothing said'}")
    return {"passed": ran.returncode == 0, "exit_code": ran.returncode, "last_lines": lines[-15:]}
