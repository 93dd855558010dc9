"""Devices that are not there: a camera behind OpenCV's interface, a microphone behind PortAudio's, a script.

Each can do what real ones do on a bad day (hang, vanish, change size, deliver zeros), when the test says so.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterable
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from liveaffect.realtime.capture.portaudio import FormatRefused, Heard
from liveaffect.realtime.clock import MS, Clock
from liveaffect.realtime.devices import Device
from liveaffect.realtime.errors import EndOfStream, SourceError
from liveaffect.realtime.frame import AudioBlock, VideoFrame

Mode = Literal["frames", "hang", "zeros", "undecodable", "unplugged"]
_POS_MSEC = 0
"""OpenCV's number of the property that holds the driver's stamp."""


class FakeCamera:
    """The device. Pass it to `Camera(capture=...)`: each call opens a capture of it."""

    def __init__(self, size: tuple[int, int] = (64, 48), *, period_s: float = 0.002) -> None:
        self.size = size
        self.period_s = period_s
        self.stamp_ms = 0.0
        self.opened = self.in_use = self.grabbed = 0
        self.asked: dict[int, float] = {}
        self._mode: Mode = "frames"
        self._changed = threading.Condition()

    def __call__(self, target: int | str) -> FakeCapture:
        """What `cv2.VideoCapture(target)` would give."""
        return FakeCapture(self)

    def become(self, mode: Mode) -> None:
        """Behave like this from now on; wakes whoever hangs."""
        with self._changed:
            self._mode = mode
            self._changed.notify_all()

    @property
    def mode(self) -> Mode:
        """How it behaves at the moment."""
        return self._mode

    def wait_for_picture(self) -> bool:
        """Block for a period, or while it hangs; False when there is no picture."""
        with self._changed:
            self._changed.wait_for(lambda: self._mode == "unplugged", self.period_s)
            self._changed.wait_for(lambda: self._mode != "hang")
            return self._mode != "unplugged"

    def count(self, change: int) -> None:
        """One more or one fewer capture holds the device."""
        with self._changed:
            self.in_use += change
            self.opened += max(change, 0)


class FakeCapture:
    """The part of `cv2.VideoCapture` that a camera uses."""

    def __init__(self, camera: FakeCamera) -> None:
        self._camera = camera
        self._held = camera.mode != "unplugged"
        if self._held:
            camera.count(1)

    def isOpened(self) -> bool:  # noqa: N802  OpenCV's name
        """Whether it holds the device."""
        return self._held

    def grab(self) -> bool:
        """Wait for the next picture."""
        good = self._camera.wait_for_picture()
        self._camera.grabbed += good
        return good

    def retrieve(self) -> tuple[bool, Any]:
        """A picture whose blue is 10, green 20, and red counts up."""
        camera = self._camera
        if camera.mode == "undecodable":
            return False, None
        image = np.zeros((camera.size[1], camera.size[0], 3), np.uint8)
        if camera.mode != "zeros":
            image[:] = (10, 20, camera.grabbed % 200 + 1)
        return True, image

    def get(self, prop: int, /) -> float:
        """Only the driver's stamp is known."""
        return self._camera.stamp_ms if prop == _POS_MSEC else 0.0

    def set(self, prop: int, value: float, /) -> bool:
        """Remember what was asked."""
        self._camera.asked[prop] = value
        return True

    def release(self) -> None:
        """Let go of the device."""
        if self._held:
            self._held = False
            self._camera.count(-1)


class FakeSound:
    """A sound system with one microphone that a test speaks into with `hear`."""

    def __init__(self, rate_hz: int = 16_000, channels: int = 1, *, only_own_format: bool = True) -> None:
        self.rate_hz = rate_hz
        self.channels = channels
        self.active = False
        self.device = Device(0, "Fake Microphone", "fake")
        self.refused: list[tuple[int, int]] = []
        self._only_own_format = only_own_format
        self._heard: Heard | None = None

    def inputs(self) -> list[Device]:
        """The one microphone."""
        return [self.device]

    def default(self) -> Device | None:
        """The one microphone."""
        return self.device

    def own_format(self, device: Device) -> tuple[int, int]:
        """Rate and channels it was made with."""
        return self.rate_hz, self.channels

    def start(self, device: Device, rate_hz: int, channels: int, heard: Heard) -> FakeSound:
        """Begin to listen, in its own format if it knows no other."""
        if self._only_own_format and (rate_hz, channels) != (self.rate_hz, self.channels):
            self.refused.append((rate_hz, channels))
            raise FormatRefused(f"{rate_hz} Hz with {channels} channels is not known here")
        self._heard, self.active = heard, True
        return self

    def hear(self, samples: NDArray[np.float32], *, age_s: float = 0.0, flagged: bool = False) -> None:
        """What PortAudio's callback would be given: (n,) for all channels alike, or (n, channels)."""
        assert self._heard is not None, "nobody listens"
        if samples.ndim == 1:
            samples = np.repeat(samples[:, None], self.channels, axis=1)
        self._heard(samples, age_s, flagged)

    def close(self) -> None:
        """The end of the stream."""
        self.active = False


class ScriptedSource:
    """Delivers what the script says when the clock says so: (time, item or exception) in order.

    After the script it hangs quietly. Exceptions at time 0 are raised by `open`.
    """

    def __init__(
        self,
        clock: Clock,
        script: Iterable[tuple[int, VideoFrame | AudioBlock | Exception]],
        name: str = "camera:scripted",
    ) -> None:
        self._clock = clock
        self._script = deque(script)
        self._stop = threading.Event()
        self.name = name
        self.closed = 0
        self._opened_ns: int | None = None

    def open(self) -> None:
        """Begin; the script's time counts from here."""
        if self._stop.is_set():
            raise SourceError(f"{self.name} was opened before")
        self._opened_ns = self._clock.now_ns()
        if self._script and self._script[0][0] == 0 and isinstance(self._script[0][1], Exception):
            raise self._script.popleft()[1]  # type: ignore[misc]

    def read(self, timeout_s: float) -> VideoFrame | AudioBlock | None:
        """The next step of the script when its time has come."""
        if self._stop.is_set() or self._opened_ns is None:
            raise SourceError(f"{self.name} is not open")
        give_up_ns = self._clock.now_ns() + round(timeout_s * 1000) * MS
        due_ns = self._opened_ns + self._script[0][0] if self._script else give_up_ns + 1
        if not self._clock.wait_until(min(due_ns, give_up_ns), self._stop):
            raise SourceError(f"{self.name} was closed")
        if due_ns > give_up_ns:
            return None
        step = self._script[0][1]
        if isinstance(step, EndOfStream):
            raise step
        self._script.popleft()
        if isinstance(step, Exception):
            raise step
        return step

    def close(self) -> None:
        """Count, and end a wait."""
        self.closed += 1
        self._stop.set()


def picture(seq: int, captured_ns: int, *, level: int = 100, source: str = "camera:scripted") -> VideoFrame:
    """A small even picture."""
    return VideoFrame(source, seq, captured_ns, np.full((48, 64, 3), level, np.uint8))


def tone(first: int, count: int, captured_ns: int, *, source: str = "mic:scripted") -> AudioBlock:
    """A stretch of 440 Hz whose phase follows the sample number."""
    phase = 2 * np.pi * 440 / 16_000 * np.arange(first, first + count)
    return AudioBlock(source, first, captured_ns, (0.3 * np.sin(phase)).astype(np.float32))
