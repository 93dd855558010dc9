"""A crop puts the eyes where the recipe says, at any size, place and roll; quality names what is wrong."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from liveaffect.engines.recipe import CROP_SIZE, EYE_IMAGE_LEFT, EYE_IMAGE_RIGHT
from liveaffect.realtime.crop import cut_out, likeness, quality, turn, unlikeness

EYES = np.array([EYE_IMAGE_LEFT, EYE_IMAGE_RIGHT]) * CROP_SIZE - 0.5


def face_points(
    x: float, y: float, eyes_px: float, roll_deg: float = 0.0, nose: float = 0.0
) -> NDArray[np.float32]:
    """Six points of a face; `nose` moves the nose sideways, in half eye distances."""
    c, s = np.cos(np.radians(roll_deg)), np.sin(np.radians(roll_deg))
    local = np.array([(-0.5, 0), (0.5, 0), (nose / 2, 0.6), (0, 1.0), (-1.1, 0.2), (1.1, 0.2)])
    turned = local @ np.array([[c, s], [-s, c]])
    return np.asarray(np.array([x, y]) + turned * eyes_px, np.float32)


def picture_of_eyes(points: NDArray[np.float32], size: tuple[int, int] = (640, 480)) -> NDArray[np.uint8]:
    """Grey, with a round white spot on each eye, a tenth of the eye distance in radius."""
    width, height = size
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    radius = max(1.0, float(np.hypot(*(points[1] - points[0]))) / 10)
    image = np.full((height, width), 60.0, np.float32)
    for eye in points[:2]:
        image += 180 * np.exp(-(((x - eye[0]) ** 2 + (y - eye[1]) ** 2) / (2 * radius**2)))
    return np.repeat(np.clip(image, 0, 255).astype(np.uint8)[:, :, None], 3, axis=2)


def spot(crop: NDArray[np.uint8], near: NDArray[np.float64]) -> NDArray[np.float64]:
    """Centre of light around a place."""
    y, x = np.mgrid[0:CROP_SIZE, 0:CROP_SIZE]
    weight = np.clip(crop[..., 0].astype(float) - 80, 0, None)
    weight[np.hypot(x - near[0], y - near[1]) > 8] = 0
    return np.array([(weight * x).sum() / weight.sum(), (weight * y).sum() / weight.sum()])


@given(st.floats(150, 480), st.floats(150, 330), st.floats(14, 190), st.floats(-40, 40))
def test_the_eyes_land_where_the_recipe_says(x: float, y: float, eyes_px: float, roll: float) -> None:
    points = face_points(x, y, eyes_px, roll)
    crop = cut_out(picture_of_eyes(points), points)
    assert crop.shape == (CROP_SIZE, CROP_SIZE, 3)
    for wanted in EYES:
        assert np.hypot(*(spot(crop, wanted) - wanted)) < 0.6


def test_a_large_face_is_averaged_and_not_sampled() -> None:
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (720, 1280, 1), np.uint8).repeat(3, axis=2)
    crop = cut_out(noise, face_points(640, 300, 190))
    # The crop shows one pixel of 8 x 8: a mean of those keeps a tenth of the noise, a sample keeps it all.
    assert crop.std() < 0.35 * noise.std()


def test_a_face_at_the_border_repeats_the_border_instead_of_failing() -> None:
    image = np.full((480, 640, 3), 90, np.uint8)
    for eyes_px in (20.0, 200.0):
        for x, y in ((0, 0), (639, 479), (-300, 100), (900, 700)):
            crop = cut_out(image, face_points(x, y, eyes_px))
            assert np.all(crop == 90)


def test_eyes_in_one_place_are_refused() -> None:
    points = face_points(100, 100, 40)
    points[1] = points[0]
    with pytest.raises(ValueError, match="coincide"):
        cut_out(np.zeros((200, 200, 3), np.uint8), points)


def textured(level: float = 130.0, blur: float = 0.0) -> NDArray[np.uint8]:
    """A crop with the contrast and detail of a face."""
    rng = np.random.default_rng(3)
    coarse = cv2.resize(rng.normal(0, 1, (8, 8)), (64, 64), interpolation=cv2.INTER_CUBIC)
    fine = rng.normal(0, 1, (64, 64))
    picture = coarse * 30 + cv2.GaussianBlur(fine, (0, 0), 0.8) * 20
    if blur:
        picture = np.asarray(cv2.GaussianBlur(picture, (0, 0), blur), np.float64)
    return np.clip(level * (1 + picture / 130), 0, 255).astype(np.uint8)[:, :, None].repeat(3, axis=2)


def test_a_good_face_has_no_weakness() -> None:
    good = quality(textured(), face_points(0, 0, 60))
    assert good.weakness is None
    assert good.score > 0.9


@pytest.mark.parametrize(
    ("crop", "points", "weakness"),
    [
        (textured(), face_points(0, 0, 13), "face small"),
        (textured(), face_points(0, 0, 60, nose=0.9), "face turned"),
        (textured(), face_points(0, 0, 60, nose=-0.9), "face turned"),
        (textured(level=25), face_points(0, 0, 60), "face dark"),
        (textured(blur=3.0), face_points(0, 0, 60), "face blurred"),
    ],
)
def test_what_is_wrong_is_named(crop: NDArray[np.uint8], points: NDArray[np.float32], weakness: str) -> None:
    bad = quality(crop, points)
    assert bad.weakness == weakness
    assert bad.score < 0.5


def test_quality_falls_with_the_size_of_the_face_and_never_leaves_0_to_1() -> None:
    scores = [quality(textured(), face_points(0, 0, eyes)).score for eyes in (60, 30, 24, 18, 12, 3)]
    assert scores == sorted(scores, reverse=True)
    assert scores[-1] == 0.0
    assert scores[0] <= 1.0


@given(st.floats(-180, 180), st.floats(10, 200), st.floats(-1, 1))
def test_the_turn_of_a_head_does_not_depend_on_roll_or_size(roll: float, eyes_px: float, nose: float) -> None:
    assert turn(face_points(300, 300, eyes_px, roll, nose)) == pytest.approx(nose, abs=0.02)


def test_one_face_in_other_light_is_liker_than_another_face() -> None:
    one = textured()
    brighter = np.clip(one.astype(float) * 1.3 + 10, 0, 255).astype(np.uint8)
    other = np.ascontiguousarray(one[::-1, ::-1])
    assert unlikeness(likeness(one), likeness(one)) == pytest.approx(0, abs=1e-5)
    assert unlikeness(likeness(one), likeness(brighter)) < 0.5
    assert unlikeness(likeness(one), likeness(other)) > 1.2


def test_the_colour_of_two_faces_tells_them_apart_too() -> None:
    one = textured()
    other = one.copy()
    other[..., 2] //= 2
    assert unlikeness(likeness(one), likeness(other)) > 1.0
