"""A cut is told from a moving camera; a face is followed to a few hundredths of its width."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from liveaffect.realtime.search import MotionDetector, Template, correlation


def test_a_change_of_brightness_does_not_lower_the_correlation_of_a_picture() -> None:
    picture = np.random.default_rng(0).uniform(0, 255, (24, 32)).astype(np.float32)
    assert correlation(picture, picture * 0.5 + 20) == pytest.approx(1.0, abs=1e-4)
    assert correlation(np.full((24, 32), 7, np.float32), np.full((24, 32), 9, np.float32)) == 1.0


def test_a_moving_camera_is_not_a_cut() -> None:
    rng = np.random.default_rng(0)
    wide = np.asarray(cv2.resize(rng.integers(0, 256, (30, 80, 3), np.uint8), (1600, 480)), np.uint8)
    glance = MotionDetector()
    changes = [glance.look(wide[:, 10 * k : 10 * k + 640]) for k in range(60)]
    assert not any(change.cut for change in changes)


@pytest.mark.parametrize("size", [40.0, 90.0, 240.0])
@pytest.mark.parametrize("shift", [(0.0, 0.0), (0.13, -0.07), (-0.3, 0.25)])
def test_a_template_finds_a_face_to_three_hundredths_of_its_width(
    size: float, shift: tuple[float, float]
) -> None:
    rng = np.random.default_rng(1)
    texture = np.asarray(cv2.resize(rng.integers(0, 256, (60, 80, 3), np.uint8), (1280, 960)), np.uint8)
    dx, dy = (round(s * size) for s in shift)
    before, after = texture[100:900, 100:1200], texture[100 - dy : 900 - dy, 100 - dx : 1200 - dx]
    box = (400.0, 300.0, size, size)
    place = Template.of(before, box).find(after, box)
    assert place is not None
    error = np.hypot(place[0] - (400 + size / 2 + dx), place[1] - (300 + size / 2 + dy))
    assert error < 0.03 * size


def test_a_template_that_is_nowhere_is_not_found() -> None:
    rng = np.random.default_rng(2)
    one, other = rng.integers(0, 256, (2, 300, 400, 3), np.uint8)
    box = (100.0, 100.0, 60.0, 60.0)
    assert Template.of(one, box).find(other, box) is None


@pytest.mark.parametrize("size", [(1, 1), (2, 500), (4000, 8), (6000, 1)])
def test_a_picture_of_any_shape_can_be_compared(size: tuple[int, int]) -> None:
    rng, glance = np.random.default_rng(0), MotionDetector()
    changes = [glance.look(rng.integers(0, 256, (size[1], size[0], 3), np.uint8)) for _ in range(3)]
    assert all(change.samples.size > 0 for change in changes)
