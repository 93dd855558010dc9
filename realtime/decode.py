"""Decoding of media files with PyAV: lazy iterators of pictures and of sound, stamped in media time.

Media time 0 is the earliest start of the file's streams. What cannot be decoded is counted by cause and
left out; a damaged packet never ends a file. Any sound becomes mono 16 kHz without moving in time: sample k
lies exactly at k / 16000 s after the first input sample; only the last millisecond comes later, with the
next piece or `flush`. Pictures are as they are shown: upright, their pixels square.

OpenCV is loaded before PyAV, here and wherever else PyAV is. Both wheels bring a library of the window
system under the same name, and the first one loaded serves both: PyAV's would look for the connection of
OpenCV's window where it is not, and for ever.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain
from pathlib import Path
from typing import Any, cast

import cv2  # noqa: F401

# isort: split
import av
import numpy as np
from av.container import InputContainer
from av.error import EOFError as EndOfFile
from av.error import FFmpegError
from av.packet import Packet
from av.stream import Disposition
from numpy.typing import NDArray

from liveaffect.engines.recipe import SAMPLE_RATE
from liveaffect.realtime.clock import SECOND
from liveaffect.realtime.film_clock import MOST_JUMP_NS, OUT_OF_REASON, FilmClock, stamp_in_ns

Samples = NDArray[np.float32]
LOUDEST = 100.0
"""Full scale is 1 and films may pass it a little. A sample beyond this is no sound; resampled it would ring
through all its neighbours, so sources put silence in its place."""


class Resampler:
    """One unbroken stretch of sound. After a gap, flush it and make a new one."""

    def __init__(self) -> None:
        self._convert = av.AudioResampler(format="flt", layout="mono", rate=SAMPLE_RATE)
        self._fed = 0

    def push(self, samples: Samples, rate_hz: int) -> Samples:
        """Mono samples at `rate_hz`, which stays the same; returns what is ready."""
        frame = av.AudioFrame.from_ndarray(
            np.ascontiguousarray(samples[None, :]), format="fltp", layout="mono"
        )
        frame.sample_rate = rate_hz
        return self.push_frame(frame)

    def push_frame(self, frame: av.AudioFrame) -> Samples:
        """A decoded frame of any format and layout. Its own time stamp is not used."""
        frame.pts = self._fed
        frame.time_base = Fraction(1, frame.sample_rate)
        self._fed += frame.samples
        return _join(self._convert.resample(frame))

    def flush(self) -> Samples:
        """The rest; nothing can be pushed afterwards."""
        return _join(self._convert.resample(None)) if self._fed else np.zeros(0, np.float32)


def _join(frames: list[av.AudioFrame]) -> Samples:
    parts = [np.asarray(frame.to_ndarray(), np.float32).reshape(-1) for frame in frames]
    return np.concatenate(parts) if parts else np.zeros(0, np.float32)


BLOCK = 320
"""Samples in a block of sound: 20 ms, as a microphone gives them."""
_GAP_NS = 40_000_000
"""Stamps of sound that are this far from the sample count are believed; nearer is rounding."""
_DEFAULT_FPS = 25
_MOST_PIXELS = 64_000_000
"""8K film has 33 million; a head that promises more is damaged or means harm."""
_WIDEST = 3.0
"""Pixels that are wider, or higher, than this are a mistake; half a broadcast line in 16:9 comes to 2.9."""
_UNKNOWN_LENGTHS = (range(0x7FFFF000, 0x80010000), range(0xFFFF0000, 1 << 32))
"""What programs write that cannot know the length, because they write to a pipe."""
_WITH_LENGTH = {"mp4", "mov", "matroska", "webm", "avi", "wav", "flac"}
"""Formats whose head holds the length; of the others FFmpeg only guesses it."""


@dataclass(frozen=True, slots=True)
class Opened:
    """What a file holds."""

    has_video: bool
    has_audio: bool
    start_ns: int
    """The stamp that becomes media time 0."""
    picture_ns: int
    """Nominal time between pictures."""
    duration_s: float | None
    """As far as can be told; of some formats it is a guess."""
    promised_s: float | None = None
    """The same where the file's head says it, so that a file that was cut off can be told."""
    missing_bytes: int = 0
    """How much shorter the file is than its head says."""
    unknown_tracks: int = 0
    """Tracks of pictures or sound for which there is no decoder."""


