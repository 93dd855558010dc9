"""Under overload work is left out in a fixed order, and comes back when the machine is calm."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from liveaffect.realtime.clock import MS, SECOND
from liveaffect.realtime.health import FACES_HALVED, RATES_HZ, VOICES_HALVED, LoadShedder

STEP_NS = 33 * MS
MEASURES = (VOICES_HALVED, FACES_HALVED)


def run(shedder: LoadShedder, seconds: float, *, late_every: int, start_ns: int = 0) -> int:
    now_ns = start_ns
    for i in range(round(seconds * SECOND / STEP_NS)):
        now_ns += STEP_NS
        shedder.note(now_ns, late=late_every > 0 and i % late_every == 0)
    return now_ns


@pytest.mark.parametrize("late_every", [0, 30])
def test_a_calm_machine_and_one_late_step_a_second_leave_nothing_out(late_every: int) -> None:
    shedder = LoadShedder([VOICES_HALVED, FACES_HALVED])
    run(shedder, 60, late_every=late_every)
    assert (shedder.level, shedder.says()) == (0, "")


@pytest.mark.parametrize("measures", [[VOICES_HALVED, FACES_HALVED], [VOICES_HALVED], [FACES_HALVED], []])
def test_overload_takes_one_measure_a_second_and_announces_only_what_it_does(measures: Sequence[str]) -> None:
    """A run without sound has no hop to double, and must not say that it did."""
    shedder = LoadShedder(measures)
    now_ns, said, done = 0, [], []
    for _ in range(4):
        now_ns = run(shedder, 1.1, late_every=2, start_ns=now_ns)
        said.append(shedder.says())
        done.append([measure for measure in (VOICES_HALVED, FACES_HALVED) if shedder.does(measure)])
    taken = [list(measures[: k + 1]) for k in range(4)]
    assert done == taken
    assert said == [in_force[-1] if in_force else "" for in_force in taken]


def test_five_calm_seconds_bring_one_measure_back() -> None:
    shedder = LoadShedder([VOICES_HALVED, FACES_HALVED])
    now_ns = run(shedder, 5, late_every=1)
    assert shedder.level == 2
    levels = []
    for _ in range(3):
        now_ns = run(shedder, 5.1, late_every=0, start_ns=now_ns)
        levels.append(shedder.level)
    assert levels == [1, 0, 0]


def test_several_cameras_are_looked_at_less_often_before_any_is_left_out() -> None:
    load_shedder = LoadShedder(MEASURES, cameras=4)
    now_ns, seen = 0, []
    for _ in range(12):
        now_ns = run(load_shedder, 1.1, late_every=2, start_ns=now_ns)
        period_ns = load_shedder.look_period_ns
        seen.append((SECOND // period_ns if period_ns else 0, load_shedder.cameras))
    assert seen == [(0, 4)] * 2 + [(rate, 4) for rate in RATES_HZ] + [(6, 3), (6, 2)] + [(6, 1)] * 5


def test_it_is_said_how_many_cameras_are_analysed_and_how_often() -> None:
    load_shedder = LoadShedder(MEASURES, cameras=8)
    load_shedder.level = len(MEASURES) + 1
    assert load_shedder.says() == "each camera is analysed 15 times a second"
    load_shedder.level += len(RATES_HZ)
    said = "7 of 8 cameras are analysed, 6 times a second; the last one is only shown"
    assert load_shedder.says() == said
    load_shedder.level += 1
    said = "6 of 8 cameras are analysed, 6 times a second; the last 2 are only shown"
    assert load_shedder.says() == said


def test_who_falls_back_at_once_waits_longer_before_the_next_try() -> None:
    load_shedder = LoadShedder(MEASURES, cameras=2)
    now_ns = run(load_shedder, 1.2, late_every=1)
    tries = []
    for _ in range(6):
        began_ns, level = now_ns, load_shedder.level
        while load_shedder.level == level:
            now_ns = run(load_shedder, 0.1, late_every=0, start_ns=now_ns)
        tries.append(round((now_ns - began_ns) / SECOND))
        while load_shedder.level < level:
            now_ns = run(load_shedder, 0.1, late_every=1, start_ns=now_ns)
    assert tries[0] <= 6
    assert tries[-1] >= 55
    assert sorted(tries) == tries
