"""Which system libraries the Python packages need, and the Debian package that brings each one.

The table is the one of `bootstrap`, which cannot import Python yet. A library counts as there only if it
loads, because one that is installed without what it needs itself fails just like one that is absent.
"""

from __future__ import annotations

import ctypes
import shutil
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from liveaffect.realtime.errors import MissingLibrary


@dataclass(frozen=True, slots=True)
class Needed:
    """Something that is not a Python package and has to be installed beside them."""

    name: str
    """A library as the linker knows it, or a program."""
    package: str
    """The Debian package. Ubuntu and newer Debian have the same, or another that provides it."""
    purpose: str


LIBRARIES = (
    Needed("libportaudio.so.2", "libportaudio2", "microphones"),
    Needed("libxcb.so.1", "libxcb1", "OpenCV"),
    Needed("libX11-xcb.so.1", "libx11-xcb1", "the window"),
    Needed("libGL.so.1", "libgl1", "OpenCV"),
    Needed("libgthread-2.0.so.0", "libglib2.0-0", "OpenCV"),
    Needed("libEGL.so.1", "libegl1", "the face detector"),
    Needed("libGLESv2.so.2", "libgles2", "the face detector"),
)
PROGRAMS = (Needed("espeak-ng", "espeak-ng", "the voice of the demo"),)


def loads(name: str) -> bool:
    """Whether the linker finds and loads this library."""
    try:
        ctypes.CDLL(name)
    except OSError:
        return False
    return True


def missing_libraries(
    library_there: Callable[[str], bool] = loads,
    program_there: Callable[[str], bool] = lambda name: shutil.which(name) is not None,
    platform: str = sys.platform,
) -> tuple[Needed, ...]:
    """What is not here. Elsewhere than on Linux the wheels bring their libraries along."""
    libraries = LIBRARIES if platform.startswith("linux") else ()
    absent = [needed for needed in libraries if not library_there(needed.name)]
    return (*absent, *(needed for needed in PROGRAMS if not program_there(needed.name)))


def install_command(absent: Sequence[Needed]) -> str:
    """The command that mends it; on a system without apt the names still say what to look for."""
    return "sudo apt-get install " + " ".join(dict.fromkeys(needed.package for needed in absent))


def explain(error: ImportError | OSError) -> MissingLibrary | None:
    """A failed import told as the package to install; None if no known library is behind it."""
    text = str(error)
    # sounddevice looks for PortAudio itself and says so in words, without the name of the file.
    behind = [needed for needed in LIBRARIES if needed.name in text]
    if "PortAudio library not found" in text:
        behind = [LIBRARIES[0]]
    if not behind:
        return None
    needed = behind[0]
    return MissingLibrary(
        f"{needed.purpose} needs {needed.name}, which is not here: {install_command(behind)}"
    )


ARENAS = 2
_M_ARENA_MAX = -8


def limit_arenas() -> bool:
    """Let the C library keep two heaps instead of eight a core; whether it heard.

    A live run has a dozen threads that each allocate pictures and pieces of sound. With a heap for each, what
    one thread gave back lies idle while another grows, and the process creeps for hours.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except AttributeError:  # musl has no such setting, and one heap.
        return False
    return bool(mallopt(_M_ARENA_MAX, ARENAS))
