"""A camera and a microphone whose devices do what a fault script says, one item at a time on the clock.

The real `Camera` and `Microphone` sit between the fake device and the reader, so a fault passes through
the code that meets it in real life. A device cannot repeat a number or set back a stamp that the program
makes itself; there the fault becomes what such a device does: the same content again, a wrong age.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from liveaffect.engines.recipe import SAMPLE_RATE
from liveaffect.realtime.camera import Camera
from liveaffect.realtime.clock import SECOND, Clock
from liveaffect.realtime.devices import Device
from liveaffect.realtime.errors import SourceNotFound
from liveaffect.realtime.frame import AudioBlock, VideoFrame
from liveaffect.realtime.microphone import Microphone
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
from liveaffect.realtime.testing.synthetic import FakeCamera, FakeSound

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
