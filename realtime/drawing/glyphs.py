"""Text to masks of coverage, the same on every machine: NumPy only, no font file, no library of shapes.

A pen of round tip follows the strokes of a character; a pixel is covered by its distance to the path. Only
sums, products, quotients and square roots are used, which IEEE 754 fixes to the last bit, so pictures can be
compared exactly. Small sizes are fitted to the pixel grid so that stems stay sharp.
"""

from __future__ import annotations

import unicodedata
from functools import lru_cache
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from liveaffect.realtime.drawing.strokes import MISSING, STROKES

Mask = NDArray[np.uint16]
"""Coverage 0..256."""

REGULAR = 0.125
BOLD = 0.185
"""Width of the pen as a share of the height of capitals."""
_FITTED_BELOW_PX = 20
"""Text with lower capitals is fitted to the pixel grid; above it nobody can see the difference."""
_SMALL = 0.71
"""Height of small letters as a share of capitals."""
_TAIL = 0.3
_CURVE_STEPS = 6


def pen_px(cap_px: int, weight: float) -> float:
    """Width of the pen: whole pixels where the text is fitted to the grid."""
    width = cap_px * weight
    return float(max(1, int(width + 0.5))) if cap_px < _FITTED_BELOW_PX else width


def ascent_px(cap_px: int) -> int:
    """Rows above the baseline in every mask of this size."""
    return cap_px + 1 + cap_px // 8


def descent_px(cap_px: int) -> int:
    """Rows below the baseline."""
    return int(cap_px * _TAIL + 0.5) + 1


@lru_cache(maxsize=512)
def text_mask(text: str, cap_px: int, weight: float = REGULAR) -> Mask:
    """Coverage of one line of text; the baseline lies `ascent_px` below the top row. Read-only."""
    cells = [glyph(c, cap_px, weight) for c in plain(text)]
    gap = _gap_px(cap_px)
    width = sum(advance for _, advance in cells) - (gap if cells else 0)
    out = np.zeros((ascent_px(cap_px) + descent_px(cap_px), max(width, 1)), np.uint16)
    left = 0
    for mask, advance in cells:
        part = out[:, left : left + mask.shape[1]]
        np.maximum(part, mask[:, : part.shape[1]], out=part)
        left += advance
    out.setflags(write=False)
    return out


def text_width_px(text: str, cap_px: int, weight: float = REGULAR) -> int:
    """Width of one line of text."""
    return int(text_mask(text, cap_px, weight).shape[1])


def fit_text(text: str, width_px: int, cap_px: int, weight: float = REGULAR) -> str:
    """The text, or as much of its beginning as fits with an ellipsis."""
    if text_width_px(text, cap_px, weight) <= width_px:
        return text
    for length in range(len(text) - 1, 0, -1):
        shorter = text[:length].rstrip() + "…"
        if text_width_px(shorter, cap_px, weight) <= width_px:
            return shorter
    return ""


def wrap_text(text: str, width_px: int, cap_px: int, weight: float = REGULAR, lines: int = 2) -> list[str]:
    """The text in at most so many lines that fit; what is left over ends in an ellipsis."""
    out: list[str] = []
    words = text.split()
    while words and len(out) < lines - 1:
        count = 1
        while count < len(words) and text_width_px(" ".join(words[: count + 1]), cap_px, weight) <= width_px:
            count += 1
        out.append(fit_text(" ".join(words[:count]), width_px, cap_px, weight))
        words = words[count:]
    return [*out, fit_text(" ".join(words), width_px, cap_px, weight)] if words else out


def plain(text: str) -> str:
    """The text in characters that have strokes: accents are dropped, control characters become spaces."""
    out = []
    for char in text:
        if char in STROKES:
            out.append(char)
            continue
        base = [c for c in unicodedata.normalize("NFKD", char) if not unicodedata.combining(c)]
        out.extend(
            c if c in STROKES else " " if c.isspace() or not c.isprintable() else "\ufffd" for c in base
        )
    return "".join(out)


