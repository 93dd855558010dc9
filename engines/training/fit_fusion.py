"""Fits one fusion to pairs of answers: every preset, and what a fusion must beat.

Half of the pairs lose their face or their voice, so that a missing one is nothing new in use.
`late-masked` needs none of that, because alone a modality passes through it as it is; it has four numbers to
learn and two temperatures, which are fitted to each modality's answers first.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from liveaffect.engines.model import presets
from liveaffect.engines.model.fusion import (
    BilinearFusion,
    Evidence,
    Fusion,
    FusionAnswer,
    FusionPreset,
    LateMaskedFusion,
)
from liveaffect.engines.protocol import VECTOR
from liveaffect.engines.recipe import LABELS
from liveaffect.engines.training.stand_in import Said, class_weights

BOTH, FACE, VOICE = (1.0, 1.0, 0.0), (1.0, 0.0, 0.0), (0.0, 1.0, 0.0)
CONDITIONS = {"both": BOTH, "voice blanked": FACE, "face blanked": VOICE}
UNLEARNT = ("face alone", "voice alone", "mean of logits")
LEARNT = ("late", "late-masked", "concatenation", "gfbp", "agfbp", "amfbp")
BLANKED_SHARE = 0.5
AUXILIARY_SHARE = 0.3
_FEW_NUMBERS = ("late", "late-masked")
_SMALL = 1e-3
"""What a learnt number costs by its square, so that one that changes nothing stays zero."""


@dataclass(frozen=True, slots=True)
class Plan:
    """How a fusion is learnt."""

    seed: int = 0
    blanked: float = BLANKED_SHARE
    """Share of the pairs that lose one modality."""
    epochs: int = 25
    rate: float = 3e-3
    batch: int = 128
    decay: float = 0.05


class Concatenation(Fusion):
    """What bilinear pooling must beat: both vectors side by side through one hidden layer."""

    def __init__(self) -> None:
        super().__init__(FusionPreset("concatenation"))
        self.layers = nn.Sequential(
            nn.Linear(2 * VECTOR + 2, 128), nn.ReLU(), nn.Dropout(0.3), nn.Linear(128, len(LABELS))
        )

    def fuse(self, evidence: Evidence) -> FusionAnswer:
        there = evidence.mask[:, :2]
        logits = self.layers(torch.cat([evidence.face_long, evidence.voice_long, there], 1))
        return FusionAnswer(logits, evidence.mask / evidence.mask.sum(1, keepdim=True).clamp(min=1e-9))


class MeanOfLogits(Fusion):
    """Nothing is learnt: raw logits of what is there, averaged. With one modality it is that modality."""

    def __init__(self) -> None:
        super().__init__(FusionPreset("mean of logits"))

    def fuse(self, evidence: Evidence) -> FusionAnswer:
        shares = evidence.mask / evidence.mask.sum(1, keepdim=True).clamp(min=1e-9)
        stacked = torch.stack([evidence.face_logits, evidence.voice_logits, evidence.words_logits], 1)
        return FusionAnswer((shares[:, :, None] * stacked).sum(1), shares)


def evidence_of(face: Said, voice: Said, at: NDArray[np.bool_], mask: tuple[float, float, float]) -> Evidence:
    """The fusion's inputs for some takes."""
    count = int(at.sum())

    def tensor(array: NDArray[np.float32]) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(array[at]))

    return Evidence(
        tensor(face.vectors),
        tensor(face.vectors),
        tensor(voice.vectors),
        tensor(voice.vectors),
        tensor(face.logits),
        tensor(voice.logits),
        torch.zeros(count, len(LABELS)),
        torch.tensor([mask]).expand(count, -1),
    )


def scaled(said: Said, train: NDArray[np.bool_]) -> Said:
    """Vectors divided by one number, so that those of both modalities have about the same length."""
    size = float(np.sqrt((said.vectors[train] ** 2).mean())) or 1.0
    return Said(said.vectors / size, said.logits)


def make(method: str, seed: int) -> Fusion:
    """A fusion that knows nothing yet."""
    if method in ("mean of logits", "face alone", "voice alone"):
        return MeanOfLogits()
    if method == "concatenation":
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return Concatenation()
    network = presets.build("fusion", method, seed=seed)
    assert isinstance(network, Fusion)
    return network


