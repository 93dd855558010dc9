"""Pictures from a camera through OpenCV, by number, name, device file or URL.

OpenCV's calls may block for ever when a camera goes, so every opened camera has its own `Grabber`, and
`read` waits at its slot for one picture. A picture that nobody fetched in time is overtaken by the next:
its number is missing, and it is counted.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from liveaffect.realtime.capture.grabber import Capture, CaptureFormat, Grabber
from liveaffect.realtime.clock import Clock
from liveaffect.realtime.devices import Device, by_name, devices_in_words, list_cameras
from liveaffect.realtime.errors import (
    SourceBusy,
    SourceChanged,
    SourceError,
    SourceNotFound,
    SourceRefused,
)
from liveaffect.realtime.frame import VideoFrame

OPEN_S = 20.0
"""Opening takes up to 12 s with some Windows drivers, a network camera a few."""


def opencv_capture(target: int | str) -> Capture:
    """OpenCV's reader for a device or URL, with the back end that suits the platform."""
    # OpenCV reads this when it is loaded: a camera that stalls is let go after a second instead of ten.
    os.environ.setdefault("OPENCV_VIDEOIO_V4L_SELECT_TIMEOUT", "1")
    import cv2

    if isinstance(target, str) and "://" in target:
        return cv2.VideoCapture(target, cv2.CAP_ANY)
    backend = {"linux": cv2.CAP_V4L2, "win32": cv2.CAP_MSMF, "darwin": cv2.CAP_AVFOUNDATION}
    return cv2.VideoCapture(target, backend.get(sys.platform, cv2.CAP_ANY))


class Camera:
    """One camera as a source of pictures. Opened and read by one thread."""

    def __init__(
        self,
        spec: str,
        clock: Clock,
        wish: CaptureFormat | None = None,
        *,
        capture: Callable[[int | str], Capture] = opencv_capture,
        devices: Callable[[], list[Device]] = list_cameras,
        title: str = "",
    ) -> None:
        """`title`: what it is called, where its address is not to be seen."""
        self._spec = spec
        self._title = title
        self._clock = clock
        self._wish = wish or CaptureFormat()
        self._make_capture = capture
        self._devices = devices
        self._grabber: Grabber | None = None
        self._size: tuple[int, int] | None = None
        self._closed = False

    @property
    def name(self) -> str:
        """'camera:' and what the user called it, without a password."""
        if self._title:
            return f"camera:{self._title}"
        if "://" in self._spec:
            scheme, rest = self._spec.split("://", 1)
            return f"camera:{scheme}://{rest.rsplit('@', 1)[-1]}"
        return f"camera:{self._spec}"

    @property
    def losses(self) -> Mapping[str, int]:
        """Pictures left out since opening, by cause."""
        return dict(self._grabber.losses) if self._grabber else {}

    def open(self) -> None:
        """Find it and start it. Raises SourceNotFound, SourceBusy, SourceRefused or SourceError."""
        if self._closed or self._grabber:
            raise SourceError(f"{self.name} was opened before; a source is opened once")
        target = self._find()
        self._grabber = Grabber(self.name, lambda: self._make_capture(target), self._clock, self._wish)
        self._grabber.start()
        outcome = self._grabber.await_opening(OPEN_S)
        if outcome == "refused":
            raise self._why_not(target)
        if outcome != "open":
            raise SourceError(
                f"{self.name} did not open within {OPEN_S:.0f} s. Its driver hangs: plug it out and in again"
            )

    def read(self, timeout_s: float) -> VideoFrame | None:
        """The newest picture that was not read yet. Raises SourceLost or SourceChanged."""
        if self._grabber is None or self._closed:
            raise SourceError(f"{self.name} is not open")
        shot = self._grabber.take(timeout_s)
        if shot is None:
            return None
        image = _rgb(shot.image)
        size = image.shape[1], image.shape[0]
        if self._size not in (None, size):
            self._grabber.losses["pictures of another size"] += 1
            raise SourceChanged(
                f"{self.name} changed its picture size from {self._size} to {size}; opening it again"
            )
        self._size = size
        return VideoFrame(self.name, shot.seq, shot.captured_ns, image)

    def close(self) -> None:
        """Let go. Safe to call twice. Returns when the device is free, so it waits for a hanging driver."""
        self._closed = True
        if self._grabber is not None:
            self._grabber.end()

    def _find(self) -> int | str:
        spec = self._spec
        if "://" in spec:
            return spec
        if spec.isdecimal():
            return int(spec)
        if os.path.isabs(spec):
            if os.path.exists(spec):
                return spec
            raise SourceNotFound(
                f"there is no camera '{spec}'. {devices_in_words('Cameras', self._devices())}"
            )
        known = self._devices()
        found = by_name(known, spec)
        if found is None and os.path.isdir(spec):
            raise SourceNotFound(f"'{spec}' is a folder; name a film in it, or: liveaffect analyze {spec}")
        if found is None:
            raise SourceNotFound(f"no camera matches '{spec}'. {devices_in_words('Cameras', known)}")
        return found.index

    def _why_not(self, target: int | str) -> SourceError:
        """OpenCV only says no; the reason is asked of the system."""
        if isinstance(target, str) and "://" in target:
            return SourceNotFound(f"{self.name} could not be opened: no answer, or not a video stream")
        known = self._devices()
        path = f"/dev/video{target}" if isinstance(target, int) else target
        if sys.platform == "linux" and os.path.exists(path):
            if not os.access(path, os.R_OK | os.W_OK):
                return SourceRefused(
                    f"camera '{path}' is there, but this user may not open it. "
                    "Join its group and log in again: sudo usermod -aG video $USER"
                )
            return SourceBusy(
                f"camera '{path}' is there but does not open: another program holds it, or it gives none. "
                "Most cameras serve one program at a time: close the other, or choose another camera; OBS "
                f"can show our picture instead (docs/video-calls.md). {devices_in_words('Cameras', known)}"
            )
        return SourceNotFound(f"there is no camera {target}. {devices_in_words('Cameras', known)}")


def _rgb(image: NDArray[Any]) -> NDArray[np.uint8]:
    """Whatever OpenCV gave, as a new RGB picture."""
    import cv2

    if image.dtype != np.uint8:
        scale = 255.0 / float(np.iinfo(image.dtype).max) if image.dtype.kind in "ui" else 255.0
        image = np.clip(image * scale, 0, 255).astype(np.uint8)
    channels = 1 if image.ndim == 2 else image.shape[2]
    code = {1: cv2.COLOR_GRAY2RGB, 3: cv2.COLOR_BGR2RGB, 4: cv2.COLOR_BGRA2RGB}.get(channels)
    if code is None:
        raise SourceChanged(f"the camera gave a picture with {channels} channels; 1, 3 or 4 are understood")
    return np.asarray(cv2.cvtColor(image, code), np.uint8)
