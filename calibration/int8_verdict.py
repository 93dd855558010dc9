"""What a form of a network is worth beside fp32, and what each of its layers costs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Verdict:
    """What one form of a network is worth on the exam."""

    divergence: float
    """Mean Kullback-Leibler divergence of its answers from those of fp32, in nats."""
    vector_error: float
    """Mean distance of its vectors from those of fp32, as a share of their spread."""
    accuracy: float
    flips: float
    log_loss: float
    calibration_error: float


@dataclass(frozen=True, slots=True)
class Layer:
    """What it costs to quantise one layer alone."""

    name: str
    work: float
    """Its share of the multiplications in all layers."""
    divergence: float
    vector_error: float
    excluded: bool = False

    def harm(self, layers: Sequence[Layer]) -> float:
        """Its share of what all layers cost."""
        return self.divergence / max(sum(layer.divergence for layer in layers), 1e-12)
