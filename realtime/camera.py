"""Pictures from a camera through OpenCV, by number, name, device file or URL.

OpenCV's calls may block for ever when a camera goes, so every opened camera has a `Grabber`: a daemon
thread that opens, grabs into a slot for one picture and releases, and shares nothing but the slot. Time is
taken right after the grab, from the driver where its stamp can be believed; decoding comes later. A picture
that nobody fetched in time is overtaken by the next: its number is missing, and it is counted.
"""

from __future__ import annotations

import os
import sys
import threading
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from liveaffect.realtime.clock import MS, SECOND, Clock, MonotonicClock
from liveaffect.realtime.devices import Device, by_name, devices_in_words, list_cameras
from liveaffect.realtime.errors import (
    SourceBusy,
    SourceChanged,
    SourceError,
    SourceLost,
    SourceNotFound,
    SourceRefused,
)
from liveaffect.realtime.frame import VideoFrame

_BUFFERS = 2
"""The driver fills one while the other is read; with a single one every second picture would be lost."""
_STAMP_AGE_NS = 2 * SECOND
"""A driver's stamp that says the picture is older than this is not on the monotonic clock."""
_STAMP_AHEAD_NS = 5 * MS
_FAILED_GRABS = 10
"""So many grabs in a row without a picture mean that the camera is gone."""


class Capture(Protocol):
    """The part of `cv2.VideoCapture` that is used."""

    def isOpened(self) -> bool: ...  # noqa: N802
    def grab(self) -> bool: ...
    def retrieve(self) -> tuple[bool, Any]: ...
    def get(self, prop: int, /) -> float: ...
    def set(self, prop: int, value: float, /) -> bool: ...
    def release(self) -> None: ...


@dataclass(frozen=True, slots=True)
class CaptureFormat:
    """What is asked of the camera; it gives the nearest it can."""

    size: tuple[int, int] = (640, 480)
    fps: float = 30.0


@dataclass(frozen=True, slots=True, eq=False)
class Shot:
    """One picture as OpenCV gave it."""

    seq: int
    captured_ns: int
    image: NDArray[Any]


class Grabber(threading.Thread):
    """Owns one `Capture` from opening to release, and holds the newest picture."""

    def __init__(self, name: str, make: Callable[[], Capture], clock: Clock, wish: CaptureFormat) -> None:
        super().__init__(name=f"reader of {name}", daemon=True)
        self._make = make
        self._clock = clock
        self._wish = wish
        self._device = name
        self._changed = threading.Condition()
        self._outcome = ""
        self._slot: Shot | None = None
        self._lost: str | None = None
        self._ending = False
        self._last_ns = 0
        self.losses: Counter[str] = Counter()

    def await_opening(self, timeout_s: float) -> str:
        """'open', 'refused', or '' when neither happened in time."""
        with self._changed:
            self._changed.wait_for(lambda: self._outcome or self._ending, timeout_s)
            return self._outcome

    def take(self, timeout_s: float) -> Shot | None:
        """The picture in the slot, once."""
        with self._changed:
            self._changed.wait_for(lambda: self._slot or self._lost or self._ending, timeout_s)
            if self._ending:
                raise SourceError(f"{self._device} was closed")
            shot, self._slot = self._slot, None
            if shot is None and self._lost is not None:
                raise SourceLost(self._lost)
            return shot

    def end(self) -> None:
        """Stop grabbing and wait until the device is free."""
        with self._changed:
            self._ending = True
            self._changed.notify_all()
        if self.ident is not None:
            self.join()

    def run(self) -> None:
        """Open, grab until told otherwise, release."""
        lost = f"{self._device} ended"
        capture: Capture | None = None
        try:
            capture = self._make()
            opened = capture.isOpened()
            if opened:
                self._configure(capture)
            self._tell("open" if opened else "refused")
            if opened:
                lost = self._grab_all(capture)
        except Exception as failure:  # noqa: BLE001  the one place where this thread's failure is recorded
            lost = f"{self._device} failed inside OpenCV: {failure}"
        finally:
            if capture is not None:
                capture.release()
            with self._changed:
                self._outcome = self._outcome or "refused"
                self._lost = lost
                self._changed.notify_all()

    def _configure(self, capture: Capture) -> None:
        import cv2

        if "://" in self._device:
            return
        # The order matters to V4L2: the format decides which sizes and rates there are.
        capture.set(cv2.CAP_PROP_FOURCC, cv2.VideoWriter.fourcc(*"MJPG"))
        capture.set(cv2.CAP_PROP_FRAME_WIDTH, self._wish.size[0])
        capture.set(cv2.CAP_PROP_FRAME_HEIGHT, self._wish.size[1])
        capture.set(cv2.CAP_PROP_FPS, self._wish.fps)
        capture.set(cv2.CAP_PROP_BUFFERSIZE, _BUFFERS)

    def _tell(self, outcome: str) -> None:
        with self._changed:
            self._outcome = outcome
            self._changed.notify_all()

    def _grab_all(self, capture: Capture) -> str:
        """Fill the slot until the end; returns what is to be said about it."""
        seq = failed = 0
        while not self._ending:
            if not capture.grab():
                failed += 1
                if failed >= _FAILED_GRABS or not capture.isOpened():
                    return (
                        f"{self._device} stopped delivering after picture {seq - 1}. It was unplugged, or "
                        "another program took it. Trying again; stop with Ctrl-C."
                    )
                continue
            captured_ns = self._stamp(capture)
            good, image = capture.retrieve()
            if not good or image is None or image.size == 0:
                self.losses["pictures that could not be decoded"] += 1
            else:
                failed = 0
                self._put(Shot(seq, captured_ns, image))
            seq += 1
        return f"{self._device} was closed"

    def _put(self, shot: Shot) -> None:
        with self._changed:
            if self._slot is not None:
                self.losses["pictures overtaken by the next"] += 1
            self._slot = shot
            self._changed.notify_all()

    def _stamp(self, capture: Capture) -> int:
        """When the picture just grabbed was captured: the driver's word where it can be believed."""
        now_ns = self._clock.now_ns()
        if isinstance(self._clock, MonotonicClock) and "://" not in self._device:
            import cv2

            driver_ns = self._clock.from_monotonic_ns(round(capture.get(cv2.CAP_PROP_POS_MSEC) * MS))
            if now_ns - _STAMP_AGE_NS <= driver_ns <= now_ns + _STAMP_AHEAD_NS:
                now_ns = min(driver_ns, now_ns)
        self._last_ns = max(self._last_ns, now_ns)
        return self._last_ns


OPEN_S = 20.0
"""Opening takes up to 12 s with some Windows drivers, a network camera a few."""
OPEN_URL_MS, READ_URL_MS = 8_000, 2_500
"""OpenCV waits 30 s for a network that is away; after 26 s of that a picture came back 6 s late, not 1."""


def opencv_capture(target: int | str) -> Capture:
    """OpenCV's reader for a device or URL, with the back end that suits the platform."""
    # OpenCV reads this when it is loaded: a camera that stalls is let go after a second instead of ten.
    os.environ.setdefault("OPENCV_VIDEOIO_V4L_SELECT_TIMEOUT", "1")
    import cv2

    if isinstance(target, str) and "://" in target:
        waits = [cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, OPEN_URL_MS, cv2.CAP_PROP_READ_TIMEOUT_MSEC, READ_URL_MS]
        return cv2.VideoCapture(target, cv2.CAP_FFMPEG, waits)
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
