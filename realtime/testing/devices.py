"""Devices that are not there: cameras behind OpenCV, microphones behind PortAudio or a sound server.

The fakes do what real ones do on a bad day (hang, vanish, change size, deliver zeros) when the test says
so. The driven ones follow a fault script, one item at a time on the clock, with the real `Camera` and
`Microphone` between device and reader. A device cannot repeat a number or set back a stamp that the program
makes itself; there the fault becomes what such a device does: the same content again, a wrong age. The
virtual microphone is a PulseAudio server with its own home, without root, systemd or D-Bus: what is played
into it comes out of PortAudio. The virtual screen is an X server without a monitor.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from liveaffect.engines.recipe import SAMPLE_RATE
from liveaffect.realtime.camera import Camera
from liveaffect.realtime.clock import MS, SECOND, Clock
from liveaffect.realtime.devices import Device
from liveaffect.realtime.errors import EndOfStream, SourceError, SourceNotFound
from liveaffect.realtime.frame import AudioBlock, VideoFrame
from liveaffect.realtime.microphone import Microphone
from liveaffect.realtime.sound_device import FormatRefused, Heard
from liveaffect.realtime.testing.faults import (
    Drop,
    Fault,
    FormatChange,
    LateBurst,
    Repeat,
    Script,
    Silence,
    Stall,
    TimeGoesBack,
    Unplug,
)

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


_GRAB_S = 2.0
"""Real time within which the camera's thread takes a picture that is there."""
SAMPLES = SAMPLE_RATE // 50
"""In one block of the driven microphone."""


class World:
    """The device as it is while sources come and go: which item is next, and until when it is away."""

    def __init__(self, script: Script, period_ns: int) -> None:
        self.period_ns = period_ns
        self.due_ns = period_ns
        self.index = 0
        self.made = 0
        """Pictures or samples that the device made."""
        self.away_until_ns = 0
        self._script = tuple(script)

    def next(self) -> list[Fault]:
        """The faults that begin with the next item; moves on to it."""
        mine = [fault for fault in self._script if fault.first == self.index]
        self.index += 1
        return mine

    def within(self, kind: type[Drop] | type[Silence] | type[TimeGoesBack]) -> bool:
        """Whether the item that was taken last is one of such a fault's `count`."""
        at = self.index - 1
        return any(isinstance(f, kind) and f.first <= at < f.first + f.count for f in self._script)

    def go_away(self, fault: Unplug, now_ns: int) -> None:
        """The device is pulled out."""
        self.away_until_ns = -1 if fault.away_ns is None else now_ns + fault.away_ns

    def is_away(self, now_ns: int) -> bool:
        """Whether it is out at the moment."""
        return self.away_until_ns == -1 or now_ns < self.away_until_ns


class _Driven:
    """What both have in common: the pace, and an end to waiting."""

    def __init__(self, world: World, clock: Clock) -> None:
        self._world = world
        self._clock = clock
        self._stop = threading.Event()

    def _wait(self, timeout_s: float) -> bool:
        """Wait for the next item; False if it does not come in time."""
        world, until_ns = self._world, self._clock.now_ns() + round(timeout_s * SECOND)
        self._clock.wait_until(min(world.due_ns, until_ns), self._stop)
        return self._clock.now_ns() >= world.due_ns

    def _refuse_while_away(self, name: str) -> None:
        if self._world.is_away(self._clock.now_ns()):
            raise SourceNotFound(f"{name} is unplugged")
        self._world.due_ns = max(self._world.due_ns, self._clock.now_ns() + self._world.period_ns)


class SteppedCamera(FakeCamera):
    """Gives a picture when `step` says so."""

    def __init__(self) -> None:
        super().__init__()
        self.ending = False
        self.came = threading.Event()
        """The camera's thread came for a picture: what it took before is dealt with."""
        self._steps = threading.Semaphore(0)

    def step(self) -> None:
        """One more picture is there."""
        self._steps.release()

    def wait_for_picture(self) -> bool:
        """Block until there is a picture; False when there is none any more."""
        self.came.set()
        while not (self.ending or self._is_gone()):
            if self._steps.acquire(timeout=0.005):
                return not self._is_gone()
        return False

    def _is_gone(self) -> bool:
        return self.mode == "unplugged"


