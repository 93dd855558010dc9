"""Moving portraits lie exactly where the truth says, and every picture says which one it is."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from liveaffect.realtime.errors import EndOfStream, SourceError
from liveaffect.realtime.portrait import (
    STAMP_SIZE,
    Motion,
    Portraits,
    packaged_portraits,
    read_stamp,
    write_stamp,
)
from liveaffect.realtime.replay import load_picture

Image = NDArray[np.uint8]


def marked(size: tuple[int, int] = (120, 160)) -> Image:
    """A dark portrait with one bright disc; its centre is at (30, 100)."""
    image = np.full((size[1], size[0], 3), 30, np.uint8)
    cv2.circle(image, (30, 100), 9, (255, 255, 255), -1)
    return image


def disc(image: Image, around: NDArray[np.float64]) -> NDArray[np.float64]:
    """Where the bright disc lies, by centre of brightness near `around`."""
    x0, y0 = (around - 16).astype(int)
    part = image[y0 : y0 + 33, x0 : x0 + 33, 0].astype(np.float64)
    part[part < 160] = 0
    ys, xs = np.mgrid[0 : part.shape[0], 0 : part.shape[1]]
    return np.array([x0 + (xs * part).sum() / part.sum(), y0 + (ys * part).sum() / part.sum()])


@pytest.mark.parametrize("size", [(STAMP_SIZE[0] - 1, 200), (200, STAMP_SIZE[1] - 1)])
def test_a_canvas_without_room_for_the_stamp_is_refused_before_anything_is_read(
    size: tuple[int, int],
) -> None:
    with pytest.raises(SourceError, match="at least 112x16"):
        Portraits([marked()], size)


@pytest.mark.parametrize("motion", [Motion(), Motion(speed_px_s=300.0)])
@pytest.mark.parametrize("count", [1, 3])
def test_a_mark_lies_where_the_truth_says_to_half_a_pixel(motion: Motion, count: int) -> None:
    source = Portraits([marked()] * count, (640, 360), motion=motion, seed=3)
    for seq in (0, 17, 61, 133):
        image = source.draw(seq)
        for matrix in source.truth(seq):
            expected = matrix @ [30, 100, 1]
            assert np.abs(disc(image, expected) - expected).max() < 0.5


def test_a_large_portrait_is_shrunk_and_the_truth_still_holds() -> None:
    big = cv2.resize(marked(), (960, 1280), interpolation=cv2.INTER_NEAREST)
    source = Portraits([np.asarray(big, np.uint8)], (640, 360))
    expected = source.truth(5)[0] @ [30.5 * 8 - 0.5, 100.5 * 8 - 0.5, 1]
    assert np.abs(disc(source.draw(5), expected) - expected).max() < 0.25


def test_the_steady_speed_is_the_one_asked_for() -> None:
    source = Portraits([marked()], (640, 360), 30, motion=Motion(speed_px_s=300.0))
    x = np.array([source.truth(seq)[0][0, 2] for seq in range(300)])
    steps = np.abs(np.diff(x))
    assert np.median(steps) == pytest.approx(10.0)
    assert steps.max() <= 10.0 + 1e-9
    assert x.max() - x.min() > 300


def test_a_hand_turns_zooms_and_moves_but_keeps_everybody_in_view() -> None:
    source = Portraits([marked(), marked()], (640, 360), seed=1)
    for seq in range(0, 900, 30):
        for matrix in source.truth(seq):
            x, y = matrix @ [60, 80, 1]
            assert 0 < x < 640
            assert 0 < y < 360
    turns = [np.degrees(np.arctan2(m[1, 0], m[0, 0])) for m in (source.truth(s)[0] for s in range(900))]
    assert max(turns) - min(turns) > 5
    assert max(map(abs, turns)) <= 6.01


def test_the_same_seed_gives_the_same_pictures_and_another_does_not() -> None:
    one, same, other = (Portraits([marked()], (320, 240), seed=seed) for seed in (1, 1, 2))
    assert np.array_equal(one.draw(40), same.draw(40))
    assert not np.array_equal(one.draw(40), other.draw(40))


def test_every_picture_carries_its_number_and_time() -> None:
    source = Portraits([marked()], (320, 240), 25, frames=3)
    source.open()
    for seq in range(3):
        frame = source.read(0.0)
        assert read_stamp(frame.image) == (seq, seq * 40_000_000) == (frame.seq, frame.captured_ns)
    with pytest.raises(EndOfStream):
        source.read(0.0)
    with pytest.raises(SourceError):
        Portraits([])


@pytest.mark.parametrize("width", [160, 480])
@given(st.integers(0, 2**32 - 1), st.integers(0, 2**63), st.integers(20, 80))
def test_a_stamp_survives_compression(width: int, seq: int, captured_ns: int, quality: int) -> None:
    image = np.full((64, width, 3), 120, np.uint8)
    write_stamp(image, seq, captured_ns)
    packed = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
    assert read_stamp(np.asarray(cv2.imdecode(packed, cv2.IMREAD_COLOR), np.uint8)) == (seq, captured_ns)


@pytest.mark.parametrize("level", [0, 128, 255])
def test_a_picture_without_a_stamp_has_none(level: int) -> None:
    assert read_stamp(np.full((48, 200, 3), level, np.uint8)) is None
    assert read_stamp(np.full((8, 8, 3), level, np.uint8)) is None
    with pytest.raises(ValueError, match="needs"):
        write_stamp(np.zeros((STAMP_SIZE[1] - 1, 200, 3), np.uint8), 0, 0)


def test_the_portraits_that_installed_packages_carry_are_found_without_importing_them() -> None:
    found = packaged_portraits()
    assert "grace_hopper.jpg" in {path.name for path in found}
    for path in found:
        assert isinstance(path, Path)
        height, width = load_picture(path).shape[:2]
        assert min(height, width) >= 500
