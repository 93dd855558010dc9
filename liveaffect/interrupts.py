"""What Ctrl-C, a closed terminal and a request to end do to a command.

The first ends the run in order, so that files are finished. The second says what is still waited for. The
third leaves at once: what is not finished stays on the disk as a part that plays, and is named. A request to
end (SIGTERM) leaves at once by itself when something holds the command for too long.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator
from types import FrameType
from typing import NoReturn

SIGNALS = ("SIGINT", "SIGTERM", "SIGHUP")
"""By name, because not every system has all of them."""
ENDS_WITHIN_S = 4.5
"""Whoever asks a program to end (a service manager, a shutdown) kills it soon after."""
ENDED = 130
"""Exit code of a command that was ended from outside."""


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
        if number == signal.SIGTERM:
            threading.Thread(target=self._insist, name="insists on the end", daemon=True).start()
        if self.count == 1:
            raise KeyboardInterrupt
        open_files = _unfinished()
        if self.count == 2:
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
