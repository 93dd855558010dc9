"""Everybody in view is found soon, followed closely, told apart over crossings, absences and cuts."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from liveaffect.realtime.blazeface import make_finder
from liveaffect.realtime.clock import SECOND
from liveaffect.realtime.errors import MissingFile
from liveaffect.realtime.face_analyzer import FaceAnalyzer, find_in_picture
from liveaffect.realtime.frame import Box, Sighting, VideoFrame
from liveaffect.realtime.portrait import packaged_portraits
from liveaffect.realtime.replay import load_picture
from liveaffect.realtime.testing.people import Actor, ScriptedFinder, scene

SIZE = (640, 480)


class Theatre:
    """Plays a script of actors to a `FaceAnalyzer` whose finders see exactly what the script says."""

    def __init__(self, size: tuple[int, int] = SIZE, fps: int = 30) -> None:
        self.far, self.near = ScriptedFinder(smallest=0.09), ScriptedFinder()
        self.sight = FaceAnalyzer("camera:0", self.far, self.near)
        self.size, self.fps, self.seq = size, fps, 0

    def show(
        self, actors: Sequence[Actor], *, hidden: Sequence[Actor] = (), place: int = 0, light: int = 0
    ) -> Sighting:
        """One picture. The finders see the actors, and not who is hidden behind them."""
        image = scene(self.size, [*hidden, *actors], place=place, light=light)
        frame = VideoFrame("camera:0", self.seq, self.seq * SECOND // self.fps, image)
        self.far.show(image, actors)
        self.near.show(image, actors)
        self.seq += 1
        return self.sight.step(frame)

    def play(self, pictures: int, actors: Sequence[Actor]) -> Sighting:
        """Several pictures alike; the last sighting."""
        for _ in range(pictures - 1):
            self.show(actors)
        return self.show(actors)


def ids(sighting: Sighting) -> list[int]:
    return [face.track for face in sighting.faces]


def centre(sighting: Sighting, index: int = 0) -> tuple[float, float]:
    x, y, w, h = sighting.faces[index].box
    return x + w / 2, y + h / 2


def test_a_large_face_is_in_the_first_sighting() -> None:
    sighting = Theatre().show([Actor(320, 240, 120)])
    assert ids(sighting) == [1]
    assert centre(sighting) == pytest.approx((320, 240), abs=2)
    assert sighting.faces[0].crop.shape == (64, 64, 3)


@pytest.mark.parametrize("size", [(640, 480), (1280, 720), (1920, 1080)])
def test_faces_of_40_pixels_anywhere_are_found_within_half_a_second(size: tuple[int, int]) -> None:
    width, height = size
    actors = [
        Actor(x, y, 40, n) for n, (x, y) in enumerate([(30, 30), (width - 30, height - 30), (width / 2, 30)])
    ]
    theatre = Theatre(size)
    assert len(theatre.play(16, actors).faces) == 3


def test_a_newcomer_is_found_within_half_a_second_while_another_is_followed() -> None:
    theatre = Theatre((1280, 720))
    theatre.play(40, [Actor(300, 300, 150, 1)])
    assert ids(theatre.play(15, [Actor(300, 300, 150, 1), Actor(1200, 600, 40, 2)])) == [1, 2]


def test_no_frame_takes_more_than_one_tile_nor_more_than_its_close_looks() -> None:
    theatre = Theatre((1280, 720))
    actors = [Actor(100 + 90 * k, 100 + (k % 3) * 200, 60, k) for k in range(13)]
    for k in range(60):
        moved = [Actor(a.x + 3 * np.sin(k), a.y, a.size, a.who) for a in actors]
        tiles, looks = len(theatre.far.calls), len(theatre.near.calls)
        theatre.show(moved)
        tiles, looks = len(theatre.far.calls) - tiles, len(theatre.near.calls) - looks
        assert tiles <= 1
        assert looks <= (4 if tiles == 0 else 2), "one more where the last is at somebody new"
    assert len(theatre.show(actors).faces) == 13


def test_a_still_scene_costs_no_tiles() -> None:
    theatre = Theatre((1280, 720))
    theatre.play(30, [Actor(600, 300, 100, 1)])
    before = len(theatre.far.calls)
    theatre.play(20, [Actor(600, 300, 100, 1)])
    assert len(theatre.far.calls) == before


def test_a_known_face_is_looked_at_every_second_frame() -> None:
    theatre = Theatre()
    theatre.show([Actor(320, 240, 120, 1)])
    before = len(theatre.near.calls)
    theatre.play(30, [Actor(320, 240, 120, 1)])
    assert len(theatre.near.calls) - before == pytest.approx(15, abs=1)


def test_a_face_is_followed_between_looks() -> None:
    theatre = Theatre()
    errors = []
    for k in range(90):
        x = 120 + 300 * abs(((k / 30 + 0.01) % 2) - 1)
        sighting = theatre.show([Actor(x, 240, 100, 1)])
        errors.append(abs(centre(sighting)[0] - x))
    assert np.percentile(errors, 95) <= 0.08 * 100


@pytest.mark.parametrize("speed", [80, 150, 300])
def test_two_people_who_cross_keep_their_ids(speed: int) -> None:
    theatre = Theatre()
    sides = []
    for k in range(int(520 / speed * 30)):
        x = 60 + speed * k / 30
        behind, front = Actor(x, 240, 90, 1), Actor(640 - x, 245, 90, 2)
        if abs(behind.x - front.x) < 60:
            sighting = theatre.show([front], hidden=[behind])
        else:
            sighting = theatre.show([behind, front])
        sides.append([f.track for f in sorted(sighting.faces, key=lambda f: f.box[0])])
    assert sides[5] in ([1, 2], [2, 1])
    assert sides[-1] == sides[5][::-1]
    assert {i for side in sides for i in side} == {1, 2}


def test_who_leaves_and_returns_within_two_seconds_keeps_the_id() -> None:
    theatre = Theatre()
    theatre.play(20, [Actor(320, 240, 120, 1)])
    assert ids(theatre.play(50, [])) == []
    assert ids(theatre.play(20, [Actor(340, 230, 120, 1)])) == [1]


def test_a_cut_to_somebody_in_the_same_place_gives_a_new_id_within_a_fifth_of_a_second() -> None:
    theatre = Theatre(fps=25)
    theatre.play(30, [Actor(320, 240, 200, 1)])
    after = [theatre.show([Actor(320, 240, 200, 2)], place=1) for _ in range(5)]
    assert [s.cut for s in after] == [True, False, False, False, False]
    assert after[0].ended == (1,)
    assert ids(after[-1]) == [2]
    assert all(1 not in ids(s) for s in after)


def test_a_cut_to_an_empty_room_ends_everybody() -> None:
    theatre = Theatre()
    theatre.play(10, [Actor(320, 240, 200, 1)])
    sighting = theatre.show([], place=2)
    assert sighting.cut
    assert sighting.ended == (1,)
    assert sighting.faces == ()


def test_a_light_that_is_switched_on_is_no_cut() -> None:
    theatre = Theatre()
    theatre.play(20, [Actor(320, 240, 200, 1)])
    sighting = theatre.show([Actor(320, 240, 200, 1)], light=50)
    assert not sighting.cut
    assert ids(sighting) == [1]


def test_who_stays_away_is_named_as_ended_once() -> None:
    theatre = Theatre()
    theatre.show([Actor(320, 240, 200, 1)])
    ended = [theatre.show([]).ended for _ in range(120)]
    assert [e for e in ended if e] == [(1,)]


def test_reset_ends_everybody_and_ids_go_on_counting() -> None:
    theatre = Theatre()
    theatre.show([Actor(320, 240, 200, 1)])
    assert theatre.sight.reset() == (1,)
    assert ids(theatre.show([Actor(320, 240, 200, 1)])) == [2]


@pytest.mark.parametrize("size", [(1280, 960), (320, 240), (1280, 720)])
def test_a_picture_of_another_size_is_a_cut_and_not_an_error(size: tuple[int, int]) -> None:
    theatre = Theatre()
    theatre.play(5, [Actor(320, 240, 100, 1)])
    theatre.size = size
    sighting = theatre.show([Actor(size[0] / 2, size[1] / 2, size[1] / 4, 1)])
    assert sighting.cut
    assert sighting.size == size
    assert sighting.ended == (1,)
    assert ids(sighting) == [2]


def test_a_camera_without_pictures_in_it_finds_nobody() -> None:
    theatre = Theatre()
    black = np.zeros((480, 640, 3), np.uint8)
    theatre.far.show(black, ())
    theatre.near.show(black, ())
    for k in range(30):
        assert theatre.sight.step(VideoFrame("camera:0", k, k * SECOND // 30, black)).faces == ()


def test_the_same_pictures_give_the_same_sightings() -> None:
    def play() -> list[tuple[int, Box, bytes]]:
        theatre = Theatre()
        out: list[tuple[int, Box, bytes]] = []
        for k in range(60):
            actors = [Actor(200 + 4 * k, 240, 90, 1), Actor(500 - 3 * k, 200, 70, 2)]
            out += [(f.track, f.box, f.crop.tobytes()) for f in theatre.show(actors).faces]
        return out

    assert play() == play()


Look = Callable[[str], FaceAnalyzer]


@pytest.fixture
def make_sight() -> Look:
    """A sight with the real networks."""
    try:
        far, near = make_finder()
    except MissingFile as error:
        pytest.skip(str(error))
    return lambda source: FaceAnalyzer(source, far, near)


def frames_of(path: Path, limit: int = 10**6) -> Iterator[VideoFrame]:
    capture = cv2.VideoCapture(str(path))
    fps = capture.get(cv2.CAP_PROP_FPS)
    for seq in range(limit):
        there, image = capture.read()
        if not there:
            return
        rgb = np.ascontiguousarray(image[:, :, ::-1]).astype(np.uint8)
        yield VideoFrame("file", seq, int(seq / fps * SECOND), rgb)


def test_talkers_with_cuts_between_them_never_share_a_track(shared_data: Path, make_sight: Look) -> None:
    """Five of the ten; all of them go through the whole path in tests/scenarios/test_lockstep.py."""
    sight = make_sight("file")
    path = shared_data / "clips" / "demo_grid_10speakers.mp4"
    seen: dict[int, list[int]] = {}
    for frame in frames_of(path, 5 * 75):
        for face in sight.step(frame).faces:
            seen.setdefault(face.track, []).append(frame.seq)
    assert len(seen) == 5
    for pictures in seen.values():
        first, last = pictures[0], pictures[-1]
        assert first % 75 <= 5, "found within a fifth of a second of the cut"
        assert first // 75 == last // 75, "no track spans a cut"
        assert len(pictures) >= 0.9 * (last - first + 1)


def test_a_face_in_motion_is_one_person_throughout(shared_data: Path, make_sight: Look) -> None:
    sight = make_sight("file")
    path = shared_data / "clips" / "pyfeat_single_face.mp4"
    sightings = [sight.step(frame) for frame in frames_of(path)]
    assert {tuple(ids(sighting)) for sighting in sightings} == {(1,)}


@pytest.mark.parametrize("name", ["lisa1.jpg", "lisa3.jpg"])
def test_a_portrait_is_found_in_a_single_picture(shared_data: Path, make_sight: Look, name: str) -> None:
    far, near = make_finder()
    faces = find_in_picture(far, near, load_picture(shared_data / "clips" / name))
    assert len(faces) == 1


def portrait() -> NDArray[np.uint8]:
    return load_picture(packaged_portraits()[0])


def test_a_small_face_in_a_large_picture_is_found_once(make_sight: Look) -> None:
    far, near = make_finder()
    image = np.full((1080, 1920, 3), 110, np.uint8)
    small = cv2.resize(portrait()[60:420, 60:440], (76, 72), interpolation=cv2.INTER_AREA)
    for x, y in ((40, 40), (1700, 900), (930, 500)):
        image[y : y + 72, x : x + 76] = small
    assert len(find_in_picture(far, near, image)) == 3


def test_two_runs_over_real_pictures_are_identical(make_sight: Look) -> None:
    def play() -> list[tuple[int, Box, bytes]]:
        sight = make_sight("file")
        out: list[tuple[int, Box, bytes]] = []
        for k in range(12):
            image = np.ascontiguousarray(portrait()[k : k + 480, 2 * k : 2 * k + 400])
            sighting = sight.step(VideoFrame("file", k, k * SECOND // 30, image))
            out += [(f.track, f.box, f.crop.tobytes()) for f in sighting.faces]
        return out

    first = play()
    assert first
    assert first == play()
