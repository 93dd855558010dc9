"""A live run whose threads are played by the test: one thread, a clock that the test moves, no waiting.

The same `LiveRun`, `Analysis` and stations as live; only who calls them differs, so an hour passes in seconds
and every run is the same. Faces are those of a script, see `faces`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from liveaffect.realtime.clock import Clock
from liveaffect.realtime.cue import Cue
from liveaffect.realtime.feeds import Feed
from liveaffect.realtime.frame import VideoFrame
from liveaffect.realtime.live import LiveRun
from liveaffect.realtime.networks import Networks
from liveaffect.realtime.scheduler import Snapshot
from liveaffect.realtime.sinks import Sink
from liveaffect.realtime.sinks.outputs import Outputs
from liveaffect.realtime.source import Item, Source
from liveaffect.realtime.testing.engines import ConstantEngine
from liveaffect.realtime.testing.faces import Actor, ScriptedFinder
from liveaffect.realtime.testing.monitor import Monitors
from liveaffect.realtime.wiring import Rings, Wiring

Make = Callable[[], Source]
Script = Callable[[VideoFrame], Sequence[Actor]]
"""Who is in a picture."""


def constant_networks() -> Networks:
    """Everybody is happy and every sound is speech."""
    return Networks(
        ConstantEngine("face", "happy"), ConstantEngine("voice", "happy"), ConstantEngine("fusion", "happy")
    )


def _nobody(_: VideoFrame) -> Sequence[Actor]:
    return ()


class Stepped:
    """A live run in the hand of the test, with every hand-over watched."""

    def __init__(
        self,
        clock: Clock,
        cameras: Mapping[str, Make],
        microphones: Mapping[str, Make] | None = None,
        *,
        networks: Networks | None = None,
        actors: Script = _nobody,
        sinks: Sequence[Sink] = (),
    ) -> None:
        """The overlay starts late; `run.switch_pace` makes it locked."""
        self.clock = clock
        self.monitors = Monitors()
        self.networks = networks or constant_networks()
        self.outputs = Outputs(sinks)
        self._actors = actors
        self._finders: list[ScriptedFinder] = []
        feeds = [Feed(name, make, pictures=True, sound=False, live=True) for name, make in cameras.items()]
        feeds += [
            Feed(name, make, pictures=False, sound=True, live=True)
            for name, make in (microphones or {}).items()
        ]
        self.run = LiveRun(feeds, self._wire, self.outputs, clock, overlay="late")
        self.run.watch(self.monitors.at)
        self.wiring = self.run.analysis.load()

    def deliver(self, item: Item) -> None:
        """What a source brings."""
        self.run.deliver(item)

    def look(self, source: str) -> bool:
        """Look at the newest picture of a camera, as its thread does."""
        newest = self.run.rings.frames[source].newest()
        if newest is None:
            return False
        for finder in self._finders:
            finder.show(newest.image, self._actors(newest))
            finder.calls.clear()
        return self.run.analysis.look(self.wiring, source)

    def think(self) -> Snapshot:
        """One step of the scheduler."""
        self.run.analysis.think(self.wiring)
        newest = self.run.analysis.snapshots.newest()
        assert newest is not None
        return newest[1]

    def turn(self) -> None:
        """One turn of the display."""
        self.run.turn(0.0)

    def round(self) -> None:
        """Look everywhere, think, draw."""
        for name in self.run.rings.frames:
            self.look(name)
        self.think()
        self.turn()

    def check(self) -> None:
        """Raise AssertionError unless the ledger balances and every hand-over made sense."""
        self.run.check_ledger()
        self.monitors.check()

    def _wire(self, rings: Rings, publish: Callable[[tuple[Cue, ...]], None]) -> Wiring:
        return Wiring(rings, self.networks, self._make_finders, publish)

    def _make_finders(self) -> tuple[ScriptedFinder, ScriptedFinder]:
        finder = ScriptedFinder()
        self._finders.append(finder)
        return finder, finder


def never(name: str) -> Make:
    """Makes a source that delivers nothing: the test delivers its items itself."""
    return lambda: _Never(name)


class _Never:
    def __init__(self, name: str) -> None:
        self.name = name

    def open(self) -> None:
        """Nothing to open."""

    def read(self, timeout_s: float) -> Item | None:
        """Nothing comes from here."""
        return None

    def close(self) -> None:
        """Nothing to close."""
