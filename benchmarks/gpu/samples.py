"""Times many calls in windows until the windows agree, and says which percentiles the samples carry.

One number from one loop proves little on a GPU: clocks climb under load and fall with heat. So a figure
counts as settled only when median and p99 of the last three windows agree; otherwise the report says that
they did not. A percentile is left out when fewer than five samples lie beyond it: p99.9 of a thousand calls
is the second worst of them, and no percentile.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

SHARES = {"p50": 50.0, "p90": 90.0, "p99": 99.0, "p99.9": 99.9}
LEAST_BEYOND = 5
WINDOWS = 3
MS = 1e6

Times = NDArray[np.float64]
Now = Callable[[], int]


@dataclass(frozen=True, slots=True)
class Effort:
    """How long to look. The dry run looks for a moment, because it measures nothing."""

    window_s: float = 0.2
    least_calls: int = 50
    """In one window, however long they take."""
    most_windows: int = 12
    warm_up_s: float = 0.05
    agreement: float = 0.05
    """How far the medians of three windows may lie apart; three times as much for p99."""
    starts: int = 3
    """Fresh processes for the first times."""
    trial_s: float = 2.0
    """How long a number of streams has to be kept up."""
    most_streams: int = 16_384
    parity_items: int = 64
    batches: tuple[int, ...] = (1, 2, 4, 8, 16, 32, 64, 128, 256)
    few_batches: tuple[int, ...] = (1, 16, 64)
    """For the networks that live use does not run."""
    sizes: tuple[int, ...] = (1, 4, 16, 64, 256)
    """Profiles of a plan, and the batches that torch captures graphs for."""
    tick_faces: tuple[int, ...] = (1, 8, 64)
    precisions: tuple[str, ...] = ("fp16", "fp32", "int8", "fp32-tf32")
    burst: int = 16
    """Calls handed in at once for the throughput."""


DRY = Effort(
    window_s=0.0,
    least_calls=2,
    most_windows=3,
    warm_up_s=0.0,
    starts=1,
    trial_s=0.05,
    most_streams=4,
    parity_items=4,
    batches=(1, 2, 4),
    few_batches=(1,),
    sizes=(1, 3),
    tick_faces=(1, 3),
    precisions=("fp16", "int8"),
    burst=2,
)


@dataclass(frozen=True, slots=True)
class Settled:
    """What the last three windows say together."""

    figures: dict[str, float]
    """Milliseconds, by percentile."""
    settled: bool
    spread: float
    """How far the medians of these windows lay apart, relative to the middle one."""
    windows: int
    samples: int
    left_out: tuple[str, ...] = ()
    """Percentiles that so few samples do not carry."""
    notes: dict[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Plain types only."""
        out: dict[str, Any] = {name: float(f"{ms:.5g}") for name, ms in self.figures.items()}
        out |= {"settled": self.settled, "spread": round(self.spread, 4)}
        return {**out, "windows": self.windows, "samples": self.samples, **self.notes}


def settle(
    call: Callable[[], object],
    effort: Effort,
    *,
    between: Callable[[], object] = lambda: None,
    now: Now = time.perf_counter_ns,
) -> Settled:
    """Wall time of `call`, in windows until three agree. `between` runs after each window."""

    def timed() -> float:
        start_ns = now()
        call()
        return (now() - start_ns) / MS

    return settle_readings(timed, effort, between=between, now=now)


def settle_readings(
    reading: Callable[[], float],
    effort: Effort,
    *,
    between: Callable[[], object] = lambda: None,
    now: Now = time.perf_counter_ns,
) -> Settled:
    """The same for calls that say themselves how many milliseconds they took."""
    warm_until_ns = now() + int(effort.warm_up_s * 1e9)
    reading()
    while now() < warm_until_ns:
        reading()
    windows: list[Times] = []
    while len(windows) < effort.most_windows and not (len(windows) >= WINDOWS and agree(windows, effort)):
        windows.append(_window(reading, effort, now))
        between()
    return summed_up(windows, effort)


def summed_up(windows: list[Times], effort: Effort) -> Settled:
    """The figures of the last three windows, and whether these agree."""
    last = windows[-WINDOWS:]
    whole = np.concatenate(last)
    figures, left_out = percentiles(whole)
    return Settled(
        figures=figures,
        settled=agree(windows, effort),
        spread=spread_of([float(np.median(window)) for window in last]),
        windows=len(windows),
        samples=len(whole),
        left_out=left_out,
    )


def percentiles(times: Times) -> tuple[dict[str, float], tuple[str, ...]]:
    """Mean and worst, the percentiles that enough samples carry, and the names of the others."""
    carried = {
        name: float(np.percentile(times, share))
        for name, share in SHARES.items()
        if share == 50.0 or len(times) * (100.0 - share) / 100.0 >= LEAST_BEYOND - 1e-9
    }
    left_out = tuple(name for name in SHARES if name not in carried)
    return {**carried, "mean": float(times.mean()), "worst": float(times.max())}, left_out


def agree(windows: list[Times], effort: Effort) -> bool:
    """Whether median and p99 of the last three windows lie close together."""
    last = windows[-WINDOWS:]
    if len(last) < WINDOWS:
        return False
    middle, late = ([float(np.percentile(window, share)) for window in last] for share in (50, 99))
    return spread_of(middle) <= effort.agreement and spread_of(late) <= 3 * effort.agreement


def spread_of(values: list[float]) -> float:
    """Largest less smallest, as a share of the middle one."""
    middle = float(np.median(values))
    return 0.0 if middle <= 0.0 else (max(values) - min(values)) / middle


def clock_cost_ms(now: Now = time.perf_counter_ns, rounds: int = 1000) -> float:
    """What reading the clock itself costs; every wall time holds it once."""
    start_ns = now()
    for _ in range(rounds):
        now()
    return (now() - start_ns) / MS / (rounds + 1)


def _window(reading: Callable[[], float], effort: Effort, now: Now) -> Times:
    out: list[float] = []
    end_ns = now() + int(effort.window_s * 1e9)
    while len(out) < effort.least_calls or now() < end_ns:
        out.append(reading())
    return np.array(out)
