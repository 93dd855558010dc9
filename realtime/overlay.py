"""The drawn picture: a pure function of one `View`, the same to the last bit on every machine.

`lay_out` decides what stands where, `paint` puts it on a copy of the picture, `draw` does both. Nothing is
ever put over a face while there is any other place for it, and readings that are too old fade and vanish
instead of sticking to the wrong moment.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from liveaffect.engines.recipe import LABELS
from liveaffect.realtime.clock import MS
from liveaffect.realtime.cue import FACE, VOICE, Cue, Lifetime
from liveaffect.realtime.drawing.canvas import FULL, Colour, Health, Mark, Sprite, View, label_colour, paste
from liveaffect.realtime.drawing.panels import (
    Measures,
    PanelText,
    ReadingLine,
    caption_panel,
    face_panel,
    face_sizes,
    readings_panel,
)
from liveaffect.realtime.drawing.placer import (
    PanelPlace,
    PanelPlacer,
    Rect,
    WantedPanel,
    clearance,
    face_room,
)
from liveaffect.realtime.drawing.signs import (
    corner,
    disclosure_panels,
    health_panel,
    line_panel,
    meter,
    meter_steps,
    notice_panel,
    rim_px,
    timeline,
)

__all__ = ["Health", "Mark", "OverlayLayout", "PanelPlace", "View", "draw", "lay_out", "paint"]

_FADE_STEPS = 8
NEUTRAL = LABELS[0]
_UNKNOWN: Colour = (196, 202, 210)
"""Of a face about which nothing is known."""


@dataclass(frozen=True, slots=True, eq=False)
class PlacedSprite:
    """One sprite and where it goes."""

    what: str
    """'panel', 'readings', 'meter', 'health', 'notices', 'disclosure', 'timeline', 'nobody', 'caption'."""
    rect: Rect
    sprite: Sprite


@dataclass(frozen=True, slots=True, eq=False)
class FaceBox:
    """One box around a face."""

    box: Rect
    colour: Colour


@dataclass(frozen=True, slots=True, eq=False)
class OverlayLayout:
    """What stands where in one picture."""

    measures: Measures
    boxes: tuple[FaceBox, ...]
    sprites: tuple[PlacedSprite, ...]
    places: tuple[PanelPlace, ...]
    """Hand them to the next `lay_out` and panels stay on their side of the face."""


def draw(view: View) -> NDArray[np.uint8]:
    """The picture with everything on it, as a new array of the frame's size."""
    return paint(view, lay_out(view))


def paint(view: View, layout: OverlayLayout) -> NDArray[np.uint8]:
    """A copy of the frame, mirrored if asked for, with the layout drawn on it."""
    picture = _copy(view)
    for face in layout.boxes:
        _draw_box(picture, face, layout.measures)
    for placed in layout.sprites:
        paste(picture, placed.sprite, placed.rect[0], placed.rect[1])
    return picture


def lay_out(view: View, before: tuple[PanelPlace, ...] = (), *, text_scale: float = 1.0) -> OverlayLayout:
    """Decide what stands where.

    `before` are the places of the picture before, `text_scale` is that of `Measures`.
    """
    m = Measures.of(*view.frame.size, text_scale)
    boxes = {mark.track: _box(mark, view) for mark in view.marks}
    room = PanelPlacer(view.frame.size, m.gap, [face_room(_box(mark, view)) for mark in view.marks])
    sprites = [*_notices(view, room, m), *_disclosure(view, room, m)]
    sprites += [*_health(view, room, m), *_meter(view, boxes, room, m)]
    texts = {mark.track: text for mark in view.marks if (text := _panel_text(mark)) is not None}
    readings = {mark.track: _readings(mark) for mark in view.marks}
    wanted = [
        WantedPanel(track, boxes[track], face_sizes(text, len(readings[track]), m))
        for track, text in texts.items()
    ]
    placed = room.place(wanted, before)
    for place, rect in placed:
        panel = face_panel(texts[place.track], place.form, m)
        sprites.append(PlacedSprite("panel", (rect[0], rect[1], *panel.size), panel))
        if place.form == "full" and readings[place.track]:
            below = readings_panel(readings[place.track], m)
            under = (rect[0], rect[1] + rect[3] - below.size[1], *below.size)
            sprites.append(PlacedSprite("readings", under, below))
    sprites.extend(_captions(view, boxes, room, m))
    sprites.extend(_timeline(view, room, m))
    faces = tuple(
        FaceBox(boxes[mark.track], _box_colour(texts.get(mark.track)))
        for mark in sorted(view.marks, key=lambda mark: mark.box[2] * mark.box[3])
    )
    return OverlayLayout(m, faces, tuple(sprites), tuple(place for place, _ in placed))


