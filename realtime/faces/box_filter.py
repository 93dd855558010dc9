"""Steadies a box: still when the face is still, on it when the face is fast.

An alpha-beta filter (position and speed) whose gain grows with its own surprise. A plain low-pass would
have to choose between trembling and lagging; the speed term removes the lag, the small gain the tremble.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

STILL_GAIN, FAST_GAIN = 0.22, 0.85
STILL_SHARE, FAST_SHARE = 0.015, 0.06
"""Surprise in box widths: below the first it is the detector's tremble, above the second motion."""
SIZE_GAIN = 0.15
MAX_SPEED = 8.0
"""Box widths a second; faster is a wrong match."""
COAST_DECAY_S = 0.4
"""Unseen, the speed falls to 1/e in this time: people stop, and a guess must not run away."""


@dataclass(slots=True)
class BoxFilter:
    """Centre, speed and size of one box."""

    x: float
    y: float
    size: float
    vx: float = 0.0
    vy: float = 0.0

    def predict(self, dt_s: float, *, coasting: bool = False) -> None:
        """Move on by `dt_s` without having looked."""
        self.x += self.vx * dt_s
        self.y += self.vy * dt_s
        if coasting:
            keep = math.exp(-dt_s / COAST_DECAY_S)
            self.vx *= keep
            self.vy *= keep

    def correct(self, x: float, y: float, dt_s: float) -> None:
        """Take in where the centre was measured, `dt_s` after the last measurement."""
        dx, dy = x - self.x, y - self.y
        surprise = math.hypot(dx, dy) / self.size
        gain = _blend(surprise, STILL_GAIN, FAST_GAIN)
        self.x += gain * dx
        self.y += gain * dy
        if dt_s > 0.0:
            speed_gain = gain * gain / (2.0 - gain) / dt_s
            limit = MAX_SPEED * self.size
            self.vx = min(limit, max(-limit, self.vx + speed_gain * dx))
            self.vy = min(limit, max(-limit, self.vy + speed_gain * dy))

    def resize(self, size: float) -> None:
        """Take in how large the box was measured."""
        gain = _blend(abs(size / self.size - 1.0) / 2.0, SIZE_GAIN, FAST_GAIN)
        self.size += gain * (size - self.size)


def _blend(surprise: float, still: float, fast: float) -> float:
    share = (surprise - STILL_SHARE) / (FAST_SHARE - STILL_SHARE)
    return still + (fast - still) * min(1.0, max(0.0, share))
