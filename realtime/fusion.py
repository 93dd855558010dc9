"""Joins face, voice and words of one person: evidence in, the fusion network's tensors out, and back.

The fusion network is an engine like the others; this file only lays its inputs out for all people at
once and reads its answer. A modality without evidence is zeros with mask 0, never a made-up average.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engines.protocol import FUSION_INPUTS, Tensors
from engines.recipe import LABELS
from realtime.cue import Scores
from realtime.pooling import Pooled

Trunks = tuple[Pooled, Pooled]
"""Short and long pooled evidence of one modality."""


@dataclass(frozen=True, slots=True, eq=False)
class Gathered:
    """All evidence about one person at one moment."""

    face: Trunks | None
    voice: Trunks | None

    @property
    def empty(self) -> bool:
        """True when there is nothing to fuse."""
        return self.face is None and self.voice is None


def fusion_inputs(people: Sequence[Gathered]) -> dict[str, NDArray[Any]]:
    """The fusion network's inputs for all people, one row each."""
    count = len(people)
    tensors = {t.name: np.zeros((count, *t.shape), np.float32) for t in FUSION_INPUTS}
    for row, person in enumerate(people):
        for column, (name, trunks) in enumerate((("face", person.face), ("voice", person.voice))):
            if trunks is None:
                continue
            short, long = trunks
            tensors[f"{name}_short"][row] = short.vector
            tensors[f"{name}_long"][row] = long.vector
            tensors[f"{name}_logits"][row] = short.logits
            tensors["mask"][row, column] = 1.0
    return tensors


@dataclass(frozen=True, slots=True)
class Fused:
    """The fusion network's answer for one person, as probabilities."""

    scores: Scores
    weights: tuple[float, float, float]


def read_fused(answer: Tensors) -> Fused:
    """One person's row of the fusion network's answer."""
    face, voice, words = (float(weight) for weight in answer["weights"])
    return Fused(scores=softmax(answer["logits"]), weights=(face, voice, words))


def softmax(logits: NDArray[np.floating], temperature: float = 1.0) -> Scores:
    """Seven probabilities that sum to one."""
    raised = np.asarray(logits, np.float64) / temperature
    powers = np.exp(raised - raised.max())
    return tuple((powers / powers.sum()).tolist())


UNKNOWN: Scores = (1 / len(LABELS),) * len(LABELS)
"""What is said of somebody about whom nothing is known."""
