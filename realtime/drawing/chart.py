"""The timeline of a whole run: lanes of labels, probabilities and weights over one axis of time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from liveaffect.engines.recipe import LABELS
from liveaffect.realtime.clock import SECOND
from liveaffect.realtime.cue import MODALITIES, NOT_SURE
from liveaffect.realtime.drawing.glyphs import BOLD, fit_text, text_width_px
from liveaffect.realtime.drawing.paint import (
    INK,
    LABEL_COLOURS,
    QUIET,
    TRACK,
    Canvas,
    Colour,
    label_colour,
    paste,
)

WIDTH_PX = 1600
_LEFT, _RIGHT, _TOP = 190, 24, 58
_LABEL_PX, _STACK_PX, _WEIGHT_PX, _GAP_PX, _LANE_GAP_PX = 56, 72, 10, 6, 26
_LANE_PX = _LABEL_PX + _STACK_PX + _WEIGHT_PX + 2 * _GAP_PX
_FOOT_PX = 84
_GROUND: Colour = (20, 23, 28)
_EMPTY: Colour = (31, 35, 42)
_WEIGHT_COLOURS: tuple[Colour, ...] = ((236, 238, 240), (120, 140, 165), (74, 92, 116))
"""Of face, voice and words."""
_CAP, _HEAD = 10, 13
_STEPS_S = (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1800, 3600, 7200, 21600, 86400)
_HOLD = 3
"""An entry is carried on for this many of the lane's usual steps; after that there is a hole."""


@dataclass(frozen=True, slots=True)
class Entry:
    """What the timeline shows of one cue."""

    t_ns: int
    label: str
    confidence: float
    fused: tuple[float, ...]
    weights: tuple[float, float, float]


@dataclass(frozen=True, slots=True)
class Lane:
    """One person over time, oldest entry first; never empty."""

    name: str
    entries: tuple[Entry, ...]


