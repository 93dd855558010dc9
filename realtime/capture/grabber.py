"""The thread that owns one opened camera: it opens, grabs into a slot for one picture, and releases.

It may hang in any of these, which is why it is a daemon of its own that shares nothing but the slot. Time
is taken right after the grab, from the driver where its stamp can be believed; decoding comes later.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from numpy.typing import NDArray

from liveaffect.realtime.clock import MS, SECOND, Clock, MonotonicClock
from liveaffect.realtime.errors import SourceError, SourceLost

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
