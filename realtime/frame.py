"""What moves along the path before it is understood, pictures, sound and who was seen, and what a source is.

Every item says when the light or the sound reached the device (`captured_ns`, on the run's clock) and
where it stands in its own stream (`seq`, or the absolute sample number). A gap there is the one and only
sign of a loss, so nothing downstream ever guesses from arrival times. Items are immutable and shared
between threads; their arrays are read-only.

A source, be it a camera, a microphone or a file, has five phases, because five different things are true of
it and a user does something else in each: wait, look, plug it in, look for the other program, nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from liveaffect.engines.recipe import CROP_SIZE, SAMPLE_RATE

Box = tuple[float, float, float, float]
"""x, y, width, height in unmirrored source pixels."""
Phase = Literal["opening", "running", "stalled", "lost", "ended"]


@dataclass(frozen=True, slots=True, eq=False)
class VideoFrame:
    """One picture as the camera gave it."""

    source: str
    """Which camera or file, such as 'camera:0'."""
    seq: int
    captured_ns: int
    """The driver's stamp where there is one, else the time of the grab; never of decoding."""
    image: NDArray[np.uint8]
    """(height, width, 3), RGB."""

    def __post_init__(self) -> None:
        if self.image.ndim != 3 or self.image.shape[2] != 3 or self.image.dtype != np.uint8:
            raise ValueError(
                f"VideoFrame needs an RGB image of shape (height, width, 3) uint8, "
                f"got {self.image.shape} {self.image.dtype}; convert at the source, not here"
            )
        self.image.setflags(write=False)

    @property
    def size(self) -> tuple[int, int]:
        """Width and height."""
        return self.image.shape[1], self.image.shape[0]


@dataclass(frozen=True, slots=True, eq=False)
class AudioBlock:
    """A stretch of mono sound at 16 kHz."""

    source: str
    first: int
    """Absolute number of the first sample in its stream. A jump forward is lost sound."""
    captured_ns: int
    """When the first sample reached the device."""
    samples: NDArray[np.float32]

    def __post_init__(self) -> None:
        if self.samples.ndim != 1 or self.samples.dtype != np.float32:
            raise ValueError(
                f"AudioBlock needs mono float32 samples at {SAMPLE_RATE} Hz, "
                f"got {self.samples.shape} {self.samples.dtype}; convert at the source, not here"
            )
        self.samples.setflags(write=False)

    @property
    def end(self) -> int:
        """Number of the first sample after this block."""
        return self.first + len(self.samples)


@dataclass(frozen=True, slots=True, eq=False)
class Face:
    """One face in one picture, followed over time."""

    track: int
    """The id of the person while in view; never used again within a run."""
    box: Box
    points: NDArray[np.float32]
    """(6, 2): eye left in the picture, eye right in the picture, nose, mouth, ear left, ear right; pixels."""
    velocity: tuple[float, float]
    """How the box moves, pixels a second; the display moves the box on by it."""
    seen_ns: int
    """When the detector last confirmed it; between that and `captured_ns` it was only followed."""
    score: float
    """How sure the detector was, 0..1."""
    crop: NDArray[np.uint8]
    """(64, 64, 3), RGB: the aligned picture of the face that the network takes."""

    def __post_init__(self) -> None:
        if self.crop.shape != (CROP_SIZE, CROP_SIZE, 3) or self.crop.dtype != np.uint8:
            raise ValueError(f"a crop is ({CROP_SIZE}, {CROP_SIZE}, 3) uint8, got {self.crop.shape}")
        if self.points.shape != (6, 2):
            raise ValueError(f"a face has six points, got {self.points.shape}")


@dataclass(frozen=True, slots=True, eq=False)
class Sighting:
    """Who was seen in one picture."""

    source: str
    seq: int
    captured_ns: int
    size: tuple[int, int]
    """Width and height of the picture."""
    faces: tuple[Face, ...] = ()
    cut: bool = False
    """The picture has nothing in common with the one before: all tracks ended here."""
    ended: tuple[int, ...] = field(default=())
    """Tracks that ended with this picture; their state dies with them."""


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
