"""What is drawn besides the panels at a face: box corners, voice meter, health, notices, small timeline."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from liveaffect.realtime.clock import MS, SECOND
from liveaffect.realtime.drawing.canvas import (
    FULL,
    GOOD,
    INK,
    PANEL,
    QUIET,
    TRACK,
    WARN,
    Canvas,
    Colour,
    Health,
    Sprite,
    label_colour,
    pen_stroke,
)
from liveaffect.realtime.drawing.panels import NO_AGE, Measures
from liveaffect.realtime.drawing.text import Coverage, text_width_px, wrap_text

TIMELINE_S = 10
_HOLD_NS = 300 * MS
"""How long one entry of the history is carried on: after that the timeline shows a hole."""
_METER_STEPS = 16
_NOTICE_LINES = 5
DISCLOSURE = "emotions are being analysed"
NOTICE_COVER = 236
"""A notice hides more of the picture than a panel: it matters more."""


@lru_cache(maxsize=256)
def corner(arm_px: int, pen_px: int, colour: Colour, turn: int) -> Sprite:
    """One corner accent with a dark rim; `turn` 0 is top left, then clockwise."""
    rim = rim_px(pen_px)
    size = arm_px + 2 * rim + pen_px
    near, far, bend = rim + pen_px / 2, rim + pen_px / 2 + arm_px, rim + pen_px / 2 + max(arm_px // 4, 1)
    soft = bend - (bend - near) * 0.7
    path = [
        (near, far, near, bend),
        (near, bend, soft, soft),
        (soft, soft, bend, near),
        (bend, near, far, near),
    ]
    canvas = Canvas(size, size)
    for width, ink, opacity in ((pen_px + 2 * rim, PANEL, 150), (pen_px, colour, FULL)):
        canvas.stamp(0, 0, np.rot90(pen_stroke(path, width, (size, size)), -turn), ink, opacity)
    return canvas.sprite()


def rim_px(pen_px: int) -> int:
    """Width of the dark rim around a corner accent of this pen."""
    return max(1, pen_px // 2)


@lru_cache(maxsize=16)
def meter(level_steps: int, width: int, m: Measures) -> Sprite:
    """How loud the voice is: a microphone and a row of steps."""
    height = m.cap + 2 * m.thin + m.gap
    canvas = Canvas(width, height)
    canvas.plate(m.radius)
    icon = _microphone(m.cap + 2 * m.thin)
    canvas.stamp(m.gap, m.gap // 2, icon, INK if level_steps else QUIET)
    left = 2 * m.gap + icon.shape[1]
    room = width - left - m.gap
    steps = max(4, min(_METER_STEPS, room // (3 * m.thin)))
    lit = (level_steps * steps + _METER_STEPS - 1) // _METER_STEPS
    for step in range(steps):
        x = left + step * room // steps
        wide = left + (step + 1) * room // steps - x - m.thin
        ink = TRACK if step >= lit else WARN if step >= steps - steps // 6 else GOOD
        canvas.fill(x, (height - m.cap) // 2, wide, m.cap, ink)
    return canvas.sprite()


def meter_steps(level: float) -> int:
    """A level 0..1 in the steps in which the meter shows it."""
    return max(0, min(_METER_STEPS, int(level * _METER_STEPS + 0.5)))


def _microphone(height: int) -> Coverage:
    """A small microphone."""
    u = height / 10
    pen = max(1.0, u)
    body = pen_stroke([(3.5 * u, 2 * u, 3.5 * u, 4.6 * u)], 3.6 * u, (height, int(7 * u + 0.999)))
    bow = [(0.6 * u, 4.4 * u, 1.4 * u, 6.6 * u), (1.4 * u, 6.6 * u, 3.5 * u, 7.4 * u)]
    bow += [(7 * u - x0, y0, 7 * u - x1, y1) for x0, y0, x1, y1 in bow]
    bow += [(3.5 * u, 7.4 * u, 3.5 * u, 9.4 * u), (2 * u, 9.4 * u, 5 * u, 9.4 * u)]
    return np.maximum(body, pen_stroke(bow, pen, body.shape))


def health_text(health: Health, width_px: int, cap_px: int) -> str:
    """The health line in the longest form that fits."""
    age = NO_AGE if health.age_ms is None else f"{health.age_ms:.0f} ms"
    lost = health.dropped + health.skipped
    forms = (
        f"{health.fps:.1f} fps  ·  age {age}  ·  dropped {health.dropped}  ·  skipped {health.skipped}"
        f"  ·  {health.engine}  ·  {health.mode}",
        f"{health.fps:.0f} fps · {age} · drop {health.dropped} · skip {health.skipped}"
        f" · {health.engine} · {health.mode}",
        f"{health.fps:.0f} fps · {age} · lost {lost} · {health.engine} · {health.mode}",
        f"{health.fps:.0f} fps · {age} · lost {lost} · {health.mode}",
        f"{health.fps:.0f} fps · {age}",
    )
    return next((t for t in forms if text_width_px(t, cap_px) <= width_px), forms[-1])


@lru_cache(maxsize=24)
def line_panel(text: str, lamp: Colour | None, m: Measures) -> Sprite:
    """One line on a plate, with a small lamp before it."""
    edge = max(2, m.gap * 2 // 3)
    left = m.gap + (m.cap // 2 + m.gap if lamp else 0)
    canvas = Canvas(left + text_width_px(text, m.cap) + m.gap, m.cap + 2 * edge)
    canvas.plate(m.radius)
    if lamp:
        dot = m.cap / 2
        middle = edge + m.cap / 2
        at = m.gap + dot / 2
        canvas.stamp(0, 0, pen_stroke([(at, middle, at, middle)], dot + 1, (m.cap + 2 * edge, left)), lamp)
    canvas.text((left, edge + m.cap), text, m.cap, INK)
    return canvas.sprite()


def health_panel(health: Health, width_px: int, m: Measures) -> Sprite:
    """The health line; its lamp says whether the overlay is locked to the picture."""
    room = width_px - 3 * m.gap - m.cap
    return line_panel(health_text(health, room, m.cap), GOOD if health.mode == "locked" else WARN, m)


def disclosure_panels(width_px: int, m: Measures) -> list[Sprite]:
    """That emotions are being analysed: in one line, and narrower in two or more, within so many pixels."""
    line = line_panel(DISCLOSURE, WARN, m)
    below = [help_panel(DISCLOSURE, width_px // share, m, FULL) for share in (1, 2, 3)]
    return [sprite for sprite in (line, *below) if sprite.size[0] <= width_px] or below[-1:]


@lru_cache(maxsize=32)
def notice_panel(notices: tuple[str, ...], width_px: int, m: Measures) -> tuple[Sprite, bool]:
    """What the person must know, within so many pixels, with an amber edge; and whether all of it fits."""
    left = m.pad + 3 * m.thin
    lines = [
        line
        for notice in notices
        for line in wrap_text(notice, width_px - left - m.pad, m.cap, bold=True, lines=_NOTICE_LINES)
    ]
    wide = max(text_width_px(line, m.cap, bold=True) for line in lines)
    height = 2 * m.pad + m.cap + (len(lines) - 1) * m.line
    canvas = Canvas(left + wide + m.pad, height)
    canvas.plate(m.radius, cover=NOTICE_COVER)
    canvas.fill(0, m.radius, 3 * m.thin, height - 2 * m.radius, WARN)
    for index, line in enumerate(lines):
        canvas.text((left, m.pad + m.cap + index * m.line), line, m.cap, INK, bold=True)
    whole = [word for notice in notices for word in notice.split()]
    return canvas.sprite(), [word for line in lines for word in line.split()] == whole


@lru_cache(maxsize=16)
def help_panel(text: str, width_px: int, m: Measures, opacity: int) -> Sprite:
    """What can be done, within so many pixels."""
    lines = wrap_text(text, width_px - 2 * m.pad, m.cap, lines=_NOTICE_LINES)
    wide = max(text_width_px(line, m.cap) for line in lines)
    canvas = Canvas(wide + 2 * m.pad, 2 * m.gap + m.cap + (len(lines) - 1) * m.line)
    canvas.plate(m.radius)
    for index, line in enumerate(lines):
        canvas.text((m.pad, m.gap + m.cap + index * m.line), line, m.cap, INK)
    return canvas.sprite(opacity)


@lru_cache(maxsize=16)
def timeline(history: tuple[tuple[int, str, float], ...], width: int, m: Measures) -> Sprite:
    """The last seconds: colour is the label, height the confidence, a hole where nothing was known."""
    tall = 3 * m.cap
    bottom = tall + m.gap // 2
    canvas = Canvas.of(_timeline_ground(width, m))
    if history:
        columns = width - 2 * m.gap
        times = np.array([t for t, _, _ in history], np.int64)
        highs = [max(m.thin, int(max(0.0, min(1.0, sure)) * tall + 0.5)) for _, _, sure in history]
        colours = np.array([label_colour(label) for _, label, _ in history], np.uint16)
        at = times[-1] - (TIMELINE_S * SECOND * np.arange(columns - 1, -1, -1, dtype=np.int64)) // columns
        index = np.searchsorted(times, at, side="right") - 1
        known = (index >= 0) & (at - times[index] <= _HOLD_NS)
        canvas.columns(m.gap, bottom, np.where(known, np.array(highs)[index], 0), colours[index])
    return canvas.sprite()


@lru_cache(maxsize=8)
def _timeline_ground(width: int, m: Measures) -> Sprite:
    """What never changes in the timeline."""
    tall = 3 * m.cap
    canvas = Canvas(width, tall + m.line + m.gap)
    canvas.plate(m.radius)
    canvas.text((m.gap, tall + m.line), f"{TIMELINE_S} s", m.cap, QUIET)
    canvas.text((width - m.gap - text_width_px("now", m.cap), tall + m.line), "now", m.cap, QUIET)
    canvas.fill(m.gap, tall + m.gap // 2, width - 2 * m.gap, m.thin, TRACK)
    return canvas.sprite()
