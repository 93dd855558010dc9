"""The drawn picture with sound as a video file: H.264 and AAC, MPEG-4 part 2 where there is no H.264.

Every picture keeps the time at which it was captured, so a camera's uneven rate stays as it was and the
sound fits. Where no sound comes within the first seconds the file has none, instead of an empty track.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from liveaffect.engines.recipe import SAMPLE_RATE
from liveaffect.realtime.clock import SECOND
from liveaffect.realtime.cue import Cue
from liveaffect.realtime.errors import MissingLibrary, SinkError
from liveaffect.realtime.frame import AudioBlock, VideoFrame
from liveaffect.realtime.sinks.disk import Replacing, refusal

if TYPE_CHECKING:
    from av.video.stream import VideoStream

TICKS_HZ = 90_000
_WAIT_FOR_SOUND_NS = 3 * SECOND
"""A microphone's first sound can come two seconds after the first picture."""
_CODECS = (
    ("libx264", {"preset": "veryfast", "crf": "20"}),
    ("mpeg4", {"qscale": "4"}),
)
_AAC_SAMPLES = 1_024
_SLACK = SAMPLE_RATE // 50
"""Samples by which sound may stray from its time before silence is put in or sound is cut."""


class VideoFile:
    """One file for each camera: the first has the name asked for, others their source's name added."""

    wants_pictures = True
    wants_sound = True

    def __init__(self, path: str) -> None:
        self._path = Path(path)
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
            since_ns = block.captured_ns - _WAIT_FOR_SOUND_NS
            self._early = [b for b in self._early if b.captured_ns >= since_ns] + [block]
        for recording in self._recordings.values():
            recording.add_sound(block)

    def close(self) -> None:
        """Finish the files; safe to call twice. Without any picture no file is left."""
        if self._closed:
            return
        self._closed = True
        if self._first is not None:
            self._first.discard()
        failures = []
        for recording in self._recordings.values():
            try:
                recording.finish()
            except SinkError as error:
                failures.append(error)
        if failures:
            raise failures[0]

    def _start(self, frame: VideoFrame) -> _Recording:
        if self._first is not None:
            file, self._first = self._first, None
        else:
            name = "".join(c if c.isalnum() else "_" for c in frame.source)
            file = Replacing(self._path.with_stem(f"{self._path.stem}-{name}"))
        recording = _Recording(file, frame)
        self._recordings[frame.source] = recording
        for block in self._early:
            recording.add_sound(block)
        return recording


class _Recording:
    """One file in the making. Times count from its first picture."""

    def __init__(self, file: Replacing, frame: VideoFrame) -> None:
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
        try:
            self._container: Any = av.open(str(file.temporary), "w")
            self._video = self._new_video()
        except self._errors as error:
            raise self._fail(error) from error
        self._sound: Any = None
        self._waiting: list[Any] | None = []
        """Packets held back until it is known whether there is sound; None once it is."""
        self._last_tick = -1
        self._samples = np.zeros(0, np.float32)
        self._written = 0
        """Samples taken in, from the first picture on."""

    def add_picture(self, picture: NDArray[np.uint8], captured_ns: int) -> None:
        """Append a picture, made to fit the first one's size."""
        tick = max((captured_ns - self._start_ns) * TICKS_HZ // SECOND, self._last_tick + 1)
        self._last_tick = tick
        image = self._av.VideoFrame.from_ndarray(_fitted(picture, self._size), format="rgb24")
        image.pts, image.time_base = tick, Fraction(1, TICKS_HZ)
        try:
            self._mux(self._video.encode(image))
            if self._waiting is not None and captured_ns - self._start_ns > _WAIT_FOR_SOUND_NS:
                self._release()
        except self._errors as error:
            raise self._fail(error) from error

    def add_sound(self, block: AudioBlock) -> None:
        """Append sound where it belongs: gaps become silence, overlaps are cut."""
        if self._sound is None and self._waiting is None:
            return  # the file has begun without sound and cannot get any now
        start = (block.captured_ns - self._start_ns) * SAMPLE_RATE // SECOND
        samples = block.samples
        if start < 0:
            samples, start = samples[-start:], 0
        if not len(samples):
            return
        try:
            if self._sound is None:
                self._sound = self._container.add_stream("aac", rate=SAMPLE_RATE, layout="mono")
                self._release()
            if start - self._written > _SLACK:
                while gap := min(start - self._written, SAMPLE_RATE):
                    self._take(np.zeros(gap, np.float32))
            elif self._written - start > _SLACK:
                samples = samples[self._written - start :]
            self._take(samples)
        except self._errors as error:
            raise self._fail(error) from error

    def finish(self) -> None:
        """Write what is left and give the file its name."""
        try:
            if self._sound is not None:
                self._encode_sound(whole=True)
            self._mux(self._video.encode(None))
            self._release()
            if self._sound is not None:
                self._container.mux(self._sound.encode(None))
            self._container.close()
        except self._errors as error:
            raise self._fail(error) from error
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
            self._container.mux(self._sound.encode(sound))

    def _mux(self, packets: list[Any]) -> None:
        if self._waiting is None:
            self._container.mux(packets)
        else:
            self._waiting.extend(packets)

    def _release(self) -> None:
        """It is known now which tracks the file has: write what was held back."""
        held, self._waiting = self._waiting or [], None
        self._container.mux(held)

    def _fail(self, error: Exception) -> SinkError:
        self._file.discard()
        return refusal(self._file.path, error)


def _fitted(picture: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """The picture at the size of the video: edges repeated for odd sizes, scaled if the camera changed."""
    height, width = picture.shape[:2]
    if (width, height) == size:
        return np.ascontiguousarray(picture)
    right, below = size[0] - width, size[1] - height
    if right in (0, 1) and below in (0, 1):
        return np.pad(picture, ((0, below), (0, right), (0, 0)), mode="edge")
    import cv2

    return np.asarray(cv2.resize(picture, size, interpolation=cv2.INTER_AREA), np.uint8)
