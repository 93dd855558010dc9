"""Decides where in a picture to look for faces: at most one tile a frame, and small looks at known faces.

One shrunken pass finds no face of 40 pixels in 720p, and all tiles of a frame cost ten times the budget.
So the tiles take turns, those where something moved first, and the whole picture is one of them: it finds
large faces at once. What a tile only suspects, a look at the short range confirms.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from realtime.blazeface import FaceFinder, Found, overlap
from realtime.clock import MS
from realtime.frame import Box

Area = tuple[int, int, int, int]
"""x, y, width, height in whole pixels, inside the picture."""

MAX_TILE_PX = 424
"""The full-range network sees 192 pixels: a face of 40 is then 18 across, of which it finds 19 in 20."""
SHARED_PX = 48
"""Neighbouring tiles share this much, so that no small face is cut by all of them."""
ROUND_NS = 450 * MS
"""All tiles are seen within this time while faces are known; with none known every frame sees one."""
MOVED_SAMPLES = 6
MOVED_FIRST = 2.0
"""A tile where something moved waits as if it had waited this many times as long."""
CLOSE_LOOK = 2.5
"""A look at a known face is this many box widths wide: the short range finds it there in 100 of 100."""


def tiles(width: int, height: int) -> list[Area]:
    """The whole picture, then square tiles that cover it, the middle ones first."""
    columns, rows = _count(width), _count(height)
    whole = (0, 0, width, height)
    if columns == rows == 1:
        return [whole]
    side = max(_side(width, columns), _side(height, rows))
    places = [
        (x, y, min(side, width), min(side, height))
        for y in _starts(height, side, rows)
        for x in _starts(width, side, columns)
    ]
    places.sort(key=lambda a: math.hypot(a[0] + a[2] / 2 - width / 2, a[1] + a[3] / 2 - height / 2))
    return [whole, *places]


def _count(length: int) -> int:
    return max(1, math.ceil((length - SHARED_PX) / (MAX_TILE_PX - SHARED_PX)))


def _side(length: int, count: int) -> int:
    return math.ceil((length + SHARED_PX * (count - 1)) / count)


def _starts(length: int, side: int, count: int) -> list[int]:
    return [round(i * max(0, length - side) / max(1, count - 1)) for i in range(count)]


class Search:
    """Whose turn it is. One stream, one thread."""

    def __init__(self, width: int, height: int) -> None:
        self._tiles = tiles(width, height)
        self._size = (width, height)
        self.restart()

    def restart(self) -> None:
        """Begin again with the whole picture, as after a cut."""
        self._looked_ns: list[int | None] = [None] * len(self._tiles)
        self._due_ns: int | None = None

    def next_tile(
        self, now_ns: int, moved: NDArray[np.bool_], known: Sequence[Box], *, hurry: bool
    ) -> Area | None:
        """The tile to look at now, or None when it is not time yet. `hurry` takes one every frame."""
        if self._due_ns is not None and now_ns < self._due_ns and not hurry:
            return None
        period_ns = ROUND_NS // len(self._tiles)
        due_ns = now_ns if self._due_ns is None else max(self._due_ns, now_ns - period_ns)
        self._due_ns = due_ns + period_ns
        best = max(range(len(self._tiles)), key=lambda i: self._waiting(i, now_ns))
        if self._looked_ns[best] is not None:
            stirred = self._stirred(moved, known)
            best = max(
                range(len(self._tiles)),
                key=lambda i: self._waiting(i, now_ns) * (MOVED_FIRST if stirred[i] else 1.0),
            )
        self._looked_ns[best] = now_ns
        return self._tiles[best]

    def _waiting(self, index: int, now_ns: int) -> float:
        looked_ns = self._looked_ns[index]
        return math.inf if looked_ns is None else float(now_ns - looked_ns)

    def _stirred(self, moved: NDArray[np.bool_], known: Sequence[Box]) -> list[bool]:
        # A known face moves all the time; what moves elsewhere may be a new one.
        moved = moved.copy()
        scale_x, scale_y = moved.shape[1] / self._size[0], moved.shape[0] / self._size[1]
        for x, y, w, h in known:
            left, top = max(0, int((x - w / 2) * scale_x)), max(0, int((y - h / 2) * scale_y))
            right, bottom = max(0, int((x + 1.5 * w) * scale_x) + 1), max(0, int((y + 2 * h) * scale_y) + 1)
            moved[top:bottom, left:right] = False
        out = []
        for x, y, w, h in self._tiles:
            part = moved[
                int(y * scale_y) : int((y + h) * scale_y) + 1, int(x * scale_x) : int((x + w) * scale_x) + 1
            ]
            out.append(int(np.count_nonzero(part)) >= MOVED_SAMPLES)
        return out


def close_area(box: Box, width: int, height: int) -> Area | None:
    """The square around a face that a close look takes, cut to the picture; None when it lies outside."""
    side = CLOSE_LOOK * max(box[2], box[3])
    x, y = box[0] + box[2] / 2 - side / 2, box[1] + box[3] / 2 - side / 2
    left, top = max(0, int(x)), max(0, int(y))
    right, bottom = min(width, int(x + side) + 1), min(height, int(y + side) + 1)
    if right - left < 8 or bottom - top < 8:
        return None
    return left, top, right - left, bottom - top


def look(finder: FaceFinder, image: NDArray[np.uint8], area: Area) -> list[Found]:
    """What the finder sees in one area, in pixels of the whole picture."""
    x, y, w, h = area
    out = []
    for found in finder.find(image[y : y + h, x : x + w]):
        bx, by, bw, bh = found.box
        shift = np.array([x, y], np.float32)
        out.append(Found((bx + x, by + y, bw, bh), found.points + shift, found.score))
    return out


def look_everywhere(
    far: FaceFinder, near: FaceFinder, image: NDArray[np.uint8], *, sure: float
) -> list[Found]:
    """All faces of one picture, however long it takes: every tile at every scale, each find confirmed close up.

    Best first. A find that the close look does not confirm with at least `sure` is left out.
    """
    height, width = image.shape[:2]
    areas = set(tiles(width, height))
    areas |= {(x, y, w, h) for scale in (2, 4) for x, y, w, h in _scaled(width, height, scale)}
    suspects = [found for area in sorted(areas) for found in look(far, image, area)]
    suspects += look(near, image, (0, 0, width, height))
    confirmed: list[Found] = []
    for suspect in one_each(suspects):
        area = close_area(suspect.box, width, height)
        close = look(near, image, area) if area else []
        same = [f for f in close if _overlap(f.box, suspect.box) > 0.3 and f.score >= sure]
        confirmed += same[:1]
    return one_each(confirmed)


def _scaled(width: int, height: int, scale: int) -> list[Area]:
    small = tiles(max(1, width // scale), max(1, height // scale))
    return [
        (x * scale, y * scale, min(w * scale, width - x * scale), min(h * scale, height - y * scale))
        for x, y, w, h in small
    ]


def one_each(found: Sequence[Found]) -> list[Found]:
    """The best find of each face, best first."""
    kept: list[Found] = []
    for candidate in sorted(found, key=lambda f: (-f.score, f.box)):
        if all(_overlap(candidate.box, other.box) < 0.3 for other in kept):
            kept.append(candidate)
    return kept


def _overlap(one: Box, other: Box) -> float:
    return float(overlap(np.array(one), np.array([other]))[0])
