"""What devices do wrong, as data: a script of faults over the numbers of the items.

A `FaultLine` bends a stream of pictures or sound blocks by a script, one item at a time and without clock
or thread; `deliveries` runs a whole stream through it, `FaultySource` puts it into any source. Scripts are
plain values, so Hypothesis can write them and a failing test prints the one that broke it.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from liveaffect.engines.recipe import SAMPLE_RATE
from liveaffect.realtime.clock import SECOND, Clock
from liveaffect.realtime.errors import EndOfStream, SourceChanged, SourceError, SourceLost, SourceNotFound
from liveaffect.realtime.frame import AudioBlock, Item, Source, VideoFrame

if TYPE_CHECKING:
    from hypothesis.strategies import SearchStrategy


@dataclass(frozen=True, slots=True)
class Drop:
    """`count` items never arrive; what follows keeps its number and time."""

    first: int
    count: int = 1


@dataclass(frozen=True, slots=True)
class Stall:
    """Before this item the device makes nothing for `length_ns`, and goes on that much later."""

    first: int
    length_ns: int


@dataclass(frozen=True, slots=True)
class LateBurst:
    """`count` items are made on time and arrive together with the last of them, as sound buffers do."""

    first: int
    count: int


@dataclass(frozen=True, slots=True)
class Repeat:
    """The same item arrives `times` more times."""

    first: int
    times: int = 1


@dataclass(frozen=True, slots=True)
class TimeGoesBack:
    """`count` items carry a stamp that lies `by_ns` too early, as a driver that resets its clock does."""

    first: int
    by_ns: int
    count: int = 1


@dataclass(frozen=True, slots=True)
class FormatChange:
    """From this item on pictures have another size. Sound cannot: its source has to be opened again."""

    first: int
    width: int
    height: int


@dataclass(frozen=True, slots=True)
class Silence:
    """`count` items hold nothing but zeros: a covered lens, a muted microphone."""

    first: int
    count: int


@dataclass(frozen=True, slots=True)
class Unplug:
    """The device goes with this item and is back after `away_ns`; None: it never comes back."""

    first: int
    away_ns: int | None = None


Fault = Drop | Stall | LateBurst | Repeat | TimeGoesBack | FormatChange | Silence | Unplug
Script = Sequence[Fault]


@dataclass(frozen=True, slots=True)
class Delivery:
    """What the reader of a source gets, and when."""

    at_ns: int
    item: Item | None
    error: SourceError | None = None
    """Raised instead of an item; the source then has to be opened again."""


class FaultLine:
    """Bends one stream by a script. It outlives the sources that feed it: numbers go on when they reopen."""

    def __init__(self, script: Script) -> None:
        self._script = tuple(script)
        self._index = 0
        self._shift_ns = 0
        self._held: list[tuple[Item, int]] = []
        self._hold_until = -1
        self.away_until_ns = 0
        """Before this the device cannot be opened; -1: never again."""

    def feed(self, item: Item) -> list[Delivery]:
        """The next item of the undisturbed stream; returns what arrives because of it, in order."""
        index, self._index = self._index, self._index + 1
        mine = [fault for fault in self._script if fault.first == index]
        self._shift_ns += sum(fault.length_ns for fault in mine if isinstance(fault, Stall))
        item = shifted(item, self._shift_ns)
        if self._is_away(item.captured_ns):
            return []
        for fault in mine:
            if isinstance(fault, Unplug):
                return self._lose(fault, item)
            if isinstance(fault, FormatChange) and isinstance(item, AudioBlock):
                what = f"{item.source} changed its format before sample {item.first}; it is opened again"
                return [*self.flush(), Delivery(self._when(item), None, SourceChanged(what))]
            if isinstance(fault, LateBurst):
                self._hold_until = max(self._hold_until, index + fault.count - 1)
        if not any(isinstance(f, Drop) and f.first <= index < f.first + f.count for f in self._script):
            times = 1 + sum(fault.times for fault in mine if isinstance(fault, Repeat))
            self._held += [(self._bent(item, index), self._when(item))] * times
        return self.flush() if index >= self._hold_until else []

    def flush(self) -> list[Delivery]:
        """Let go of what a burst holds back; at the end of the stream this is the rest."""
        held, self._held = self._held, []
        return [Delivery(held[-1][1], item) for item, _ in held]

    def _lose(self, fault: Unplug, item: Item) -> list[Delivery]:
        self._held.clear()
        self.away_until_ns = -1 if fault.away_ns is None else item.captured_ns + fault.away_ns
        return [Delivery(self._when(item), None, SourceLost(f"{item.source} was unplugged"))]

    def _is_away(self, now_ns: int) -> bool:
        return self.away_until_ns == -1 or now_ns < self.away_until_ns

    def _bent(self, item: Item, index: int) -> Item:
        for fault in self._script:
            if isinstance(fault, FormatChange) and fault.first <= index and isinstance(item, VideoFrame):
                item = resized(item, fault.width, fault.height)
            elif isinstance(fault, Silence) and fault.first <= index < fault.first + fault.count:
                item = silenced(item)
            elif isinstance(fault, TimeGoesBack) and fault.first <= index < fault.first + fault.count:
                item = replace(item, captured_ns=item.captured_ns - fault.by_ns)
        return item

    @staticmethod
    def _when(item: Item) -> int:
        """A picture arrives when it is captured, a block when its last sample is."""
        if isinstance(item, VideoFrame):
            return item.captured_ns
        return item.captured_ns + len(item.samples) * SECOND // SAMPLE_RATE


def deliveries(items: Iterable[Item], script: Script) -> Iterator[Delivery]:
    """The whole stream bent by the script; after a loss it goes on as soon as the device is back."""
    line = FaultLine(script)
    for item in items:
        yield from line.feed(item)
    yield from line.flush()


def shifted(item: Item, by_ns: int) -> Item:
    """The item made `by_ns` later; the place of sound moves along, because its place is its time."""
    if by_ns == 0:
        return item
    if isinstance(item, VideoFrame):
        return replace(item, captured_ns=item.captured_ns + by_ns)
    return replace(
        item, captured_ns=item.captured_ns + by_ns, first=item.first + by_ns * SAMPLE_RATE // SECOND
    )


def silenced(item: Item) -> Item:
    """The item with nothing but zeros in it."""
    if isinstance(item, VideoFrame):
        return replace(item, image=np.zeros_like(item.image))
    return replace(item, samples=np.zeros_like(item.samples))


def resized(frame: VideoFrame, width: int, height: int) -> VideoFrame:
    """The picture at another size, by taking the nearest pixels."""
    rows = np.arange(height) * frame.image.shape[0] // height
    columns = np.arange(width) * frame.image.shape[1] // width
    return replace(frame, image=frame.image[rows[:, None], columns])


class FaultySource:
    """A source whose deliveries go through a fault line. Same threads as the source inside.

    A factory hands the same line to every source it makes, so the script goes on over reopenings.
    """

    def __init__(self, source: Source, line: FaultLine, clock: Clock) -> None:
        self._source = source
        self._line = line
        self._clock = clock
        self._waiting: deque[Delivery] = deque()
        self._ended: EndOfStream | None = None
        self._closed = threading.Event()

    @property
    def name(self) -> str:
        """That of the source inside."""
        return self._source.name

    def open(self) -> None:
        """Open the source inside; SourceNotFound while the script keeps the device unplugged."""
        until_ns = self._line.away_until_ns
        if until_ns == -1 or self._clock.now_ns() < until_ns:
            raise SourceNotFound(f"{self.name} is unplugged")
        self._source.open()

    def read(self, timeout_s: float) -> Item | None:
        """The next item that the script lets through, at the time it says."""
        until_ns = self._clock.now_ns() + round(timeout_s * SECOND)
        while not self._waiting:
            if self._ended is not None:
                raise self._ended
            left_ns = max(until_ns - self._clock.now_ns(), 0)
            if not self._take_in(left_ns / SECOND):
                return None
        delivery = self._waiting[0]
        if delivery.at_ns > self._clock.now_ns():
            self._clock.wait_until(min(delivery.at_ns, until_ns), self._closed)
            if self._closed.is_set():
                raise SourceLost(f"{self.name} was closed while it was read")
            if delivery.at_ns > self._clock.now_ns():
                return None
        self._waiting.popleft()
        if delivery.error is not None:
            raise delivery.error
        return delivery.item

    def close(self) -> None:
        """Let a waiting reader go and close the source inside."""
        self._closed.set()
        self._source.close()

    def _take_in(self, timeout_s: float) -> bool:
        """One step of the source inside; False if it had nothing in time."""
        try:
            item = self._source.read(timeout_s)
        except EndOfStream as end:
            self._ended = end
            self._waiting.extend(self._line.flush())
            return True
        if item is not None:
            self._waiting.extend(self._line.feed(item))
        return item is not None


def scripts(items: int, period_ns: int, *, most: int = 4) -> SearchStrategy[list[Fault]]:
    """Hypothesis strategy: up to `most` faults of every kind somewhere in a stream of `items` items."""
    from hypothesis import strategies as st

    first = st.integers(0, items - 1)
    few = st.integers(1, max(1, items // 4))
    length = st.integers(1, max(1, items // 2)).map(lambda periods: periods * period_ns)
    side = st.integers(8, 64)
    one: SearchStrategy[Fault] = st.one_of(
        st.builds(Drop, first, few),
        st.builds(Stall, first, length),
        st.builds(LateBurst, first, few),
        st.builds(Repeat, first, few),
        st.builds(TimeGoesBack, first, length, few),
        st.builds(FormatChange, first, side, side),
        st.builds(Silence, first, few),
        st.builds(Unplug, first, st.none() | length),
    )
    return st.lists(one, max_size=most)
