"""Decides where in a picture to look for faces: at most one tile a frame, and small looks at known faces.

One shrunken pass finds no face of 40 pixels in 720p, and all tiles of a frame cost ten times the budget.
So the tiles take turns, and one that looks as it did the last time is passed over: the answer would be the
same. The whole picture is one of them: it finds large faces at once. What a tile only suspects, a look at
the short range confirms.

What moved is seen here too, without understanding it: cuts, tiles worth a look, and faces between two
detections, on few samples of the green channel, because a frame has a third of a millisecond for it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from liveaffect.realtime.blazeface import FaceFinder, Found, overlap_with_each
from liveaffect.realtime.clock import MS, SECOND
from liveaffect.realtime.frame import Box

GLANCE_WIDTH = 160
COARSE = (32, 24)
ABRUPT_LEVEL, ABRUPT_RATIO = 4.0, 4.0
"""A mean change of so many levels, and so many times what is usual here, is abrupt."""
USUAL_GAIN = 0.2
ABRUPT_HERE = 5.0
"""The same for half of the cells around one face."""

CELLS = 24
"""Samples across a face when it is followed."""
REACH = 10
"""Samples by which it may have moved beyond where it was expected."""
TRUST = 0.6
"""Correlation below which a match is worth less than the expectation."""
Area = tuple[int, int, int, int]
"""x, y, width, height in whole pixels, inside the picture."""
MAX_TILE_PX = 424
"""The full-range network sees 192 pixels: a face of 40 is then 18 across, of which it finds 19 in 20."""
SHARED_PX = 48
"""Neighbouring tiles share this much, so that no small face is cut by all of them."""
ROUND_NS = 450 * MS
"""All tiles are seen within this time while faces are known; with none known every frame sees one."""
STALE_NS = 2 * SECOND
"""A tile where nothing changed is looked at again after this all the same."""
CHANGED_LEVELS, CHANGED_SAMPLES = 24, 6
"""So many samples of a tile must differ by so much; the noise of a camera stays below."""
CLOSE_LOOK = 2.5
"""A look at a known face is this many box widths wide: the short range finds it there in 100 of 100."""
WIDE_LOOK = 3.3
"""A second look at somebody new: a face is found in it all the surer, and a fold of a jacket is not."""


@dataclass(frozen=True, slots=True, eq=False)
class Change:
    """How a picture differs from the one before."""

    samples: NDArray[np.uint8]
    """The green channel of the picture on a grid of about 160 samples across."""
    abrupt: bool
    """Something large changed at once; faces must be looked at again before they are believed."""
    cut: bool
    """The picture has nothing in common with the one before."""
    novel: float
    """Share of the picture that no small shift of the one before explains."""
    levels: NDArray[np.float32] | None = None
    """How much each of `COARSE` cells changed; None where there is nothing to compare with."""

    def abrupt_at(self, box: Box, size: tuple[int, int]) -> bool:
        """Whether everything in and around a face changed at once, as where a tile shows another."""
        if self.levels is None:
            return False
        columns, rows = COARSE[0] / size[0], COARSE[1] / size[1]
        left, right = (box[0] - box[2] / 4) * columns, (box[0] + 1.25 * box[2]) * columns
        top, bottom = (box[1] - box[3] / 4) * rows, (box[1] + 1.25 * box[3]) * rows
        part = self.levels[max(0, int(top)) : int(bottom) + 1, max(0, int(left)) : int(right) + 1]
        return part.size > 0 and float(np.median(part)) > ABRUPT_HERE


class MotionDetector:
    """Compares each picture with the one before. One stream, one thread."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Forget the picture before."""
        self._samples: NDArray[np.uint8] | None = None
        self._coarse: NDArray[np.float32] = np.zeros((1, 1), np.float32)
        self._usual = 1.0

    def look(self, image: NDArray[np.uint8]) -> Change:
        """Compare with the picture before; the first one has nothing to compare with."""
        step = max(1, min(image.shape[1] // GLANCE_WIDTH, image.shape[0]))
        samples = np.ascontiguousarray(image[step // 2 :: step, step // 2 :: step, 1])
        coarse = np.asarray(cv2.resize(samples, COARSE, interpolation=cv2.INTER_AREA), np.float32)
        before, coarse_before = self._samples, self._coarse
        self._samples, self._coarse = samples, coarse
        if before is None or before.shape != samples.shape:
            return Change(samples, abrupt=False, cut=False, novel=1.0)
        levels = np.abs(coarse - coarse_before)
        level = float(levels.mean())
        abrupt = level > max(ABRUPT_LEVEL, ABRUPT_RATIO * self._usual)
        self._usual += USUAL_GAIN * (level - self._usual)
        if not abrupt:
            return Change(samples, abrupt=False, cut=False, novel=0.0, levels=levels)
        alike, novel = correlation(coarse, coarse_before), _novel(coarse, coarse_before)
        cut = alike < 0.35 or (alike < 0.65 and novel > 0.5)
        return Change(samples, abrupt=True, cut=cut, novel=novel, levels=levels)


def correlation(one: NDArray[np.float32], other: NDArray[np.float32]) -> float:
    """Normalised correlation; 1 for the same picture at any brightness. Two flat pictures are alike."""
    a, b = one - one.mean(), other - other.mean()
    norm = float(np.sqrt((a * a).sum() * (b * b).sum()))
    return float((a * b).sum()) / norm if norm > 1.0 else 1.0


def _novel(now: NDArray[np.float32], before: NDArray[np.float32]) -> float:
    kernel = np.ones((3, 3), np.uint8)
    low, high = cv2.erode(before, kernel), cv2.dilate(before, kernel)
    return float((np.maximum(low - now, now - high) > 6.0).mean())


@dataclass(frozen=True, slots=True, eq=False)
class Template:
    """What a face looked like when the detector last saw it, and where."""

    cells: NDArray[np.uint8]
    size: float

    @classmethod
    def of(cls, image: NDArray[np.uint8], box: Box) -> Template:
        """Remember the face in `box`."""
        cells, _ = _sample(image, box, CELLS)
        return cls(cells, box[2])

    def find(self, image: NDArray[np.uint8], expected: Box) -> tuple[float, float] | None:
        """The centre of the face near where it is expected; None when nothing there looks like it."""
        patch, origin = _sample(image, expected, CELLS + 2 * REACH)
        scores = np.asarray(cv2.matchTemplate(patch, self.cells, cv2.TM_CCOEFF_NORMED), np.float32)
        _, best, _, (column, row) = cv2.minMaxLoc(scores)
        if not best >= TRUST:
            return None
        cell = expected[2] / CELLS
        dx = _subpixel_peak(scores[row], column) + CELLS / 2
        dy = _subpixel_peak(scores[:, column], row) + CELLS / 2
        return origin[0] + dx * cell, origin[1] + dy * cell


def _sample(image: NDArray[np.uint8], box: Box, cells: int) -> tuple[NDArray[np.uint8], tuple[float, float]]:
    # `cells` x `cells` samples of the green channel around the box's centre, CELLS to the box's width,
    # and the place in the picture of their upper left corner.
    cell = box[2] / CELLS
    x0 = box[0] + box[2] / 2 - cells * cell / 2
    y0 = box[1] + box[3] / 2 - cells * cell / 2
    stride = max(1, int(cell / 2))
    height, width = image.shape[:2]
    left, top = min(max(0, int(x0)), width - 1), min(max(0, int(y0)), height - 1)
    right, bottom = int(x0 + cells * cell) + 2, int(y0 + cells * cell) + 2
    part = np.ascontiguousarray(
        image[top : max(bottom, top + 1) : stride, left : max(right, left + 1) : stride, 1]
    )
    # Sample (i, j) is the middle of a cell; the part's pixel (0, 0) is the picture's (left, top).
    scale = stride / cell
    matrix = np.array(
        [[scale, 0.0, (left + 0.5 - x0) / cell - 0.5], [0.0, scale, (top + 0.5 - y0) / cell - 0.5]],
        np.float64,
    )
    flags, border = cv2.INTER_LINEAR, cv2.BORDER_REPLICATE
    out = cv2.warpAffine(part, matrix, (cells, cells), flags=flags, borderMode=border)
    return np.asarray(out, np.uint8), (x0, y0)


def _subpixel_peak(line: NDArray[np.float32], at: int) -> float:
    # The top of the parabola through the best match and its neighbours: a tenth of a sample is real.
    if not 0 < at < len(line) - 1:
        return float(at)
    before, here, after = (float(v) for v in line[at - 1 : at + 2])
    bend = before - 2 * here + after
    return at + (0.5 * (before - after) / bend if bend < -1e-9 else 0.0)


def tiles(width: int, height: int) -> list[Area]:
    """The whole picture, then square tiles that cover it, the middle ones first."""
    columns, rows = _tiles_along(width), _tiles_along(height)
    whole = (0, 0, width, height)
    if columns == rows == 1:
        return [whole]
    side = max(_tile_side(width, columns), _tile_side(height, rows))
    places = [
        (x, y, min(side, width), min(side, height))
        for y in _tile_starts(height, side, rows)
        for x in _tile_starts(width, side, columns)
    ]
    places.sort(key=lambda a: math.hypot(a[0] + a[2] / 2 - width / 2, a[1] + a[3] / 2 - height / 2))
    return [whole, *places]


def _tiles_along(length: int) -> int:
    return max(1, math.ceil((length - SHARED_PX) / (MAX_TILE_PX - SHARED_PX)))


def _tile_side(length: int, count: int) -> int:
    return math.ceil((length + SHARED_PX * (count - 1)) / count)


def _tile_starts(length: int, side: int, count: int) -> list[int]:
    return [round(i * max(0, length - side) / max(1, count - 1)) for i in range(count)]


@dataclass(slots=True, eq=False)
class _Turn:
    area: Area
    looked_ns: int | None = None
    before: NDArray[np.uint8] | None = None
    """What its samples were when it was looked at."""


class Search:
    """Whose turn it is. One stream, one thread."""

    def __init__(self, width: int, height: int) -> None:
        self._size = (width, height)
        self.restart()

    def restart(self) -> None:
        """Begin again with the whole picture, as after a cut."""
        self._turns = [_Turn(area) for area in tiles(*self._size)]
        self._due_ns: int | None = None

    def next_tile(
        self, now_ns: int, samples: NDArray[np.uint8], known: Sequence[Box], *, hurry: bool
    ) -> Area | None:
        """The tile to look at now; None when it is not time yet, or when none changed since its last look.

        `samples` is the picture on a coarse grid. What changes around `known` faces does not count: close
        looks see it anyway. `hurry` takes a tile every frame.
        """
        if self._due_ns is not None and now_ns < self._due_ns and not hurry:
            return None
        close = [area for box in known if (area := close_area(box, *self._size)) is not None]
        covered = [self._on_grid(samples, area) for area in close]
        for turn in sorted(self._turns, key=lambda t: -1 if t.looked_ns is None else t.looked_ns):
            x, y, w, h = place = self._on_grid(samples, turn.area)
            part = samples[y : y + h, x : x + w]
            stale = turn.looked_ns is None or now_ns - turn.looked_ns >= STALE_NS
            if stale or turn.before is None or _changed(part, turn.before, place, covered):
                period_ns = ROUND_NS // len(self._turns)
                due_ns = now_ns if self._due_ns is None else max(self._due_ns, now_ns - period_ns)
                self._due_ns = due_ns + period_ns
                turn.looked_ns, turn.before = now_ns, part
                return turn.area
        return None

    def _on_grid(self, samples: NDArray[np.uint8], area: Area) -> Area:
        across, down = samples.shape[1] / self._size[0], samples.shape[0] / self._size[1]
        x, y, w, h = area
        left, top = int(x * across), int(y * down)
        return left, top, math.ceil((x + w) * across) - left, math.ceil((y + h) * down) - top


def _changed(
    part: NDArray[np.uint8], before: NDArray[np.uint8], place: Area, covered: Sequence[Area]
) -> bool:
    changed = cv2.absdiff(part, before) > CHANGED_LEVELS
    left, top, _, _ = place
    for x, y, w, h in covered:
        changed[max(0, y - top) : max(0, y + h - top), max(0, x - left) : max(0, x + w - left)] = False
    return int(np.count_nonzero(changed)) >= CHANGED_SAMPLES


def close_area(box: Box, width: int, height: int, widths: float = CLOSE_LOOK) -> Area | None:
    """The square around a face that a close look takes, cut to the picture; None when it lies outside."""
    side = widths * max(box[2], box[3])
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


def look_twice(near: FaceFinder, image: NDArray[np.uint8], first: Found) -> Found:
    """The same find with the mean score of its look and of a wider one; that is 0 if it finds nothing."""
    area = close_area(first.box, image.shape[1], image.shape[0], WIDE_LOOK)
    again = look(near, image, area) if area else []
    score = max((f.score for f in again if _overlap(f.box, first.box) > 0.3), default=0.0)
    return replace(first, score=(first.score + score) / 2)


def look_everywhere(
    far: FaceFinder, near: FaceFinder, image: NDArray[np.uint8], *, sure: float
) -> list[Found]:
    """All faces of one picture, however long it takes: all tiles at all scales, each find confirmed close up.

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
    return float(overlap_with_each(np.array(one), np.array([other]))[0])