def probe(path: Path) -> Opened:
    """Look into a file. Raises OSError or ValueError, of which PyAV's errors are kinds."""
    with av.open(str(path)) as container:
        video, audio = _video_stream(container), _audio_stream(container)
        starts = [
            stamp_in_ns(s.start_time, s.time_base) for s in (video, audio) if s and s.start_time is not None
        ]
        rate = (video.average_rate or video.guessed_rate) if video else None
        if video is not None:
            _refuse_too_many(video.codec_context.width, video.codec_context.height)
            _refuse_too_many(*shown_size(video, video.codec_context.width, video.codec_context.height))
        duration_s = None if container.duration is None else container.duration / av.time_base
        return Opened(
            has_video=video is not None,
            has_audio=audio is not None,
            start_ns=min(starts, default=0),
            picture_ns=round(SECOND / (rate or _DEFAULT_FPS)),
            duration_s=duration_s,
            unknown_tracks=sum(
                not _is_decodable(s) for s in container.streams if s.type in ("video", "audio")
            ),
            missing_bytes=_missing_bytes(path),
            promised_s=duration_s if set(container.format.name.split(",")) & _WITH_LENGTH else None,
        )


def _refuse_too_many(width: int, height: int) -> None:
    if width * height > _MOST_PIXELS:
        raise ValueError(
            f"its pictures are {width} x {height}; more than "
            f"{_MOST_PIXELS // 1_000_000} million pixels are not decoded"
        )


def shown_size(stream: av.VideoStream, width: int, height: int) -> tuple[int, int]:
    """How large a picture of this many stored pixels is shown, before it is turned upright."""
    for aspect in (stream.sample_aspect_ratio, stream.codec_context.sample_aspect_ratio):
        if aspect and 1 / _WIDEST <= aspect <= _WIDEST:
            return max(1, round(width * aspect)), height
    return width, height


def _missing_bytes(path: Path) -> int:
    """What lacks of a WAV or AVI file, for which FFmpeg takes the length that is there for the whole."""
    with open(path, "rb") as file:
        head = file.read(8)
    if head[:4] != b"RIFF" or len(head) < 8:
        return 0
    promised = int.from_bytes(head[4:8], "little")
    if any(promised in unknown for unknown in _UNKNOWN_LENGTHS):
        return 0
    return max(0, promised + 8 - path.stat().st_size)


def lacks_index(path: Path) -> bool:
    """Whether an MP4 or MOV holds no whole 'moov' box, without which nothing in it can be found.

    Most recorders write it last, so it is what a file lacks whose recording or copying was cut off.
    """
    length = path.stat().st_size
    first, at = b"", 0
    with open(path, "rb") as file:
        while len(head := file.read(16)) >= 8:
            size, kind = int.from_bytes(head[:4], "big"), head[4:8]
            first = first or kind
            if size == 1:
                size = int.from_bytes(head[8:], "big")
            if first != b"ftyp" or (kind == b"moov" and at + size <= length):
                return False
            if size < 8:
                break
            at += size
            file.seek(at)
    return first == b"ftyp"


