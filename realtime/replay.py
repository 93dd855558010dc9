"""Video and sound files as sources, in media time: rotation, odd sizes, any rate, damaged packets.

Pictures and sound are decoded by two readers of the same file and merged by time. So memory stays small
however badly a file is interleaved, and the order of items depends on the file alone.
"""

from __future__ import annotations

import heapq
import stat
import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
from av.error import FFmpegError
from numpy.typing import NDArray

from liveaffect.engines.recipe import SAMPLE_RATE
from liveaffect.realtime.clock import MS, SECOND, Clock
from liveaffect.realtime.decode import Opened, probe, read_pictures, read_sound
from liveaffect.realtime.errors import EndOfStream, SourceError, SourceNotFound, SourceRefused
from liveaffect.realtime.frame import AudioBlock, VideoFrame
from liveaffect.realtime.picture import read_picture
from liveaffect.realtime.source import CountsLosses, Source

Item = VideoFrame | AudioBlock
_SLOPPY_BYTES = 64
"""Some programs count a little wrong."""
UNREADABLE = (FFmpegError, OSError, ValueError, OverflowError)
"""What PyAV raises for a file."""
_SHORT_S, _SHORT_SHARE = 0.5, 0.02
"""A file that is shorter than its head says by more than both was cut off; heads are a little imprecise."""
LATE_NS = 150 * MS
"""A source that is read so much too late stands still instead of falling behind further."""
HELD = "milliseconds that a film stood still because the machine was late"
HELD_SOUND = "samples of silence while it stood still"


