"""The drawn picture with sound as a video file: H.264 and AAC, MPEG-4 part 2 where there is no H.264.

Every picture keeps the time at which it was captured, so a camera's uneven rate stays as it was and the
sound fits. The file grows in fragments of less than half a second, so that whatever ends the recording
(a signal, a full disk, the power) leaves a part that plays; a clean end turns it into a plain file.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2  # noqa: F401  before PyAV, or a window never opens
import numpy as np
from numpy.typing import NDArray

from liveaffect.engines.recipe import SAMPLE_RATE
from liveaffect.realtime.clock import SECOND
from liveaffect.realtime.cue import Cue
from liveaffect.realtime.errors import MissingLibrary, SinkError
from liveaffect.realtime.frame import AudioBlock, VideoFrame
from liveaffect.realtime.sinks import OneSize
from liveaffect.realtime.sinks.files import Replacing, refusal
from liveaffect.realtime.sinks.virtual_camera import fitted

if TYPE_CHECKING:
    from av.video.stream import VideoStream

TICKS_HZ = 90_000
_LATE_SOUND_NS = 2_500_000_000
"""A microphone's first sound can come two seconds after the first picture; what is later still is silence."""
_CODECS = (
    # Four pictures wait in the encoder, not thirteen; none at all (zerolatency) would double the file.
    # They are coded in order: fragments can take in any other one only by shifting all of their times.
    (
        "libx264",
        {
            "preset": "veryfast",
            "crf": "20",
            "x264-params": "rc-lookahead=3:bframes=0:sync-lookahead=0:sliced-threads=1",
        },
    ),
    ("mpeg4", {"qscale": "4"}),
)
_AAC_SAMPLES = 1_024
_SLACK = SAMPLE_RATE // 50
"""Samples by which sound may stray from its time before silence is put in or sound is cut."""
_FRAGMENT_US = 400_000
_FORMATS = {".mkv": "matroska", ".mov": "mov"}
"""By ending; everything else is MP4."""


class VideoFile(OneSize):
    """One file for each camera: the first has the name asked for, others their source's name added."""

    wants_pictures = True
    wants_sound = True

    def __init__(self, path: str, *, sound: bool = True) -> None:
        """`sound`: some will come, so the file needs a place for it from its first moment on."""
        self._path = Path(path)
        self._has_sound = sound
        self._closed = False
        self._recordings: dict[str, _Recording] = {}
        # Fails now if the place cannot be written.
        self._first: Replacing | None = Replacing(self._path)
        self._early: list[AudioBlock] = []

    def show(self, picture: NDArray[np.uint8], frame: VideoFrame) -> None:
        """Append a picture at its own time."""
        if self._closed:
            raise SinkError(f"cannot write {self._path}: this output was closed already")
        recording = self._recordings.get(frame.source) or self._start(frame)
        recording.add_picture(picture, frame.captured_ns)

    def tell(self, cues: Sequence[Cue]) -> None:
        """Nothing to do: what cues say is drawn on the pictures."""

    def hear(self, block: AudioBlock) -> None:
        """Append sound at its own time to every file; sound from before the first picture is left out."""
        if self._closed:
            raise SinkError(f"cannot write {self._path}: this output was closed already")
        if not self._recordings:
            since_ns = block.captured_ns - _LATE_SOUND_NS
            self._early = [b for b in self._early if b.captured_ns >= since_ns] + [block]
        for recording in self._recordings.values():
            recording.add_sound(block)

    def close(self) -> str | None:
        """Finish the files; safe to call twice. Without any picture no file is left, which is said."""
        if self._closed:
            return None
        self._closed = True
        if self._first is not None:
            self._first.discard()
            return f"{self._path}: there was no picture to write, so there is no file"
        failures = []
        for recording in self._recordings.values():
            try:
                recording.finish()
            except SinkError as error:
                failures.append(error)
        if failures:
            raise failures[0]
        return None

    def _start(self, frame: VideoFrame) -> _Recording:
        if self._first is not None:
            file, self._first = self._first, None
        else:
            name = "".join(c if c.isalnum() else "_" for c in frame.source)
            file = Replacing(self._path.with_stem(f"{self._path.stem}-{name}"))
        recording = _Recording(file, frame, sound=self._has_sound)
        self._recordings[frame.source] = recording
        for block in self._early:
            recording.add_sound(block)
        return recording


