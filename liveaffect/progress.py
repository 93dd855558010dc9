"""How far a command has come, as one line on standard error, only where somebody can see it.

The line is rewritten in place. Whoever prints anything else meanwhile clears it first, or says it through
the bar, so that no answer lands in the middle of it.
"""

from __future__ import annotations

import sys
from pathlib import Path

_WIDTH = 30
_CLEAR = "\r\x1b[K"


class ProgressBar:
    """One line for one job: seconds of a film, or files of many."""

    def __init__(self, name: str, total: float | None, unit: str = "s") -> None:
        self.name = name
        """What is being worked on; may change on the way."""
        self._total = total
        self._unit = unit
        self._digits = 1 if unit == "s" else 0
        self._last: tuple[str, int] | None = None
        self._shown = sys.stderr.isatty()

    def show(self, at: float) -> None:
        """The job has come so far. Cheap to call often."""
        now = (self.name, int(at))
        if self._shown and now != self._last:
            self._last = now
            self._write(at)

    def done(self, at: float) -> None:
        """It is at its end, whatever was expected of its length."""
        self._total = at
        if self._shown:
            self._last = (self.name, int(at))
            self._write(at)

    def say(self, line: str) -> None:
        """Something else for the person at the keyboard."""
        self.clear()
        sys.stderr.write(line + "\n")

    def clear(self) -> None:
        """Take the line away; the next `show` draws it again."""
        if self._last is not None:
            self._last = None
            sys.stderr.write(_CLEAR)
            sys.stderr.flush()

    def finish(self) -> None:
        """Leave the line as it stands and go to the next."""
        if self._last is not None:
            self._last = None
            sys.stderr.write("\n")

    def _write(self, at: float) -> None:
        line = f"{at:.{self._digits}f} {self._unit}"
        if self._total:
            filled = min(int(_WIDTH * at / self._total), _WIDTH)
            of = f"{at:.{self._digits}f} of {self._total:.{self._digits}f} {self._unit}"
            line = f"[{'#' * filled}{'.' * (_WIDTH - filled)}] {of}"
        sys.stderr.write(f"{_CLEAR}{Path(self.name).name} {line}")
        sys.stderr.flush()
