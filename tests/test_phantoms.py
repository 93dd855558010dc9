"""Nobody is seen who is not there: folds and badges that look like a small face once do not become people."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pytest
from numpy.typing import NDArray

from liveaffect.realtime.blazeface import Found, make_finder
from liveaffect.realtime.clock import SECOND
from liveaffect.realtime.errors import MissingFile
from liveaffect.realtime.face_analyzer import FaceAnalyzer
from liveaffect.realtime.frame import VideoFrame
from liveaffect.realtime.portrait import Portraits, packaged_portraits
from liveaffect.realtime.replay import load_picture
from liveaffect.realtime.testing.people import Actor, ScriptedFinder, scene

FPS = 30


@dataclass
class Doubtful(ScriptedFinder):
    """A finder as sure of what it sees as `narrow` says, and as `wide` says when it sees more around."""

    narrow: float = 0.8
    wide: float = 0.8

    def find(self, image: NDArray[np.uint8]) -> list[Found]:
        found = super().find(image)
        share = [max(image.shape[:2]) / max(f.box[2], 1.0) for f in found]
        return [
            replace(f, score=self.narrow if s < 2.9 else self.wide) for f, s in zip(found, share, strict=True)
        ]


def seen(actors: Sequence[Actor], near: Doubtful, pictures: int = 30) -> set[int]:
    """Everybody who was ever shown."""
    far = ScriptedFinder()
    analyzer, tracks = FaceAnalyzer("camera:0", far, near), set[int]()
    for k in range(pictures):
        moved = [replace(actor, x=actor.x + k % 3) for actor in actors]
        image = scene((640, 480), moved, place=1)
        far.show(image, moved)
        near.show(image, moved)
        frame = VideoFrame("camera:0", k, k * SECOND // FPS, image)
        tracks |= {face.track for face in analyzer.step(frame).faces}
    return tracks


def test_a_find_that_the_wider_look_does_not_confirm_becomes_nobody() -> None:
    assert seen([Actor(300, 200, 30)], Doubtful(narrow=0.78, wide=0.5)) == set()
    assert seen([Actor(300, 200, 120)], Doubtful(narrow=0.7, wide=0.3)) == set()


def test_small_finds_must_be_surer_than_large_ones() -> None:
    assert seen([Actor(300, 200, 30)], Doubtful(narrow=0.72, wide=0.72)) == set()
    assert seen([Actor(300, 200, 120)], Doubtful(narrow=0.72, wide=0.72)) == {1}


def test_small_faces_are_still_seen() -> None:
    assert seen([Actor(300, 200, 30), Actor(500, 300, 40, who=2)], Doubtful(narrow=0.82, wide=0.85)) == {1, 2}


@pytest.mark.slow
@pytest.mark.parametrize("size", [(1280, 720), (1920, 1080)])
def test_one_enlarged_person_is_one_person(size: tuple[int, int]) -> None:
    """Medals on a jacket were a second person for two thirds of this film."""
    try:
        finders = make_finder()
    except MissingFile as error:
        pytest.skip(f"needs the face detector's files: {error}")
    portraits = [path for path in packaged_portraits() if path.stem == "grace_hopper"]
    if not portraits:
        pytest.skip("no installed package carries this portrait")
    film = Portraits([load_picture(portraits[0])], size, FPS)
    analyzer, tracks = FaceAnalyzer("camera:0", *finders), set[int]()
    for k in range(100):
        sighting = analyzer.step(VideoFrame("camera:0", k, k * SECOND // FPS, film.draw(k)))
        tracks |= {face.track for face in sighting.faces}
    assert tracks == {1}