class _Recording:
    """One file in the making. Times count from its first picture."""

    def __init__(self, file: Replacing, frame: VideoFrame, *, sound: bool) -> None:
        self._file = file
        self._start_ns = frame.captured_ns
        width, height = frame.size
        self._size = width + width % 2, height + height % 2
        try:
            import av
            from av.error import FFmpegError
        except ImportError as error:
            raise MissingLibrary(f"writing a video needs PyAV, which cannot be loaded ({error})") from error
        self._av: Any = av
        self._errors = (FFmpegError, OSError)
        self._container: Any = None
        self._sound: Any = None
        self._ended = False
        self._last_tick = -1
        self._samples = np.zeros(0, np.float32)
        self._written = 0
        """Samples taken in, from the first picture on."""
        kind = _FORMATS.get(file.path.suffix.lower(), "mp4")
        try:
            self._container = av.open(str(file.part), "w", format=kind, options=_fragments(kind))
            self._video = self._new_video()
            if sound:
                self._sound = self._container.add_stream("aac", rate=SAMPLE_RATE, layout="mono")
        except self._errors as error:
            raise self._fail(error) from error

    def add_picture(self, picture: NDArray[np.uint8], captured_ns: int) -> None:
        """Append a picture, made to fit the first one's size."""
        tick = max((captured_ns - self._start_ns) * TICKS_HZ // SECOND, self._last_tick + 1)
        self._last_tick = tick
        image = self._av.VideoFrame.from_ndarray(_to_video_size(picture, self._size), format="rgb24")
        image.pts, image.time_base = tick, Fraction(1, TICKS_HZ)
        try:
            self._container.mux(self._video.encode(image))
            self._fill_up_to(captured_ns - _LATE_SOUND_NS)
        except self._errors as error:
            raise self._fail(error) from error

    def add_sound(self, block: AudioBlock) -> None:
        """Append sound where it belongs: gaps become silence, overlaps are cut."""
        if self._sound is None:
            return  # the file was begun without a place for sound
        start = (block.captured_ns - self._start_ns) * SAMPLE_RATE // SECOND
        samples = block.samples
        if start < 0:
            samples, start = samples[-start:], 0
        if not len(samples):
            return
        try:
            if start - self._written > _SLACK:
                self._fill_up_to(block.captured_ns)
            elif self._written - start > _SLACK:
                samples = samples[self._written - start :]
            self._take(samples)
        except self._errors as error:
            raise self._fail(error) from error

    def finish(self) -> None:
        """Write what is left and give the file its name. What failed before is left as it is."""
        if self._ended:
            return
        try:
            if self._sound is not None:
                self._encode_sound(whole=True)
            self._container.mux(self._video.encode(None))
            if self._sound is not None:
                self._container.mux(self._sound.encode(None))
            self._container.close()
        except self._errors as error:
            raise self._fail(error) from error
        self._ended = True
        self._file.finish()

    def _new_video(self) -> VideoStream:
        for name, options in _CODECS:
            try:
                self._av.codec.Codec(name, "w")
            except self._av.codec.codec.UnknownCodecError:
                continue
            video: VideoStream = self._container.add_stream(name, rate=30, options=options)
            video.width, video.height = self._size
            video.pix_fmt = "yuv420p"
            video.codec_context.time_base = Fraction(1, TICKS_HZ)
            return video
        raise MissingLibrary(
            "this PyAV can write neither H.264 nor MPEG-4 video; install PyAV's own wheel: pip install av"
        )

    def _fill_up_to(self, when_ns: int) -> None:
        """Silence where no sound came."""
        end = (when_ns - self._start_ns) * SAMPLE_RATE // SECOND
        while self._sound is not None and (gap := min(end - self._written, SAMPLE_RATE)) > 0:
            self._take(np.zeros(gap, np.float32))

    def _take(self, samples: NDArray[np.float32]) -> None:
        self._samples = np.concatenate([self._samples, samples])
        self._written += len(samples)
        self._encode_sound(whole=False)

    def _encode_sound(self, *, whole: bool) -> None:
        while len(self._samples) >= _AAC_SAMPLES or (whole and len(self._samples)):
            part, self._samples = self._samples[:_AAC_SAMPLES], self._samples[_AAC_SAMPLES:]
            sound = self._av.AudioFrame.from_ndarray(part[None, :], format="fltp", layout="mono")
            sound.sample_rate, sound.time_base = SAMPLE_RATE, Fraction(1, SAMPLE_RATE)
            sound.pts = self._written - len(self._samples) - len(part)
            # The coder's own beginning lies before 0 and would shift every picture of the file.
            self._container.mux([packet for packet in self._sound.encode(sound) if packet.pts >= 0])

    def _fail(self, error: Exception) -> SinkError:
        """Keep what plays and say where it is. After a failed write FFmpeg adds nothing more."""
        self._ended = True
        if self._container is not None:
            with contextlib.suppress(*self._errors):
                self._container.close()
        if _plays(self._file.part):
            self._file.leave()
            kept = f". What was recorded until then is in {self._file.part}"
        else:
            self._file.discard()
            kept = ""
        return SinkError(f"{refusal(self._file.path, error)}{kept}")


def _fragments(kind: str) -> dict[str, str]:
    """FFmpeg's options for a file that plays however its writing ends."""
    import av

    # Neither track waits for the other, or a silent microphone would hold ten seconds of pictures back.
    options = {"flush_packets": "1", "max_interleave_delta": "200000"}
    if kind == "matroska":
        return {**options, "cluster_time_limit": str(_FRAGMENT_US // 1000)}
    # At its end this makes a plain file of the fragments; before FFmpeg 8 it stays one in fragments.
    hybrid = "+hybrid_fragmented" if av.library_versions["libavformat"] >= (62,) else ""
    flags = "empty_moov+default_base_moof" + hybrid
    return {**options, "movflags": flags, "frag_duration": str(_FRAGMENT_US)}


def _plays(path: Path) -> bool:
    """Whether at least one picture can be had from a file."""
    import av
    from av.error import FFmpegError

    try:
        with av.open(str(path)) as container:
            return next(container.decode(video=0), None) is not None
    except (FFmpegError, OSError, IndexError):
        return False


def _to_video_size(picture: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """The picture at the size of the video: edges repeated for odd sizes, fitted in if the camera changed."""
    height, width = picture.shape[:2]
    if (width, height) == size:
        return np.ascontiguousarray(picture)
    right, below = size[0] - width, size[1] - height
    if right in (0, 1) and below in (0, 1):
        return np.pad(picture, ((0, below), (0, right), (0, 0)), mode="edge")
    return fitted(picture, size)
