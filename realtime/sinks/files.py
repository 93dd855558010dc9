"""Files that outputs write, and the plainest of them: cues as JSON lines or as a table of numbers.

A file that is only of use when complete grows under another name beside its place and is renamed at the end.
The part is locked while it grows, so a second process that wants the same output is refused; a part that an
ended process left behind is moved out of the way, not overwritten, because it may be somebody's recording.
The same cues give the same bytes; `docs/cue.md` describes them.
"""

from __future__ import annotations

import contextlib
import csv
import errno
import io
import json
import logging
import os
import selectors
import stat
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from liveaffect.engines.recipe import LABELS
from liveaffect.realtime.clock import SECOND, MonotonicClock
from liveaffect.realtime.cue import MODALITIES, Cue
from liveaffect.realtime.errors import SinkError
from liveaffect.realtime.frame import AudioBlock, VideoFrame

try:
    import fcntl
except ImportError:  # Windows has no such locks; there two processes are not told apart
    fcntl = None  # type: ignore[assignment]

_LOG = logging.getLogger(__name__)
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
    errno.ENAMETOOLONG: "the name is longer than this system allows; name another one",
    errno.EPIPE: "the program that read it has ended",
}
READS_WITHIN_S = 10.0
"""A reader of a pipe that never waits is let go when it has taken nothing for so long."""
_UNFINISHED: dict[Path, Path] = {}
"""Places of the files in the making, by the name under which each grows."""
_FLAGS = os.O_CREAT | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
_READ_AND_CREATE = os.O_RDWR | _FLAGS
DISTRIBUTIONS = ("fused", "raw", *MODALITIES)
COLUMNS = (
    "t",
    "source",
    "track",
    "label",
    "confidence",
    "reason",
    "speaking",
    "box_x",
    "box_y",
    "box_width",
    "box_height",
    "frame_width",
    "frame_height",
    *(f"weight_{name}" for name in MODALITIES),
    "age_face_ms",
    "age_voice_ms",
    "skipped",
    *(f"{distribution}_{label}" for distribution in DISTRIBUTIONS for label in LABELS),
    "model",
    "epoch_ns",
)


def refusal(path: str | Path, error: Exception) -> SinkError:
    """The error to raise when a file could not be written."""
    number = getattr(error, "errno", None)
    why = _ADVICE.get(number or 0, f"{getattr(error, 'strerror', None) or error}; name another place")
    return SinkError(f"cannot write {path}: {why}")


def unfinished() -> list[str]:
    """The files of this process that are not complete yet, in words."""
    return [f"{place} (so far in {part})" for part, place in list(_UNFINISHED.items())]


def part_of(path: Path) -> Path:
    """The name under which a file grows until it is complete. Not hidden, for it may be all there is."""
    return path.with_name(f"{path.stem}.part{path.suffix}")


