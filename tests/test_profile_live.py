"""A personal profile at work: one person is shifted, one voice is known, the others are as before."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from liveaffect.engines.protocol import Pending, Tensors
from liveaffect.engines.recipe import LABELS, SpeakerStatistics
from liveaffect.realtime.clock import MS, SECOND
from liveaffect.realtime.cue import Cue
from liveaffect.realtime.estimate import Confidence
from liveaffect.realtime.frame import Face, Sighting
from liveaffect.realtime.lockstep import LockStep
from liveaffect.realtime.networks import Networks
from liveaffect.realtime.people import Person, Profile, ProfileOwner
from liveaffect.realtime.sinks import Outputs
from liveaffect.realtime.testing.engines import AroundEngine, ConstantEngine
from liveaffect.realtime.testing.people import Actor, Film, Talkers
from liveaffect.realtime.testing.virtual_time import constant_networks
from liveaffect.realtime.wiring import Rings, Wiring

HAPPY = LABELS.index("happy")


def cues(film: Film, profile: Profile | None) -> list[Cue]:
    """All cues of a film under a profile."""
    film.open()
    found: list[Cue] = []
    rings = Rings.plain([film.name], [film.name])
    wiring = Wiring(rings, constant_networks(), film.make_finders, found.extend)
    wiring.scheduler.adopt(profile)
    LockStep(wiring, None, Outputs([])).run(film)
    return found


class OneLarger(Talkers):
    """Two people, of whom the second is nearer, until one of them leaves; in the end somebody comes."""

    def __init__(self, leaves: int) -> None:
        super().__init__(8.0, people=2)
        far, near = self._actors
        self._actors = [far, replace(near, size=near.size + 8)]
        self._leaves = leaves
        self._at_s = 0.0

    def actors(self) -> list[Actor]:
        return [a for k, a in enumerate(self._actors) if k != self._leaves or not 2.0 < self._at_s < 5.0]

    def draw(self, at_s: float) -> NDArray[np.uint8]:
        self._at_s = at_s
        return super().draw(at_s)


LOWERED = np.array([0, -9, 0, 0, 0, 0, 0], np.float32)


def changed(found: list[Cue], since_s: float, until_s: float) -> dict[int, bool]:
    """Every track with a face between two times: whether the profile works on it throughout or not at all."""
    seen: dict[int, set[bool]] = {}
    for cue in found:
        if cue.track is not None and cue.face is not None and since_s <= cue.t_ns / SECOND <= until_s:
            seen.setdefault(cue.track, set()).add(cue.face[HAPPY] < 0.1)
    assert all(len(values) == 1 for values in seen.values())
    return {track: values.pop() for track, values in seen.items()}


def larger(found: list[Cue]) -> int:
    """The track with the largest box."""
    boxes = {cue.track: cue.box[2] for cue in found if cue.box is not None and cue.track is not None}
    return max(boxes, key=boxes.__getitem__)


def test_the_profile_is_that_of_the_only_face() -> None:
    assert list(changed(cues(Talkers(5.0), Profile(face=LOWERED)), 3.5, 5.0).values()) == [True]


def test_of_two_it_is_that_of_the_larger_face_and_stays_there_when_the_other_leaves() -> None:
    found = cues(OneLarger(leaves=0), Profile(face=LOWERED))
    near = larger(found)
    assert changed(found, 3.5, 4.5) == {near: True}
    later = changed(found, 6.5, 8.0)
    assert later.pop(near)
    assert list(later.values()) == [False]


def test_when_its_owner_leaves_nobody_who_stays_inherits_it_and_whoever_comes_next_has_it() -> None:
    found = cues(OneLarger(leaves=1), Profile(face=LOWERED))
    assert list(changed(found, 3.0, 4.5).values()) == [False]
    last = changed(found, 7.8, 8.0)
    assert sorted(last.values()) == [False, True]


def a_sighting(at_ms: int, *faces: tuple[int, float]) -> Sighting:
    """Tracks and the sides of their boxes."""
    crop, points = np.zeros((64, 64, 3), np.uint8), np.zeros((6, 2), np.float32)
    seen = [Face(t, (0, 0, side, side), points, (0, 0), at_ms * MS, 1.0, crop) for t, side in faces]
    return Sighting("camera:0", at_ms, at_ms * MS, (640, 480), tuple(seen))


def test_the_profile_waits_until_all_are_found_and_is_not_inherited_by_whoever_was_there() -> None:
    def person(track: int, came_ms: int) -> Person:
        return Person("camera:0", track, Confidence().labeller(), came_ns=came_ms * MS, seen_ns=came_ms * MS)

    profile = Profile(face=LOWERED)
    people = {1: person(1, 0), 2: person(2, 100)}
    belonging = ProfileOwner(profile)
    assert not belonging.settle(a_sighting(0, (1, 90.0)), {1: people[1]})
    assert not belonging.settle(a_sighting(400, (1, 90.0), (2, 100.0)), people)
    assert belonging.settle(a_sighting(520, (1, 90.0), (2, 100.0)), people)
    assert (belonging.track, people[2].profile, people[1].profile.face) == (2, profile, None)
    people[2].seen_ns = 3000 * MS
    belonging.left(people.pop(2))
    assert not belonging.settle(a_sighting(9000, (1, 90.0)), people)
    people[3] = person(3, 9100)
    assert not belonging.settle(a_sighting(9100, (1, 90.0), (3, 50.0)), people)
    assert belonging.settle(a_sighting(9700, (1, 90.0), (3, 50.0)), people)
    assert belonging.track == 3
    belonging.left(people.pop(1))
    assert belonging.track == 3


def test_without_a_profile_everything_is_as_it_was() -> None:
    plain, empty = cues(Talkers(2.0), None), cues(Talkers(2.0), Profile())
    assert [c.to_json() for c in plain] == [c.to_json() for c in empty]


def test_the_voice_of_the_profile_is_shifted_and_starts_from_its_statistics() -> None:
    seen: list[np.ndarray] = []

    class Listening(AroundEngine):
        """Notes the means it is given."""

        def submit(self, inputs: Tensors) -> Pending:
            seen.append(inputs["mean"][0].copy())
            return super().submit(inputs)

    known = SpeakerStatistics.cold(mean=-3.25)
    profile = Profile(voice=np.array([0, -9, 0, 0, 0, 0, 0], np.float32), statistics=known)
    film = Talkers(7.0)
    film.open()
    networks = Networks(
        ConstantEngine("face", "sad"),
        Listening(ConstantEngine("voice", "happy")),
        ConstantEngine("fusion", "sad"),
    )
    found: list[Cue] = []
    wiring = Wiring(Rings.plain([film.name], [film.name]), networks, film.make_finders, found.extend)
    wiring.scheduler.adopt(profile)
    LockStep(wiring, None, Outputs([])).run(film)
    voices = [cue.voice for cue in found if cue.track is not None and cue.voice is not None][-5:]
    assert len(voices) == 5
    assert all(voice[HAPPY] < 0.1 for voice in voices)
    assert any(np.allclose(mean, known.normaliser()[0], atol=0.01) for mean in seen)


def test_without_a_camera_the_profile_is_the_voices() -> None:
    film = Talkers(4.0)
    film.open()
    found: list[Cue] = []
    wiring = Wiring(Rings.plain([], [film.name]), constant_networks(), film.make_finders, found.extend)
    wiring.scheduler.adopt(Profile(voice=np.array([0, -9, 0, 0, 0, 0, 0], np.float32)))
    for block in film._blocks():
        wiring.rings.take(block)
        wiring.scheduler.step(block.captured_ns)
    voices = [cue.voice for cue in found if cue.voice is not None]
    assert voices
    assert all(voice[HAPPY] < 0.1 for voice in voices)
