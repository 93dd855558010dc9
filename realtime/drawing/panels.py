"""The panels at a face: the emotion with its bars, the readings behind it, short forms, and captions.

Every function returns a finished sprite and is remembered by what it shows, because cues come ten times a
second and pictures thirty times. Sizes depend on the picture alone, never on the numbers shown. Of captions
the newest words are always there; where a script runs from right to left the guess stands at the left of
what is believed.
"""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass
from functools import lru_cache

from liveaffect.engines.recipe import LABELS
from liveaffect.realtime.cue import NOT_SURE
from liveaffect.realtime.drawing.canvas import FULL, INK, QUIET, TRACK, WARN, Canvas, Sprite, label_colour
from liveaffect.realtime.drawing.text import fit_text, text_width_px, wrap_text

SHORT_NAMES = ("neutral", "happy", "sad", "angry", "fear", "disgust", "surprise")
_SHORT: dict[str, str] = dict(zip(LABELS, SHORT_NAMES, strict=True))
THREE_LETTERS = tuple(label[:3] for label in LABELS)
WIDEST_SHARE = "100%"
READABLE_CAP_PX = 7
"""Capitals lower than this cannot be read."""
NO_AGE = "\u2013"


@dataclass(frozen=True, slots=True)
class Measures:
    """Every length of the overlay, from the size of the picture."""

    cap: int
    """Height of capitals in running text."""
    head: int
    """Height of capitals in headings."""
    pad: int
    """From the edge of a panel to what is in it."""
    gap: int
    """Between things."""
    line: int
    """From one line of text to the next."""
    radius: int
    thin: int
    """Width of the finest line."""

    @classmethod
    def of(cls, width: int, height: int, text_scale: float = 1.0) -> Measures:
        """Grow with the picture, a little slower above 640x480; never below what can be read.

        `text_scale` is how many pixels of the picture one readable pixel takes where it is shown smaller
        than it is.
        """
        scale = min(width / 640, height / 480)
        if scale > 1:
            scale = 0.25 + 0.75 * scale
        scale = max(scale, READABLE_CAP_PX / 8 * text_scale)
        cap = int(8 * scale + 0.5)
        return cls(
            cap=cap,
            head=max(8, int(11 * scale + 0.5)),
            pad=max(4, int(8 * scale + 0.5)),
            gap=max(3, int(6 * scale + 0.5)),
            line=cap + max(4, int(6 * scale + 0.5)),
            radius=max(3, int(6 * scale + 0.5)),
            thin=max(1, int(scale + 0.5)),
        )

    @property
    def bar(self) -> int:
        """Longest bar of the full form."""
        return 8 * self.cap

    def names(self, names: tuple[str, ...]) -> int:
        """Width of the column of names."""
        return max(text_width_px(name, self.cap) for name in names)


@dataclass(frozen=True, slots=True)
class PanelText:
    """What a panel says, in the steps in which it can be seen."""

    label: str
    percent: int
    """Confidence."""
    shares: tuple[int, ...]
    """Seven probabilities in thousandths."""
    reason: str
    opacity: int = FULL
    """Below FULL while the readings fade because they are old."""
    way: int | None = None
    """How far the face has come from rest to all of the label, in tenths; None where nobody knows."""


@dataclass(frozen=True, slots=True)
class ReadingLine:
    """One line about the readings behind an emotion."""

    name: str
    weight: int
    """Share in the fused answer, percent."""
    age_ms: int | None
    opacity: int = FULL


