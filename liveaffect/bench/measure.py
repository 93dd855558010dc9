"""Figures that two runs can be compared by: many blocks, each beside a yardstick, spread over the whole run.

A shared machine changes its pace from minute to minute, and a run that takes one stage after the other takes
that for a difference. So every stage has a turn in every block, processor time is what is taken, and before
and after each turn the same plain arithmetic is timed. What a comparison looks at is the ratio to that
yardstick.
"""

from __future__ import annotations

import math
import os
import platform
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from liveaffect.engines import stopwatch

FORMAT = 1
AGREEMENT = 0.10
"""How far the middle half of the blocks may lie apart in a figure that counts as settled."""
PACKAGES = (
    "numpy",
    "opencv-contrib-python",
    "onnxruntime",
    "torch",
    "tensorrt",
    "tensorrt-rtx",
    "liveaffect",
)
PIECE_NS = 4_000_000
"""Processor time that calls get in a row, and the yardstick between them."""


@dataclass(frozen=True, slots=True)
class Row:
    """One figure of a run."""

    name: str
    value: float
    unit: str = "ms"
    budget: float | None = None
    """The most it may be."""
    relative: tuple[float, ...] = ()
    """In each block, to the yardstick; what `compare` judges. Empty: shown, never judged."""
    settled: bool = True
    note: str = ""
    figures: Mapping[str, float] = field(default_factory=dict)
    """What else is known of it, names ending with the unit."""

    def to_json(self) -> dict[str, Any]:
        """Plain types, to four places."""
        out = asdict(self)
        out["value"] = short(self.value) if math.isfinite(self.value) else None
        out["relative"] = [short(one) for one in self.relative]
        out["figures"] = {name: short(value) for name, value in self.figures.items()}
        return out


def measure_calls(
    calls: Mapping[str, Callable[[], object]],
    *,
    budgets: Mapping[str, float] | None = None,
    blocks: int = 12,
    block_s: float = 0.2,
    say: Callable[[str], None] = lambda _: None,
) -> list[Row]:
    """Processor milliseconds of each call; each has a turn of `block_s` processor time in every block."""
    taken: dict[str, list[float]] = {name: [] for name in calls}
    ratios: dict[str, list[float]] = {name: [] for name in calls}
    for call in calls.values():
        call()
    for block in range(blocks):
        say(f"block {block + 1} of {blocks}")
        for name, call in calls.items():
            before_ms = yardstick_ms()
            middle_ms, own_ms = _turn(call, block_s, before_ms)
            taken[name].append(middle_ms)
            ratios[name].append(own_ms)
    return [
        Row(
            name,
            float(np.median(taken[name])),
            budget=(budgets or {}).get(name),
            relative=tuple(ratios[name]),
            settled=apart(ratios[name]) <= AGREEMENT,
            figures={"least_ms": min(taken[name]), "most_ms": max(taken[name])},
        )
        for name in calls
    ]


def _turn(call: Callable[[], object], block_s: float, before_ms: float) -> tuple[float, float]:
    """One turn: the median of its calls, and the median ratio of its pieces to the yardstick beside each."""
    end_ns = stopwatch.thread_cpu_ns() + round(block_s * 1e9)
    taken: list[float] = []
    ratios: list[float] = []
    while not ratios or stopwatch.thread_cpu_ns() < end_ns:
        piece = _piece(call)
        after_ms = yardstick_ms()
        taken += piece
        ratios.append(_undisturbed(piece) / ((before_ms + after_ms) / 2))
        before_ms = after_ms
    return float(np.median(taken)), float(np.median(ratios))


def yardstick_ms() -> float:
    """Processor time of plain arithmetic, some of it Python's and some of it NumPy's."""
    return _undisturbed(_piece(_plain_arithmetic))


def _undisturbed(piece: list[float]) -> float:
    """The first quartile: what others do in the caches makes calls slower, never quicker."""
    return float(np.percentile(piece, 25))


def _piece(call: Callable[[], object]) -> list[float]:
    """Milliseconds of each of the calls that fit into one piece."""
    taken: list[float] = []
    until_ns = stopwatch.thread_cpu_ns() + PIECE_NS
    while not taken or stopwatch.thread_cpu_ns() < until_ns:
        start_ns = stopwatch.thread_cpu_ns()
        call()
        taken.append((stopwatch.thread_cpu_ns() - start_ns) / 1e6)
    return taken


_NUMBERS = np.random.default_rng(0).normal(size=(96, 96)).astype(np.float32)
_WIDE = np.ones(1 << 21, np.float32)
"""Eight megabytes: what others do in the shared cache slows this down as it does a network."""
_MANY = np.random.default_rng(1).normal(size=1 << 16).astype(np.float32)


def _plain_arithmetic() -> float:
    total = float((_NUMBERS @ _NUMBERS).sum()) + float(np.sqrt(np.abs(_MANY)).sum()) + float(_WIDE.sum())
    for at in range(1_500):
        total += at % 7
    return total


def apart(values: list[float]) -> float:
    """How far the middle half lies apart, as a share of the median."""
    low, middle, high = np.percentile(values, [25, 50, 75])
    return float((high - low) / middle) if middle else 0.0


def machine() -> dict[str, Any]:
    """What figures depend on; INT8 costs a third on a processor with VNNI."""
    found = _processor()
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return {
        "processor": found["model"],
        "vnni": found["vnni"],
        "avx512": found["avx512"],
        "cores": stopwatch.cores(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "packages": versions,
        "commit": _commit(),
        "load": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
    }


def _processor() -> dict[str, Any]:
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    except OSError:
        return {"model": platform.processor() or "unknown", "vnni": None, "avx512": None}
    known = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    flags = set(known.get("flags", known.get("Features", "")).split())
    return {
        "model": known.get("model name", "unknown"),
        "vnni": bool(flags & {"avx512_vnni", "avx_vnni", "asimddp"}),
        "avx512": "avx512f" in flags,
    }


def _commit() -> str | None:
    """The checkout's commit, with a plus sign if files differ from it; None outside a checkout."""
    try:
        ran = subprocess.run(
            ["git", "describe", "--always", "--dirty=+", "--exclude=*"],
            cwd=Path(__file__).resolve().parent,
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return ran.stdout.strip()


def short(value: float) -> float:
    """Four digits are more than a measurement carries."""
    return float(f"{value:.4g}")
