"""What a source is to the path: a camera, a microphone or a file, how it is doing, and a late one set right.

A source has five phases, because five different things are true of it and a user does something else in
each: wait, look, plug it in, look for the other program, nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal, Protocol, runtime_checkable

from liveaffect.realtime.frame import AudioBlock, VideoFrame

Phase = Literal["opening", "running", "stalled", "lost", "ended"]


Item = VideoFrame | AudioBlock


class Source(Protocol):
    """A camera, microphone or file. One thread reads it; `close` may come from another one."""

    @property
    def name(self) -> str:
        """Such as 'camera:0', 'mic:default' or 'file:clip.mp4'."""
        ...

    def open(self) -> None:
        """Start delivering, counting from 0. Raises SourceError with what to do about it."""
        ...

    def read(self, timeout_s: float) -> Item | None:
        """The next item, None if nothing came in time.

        Raises EndOfStream at the natural end, SourceLost or SourceChanged at any other.
        """
        ...

    def close(self) -> None:
        """Let go of the device. Safe to call twice; a read that waits ends with SourceError."""
        ...


@runtime_checkable
class CountsLosses(Protocol):
    """A source that says what it had to leave out."""

    @property
    def losses(self) -> Mapping[str, int]:
        """How many pictures or samples were left out or mended since it was opened, by cause."""
        ...


@dataclass(frozen=True, slots=True)
class SourceState:
    """How a source is doing, for the overlay and for health."""

    name: str
    phase: Phase
    since_ns: int
    """Since when it is in this phase."""
    message: str
    """What a user should know about it; empty when all is well."""
    restarts: int
    delivered: int
    lost: int
    """Pictures or samples known to be lost; the sum over `losses`."""
    losses: Mapping[str, int] = field(default_factory=dict)
    """The same by cause."""


class _Another:
    """What `Restamped` and `Renamed` hand on as it is."""

    def __init__(self, source: Source) -> None:
        self._source = source

    @property
    def losses(self) -> Mapping[str, int]:
        """What the source left out, by cause."""
        return self._source.losses if isinstance(self._source, CountsLosses) else {}

    def open(self) -> None:
        """Open the source."""
        self._source.open()

    def close(self) -> None:
        """Close the source. Safe to call twice."""
        self._source.close()


class Restamped(_Another):
    """Another source, its sound stamped `later_ns` earlier: by so much it came too late.

    The one place where a measured offset between sound and picture takes effect: behind it, attribution, ages
    and recorded files all see one time. Only stamps move; nothing is held back or cut.
    """

    def __init__(self, source: Source, later_ns: int) -> None:
        super().__init__(source)
        self._later_ns = later_ns

    @property
    def name(self) -> str:
        """The name of the source."""
        return self._source.name

    def read(self, timeout_s: float) -> VideoFrame | AudioBlock | None:
        """The next item; pictures as they are."""
        item = self._source.read(timeout_s)
        if not isinstance(item, AudioBlock):
            return item
        return replace(item, captured_ns=item.captured_ns - self._later_ns)


class Renamed(_Another):
    """Another source under a name of its own, where two would have the same."""

    def __init__(self, source: Source, name: str) -> None:
        super().__init__(source)
        self.name = name

    def read(self, timeout_s: float) -> VideoFrame | AudioBlock | None:
        """The next item, under the other name."""
        item = self._source.read(timeout_s)
        return None if item is None else replace(item, source=self.name)
