"""What is done less often when the machine cannot keep up, in a fixed and visible order. Pure.

The voice hop doubles first, then the face cadence halves; capture and display are never touched. A run has
only the measures for what it analyses, so what is announced is what is done. A second with many late steps
takes one measure more, five calm ones one less, so the answer to a short hiccup is nothing and the answer to
a busy machine is not a flicker.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from liveaffect.realtime.clock import SECOND

HOP_DOUBLED = "voice hop doubled"
"""Every second piece of sound is left out."""
CADENCE_HALVED = "face cadence halved"
"""Every second look at a face is left out."""
_WINDOW_NS = SECOND
_CALM_NS = 5 * SECOND
_LATE_SHARE = 0.25
_MIN_STEPS = 8
_FEW, _FEW_LATE = 4, 3
"""A machine that is too busy for many steps a second is judged by its last few."""


class LoadShedder:
    """How much is left out. One caller."""

    def __init__(self, measures: Sequence[str]) -> None:
        """`measures`: what this run can leave out, in the order in which it is."""
        self.level = 0
        """How many of them are in force."""
        self._measures = tuple(measures)
        self._steps: deque[tuple[int, bool]] = deque()
        self._last_late_ns: int | None = None
        self._changed_ns = 0

    def note(self, now_ns: int, *, late: bool) -> None:
        """One step of the scheduler: was it late?"""
        self._steps.append((now_ns, late))
        while len(self._steps) > _FEW and self._steps[0][0] <= now_ns - _WINDOW_NS:
            self._steps.popleft()
        if late:
            self._last_late_ns = now_ns
        if now_ns - self._changed_ns < _WINDOW_NS:
            return
        late_steps = sum(was_late for _, was_late in self._steps)
        many = len(self._steps) >= _MIN_STEPS
        if late_steps >= (max(_LATE_SHARE * len(self._steps), 1) if many else _FEW_LATE):
            self._move(now_ns, +1)
        elif self.level and now_ns - max(self._last_late_ns or 0, self._changed_ns) >= _CALM_NS:
            self._move(now_ns, -1)

    def does(self, measure: str) -> bool:
        """Whether that is left out now."""
        return measure in self._measures[: self.level]

    @property
    def newest(self) -> str:
        """What the overlay says: the measure that was taken last, or nothing."""
        return self._measures[self.level - 1] if self.level else ""

    def _move(self, now_ns: int, by: int) -> None:
        self.level = min(max(self.level + by, 0), len(self._measures))
        self._changed_ns = now_ns
