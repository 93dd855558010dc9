"""Sees what moved without understanding it: cuts, tiles worth a look, and faces between two detections.

Everything works on few samples of the green channel: the question is only where something changed or
went, and a frame has a third of a millisecond for the answer.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

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
        step = max(1, image.shape[1] // GLANCE_WIDTH)
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
