"""Pictures of a network camera by PyAV: the smallest stream that is large enough, decoded by hardware.

Takes the place of `cv2.VideoCapture` in a `Grabber`. What FFmpeg says about an address is not handed on,
because it repeats the address, in which a password may stand.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import cv2  # noqa: F401  before PyAV, or a window never opens

# isort: split
import av
from av.codec.hwaccel import HWAccel, hwdevices_available
from av.error import FFmpegError
from av.stream import Discard

from liveaffect.realtime.decode import shown_size

DECODERS = ("auto", "software", "cuda", "vaapi", "qsv")
_DEVICES = {"cuda": "/dev/nvidia0", "vaapi": "/dev/dri/renderD128", "qsv": "/dev/dri/renderD128"}
"""What must be there before FFmpeg is asked for a decoder in hardware."""
_OPEN_S, _READ_S = 5.0, 2.0
_OPTIONS = {
    "rtsp_transport": "tcp",
    "fflags": "nobuffer",
    "flags": "low_delay",
    "probesize": "500000",
    "analyzeduration": "1000000",
}
"""Packets that are lost on the way would be smeared pictures; what is held back would be old ones."""
_LOG = logging.getLogger(__name__)


class StreamCapture:
    """One stream, opened when it is made; the part of `cv2.VideoCapture` that a `Grabber` uses."""

    def __init__(self, url: str, name: str, least: tuple[int, int], decoder: str = "auto") -> None:
        """`least`: the picture size that is enough; a larger stream is taken only where no other is."""
        self._container: Any = None
        self._stream: Any = None
        self._picture: Any = None
        self._pictures: Iterator[Any] = iter(())
        for device in decoders(decoder):
            try:
                self._open(url, name, least, device)
                return
            except (FFmpegError, ValueError, NotImplementedError) as failure:
                self.release()
                _LOG.warning(
                    "%s cannot be read (%s): %s", name, device or "in software", _without_address(failure)
                )

    def isOpened(self) -> bool:  # noqa: N802
        """Whether there is a stream."""
        return self._container is not None

    def grab(self) -> bool:
        """Wait for the next picture; it stays compressed no longer than decoding takes."""
        try:
            self._picture = next(self._pictures, None)
        except FFmpegError as failure:
            _LOG.info("a stream broke off: %s", _without_address(failure))
            self._picture = None
        if self._picture is None:
            self.release()
        return self._picture is not None

    def retrieve(self) -> tuple[bool, Any]:
        """The picture that was grabbed, in OpenCV's order of colours."""
        picture, self._picture = self._picture, None
        if picture is None or picture.is_corrupt:
            return False, None
        width, height = shown_size(self._stream, picture.width, picture.height)
        return True, picture.to_ndarray(format="bgr24", width=width, height=height)

    def get(self, prop: int, /) -> float:
        """Nothing is known."""
        return 0.0

    def set(self, prop: int, value: float, /) -> bool:
        """Nothing can be asked of a stream."""
        return False

    def release(self) -> None:
        """Close it. Safe to call twice."""
        container, self._container = self._container, None
        self._picture = self._stream = None
        self._pictures = iter(())
        if container is not None:
            container.close()

    def _open(self, url: str, name: str, least: tuple[int, int], device: str | None) -> None:
        options = {key: value for key, value in _OPTIONS.items() if key[:4] != "rtsp" or url[:4] == "rtsp"}
        wanted = None if device is None else HWAccel(device, allow_software_fallback=True)
        container = av.open(url, options=options, timeout=(_OPEN_S, _READ_S), hwaccel=wanted)
        self._container = container
        streams = [stream for stream in container.streams.video if stream.codec_context is not None]
        if not streams:
            raise ValueError("it has no pictures")
        chosen = streams[substream([(s.width, s.height) for s in streams], least)]
        for stream in container.streams:
            stream.discard = Discard.default if stream is chosen else Discard.all
        chosen.thread_type = "NONE"
        self._stream = chosen
        self._pictures = container.decode(chosen)
        _LOG.info("%s: %dx%d of %d streams, %s", name, chosen.width, chosen.height, len(streams), device)


def substream(sizes: Sequence[tuple[int, int]], least: tuple[int, int]) -> int:
    """Which of these to read: the smallest that is large enough, else the largest."""
    enough = [i for i, (wide, high) in enumerate(sizes) if wide >= least[0] and high >= least[1]]
    pixels = [wide * high for wide, high in sizes]
    return min(enough, key=pixels.__getitem__) if enough else max(range(len(sizes)), key=pixels.__getitem__)


def decoders(wish: str) -> list[str | None]:
    """What to try, in this order; None is software, which always is the last."""
    if wish == "software":
        return [None]
    known = [name for name in DECODERS[2:] if name in hwdevices_available()]
    wanted = known if wish == "auto" else [wish]
    return [*(name for name in wanted if name in known and Path(_DEVICES[name]).exists()), None]


def _without_address(failure: Exception) -> str:
    """Without the address, which FFmpeg puts behind its words."""
    return failure.strerror or "no stream" if isinstance(failure, FFmpegError) else str(failure)