class Replacing:
    """A file that grows as a part, by us or a library that is given its name, then takes its place."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.part = part_of(path)
        self._refuse_what_is_no_file()
        try:
            # Fail now rather than after an hour of work.
            self._handle = self._claim()
        except (OSError, ValueError) as error:
            raise refusal(path, error) from error
        self._open = True
        _UNFINISHED[self.part] = path

    def write_whole(self, content: bytes) -> None:
        """Write everything at once and finish."""
        rest = memoryview(content)
        try:
            while rest:
                rest = rest[os.write(self._handle, rest) :]
        except OSError as error:
            self.discard()
            raise refusal(self.path, error) from error
        self.finish()

    def finish(self) -> None:
        """The file is complete: give it its name. What cannot be renamed is kept and named."""
        try:
            os.fsync(self._handle)
            # The lock lasts until the name is given, or another process could take the part over.
            os.replace(self.part, self.path)
        except OSError as error:
            self.leave()
            raise SinkError(f"{refusal(self.path, error)}. It is complete in {self.part}") from error
        self.leave()

    def leave(self) -> None:
        """Close it and leave on the disk what is there."""
        if self._open:
            self._open = False
            _UNFINISHED.pop(self.part, None)
            os.close(self._handle)

    def discard(self) -> None:
        """Forget it; nothing is left behind."""
        if self._open:
            with contextlib.suppress(OSError):
                self.part.unlink()
            self.leave()

    def _refuse_what_is_no_file(self) -> None:
        try:
            mode = self.path.stat().st_mode
        except (OSError, ValueError):
            return  # nothing there, or what hinders says itself when the part is made
        if stat.S_ISDIR(mode):
            raise refusal(self.path, IsADirectoryError(errno.EISDIR, "a folder"))
        if not stat.S_ISREG(mode):
            raise SinkError(f"cannot write {self.path}: that is a device or a pipe; name a file")

    def _claim(self) -> int:
        """The part, empty and ours alone."""
        while True:
            handle = os.open(self.part, _READ_AND_CREATE, 0o666)
            if not locked(handle):
                os.close(handle)
                raise SinkError(
                    f"cannot write {self.path}: another process, or another output of this one, is writing "
                    f"it at the moment (its part is {self.part}); name another file or wait"
                )
            there = os.fstat(handle)
            with contextlib.suppress(FileNotFoundError):
                if os.stat(self.part).st_ino == there.st_ino:
                    if not there.st_size:
                        return handle
                    self._set_aside()
            os.close(handle)

    def _set_aside(self) -> None:
        number = 1
        while (kept := self.part.with_stem(f"{self.part.stem}-{number}")).exists():
            number += 1
        os.rename(self.part, kept)
        _LOG.warning("an earlier run left %s unfinished; what it had written is now %s", self.path, kept)


class Lines:
    """Text that others may read while it grows: every write reaches the system before it returns.

    '-' is standard output. There is no buffer of its own, so a failed write is not tried again at the end.
    A pipe or terminal that somebody has made non-blocking (Node and asyncio do) is waited for, though not for
    ever.
    """

    def __init__(self, path: str, *, begins: str) -> None:
        """`begins`: how such a file begins. One that begins otherwise is not overwritten."""
        self.name = "standard output" if path == "-" else path
        """What it is called in messages."""
        self._borrowed = path == "-"
        self._closed = False
        self.holds_old = False
        """What an earlier run wrote is still there: it goes with the first write, not before."""
        try:
            # A pipe must not be opened for reading too: we would be a reader that never ends.
            pipe = os.path.exists(path) and not os.path.isfile(path)
            flags = os.O_WRONLY | _FLAGS if pipe else _READ_AND_CREATE
            self._handle = os.dup(1) if self._borrowed else os.open(path, flags, 0o666)
        except (OSError, ValueError) as error:
            raise refusal(self.name, error) from error
        try:
            if not self._borrowed and stat.S_ISREG(os.fstat(self._handle).st_mode):
                self._check_old(begins.encode())
        except (OSError, SinkError):
            os.close(self._handle)
            raise

    def write(self, text: str) -> None:
        """Write all of it. Raises SinkError, also after `close`."""
        if self._closed:
            raise SinkError(f"cannot write {self.name}: this output was closed already")
        if self.holds_old and text:
            self._make_empty()
        # A pipe takes a page whole or not at all, so one that is given up does not end in half a line.
        for whole in text.encode("utf-8", "backslashreplace").splitlines(keepends=True):
            rest = memoryview(whole)
            try:
                while rest:
                    rest = rest[self._write_some(rest) :]
            except OSError as error:
                raise refusal(self.name, error) from error

    def close(self) -> None:
        """Close it; safe to call twice."""
        if not self._closed:
            self._closed = True
            os.close(self._handle)

    def nothing_came(self, wrote: str = "") -> str:
        """What to say where there was no cue; `wrote`: what stands there then, unless older content does."""
        rest = ", so what it held before was left" if self.holds_old else wrote
        return f"{self.name}: there was no cue to write{rest}"

    def _write_some(self, rest: memoryview) -> int:
        """How many bytes were taken. Raises OSError, or SinkError when the reader takes nothing for long."""
        clock = MonotonicClock()
        while True:
            try:
                return os.write(self._handle, rest)
            except BlockingIOError as full:
                left_s = READS_WITHIN_S - clock.now_ns() / SECOND
                if left_s <= 0:
                    raise SinkError(
                        f"cannot write {self.name}: the program that reads it has taken nothing for "
                        f"{READS_WITHIN_S:g} s; let it read, or name a file"
                    ) from full
            with selectors.DefaultSelector() as room:
                room.register(self._handle, selectors.EVENT_WRITE)
                room.select(left_s)

    def _check_old(self, begins: bytes) -> None:
        if not locked(self._handle):
            raise SinkError(
                f"cannot write {self.name}: another process, or another output of this one, is writing it "
                "at the moment; name another file or wait"
            )
        try:
            found = os.read(self._handle, len(begins))
            if found and found != begins[: len(found)]:
                raise SinkError(
                    f"cannot write {self.name}: it is there and holds something else than cues, which would "
                    "be lost; delete it or name another file"
                )
            os.lseek(self._handle, 0, io.SEEK_SET)
            self.holds_old = bool(found)
        except OSError as error:
            raise refusal(self.name, error) from error

    def _make_empty(self) -> None:
        try:
            os.ftruncate(self._handle, 0)
        except OSError as error:
            raise refusal(self.name, error) from error
        self.holds_old = False


def locked(handle: int) -> bool:
    """Lock the file; False if somebody else holds the lock. It ends with the handle, or with the process."""
    if fcntl is None:
        return True
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return True  # a file system without locks
    return True


class JsonLines:
    """Writes every cue at once, so that a reader can follow. '-' is standard output."""

    wants_pictures = False
    wants_sound = False

    def __init__(self, path: str) -> None:
        self._lines = Lines(path, begins='{"v":')
        self._told = False

    def show(self, picture: NDArray[np.uint8], frame: VideoFrame) -> None:
        """Nothing to do."""

    def tell(self, cues: Sequence[Cue]) -> None:
        """One line for each cue, written before this returns."""
        self._lines.write("".join(line(cue) for cue in cues))
        self._told = self._told or bool(cues)

    def hear(self, block: AudioBlock) -> None:
        """Nothing to do."""

    def close(self) -> str | None:
        """Close the file; safe to call twice. Says so if nothing came."""
        self._lines.close()
        return None if self._told else self._lines.nothing_came()


def line(cue: Cue) -> str:
    """One cue as a line of plain ASCII with its end."""
    return json.dumps(cue.to_json(), separators=(",", ":"), allow_nan=False) + "\n"


class CsvFile:
    """Writes the heading at once, over an old file with the first cue, and every cue as it comes.

    '-' is standard output.
    """

    wants_pictures = False
    wants_sound = False

    def __init__(self, path: str) -> None:
        self._heading = _lines_of([COLUMNS])
        self._lines = Lines(path, begins=self._heading[:9])
        if not self._lines.holds_old:
            self._write("")
        self._told = False

    def show(self, picture: NDArray[np.uint8], frame: VideoFrame) -> None:
        """Nothing to do."""

    def tell(self, cues: Sequence[Cue]) -> None:
        """One row for each cue, written before this returns."""
        if cues:
            self._write(_lines_of([row(cue) for cue in cues]))
        self._told = self._told or bool(cues)

    def hear(self, block: AudioBlock) -> None:
        """Nothing to do."""

    def close(self) -> str | None:
        """Close the file; safe to call twice. Says so if nothing came."""
        self._lines.close()
        return None if self._told else self._lines.nothing_came(", only the heading")

    def _write(self, rows: str) -> None:
        """The heading goes before all else."""
        self._lines.write(self._heading + rows)
        self._heading = ""


def row(cue: Cue) -> tuple[object, ...]:
    """The values of one cue in the order of COLUMNS; what is not known is left empty."""
    out = cue.to_json()
    nothing = dict.fromkeys(LABELS)
    return (
        out["t"],
        out["source"],
        out["track"],
        out["label"],
        out["confidence"],
        out["reason"],
        int(out["speaking"]),
        *(out["box"] or (None,) * 4),
        *(out["frame"] or (None,) * 2),
        *out["weights"].values(),
        out["age_ms"]["face"],
        out["age_ms"]["voice"],
        out["skipped"],
        *(value for name in DISTRIBUTIONS for value in (out[name] or nothing).values()),
        out["model"],
        out.get("epoch_ns"),
    )


def _lines_of(rows: Sequence[Sequence[object]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()
