"""Tiles cover the picture, take turns, skip what did not change; our decoding of BlazeFace is mediapipe's."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from liveaffect.realtime.blazeface import (
    FULL,
    FULL_RANGE,
    SHORT,
    SHORT_RANGE,
    BlazeFace,
    MediapipeFace,
    anchors,
    decode_boxes,
    halve,
    letterbox,
    merge,
    model_path,
    overlap_with_each,
)
from liveaffect.realtime.clock import MS, SECOND
from liveaffect.realtime.errors import MissingFile
from liveaffect.realtime.portrait import packaged_portraits
from liveaffect.realtime.replay import load_picture
from liveaffect.realtime.search import (
    MAX_TILE_PX,
    ROUND_NS,
    SHARED_PX,
    STALE_NS,
    Search,
    close_area,
    look,
    tiles,
)
from liveaffect.realtime.testing.people import Actor, ScriptedFinder, scene
from liveaffect.realtime.track import assign

sizes = st.tuples(st.integers(40, 4000), st.integers(40, 2200))
FRAME_NS = SECOND // 30


def detector(name: str) -> Path:
    """A detector's file; a test without it skips."""
    try:
        return model_path(name)
    except MissingFile as error:
        pytest.skip(str(error))


def portrait() -> NDArray[np.uint8]:
    """A real face that an installed package carries."""
    return load_picture(packaged_portraits()[0])


@given(sizes, st.floats(0, 1), st.floats(0, 1))
def test_every_small_face_lies_whole_in_some_tile(size: tuple[int, int], across: float, down: float) -> None:
    width, height = size
    side = min(SHARED_PX, width, height)
    x, y = across * (width - side), down * (height - side)
    assert any(
        tx <= x + 0.5 and ty <= y + 0.5 and x + side <= tx + tw + 0.5 and y + side <= ty + th + 0.5
        for tx, ty, tw, th in tiles(width, height)[1:] or tiles(width, height)
    )


@given(sizes)
def test_tiles_lie_inside_the_picture_and_are_small_enough_for_a_face_of_40_pixels(
    size: tuple[int, int],
) -> None:
    width, height = size
    whole, *rest = tiles(width, height)
    assert whole == (0, 0, width, height)
    assert rest or max(size) <= MAX_TILE_PX
    for x, y, w, h in rest:
        assert 0 <= x <= x + w <= width
        assert 0 <= y <= y + h <= height
        assert max(w, h) <= MAX_TILE_PX + 1


@pytest.mark.parametrize("size", [(640, 480), (1280, 720), (1920, 1080)])
def test_with_nobody_known_a_new_picture_is_seen_whole_within_half_a_second(size: tuple[int, int]) -> None:
    search = Search(*size)
    samples = np.zeros((90, 160), np.uint8)
    seen = {search.next_tile(k * FRAME_NS, samples, [], hurry=True) for k in range(16)}
    assert seen - {None} == set(tiles(*size))


def test_the_whole_picture_is_looked_at_first() -> None:
    assert Search(1280, 720).next_tile(0, np.zeros((90, 160), np.uint8), [], hurry=True) == (0, 0, 1280, 720)


def test_a_picture_that_does_not_change_is_not_searched_again_until_it_is_stale() -> None:
    search = Search(1280, 720)
    samples = np.full((90, 160), 100, np.uint8)
    count = len(tiles(1280, 720))
    taken = [search.next_tile(k * FRAME_NS, samples, [], hurry=True) for k in range(60)]
    assert [t is not None for t in taken] == [True] * count + [False] * (60 - count)
    assert search.next_tile(STALE_NS, samples, [], hurry=True) == (0, 0, 1280, 720)


