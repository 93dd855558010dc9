"""Text to masks of coverage, drawn by FreeType through Pillow, in a font that has the characters.

DejaVu comes with matplotlib, which is installed in any case, so the text that the program itself writes
looks the same to the last bit everywhere. Names of devices may hold any script; the fonts for those are the
ones that fontconfig knows. A character that no font has is drawn as the hollow box of DejaVu: visible,
never left out.

Sizes are given as the height of capitals, which is what a layout sees. A plain line is put together from
characters that were drawn before, because most lines change with every picture and FreeType takes 6 us a
character; a line in a script whose letters join or run from right to left is drawn as a whole.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import unicodedata
from dataclasses import dataclass
from functools import lru_cache
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import ImageFont

from liveaffect.engines.user_folders import cache_dir
from liveaffect.realtime.errors import MissingLibrary

CAP_SHARE = 0.729
"""Height of capitals in DejaVu Sans as a share of the font size."""
_FILES = {False: "DejaVuSans.ttf", True: "DejaVuSans-Bold.ttf"}
_NOWHERE = "\U0010ffff"
"""No font has this one, so it looks like every character that a font lacks."""
_ASK_S = 2.0
_BY_NAME = ("NotoSansCJK-Regular.ttc", "msgothic.ttc", "msyh.ttc", "Arial Unicode.ttf")
"""Looked for in the system's font folders where fontconfig is absent, as on Windows and macOS."""


@dataclass(frozen=True, slots=True)
class FontFile:
    """One face of a font file, as FreeType opens it."""

    path: str
    index: int = 0


@lru_cache(maxsize=2)
def dejavu(*, bold: bool = False) -> FontFile:
    """The font of everything that the program says. Raises MissingLibrary where it is nowhere."""
    found = importlib.util.find_spec("matplotlib")
    inside = [
        Path(at) / "mpl-data" / "fonts" / "ttf" for at in (found and found.submodule_search_locations) or ()
    ]
    for folder in (*inside, Path("/usr/share/fonts/truetype/dejavu")):
        if (folder / _FILES[bold]).is_file():
            return FontFile(str(folder / _FILES[bold]))
    raise MissingLibrary(
        "text on pictures needs the font DejaVu Sans, which comes with matplotlib: "
        "pip install matplotlib, or apt-get install fonts-dejavu-core"
    )


@lru_cache(maxsize=64)
def open_font(file: FontFile, size_px: int, *, shaped: bool = False) -> ImageFont.FreeTypeFont:
    """The font at a size. Raises OSError for a file that FreeType cannot use at it.

    `shaped` joins letters and turns lines round as their script wants, where this Pillow can.
    """
    engine = None if shaped else ImageFont.Layout.BASIC
    return ImageFont.truetype(file.path, size_px, index=file.index, layout_engine=engine)


@lru_cache(maxsize=1024)
def font_of(char: str, *, bold: bool = False) -> FontFile | None:
    """A font that has the character; None where there is none."""
    base = dejavu(bold=bold)
    for file in (base, *_found):
        if _has(file, char):
            return file
    for file in _fonts_for(char, bold=bold):
        if _has(file, char):
            _found.append(file)
            return file
    return None


_found: list[FontFile] = []
"""Fonts of this system that were needed before; most texts in one script need only one."""


def _has(file: FontFile, char: str) -> bool:
    """Whether the font draws something of its own for the character."""
    try:
        font = open_font(file, 20)
        drawn: Any = font.getmask(char)  # its type does not say that its bytes can be read
        nothing: Any = font.getmask(_NOWHERE)
        return bytes(drawn) != bytes(nothing)
    except OSError:
        return False  # such as a font of coloured pictures, which exists in one size only


def _fonts_for(char: str, *, bold: bool) -> list[FontFile]:
    """What fontconfig would take for the character, or else the fonts that other systems usually have."""
    wanted = f"sans-serif:{'bold:' if bold else ''}charset={ord(char[0]):x}"
    # fontconfig keeps an index below the user's cache folder: ours, so that no foreign file is left.
    environ = {**os.environ, "XDG_CACHE_HOME": str(cache_dir())}
    try:
        answer = subprocess.run(
            ["fc-match", "--format=%{index} %{file}", wanted],
            env=environ,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_ASK_S,
            check=True,
        ).stdout
        index, _, path = answer.partition(" ")
        return [FontFile(path, int(index) & 0xFFFF)]
    except (OSError, subprocess.SubprocessError, ValueError):
        return [FontFile(name) for name in _BY_NAME]


