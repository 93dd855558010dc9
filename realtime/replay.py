"""Files as sources, in media time: pictures, video and sound; rotation, odd sizes, any rate, damaged packets.

Pictures and sound of a film are decoded by two readers of the same file and merged by time. So memory stays
small however badly a file is interleaved, and the order of items depends on the file alone.

A PNG of a few hundred kilobytes can hold gigabytes of pixels. So the size of a picture is read from the
file's head and judged first. JPEG is decoded small where it is large; the others have to be decoded whole
to be shrunk, so their limit is lower.
"""

from __future__ import annotations

import heapq
import re
import stat
import struct
import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from av.error import FFmpegError
from numpy.typing import NDArray

from liveaffect.engines.recipe import SAMPLE_RATE
from liveaffect.realtime.clock import MS, SECOND, Clock
from liveaffect.realtime.decode import Opened, lacks_index, probe, read_pictures, read_sound
from liveaffect.realtime.errors import EndOfStream, SourceError, SourceNotFound, SourceRefused
from liveaffect.realtime.frame import AudioBlock, CountsLosses, Source, VideoFrame

ENOUGH_PIXELS = 25_000_000
"""Faces of 40 pixels are found in this many; more is decoded at a half, a quarter, an eighth."""
MOST_PIXELS = 100_000_000
MOST_JPEG_PIXELS = 400_000_000
MOST_BYTES = 1_000_000_000
_JPEG = b"\xff\xd8"
_PNG = b"\x89PNG\r\n\x1a\n"
_SIZES_OF_JPEG = (*range(0xC0, 0xC4), *range(0xC5, 0xC8), *range(0xC9, 0xCC), *range(0xCD, 0xD0))
"""Markers of the segment that holds height and width."""
_END = 0xD9
_MARKER = re.compile(rb"\xff+([^\x00\x01\xff\xd0-\xd8])", re.DOTALL)
"""What begins a segment, also behind a scan: within one, other bytes follow 0xFF."""
_ALONE = (0x01, *range(0xD0, 0xD8))
"""Markers without a length."""


@dataclass(frozen=True, slots=True, eq=False)
class Picture:
    """A decoded picture, and what must be known about it."""

    image: NDArray[np.uint8]
    """(height, width, 3), RGB, upright."""
    shrunk: int = 1
    """Pixels of the file for each pixel of the image, along a side."""
    damage: str | None = None
    """What is wrong with the file, although there is an image."""


def read_picture(path: Path) -> Picture:
    """A picture file, turned as its EXIF data say. Raises SourceNotFound, SourceRefused or SourceError."""
    import cv2

    data = _content(path)
    size = size_in_head(data) if data else None
    shrunk = 1
    if size is not None:
        pixels = size[0] * size[1]
        most = MOST_JPEG_PIXELS if data.startswith(_JPEG) else MOST_PIXELS
        if pixels > most:
            raise SourceError(
                f"'{path}' is a picture of {size[0]} x {size[1]}; more than {most // 1_000_000} million "
                "pixels are not read. Make it smaller first"
            )
        while pixels > ENOUGH_PIXELS * shrunk**2 and shrunk < 8:
            shrunk *= 2
    how = {
        1: cv2.IMREAD_COLOR, 2: cv2.IMREAD_REDUCED_COLOR_2, 4: cv2.IMREAD_REDUCED_COLOR_4,
        8: cv2.IMREAD_REDUCED_COLOR_8,
    }  # fmt: skip
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), how[shrunk]) if data else None
    except (cv2.error, MemoryError) as failure:
        raise SourceError(f"'{path}' is no picture that OpenCV can read: {_short(failure)}") from failure
    if image is None:
        raise SourceError(f"'{path}' is no picture that OpenCV can read")
    return Picture(np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), np.uint8), shrunk, damage_of(data))


def size_in_head(data: bytes) -> tuple[int, int] | None:
    """Width and height as the file's head says; None for a format that has no such head."""
    try:
        if data.startswith(_PNG):
            return struct.unpack_from(">II", data, 16)
        if data.startswith(_JPEG):
            return _size_of_jpeg(data)
        if data.startswith(b"BM"):
            width, height = struct.unpack_from("<ii", data, 18)
            return abs(width), abs(height)
        if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
            return _size_of_webp(data)
        if data[:4] in (b"II*\0", b"MM\0*"):
            return _size_of_tiff(data)
    except struct.error:
        return None
    return None