@lru_cache(maxsize=4096)
def glyph(char: str, cap_px: int, weight: float) -> tuple[Mask, int]:
    """One character's coverage and how far the next one stands from it."""
    width, strokes = STROKES.get(char, MISSING)
    pen = pen_px(cap_px, weight)
    reach = _fit(width * cap_px / 10, cap_px)
    columns = int(reach + pen + 0.999)
    segments = [s for stroke in strokes.split("/") if stroke.strip() for s in _segments(stroke, cap_px, pen)]
    mask = sweep(segments, pen, (ascent_px(cap_px) + descent_px(cap_px), max(columns, 1)))
    return mask, int(reach + pen + 0.5) + _gap_px(cap_px)


def sweep(segments: list[tuple[float, float, float, float]], pen: float, shape: tuple[int, int]) -> Mask:
    """Coverage of a round pen drawn along straight segments (x0, y0, x1, y1), y counted downwards."""
    if not segments:
        return np.zeros(shape, np.uint16)
    x0, y0, x1, y1 = (np.array(column)[:, None, None] for column in zip(*segments, strict=True))
    xs = np.arange(shape[1])[None, None, :] + 0.5
    ys = np.arange(shape[0])[None, :, None] + 0.5
    dx, dy = x1 - x0, y1 - y0
    length2 = dx * dx + dy * dy
    along = (xs - x0) * dx + (ys - y0) * dy
    t = np.clip(along / np.where(length2 > 0, length2, 1.0), 0.0, 1.0)
    off_x, off_y = xs - (x0 + t * dx), ys - (y0 + t * dy)
    nearest = np.sqrt((off_x * off_x + off_y * off_y).min(axis=0))
    cover: Mask = (np.clip(pen / 2 + 0.5 - nearest, 0.0, 1.0) * 256 + 0.5).astype(np.uint16)
    return cover


def _gap_px(cap_px: int) -> int:
    return max(1, int(cap_px * 0.155 + 0.5))


def _fit(value: float, cap_px: int) -> float:
    return float(int(value + 0.5)) if cap_px < _FITTED_BELOW_PX else value


def _height_px(y: float, cap_px: int, pen: float) -> float:
    """A grid height as pixels above the baseline, where the pen's middle goes.

    Baseline, small letters and capitals are whole pixels at every size; heights between are stretched.
    """
    small = int(cap_px * _SMALL + 0.5) - pen
    cap = cap_px - pen
    if y <= 0:
        up = y * cap_px / 10
    elif y <= 7:
        up = y / 7 * small
    else:
        up = small + (y - 7) / 3 * (cap - small)
    sign = -1.0 if up < 0 else 1.0
    return sign * _fit(abs(up), cap_px) + pen / 2


def _segments(stroke: str, cap_px: int, pen: float) -> list[tuple[float, float, float, float]]:
    """The straight pieces of one stroke in mask pixels."""
    here: tuple[float, float] | None = None
    control: tuple[float, float] | None = None
    out: list[tuple[float, float, float, float]] = []
    for word in stroke.split():
        gx, gy = (float(n) for n in word.lstrip("~").split(","))
        point = (
            _fit(gx * cap_px / 10, cap_px) + pen / 2,
            ascent_px(cap_px) - _height_px(gy, cap_px, pen),
        )
        if word[0] == "~":
            control = point
            continue
        if here is not None:
            out.extend(_bend(here, control, point))
        here, control = point, None
    return out


def _bend(
    start: tuple[float, float], control: tuple[float, float] | None, end: tuple[float, float]
) -> list[tuple[float, float, float, float]]:
    if control is None:
        return [(*start, *end)]
    points = [start]
    for step in range(1, _CURVE_STEPS + 1):
        t = step / _CURVE_STEPS
        a, b, c = (1 - t) * (1 - t), 2 * t * (1 - t), t * t
        points.append(
            (a * start[0] + b * control[0] + c * end[0], a * start[1] + b * control[1] + c * end[1])
        )
    return [(*p, *q) for p, q in pairwise(points)]