Coverage = NDArray[np.uint16]
"""0..256 for every pixel."""
_ALONE = ((0, 0x0590), (0x1E00, 0x2070), (0x3000, 0xD7A4), (0xF900, 0xFB00), (0xFF00, 0xFFF0))
"""Latin to Armenian, punctuation, Chinese to Korean: letters that do not change beside others."""


def ascent_px(cap_px: int) -> int:
    """Rows above the baseline in every mask of this size: capitals with an accent."""
    return cap_px + max(3, cap_px * 3 // 8)


def descent_px(cap_px: int) -> int:
    """Rows below the baseline."""
    return max(3, cap_px * 3 // 8)


@lru_cache(maxsize=512)
def text_mask(text: str, cap_px: int, *, bold: bool = False) -> Coverage:
    """Coverage of one line of text; the baseline lies `ascent_px` below the top row. Read-only."""
    shown = printable(text)
    shaped = any(not _stands_alone(char) for char in shown)
    runs = [(char, font_of(char, bold=bold)) for char in shown]
    if shaped:
        by_font = groupby(runs, lambda run: run[1])
        runs = [("".join(char for char, _ in run), font) for font, run in by_font]
    parts = [_drawn(run, font or dejavu(bold=bold), cap_px, shaped=shaped) for run, font in runs]
    width = sum(advance for _, _, advance in parts)
    out = np.zeros((ascent_px(cap_px) + descent_px(cap_px), max(width, 1)), np.uint16)
    left = 0
    for mask, start, advance in parts:
        at = max(0, left + start)
        area = out[:, at : at + mask.shape[1]]
        np.maximum(area, mask[:, : area.shape[1]], out=area)
        left += advance
    out.setflags(write=False)
    return out


@lru_cache(maxsize=512)
def text_ink(text: str, cap_px: int, *, bold: bool = False) -> tuple[Coverage, int]:
    """The rows of the mask that hold any ink, and how far above the baseline they begin. Read-only."""
    mask = text_mask(text, cap_px, bold=bold)
    rows = np.flatnonzero(mask.any(axis=1))
    first, last = (int(rows[0]), int(rows[-1])) if len(rows) else (0, 0)
    return mask[first : last + 1], ascent_px(cap_px) - first


def text_width_px(text: str, cap_px: int, *, bold: bool = False) -> int:
    """Width of one line of text."""
    return int(text_mask(text, cap_px, bold=bold).shape[1])


def fit_text(text: str, width_px: int, cap_px: int, *, bold: bool = False) -> str:
    """The text, or as much of its beginning as fits with an ellipsis."""
    if text_width_px(text, cap_px, bold=bold) <= width_px:
        return text
    for length in range(len(text) - 1, 0, -1):
        shorter = text[:length].rstrip() + "…"
        if text_width_px(shorter, cap_px, bold=bold) <= width_px:
            return shorter
    return ""


def wrap_text(text: str, width_px: int, cap_px: int, *, bold: bool = False, lines: int = 2) -> list[str]:
    """The text in at most so many lines that fit; what is left over ends in an ellipsis."""
    out: list[str] = []
    words = text.split()
    while words and len(out) < lines - 1:
        count = 1
        while count < len(words) and (
            text_width_px(" ".join(words[: count + 1]), cap_px, bold=bold) <= width_px
        ):
            count += 1
        out.append(fit_text(" ".join(words[:count]), width_px, cap_px, bold=bold))
        words = words[count:]
    return [*out, fit_text(" ".join(words), width_px, cap_px, bold=bold)] if words else out


def _stands_alone(char: str) -> bool:
    return any(low <= ord(char) < high for low, high in _ALONE) and not unicodedata.combining(char)


def printable(text: str) -> str:
    """The text with every accent on its letter, and a space for what cannot be seen."""
    joined = unicodedata.normalize("NFC", text)
    return "".join(char if char.isprintable() else " " for char in joined)


@lru_cache(maxsize=4096)
def _drawn(run: str, font: FontFile, cap_px: int, *, shaped: bool) -> tuple[Coverage, int, int]:
    """Coverage of characters of one font, where it starts, and how far the next ones stand from the start."""
    face = open_font(font, round(cap_px / CAP_SHARE), shaped=shaped)
    core: Any  # its type does not say that its bytes can be read
    core, (left, top) = face.getmask2(run, mode="L", anchor="ls")
    width, height = core.size
    ink = np.frombuffer(bytes(core), np.uint8).reshape(height, width).astype(np.uint16)
    ink += ink >> 7
    out = np.zeros((ascent_px(cap_px) + descent_px(cap_px), width), np.uint16)
    first = ascent_px(cap_px) + int(top)
    cut = ink[max(0, -first) : max(0, len(out) - first)]
    out[max(0, first) : max(0, first) + len(cut)] = cut
    return out, int(left), round(face.getlength(run))
