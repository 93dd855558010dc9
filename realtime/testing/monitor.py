"""Watches every hand-over while tests run: what a ring is given must make sense, always.

Numbers rise, time never falls, sizes are those that were announced, and one thread writes. A violation
raises at once in the thread that caused it and is kept, because a capture thread turns every failure into
the end of its stream; `Monitors.check` brings it to the test. That nothing comes after the end the rings hold
themselves.
"""

from __future__ import annotations

import threading
from collections import Counter
from typing import Any

from liveaffect.engines.recipe import SAMPLE_RATE
from liveaffect.realtime.audio_ring import AudioRing
from liveaffect.realtime.clock import MS, SECOND
from liveaffect.realtime.frame import AudioBlock, Sighting, VideoFrame
from liveaffect.realtime.ring import Ring

_SLACK_NS = 50 * MS
"""How far a sound stamp may stray from the sample count: clocks drift, and stamps jitter."""


class Monitor:
    """Watches one hand-over: call it with every item, as a ring's `on_push` does."""

    def __init__(self, place: str, *, size: tuple[int, int] | None = None) -> None:
        self.place = place
        self.seen = 0
        self.violations: list[str] = []
        self._size = size
        self._writer: threading.Thread | None = None
        self._last: Any = None
        self._busy = threading.Lock()

    def __call__(self, item: object) -> None:
        """Raise AssertionError that names the hand-over if this item must not follow the one before."""
        if not self._busy.acquire(blocking=False):
            self._violated("two threads write at the same moment")
        try:
            self._check_writer()
            if isinstance(item, AudioBlock):
                self._check_block(item)
            elif isinstance(item, VideoFrame | Sighting):
                self._check_picture(item)
            self._last = item
            self.seen += 1
        finally:
            self._busy.release()

    def _check_writer(self) -> None:
        thread = threading.current_thread()
        if self._writer is None:
            self._writer = thread
        elif thread is not self._writer:
            self._violated(f"thread '{thread.name}' writes, but '{self._writer.name}' is the writer")

    def _check_picture(self, item: VideoFrame | Sighting) -> None:
        size = item.size
        if self._size is not None and size != self._size:
            self._violated(f"#{item.seq} is {size[0]}x{size[1]}, announced {self._size[0]}x{self._size[1]}")
        if isinstance(item, VideoFrame) and item.image.flags.writeable:
            self._violated(f"the picture of #{item.seq} can be written to")
        if not isinstance(last := self._last, VideoFrame | Sighting):
            return
        self._check_source(last.source, item.source)
        if item.seq <= last.seq:
            self._violated(f"#{item.seq} came after #{last.seq}; numbers have to rise")
        if item.captured_ns < last.captured_ns:
            self._violated(
                f"#{item.seq} was captured {(last.captured_ns - item.captured_ns) / MS:.3f} ms "
                f"before #{last.seq}; time never falls"
            )

    def _check_block(self, item: AudioBlock) -> None:
        if item.samples.flags.writeable:
            self._violated(f"the samples from {item.first} on can be written to")
        if not isinstance(last := self._last, AudioBlock):
            return
        self._check_source(last.source, item.source)
        if item.first < last.end:
            self._violated(f"sample {item.first} came after sample {last.end - 1}; numbers have to rise")
        if item.captured_ns < last.captured_ns:
            self._violated(f"sample {item.first} was captured before sample {last.first}; time never falls")
        wanted_ns = last.captured_ns + (item.first - last.first) * SECOND // SAMPLE_RATE
        if abs(item.captured_ns - wanted_ns) > _SLACK_NS:
            self._violated(
                f"sample {item.first} is stamped {(item.captured_ns - wanted_ns) / MS:+.1f} ms off "
                "its place; lost sound has to be a gap of its length"
            )

    def _check_source(self, before: str, now: str) -> None:
        if before != now:
            self._violated(f"items of '{now}' follow items of '{before}'")

    def _violated(self, what: str) -> None:
        text = f"hand-over '{self.place}' after {self.seen} items: {what}"
        self.violations.append(text)
        raise AssertionError(text)


class Monitors:
    """All hand-overs of a run. Give `at` to the pipeline as its factory of `on_push` hooks."""

    def __init__(self) -> None:
        self._places: dict[str, Monitor] = {}

    def at(self, place: str) -> Monitor:
        """The monitor of that hand-over, made on first use."""
        return self._places.setdefault(place, Monitor(place))

    @property
    def seen(self) -> Counter[str]:
        """How many items passed each hand-over."""
        return Counter({place: monitor.seen for place, monitor in self._places.items()})

    def check(self) -> None:
        """Raise AssertionError with every violation, also those that a thread swallowed."""
        violations = [text for monitor in self._places.values() for text in monitor.violations]
        if violations:
            raise AssertionError("; ".join(violations))


def monitored_ring(place: str, capacity: int, *, size: tuple[int, int] | None = None) -> Ring[Any]:
    """A ring whose every item is watched."""
    return Ring(capacity, on_push=Monitor(place, size=size))


def monitored_audio_ring(place: str, capacity: int) -> AudioRing:
    """The same for sound."""
    return AudioRing(capacity, on_push=Monitor(place))