def read_pictures(path: Path, found: Opened, losses: Counter[str]) -> Iterator[tuple[int, NDArray[np.uint8]]]:
    """Media time and RGB picture, upright, all of the size of the first."""
    size: tuple[int, int] | None = None
    next_ns, last_ns = 0, -1
    stamps = _Stamps(losses)
    with av.open(str(path)) as container:
        stream = _video_stream(container)
        assert stream is not None
        # Slices, not whole pictures, in parallel: errors then stay with the packet they belong to.
        stream.thread_type = "SLICE"
        for frame in _decoded_frames(
            container, stream, losses, "packets of pictures that could not be decoded"
        ):
            picture = cast(av.VideoFrame, frame)
            at_ns = next_ns
            if picture.pts is not None and picture.time_base is not None:
                at_ns = stamps.believe(stamp_in_ns(picture.pts, picture.time_base) - found.start_ns, next_ns)
            next_ns = at_ns + found.picture_ns
            if picture.is_corrupt:
                losses["pictures that are damaged"] += 1
                continue
            if at_ns < 0:
                losses["pictures before the beginning"] += 1
                continue
            try:
                wanted = size or shown_size(stream, picture.width, picture.height)
                _refuse_too_many(*wanted)
                image = _upright(picture, wanted)
            except (FFmpegError, ValueError):
                losses["pictures that could not be converted"] += 1
                continue
            size = wanted
            if at_ns <= last_ns:
                losses["pictures at the time of another"] += 1
            last_ns = max(last_ns, at_ns)
            yield last_ns, image


def read_sound(
    path: Path, found: Opened, losses: Counter[str]
) -> Iterator[tuple[int, int, NDArray[np.float32]]]:
    """Number of the first sample, its media time, samples; blocks of `BLOCK`, only the last is shorter.

    A hole in the file is a jump of number and time; before one, a block may be shorter too.
    """
    first: int | None = None
    at_ns = 0
    rest = np.zeros(0, np.float32)
    for begin, part_ns, part in _stretches(path, found, losses):
        if first is None or begin > first + len(rest):
            if first is not None and len(rest):
                yield first, at_ns, rest
            first, at_ns, rest = begin, part_ns, np.zeros(0, np.float32)
        rest = np.concatenate([rest, part])
        while len(rest) >= BLOCK:
            yield first, at_ns, rest[:BLOCK].copy()
            first, at_ns, rest = first + BLOCK, at_ns + BLOCK * SECOND // SAMPLE_RATE, rest[BLOCK:]
    if first is not None and len(rest):
        yield first, at_ns, rest.copy()


