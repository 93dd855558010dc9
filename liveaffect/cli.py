"""Flags to settings to the function that does it, and what Ctrl-C or a request to end do to a command.

The commands themselves are in `liveaffect/commands/`, in groups. Errors written for the user end the
program with their text and exit code 1; a defect of the program keeps its traceback.

The first Ctrl-C ends the run in order, so that files are finished. The second says what is still waited for.
The third leaves at once: what is not finished stays on the disk as a part that plays, and is named. A request
to end (SIGTERM) leaves at once by itself when something holds the command for too long.
"""

from __future__ import annotations

import argparse
import contextlib
import errno
import io
import logging
import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from types import FrameType
from typing import NoReturn

from liveaffect.commands import Run
from liveaffect.commands.calibrate import add_calibration
from liveaffect.commands.machine import add_bench, add_machine
from liveaffect.commands.train import add_training
from liveaffect.commands.watch import add_watching
from liveaffect.engines.protocol import EngineError
from liveaffect.engines.user_folders import cache_dir
from liveaffect.findings import limit_arenas
from liveaffect.progress import BesideTheLine, say
from liveaffect.realtime.errors import RealtimeError
from liveaffect.settings import misspelt, resolve

LIBRARIES = {
    "OPENCV_LOG_LEVEL": "FATAL",
    "OPENCV_FFMPEG_LOGLEVEL": "-8",
    "OPENCV_VIDEOIO_V4L_SELECT_TIMEOUT": "1",
}
"""What OpenCV reads when it is loaded: its errors are said by us; a stalled camera is let go after 1 s."""
_OUTPUT_FAILS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)
GROUPS = (add_watching, add_machine, add_training, add_calibration, add_bench)
SIGNALS = ("SIGINT", "SIGTERM", "SIGHUP")
"""By name, because not every system has all of them."""
ENDS_WITHIN_S = 4.5
"""Whoever asks a program to end (a service manager, a shutdown) kills it soon after."""
ENDED = 130
"""Exit code of a command that was ended from outside."""


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
        for line in misspelt(os.environ):
            say(f"liveaffect: {line}")
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


class Interrupts:
    """Counts the requests to end of one command."""

    def __init__(self) -> None:
        self.count = 0
        """How often it was asked to end."""
        self._over = threading.Event()

    @contextlib.contextmanager
    def heeded(self) -> Iterator[None]:
        """While this lasts. Outside the main thread nothing changes, because there it cannot."""
        before = {}
        if threading.current_thread() is threading.main_thread():
            for number in (getattr(signal, name) for name in SIGNALS if hasattr(signal, name)):
                if signal.getsignal(number) != signal.SIG_IGN:  # nohup wants the terminal's end ignored
                    before[number] = signal.signal(number, self._take)
        try:
            yield
        finally:
            self._over.set()
            for number, handler in before.items():
                signal.signal(number, handler)

    def _take(self, number: int, frame: FrameType | None) -> None:
        self.count += 1
        nth = self.count  # another request may come while the thread is started, and is taken in between
        if number == signal.SIGTERM:
            threading.Thread(target=self._insist, name="insists on the end", daemon=True).start()
        if nth == 1:
            raise KeyboardInterrupt
        open_files = _unfinished()
        if nth == 2:
            files = f"{', '.join(open_files)} to be finished"
            what = files if open_files else "devices and networks to be freed"
            _write_line(f"liveaffect: still waiting for {what}; once more ends at once")
            return
        _leave("ended at once")

    def _insist(self) -> None:
        """A thread of its own, because whatever holds the command holds the main one."""
        if not self._over.wait(ENDS_WITHIN_S):
            _leave(f"something held it for {ENDS_WITHIN_S} s, so it was ended at once")


def _leave(why: str) -> NoReturn:
    open_files = _unfinished()
    left = f"; not finished, but what there is plays: {', '.join(open_files)}" if open_files else ""
    _write_line(f"liveaffect: {why}{left}")
    os._exit(ENDED)


def _unfinished() -> list[str]:
    """Asked of the module that knows, if it was ever loaded."""
    files = sys.modules.get("liveaffect.realtime.sinks.files")
    return files.unfinished() if files is not None else []


def _write_line(line: str) -> None:
    """Past Python's buffers, which the interrupted code may hold; a terminal that is gone is no failure."""
    with contextlib.suppress(OSError):
        os.write(2, f"{line}\n".encode("utf-8", "backslashreplace"))
