"""How far a command has come, as one line on standard error, only where somebody can see it.

The line is rewritten in place, so that no answer lands in the middle of it: whoever prints anything else
clears it first, or says it through the bar. A terminal that is gone ends no job.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

from liveaffect.realtime.clock import SECOND, MonotonicClock

LOADING = "loading the networks"
_WIDTH = 30
_EVERY_S = 1.0
_CLEAR = "\r\x1b[K"
_LOCK = threading.RLock()
"""Held while something is written: what counts the seconds is a thread of its own."""
_drawn: ProgressBar | None = None
"""Whose line stands on the terminal at the moment, without an end."""


class ProgressBar:
    """One line for one job: seconds of a film, or files of many."""

    def __init__(self, name: str, total: float | None, unit: str = "s") -> None:
        self.name = name
        """What is being worked on; may change on the way."""
        self._total = total
        self._unit = unit
        self._digits = 1 if unit == "s" else 0
        self._last: tuple[str, int] | None = None
        self.shown = sys.stderr.isatty()
        """Whether somebody can see it."""

    def begin(self, name: str, total: float | None) -> None:
        """The next of several jobs."""
        self.name, self._total = name, total

    def show(self, at: float) -> None:
        """The job has come so far. Cheap to call often."""
        now = (self.name, int(at))
        if self.shown and (now != self._last or _drawn is not self):
            self._last = now
            self._draw(at)

    def done(self, at: float) -> None:
        """It is at its end, whatever was expected of its length."""
        self._total = at
        if self.shown:
            self._draw(at)

    def clear(self) -> None:
        """Take the line away; the next `show` draws it again."""
        if _drawn is self:
            clear_line()

    def finish(self) -> None:
        """Leave the line as it stands and go to the next."""
        global _drawn
        with _LOCK:
            if _drawn is self:
                _drawn = None
                _put("\n")

    def _draw(self, at: float) -> None:
        global _drawn
        line = f"{at:.{self._digits}f} {self._unit}"
        if self._total:
            filled = min(int(_WIDTH * at / self._total), _WIDTH)
            of = f"{at:.{self._digits}f} of {self._total:.{self._digits}f} {self._unit}"
            line = f"[{'#' * filled}{'.' * (_WIDTH - filled)}] {of}"
        with _LOCK:
            _drawn = self
            _put(f"{_CLEAR}{_short_name(self.name, _columns() - len(line) - 2)} {line}")


def clear_line() -> None:
    """Take away whatever line stands there."""
    global _drawn
    with _LOCK:
        if _drawn is not None:
            _drawn = None
            _put(_CLEAR)


def say(line: str) -> None:
    """A line for the person at the keyboard; results go to standard output, everything else here."""
    with _LOCK:
        clear_line()
        _put("\n".join(map(written_out, line.split("\n"))) + "\n")


def written_out(text: str) -> str:
    """Text with what would move the cursor written out: a name of a file may hold anything."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


@contextlib.contextmanager
def working(
    name: str, total: float | None = None, unit: str = "s", at: Callable[[], float] | None = None
) -> Iterator[None]:
    """A job that cannot say itself how far it is: each second `at` does, or for how long it has worked."""
    bar, clock, over = ProgressBar(name, total, unit), MonotonicClock(), threading.Event()

    def count() -> None:
        while not over.wait(_EVERY_S):
            bar.show(clock.now_ns() / SECOND if at is None else at())

    counting = threading.Thread(target=count, name="counts the seconds", daemon=True)
    if bar.shown:
        counting.start()
    try:
        yield
    finally:
        over.set()
        if bar.shown:
            counting.join()
        bar.clear()


class BesideTheLine(logging.StreamHandler):  # type: ignore[type-arg]
    """What is logged, never behind a bar that stands on the terminal."""

    def emit(self, record: logging.LogRecord) -> None:
        """One line of the log."""
        with _LOCK:
            clear_line()
            super().emit(record)

    def format(self, record: logging.LogRecord) -> str:
        """Lines of a traceback stay lines."""
        return "\n".join(map(written_out, super().format(record).split("\n")))


def _put(text: str) -> None:
    with contextlib.suppress(OSError):  # a terminal that is gone must not end a run that could go on
        sys.stderr.write(text)
        sys.stderr.flush()


def _columns() -> int:
    try:
        return os.get_terminal_size(sys.stderr.fileno()).columns or 80
    except (OSError, ValueError):
        return 80


def _short_name(name: str, room: int) -> str:
    """The last part of a path, so short that the line stays one, and without what would move the cursor."""
    name = written_out(Path(name).name)
    return name if len(name) <= room else name[: max(room - 3, 0)] + "..."
