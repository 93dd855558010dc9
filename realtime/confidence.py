"""How far answers are believed: temperatures, and from which confidence on a label is shown.

What calibration found, as the path uses it. Without calibration every temperature is 1 and the threshold is
that of `labelling`; then `caveat` says so, and the overlay with it. Whoever wires a run reads it from the
manifests; the path itself knows neither manifests nor calibration.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from liveaffect.realtime.estimate import Estimate
from liveaffect.realtime.labelling import Labeller, LabelSettings


@dataclass(frozen=True, slots=True)
class Confidence:
    """One for a whole run."""

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
    watch: Callable[[Estimate], None] | None = None
    """Is shown every estimate that was labelled; calibration keeps them."""

    def of_reading(self, modality: str) -> float:
        """The temperature of one modality on its own."""
        return self.readings.get(modality, 1.0)

    def labeller(self) -> Labeller:
        """What says what one person shows, from now on."""
        settings = LabelSettings(thresholds=self.thresholds)
        return Labeller(settings, joint=self.fused, alone=self.readings)