def opacity(age_ms: int | None, lifetime: Lifetime) -> int:
    """How strongly a reading of this age is shown, 0 to FULL in a few steps; without an age not at all."""
    share = lifetime.share(None if age_ms is None else age_ms * MS)
    return FULL * math.ceil(_FADE_STEPS * share) // _FADE_STEPS


def _copy(view: View) -> NDArray[np.uint8]:
    if not view.mirrored:
        return view.frame.image.copy()
    import cv2  # ten times faster than NumPy at turning RGB round, and loaded by the face search anyway

    return np.asarray(cv2.flip(view.frame.image, 1), np.uint8)


def _box(mark: Mark, view: View) -> Rect:
    x, y, w, h = (round(v) for v in mark.box)
    return (view.frame.size[0] - x - w if view.mirrored else x), y, w, h


def _opacities(mark: Mark) -> tuple[int, int]:
    return opacity(mark.face_age_ms, FACE), opacity(mark.voice_age_ms, VOICE)


def _panel_text(mark: Mark) -> PanelText | None:
    """What the panel of a face says, or None when there is nothing to say any more."""
    if mark.cue is None:
        return None
    never = mark.face_age_ms is None and mark.voice_age_ms is None
    shown = FULL if never else max(_opacities(mark))
    return _text_of(mark.cue, shown) if shown else None


def _text_of(cue: Cue, shown: int = FULL) -> PanelText:
    # Whole percents: finer steps nobody can see, and every change is a panel drawn anew.
    shares = tuple(10 * round(100 * p) for p in cue.fused)
    way = None if cue.strength is None or cue.label == NEUTRAL else round(10 * cue.strength)
    return PanelText(cue.label, round(100 * cue.confidence), shares, cue.reason or "", shown, way)


def _readings(mark: Mark) -> tuple[ReadingLine, ...]:
    if mark.cue is None:
        return ()
    ages = (mark.face_age_ms, mark.voice_age_ms)
    out = []
    for name, weight, age, strong in zip(
        ("face", "voice"), mark.cue.weights[:2], ages, _opacities(mark), strict=True
    ):
        alive = age is not None and strong > 0
        shown = _tens(age) if alive and age is not None else None
        out.append(ReadingLine(name, round(100 * weight) if alive else 0, shown, strong or FULL))
    if mark.cue.words is not None:
        out.append(ReadingLine("words", round(100 * mark.cue.weights[2]), None))
    return tuple(out)


def _tens(age_ms: int) -> int:
    """To the nearest 10 ms: the last digit changes with every picture and cannot be read."""
    return (age_ms + 5) // 10 * 10


def _box_colour(text: PanelText | None) -> Colour:
    if text is None:
        return _UNKNOWN
    colour, rest = label_colour(text.label), FULL - text.opacity
    mixed = [(c * text.opacity + u * rest) >> 8 for c, u in zip(colour, _UNKNOWN, strict=True)]
    return mixed[0], mixed[1], mixed[2]


