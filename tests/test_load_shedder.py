"""Under overload work is left out in a fixed order, and comes back when the machine is calm."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from liveaffect.realtime.clock import MS, SECOND
from liveaffect.realtime.load_shedder import CADENCE_HALVED, HOP_DOUBLED, LoadShedder

STEP_NS = 33 * MS


def run(shedder: LoadShedder, seconds: float, *, late_every: int, start_ns: int = 0) -> int:
    now_ns = start_ns
    for i in range(round(seconds * SECOND / STEP_NS)):
        now_ns += STEP_NS
        shedder.note(now_ns, late=late_every > 0 and i % late_every == 0)
    return now_ns


@pytest.mark.parametrize("late_every", [0, 30])
def test_a_calm_machine_and_one_late_step_a_second_leave_nothing_out(late_every: int) -> None:
    shedder = LoadShedder([HOP_DOUBLED, CADENCE_HALVED])
    run(shedder, 60, late_every=late_every)
    assert (shedder.level, shedder.newest) == (0, "")


@pytest.mark.parametrize("measures", [[HOP_DOUBLED, CADENCE_HALVED], [HOP_DOUBLED], [CADENCE_HALVED], []])
def test_overload_takes_one_measure_a_second_and_announces_only_what_it_does(measures: Sequence[str]) -> None:
    """A run without sound has no hop to double, and must not say that it did."""
    shedder = LoadShedder(measures)
    now_ns, said, done = 0, [], []
    for _ in range(4):
        now_ns = run(shedder, 1.1, late_every=2, start_ns=now_ns)
        said.append(shedder.newest)
        done.append([measure for measure in (HOP_DOUBLED, CADENCE_HALVED) if shedder.does(measure)])
    taken = [list(measures[: k + 1]) for k in range(4)]
    assert done == taken
    assert said == [in_force[-1] if in_force else "" for in_force in taken]


def test_five_calm_seconds_bring_one_measure_back() -> None:
    shedder = LoadShedder([HOP_DOUBLED, CADENCE_HALVED])
    now_ns = run(shedder, 5, late_every=1)
    assert shedder.level == 2
    levels = []
    for _ in range(3):
        now_ns = run(shedder, 5.1, late_every=0, start_ns=now_ns)
        levels.append(shedder.level)
    assert levels == [1, 0, 0]
