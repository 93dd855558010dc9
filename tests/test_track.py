"""A person keeps one id, two never swap, nobody inherits an id, and a box is steady and does not lag."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from liveaffect.realtime.clock import SECOND
from liveaffect.realtime.search import close_area
from liveaffect.realtime.testing.people import Actor, found
from liveaffect.realtime.track import KEPT_NS, LOST_AFTER, MAX_FACES, BoxFilter, LikenedFind, Tracker

FRAME_NS = SECOND // 30


def looks_of(actor: Actor) -> NDArray[np.float32]:
    """Looks that differ as far as two people do."""
    pattern = np.random.default_rng(actor.who).normal(size=256)
    return np.concatenate([pattern / np.linalg.norm(pattern), np.zeros(48)]).astype(np.float32)


class Stage:
    """Plays actors to a tracker, one picture every thirtieth of a second, every face looked at each time."""

    def __init__(self) -> None:
        self.tracker = Tracker()
        self.now_ns = 0

    def play(self, actors: Sequence[Actor], *, tile: bool = True) -> dict[int, int]:
        """One picture; the ids in view with the actor (by who it is) that each one is nearest to."""
        self.now_ns += FRAME_NS
        self.tracker.predict(self.now_ns)
        if tile:
            self.tracker.suspect([found(actor) for actor in actors])
        self.look_close(actors)
        self.tracker.expire()
        return {
            track.id or 0: min(actors, key=lambda a: math.hypot(a.x - t.x, a.y - t.y)).who
            for track in self.tracker.visible()
            for t in [track.steady]
            if actors
        }

    def play_on(self, pictures: int, actors: Sequence[Actor]) -> dict[int, int]:
        """Several pictures alike; what the last one shows."""
        for _ in range(pictures - 1):
            self.play(actors)
        return self.play(actors)

    def look_close(self, actors: Sequence[Actor]) -> None:
        """A close look at everybody who is known."""
        areas = [close_area(track.box, 1200, 400) for track in self.tracker.tracks]
        self.tracker.take(
            [LikenedFind(found(a), looks_of(a)) for a in actors], [area for area in areas if area]
        )


def test_a_face_found_by_two_networks_in_one_picture_has_an_id_at_once() -> None:
    assert Stage().play([Actor(100, 100, 50, 1)]) == {1: 1}


def test_a_tile_alone_gives_no_id() -> None:
    tracker = Tracker()
    tracker.predict(FRAME_NS)
    tracker.suspect([found(Actor(100, 100, 50))])
    assert tracker.visible() == []


def test_what_is_seen_once_and_never_again_becomes_nobody() -> None:
    stage = Stage()
    stage.tracker.predict(1)
    stage.tracker.suspect([found(Actor(100, 100, 50))])
    for _ in range(5):
        stage.look_close([])
    stage.tracker.expire()
    assert stage.tracker.tracks == []


def test_a_weak_find_becomes_nobody_however_often_it_is_seen() -> None:
    stage = Stage()
    for _ in range(60):
        assert stage.play([Actor(100, 100, 50, 1, score=0.55)]) == {}


def test_a_known_face_may_be_found_weakly() -> None:
    stage = Stage()
    stage.play([Actor(100, 100, 50, 1)])
    for _ in range(60):
        assert stage.play([Actor(100, 100, 50, 1, score=0.4)]) == {1: 1}


def test_two_finds_of_one_face_are_one_person() -> None:
    stage = Stage()
    for _ in range(10):
        stage.play([Actor(100, 100, 50, 1), Actor(104, 101, 52, 1)])
    assert len(stage.tracker.visible()) == 1


@settings(max_examples=30)
@given(st.integers(60, 400), st.integers(0, 1000), st.booleans())
def test_two_people_who_cross_do_not_swap(speed: int, seed: int, hidden: bool) -> None:
    stage = Stage()
    one, other = seed * 2, seed * 2 + 1
    ids: dict[int, int] = {}
    for k in range(int(500 / speed * 30)):
        x = 50 + speed * k / 30
        actors = [Actor(x, 100, 60, one), Actor(600 - x, 110, 60, other)]
        if hidden and abs(actors[0].x - actors[1].x) < 45:
            actors = actors[:1]
        ids = stage.play(actors)
    assert ids == {1: one, 2: other}


@settings(max_examples=30)
@given(st.floats(0.2, 1.9), st.integers(-150, 150))
def test_who_comes_back_within_two_seconds_keeps_the_id(away_s: float, moved: int) -> None:
    stage = Stage()
    for _ in range(10):
        stage.play([Actor(300, 100, 50, 1)])
    for _ in range(int(away_s * 30)):
        stage.play([])
    assert stage.play_on(15, [Actor(300 + moved, 100, 50, 1)]) == {1: 1}


def test_somebody_else_in_the_same_place_gets_a_new_id() -> None:
    stage = Stage()
    for _ in range(10):
        stage.play([Actor(300, 100, 50, 1)])
    for _ in range(15):
        stage.play([])
    assert stage.play_on(40, [Actor(300, 100, 50, 2)]) == {2: 2}


def test_who_stays_away_ends_and_the_id_is_never_given_again() -> None:
    stage = Stage()
    stage.play([Actor(300, 100, 50, 1)])
    stage.now_ns += KEPT_NS
    stage.tracker.predict(stage.now_ns + 1)
    assert stage.tracker.expire() == (1,)
    assert stage.tracker.expire() == ()
    assert stage.play([Actor(300, 100, 50, 1)]) == {2: 1}


def test_ending_everybody_names_them_and_leaves_nobody() -> None:
    stage = Stage()
    stage.play([Actor(100, 100, 50, 1), Actor(300, 100, 50, 2)])
    assert stage.tracker.end(list(stage.tracker.tracks)) == (1, 2)
    assert stage.play([Actor(100, 100, 50, 1)]) == {3: 1}


def test_cameras_that_share_ids_never_share_an_id() -> None:
    ids = itertools.count(1)
    one, other = Stage(), Stage()
    one.tracker, other.tracker = Tracker(ids), Tracker(ids)
    assert set(one.play([Actor(100, 100, 50, 1)])) & set(other.play([Actor(100, 100, 50, 1)])) == set()


def test_a_face_that_is_not_found_any_more_disappears_after_two_looks() -> None:
    stage = Stage()
    stage.play([Actor(100, 100, 50, 1)])
    counts = []
    for _ in range(LOST_AFTER):
        stage.play([])
        counts.append(len(stage.tracker.visible()))
    assert counts == [1, 0]


def test_a_look_elsewhere_is_no_evidence_of_absence() -> None:
    stage = Stage()
    stage.play([Actor(100, 100, 50, 1)])
    for _ in range(10):
        stage.tracker.take([], [(400, 0, 200, 200)])
    assert len(stage.tracker.visible()) == 1


def test_sixteen_faces_are_followed_and_not_more() -> None:
    stage = Stage()
    crowd = [Actor(25 + 40 * (k % 10), 30 + 60 * (k // 10), 30, k) for k in range(20)]
    ids = stage.play_on(10, crowd)
    assert len(ids) == MAX_FACES
    assert len(set(ids.values())) == MAX_FACES


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(30, 570), st.booleans()), min_size=5, max_size=60))
def test_an_id_is_only_ever_one_track_and_ids_only_rise(script: list[tuple[int, int, bool]]) -> None:
    stage = Stage()
    gone: set[int] = set()
    highest = 0
    for colour, x, cut in script:
        stage.play([Actor(x, 100, 40, colour)])
        if cut:
            gone |= set(stage.tracker.end(list(stage.tracker.tracks)))
        ids = [track.id for track in stage.tracker.visible()]
        assert len(ids) == len(set(ids))
        assert not gone & {i for i in ids if i is not None}
        new = [i for i in ids if i is not None and i > highest]
        assert new == sorted(new)
        highest = max([highest, *new])


def run_steady(path: NDArray[np.float64], noise: float, size: float) -> NDArray[np.float64]:
    rng = np.random.default_rng(0)
    steady = BoxFilter(path[0, 0], path[0, 1], size)
    out = []
    for x, y in path:
        steady.predict(1 / 30)
        dx, dy = rng.normal(0, noise * size, 2)
        steady.correct(x + dx, y + dy, 1 / 30)
        out.append((steady.x, steady.y))
    return np.array(out)


def test_a_still_face_has_a_still_box() -> None:
    still = run_steady(np.full((300, 2), 200.0), noise=0.007, size=100)
    assert still[60:].std(axis=0).max() < 0.5
    assert np.percentile(np.abs(np.diff(still[60:], axis=0)), 99) < 0.9


@pytest.mark.parametrize("size", [60, 100, 200])
def test_a_box_at_300_pixels_a_second_lies_within_8_percent_of_its_width(size: float) -> None:
    t = np.arange(240) / 30
    to_and_fro = 300 * np.abs((t % 2) - 1)
    path = np.column_stack([to_and_fro, np.full_like(t, 100.0)])
    error = np.hypot(*(run_steady(path, noise=0.007, size=size) - path).T)
    assert np.percentile(error[10:], 95) <= 0.08 * size


def test_the_speed_of_a_box_is_the_speed_of_the_face() -> None:
    steady = BoxFilter(0.0, 0.0, 80.0)
    for k in range(1, 40):
        steady.predict(1 / 30)
        steady.correct(10.0 * k, 0.0, 1 / 30)
    assert steady.vx == pytest.approx(300, rel=0.05)
    assert steady.vy == pytest.approx(0, abs=1)


def test_a_box_that_is_not_seen_does_not_run_away() -> None:
    steady = BoxFilter(0.0, 0.0, 80.0, vx=300.0)
    for _ in range(60):
        steady.predict(1 / 30, coasting=True)
    assert steady.x < 300 * 0.45
    assert steady.vx < 5