def test_the_tile_where_something_appeared_is_looked_at_next() -> None:
    search = Search(1280, 720)
    samples = np.full((90, 160), 100, np.uint8)
    for k in range(20):
        search.next_tile(k * FRAME_NS, samples, [], hurry=True)
    changed = samples.copy()
    changed[80:84, 150:154] = 200
    areas = [search.next_tile((20 + k) * FRAME_NS, changed, [], hurry=True) for k in range(3)]
    corner = (1224.0, 660.0)
    found = [
        a
        for a in areas
        if a is not None and a[0] <= corner[0] <= a[0] + a[2] and a[1] <= corner[1] <= a[1] + a[3]
    ]
    assert len(found) == 2, "the whole picture and the corner tile"
    assert areas[2] is None


def test_a_slow_change_is_noticed_against_the_last_look_and_not_the_last_picture() -> None:
    search = Search(640, 360)
    samples = np.full((90, 160), 100, np.uint8)
    for k in range(10):
        search.next_tile(k * FRAME_NS, samples, [], hurry=True)
    looks = 0
    for k in range(10, 25):
        samples = samples + np.uint8(2)
        looks += search.next_tile(k * FRAME_NS, samples, [], hurry=True) is not None
    assert looks > 0


def test_a_known_face_that_moves_does_not_call_for_a_search() -> None:
    search = Search(1280, 720)
    rng = np.random.default_rng(0)
    face = (600.0, 300.0, 80.0, 80.0)
    for k in range(60):
        samples = np.full((90, 160), 100, np.uint8)
        samples[38:47, 76:84] = rng.integers(0, 255, (9, 8))
        area = search.next_tile(k * FRAME_NS, samples, [face], hurry=False)
        assert area is None or k * FRAME_NS < SECOND


def test_without_hurry_a_round_takes_its_time_and_not_more() -> None:
    search = Search(1280, 720)
    rng = np.random.default_rng(0)
    taken = sum(
        search.next_tile(k * FRAME_NS, rng.integers(0, 255, (90, 160), np.uint8), [], hurry=False) is not None
        for k in range(90)
    )
    assert taken == pytest.approx(len(tiles(1280, 720)) * 3 * SECOND / ROUND_NS, abs=2)


def test_a_close_look_is_cut_to_the_picture_and_refused_outside_it() -> None:
    assert close_area((100.0, 100.0, 40.0, 40.0), 640, 480) == (70, 70, 101, 101)
    assert close_area((-10.0, -10.0, 40.0, 40.0), 640, 480) == (0, 0, 61, 61)
    assert close_area((700.0, 100.0, 40.0, 40.0), 640, 480) is None


def test_what_is_seen_in_an_area_is_told_in_pixels_of_the_picture() -> None:
    actor = Actor(300, 200, 60)
    finder, picture = ScriptedFinder(), scene((640, 480), [actor])
    finder.show(picture, [actor])
    (seen,) = look(finder, picture, (203, 117, 300, 300))
    assert seen.box == pytest.approx((270, 170, 60, 60))
    assert seen.points[0] == pytest.approx((288, 191))


@given(st.lists(st.tuples(st.floats(0, 10), st.integers(0, 4), st.integers(0, 4)), max_size=25))
def test_assignment_is_one_to_one_and_leaves_no_pair_worth_exchanging(
    pairs: list[tuple[float, int, int]],
) -> None:
    cost = {(i, j): c for c, i, j in pairs}
    chosen = assign((c, i, j) for (i, j), c in cost.items())
    assert len({i for i, _ in chosen}) == len({j for _, j in chosen}) == len(chosen)
    for a, x in chosen:
        for b, y in chosen:
            if a != b and (a, y) in cost and (b, x) in cost:
                assert cost[a, x] + cost[b, y] <= cost[a, y] + cost[b, x] + 1e-6


def test_anchors_are_the_published_ones() -> None:
    assert anchors(FULL).shape == (2304, 2)
    assert anchors(SHORT).shape == (896, 2)
    assert anchors(SHORT)[0] == pytest.approx((0.5 / 16, 0.5 / 16))
    assert anchors(SHORT)[512] == pytest.approx((0.5 / 8, 0.5 / 8))
    assert anchors(FULL)[-1] == pytest.approx((47.5 / 48, 47.5 / 48))


