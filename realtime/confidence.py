"""How far answers are believed: temperatures, and from which confidence on a label is shown.

What calibration found, as the path uses it. Without calibration every temperature is 1 and the threshold is
that of `smoothing`; then `caveat` says so, and the overlay with it. Whoever wires a run reads it from the
manifests; the path itself knows neither manifests nor calibration.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from liveaffect.realtime.fusion import Fused, Part, join
from liveaffect.realtime.smoothing import LabelSmoother, SmoothingSettings


@dataclass(frozen=True)
class Confidence:
    """One for a whole run. A recorder may stand in its place and see all that is joined and steadied."""

    readings: Mapping[str, float] = field(default_factory=dict)
    """Temperature of what 'face' and 'voice' say each on their own."""
    fused: Mapping[str, float] = field(default_factory=dict)
    """Temperature of a fused answer, by the evidence it rests on: 'face', 'voice', 'face+voice'."""
    thresholds: Mapping[str, float] = field(default_factory=dict)
    """By the same names."""
    picture_threshold: float | None = None
    """For a single picture, which is never fused."""
    caveat: str | None = None
    """What must be said as long as not everything that is judged was calibrated."""

    def of_reading(self, modality: str) -> float:
        """The temperature of one modality on its own."""
        return self.readings.get(modality, 1.0)

    def join(self, parts: Sequence[Part]) -> Fused | None:
        """All answers about one person; None without any."""
        return join(parts, self.fused)

    def steady(self) -> LabelSmoother:
        """What steadies the answers about one person from now on."""
        return LabelSmoother(SmoothingSettings(thresholds=self.thresholds))