def damage_of(data: bytes) -> str | None:
    """What can be seen to be missing; decoders fill it with grey without a word."""
    if data.startswith(_JPEG) and not _reaches_its_end(data):
        return "it is cut off; what is missing is grey"
    if data.startswith(_PNG) and b"IEND" not in data[-4096:]:
        return "it is cut off; what is missing is black"
    if data[:4] == b"RIFF" and len(data) < struct.unpack_from("<I", data, 4)[0] + 8:
        return "it is cut off"
    return None


def _content(path: Path) -> bytes:
    try:
        if not path.is_file():
            raise SourceNotFound(f"there is no picture '{path}'")
        if path.stat().st_size > MOST_BYTES:
            raise SourceError(
                f"'{path}' is larger than {MOST_BYTES // 1_000_000} megabytes; that is no picture"
            )
        return path.read_bytes()
    except OSError as failure:
        raise SourceRefused(f"'{path}' cannot be read: {failure.strerror}") from failure


def _size_of_jpeg(data: bytes) -> tuple[int, int] | None:
    at = 2
    while at + 9 < len(data):
        if data[at] != 0xFF:
            return None
        marker = data[at + 1]
        if marker == 0xFF:
            at += 1  # a byte of padding
        elif marker in _ALONE:
            at += 2
        elif marker in _SIZES_OF_JPEG:
            height, width = struct.unpack_from(">HH", data, at + 5)
            return width, height
        else:
            at += 2 + struct.unpack_from(">H", data, at + 2)[0]
    return None


def _reaches_its_end(data: bytes) -> bool:
    """Whether the scans of a JPEG come to their end mark.

    Previews within segments have end marks of their own, and phones append a film or a second picture: the
    last bytes of a file say nothing.
    """
    at = 2
    while (found := _MARKER.search(data, at)) is not None:
        marker, at = found[1][0], found.end()
        if marker == _END:
            return True
        if at + 2 <= len(data):
            at += struct.unpack_from(">H", data, at)[0]
    return False


def _size_of_webp(data: bytes) -> tuple[int, int] | None:
    kind = data[12:16]
    if kind == b"VP8X":
        return int.from_bytes(data[24:27], "little") + 1, int.from_bytes(data[27:30], "little") + 1
    if kind == b"VP8L":
        bits = struct.unpack_from("<I", data, 21)[0]
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    if kind == b"VP8 ":
        width, height = struct.unpack_from("<HH", data, 26)
        return width & 0x3FFF, height & 0x3FFF
    return None


def _size_of_tiff(data: bytes) -> tuple[int, int] | None:
    order = "<" if data[:2] == b"II" else ">"
    at = struct.unpack_from(order + "I", data, 4)[0]
    entries = struct.unpack_from(order + "H", data, at)[0]
    found: dict[int, int] = {}
    for place in range(at + 2, at + 2 + 12 * entries, 12):
        tag, kind = struct.unpack_from(order + "HH", data, place)
        if tag in (256, 257):
            found[tag] = struct.unpack_from(order + ("H" if kind == 3 else "I"), data, place + 8)[0]
    return (found[256], found[257]) if len(found) == 2 else None


def _short(failure: BaseException) -> str:
    """The last line of what OpenCV says, without the place in its source."""
    return str(failure).strip().splitlines()[-1].rpartition("error: ")[2] or type(failure).__name__


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
        self, path: Path | str, *, video: bool = True, audio: bool = True, loop: bool = False, number: int = 1
    ) -> None:
        """`number`: which it is of the files of this name in one run."""
        self._path = Path(path)
        self._number = number
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
        """'file:' and the file's name; of several files of one name the second has '#2' behind it."""
        return f"file:{self._path.name}" + (f"#{self._number}" if self._number > 1 else "")

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
            if lacks_index(self._path):
                raise SourceError(
                    f"'{self._path}' was cut off: it lacks the index (moov) that such a file has at its "
                    "end, so nothing in it can be found. Copy it anew, or repair it where it was recorded"
                ) from failure
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