def chart(lanes: Sequence[Lane], left_out: int = 0) -> NDArray[np.uint8]:
    """The picture of all lanes over a common axis; `left_out` people are only counted."""
    start = min(lane.entries[0].t_ns for lane in lanes)
    end = max(max(lane.entries[-1].t_ns for lane in lanes), start + SECOND)
    height = _TOP + len(lanes) * (_LANE_PX + _LANE_GAP_PX) + _FOOT_PX
    canvas = Canvas(WIDTH_PX, height)
    canvas.fill(0, 0, WIDTH_PX, height, _GROUND)
    canvas.text((24, 36), "Emotions over time", 16, INK, BOLD)
    if left_out:
        more = f"and {left_out} more, seen more briefly"
        canvas.text((WIDTH_PX - _RIGHT - text_width_px(more, _CAP), 36), more, _CAP, QUIET)
    bottom = height - _FOOT_PX - _LANE_GAP_PX // 2
    _axis(canvas, start, end, bottom)
    _legend(canvas, bottom + 62)
    picture = np.zeros((height, WIDTH_PX, 3), np.uint8)
    paste(picture, canvas.sprite(), 0, 0)
    for index, lane in enumerate(lanes):
        top = _TOP + index * (_LANE_PX + _LANE_GAP_PX)
        _draw_lane(picture, lane, top, (start, end))
        names = Canvas(_LEFT - 24, _LANE_PX)
        names.text((0, _HEAD + 4), fit_text(lane.name, _LEFT - 34, _HEAD, BOLD), _HEAD, INK, BOLD)
        names.text((0, _HEAD + 24), "label, confidence", _CAP, QUIET)
        names.text((0, _LABEL_PX + _GAP_PX + _STACK_PX // 2 + _CAP // 2), "probabilities", _CAP, QUIET)
        names.text((0, _LANE_PX), "weights", _CAP, QUIET)
        paste(picture, names.sprite(), 24, top)
    return picture


def _draw_lane(picture: NDArray[np.uint8], lane: Lane, top: int, span: tuple[int, int]) -> None:
    """One column of pixels at a time, from the newest entry that the column's time has reached."""
    width = WIDTH_PX - _LEFT - _RIGHT
    times = np.array([entry.t_ns for entry in lane.entries], np.int64)
    usual = int(np.median(np.diff(times))) if len(times) > 1 else SECOND // 10
    # A column shows what was newest at its right edge, so that even the last entry has one.
    at = span[0] + (span[1] - span[0]) * np.arange(1, width + 1, dtype=np.int64) // width
    newest = np.searchsorted(times, at, side="right") - 1
    known = (newest >= 0) & (at - times[newest] <= max(_HOLD * usual, (span[1] - span[0]) // width))
    rows = (top, top + _LABEL_PX + _GAP_PX, top + _LANE_PX - _WEIGHT_PX)
    for row, tall in zip(rows, (_LABEL_PX, _STACK_PX, _WEIGHT_PX), strict=True):
        picture[row : row + tall, _LEFT : _LEFT + width] = _EMPTY
    for x in np.flatnonzero(known):
        entry = lane.entries[newest[x]]
        column = picture[:, _LEFT + x]
        high = max(2, round(max(0.0, min(1.0, entry.confidence)) * _LABEL_PX))
        column[rows[0] + _LABEL_PX - high : rows[0] + _LABEL_PX] = label_colour(entry.label)
        _stack(column[rows[1] : rows[1] + _STACK_PX], entry.fused, [LABEL_COLOURS[n] for n in LABELS])
        if any(entry.weights):
            _stack(column[rows[2] : rows[2] + _WEIGHT_PX], entry.weights, _WEIGHT_COLOURS)


def _stack(column: NDArray[np.uint8], shares: Sequence[float], colours: Sequence[Colour]) -> None:
    """Shares on top of each other, from above, over the whole column."""
    total, done, begin = sum(shares), 0.0, 0
    for share, colour in zip(shares, colours, strict=True):
        done += share
        end = round(done / total * len(column))
        column[begin:end] = colour
        begin = end


def _axis(canvas: Canvas, start: int, end: int, bottom: int) -> None:
    """Lines and times at round distances, at most twelve."""
    span_s = (end - start) / SECOND
    step_s = next((s for s in _STEPS_S if span_s / s <= 12), _STEPS_S[-1])
    step = int(step_s * SECOND)
    width = WIDTH_PX - _LEFT - _RIGHT
    for t_ns in range(-(-start // step) * step, end + 1, step):
        x = _LEFT + (t_ns - start) * width // (end - start)
        canvas.fill(x, _TOP - 6, 1, bottom - _TOP + 12, TRACK)
        text = time_text(t_ns, step_s)
        wide = text_width_px(text, _CAP)
        canvas.text((min(x - wide // 2, WIDTH_PX - 4 - wide), bottom + 12 + _CAP), text, _CAP, QUIET)


def time_text(t_ns: int, step_s: float) -> str:
    """A time on the axis: seconds below two minutes, then minutes and hours."""
    if step_s < 1:
        return f"{t_ns / SECOND:.1f} s"
    whole = t_ns // SECOND
    if whole < 120 and step_s < 60:
        return f"{whole} s"
    hours, minutes, left = whole // 3600, whole // 60 % 60, whole % 60
    return f"{hours}:{minutes:02}:{left:02}" if hours else f"{minutes}:{left:02}"


def _legend(canvas: Canvas, y: int) -> None:
    x = _LEFT
    entries = [(name, LABEL_COLOURS[name]) for name in (*LABELS, NOT_SURE)]
    for name, colour in (*entries, *zip(MODALITIES, _WEIGHT_COLOURS, strict=True)):
        if name == MODALITIES[0]:
            x += 40
            canvas.text((x, y), "weights:", _CAP, QUIET)
            x += text_width_px("weights:", _CAP) + 14
        canvas.fill(x, y - _CAP, _CAP + 2, _CAP, colour)
        canvas.text((x + _CAP + 8, y), name, _CAP, INK)
        x += _CAP + 8 + text_width_px(name, _CAP) + 22
