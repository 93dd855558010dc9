"""Teaches a voice network what is speech: people's pieces against sounds that nobody speaks in."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from liveaffect.engines.model.voice_statistics import SpeechJudge
from liveaffect.engines.training.piece_bank import NOTHING, PieceBank

STEPS, BATCH, RATE = 600, 256, 2e-3
SOUNDS = 0.35
"""Share of a batch that nobody speaks in."""


def fit(bank: PieceBank, chosen: NDArray[np.bool_], judge: SpeechJudge, *, seed: int = 0) -> None:
    """Train a judge on the chosen recordings and on all sounds of the bank that are no speech."""
    rng = np.random.default_rng(seed)
    noise = np.flatnonzero((bank.label == NOTHING)[bank.owner])
    people = np.flatnonzero((chosen & (bank.label != NOTHING))[bank.owner])
    seen = torch.from_numpy(bank.newest[people[:: max(1, len(people) // 8192)]]).float()
    mean, scale = seen.mean(0), 1.0 / seen.std(0).clamp(min=1e-3)
    optimiser = torch.optim.AdamW(judge.parameters(), lr=RATE, weight_decay=0.02)
    judge.train()
    for _ in range(STEPS):
        rows = rng.choice(people, BATCH)
        if len(noise):
            rows[: round(SOUNDS * BATCH)] = rng.choice(noise, round(SOUNDS * BATCH))
        said = judge((torch.from_numpy(bank.newest[rows]).float() - mean) * scale)[:, 0]
        loss = functional.binary_cross_entropy(said, torch.from_numpy(bank.speech[rows]))
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
    with torch.no_grad():
        # The network is handed features as they are, so the scaling becomes part of the first layer.
        judge.look.weight.mul_(scale)
        judge.look.bias.sub_(judge.look.weight @ mean)
    judge.eval()