class DrivenCamera(_Driven):
    """The real `Camera` over a fake device."""

    def __init__(self, world: World, clock: Clock) -> None:
        super().__init__(world, clock)
        self._device = SteppedCamera()
        self._camera = Camera("0", clock, capture=self._device, devices=list[Device])

    @property
    def name(self) -> str:
        """'camera:0'."""
        return self._camera.name

    @property
    def losses(self) -> dict[str, int]:
        """What the camera counted."""
        return dict(self._camera.losses)

    def open(self) -> None:
        """SourceNotFound while it is unplugged."""
        self._refuse_while_away(self.name)
        self._camera.open()

    def read(self, timeout_s: float) -> VideoFrame | None:
        """The next picture at its time."""
        if not self._wait(timeout_s):
            return None
        world, now_ns = self._world, self._clock.now_ns()
        faults = world.next()
        world.due_ns += world.period_ns
        burst = 1
        for fault in faults:
            if isinstance(fault, Stall):
                world.due_ns += fault.length_ns
            elif isinstance(fault, Unplug):
                world.go_away(fault, now_ns)
                self._device.become("unplugged")
                return self._camera.read(_GRAB_S)
            elif isinstance(fault, FormatChange):
                self._device.size = (fault.width, fault.height)
            elif isinstance(fault, LateBurst):
                burst = fault.count
            elif isinstance(fault, Repeat):
                burst = 1 + fault.times
        undecodable = world.within(Drop)
        self._device.become("undecodable" if undecodable else "zeros" if world.within(Silence) else "frames")
        for _ in range(burst):
            self._grab()
        return None if undecodable else self._camera.read(_GRAB_S)

    def close(self) -> None:
        """Let go."""
        self._stop.set()
        self._device.ending = True
        self._camera.close()

    def _grab(self) -> None:
        """Have one picture taken, and wait until it lies in the slot or was thrown away."""
        self._device.came.clear()
        self._device.step()
        self._world.made += 1
        assert self._device.came.wait(_GRAB_S), "the camera's thread did not take a picture that was there"


class DrivenMicrophone(_Driven):
    """The real `Microphone` over a fake sound system."""

    def __init__(self, world: World, clock: Clock, tone: Callable[[int], NDArray[np.float32]]) -> None:
        super().__init__(world, clock)
        self._sound = FakeSound()
        self._tone = tone
        self._microphone = Microphone("fake", clock, self._sound)

    @property
    def name(self) -> str:
        """'mic:fake'."""
        return self._microphone.name

    @property
    def losses(self) -> dict[str, int]:
        """What the microphone counted."""
        return dict(self._microphone.losses)

    def open(self) -> None:
        """SourceNotFound while it is unplugged."""
        self._refuse_while_away(self.name)
        self._microphone.open()

    def read(self, timeout_s: float) -> AudioBlock | None:
        """The next block when its last sample was captured."""
        held = self._microphone.read(0.0)
        if held is not None:
            return held
        if not self._wait(timeout_s):
            return None
        if self._world.is_away(self._clock.now_ns()):
            return None
        for age_s, samples in self._blocks():
            self._sound.hear(samples, age_s=age_s)
        return self._microphone.read(0.0)

    def close(self) -> None:
        """Let go."""
        self._stop.set()
        self._microphone.close()

    def _blocks(self) -> Iterator[tuple[float, NDArray[np.float32]]]:
        """What the device hands over now: age in seconds of the first sample, and samples."""
        world, length_s = self._world, self._world.period_ns / SECOND
        late = 1
        back_s = 0.0
        times = 1
        for fault in world.next():
            if isinstance(fault, Stall):
                world.due_ns += fault.length_ns
            elif isinstance(fault, Unplug | FormatChange):
                if isinstance(fault, Unplug):
                    world.go_away(fault, self._clock.now_ns())
                self._sound.active = False
                world.due_ns += world.period_ns
                return
            elif isinstance(fault, LateBurst):
                late = fault.count
            elif isinstance(fault, Repeat):
                times += fault.times
            elif isinstance(fault, TimeGoesBack):
                back_s = fault.by_ns / SECOND
        world.due_ns += world.period_ns
        if late > 1:
            # The blocks of the burst are made on time and handed over with the last of them.
            self._clock.wait_until(self._clock.now_ns() + (late - 1) * world.period_ns, self._stop)
            world.due_ns += (late - 1) * world.period_ns
            world.index += late - 1
        if world.within(Drop):
            return
        samples = self._tone(world.index)
        if world.within(Silence):
            samples = np.zeros_like(samples)
        for k in range(late * times):
            world.made += len(samples)
            yield max(late - k, 1) * length_s + back_s, samples


