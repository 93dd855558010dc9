"""Under overload work is left out in a fixed order, and comes back when the machine is calm."""

from __future__ import annotations

from liveaffect.realtime.clock import MS, SECOND
from liveaffect.realtime.load_shedder import LEVELS, LoadShedder

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
