"""Draws lines over a logarithmic grid and writes them as a PNG, with NumPy and zlib alone.

The machine with the GPU may have no drawing package, and a chart is worth one small file. Letters are five
rows of three pixels, drawn three times as large.
"""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Picture = NDArray[np.uint8]
Points = Sequence[tuple[float, float]]
SIZE = (640, 960)
"""Rows and columns of one panel."""
INK, GRID, PAPER = (30, 30, 30), (222, 222, 222), (255, 255, 255)
COLOURS = ((31, 97, 168), (200, 80, 20), (30, 130, 60), (130, 60, 150), (150, 110, 20), (20, 140, 150))
_LEFT, _TOP, _RIGHT, _BOTTOM = 110, 75, 300, 60
_GLYPHS = {
    " ": "000000000000000",
    "-": "000000111000000",
    ".": "000000000000010",
    ",": "000000000010100",
    ":": "000010000010000",
    "/": "001001010100100",
    "+": "000010111010000",
    "(": "010100100100010",
    ")": "010001001001010",
    "%": "101001010100101",
    "0": "111101101101111",
    "1": "010110010010111",
    "2": "111001111100111",
    "3": "111001111001111",
    "4": "101101111001001",
    "5": "111100111001111",
    "6": "111100111101111",
    "7": "111001001010010",
    "8": "111101111101111",
    "9": "111101111001111",
    "a": "010101111101101",
    "b": "110101110101110",
    "c": "011100100100011",
    "d": "110101101101110",
    "e": "111100110100111",
    "f": "111100110100100",
    "g": "011100101101011",
    "h": "101101111101101",
    "i": "111010010010111",
    "j": "001001001101010",
    "k": "101101110101101",
    "l": "100100100100111",
    "m": "101111111101101",
    "n": "110101101101101",
    "o": "010101101101010",
    "p": "110101110100100",
    "q": "010101101011001",
    "r": "110101110101101",
    "s": "011100010001110",
    "t": "111010010010010",
    "u": "101101101101111",
    "v": "101101101101010",
    "w": "101101111111101",
    "x": "101101010101101",
    "y": "101101010010010",
    "z": "111001010100111",
}


@dataclass(frozen=True, slots=True)
class Panel:
    """One diagram: a title, what the axes show, and named lines of positive numbers."""

    title: str
    across: str
    up: str
    lines: Mapping[str, Points]


def draw(panels: Sequence[Panel]) -> Picture:
    """All panels, one under the other. A panel without a single point says so."""
    return np.concatenate([_panel(panel) for panel in panels])


def png(picture: Picture) -> bytes:
    """The picture, (rows, columns, 3) RGB, as the bytes of a PNG file."""
    rows, columns, _ = picture.shape
    header = struct.pack(">IIBBBBB", columns, rows, 8, 2, 0, 0, 0)
    lines = np.concatenate([np.zeros((rows, 1), np.uint8), picture.reshape(rows, -1)], axis=1)
    packed = zlib.compress(lines.tobytes(), 9)
    parts = ((b"IHDR", header), (b"IDAT", packed), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(name, content) for name, content in parts)


def _chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def _panel(panel: Panel) -> Picture:
    out = np.full((*SIZE, 3), PAPER, np.uint8)
    text(out, panel.title, 20, _LEFT, 3)
    points = [point for line in panel.lines.values() for point in line]
    if not points:
        text(out, "nothing was measured", SIZE[0] // 2, _LEFT, 3)
        return out
    xs, ys = (sorted({point[axis] for point in points}) for axis in (0, 1))
    across = _Axis(xs[0], xs[-1], _LEFT, SIZE[1] - _RIGHT)
    up = _Axis(ys[0], ys[-1], SIZE[0] - _BOTTOM, _TOP)
    for value in up.ticks():
        row = up.place(value)
        out[row, _LEFT : SIZE[1] - _RIGHT] = GRID
        text(out, f"{value:g}", row - 7, 10, 3)
    for value in xs:
        column = across.place(value)
        out[_TOP : SIZE[0] - _BOTTOM, column] = GRID
        text(out, f"{value:g}", SIZE[0] - _BOTTOM + 10, column - 10, 3)
    text(out, panel.across, SIZE[0] - 25, _LEFT, 3)
    text(out, panel.up, 42, 10, 3)
    for number, (name, line) in enumerate(panel.lines.items()):
        colour = COLOURS[number % len(COLOURS)]
        places = [(up.place(y), across.place(x)) for x, y in sorted(line)]
        for start, end in zip(places, places[1:] or places, strict=False):
            _stroke(out, start, end, colour)
        text(out, name, _TOP + 22 * number, SIZE[1] - _RIGHT + 20, 2, colour)
    return out


@dataclass(frozen=True, slots=True)
class _Axis:
    """From numbers to pixels, by logarithm."""

    low: float
    high: float
    start: int
    end: int

    def place(self, value: float) -> int:
        span = math.log(self.high / self.low) if self.high > self.low else 1.0
        return round(self.start + (self.end - self.start) * math.log(value / self.low) / span)

    def ticks(self) -> list[float]:
        """1, 2 and 5 of every power of ten inside; the ends where there are none."""
        first, last = math.floor(math.log10(self.low)), math.ceil(math.log10(self.high))
        steps = [lead * 10.0**power for power in range(first, last + 1) for lead in (1, 2, 5)]
        inside = [step for step in steps if self.low <= step <= self.high]
        return inside or [self.low, self.high]


def _stroke(out: Picture, start: tuple[int, int], end: tuple[int, int], colour: tuple[int, int, int]) -> None:
    count = max(abs(end[0] - start[0]), abs(end[1] - start[1]), 1) + 1
    rows = np.linspace(start[0], end[0], count).round().astype(int)
    columns = np.linspace(start[1], end[1], count).round().astype(int)
    for down in (-1, 0, 1):
        for right in (-1, 0, 1):
            out[rows + down, columns + right] = colour
    for row, column in (start, end):
        out[row - 4 : row + 5, column - 4 : column + 5] = colour


def text(
    out: Picture, words: str, row: int, column: int, scale: int, colour: tuple[int, int, int] = INK
) -> None:
    """Write words in small letters; what runs off the picture is cut."""
    for letter in words.lower():
        bits = np.array([bit == "1" for bit in _GLYPHS.get(letter, _GLYPHS["-"])]).reshape(5, 3)
        shape = bits.repeat(scale, 0).repeat(scale, 1)
        part = out[row : row + shape.shape[0], column : column + shape.shape[1]]
        part[shape[: part.shape[0], : part.shape[1]]] = colour
        column += 4 * scale
