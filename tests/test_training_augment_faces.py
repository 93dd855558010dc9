"""A face seen anyhow is still that face: placed as the live crop places it, changed as cameras change it."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from liveaffect.engines.recipe import CROP_SIZE, EYE_IMAGE_LEFT
from liveaffect.engines.training.augment_faces import FaceChanges, grey_crops, placed, seen, tinted

STILL = FaceChanges(
    turn_deg=0,
    scale=0,
    shear=0,
    shift_px=0,
    mirror=0,
    gamma=0,
    contrast=0,
    side_light=0,
    low_light=0,
    blur=0,
    small=0,
    sharpen=0,
    noise=0,
    jpeg=0,
    occlusion=0,
    tint=0,
)


def picture(seed: int, side: int = 48) -> NDArray[np.uint8]:
    rough = np.random.default_rng(seed).integers(0, 255, (6, 6)).astype(np.uint8)
    return np.asarray(cv2.resize(rough, (side, side), interpolation=cv2.INTER_LINEAR), np.uint8)


def test_without_any_strength_a_seen_face_is_the_placed_one() -> None:
    rng = np.random.default_rng(0)
    crop = seen(picture(3), rng, STILL).astype(int)
    assert np.abs(crop - placed(picture(3))).max() <= 12  # Interpolation is drawn as well.
    grey = grey_crops(picture(3)[None])
    np.testing.assert_array_equal(tinted(grey[..., 0], rng, STILL), grey)


def test_what_stands_at_the_eye_of_a_corpus_picture_stands_at_the_eye_of_the_crop() -> None:
    face = np.zeros((48, 48), np.uint8)
    x, y = (share * 48 - 0.5 for share in EYE_IMAGE_LEFT)
    cv2.circle(face, (round(x), round(y)), 2, (255,), -1)
    rows, columns = np.nonzero(placed(face) > 128)
    assert columns.mean() == pytest.approx(EYE_IMAGE_LEFT[0] * CROP_SIZE - 0.5, abs=1.0)
    assert rows.mean() == pytest.approx(EYE_IMAGE_LEFT[1] * CROP_SIZE - 0.5, abs=1.0)


def test_two_looks_at_a_face_differ_and_the_same_dice_give_the_same_look() -> None:
    looks = [seen(picture(3), np.random.default_rng(seed), FaceChanges()) for seed in (1, 2, 1)]
    assert looks[0].shape == (CROP_SIZE, CROP_SIZE)
    assert looks[0].dtype == np.uint8
    np.testing.assert_array_equal(looks[0], looks[2])
    assert (looks[0] != looks[1]).mean() > 0.5
