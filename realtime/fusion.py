"""Joins face, voice and words of one person: evidence in, the fusion network's tensors out, and back.

The fusion network is an engine like the others; this file only lays its inputs out for all people at
once and reads its answer. A modality without evidence is zeros with mask 0, never a made-up average.

A modality of quality q is taken for there with probability q: the network is asked with it and without it,
and the answers are mixed. So poor light or noise makes its weight fall, whatever the network learnt.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from liveaffect.engines.protocol import FUSION_INPUTS, Tensors
from liveaffect.engines.recipe import LABELS
from liveaffect.realtime.cue import Scores
from liveaffect.realtime.pooling import Pooled

Trunks = tuple[Pooled, Pooled]
"""Short and long pooled evidence of one modality."""
LEAST_QUALITY = 0.02
"""The worst evidence counts this much, so that something is said where all of it is bad."""


@dataclass(frozen=True, slots=True, eq=False)
class Gathered:
    """All evidence about one person at one moment."""

    face: Trunks | None
    voice: Trunks | None
    face_quality: float = 1.0
    """0..1; with `voice_quality` it decides how much each counts where both are there."""
    voice_quality: float = 1.0

    @property
    def empty(self) -> bool:
        """True when there is nothing to fuse."""
        return self.face is None and self.voice is None

    @property
    def subset(self) -> str:
        """Which evidence there is: 'face', 'voice' or 'face+voice'."""
        there = (("face", self.face), ("voice", self.voice))
        return "+".join(name for name, trunks in there if trunks is not None)

    def views(self) -> list[tuple[Gathered, float]]:
        """The same with everything, and with one of two left out, each with its share; they sum to one."""
        face, voice = (min(max(q, LEAST_QUALITY), 1.0) for q in (self.face_quality, self.voice_quality))
        if self.face is None or self.voice is None or face * voice == 1.0:
            return [(self, 1.0)]
        shares = (face * voice, face * (1.0 - voice), (1.0 - face) * voice)
        views = (self, replace(self, voice=None), replace(self, face=None))
        return [(view, share / sum(shares)) for view, share in zip(views, shares, strict=True) if share]


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


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """The network's answer to one view of somebody's evidence."""

    subset: str
    share: float
    answer: Tensors


def ask_fusion(
    people: Sequence[Gathered], ask: Callable[[Tensors], Sequence[Tensors | None]]
) -> list[tuple[Part, ...]]:
    """The answers about all people from one call; () for those without evidence or without an answer."""
    views = [(i, *view) for i, person in enumerate(people) if not person.empty for view in person.views()]
    answers = ask(fusion_inputs([view for _, view, _ in views])) if views else []
    parts: list[list[Part | None]] = [[] for _ in people]
    for (i, view, share), answer in zip(views, answers, strict=True):
        parts[i].append(None if answer is None else Part(view.subset, share, answer))
    return [tuple(p for p in found if p is not None) if None not in found else () for found in parts]


def join(parts: Sequence[Part], temperatures: Mapping[str, float]) -> Fused | None:
    """What all views of one person come to; each is believed as far as its subset's temperature says."""
    read = [(read_fused(part.answer, temperatures.get(part.subset, 1.0)), part.share) for part in parts]
    if len(read) < 2:
        return read[0][0] if read else None
    scores = tuple(sum(s * f.scores[k] for f, s in read) for k in range(len(LABELS)))
    face, voice, words = (sum(s * f.weights[k] for f, s in read) for k in range(3))
    return Fused(scores=scores, weights=(face, voice, words))


def read_fused(answer: Tensors, temperature: float = 1.0) -> Fused:
    """One person's row of the fusion network's answer."""
    face, voice, words = (float(weight) for weight in answer["weights"])
    return Fused(scores=softmax(answer["logits"], temperature), weights=(face, voice, words))


def softmax(logits: NDArray[np.floating], temperature: float = 1.0) -> Scores:
    """Seven probabilities that sum to one."""
    raised = np.asarray(logits, np.float64) / temperature
    powers = np.exp(raised - raised.max())
    return tuple((powers / powers.sum()).tolist())


UNKNOWN: Scores = (1 / len(LABELS),) * len(LABELS)
"""What is said of somebody about whom nothing is known."""
