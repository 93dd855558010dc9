"""What the benchmark of the whole path notes at the far end, of the pictures as they were drawn.

Which picture is shown, and its number, are read back from its pixels, so nothing rests on what the path
says about itself. What measuring costs is counted apart.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from liveaffect.realtime.capture.stamp import read_stamp
from liveaffect.realtime.clock import MS, SECOND, MonotonicClock, cpu_ns, process_cpu_ns
from liveaffect.realtime.drawing.view import View
from liveaffect.realtime.frame import AudioBlock, Sighting, VideoFrame
from liveaffect.realtime.scheduler import Snapshot
from liveaffect.realtime.screen import RunStatus, Screen

WARM_UP_NS = 3 * SECOND


@dataclass(slots=True)
class DrawnPictures:
    """What was measured while the run was on."""

    ages_ms: list[float] = field(default_factory=list)
    face_ages_ms: list[float] = field(default_factory=list)
    off_centre: list[float] = field(default_factory=list)
    gaps_ms: list[float] = field(default_factory=list)
    modes: list[str] = field(default_factory=list)
    first_picture_ms: float | None = None
    first_face_ms: float | None = None
    missed: int = 0
    unread: int = 0
    """Pictures whose stamp something was drawn over; they count in no figure."""
    meter_ns: int = 0
    cpu_from: tuple[int, int] | None = None
    cpu_until: tuple[int, int] = (0, 0)


class Probe(Screen):
    """A screen that keeps the view that was drawn last."""

    view: View | None = None

    def compose(
        self, frame: VideoFrame, sighting: Sighting | None, snapshot: Snapshot | None, around: RunStatus
    ) -> View:
        """As the screen does."""
        self.view = super().compose(frame, sighting, snapshot, around)
        return self.view


class Meter:
    """The sink at the far end: reads the stamp back and compares with the truth."""

    wants_pictures, wants_sound = True, False

    def __init__(
        self, clock: MonotonicClock, probe: Probe, truth: Callable[[int], list[NDArray[Any]]]
    ) -> None:
        self.drawn = DrawnPictures()
        self._clock, self._probe, self._truth = clock, probe, truth
        self._last_ns = 0

    def show(self, picture: NDArray[np.uint8], frame: VideoFrame) -> None:
        """One drawn picture; what measuring costs is taken off the bill."""
        began_ns = cpu_ns()
        self._measure(picture, frame)
        self.drawn.meter_ns += cpu_ns() - began_ns if self.drawn.cpu_from else 0

    def _measure(self, picture: NDArray[np.uint8], frame: VideoFrame) -> None:
        now_ns, drawn, view = self._clock.now_ns(), self.drawn, self._probe.view
        stamp = read_stamp(picture)
        if drawn.first_picture_ms is None:
            drawn.first_picture_ms = now_ns / MS
        if view is None or stamp is None:
            drawn.unread += stamp is None and read_stamp(frame.image) is not None
            return
        if drawn.first_face_ms is None and view.marks:
            drawn.first_face_ms = now_ns / MS
        if stamp[1] < WARM_UP_NS:
            self._last_ns = now_ns
            return
        drawn.cpu_from = drawn.cpu_from or (process_cpu_ns(), now_ns)
        drawn.cpu_until = (process_cpu_ns(), now_ns)
        drawn.modes.append(view.health.mode)
        drawn.gaps_ms.append((now_ns - self._last_ns) / MS)
        self._last_ns = now_ns
        # `Paced` added one constant to all times; the stamp says which moment this picture really shows.
        drawn.ages_ms.append((now_ns - frame.captured_ns) / MS)
        if frame.seq != stamp[0]:
            raise AssertionError(f"picture {stamp[0]} was shown as {frame.seq}")
        for centre in self._truth(stamp[0]):
            self._compare(view, centre)

    def _compare(self, view: View, truth: NDArray[Any]) -> None:
        x, y, width = truth
        offsets = [
            (np.hypot(b[0] + b[2] / 2 - x, b[1] + b[3] / 2 - y), m) for m in view.marks for b in [m.box]
        ]
        if not offsets or min(offsets, key=lambda pair: float(pair[0]))[0] > width:
            self.drawn.missed += 1
            return
        off, mark = min(offsets, key=lambda pair: float(pair[0]))
        self.drawn.off_centre.append(float(off) / width)
        if mark.face_age_ms is not None:
            self.drawn.face_ages_ms.append(float(mark.face_age_ms))

    def tell(self, cues: Any) -> None: ...

    def hear(self, block: AudioBlock) -> None: ...

    def close(self) -> None: ...