PACKAGES = "pulseaudio pulseaudio-utils libasound2-plugins libportaudio2"
_UP_S = 10.0


def why_no_virtual_microphone() -> str | None:
    """Why there can be no virtual microphone here, in one sentence, or None."""
    absent = [tool for tool in ("pulseaudio", "pactl", "pacat") if shutil.which(tool) is None]
    if absent:
        return f"needs {', '.join(absent)}; install the Debian packages {PACKAGES}"
    return None


class VirtualMicrophone:
    """The sound server while it runs."""

    def __init__(self, environment: dict[str, str], server: subprocess.Popen[bytes]) -> None:
        self.environment = environment
        """With it, other programs find the server."""
        self._server = server

    def stand_still(self) -> None:
        """Answer nobody any more, as a server does that hangs."""
        self._server.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        """After `stand_still`."""
        self._server.send_signal(signal.SIGCONT)

    def play(self, samples: NDArray[np.float32], rate_hz: int) -> subprocess.Popen[bytes]:
        """Begin to speak mono samples into the microphone; wait for the process to hear them out."""
        player = subprocess.Popen(
            [
                "pacat",
                "--playback",
                "--device=vmic",
                "--format=float32le",
                f"--rate={rate_hz}",
                "--channels=1",
            ],
            stdin=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=self.environment,
        )
        assert player.stdin is not None
        feeder = threading.Thread(target=_feed, args=(player, samples.astype("<f4").tobytes()), daemon=True)
        feeder.start()
        return player


@contextmanager
def virtual_microphone(rate_hz: int = 48_000, channels: int = 2) -> Iterator[VirtualMicrophone]:
    """Start the server, make its microphone the default of this process, and end it again."""
    with tempfile.TemporaryDirectory(prefix="pulse") as folder:
        own = {"XDG_RUNTIME_DIR": f"{folder}/run", "HOME": f"{folder}/home"}
        for path in own.values():
            os.mkdir(path, 0o700)
        before = {key: os.environ.get(key) for key in own}
        os.environ.update(own)
        sink = f"module-null-sink sink_name=vmic rate={rate_hz} channels={channels}"
        source = "module-remap-source master=vmic.monitor source_name=mic"
        server = subprocess.Popen(
            ["pulseaudio", "--daemonize=no", "--exit-idle-time=-1", "-n"]
            + [f"--load={module}" for module in ("module-native-protocol-unix", sink, source)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            _await_server(server)
            yield VirtualMicrophone({**os.environ}, server)
        finally:
            server.terminate()
            server.wait(5.0)
            for key, value in before.items():
                if value is None:
                    os.environ.pop(key)
                else:
                    os.environ[key] = value


def _await_server(server: subprocess.Popen[bytes]) -> None:
    for _ in range(round(_UP_S / 0.05)):
        done = subprocess.run(["pactl", "set-default-source", "mic"], capture_output=True, check=False)
        if done.returncode == 0:
            return
        if server.poll() is not None:
            break
        threading.Event().wait(0.05)
    raise RuntimeError("pulseaudio did not come up")


def _feed(player: subprocess.Popen[bytes], data: bytes) -> None:
    assert player.stdin is not None
    try:
        player.stdin.write(data)
        player.stdin.close()
    except BrokenPipeError:
        return


@contextmanager
def virtual_screen(width: int, height: int) -> Iterator[str]:
    """A screen of X11 that nobody else sees, by Xvfb; its name, as in DISPLAY."""
    read, write = os.pipe()
    screen = ["-screen", "0", f"{width}x{height}x24", "-noreset", "-nolisten", "tcp"]
    with subprocess.Popen(
        ["Xvfb", "-displayfd", str(write), *screen], pass_fds=[write], stderr=subprocess.DEVNULL
    ) as run:
        os.close(write)
        with os.fdopen(read) as told:
            name = f":{told.readline().strip()}"
        try:
            yield name
        finally:
            run.terminate()
