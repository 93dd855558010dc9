"""People with known truth: faces by a script, jaws that follow a voice, hands that meet at a crack.

The finder is given a part of the picture, as a real one is. It is told the whole beforehand, and where the
part lies in memory says where it lies in the picture. A film of talkers is a source like a file, in order
of time; faces are soft patterns that only this finder sees, so tests of lips and sound need neither a
network nor real people. Same seed, same film.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from itertools import count

import cv2
import numpy as np
from numpy.typing import NDArray

from liveaffect.engines.recipe import SAMPLE_RATE
from liveaffect.realtime.blazeface import Found
from liveaffect.realtime.clock import SECOND
from liveaffect.realtime.errors import EndOfStream
from liveaffect.realtime.frame import AudioBlock, VideoFrame

PATTERN = 8
"""Cells across the pattern that each actor's face is made of."""
_POINTS = np.array([(-0.2, -0.15), (0.2, -0.15), (0, 0.05), (0, 0.25), (-0.45, -0.05), (0.45, -0.05)])


@dataclass(frozen=True, slots=True)
class Actor:
    """A face that the script puts into the scene: its centre, its size, who it is."""

    x: float
    y: float
    size: float
    who: int = 0
    """The seed of the pattern: how a person looks."""
    score: float = 0.9


def found(actor: Actor) -> Found:
    """What a perfect finder says of an actor."""
    points = (np.array([actor.x, actor.y]) + _POINTS * actor.size).astype(np.float32)
    box = (actor.x - actor.size / 2, actor.y - actor.size / 2, actor.size, actor.size)
    return Found(box, points, actor.score)


def scene(
    size: tuple[int, int], actors: Sequence[Actor], *, place: int = 0, light: int = 0
) -> NDArray[np.uint8]:
    """A quiet room, `place` says which, with the actors in it, back to front; `light` brightens all of it."""
    width, height = size
    image = _room(width, height, place).copy()
    for actor in actors:
        half = actor.size / 2
        left, top = max(0, round(actor.x - half)), max(0, round(actor.y - half))
        right, bottom = max(0, round(actor.x + half)), max(0, round(actor.y + half))
        part = image[top:bottom, left:right]
        pattern = np.random.default_rng(actor.who).uniform(30, 190, (PATTERN, PATTERN, 3))
        across = ((np.arange(left, left + part.shape[1]) - (actor.x - half)) / actor.size * PATTERN).astype(
            int
        )
        down = ((np.arange(top, top + part.shape[0]) - (actor.y - half)) / actor.size * PATTERN).astype(int)
        part[:] = pattern[np.clip(down, 0, PATTERN - 1)[:, None], np.clip(across, 0, PATTERN - 1)[None, :]]
    return np.asarray(np.clip(image + light, 0, 255), np.uint8)


@cache
def _room(width: int, height: int, place: int) -> NDArray[np.float32]:
    corners = np.random.default_rng(1000 + place).uniform(60, 180, (2, 2, 3))
    x, y = np.linspace(0, 1, width)[None, :, None], np.linspace(0, 1, height)[:, None, None]
    top = corners[0, 0] * (1 - x) + corners[0, 1] * x
    bottom = corners[1, 0] * (1 - x) + corners[1, 1] * x
    return np.asarray(top * (1 - y) + bottom * y, np.float32)


@dataclass(slots=True)
class ScriptedFinder:
    """Finds the actors of the moment that lie whole in the part of the picture it is given."""

    smallest: float = 0.0
    """Share of the part's longer side below which a face is too small to be seen, as for a real network."""
    actors: Sequence[Actor] = ()
    picture: NDArray[np.uint8] | None = None
    calls: list[tuple[int, int]] = field(default_factory=list)
    """Width and height of every part it was given."""

    def show(self, picture: NDArray[np.uint8], actors: Sequence[Actor]) -> None:
        """From now on the finder is given parts of this picture, with these actors in it."""
        self.picture, self.actors = picture, actors

    def find(self, image: NDArray[np.uint8]) -> list[Found]:
        """The actors that lie in this part, in its pixels, best first."""
        height, width = image.shape[:2]
        self.calls.append((width, height))
        left, top = self._origin(image)
        out = []
        for actor in self.actors:
            half = actor.size / 2
            across = left + half <= actor.x <= left + width - half
            down = top + half <= actor.y <= top + height - half
            if across and down and actor.size >= self.smallest * max(width, height):
                whole = found(actor)
                x, y, w, h = whole.box
                shifted = whole.points - np.array([left, top], np.float32)
                out.append(Found((x - left, y - top, w, h), shifted, whole.score))
        return sorted(out, key=lambda one: -one.score)

    def _origin(self, image: NDArray[np.uint8]) -> tuple[int, int]:
        if self.picture is None:
            return 0, 0
        start: int = image.__array_interface__["data"][0] - self.picture.__array_interface__["data"][0]
        row, column = divmod(start, self.picture.strides[0])
        if not 0 <= row < self.picture.shape[0]:
            raise ValueError("the part does not lie in the picture that was shown; show it before looking")
        return column // self.picture.strides[1], row


