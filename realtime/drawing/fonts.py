"""Which font file has a character: DejaVu Sans first, then whatever fontconfig knows on this machine.

DejaVu comes with matplotlib, which is installed in any case, so the text that the program itself writes
looks the same to the last bit everywhere. Names of devices may hold any script; the fonts for those are the
system's. A character that no font has is drawn as the hollow box of DejaVu: visible, never left out.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

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
