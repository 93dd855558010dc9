"""Under overload work is left out in a fixed order, and comes back when the machine is calm."""

from __future__ import annotations

from liveaffect.realtime.clock import MS, SECOND
from liveaffect.realtime.load_shedder import LEVELS, RATES_HZ, LoadShedder

STEP_NS = 33 * MS


def run(load_shedder: LoadShedder, seconds: float, *, late_every: int, start_ns: int = 0) -> int:
    now_ns = start_ns
    for i in range(round(seconds * SECOND / STEP_NS)):
        now_ns += STEP_NS
        load_shedder.note(now_ns, late=late_every > 0 and i % late_every == 0)
    return now_ns


def test_a_calm_machine_leaves_nothing_out() -> None:
    load_shedder = LoadShedder()
    run(load_shedder, 60, late_every=0)
    assert load_shedder.level == 0


def test_one_late_step_is_no_overload() -> None:
    load_shedder = LoadShedder()
    run(load_shedder, 60, late_every=30)
    assert load_shedder.level == 0


def test_overload_goes_up_one_level_a_second_to_the_last() -> None:
    load_shedder = LoadShedder()
    seen = []
    now_ns = 0
    for _ in range(6):
        now_ns = run(load_shedder, 1.1, late_every=2, start_ns=now_ns)
        seen.append(load_shedder.level)
    assert seen == [1, 2, 3, 3, 3, 3]
    assert load_shedder.face_cadence_halved
    assert load_shedder.voice_hop_doubled
    assert len(LEVELS) == 4


def test_voice_is_thinned_before_faces() -> None:
    load_shedder = LoadShedder()
    run(load_shedder, 2.2, late_every=1)
    assert load_shedder.voice_hop_doubled
    assert not load_shedder.face_cadence_halved


def test_five_calm_seconds_bring_one_level_back() -> None:
    load_shedder = LoadShedder()
    now_ns = run(load_shedder, 5, late_every=1)
    assert load_shedder.level == 3
    levels = []
    for _ in range(4):
        now_ns = run(load_shedder, 5.1, late_every=0, start_ns=now_ns)
        levels.append(load_shedder.level)
    assert levels == [2, 1, 0, 0]


def test_several_cameras_are_looked_at_less_often_before_any_is_left_out() -> None:
    load_shedder = LoadShedder(cameras=4)
    now_ns, seen = 0, []
    for _ in range(12):
        now_ns = run(load_shedder, 1.1, late_every=2, start_ns=now_ns)
        period_ns = load_shedder.look_period_ns
        seen.append((SECOND // period_ns if period_ns else 0, load_shedder.cameras))
    assert seen == [(0, 4)] * 3 + [(rate, 4) for rate in RATES_HZ] + [(6, 3), (6, 2)] + [(6, 1)] * 4


def test_it_is_said_how_many_cameras_are_analysed_and_how_often() -> None:
    load_shedder = LoadShedder(cameras=8)
    load_shedder.level = len(LEVELS)
    assert load_shedder.says() == "each camera is analysed 15 times a second"
    load_shedder.level += len(RATES_HZ)
    said = "7 of 8 cameras are analysed, 6 times a second; the last one is only shown"
    assert load_shedder.says() == said
    load_shedder.level += 1
    said = "6 of 8 cameras are analysed, 6 times a second; the last 2 are only shown"
    assert load_shedder.says() == said


def test_who_falls_back_at_once_waits_longer_before_the_next_try() -> None:
    load_shedder = LoadShedder(cameras=2)
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