def _notices(view: View, room: PanelPlacer, m: Measures) -> list[PlacedSprite]:
    """At the top, else at another edge, broken into shorter lines if need be.

    Only where faces leave no room for all of it, it stands at the edge where it hides least of one: a frozen
    picture must say that it is frozen.
    """
    notices = tuple(notice for notice in view.notices if notice.strip())
    if not notices:
        return []
    for share in (1, 2, 3, 4, 6):
        sprite, all_of_it = notice_panel(notices, room.size[0] // share - 2 * m.gap, m)
        spots = room.corners(sprite.size, ("tc", "bc", "tl", "tr", "bl", "br", "ml", "mr"))
        if all_of_it and (rect := room.first_free(spots)) is not None:
            return [PlacedSprite("notices", rect, sprite)]
    sprite, _ = notice_panel(notices, room.size[0] - 2 * m.gap, m)
    spots = room.corners(sprite.size, ("tc", "bc"))
    return [PlacedSprite("notices", room.take(min(spots, key=lambda r: _hidden(r, room))), sprite)]


def _disclosure(view: View, room: PanelPlacer, m: Measures) -> list[PlacedSprite]:
    """In a corner, or where it hides least of the faces: it is never left out."""
    if not view.disclosure:
        return []
    order = ("br", "bl", "tr", "tl", "bc", "tc", "mr", "ml")
    panels = disclosure_panels(room.size[0] - 2 * m.gap, m)
    for sprite in panels:
        if (rect := room.first_free(room.corners(sprite.size, order))) is not None:
            return [PlacedSprite("disclosure", rect, sprite)]
    spots = [(rect, sprite) for sprite in panels for rect in room.corners(sprite.size, order)]
    rect, sprite = min(spots, key=lambda spot: _hidden(spot[0], room))
    return [PlacedSprite("disclosure", room.take(rect), sprite)]


def _hidden(rect: Rect, room: PanelPlacer) -> int:
    """Pixels of what is taken that the rectangle would hide."""
    x, y, w, h = rect
    return sum(
        max(0, min(x + w, tx + tw) - max(x, tx)) * max(0, min(y + h, ty + th) - max(y, ty))
        for tx, ty, tw, th in room.taken
    )


def _health(view: View, room: PanelPlacer, m: Measures) -> list[PlacedSprite]:
    """At the bottom, in the longest form for which there is room."""
    beside = disclosure_panels(room.size[0], m)[0].size[0] + m.gap if view.disclosure else 0
    for share in (1, 2, 3, 4):
        wide = min(room.size[0] // share, max(room.size[0] - beside, room.size[0] // 3))
        sprite = health_panel(view.health, wide - 2 * m.gap, m)
        rect = room.first_free(room.corners(sprite.size, ("bl", "br", "tl", "tr")))
        if rect is not None:
            return [PlacedSprite("health", rect, sprite)]
    return []


def _meter(view: View, boxes: dict[int, Rect], room: PanelPlacer, m: Measures) -> list[PlacedSprite]:
    """At the speaker if one speaks in view, else at the edge beside what is known about the voice."""
    steps = meter_steps(view.voice_level)
    speakers = [mark.track for mark in view.marks if mark.cue and mark.cue.speaking and _opacities(mark)[1]]
    for track in sorted(speakers, key=lambda t: -boxes[t][2] * boxes[t][3]):
        x, y, w, h = boxes[track]
        wide = max(8 * m.cap, min(w, 16 * m.cap))
        sprite = meter(steps, wide, m)
        left, high = x + (w - wide) // 2, sprite.size[1]
        top = face_room(boxes[track])[1]
        under = clearance(boxes[track], m.gap)[1]
        spots = [(left, y + h + under, wide, high), (left, top - m.gap - high, wide, high)]
        if (rect := room.first_free(spots)) is not None:
            return [PlacedSprite("meter", rect, sprite)]
    nobody = view.nobody if view.nobody is not None and view.nobody.voice is not None else None
    if speakers or (nobody is None and not steps):
        return []
    sprite = meter(steps, 12 * m.cap, m)
    rect = room.first_free(_above_health(room, sprite.size, m))
    if rect is None:
        return []
    pieces = [PlacedSprite("meter", rect, sprite)]
    if nobody is not None:
        words = _text_of(nobody)
        text = f"nobody in view: {words.label} {words.percent}%"
        note = line_panel(text, label_colour(words.label), m)
        beside = (rect[0] + rect[2] + m.gap, rect[1], *note.size)
        above = (rect[0], rect[1] - m.gap - note.size[1], *note.size)
        if (place := room.first_free([beside, above])) is not None:
            pieces.append(PlacedSprite("nobody", place, note))
    return pieces


def _captions(view: View, boxes: dict[int, Rect], room: PanelPlacer, m: Measures) -> list[PlacedSprite]:
    """Under the face of whoever said it or over it, beyond the meter if that is there, else at the edge."""
    found, beyond = [], meter(0, 8 * m.cap, m).size[1] + m.gap
    for caption in view.captions:
        box = boxes.get(caption.track) if caption.track is not None else None
        for share in (2, 3, 1):
            sprite = caption_panel(caption.text, caption.guess, room.size[0] // share - 2 * m.gap, m)
            wide, high = sprite.size
            spots = room.corners(sprite.size, ("bc", "tc", "bl", "br"))
            spots.insert(1, (spots[0][0], spots[0][1] - high - m.gap, wide, high))
            if box is not None:
                left = min(max(m.gap, box[0] + (box[2] - wide) // 2), room.size[0] - wide - m.gap)
                under = box[1] + box[3] + clearance(box, m.gap)[1]
                over = face_room(box)[1] - m.gap - high
                low = room.size[1] - high - m.gap
                levels = (under, low, over, under + beyond, over - beyond)
                spots = [*((left, level, wide, high) for level in levels), *spots]
            if (rect := room.first_free(spots)) is not None:
                found.append(PlacedSprite("caption", rect, sprite))
                break
    return found


def _above_health(room: PanelPlacer, size: tuple[int, int], m: Measures) -> list[Rect]:
    """Corners, and the places just above whatever stands in the lower ones."""
    corners = room.corners(size, ("bl", "br", "tl", "tr"))
    raised = [(x, y - size[1] - m.gap, w, h) for x, y, w, h in corners[:2]]
    return [raised[0], corners[0], raised[1], *corners[1:]]


def _timeline(view: View, room: PanelPlacer, m: Measures) -> list[PlacedSprite]:
    if not view.history:
        return []
    sprite = timeline(view.history, min(room.size[0] // 3, 22 * m.cap), m)
    corners = room.corners(sprite.size, ("br", "tr", "bl", "tl"))
    raised = [(x, y - m.line - 2 * m.gap, w, h) for x, y, w, h in corners[::2]]
    rect = room.first_free([corners[0], raised[0], corners[1], corners[2], raised[1], corners[3]])
    return [] if rect is None else [PlacedSprite("timeline", rect, sprite)]


def _draw_box(picture: NDArray[np.uint8], face: FaceBox, m: Measures) -> None:
    """Corner accents, joined by a thin line that lets the picture through."""
    x, y, w, h = face.box
    if w < 2 or h < 2:
        return
    pen = 2 * m.thin
    arm = max(3, min(w, h) // 5)
    arm -= arm % max(1, m.thin * 2)
    for row, column in ((y, None), (y + h - m.thin, None), (None, x), (None, x + w - m.thin)):
        rows = slice(max(0, y if row is None else row), max(0, y + h if row is None else row + m.thin))
        columns = slice(
            max(0, x if column is None else column), max(0, x + w if column is None else column + m.thin)
        )
        part = picture[rows, columns]
        part[...] = (part >> 1) + np.array([c >> 1 for c in face.colour], np.uint8)
    rim = rim_px(pen)
    for turn in range(4):
        sprite = corner(arm, pen, face.colour, turn)
        size = sprite.size[0]
        left = x - rim if turn in (0, 3) else x + w + rim - size
        top = y - rim if turn in (0, 1) else y + h + rim - size
        paste(picture, sprite, left, top)
