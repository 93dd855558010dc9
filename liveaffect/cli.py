"""Flags to settings to the function that does it; no logic of its own.

The commands themselves are in `liveaffect/commands/`, in groups. Errors written for the user end the
program with their text and exit code 1; a defect of the program keeps its traceback.
"""

from __future__ import annotations

import argparse
import contextlib
import errno
import io
import logging
import os
import sys
from collections.abc import Sequence
from importlib.metadata import version

from liveaffect.commands import Run
from liveaffect.commands.calibrate import add_calibration
from liveaffect.commands.machine import add_bench, add_machine
from liveaffect.commands.train import add_training
from liveaffect.commands.watch import add_watching
from liveaffect.engines.protocol import EngineError
from liveaffect.engines.user_folders import cache_dir
from liveaffect.findings import limit_arenas
from liveaffect.interrupts import ENDED, Interrupts
from liveaffect.progress import BesideTheLine, say
from liveaffect.realtime.errors import RealtimeError
from liveaffect.settings import resolve

LIBRARIES = {
    "OPENCV_LOG_LEVEL": "FATAL",
    "OPENCV_FFMPEG_LOGLEVEL": "-8",
    "OPENCV_VIDEOIO_V4L_SELECT_TIMEOUT": "1",
}
"""What OpenCV reads when it is loaded: its errors are said by us; a stalled camera is let go after 1 s."""
_OUTPUT_FAILS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)
GROUPS = (add_watching, add_machine, add_training, add_calibration, add_bench)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    given = _parser().parse_args(arguments)
    for name, value in LIBRARIES.items():
        os.environ.setdefault(name, value)
    # Matplotlib keeps a list of fonts wherever it is imported; it may do so among our own files.
    os.environ.setdefault("MPLCONFIGDIR", str(cache_dir() / "matplotlib"))
    interrupts = Interrupts()
    try:
        with interrupts.heeded():
            return _run(given)
    except (KeyboardInterrupt, ImportError, SystemError) as error:
        # A library in C that is interrupted while it is loaded says that it could not be loaded.
        if not isinstance(error, KeyboardInterrupt) and not interrupts.count:
            raise
        say("stopped")
        return ENDED


def _run(given: argparse.Namespace) -> int:
    """The command, what it refuses in words, and its results handed to whoever reads them."""
    run: Run = given.command
    limit_arenas()
    try:
        _print_any_name()
        settings = resolve(vars(given), config=given.config)
        logging.basicConfig(
            level=settings.log_level.upper(),
            handlers=[BesideTheLine()],
            format="%(levelname)s %(name)s: %(message)s",
        )
        code = run(given, settings)
        sys.stdout.flush()
    except (RealtimeError, EngineError) as error:
        say(f"liveaffect: {error}")
        return 1
    except BrokenPipeError:
        _forget_standard_output()
        return 0
    except OSError as error:
        if error.filename is not None:
            logging.getLogger(__name__).debug("a file failed", exc_info=True)
            say(f"liveaffect: cannot use {error.filename}: {error.strerror}; name another place")
            return 1
        if error.errno not in _OUTPUT_FAILS:
            raise
        _forget_standard_output()
        say(f"liveaffect: cannot write standard output: {error.strerror}")
        return 1
    return code


def _print_any_name() -> None:
    """Names of files may hold bytes that are no text; they are printed escaped instead of ending the run.

    Where a stream was closed before the start, Python has none, and what is said goes nowhere.
    """
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115  open until the end
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


def _forget_standard_output() -> None:
    """Python would try to write the rest at its end, and complain."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="liveaffect",
        description="Watches cameras, listens to microphones, and shows which emotion each person shows "
        "and how sure it is. Nothing leaves the machine unless a server is named.",
    )
    parser.add_argument("--version", action="version", version=f"liveaffect {version('liveaffect')}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for add_group in GROUPS:
        add_group(commands)
    return parser


if __name__ == "__main__":
    sys.exit(main())