def _stretches(
    path: Path, found: Opened, losses: Counter[str]
) -> Iterator[tuple[int, int, NDArray[np.float32]]]:
    """Converted sound with its number and media time; numbers jump where the file's stamps do."""
    begin_ns: int | None = None
    number = 0
    origin_ns = 0
    fed_ns = 0
    resampler = Resampler()
    stamps = _Stamps(losses)
    with av.open(str(path)) as container:
        stream = _audio_stream(container)
        assert stream is not None
        for decoded in _decoded_frames(
            container, stream, losses, "packets of sound that could not be decoded"
        ):
            frame = cast(av.AudioFrame, decoded)
            expected_ns = 0 if begin_ns is None else begin_ns + fed_ns
            stamp_ns = expected_ns
            if frame.pts is not None and frame.time_base is not None:
                stamp_ns = stamps.believe(
                    stamp_in_ns(frame.pts, frame.time_base) - found.start_ns, expected_ns
                )
            if begin_ns is not None and stamp_ns < expected_ns - _GAP_NS:
                losses["stretches of sound that come twice"] += 1
                continue
            if begin_ns is None or stamp_ns > expected_ns + _GAP_NS:
                if begin_ns is None:
                    origin_ns = max(0, stamp_ns)
                else:
                    losses["holes in its sound"] += 1
                for part in _nonempty(resampler.flush()):
                    yield number, _time(origin_ns, number), part
                    number += len(part)
                resampler, begin_ns, fed_ns = Resampler(), max(0, stamp_ns), 0
                number = max(number, (begin_ns - origin_ns) * SAMPLE_RATE // SECOND)
            if not frame.sample_rate:
                losses["stretches of sound that could not be converted"] += 1
                continue
            fed_ns += frame.samples * SECOND // frame.sample_rate
            try:
                converted = resampler.push_frame(_believable(frame, losses))
            except (FFmpegError, ValueError):
                # It changed its rate or its channels: what was fed before stays fed.
                losses["stretches of sound that could not be converted"] += 1
                resampler = Resampler()
                continue
            for part in _nonempty(converted):
                yield number, _time(origin_ns, number), part
                number += len(part)
        for part in _nonempty(resampler.flush()):
            yield number, _time(origin_ns, number), part


def _decoded_frames(
    container: InputContainer, stream: Any, losses: Counter[str], cause: str
) -> Iterator[Any]:
    """All frames that can be decoded, their stamps on one clock; what cannot is counted."""
    for packet in chain(FilmClock(_packets(container, losses), losses), (None,)):
        # An empty packet means "as before" in AVI files; a decoder would take it for the end.
        if packet is not None and (packet.stream_index != stream.index or packet.size == 0):
            continue
        try:
            yield from stream.decode(packet)
        except EndOfFile:
            return
        except FFmpegError:
            losses[cause] += 1


def _packets(container: InputContainer, losses: Counter[str]) -> Iterator[Packet[Any]]:
    """Those of both tracks, whichever is decoded: only together do they tell where a clock begins again."""
    tracks = [track for track in (_video_stream(container), _audio_stream(container)) if track is not None]
    try:
        yield from container.demux(*tracks)
    except FFmpegError:
        losses["ends of files that cannot be read"] += 1


def _upright(picture: av.VideoFrame, size: tuple[int, int]) -> NDArray[np.uint8]:
    image = cast(NDArray[np.uint8], picture.to_ndarray(format="rgb24", width=size[0], height=size[1]))
    turns = round(picture.rotation / 90) % 4
    return np.ascontiguousarray(np.rot90(image, turns)) if turns else image


def _video_stream(container: InputContainer) -> av.VideoStream | None:
    """The first stream of moving pictures; the cover of a record is none."""
    covers = Disposition.attached_pic
    found = (s for s in container.streams.video if not s.disposition & covers)
    return next((s for s in found if _is_decodable(s)), None)


def _audio_stream(container: InputContainer) -> av.AudioStream | None:
    return next((s for s in container.streams.audio if _is_decodable(s)), None)


def _is_decodable(stream: Any) -> bool:
    """Whether there is a decoder for it; PyAV gives a stream of unknown code no context."""
    return stream.codec_context is not None


def _time(origin_ns: int, number: int) -> int:
    return origin_ns + number * SECOND // SAMPLE_RATE


def _nonempty(samples: NDArray[np.float32]) -> list[NDArray[np.float32]]:
    return [samples] if len(samples) else []


class _Stamps:
    """Takes back jumps of a stream's stamps that cannot be meant."""

    def __init__(self, losses: Counter[str]) -> None:
        self._losses = losses
        self._shift_ns = 0

    def believe(self, stamp_ns: int, expected_ns: int) -> int:
        """The stamp, or where it was expected; later ones count from there."""
        if abs(stamp_ns - self._shift_ns - expected_ns) > MOST_JUMP_NS:
            self._losses[OUT_OF_REASON] += 1
            self._shift_ns = stamp_ns - expected_ns
        return stamp_ns - self._shift_ns


def _believable(frame: av.AudioFrame, losses: Counter[str]) -> av.AudioFrame:
    """The frame with silence for samples that are none; before resampling, which would smear them."""
    if frame.format.name not in ("flt", "fltp", "dbl", "dblp"):
        return frame
    samples = frame.to_ndarray()
    good = np.abs(samples) <= LOUDEST
    if good.all():
        return frame
    numbers = np.isfinite(samples)
    for cause, count in (
        ("samples that were not numbers", (~numbers).sum()),
        ("samples that were absurdly loud", (numbers & ~good).sum()),
    ):
        if count:
            losses[cause] += int(count)
    clean = np.where(good, samples, samples.dtype.type(0))
    mended = av.AudioFrame.from_ndarray(clean, format=frame.format.name, layout=frame.layout.name)
    mended.sample_rate, mended.pts, mended.time_base = frame.sample_rate, frame.pts, frame.time_base
    return mended
