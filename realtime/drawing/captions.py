"""What somebody said, in two lines: what is believed plain, what may still change pale.

The newest words are always there; what does not fit is left out at the beginning. A line in a script that
runs from right to left is drawn as a whole, because its words stand in another order than they were said.
"""

from __future__ import annotations

import unicodedata
from functools import lru_cache

from liveaffect.realtime.drawing.canvas import INK, QUIET, Canvas, Sprite
from liveaffect.realtime.drawing.panels import Measures
from liveaffect.realtime.drawing.text import text_width_px

LINES = 2
Piece = tuple[str, bool]
"""One word, and whether it is believed."""


@lru_cache(maxsize=32)
def caption_panel(text: str, guess: str, width_px: int, m: Measures) -> Sprite:
    """At most LINES lines of at most so many pixels."""
    pieces = [
        *((word, True) for word in _caption_words(text)),
        *((word, False) for word in _caption_words(guess)),
    ]
    lines = last_lines(pieces, width_px - 2 * m.pad, m)
    wide = max((text_width_px(_line_text(line), m.cap) for line in lines), default=1)
    canvas = Canvas(wide + 2 * m.pad, 2 * m.gap + m.cap + max(len(lines) - 1, 0) * m.line)
    canvas.plate(m.radius)
    for at, line in enumerate(lines):
        y = m.gap + m.cap + at * m.line
        sure = "".join(word for word, believed in line if believed)
        if _from_right_to_left(sure) or not sure:
            canvas.text((m.pad, y), _line_text(line), m.cap, INK if sure else QUIET)
            continue
        plain = _line_text([piece for piece in line if piece[1]])
        canvas.text((m.pad, y), plain, m.cap, INK)
        if len(plain) < len(_line_text(line)):
            rest = _line_text(line)[len(plain) :]
            canvas.text((m.pad + text_width_px(plain, m.cap), y), rest, m.cap, QUIET)
    return canvas.sprite()


def last_lines(pieces: list[Piece], width_px: int, m: Measures) -> list[list[Piece]]:
    """The words broken into lines from the first on; the last LINES of them."""
    lines: list[list[Piece]] = []
    for piece in pieces:
        if lines and text_width_px(_line_text([*lines[-1], piece]), m.cap) <= width_px:
            lines[-1].append(piece)
        else:
            lines.append([piece])
    return lines[-LINES:]


def _caption_words(text: str) -> list[str]:
    """Words, or single characters of scripts that have no spaces."""
    found: list[str] = []
    for word in text.split():
        if any(0x3000 <= ord(char) <= 0xD7A3 for char in word):
            found += ["\u2060" + char if at else char for at, char in enumerate(word)]
        else:
            found.append(word)
    return found


def _line_text(line: list[Piece]) -> str:
    return " ".join(word for word, _ in line).replace(" \u2060", "").replace("\u2060", "")


def _from_right_to_left(text: str) -> bool:
    return any(unicodedata.bidirectional(char) in ("R", "AL") for char in text)
