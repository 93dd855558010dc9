"""What a voice network is trained for: the emotion of a whole recording, and to know speech when it hears it.

The logits of a recording's pieces are pooled under exactly the weights that live pooling gives them, so the
`score` output learns from the same gradient as everything else which pieces to trust.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from liveaffect.engines.model.heads import VoiceAnswer
from liveaffect.engines.recipe import LABELS
from liveaffect.engines.training.voice_batches import NO_LABEL, VoiceBatch

SMOOTHING = 0.1
EACH_PIECE = 0.3
"""Weight of getting every single piece right, beside the whole recording."""
SPEECH_WEIGHT = 0.5
TAUGHT = 0.7
"""Share of what is wanted that comes from teachers, where there are any; the rest comes from the label."""
_LEAST_SHARE = 1e-6


@dataclass(frozen=True, slots=True, eq=False)
class Told:
    """Probabilities that teachers give, of labels that the recording's corpus has."""

    pieces: Tensor
    """(pieces, 7)."""
    recordings: Tensor
    """(recordings, 7)."""


def class_weights(labels: Sequence[int]) -> Tensor:
    """One over how often a label comes, so that rare ones count as much; one that never comes counts 0."""
    known = [label for label in labels if label != NO_LABEL]
    counts = torch.bincount(torch.tensor(known), minlength=len(LABELS)).float()
    weights = torch.where(counts > 0, 1.0 / counts.clamp(min=1.0), torch.zeros(()))
    return weights * len(known) / (counts > 0).sum()


def pooled_logits(answer: VoiceAnswer, batch: VoiceBatch) -> tuple[Tensor, Tensor]:
    """(recordings, 7), and which recordings had any evidence; the others are zero."""
    count = len(batch.labels)
    height = answer.score[:, 0] + batch.speech.clamp(min=_LEAST_SHARE).log()
    height = height.masked_fill(~batch.counts, float("-inf"))
    start = torch.full((count,), -1e4, device=height.device)
    highest = start.scatter_reduce(0, batch.owner, height.detach(), "amax")
    weight = (height - highest[batch.owner]).exp()
    total = torch.zeros_like(start).index_add(0, batch.owner, weight)
    share = weight / total.clamp(min=_LEAST_SHARE)[batch.owner]
    empty = torch.zeros((count, len(LABELS)), device=height.device)
    return empty.index_add(0, batch.owner, share[:, None] * answer.logits), total > 0


def opinions(answer: VoiceAnswer, batch: VoiceBatch) -> tuple[Tensor, Tensor]:
    """Probabilities of every piece's and every recording's label, as `Told` has them."""
    with torch.autocast(batch.power.device.type, enabled=False):
        answer = VoiceAnswer(*(output.float() for output in answer))
        pooled, _ = pooled_logits(answer, batch)
        possible = possible_in(batch)
        return (
            _among(answer.logits, possible[batch.owner]).exp(),
            _among(pooled, possible).exp(),
        )


def possible_in(batch: VoiceBatch) -> Tensor:
    """(recordings, 7): which labels each recording's corpus has."""
    if batch.possible is not None:
        return batch.possible
    return torch.ones((len(batch.labels), len(LABELS)), dtype=torch.bool, device=batch.labels.device)


def loss(answer: VoiceAnswer, batch: VoiceBatch, weights: Tensor, told: Told | None = None) -> Tensor:
    """One number to make small. In full precision, also where the network ran in less."""
    with torch.autocast(batch.power.device.type, enabled=False):
        return _piece_loss(VoiceAnswer(*(output.float() for output in answer)), batch, weights, told)


def _piece_loss(answer: VoiceAnswer, batch: VoiceBatch, weights: Tensor, told: Told | None) -> Tensor:
    pooled, has_evidence = pooled_logits(answer, batch)
    teaches = has_evidence & (batch.labels != NO_LABEL)
    total = SPEECH_WEIGHT * speech_loss(answer, batch)
    if teaches.any():
        possible = possible_in(batch)
        wanted = _wanted(
            batch.labels[teaches], possible[teaches], None if told is None else told.recordings[teaches]
        )
        total = total + _emotion(pooled[teaches], wanted, possible[teaches], weights[batch.labels[teaches]])
        each = batch.counts
        owner = batch.owner[each]
        wanted = _wanted(batch.labels[owner], possible[owner], None if told is None else told.pieces[each])
        single = _emotion(answer.logits[each], wanted, possible[owner], weights[batch.labels[owner]])
        total = total + EACH_PIECE * single
    return total


def speech_loss(answer: VoiceAnswer, batch: VoiceBatch) -> Tensor:
    """Cross-entropy with the share of the piece that is speech; speech and its absence count the same."""
    told = answer.speech[:, 0].clamp(1e-5, 1 - 1e-5)
    each = functional.binary_cross_entropy(told, batch.speech, reduction="none")
    absent = (1 - batch.speech).sum().clamp(min=1.0)
    present = batch.speech.sum().clamp(min=1.0)
    balance = batch.speech / present + (1 - batch.speech) / absent
    return (each * balance).sum() / 2


def _wanted(labels: Tensor, possible: Tensor, told: Tensor | None) -> Tensor:
    """(n, 7): a little for every label that the corpus has, most for the right one, and what teachers say."""
    share = possible.float() / possible.sum(1, keepdim=True)
    wanted = (1 - SMOOTHING) * functional.one_hot(labels, possible.shape[1]) + SMOOTHING * share
    return wanted if told is None else torch.lerp(wanted, told, TAUGHT)


def _emotion(logits: Tensor, wanted: Tensor, possible: Tensor, weight: Tensor) -> Tensor:
    """A label that a corpus does not have is neither right nor wrong there."""
    each = -(wanted * _among(logits, possible)).sum(1)
    return (each * weight).sum() / weight.sum()


def _among(logits: Tensor, possible: Tensor) -> Tensor:
    return logits.masked_fill(~possible, -1e4).log_softmax(1)
