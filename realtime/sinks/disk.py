"""Files that outputs write: whole or not at all, and errors that say which file and what to do.

A file that is only of use when complete is written under a temporary name beside its place and renamed at
the end, so nobody ever finds half a video under the name that was asked for.
"""

from __future__ import annotations

import contextlib
import errno
import os
from pathlib import Path

from liveaffect.realtime.errors import SinkError

_ADVICE = {
    errno.ENOSPC: "the disk is full; free some space or name another place",
    errno.EDQUOT: "the disk quota is used up; free some space or name another place",
    errno.EFBIG: "the file grew larger than this system allows; name another place",
    errno.EACCES: "writing is not permitted there; name another place or change the permissions",
    errno.EPERM: "writing is not permitted there; name another place or change the permissions",
    errno.EROFS: "that disk is read-only; name another place",
    errno.ENOENT: "the folder does not exist; create it first",
    errno.ENOTDIR: "a part of its path is a file, not a folder; name another place",
    errno.EISDIR: "that is a folder; name a file in it",
    errno.EPIPE: "the program that read it has ended",
}


def refusal(path: str | Path, error: Exception) -> SinkError:
    """The error to raise when a file could not be written."""
    number = getattr(error, "errno", None)
    why = _ADVICE.get(number or 0, f"{error}; name another place")
    return SinkError(f"cannot write {path}: {why}")


class Replacing:
    """A file under a temporary name that takes its place when it is complete."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.temporary = path.with_name(f".{path.stem}.part{path.suffix}")
        if path.is_dir():
            raise refusal(path, IsADirectoryError(errno.EISDIR, "a folder"))
        try:
            # Fail now rather than after an hour of work.
            self.temporary.write_bytes(b"")
        except OSError as error:
            raise refusal(path, error) from error

    def write_whole(self, content: bytes) -> None:
        """Write everything at once and finish."""
        try:
            with open(self.temporary, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            self.discard()
            raise refusal(self.path, error) from error
        self.finish()

    def finish(self) -> None:
        """The file is complete: give it its name."""
        try:
            os.replace(self.temporary, self.path)
        except OSError as error:
            self.discard()
            raise refusal(self.path, error) from error

    def discard(self) -> None:
        """Forget it; nothing is left behind."""
        with contextlib.suppress(OSError):
            self.temporary.unlink()


class Lines:
    """Text that others may read while it grows: every write reaches the system before it returns.

    '-' is standard output. There is no buffer of its own, so a failed write is not tried again at the end.
    """

    def __init__(self, path: str) -> None:
        self._name = "standard output" if path == "-" else path
        self._borrowed = path == "-"
        self._closed = False
        try:
            self._handle = os.dup(1) if self._borrowed else os.open(path, _CREATE, 0o666)
        except OSError as error:
            raise refusal(self._name, error) from error

    def write(self, text: str) -> None:
        """Write all of it. Raises SinkError, also after `close`."""
        if self._closed:
            raise SinkError(f"cannot write {self._name}: this output was closed already")
        rest = memoryview(text.encode("utf-8", "backslashreplace"))
        try:
            while rest:
                rest = rest[os.write(self._handle, rest) :]
        except OSError as error:
            raise refusal(self._name, error) from error

    def close(self) -> None:
        """Close it; safe to call twice."""
        if not self._closed:
            self._closed = True
            os.close(self._handle)


_CREATE = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