@lru_cache(maxsize=24)
def face_panel(text: PanelText, form: str, m: Measures) -> Sprite:
    """The panel in one of its forms: 'full', 'bars', 'slim', 'label', 'name'."""
    if form in ("label", "name"):
        return _chip(text, m, short=form == "name")
    names = SHORT_NAMES if form == "full" else THREE_LETTERS
    canvas = Canvas.of(_ground(form, len(_reason_lines(text, form, m)), m))
    width = canvas.size[0]
    y = _draw_head(canvas, text, form, m)
    left = _edge(form, m) + m.names(names) + m.gap
    best = max(text.shares)
    for label, share in zip(LABELS, text.shares, strict=True):
        length = (share * _bar(form, m) + 500) // 1000
        canvas.fill(left, y - m.cap, length, m.cap, label_colour(label))
        if form == "full":
            shown = str((share + 5) // 10)
            at = width - m.pad - text_width_px(shown, m.cap)
            canvas.text((at, y), shown, m.cap, INK if share == best else QUIET)
        y += m.line
    return canvas.sprite(text.opacity)


def _draw_head(canvas: Canvas, text: PanelText, form: str, m: Measures) -> int:
    """Label, confidence and reason at the top of a panel; answers the baseline of the first bar."""
    cap = _head(form, m)
    y = m.pad + cap
    colour = label_colour(text.label)
    canvas.fill(0, m.radius, 2 * m.thin, y - m.radius + m.pad // 2, colour)
    name = _SHORT.get(text.label, text.label) if form == "slim" else text.label
    canvas.text((_edge(form, m), y), name, cap, colour, bold=form != "slim")
    percent = f"{text.percent}%"
    canvas.text((canvas.size[0] - _edge(form, m) - text_width_px(percent, cap), y), percent, cap, INK)
    _underline(canvas, text, (_edge(form, m), y), canvas.size[0] - 2 * _edge(form, m), m)
    for reason in _reason_lines(text, form, m):
        y += m.line
        canvas.text((_edge(form, m), y), reason, m.cap, WARN)
    return y + m.line + m.gap // 2


def _underline(canvas: Canvas, text: PanelText, at: tuple[int, int], width: int, m: Measures) -> None:
    """Under the label, as long as the expression is strong: a small smile has a short line."""
    if text.way is not None:
        length = max(m.thin, width * text.way // 10)
        canvas.fill(at[0], at[1] + max(1, m.gap // 3), length, m.thin, label_colour(text.label))


@lru_cache(maxsize=24)
def readings_panel(readings: tuple[ReadingLine, ...], m: Measures) -> Sprite:
    """The lines under a full panel: which reading counts how much, and how old it is."""
    width = _panel_width("full", m)
    canvas = Canvas(width, m.pad * 2 + m.cap + (len(readings) - 1) * m.line)
    canvas.plate(m.radius)
    y = m.pad + m.cap
    middle = width - m.pad - text_width_px("0000 ms", m.cap)
    for reading in readings:
        line = Canvas(width, m.line + m.cap)
        line.text((m.pad, m.line), reading.name, m.cap, QUIET)
        shown = f"{reading.weight}%" if reading.weight or reading.age_ms is not None else ""
        line.text((middle - m.gap - text_width_px(shown, m.cap), m.line), shown, m.cap, INK)
        age = age_text(reading.age_ms)
        line.text((width - m.pad - text_width_px(age, m.cap), m.line), age, m.cap, INK)
        canvas.lay(line.sprite(reading.opacity), 0, y - m.line)
        y += m.line
    return canvas.sprite()


def age_text(age_ms: int | None) -> str:
    """An age as a person reads it; a dash without any reading."""
    if age_ms is None:
        return NO_AGE
    return f"{age_ms} ms" if age_ms < 1000 else f"{age_ms // 1000}.{age_ms % 1000 // 100} s"


def face_sizes(text: PanelText, readings: int, m: Measures) -> dict[str, tuple[int, int]]:
    """Width and height of every form, without painting the large ones."""
    below = m.gap // 2 + m.pad * 2 + m.cap + (readings - 1) * m.line if readings else 0
    tall = {
        form: _panel_height(form, len(_reason_lines(text, form, m)), m) for form in ("full", "bars", "slim")
    }
    return {
        "full": (_panel_width("full", m), tall["full"] + below),
        "bars": (_panel_width("bars", m), tall["bars"]),
        "slim": (_panel_width("slim", m), tall["slim"]),
        "label": face_panel(text, "label", m).size,
        "name": face_panel(text, "name", m).size,
    }


@lru_cache(maxsize=32)
def _ground(form: str, reasons: int, m: Measures) -> Sprite:
    """What never changes in a panel: its plate, the names, the empty bars."""
    names = SHORT_NAMES if form == "full" else THREE_LETTERS
    canvas = Canvas(_panel_width(form, m), _panel_height(form, reasons, m))
    canvas.plate(m.radius)
    y = m.pad + _head(form, m) + m.line * (1 + reasons) + m.gap // 2
    left = _edge(form, m) + m.names(names) + m.gap
    for name in names:
        canvas.text((_edge(form, m), y), name, m.cap, QUIET)
        canvas.fill(left, y - m.cap, _bar(form, m), m.cap, TRACK)
        y += m.line
    return canvas.sprite()


def _bar(form: str, m: Measures) -> int:
    return (
        m.bar
        if form == "full"
        else _panel_width(form, m) - 2 * _edge(form, m) - m.names(THREE_LETTERS) - m.gap
    )


def _edge(form: str, m: Measures) -> int:
    return m.gap if form == "slim" else m.pad


def _head(form: str, m: Measures) -> int:
    return m.cap if form == "slim" else m.head


@lru_cache(maxsize=32)
def _panel_width(form: str, m: Measures) -> int:
    cap = _head(form, m)
    labels = (*SHORT_NAMES, NOT_SURE) if form == "slim" else (*LABELS, NOT_SURE)
    head = max(text_width_px(label, cap, bold=form != "slim") for label in labels)
    head += m.gap + text_width_px(WIDEST_SHARE, cap)
    if form != "full":
        return 2 * _edge(form, m) + head
    rows = m.names(SHORT_NAMES) + m.gap + m.bar + m.gap + text_width_px("100", m.cap)
    return 2 * m.pad + max(head, rows)


def _panel_height(form: str, reasons: int, m: Measures) -> int:
    return 2 * m.pad + _head(form, m) + (reasons + len(LABELS)) * m.line + m.gap // 2


def _reason_lines(text: PanelText, form: str, m: Measures) -> list[str]:
    """The reason broken into at most two lines that fit."""
    return wrap_text(text.reason, _panel_width(form, m) - 2 * _edge(form, m), m.cap)


def _chip(text: PanelText, m: Measures, *, short: bool) -> Sprite:
    """Label and confidence on one line, or in the short form the label alone."""
    cap = m.cap if short else m.head
    percent = "" if short else f"{text.percent}%"
    name = text_width_px(text.label, cap, bold=True)
    reason = "" if short else text.reason
    width = 2 * m.pad + name + (m.gap + text_width_px(percent, cap) if percent else 0)
    reason = fit_text(reason, max(width - 2 * m.pad, 16 * m.cap), m.cap)
    width = max(width, 2 * m.pad + text_width_px(reason, m.cap) if reason else 0)
    edge = max(2, m.pad * 2 // 3)
    canvas = Canvas(width, 2 * edge + cap + (m.line if reason else 0))
    canvas.plate(m.radius)
    canvas.text((m.pad, edge + cap), text.label, cap, label_colour(text.label), bold=True)
    _underline(canvas, text, (m.pad, edge + cap), width - 2 * m.pad, m)
    if percent:
        canvas.text((width - m.pad - text_width_px(percent, cap), edge + cap), percent, cap, INK)
    if reason:
        canvas.text((m.pad, edge + cap + m.line), reason, m.cap, WARN)
    return canvas.sprite(text.opacity)


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
        sure = _line_text([piece for piece in line if piece[1]])
        if _from_right_to_left(_line_text(line)):
            x, guess = m.pad + wide, _line_text([piece for piece in line if not piece[1]])
            for part, colour in ((sure, INK), (guess, QUIET)):
                x -= text_width_px(part, m.cap)
                canvas.text((x, y), part, m.cap, colour)
                x -= text_width_px(" ", m.cap) if part else 0
            continue
        canvas.text((m.pad, y), sure, m.cap, INK)
        if rest := _line_text(line)[len(sure) :]:
            canvas.text((m.pad + text_width_px(sure, m.cap), y), rest, m.cap, QUIET)
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