SIZE = (320, 180)
FACE = 96
"""Side of a face in pixels of the picture."""
_ROUGH = 14
_BLOCK = SAMPLE_RATE // 50


def jaw(seconds: float, seed: int) -> NDArray[np.float64]:
    """How far a mouth is open, 0..1, for every sample: syllables of different height, with pauses."""
    rng = np.random.default_rng(seed)
    t = np.arange(round(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    opened = np.zeros_like(t)
    at = 0.3
    while at < seconds:
        width, height = rng.uniform(0.035, 0.07), rng.uniform(0.4, 1.0)
        opened = np.maximum(opened, height * np.exp(-0.5 * np.square((t - at) / width)))
        at += rng.uniform(0.16, 0.34) if rng.random() < 0.85 else rng.uniform(0.5, 0.8)
    return opened


def voice(opened: NDArray[np.float64], seed: int = 0) -> NDArray[np.float32]:
    """A voice that is as loud as the mouth is open, over a quiet room."""
    t = np.arange(len(opened)) / SAMPLE_RATE
    harmonics = np.arange(1, 14)[:, None]
    tone = (np.sin(2 * math.pi * 140 * harmonics * t) / np.sqrt(harmonics)).sum(axis=0)
    room = np.random.default_rng(seed).standard_normal(len(opened)) * 5e-4
    return np.asarray(0.1 * np.square(opened) * tone + room, np.float32)


def claps(at_s: Sequence[float], seconds: float, seed: int = 0) -> NDArray[np.float32]:
    """Cracks of a few milliseconds over a quiet room."""
    rng = np.random.default_rng(seed)
    sound = rng.standard_normal(round(seconds * SAMPLE_RATE)) * 5e-4
    for moment in at_s:
        first = round(moment * SAMPLE_RATE)
        length = min(SAMPLE_RATE // 10, len(sound) - first)
        decay = np.exp(-np.arange(length) / (0.006 * SAMPLE_RATE))
        sound[first : first + length] += 0.5 * rng.standard_normal(length) * decay
    return np.asarray(sound, np.float32)


def face(who: int, open_px: float, side: int = FACE) -> NDArray[np.uint8]:
    """A face as far as matching is concerned, its chin that much further down."""
    rough = np.random.default_rng(who).uniform(40, 210, (_ROUGH, _ROUGH, 3)).astype(np.float32)
    soft = cv2.resize(rough, (side, side), interpolation=cv2.INTER_CUBIC)
    y, x = np.mgrid[0:side, 0:side].astype(np.float32)
    lower = np.clip((y / side - 0.62) / 0.1, 0, 1)
    opened = cv2.remap(
        soft, x, y - np.float32(open_px) * lower, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE
    )
    return np.asarray(np.clip(opened, 0, 255), np.uint8)


class Film:
    """Pictures and sound; the sound is stamped `late_ns` later than the picture of the same moment."""

    def __init__(
        self, sound: NDArray[np.float32], *, fps: float = 25.0, late_ns: int = 0, first_ns: int = 0
    ) -> None:
        self.name = "file:made up"
        self.has_video = self.has_audio = True
        self.duration_s: float | None = len(sound) / SAMPLE_RATE
        self.finders: list[ScriptedFinder] = []
        self._sound = sound
        self._fps = fps
        self._late_ns = late_ns
        self._first_ns = first_ns
        self._items: Iterator[VideoFrame | AudioBlock] = iter(())

    def make_finders(self) -> tuple[ScriptedFinder, ScriptedFinder]:
        """Finders that see the people of this film."""
        pair = ScriptedFinder(), ScriptedFinder()
        self.finders += pair
        return pair

    def open(self) -> None:
        """From the beginning."""
        self._items = heapq.merge(self._pictures(), self._blocks(), key=lambda item: item.captured_ns)

    def read(self, timeout_s: float) -> VideoFrame | AudioBlock:
        """The next item in the order of time."""
        item = next(self._items, None)
        if item is None:
            raise EndOfStream(f"{self.name} is at its end")
        if isinstance(item, VideoFrame):
            for finder in self.finders:
                finder.show(item.image, self.actors())
        return item

    def close(self) -> None:
        """Nothing to let go of."""

    def actors(self) -> list[Actor]:
        """Who is in view."""
        return []

    def draw(self, at_s: float) -> NDArray[np.uint8]:
        """The picture of that moment."""
        return scene(SIZE, ())

    def _pictures(self) -> Iterator[VideoFrame]:
        for seq in count():
            at_ns = round(seq * SECOND / self._fps)
            if at_ns >= len(self._sound) * SECOND // SAMPLE_RATE:
                return
            yield VideoFrame(self.name, seq, self._first_ns + at_ns, self.draw(at_ns / SECOND))

    def _blocks(self) -> Iterator[AudioBlock]:
        for first in range(0, len(self._sound) - _BLOCK + 1, _BLOCK):
            at_ns = self._first_ns + first * SECOND // SAMPLE_RATE + self._late_ns
            yield AudioBlock(self.name, first, at_ns, self._sound[first : first + _BLOCK])


class Talkers(Film):
    """People side by side who all move their mouths; the sound is that of the first one."""

    def __init__(
        self, seconds: float, *, people: int = 1, seed: int = 0, fps: float = 25.0, late_ns: int = 0
    ) -> None:
        self._jaws = [jaw(seconds, 100 * seed + who) for who in range(people)]
        self._actors = [
            Actor(SIZE[0] * (who + 0.5) / people, SIZE[1] / 2, FACE, who=seed + who) for who in range(people)
        ]
        super().__init__(voice(self._jaws[0], seed), fps=fps, late_ns=late_ns)

    def actors(self) -> list[Actor]:
        """All of them, all the time."""
        return self._actors

    def draw(self, at_s: float) -> NDArray[np.uint8]:
        """Everybody's mouth as open as it is at that moment."""
        picture = scene(SIZE, ()).copy()
        there = self.actors()
        for actor, opened in zip(self._actors, self._jaws, strict=True):
            if actor not in there:
                continue
            x, y = round(actor.x - FACE / 2), round(actor.y - FACE / 2)
            open_px = 4.0 * float(opened[min(round(at_s * SAMPLE_RATE), len(opened) - 1)])
            picture[y : y + FACE, x : x + FACE] = face(actor.who, open_px)
        return picture


class Hands(Film):
    """Two hands that come together faster and faster, meet, and part slowly; each meeting is heard."""

    def __init__(
        self, at_s: Sequence[float], seconds: float, *, fps: float = 30.0, late_ns: int = 0, seed: int = 0
    ) -> None:
        self._at_s = list(at_s)
        shape = (4, SIZE[1], SIZE[0], 3)
        self._grain = np.random.default_rng(seed).normal(0, 2.0, shape).astype(np.float32)
        super().__init__(claps(at_s, seconds, seed), fps=fps, late_ns=late_ns)

    def draw(self, at_s: float) -> NDArray[np.uint8]:
        """Both hands where they are at that moment, with the noise of a camera."""
        picture = scene(SIZE, ()).astype(np.float32)
        apart = min((self._distance(at_s - met) for met in self._at_s), default=1.0)
        for side in (-1, 1):
            x, y = SIZE[0] / 2 + side * (14 + 70 * apart), SIZE[1] / 2
            left, top = round(16 * (x - 14)), round(16 * (y - 25))
            corners = (left, top), (left + 16 * 28, top + 16 * 50)
            cv2.rectangle(picture, *corners, (225, 180, 160), cv2.FILLED, cv2.LINE_AA, 4)
        picture += self._grain[round(at_s * 1000) % len(self._grain)]
        return np.asarray(np.clip(picture, 0, 255), np.uint8)

    @staticmethod
    def _distance(after_s: float) -> float:
        """0 when they touch, 1 when they are apart."""
        if after_s < 0:
            return 1.0 - math.pow(max(0.0, 1.0 + after_s / 0.3), 2)
        return min(1.0, max(0.0, (after_s - 0.08) / 0.5))
