"""One source of any kind with a script of faults, played through a whole run on virtual time.

Source, analysis and display take turns in one thread. Files and portraits are bent by the fault line;
camera and microphone are the real classes over devices that misbehave.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from liveaffect.engines.recipe import SAMPLE_RATE
from liveaffect.realtime.clock import MS, SECOND
from liveaffect.realtime.errors import EndOfStream
from liveaffect.realtime.frame import VideoFrame
from liveaffect.realtime.portrait import Portraits
from liveaffect.realtime.replay import MediaFile
from liveaffect.realtime.source import Item, Source, SourceState
from liveaffect.realtime.testing.clock import TickingClock
from liveaffect.realtime.testing.driven import DrivenCamera, DrivenMicrophone, World
from liveaffect.realtime.testing.faces import Actor
from liveaffect.realtime.testing.faults import Fault, FaultLine, FaultySource
from liveaffect.realtime.testing.stepped import Stepped

SOURCES = ("portraits", "video file", "sound file", "camera", "microphone")
PERIOD_NS = {"picture": SECOND // 25, "sound": 20 * MS}
END_NS = 7 * SECOND
"""No item is captured after this, except for what a stall puts off."""
VOICE = 0.2 * np.sin(2 * np.pi * 180 / SAMPLE_RATE * np.arange(8 * SAMPLE_RATE)).astype(np.float32)


class Reopened:
    """A file or portrait as a device: whenever it is opened it begins at that moment and counts from 0."""

    def __init__(self, source: Source, clock: TickingClock, sent: list[Item]) -> None:
        self._source, self._clock, self._sent = source, clock, sent
        self._since_ns = 0
        self.name = source.name

    def open(self) -> None:
        """Its time begins now."""
        self._since_ns = self._clock.now_ns()
        self._source.open()

    def read(self, timeout_s: float) -> Item | None:
        """The next item on the run's time; the end comes with that of the run."""
        item = self._source.read(timeout_s)
        if item is None or item.captured_ns + self._since_ns >= END_NS:
            raise EndOfStream
        self._sent.append(item)
        return replace(item, captured_ns=item.captured_ns + self._since_ns)

    def close(self) -> None:
        """Close what is inside."""
        self._source.close()


@dataclass(frozen=True, slots=True)
class PlayedMoment:
    """How things stood at one tick."""

    at_ns: int
    state: SourceState
    arrived: int
    """Pictures or samples in the rings so far."""
    shown: int


class Case:
    """One source with one fault, played to the end of virtual time."""

    def __init__(self, kind: str, script: list[Fault], media: Path) -> None:
        """`media` holds clip.mp4 and voice.wav. `voice` may be changed before `play`."""
        self.clock = TickingClock(END_NS + 2 * SECOND, 40 * MS)
        self.kind = kind
        self.sent: list[Item] = []
        self.world: World | None = None
        self.log: list[PlayedMoment] = []
        blocks = VOICE.reshape(-1, SAMPLE_RATE // 50)
        self.voice: Callable[[int], NDArray[np.float32]] = lambda k: blocks[k % len(blocks)]
        make = self._maker(script, media)
        name = make().name
        sound = "sound" in kind or kind == "microphone"
        self.stage = Stepped(
            self.clock, {} if sound else {name: make}, {name: make} if sound else {}, actors=_somebody
        )
        self.name = name
        (self.supervisor,) = self.stage.run.supervisors
        self.clock.tick = self._tick

    def play(self) -> None:
        """Until the source or time ends; fails if neither happens."""
        self.supervisor.start(lambda _: self.clock.over.set())
        assert self.clock.over.wait(20.0), f"it hangs at {self.clock.now_ns() / SECOND:.3f} s"
        assert self.supervisor.stop(), "the supervisor did not stop"
        assert self.supervisor.error is None or "unplugged" in str(self.supervisor.error)
        self.stage.turn()

    @property
    def state(self) -> SourceState:
        """How the source is doing."""
        return self.supervisor.state

    def moments(self, phase: str) -> list[PlayedMoment]:
        """The ticks at which the source was in that phase."""
        return [moment for moment in self.log if moment.state.phase == phase]

    def _tick(self) -> None:
        self.stage.round()
        ring = self.stage.run.rings
        arrived = sum(r.written for r in ring.frames.values()) + sum(r.end for r in ring.sounds.values())
        shown = sum(ledger.shown for ledger in self.stage.run.health.ledgers.values())
        self.log.append(PlayedMoment(self.clock.now_ns(), self.supervisor.state, arrived, shown))

    def _maker(self, script: list[Fault], media: Path) -> Callable[[], Source]:
        clock = self.clock
        if self.kind in ("camera", "microphone"):
            world = self.world = World(script, PERIOD_NS["picture" if self.kind == "camera" else "sound"])
            if self.kind == "camera":
                return lambda: DrivenCamera(world, clock)
            return lambda: DrivenMicrophone(world, clock, lambda k: self.voice(k))
        line = FaultLine(script)
        return lambda: FaultySource(Reopened(self._plain(media), clock, self.sent), line, clock)

    def _plain(self, media: Path) -> Source:
        if self.kind == "portraits":
            return Portraits([np.full((40, 30, 3), 190, np.uint8)], (128, 64), fps=25.0)
        return MediaFile(media / ("clip.mp4" if self.kind == "video file" else "voice.wav"))


def _somebody(frame: VideoFrame) -> list[Actor]:
    width, height = frame.size
    return [Actor(width / 2, height / 2, height / 2)]
