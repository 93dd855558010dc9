"""Small networks over ready-made numbers of a take, which stand in for a face or a voice network.

They are trained as the real ones are, on some actors, and asked about all. What they say about actors they
were trained on is far too certain, and a fusion that learnt from that would trust them too much. So a fusion
learns from what networks of *other* folds say about actors those never saw; and because no two networks
share the meaning of a vector's entries, their vectors are first turned into the coordinates of the fold's own
network, by a linear map between what both say about the same takes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from liveaffect.engines.protocol import VECTOR
from liveaffect.engines.recipe import LABELS
from liveaffect.engines.training.pairs import FOLDS

_HIDDEN, _EPOCHS, _BATCH = 128, 40, 64
_FAR = 5.0
"""Standardised numbers beyond this are cut."""
_RIDGE = 10.0


@dataclass(frozen=True, slots=True, eq=False)
class FoldAnswers:
    """What each fold's network says about every take, trained on or not."""

    vectors: NDArray[np.float32]
    """(folds, n, 64)."""
    logits: NDArray[np.float32]
    """(folds, n, 7)."""

    def held_out(self, folds: NDArray[np.int64]) -> NDArray[np.float32]:
        """(n, 7): logits of each take by the network that never saw its actor."""
        return self.logits[folds, np.arange(len(folds))]


@dataclass(frozen=True, slots=True, eq=False)
class Said:
    """One modality as one fold's fusion is given it, for all takes.

    A take is shorter than the short trunk of live use, so that the short and the long trunk are the same.
    """

    vectors: NDArray[np.float32]
    logits: NDArray[np.float32]


class StandIn(nn.Module):
    """Numbers to a vector and logits."""

    def __init__(self, numbers: int) -> None:
        super().__init__()
        self.to_vector = nn.Sequential(
            nn.Dropout(0.1),
            nn.Linear(numbers, _HIDDEN),
            nn.ReLU(),
            nn.Dropout(0.3),
            nn.Linear(_HIDDEN, VECTOR),
            nn.ReLU(),
        )
        self.to_logits = nn.Linear(VECTOR, len(LABELS))

    def forward(self, numbers: Tensor) -> tuple[Tensor, Tensor]:
        vector = self.to_vector(numbers)
        return vector, self.to_logits(vector)


def answers_by_fold(
    numbers: NDArray[np.float32], truth: NDArray[np.int64], folds: NDArray[np.int64], *, seed: int
) -> FoldAnswers:
    """Train one stand-in per fold on the other folds' actors; ask each about every take."""
    parts = [answers(numbers, truth, folds != fold, seed=seed) for fold in range(FOLDS)]
    return FoldAnswers(np.stack([vector for vector, _ in parts]), np.stack([logits for _, logits in parts]))


def answers(
    numbers: NDArray[np.float32], truth: NDArray[np.int64], train: NDArray[np.bool_], *, seed: int
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Vectors and logits of all takes by a stand-in trained on some.

    Numbers are standardised by the takes that are trained on: nothing is known of an actor beforehand.
    """
    mean, spread = numbers[train].mean(0), numbers[train].std(0) + 1e-6
    scaled = torch.from_numpy(np.clip((numbers - mean) / spread, -_FAR, _FAR).astype(np.float32))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = StandIn(numbers.shape[1])
        _learn(network, scaled[torch.from_numpy(train)], torch.from_numpy(truth[train]))
    with torch.inference_mode():
        vector, logits = network.eval()(scaled)
    return vector.numpy(), logits.numpy()


def _learn(network: StandIn, numbers: Tensor, truth: Tensor, noise: float = 0.2) -> None:
    weight = class_weights(truth)
    optimiser = torch.optim.AdamW(network.parameters(), lr=1e-3, weight_decay=0.05)
    steps = _EPOCHS * -(-len(truth) // _BATCH)
    plan = torch.optim.lr_scheduler.OneCycleLR(optimiser, 4e-3, total_steps=steps)
    for _ in range(_EPOCHS):
        for at in torch.randperm(len(truth)).split(_BATCH):  # type: ignore[no-untyped-call]
            blurred = numbers[at] + noise * torch.randn(len(at), numbers.shape[1])
            loss = functional.cross_entropy(
                network(blurred)[1], truth[at], weight=weight, label_smoothing=0.1
            )
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            plan.step()


def class_weights(truth: Tensor) -> Tensor:
    """So that every label counts the same however often it occurs."""
    often = torch.bincount(truth, minlength=len(LABELS)).clamp(min=1)
    return len(truth) / (len(LABELS) * often)


def as_fused(said: FoldAnswers, folds: NDArray[np.int64], fold: int, *, held_out: bool) -> Said:
    """What the fusion of one fold is given: about its own actors what the fold's network says.

    About the actors it learns from: with `held_out` what the network says that never saw them, else what the
    fold's network says, which was trained on them.
    """
    vectors, logits = said.vectors[fold].copy(), said.logits[fold].copy()
    if held_out:
        for other in set(range(FOLDS)) - {fold}:
            here, common = folds == other, (folds != other) & (folds != fold)
            turn = linear_map(said.vectors[other][common], said.vectors[fold][common])
            vectors[here] = _turned(said.vectors[other][here], turn)
            logits[here] = said.logits[other][here]
    return Said(vectors, logits)


def linear_map(given: NDArray[np.float32], wanted: NDArray[np.float32]) -> NDArray[np.float64]:
    """(65, 64): the ridge regression from one network's vectors, and a constant, to another's."""
    one = np.concatenate([given, np.ones((len(given), 1))], axis=1).astype(np.float64)
    price = np.eye(one.shape[1]) * _RIDGE * float((given**2).mean())
    price[-1, -1] = 1e-6
    return np.asarray(np.linalg.solve(one.T @ one + price, one.T @ wanted), np.float64)


def _turned(vectors: NDArray[np.float32], turn: NDArray[np.float64]) -> NDArray[np.float32]:
    return np.asarray(vectors @ turn[:-1] + turn[-1], np.float32)
