"""What the overlay is given, and the one thing that is ever put on a picture: a sprite, blended once.

Everything is already decided when a `View` is made: boxes stand where the faces are in this picture, ages
are those at the moment of drawing. Drawing is therefore a function of the view alone.

A panel is painted on a small canvas of its own and then blended into the picture in whole-number arithmetic.
Canvases whose content did not change are kept, so drawing at camera rate costs little more than the blend.
Only sums, products, quotients and square roots are used, so pictures are the same to the last bit everywhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from liveaffect.realtime.cue import NOT_SURE, Caption, Cue
from liveaffect.realtime.drawing.text import Coverage, text_ink
from liveaffect.realtime.frame import Box, VideoFrame

Colour = tuple[int, int, int]
Segment = tuple[float, float, float, float]
"""x, y of both ends, y counted downwards."""
FULL = 256
"""Coverage and opacity are counted in 256ths, so that a blend is a product and a shift."""

INK: Colour = (244, 246, 248)
QUIET: Colour = (178, 185, 193)
PANEL: Colour = (13, 16, 21)
PANEL_COVER = 216
"""How much of the picture a panel hides, of 256: text stays legible on pure white."""
TRACK: Colour = (70, 76, 84)
GOOD: Colour = (64, 205, 160)
WARN: Colour = (255, 176, 46)
LABEL_COLOURS: dict[str, Colour] = {
    "neutral": (200, 206, 213),
    "happy": (246, 224, 66),
    "sad": (70, 152, 240),
    "angry": (240, 92, 48),
    "fearful": (214, 128, 190),
    "disgusted": (32, 178, 132),
    "surprised": (140, 214, 250),
    NOT_SURE: (150, 157, 165),
}
"""After the palette of Okabe and Ito, lightened for dark panels; distinct with any kind of colour vision."""


@dataclass(frozen=True, slots=True, eq=False)
class Sprite:
    """A small picture with coverage, ready to be blended. Immutable and shared."""

    light: NDArray[np.uint16]
    """(height, width, 3): colour times coverage."""
    keep: NDArray[np.uint16]
    """(height, width, 3): how much of what is below stays, of 256."""

    @property
    def size(self) -> tuple[int, int]:
        """Width and height."""
        return self.light.shape[1], self.light.shape[0]


class Canvas:
    """A sprite in the making. Later paint covers earlier paint."""

    def __init__(self, width: int, height: int) -> None:
        self._light = np.zeros((height, width, 3), np.uint16)
        self._keep = np.full((height, width, 3), FULL, np.uint16)

    @classmethod
    def of(cls, sprite: Sprite) -> Canvas:
        """A canvas that starts as a copy of a finished sprite."""
        out = cls.__new__(cls)
        out._light, out._keep = sprite.light.copy(), sprite.keep.copy()
        return out

    @property
    def size(self) -> tuple[int, int]:
        """Width and height."""
        return self._light.shape[1], self._light.shape[0]

    def fill(self, x: int, y: int, width: int, height: int, colour: Colour) -> None:
        """An opaque rectangle; empty or outside is allowed."""
        rows, columns = slice(max(y, 0), max(y + height, 0)), slice(max(x, 0), max(x + width, 0))
        self._light[rows, columns] = np.array(colour, np.uint16) * FULL
        self._keep[rows, columns] = 0

    def stamp(self, x: int, y: int, mask: Coverage, colour: Colour, opacity: int = FULL) -> None:
        """Paint through a mask; what lies outside the canvas is left out."""
        height, width = self._light.shape[:2]
        left, top = max(-x, 0), max(-y, 0)
        mask = mask[top : height - y if height > y else 0, left : width - x if width > x else 0]
        if not mask.size:
            return
        area = np.s_[y + top : y + top + mask.shape[0], x + left : x + left + mask.shape[1]]
        # Spread over the three colours first: NumPy is slow where its innermost axis is that short.
        cover = np.repeat(mask, 3, axis=1).reshape(*mask.shape, 3)
        if opacity != FULL:
            cover = (cover.astype(np.uint32) * opacity >> 8).astype(np.uint16)
        stays = np.subtract(FULL, cover, dtype=np.uint32)
        ink = np.tile(np.array(colour, np.uint16), mask.shape[1]).reshape(mask.shape[1], 3)
        self._light[area] = (self._light[area] * stays >> 8).astype(np.uint16) + cover * ink
        self._keep[area] = (self._keep[area] * stays >> 8).astype(np.uint16)

    def columns(
        self, x: int, bottom: int, heights: NDArray[np.integer], colours: NDArray[np.integer]
    ) -> None:
        """Opaque columns one pixel wide that stand side by side on the row above `bottom`."""
        tall = int(heights.max(initial=0))
        rows = np.arange(tall, 0, -1)[:, None]
        lit = rows <= heights[None, :]
        area = np.s_[bottom - tall : bottom, x : x + len(heights)]
        self._light[area][lit] = np.broadcast_to(colours.astype(np.uint16) * FULL, (tall, *colours.shape))[
            lit
        ]
        self._keep[area][lit] = 0

    def lay(self, sprite: Sprite, x: int, y: int) -> None:
        """Another sprite on top; what lies outside the canvas is left out."""
        width, height = self.size
        left, top = max(-x, 0), max(-y, 0)
        part = np.s_[top : max(height - y, 0), left : max(width - x, 0)]
        light, keep = sprite.light[part], sprite.keep[part]
        area = np.s_[y + top : y + top + light.shape[0], x + left : x + left + light.shape[1]]
        stays = keep.astype(np.uint32)
        self._light[area] = (self._light[area] * stays >> 8).astype(np.uint16) + light
        self._keep[area] = (self._keep[area] * stays >> 8).astype(np.uint16)

    def plate(self, radius: int, colour: Colour = PANEL, cover: int = PANEL_COVER) -> None:
        """The translucent ground of a panel with rounded corners, over the whole canvas."""
        height, width = self._light.shape[:2]
        self.stamp(0, 0, rounded(width, height, radius), colour, cover)

    def text(
        self, at: tuple[int, int], text: str, cap_px: int, colour: Colour = INK, *, bold: bool = False
    ) -> None:
        """One line whose capitals stand on the row above `at[1]` and begin at column `at[0]`."""
        mask, above = text_ink(text, cap_px, bold=bold)
        self.stamp(at[0], at[1] - above, mask, colour)

    def sprite(self, opacity: int = FULL) -> Sprite:
        """The finished sprite, `opacity` 256ths of it."""
        light, keep = self._light, self._keep
        if opacity != FULL:
            light = (light.astype(np.uint32) * opacity >> 8).astype(np.uint16)
            keep = (FULL - ((FULL - keep).astype(np.uint32) * opacity >> 8)).astype(np.uint16)
        light.setflags(write=False)
        keep.setflags(write=False)
        return Sprite(light, keep)


@lru_cache(maxsize=128)
def rounded(width: int, height: int, radius: int) -> Coverage:
    """Coverage of a rectangle with round corners. Read-only."""
    radius = min(radius, width // 2, height // 2)
    out = np.full((height, width), FULL, np.uint16)
    if radius > 0:
        away = radius - (np.arange(radius) + 0.5)
        reach = np.sqrt(away[:, None] * away[:, None] + away[None, :] * away[None, :])
        corner = (np.clip(radius + 0.5 - reach, 0.0, 1.0) * FULL + 0.5).astype(np.uint16)
        out[:radius, :radius] = corner
        out[:radius, -radius:] = corner[:, ::-1]
        out[-radius:, :radius] = corner[::-1]
        out[-radius:, -radius:] = corner[::-1, ::-1]
    out.setflags(write=False)
    return out


def pen_stroke(segments: Sequence[Segment], pen_px: float, shape: tuple[int, int]) -> Coverage:
    """Coverage of a round pen drawn along straight pieces, each pixel by its distance to the nearest one."""
    x0, y0, x1, y1 = (np.array(column)[:, None, None] for column in zip(*segments, strict=True))
    xs = np.arange(shape[1])[None, None, :] + 0.5
    ys = np.arange(shape[0])[None, :, None] + 0.5
    dx, dy = x1 - x0, y1 - y0
    length2 = dx * dx + dy * dy
    along = (xs - x0) * dx + (ys - y0) * dy
    t = np.clip(along / np.where(length2 > 0, length2, 1.0), 0.0, 1.0)
    off_x, off_y = xs - (x0 + t * dx), ys - (y0 + t * dy)
    nearest = np.sqrt((off_x * off_x + off_y * off_y).min(axis=0))
    cover: Coverage = (np.clip(pen_px / 2 + 0.5 - nearest, 0.0, 1.0) * FULL + 0.5).astype(np.uint16)
    return cover


def paste(picture: NDArray[np.uint8], sprite: Sprite, x: int, y: int) -> None:
    """Blend a sprite into a picture, in place; what lies outside is left out."""
    height, width = picture.shape[:2]
    left, top = max(-x, 0), max(-y, 0)
    right, bottom = min(sprite.size[0], width - x), min(sprite.size[1], height - y)
    if right <= left or bottom <= top:
        return
    part = picture[y + top : y + bottom, x + left : x + right]
    mixed = np.multiply(part, sprite.keep[top:bottom, left:right], dtype=np.uint16)
    mixed += sprite.light[top:bottom, left:right]
    mixed >>= 8
    part[...] = mixed


def label_colour(label: str) -> Colour:
    """The colour of a label; anything unknown looks like 'not sure'."""
    return LABEL_COLOURS.get(label, LABEL_COLOURS[NOT_SURE])


@dataclass(frozen=True, slots=True)
class Mark:
    """One face to draw."""

    track: int
    box: Box
    """Already moved to the time of the picture; unmirrored source pixels."""
    cue: Cue | None = None
    """The newest cue of this track; None before the first."""
    face_age_ms: int | None = None
    """How old the face evidence is at the moment of drawing; None without any."""
    voice_age_ms: int | None = None


@dataclass(frozen=True, slots=True)
class Health:
    """How the path is doing, in one line."""

    fps: float
    """Pictures drawn a second."""
    age_ms: float | None
    """From light on the sensor to this picture; None before the first measurement."""
    dropped: int
    """Pictures lost, whatever the cause."""
    skipped: int
    """Grid points left out because the machine was late."""
    engine: str
    mode: str
    """'locked': result N on picture N. 'late': the newest result, its box moved on."""


@dataclass(frozen=True, slots=True, eq=False)
class View:
    """Everything that one drawn picture shows."""

    frame: VideoFrame
    marks: tuple[Mark, ...]
    health: Health
    nobody: Cue | None = None
    """The newest cue of a voice that belongs to nobody in view."""
    voice_level: float = 0.0
    """0..1 for the meter, which stands at the speaker if one speaks, else at the edge."""
    history: tuple[tuple[int, str, float], ...] = ()
    """(t_ns, label, confidence) of the largest face, newest last, for the small timeline."""
    notices: tuple[str, ...] = ()
    """What the person must know now, such as 'camera:0 lost; trying again'."""
    captions: tuple[Caption, ...] = ()
    """What was said lately, at the face of whoever said it."""
    disclosure: bool = False
    """Say on the picture that emotions are being analysed: it is seen by others."""
    mirrored: bool = False
    """Mirror the picture; text and meters stay as they are."""
