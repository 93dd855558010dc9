"""A face finder that sees what a script says, so that search and track are tested without a network.

The script knows where faces are in the whole picture; the finder is given a part of it, as a real one is.
It is told the whole picture beforehand, and where the part lies in memory says where it lies in the picture.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache

import numpy as np
from numpy.typing import NDArray

from liveaffect.realtime.faces.blazeface import Found

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