class MediaFile:
    """A file with pictures, sound, or both. `read` never waits: the file is always ready."""

    def __init__(
        self, path: Path | str, *, video: bool = True, audio: bool = True, loop: bool = False
    ) -> None:
        self._path = Path(path)
        self._wants = (video, audio)
        self._loop = loop
        self._items: Iterator[Item] | None = None
        self._losses: Counter[str] = Counter()
        self._lock = threading.Lock()
        self._ended = self._closed = self._anything = False
        self.has_video = self.has_audio = False
        self.duration_s: float | None = None
        """As far as the file says, known once it is open."""

    @property
    def name(self) -> str:
        """'file:' and the file's name."""
        return f"file:{self._path.name}"

    @property
    def losses(self) -> Mapping[str, int]:
        """Pictures and packets that were left out since opening, by cause."""
        return dict(self._losses)

    def open(self) -> None:
        """Look what is in it. Raises SourceNotFound, SourceRefused or SourceError."""
        if self._items is not None or self._closed:
            raise SourceError(f"{self.name} was opened before; a source is opened once")
        self._refuse_what_is_no_file()
        try:
            found = probe(self._path)
        except PermissionError as failure:
            raise SourceRefused(f"this user may not read '{self._path}': {failure.strerror}") from failure
        except UNREADABLE as failure:
            # The number that FFmpeg's errors carry says nothing to anybody.
            why = getattr(failure, "strerror", None) or failure
            raise SourceError(f"'{self._path}' is no video or sound that FFmpeg can read: {why}") from failure
        self.has_video = found.has_video and self._wants[0]
        self.has_audio = found.has_audio and self._wants[1]
        self.duration_s = found.duration_s
        if not (self.has_video or self.has_audio):
            raise SourceError(f"'{self._path}' holds neither pictures nor sound that was asked for")
        if found.unknown_tracks:
            self._losses["tracks in a code that is not known here"] = found.unknown_tracks
        self._items = self._rounds(found)

    def read(self, timeout_s: float) -> Item | None:
        """The next item in the order of time. Raises EndOfStream after the last one, again and again."""
        with self._lock:
            if self._items is None or self._closed:
                raise SourceError(f"{self.name} is not open")
            if not self._ended:
                try:
                    for item in self._items:
                        self._anything = True
                        return item
                except UNREADABLE as failure:
                    why = getattr(failure, "strerror", None) or failure
                    raise SourceError(f"'{self._path}' could not be read to its end: {why}") from failure
                self._ended = True
                if not self._anything:
                    raise SourceError(f"'{self._path}' holds no picture and no sound that can be decoded")
            raise EndOfStream(f"{self.name} is at its end")

    def close(self) -> None:
        """Let go of the file. Safe to call twice, and from another thread."""
        with self._lock:
            self._closed = True
            self._items = None

    def _refuse_what_is_no_file(self) -> None:
        try:
            mode = self._path.stat().st_mode
        except (FileNotFoundError, NotADirectoryError, ValueError) as failure:
            raise SourceNotFound(f"there is no file '{self._path}'") from failure
        except OSError as failure:
            raise SourceRefused(f"'{self._path}' cannot be read: {failure.strerror}") from failure
        if stat.S_ISDIR(mode):
            raise SourceError(f"'{self._path}' is a folder; name a video or sound file in it")
        if not stat.S_ISREG(mode):
            # It is read twice, by two readers; a pipe can be read once, and waits for ever for its writer.
            raise SourceError(f"'{self._path}' is a device or a pipe; name a file")

    def _rounds(self, found: Opened) -> Iterator[Item]:
        """The file once, or again and again with time and numbers going on."""
        offset_ns, next_seq, next_sample, last_seq = 0, 0, 0, -1
        while True:
            first_sample = max(next_sample, offset_ns * SAMPLE_RATE // SECOND)
            end_ns = offset_ns
            for item in self._once(found):
                at_ns = item.captured_ns + offset_ns
                if isinstance(item, VideoFrame):
                    item = replace(item, seq=item.seq + next_seq, captured_ns=at_ns)
                    last_seq = item.seq
                    end_ns = max(end_ns, at_ns + found.picture_ns)
                else:
                    item = replace(item, first=item.first + first_sample, captured_ns=at_ns)
                    next_sample = item.end
                    end_ns = max(end_ns, at_ns + len(item.samples) * SECOND // SAMPLE_RATE)
                yield item
            self._note_what_is_missing(found, end_ns - offset_ns)
            if not self._loop or end_ns == offset_ns:
                return
            next_seq = last_seq + 1
            offset_ns = end_ns

    def _note_what_is_missing(self, found: Opened, length_ns: int) -> None:
        """A file that was cut off often ends like a whole one: only its promised length tells."""
        if found.missing_bytes > _SLOPPY_BYTES:
            self._losses["bytes that its head promises and it does not hold"] = found.missing_bytes
            return
        if found.promised_s is None or self._wants != (True, True):
            return
        missing_s = found.promised_s - length_ns / SECOND
        if missing_s > _SHORT_S and missing_s > _SHORT_SHARE * found.promised_s:
            self._losses["seconds that its head promises and it does not hold"] += round(missing_s) or 1

    def _once(self, found: Opened) -> Iterator[Item]:
        readers: list[Iterator[Item]] = []
        if self.has_video:
            readers.append(self._video(found))
        if self.has_audio:
            readers.append(self._audio(found))
        # A picture comes before sound of the same time, because it is the shorter wait.
        return heapq.merge(*readers, key=lambda item: item.captured_ns)

    def _video(self, found: Opened) -> Iterator[VideoFrame]:
        seq = -1
        for seq, (at_ns, image) in enumerate(read_pictures(self._path, found, self._losses)):
            yield VideoFrame(self.name, seq, at_ns, image)
        if seq < 0:
            self._losses["track of pictures of which none can be decoded"] = 1

    def _audio(self, found: Opened) -> Iterator[AudioBlock]:
        heard = False
        for first, at_ns, samples in read_sound(self._path, found, self._losses):
            yield AudioBlock(self.name, first, at_ns, samples)
            heard = True
        if not heard:
            self._losses["track of sound of which nothing can be decoded"] = 1


class Paced:
    """Delivers another source as if it were live: each item when the clock reaches its time.

    It leaves nothing out. Where the machine cannot read the source in time, the source stands still until
    it can, and says for how long: stamps that fall behind the clock without end would make everybody in the
    picture too old to be answered for.
    """

    def __init__(self, source: Source, clock: Clock) -> None:
        self._source = source
        self._clock = clock
        self._stop = threading.Event()
        self._start_ns: int | None = None
        self._next: Item | None = None
        self._held_ns = self._held_samples = 0

    @property
    def name(self) -> str:
        """The name of the source."""
        return self._source.name

    @property
    def losses(self) -> Mapping[str, int]:
        """What the source left out, by cause, and how long it stood still."""
        own = self._source.losses if isinstance(self._source, CountsLosses) else {}
        if not self._held_ns:
            return own
        return {**own, HELD: self._held_ns // MS, HELD_SOUND: self._held_samples}

    def open(self) -> None:
        """Open the source; its time begins with the first read."""
        self._source.open()

    def read(self, timeout_s: float) -> Item | None:
        """The next item, not before its time."""
        if self._stop.is_set():
            raise SourceError(f"{self.name} is not open")
        if self._next is None:
            self._next = self._source.read(timeout_s)
            if self._next is None:
                return None
        now_ns = self._clock.now_ns()
        if self._start_ns is None:
            self._start_ns = now_ns - self._next.captured_ns
        due_ns = self._start_ns + self._next.captured_ns
        if now_ns - due_ns > LATE_NS:
            self._held_ns += now_ns - due_ns
            self._start_ns += now_ns - due_ns
            due_ns = now_ns
        give_up_ns = now_ns + round(timeout_s * SECOND)
        if now_ns < due_ns and not self._clock.wait_until(min(due_ns, give_up_ns), self._stop):
            raise SourceError(f"{self.name} was closed")
        if due_ns > give_up_ns:
            return None
        item, self._next = self._next, None
        if isinstance(item, AudioBlock):
            # Sound that is held up is a gap of that length, as it is with a microphone.
            self._held_samples = self._held_ns * SAMPLE_RATE // SECOND
            return replace(item, captured_ns=due_ns, first=item.first + self._held_samples)
        return replace(item, captured_ns=due_ns)

    def close(self) -> None:
        """Close the source and end a wait. Safe to call twice."""
        self._stop.set()
        self._source.close()


def load_picture(path: Path) -> NDArray[np.uint8]:
    """A picture file as RGB, turned as its EXIF data say. Raises SourceNotFound or SourceError."""
    return read_picture(path).image
