"""What the first use costs: a fresh process from import to answer, with nothing kept and with all kept.

Each start is a process of its own, because a context, a library or a cache that is already there cannot be
made to be new; and because a TensorRT that does not fit the card may take the process down, which a report
should survive and quote. The driver's own cache of kernels is put aside for the very first start.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from gpu import networks
from gpu.card import Watch
from gpu.measuring import Run
from gpu.networks import Network

from liveaffect.engines.protocol import EngineError, Tensors

MARK = "first start: "
CALLS = 20
TIMEOUT_S = 300
LEAST_COSINE = 0.98

Starter = Callable[[Network, str, Path], dict[str, Any]]
"""Starts one network from a folder of plans; says what each step took, or raises EngineError."""


def first_times(run: Run, watch: Watch, start: Starter, precision: str = "fp16") -> dict[str, Any]:
    """First-ever and first-cached times of both networks of live use, or what refused them."""
    out: dict[str, Any] = {"precision": precision, "starts": [], "refused": None}
    with tempfile.TemporaryDirectory() as scratch:
        for kind in ("face", "voice"):
            network = run.prepared.first(kind)
            for number in range(1 + run.effort.starts):
                try:
                    taken = start(network, precision, Path(scratch))
                except EngineError as err:
                    return {**out, "refused": str(err)}
                watch.look()
                which = "first ever" if number == 0 else "first cached"
                out["starts"].append({"network": network.name, "which": which, **taken})
                run.say(f"{network.name} {which}: {json.dumps(taken)}")
    return out


def in_a_process(script: Path, options: Sequence[str], execute: Any = subprocess.run) -> Starter:
    """Starts in a process of its own, by the script's option for it."""

    def start(network: Network, precision: str, cache: Path) -> dict[str, Any]:
        started_ns = time.perf_counter_ns()
        command = [sys.executable, str(script), *options, "--start", f"{network.name},{precision},{cache}"]
        try:
            ran = execute(
                command,
                capture_output=True,
                text=True,
                timeout=TIMEOUT_S,
                check=False,
                env={**os.environ, "CUDA_CACHE_PATH": str(cache / "driver")},
            )
        except subprocess.TimeoutExpired as err:
            raise EngineError(f"no answer within {TIMEOUT_S} s; it said: {_tail(err.stderr)}") from err
        whole_ms = (time.perf_counter_ns() - started_ns) / 1e6
        found = [line for line in ran.stdout.splitlines() if line.startswith(MARK)]
        if ran.returncode or not found:
            how = f"signal {-ran.returncode}" if ran.returncode < 0 else f"exit code {ran.returncode}"
            raise EngineError(f"the process ended with {how}; it said: {_tail(ran.stdout + ran.stderr)}")
        told: dict[str, Any] = json.loads(found[-1].removeprefix(MARK))
        if "refused" in told:
            raise EngineError(told["refused"])
        return {**told, "process_ms": round(whole_ms, 1)}

    return start


def answer(words: str, folder: Path, start: Starter) -> None:
    """The other side: do one start and print what it took, or what refused it."""
    name, precision, cache = words.split(",", 2)
    network = next(one for one in networks.read(folder).networks if one.name == name)
    try:
        told = start(network, precision, Path(cache))
    except EngineError as err:
        told = {"refused": str(err)}
    print(MARK + json.dumps(told), flush=True)


class Steps:
    """How long each step took, one after the other."""

    def __init__(self) -> None:
        self.taken_ms: dict[str, float] = {}
        self._last_ns = time.perf_counter_ns()

    def done(self, name: str) -> None:
        """What was begun after the last step is this one."""
        now_ns = time.perf_counter_ns()
        self.taken_ms[f"{name}_ms"] = round((now_ns - self._last_ns) / 1e6, 3)
        self._last_ns = now_ns


def run_first(infer: Callable[[Tensors], Tensors], network: Network, steps: Steps) -> dict[str, Any]:
    """The first answer, held against the recorded one, and the steady time after it."""
    inputs = network.inputs(1)
    found = infer(inputs)
    steps.done("first_answer")
    wanted = network.answers("fp32")["vector"][:1]
    cosine = float((found["vector"] * wanted).sum())
    cosine /= float(np.linalg.norm(found["vector"]) * np.linalg.norm(wanted)) or 1.0
    if not cosine >= LEAST_COSINE:
        raise EngineError(f"{network.name} runs and answers wrongly: cosine {cosine:.3f} to ONNX Runtime")
    taken_ms = []
    for _ in range(CALLS):
        start_ns = time.perf_counter_ns()
        infer(inputs)
        taken_ms.append((time.perf_counter_ns() - start_ns) / 1e6)
    steady = float(np.median(taken_ms))
    return {**steps.taken_ms, "steady_ms": round(steady, 4), "cosine": round(cosine, 5)}


def _tail(said: str | bytes | None) -> str:
    text = said.decode("utf-8", "replace") if isinstance(said, bytes) else said or ""
    return " / ".join(line.strip() for line in text.strip().splitlines()[-8:]) or "nothing"