def fit(method: str, given: Evidence, truth: NDArray[np.int64], plan: Plan) -> Fusion:
    """A fusion learnt from pairs, in evaluation mode."""
    network, wanted = make(method, plan.seed), torch.from_numpy(truth)
    if isinstance(network, LateMaskedFusion):
        for at, logits in enumerate((given.face_logits, given.voice_logits)):
            network.temperature[at] = fitted_temperature(logits, wanted)
    if method not in UNLEARNT:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(plan.seed)
            (_settle if method in _FEW_NUMBERS else _learn)(network, given, wanted, plan)
    return network.eval()


def fitted_temperature(logits: Tensor, truth: Tensor, *, balanced: bool = True) -> float:
    """What logits must be divided by so that they promise as much as they keep.

    `balanced`: every label counts the same however often it occurs.
    """
    candidates = torch.logspace(-1, 1, 401)
    weight = class_weights(truth) if balanced else None
    losses = [functional.cross_entropy(logits / one, truth, weight=weight) for one in candidates]
    return float(candidates[int(torch.stack(losses).argmin())])


def probabilities(network: Fusion, given: Evidence) -> NDArray[np.float64]:
    """(n, 7): what a fusion says."""
    with torch.inference_mode():
        return np.asarray(network(*given).logits.double().softmax(1).numpy())


def _settle(network: Fusion, given: Evidence, truth: Tensor, plan: Plan) -> None:
    """A handful of numbers is learnt from all pairs at once, whole and with either modality blanked."""
    weight = class_weights(truth)
    kept = [p for p in network.parameters() if p.requires_grad]
    shares = {BOTH: 1.0 - plan.blanked, FACE: plan.blanked / 2, VOICE: plan.blanked / 2}
    masks = {mask: torch.tensor([mask]).expand(len(truth), -1) for mask, share in shares.items() if share}
    optimiser = torch.optim.LBFGS(kept, max_iter=plan.epochs, line_search_fn="strong_wolfe")

    def price() -> Tensor:
        optimiser.zero_grad()
        total = _SMALL * torch.stack([(p**2).sum() for p in kept]).sum()
        for mask, tensor in masks.items():
            answer = network(*given._replace(mask=tensor))
            total = total + shares[mask] * functional.cross_entropy(answer.logits, truth, weight=weight)
        total.backward()  # type: ignore[no-untyped-call]
        return total

    optimiser.step(price)  # type: ignore[no-untyped-call]


def _learn(network: Fusion, given: Evidence, truth: Tensor, plan: Plan) -> None:
    weight, count = class_weights(truth), len(truth)
    kept = [p for p in network.parameters() if p.requires_grad]
    optimiser = torch.optim.AdamW(kept, lr=plan.rate, weight_decay=plan.decay)
    batches = -(-count // plan.batch)
    falling = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, plan.epochs * batches)
    network.train()
    for _ in range(plan.epochs):
        for at in torch.randperm(count).split(plan.batch):  # type: ignore[no-untyped-call]
            batch = Evidence._make(tensor[at] for tensor in given)
            batch = batch._replace(mask=_blanked(batch.mask, plan.blanked)).without_masked()
            loss = _loss(network, batch, truth[at], weight)
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            falling.step()


def _loss(network: Fusion, batch: Evidence, truth: Tensor, weight: Tensor) -> Tensor:
    def against(logits: Tensor) -> Tensor:
        return functional.cross_entropy(logits, truth, weight=weight)

    if not isinstance(network, BilinearFusion):
        return against(network(*batch).logits)
    answer, auxiliaries = network.with_auxiliaries(batch)
    return against(answer.logits) + AUXILIARY_SHARE * sum(map(against, auxiliaries), torch.zeros(()))


def _blanked(mask: Tensor, share: float) -> Tensor:
    """Some rows without their face, as many without their voice."""
    dice = torch.rand(len(mask), 1)
    without_face, without_voice = dice < share / 2, dice > 1 - share / 2
    keep = torch.cat([~without_face, ~without_voice, torch.ones_like(without_face)], dim=1)
    return mask * keep
