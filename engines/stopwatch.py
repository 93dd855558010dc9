"""How long something takes: the only place in `engines` that reads time.

Engines own no clock. `load` needs one answer before the first picture: is INT8 really faster than fp32
on this processor? Processor time of the calling thread is used, because a busy machine changes wall time
and not the ratio. Training asks for wall time, because that is what a person waits for.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from statistics import median


def thread_cpu_ns() -> int:
    """Processor time of the calling thread."""
    return time.thread_time_ns()


def wall_ns() -> int:
    """Time since an arbitrary start; never goes back."""
    return time.monotonic_ns()


def epoch_s() -> float:
    """The time of day as files are stamped with it."""
    return time.time()


def median_ns(
    calls: Sequence[Callable[[], object]], *, rounds: int, now: Callable[[], int] = thread_cpu_ns
) -> list[int]:
    """The median cost of each call, taken in turns so that a change of pace hits all of them alike."""
    taken: list[list[int]] = [[] for _ in calls]
    for _ in range(rounds):
        for call, list_ns in zip(calls, taken, strict=True):
            start_ns = now()
            call()
            list_ns.append(now() - start_ns)
    return [int(median(list_ns)) for list_ns in taken]


def all_threads_cpu_ns() -> int:
    """Processor time of all threads, for libraries that work in threads of their own."""
    return time.process_time_ns()


def cores() -> int:
    """Processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
