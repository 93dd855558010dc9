"""Fusion: face, voice and words to one distribution, with a mask because each of them may be missing.

Two families. `late` ones weigh logits. Bilinear ones multiply pooled vectors; there, plain scalar weights
cancel (the product is bilinear and then normalised), so every vector is extended by a constant one and the
weights act on its share. What a masked input holds, NaN included, never reaches the result.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from liveaffect.engines.model.heads import Network
from liveaffect.engines.protocol import FUSION_INPUTS, FUSION_OUTPUTS, VECTOR
from liveaffect.engines.recipe import LABELS

_LEAST_SAY = 0.01
"""So that the weights of two who know nothing are still shares of one."""


@dataclass(frozen=True, slots=True)
class FusionPreset:
    """A fusion as a table; the sizes are used by the bilinear ones."""

    name: str
    adaptive: bool = False
    """Weights are computed from the vectors, sample by sample."""
    trunks: bool = False
    """The short and the long window are also fused each for itself and merged by attention."""
    outputs: int = 128
    rank: int = 4
    signed_root: bool = False
    dropout: float = 0.3


class FusionEvidence(NamedTuple):
    """The inputs, in the order of FUSION_INPUTS."""

    face_short: Tensor
    face_long: Tensor
    voice_short: Tensor
    voice_long: Tensor
    face_logits: Tensor
    voice_logits: Tensor
    words_logits: Tensor
    mask: Tensor

    def without_masked(self) -> FusionEvidence:
        """The same with zeros wherever the mask says there is nothing."""
        face, voice, words = (self.mask[:, i : i + 1] > 0 for i in range(3))
        there = (face, face, voice, voice, face, voice, words)
        kept = (_or_zero(ok, x) for ok, x in zip(there, self[:-1], strict=True))
        return FusionEvidence._make([*kept, self.mask])

    def log_odds(self) -> Tensor:
        """(n, 3, 7): log-probabilities of face, voice and words."""
        return torch.stack([self.face_logits, self.voice_logits, self.words_logits], 1).log_softmax(2)


class FusionAnswer(NamedTuple):
    """In the order of FUSION_OUTPUTS."""

    logits: Tensor
    weights: Tensor
    """(n, 3): share of face, voice and words; 0 where masked, all 0 when nothing is there."""


class Fusion(Network):
    """A fusion: pooled vectors, logits and a mask in, logits and weights out."""

    def __init__(self, preset: FusionPreset) -> None:
        super().__init__("fusion", preset.name, FUSION_INPUTS, FUSION_OUTPUTS)
        self.preset = preset

    def forward(self, *inputs: Tensor) -> FusionAnswer:
        return self.fuse(FusionEvidence(*inputs).without_masked())

    def fuse(self, evidence: FusionEvidence) -> FusionAnswer:
        """The fusion proper; what is masked holds zeros by now."""
        raise NotImplementedError


class LateFusion(Fusion):
    """As published: one scalar per modality on its logits, shared by all classes, without bias."""

    def __init__(self, preset: FusionPreset) -> None:
        super().__init__(preset)
        self.scalars = nn.Linear(3, 1, bias=False)

    def fuse(self, evidence: FusionEvidence) -> FusionAnswer:
        logits = torch.stack([evidence.face_logits, evidence.voice_logits, evidence.words_logits], 2)
        fused = self.scalars(logits * evidence.mask[:, None, :]).squeeze(2)
        return FusionAnswer(fused, _shares(self.scalars.weight.abs() * evidence.mask))


class LateMaskedFusion(Fusion):
    """A product of opinions: each modality's calibrated log-probabilities times a gain.

    Alone, a modality passes as it is: gain one, nothing added. In company its gain follows from who else is
    there and how certain it is itself, because two that agree by habit must not count as two. A mask between
    zero and one lowers a gain by that share. Nobody there: all classes alike.

    The temperatures make the gains mean the same whatever the scale of the logits: networks that are trained
    anew need new temperatures, not new gains.
    """

    temperature: Tensor
    elsewhere: Tensor

    def __init__(self, preset: FusionPreset) -> None:
        super().__init__(preset)
        self.register_buffer("temperature", torch.ones(3))
        self.register_buffer("elsewhere", 1.0 - torch.eye(3), persistent=False)
        self.company = nn.Parameter(torch.zeros(3, 3))
        """Logarithm of the gain of row's modality beside column's."""
        self.company_if_certain = nn.Parameter(torch.zeros(3, 3))

    def fuse(self, evidence: FusionEvidence) -> FusionAnswer:
        logits = torch.stack([evidence.face_logits, evidence.voice_logits, evidence.words_logits], 1)
        opinions = (logits / self.temperature[:, None]).log_softmax(2)
        certain = certainty(opinions)
        beside = evidence.mask[:, None, :] * self.elsewhere
        asked = (beside * (self.company + self.company_if_certain * certain[:, :, None])).sum(2)
        gains = asked.exp() * evidence.mask
        return FusionAnswer((gains[:, :, None] * opinions).sum(1), _shares(gains * (certain + _LEAST_SAY)))


class FactorisedBilinear(nn.Module):
    """z_i = sum over `rank` of (U a)(V v), then unit length: second-order interaction of two vectors."""

    def __init__(self, left: int, right: int, preset: FusionPreset) -> None:
        super().__init__()
        self.outputs, self.rank, self.signed_root = preset.outputs, preset.rank, preset.signed_root
        self.left = nn.Linear(left, self.outputs * self.rank, bias=False)
        self.right = nn.Linear(right, self.outputs * self.rank, bias=False)
        self.dropout = nn.Dropout(preset.dropout)

    def forward(self, left: Tensor, right: Tensor) -> Tensor:
        product = self.dropout(self.left(left) * self.right(right))
        z = product.reshape(-1, self.outputs, self.rank).sum(2)
        if self.signed_root:
            z = z.sign() * (z.abs() + 1e-12).sqrt()
        return functional.normalize(z, dim=1)


def extended_vector(vector: Tensor, weight: Tensor) -> Tensor:
    """[weight * vector ; 1]: with a constant beside it a scalar weight no longer cancels."""
    return torch.cat([weight * vector, torch.ones_like(weight)], dim=1)


class ModalityWeights(nn.Module):
    """Weights of face, voice and words for one pair of vectors, a softmax over those that are there."""

    def __init__(self, hidden: int = 32) -> None:
        super().__init__()
        self.face = nn.Sequential(nn.Linear(VECTOR, hidden), nn.Tanh(), nn.Linear(hidden, 1, bias=False))
        self.voice = nn.Sequential(nn.Linear(VECTOR, hidden), nn.Tanh(), nn.Linear(hidden, 1, bias=False))
        self.words = nn.Linear(1, 1)

    def forward(self, face: Tensor, voice: Tensor, words_certainty: Tensor, mask: Tensor) -> Tensor:
        asked = torch.cat([self.face(face), self.voice(voice), self.words(words_certainty)], dim=1)
        return masked_softmax(asked, mask)


class BilinearFusion(Fusion):
    """Factorised bilinear pooling of face and voice: global, adaptive, or adaptive over trunks as well.

    Words join behind it as a weighted opinion. The trunks are the short and the long window; the attention
    that merges them decides whether the last two seconds or the last eight say more.
    """

    def __init__(self, preset: FusionPreset) -> None:
        super().__init__(preset)
        self.pool = FactorisedBilinear(VECTOR + 1, VECTOR + 1, preset)
        self.adapt = ModalityWeights() if preset.adaptive else None
        self.to_global = nn.Linear(preset.outputs, len(LABELS))
        self.words_gain = nn.Parameter(torch.ones(1))
        if preset.trunks:
            self.look = nn.Linear(preset.outputs, 64)
            self.weigh = nn.Linear(64, 1, bias=False)
            self.to_local = nn.Linear(preset.outputs, len(LABELS))
            self.to_both = nn.Linear(2 * preset.outputs, len(LABELS))

    def fuse(self, evidence: FusionEvidence) -> FusionAnswer:
        return self.with_auxiliaries(evidence)[0]

    def with_auxiliaries(self, evidence: FusionEvidence) -> tuple[FusionAnswer, tuple[Tensor, ...]]:
        """The answer, and the logits of the global and of the local way alone, for training."""
        e = evidence.without_masked()
        z_long, w_long = self._pair(e.face_long, e.voice_long, e)
        logits = self.to_global(z_long)
        if not self.preset.trunks:
            return self._answer(logits, w_long, e), ()
        z_short, w_short = self._pair(e.face_short, e.voice_short, e)
        z, w = torch.stack([z_short, z_long], 1), torch.stack([w_short, w_long], 1)
        merge = self.weigh(self.look(z).tanh()).softmax(1)
        z_local, w_local = (merge * z).sum(1), (merge * w).sum(1)
        both = self.to_both(torch.cat([z_long, z_local], dim=1))
        answer = self._answer(both, (w_long + w_local) / 2, e)
        auxiliaries = self._answer(logits, w_long, e), self._answer(self.to_local(z_local), w_local, e)
        return answer, tuple(aux.logits for aux in auxiliaries)

    def _pair(self, face: Tensor, voice: Tensor, e: FusionEvidence) -> tuple[Tensor, Tensor]:
        """The pooled vector and the weights of all three modalities."""
        if self.adapt is None:
            weights, pair = _shares(e.mask), e.mask[:, :2]
        else:
            words = certainty(e.log_odds())[:, 2:]
            weights = self.adapt(face, voice, words, e.mask)
            pair = _shares(weights[:, :2])
        return self.pool(extended_vector(face, pair[:, :1]), extended_vector(voice, pair[:, 1:])), weights

    def _answer(self, logits: Tensor, weights: Tensor, e: FusionEvidence) -> FusionAnswer:
        seen = weights[:, :2].sum(1, keepdim=True)
        words = weights[:, 2:] * self.words_gain * e.words_logits.log_softmax(1)
        return FusionAnswer(seen * logits + words, weights)


def certainty(log_odds: Tensor) -> Tensor:
    """1 for a verdict, 0 for all classes alike: one minus the entropy's share of its largest value."""
    entropy = -(log_odds.exp() * log_odds).sum(-1)
    return 1.0 - entropy / math.log(len(LABELS))


def masked_softmax(asked: Tensor, mask: Tensor) -> Tensor:
    """Softmax over what the mask lets through; all zero when it lets nothing through."""
    # Subtracting the maximum would let a masked favourite push the rest to zero; a bound does not.
    return _shares(torch.exp(10.0 * torch.tanh(asked / 10.0)) * mask)


def _shares(weight: Tensor) -> Tensor:
    return weight / weight.sum(1, keepdim=True).clamp(min=1e-9)


def _or_zero(ok: Tensor, x: Tensor) -> Tensor:
    return torch.where(ok, x, torch.zeros_like(x))
