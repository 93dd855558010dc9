"""Joins face, voice and words of one person: opinions in, the fusion network's tensors out, and back.

The fusion network is an engine like the others; this file only lays its inputs out for all people at
once and reads its answer. A modality without evidence is zeros with mask 0, never a made-up average.

Words join behind it: what they tell is mixed in as far as it is an emotion and not long ago, so that a run
without words, or with plain ones, is what it was.

A modality of quality q is taken for there with probability q: the network is asked with it and without it,
and the answers are mixed. So poor light or noise makes its weight fall, whatever the network learnt.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from liveaffect.engines.protocol import FUSION_INPUTS, Tensors
from liveaffect.engines.recipe import SUBSETS
from liveaffect.realtime import cue
from liveaffect.realtime.estimate import Estimate, SpokenEvidence, SpokenOpinion, softmax

WORDS_SAY = 0.3
"""How much words count beside face and voice at most. Chosen, not learnt: no film at hand has all three."""
LEAST_SAY = 0.02
"""The worst evidence counts this much, so that something is said where all of it is bad."""


def views(estimate: Estimate) -> list[tuple[Estimate, float]]:
    """The same with everything, and with one of two left out, each with its share; they sum to one."""
    if estimate.face is None or estimate.voice is None:
        return [(estimate, 1.0)] if estimate.subset else []
    face, voice = (min(max(one.say, LEAST_SAY), 1.0) for one in (estimate.face, estimate.voice))
    if face * voice == 1.0:
        return [(estimate, 1.0)]
    shares = (face * voice, face * (1.0 - voice), (1.0 - face) * voice)
    seen = (estimate, replace(estimate, voice=None), replace(estimate, face=None))
    return [(view, share / sum(shares)) for view, share in zip(seen, shares, strict=True) if share]


def fusion_inputs(people: Sequence[Estimate]) -> dict[str, NDArray[Any]]:
    """The fusion network's inputs for all people, one row each."""
    tensors = {t.name: np.zeros((len(people), *t.shape), np.float32) for t in FUSION_INPUTS}
    for row, person in enumerate(people):
        for column, (name, opinion) in enumerate((("face", person.face), ("voice", person.voice))):
            if opinion is None:
                continue
            tensors[f"{name}_short"][row] = opinion.short.vector
            tensors[f"{name}_long"][row] = opinion.long.vector
            tensors[f"{name}_logits"][row] = opinion.short.logits
            tensors["mask"][row, column] = 1.0
    return tensors


def fuse(people: Sequence[Estimate], ask: Callable[[Tensors], Sequence[Tensors | None]]) -> list[Estimate]:
    """Everybody with what their evidence comes to, from one call; without it where there was no answer."""
    asked = [(at, *view) for at, person in enumerate(people) for view in views(person)]
    answers = ask(fusion_inputs([view for _, view, _ in asked])) if asked else []
    found: list[list[tuple[str, float, Tensors]] | None] = [[] for _ in people]
    for (at, view, share), answer in zip(asked, answers, strict=True):
        parts = found[at]
        if answer is None or parts is None:
            found[at] = None
        else:
            parts.append((view.subset, share, answer))
    return [_answered(person, parts or []) for person, parts in zip(people, found, strict=True)]


def spoken_opinion(heard: SpokenEvidence | None, now_ns: int) -> SpokenOpinion | None:
    """Words beside face and voice: as far as one emotion leads neutral, and less the longer ago they were."""
    if heard is None:
        return None
    scores = softmax(heard.logits)
    age = cue.WORDS.share(cue.age_ns(now_ns, heard.captured_ns))
    return SpokenOpinion(scores, WORDS_SAY * age * max(0.0, max(scores[1:]) - scores[0]))


def _answered(person: Estimate, parts: Sequence[tuple[str, float, Tensors]]) -> Estimate:
    if not parts:
        return person
    logits, shares, weights = person.logits.copy(), list(person.shares), np.zeros(3)
    for subset, share, answer in parts:
        row = SUBSETS.index(subset)
        logits[row], shares[row] = answer["logits"], share
        weights += share * np.asarray(answer["weights"], np.float64)
    face, voice, words = weights.tolist()
    if person.words is not None:
        said = person.words.weight
        face, voice, words = face * (1.0 - said), voice * (1.0 - said), said
    return replace(person, logits=logits, shares=tuple(shares), weights=(face, voice, words))
