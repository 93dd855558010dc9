"""What a look at this machine finds, how it is written down, and which system libraries are missing.

The table of libraries is the one of `bootstrap`, which cannot import Python yet. A library counts as there
only if it loads, because one that is installed without what it needs itself fails like one that is absent.
"""

from __future__ import annotations

import ctypes
import json
import platform
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Literal, TextIO

from liveaffect.progress import ProgressBar
from liveaffect.realtime.errors import MissingLibrary

State = Literal["ok", "absent", "broken"]
VERSION = 1
_MARKS: dict[State, str] = {"ok": "ok", "absent": "-", "broken": "BROKEN"}
_ASIDES: dict[State, str] = {"ok": "note", "absent": "if wanted", "broken": "mend it"}
ARENAS = 2
_M_ARENA_MAX = -8


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at."""

    name: str
    state: State
    """'ok', 'absent' (not here and not needed), or 'broken' (needed, and it does not work)."""
    detail: str
    cure: str = ""
    """The command or the step that mends it; empty where there is nothing to mend."""


Section = tuple[str, Callable[[], Iterable[Finding]]]


def examine(look: Callable[[], Iterable[Finding]]) -> Iterator[Finding]:
    """The findings of one section, the last of which may be that looking itself failed."""
    try:
        yield from look()
    except Exception as error:  # noqa: BLE001  a doctor who dies of the illness is of no use
        yield Finding("examination", "broken", f"{type(error).__name__}: {error}", cure_of(error))


def cure_of(error: Exception) -> str:
    """What mends an error that no section foresaw, as far as the error itself tells."""
    if isinstance(error, ImportError | OSError) and explain(error) is not None:
        return install_command(missing_libraries())
    if isinstance(error, ModuleNotFoundError):
        return "uv sync --inexact"
    return ""


def report_json(out: TextIO, sections: Sequence[Section]) -> int:
    """Everything as one JSON object; 1 if anything is broken."""
    bar, report = ProgressBar("", len(sections), "sections"), {}
    for number, (title, look) in enumerate(sections):
        bar.name = title
        bar.show(number)
        report[title] = list(examine(look))
    bar.clear()
    broken = any(finding.state == "broken" for findings in report.values() for finding in findings)
    content = {
        "v": VERSION,
        "ok": not broken,
        "system": platform.platform(),
        "python": platform.python_version(),
        "sections": {title: [asdict(finding) for finding in findings] for title, findings in report.items()},
    }
    json.dump(content, out, indent=1)
    out.write("\n")
    return int(broken)


def report_text(out: TextIO, sections: Sequence[Section]) -> int:
    """A line for each finding as it is found; 1 if anything is broken."""
    bar, broken = ProgressBar("", len(sections), "sections"), 0
    out.write(f"Python {platform.python_version()} on {platform.platform()}\n")
    for number, (title, look) in enumerate(sections):
        out.write(f"\n{title}\n")
        out.flush()
        bar.name = title
        bar.show(number)
        for finding in examine(look):
            bar.clear()
            broken += finding.state == "broken"
            out.write(f"  {_MARKS[finding.state]:<7} {finding.name}: {finding.detail}\n")
            if finding.cure:
                out.write(f"          {_ASIDES[finding.state]}: {finding.cure}\n")
            out.flush()
            bar.show(number)
        bar.clear()
    out.write("\n" + ("everything needed works\n" if not broken else f"{broken} broken, see above\n"))
    return int(broken > 0)


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