def test_decoding_leaves_out_the_unsure_and_orders_the_rest() -> None:
    centres = anchors(SHORT)
    raw = np.zeros((896, 16), np.float32)
    logits = np.full(896, -5.0, np.float32)
    logits[[10, 700]] = (1.0, 3.0)
    raw[700, :4] = (12.8, 0.0, 25.6, 25.6)
    rows, scores = decode_boxes(raw, logits, SHORT, centres)
    assert scores == pytest.approx(1 / (1 + np.exp([-3.0, -1.0])))
    assert rows[0, 0] == pytest.approx(centres[700] + np.array([0.1, 0.0]) - 0.1)
    assert rows[0, 1] == pytest.approx((0.2, 0.2))


def test_nothing_sure_is_no_face() -> None:
    rows, scores = decode_boxes(
        np.zeros((896, 16), np.float32), np.full(896, -9.0, np.float32), SHORT, anchors(SHORT)
    )
    assert merge(rows, scores) == []


def test_boxes_of_one_face_are_averaged_by_their_scores() -> None:
    rows = np.zeros((3, 8, 2), np.float32)
    rows[:, 1] = 0.2
    rows[1, 0] = 0.02
    rows[2, 0] = 0.7
    merged = merge(rows, np.array([0.9, 0.6, 0.5], np.float32))
    assert [score for _, score in merged] == pytest.approx([0.9, 0.5])
    assert merged[0][0][0] == pytest.approx((0.008, 0.008))


def test_overlap_is_shared_over_united_area() -> None:
    others = np.array([(0, 0, 2, 2), (1, 0, 2, 2), (5, 5, 1, 1)], float)
    assert overlap_with_each(np.array([0.0, 0, 2, 2]), others) == pytest.approx((1.0, 1 / 3, 0.0))


@given(st.integers(5, 700), st.integers(5, 700))
def test_any_picture_fits_into_the_square_and_back(width: int, height: int) -> None:
    image = np.full((height, width, 3), 200, np.uint8)
    square, scale, (left, top) = letterbox(image, 128)
    assert square.shape == (128, 128, 3)
    assert scale == max(width, height)
    rows, columns = np.nonzero(square[..., 0])
    assert (columns.min(), rows.min()) == (left * 128, top * 128)
    assert columns.max() + 1 - columns.min() == max(1, round(width / scale * 128))
    assert rows.max() + 1 - rows.min() == max(1, round(height / scale * 128))


def test_halving_keeps_the_mean() -> None:
    image = np.random.default_rng(0).integers(0, 256, (64, 96, 3), np.uint8)
    small = halve(image, 3)
    assert small.shape == (8, 12, 3)
    assert small.mean() == pytest.approx(image.mean(), abs=1.0)


@pytest.mark.parametrize("name", [FULL_RANGE, SHORT_RANGE])
def test_our_decoding_agrees_with_mediapipe_on_a_real_face(name: str) -> None:
    path = detector(name)
    ours, theirs = BlazeFace(path), MediapipeFace(path)
    image = portrait()
    for part in (image[:480, :480], image[40:440, 60:500], image):
        one, other = ours.find(part)[0], theirs.find(part)[0]
        shared = overlap_with_each(np.array(one.box), np.array([other.box]))[0]
        assert shared > 0.9
        assert np.abs(one.points - other.points).max() < 0.06 * other.box[2]
        assert one.score == pytest.approx(other.score, abs=0.1)
    theirs.close()


def test_a_file_that_is_no_detector_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "not_a_detector.tflite"
    path.write_bytes(b"nothing of the kind")
    with pytest.raises(MissingFile, match=r"not_a_detector\.tflite"):
        BlazeFace(path)


def test_rounds_are_shorter_than_half_a_second() -> None:
    assert ROUND_NS <= 500 * MS
