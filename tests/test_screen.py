"""The display waits only while results come quickly, and moves boxes to where the faces are."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from liveaffect.realtime.clock import MS, SECOND
from liveaffect.realtime.frame import Face, Sighting, VideoFrame
from liveaffect.realtime.scheduler import Snapshot
from liveaffect.realtime.screen import Pace, RunStatus, Screen
from liveaffect.realtime.testing import scenes

POINTS = np.array([[80, 90], [120, 90], [100, 110], [100, 130], [60, 95], [140, 95]], np.float32)


def frame(at_ns: int) -> VideoFrame:
    return VideoFrame("camera:0", 0, at_ns, np.zeros((480, 640, 3), np.uint8))


def sighting(at_ns: int, velocity: tuple[float, float] = (0.0, 0.0)) -> Sighting:
    face = Face(1, (100, 100, 80, 80), POINTS, velocity, at_ns, 0.9, np.zeros((64, 64, 3), np.uint8))
    return Sighting("camera:0", 0, at_ns, (640, 480), (face,))


def test_auto_starts_locked_and_becomes_late_when_results_are_slow() -> None:
    pace = Pace("auto")
    assert pace.locked
    for _ in range(40):
        pace.note(60 * MS)
    assert pace.mode == "late"
    for _ in range(60):
        pace.note(5 * MS)
    assert pace.mode == "locked"


def test_one_slow_result_in_twenty_changes_nothing() -> None:
    pace = Pace("auto")
    for i in range(200):
        pace.note(80 * MS if i % 20 == 0 else 8 * MS)
        assert pace.locked


def test_between_the_bounds_nothing_flips() -> None:
    pace = Pace("auto")
    for _ in range(60):
        pace.note(20 * MS)
    assert pace.locked
    for _ in range(60):
        pace.note(60 * MS)
    for _ in range(60):
        pace.note(20 * MS)
    assert not pace.locked


@pytest.mark.parametrize("wanted", ["locked", "late"])
def test_a_wish_is_not_measured_away(wanted: str) -> None:
    pace = Pace(wanted)
    for _ in range(100):
        pace.note(100 * MS if wanted == "locked" else MS)
    assert pace.mode == wanted


def test_the_user_can_switch_and_it_stays() -> None:
    pace = Pace("auto")
    pace.switch()
    for _ in range(100):
        pace.note(MS)
    assert pace.mode == "late"


def test_a_late_box_is_moved_to_the_time_of_the_picture() -> None:
    screen = Screen("camera:0", "engine")
    seen = sighting(0, velocity=(300.0, -60.0))
    view = screen.compose(frame(50 * MS), seen, None, RunStatus(60 * MS, "late"))
    x, y, width, height = view.marks[0].box
    assert (x, y) == pytest.approx((115, 97))
    assert (width, height) == (80, 80)


def test_a_box_is_not_moved_on_for_ever() -> None:
    screen = Screen("camera:0", "engine")
    view = screen.compose(frame(5 * SECOND), sighting(0, (300.0, 0.0)), None, RunStatus(5 * SECOND, "late"))
    assert view.marks[0].box[0] == pytest.approx(160)


def test_ages_are_those_at_the_moment_of_drawing() -> None:
    screen = Screen("camera:0", "engine")
    cue = replace(scenes.cue("happy", speaking=True), age_ms=(20, 300))
    view = screen.compose(
        frame(cue.t_ns), sighting(cue.t_ns), Snapshot(cue.t_ns, (cue,)), RunStatus(cue.t_ns + 40 * MS, "late")
    )
    assert view.marks[0].face_age_ms == 60
    assert view.marks[0].voice_age_ms == 340
    assert view.health.age_ms == pytest.approx(40)


def test_the_timeline_has_an_entry_every_tenth_of_a_second_of_the_largest_face() -> None:
    screen = Screen("camera:0", "engine")
    cue = scenes.cue("sad", track=1)
    view = screen.compose(frame(0), sighting(0), None, RunStatus(0, "locked"))
    for i in range(61):
        now_ns = i * SECOND // 30
        view = screen.compose(
            frame(now_ns), sighting(now_ns), Snapshot(now_ns, (cue,)), RunStatus(now_ns, "locked")
        )
    assert 19 <= len(view.history) <= 21
    assert {label for _, label, _ in view.history} == {"sad"}
