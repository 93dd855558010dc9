"""Fusions on real pairs of face and voice, each with and without each modality, on actors nobody met.

The films of the takes cannot be had. Means of action units over a take stand in for the face: they have no
time, so they are the same in both trunks. The sound has time: log-mel of each take, from its first loud
moment to its last, is cut into pieces of equal length, whose means and spreads a small network makes
vectors of. Attention pools all pieces for the long trunk and the later half of them for the short one. Face,
voice and fusion are learnt together, and half of the takes lose a modality.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import spectra
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from liveaffect.engines.model import presets
from liveaffect.engines.model.fusion import BilinearFusion, Fusion, FusionEvidence
from liveaffect.engines.model.heads import AskedWeight
from liveaffect.engines.protocol import VECTOR
from liveaffect.engines.recipe import LABELS
from liveaffect.engines.training import corpora_voices, pairs

FUSIONS = ("late", "late-masked", "gfbp", "agfbp", "amfbp")
CONDITIONS = {"both": (1.0, 1.0, 0.0), "no voice": (1.0, 0.0, 0.0), "no face": (0.0, 1.0, 0.0)}
DROPPED, EPOCHS, BATCH = 0.5, 25, 64
PIECES = 4
BESIDE = 0.3
"""How much each modality alone, and each trunk alone, counts in the loss."""
Numbers = NDArray[np.float32]


class Joined(nn.Module):
    """Numbers of a face and of pieces of sound to vectors and logits, and a fusion of them."""

    def __init__(self, numbers: tuple[int, int], fusion: str) -> None:
        super().__init__()
        self.ways = nn.ModuleList(
            nn.Sequential(
                nn.Dropout(0.1), nn.Linear(n, 128), nn.ReLU(), nn.Dropout(0.3), nn.Linear(128, VECTOR)
            )
            for n in numbers
        )
        self.heads = nn.ModuleList(nn.Linear(VECTOR, len(LABELS)) for _ in numbers)
        self.to_score = AskedWeight()
        made = presets.build("fusion", fusion, seed=0)
        assert isinstance(made, Fusion)
        self.fusion = made

    def forward(self, face: Tensor, sound: Tensor, mask: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Logits, and those of each modality and each trunk alone."""
        seen, pieces = self.ways[0](face), self.ways[1](sound)
        asked = self.to_score(pieces)
        short, long = ((asked[:, begin:].softmax(1) * pieces[:, begin:]).sum(1) for begin in (PIECES // 2, 0))
        alone = [self.heads[0](seen), self.heads[1](long)]
        no_words = torch.zeros_like(alone[0])
        evidence = FusionEvidence(seen, seen, short, long, alone[0], alone[1], no_words, mask)
        if isinstance(self.fusion, BilinearFusion):
            answer, trunks = self.fusion.with_auxiliaries(evidence)
            return answer.logits, [*alone, *trunks]
        return self.fusion(*evidence).logits, alone


def everything_said(
    data: Path, folds: int, seeds: int
) -> tuple[dict[tuple[str, str], NDArray[np.int64]], NDArray[np.int64], NDArray[np.str_]]:
    """(seeds, takes) of each fusion in each condition; what is true of the takes, and who says them."""
    real = pairs.read_pairs(data)
    pieces = _pieces(data, real.names)
    said = {
        (fusion, name): np.zeros((seeds, len(real)), np.int64) for fusion in FUSIONS for name in CONDITIONS
    }
    for fusion in FUSIONS:
        for seed in range(seeds):
            for fold in range(folds):
                out = real.folds == fold
                network, inputs = _learnt(real, pieces, ~out, fusion, seed)
                for name, mask in CONDITIONS.items():
                    masks = torch.tensor([mask]).expand(int(out.sum()), -1)
                    with torch.inference_mode():
                        logits, _ = network(*(part[torch.from_numpy(out)] for part in inputs), masks)
                    said[fusion, name][seed, out] = logits.argmax(1).numpy()
    kept = np.isin(real.folds, range(folds))
    judged = {key: found[:, kept] for key, found in said.items()}
    return judged, real.truth[kept], np.array(real.actors)[kept]


def _pieces(data: Path, names: tuple[str, ...]) -> Numbers:
    """(takes, PIECES, numbers): means and spreads of the bands, in the order of these names."""
    takes = corpora_voices.read_corpus("ravdess", corpora_voices.find(data)["ravdess"])
    sounds = corpora_voices.load_takes(takes, corpora_voices.default_folder())
    found = {take.name[3:]: sound for take, sound in zip(takes, sounds, strict=True)}
    rows = []
    for name in names:
        parts = np.array_split(spectra.loud_log_mel(found[name].astype(np.float32)), PIECES, axis=1)
        rows.append([np.concatenate([part.mean(1), part.std(1)]) for part in parts])
    return np.asarray(rows, np.float32)


def _learnt(
    real: pairs.Pairs, pieces: Numbers, train_rows: NDArray[np.bool_], fusion: str, seed: int
) -> tuple[Joined, list[Tensor]]:
    inputs = []
    for numbers in (real.face, pieces):
        known = numbers[train_rows].reshape(-1, numbers.shape[-1])
        scaled = (numbers - known.mean(0)) / (known.std(0) + 1e-6)
        inputs.append(torch.from_numpy(np.clip(scaled, -5, 5).astype(np.float32)))
    torch.manual_seed(seed)
    network = Joined((real.face.shape[-1], pieces.shape[-1]), fusion)
    truth, rows = torch.from_numpy(real.truth), torch.from_numpy(np.flatnonzero(train_rows))
    weight = pairs.balanced_weights(truth[rows])
    optimiser = torch.optim.AdamW(network.parameters(), lr=2e-3, weight_decay=0.05)
    steps = EPOCHS * -(-len(rows) // BATCH)
    plan = torch.optim.lr_scheduler.OneCycleLR(optimiser, 4e-3, total_steps=steps)
    masks = torch.tensor([*CONDITIONS.values()])
    for _ in range(EPOCHS):
        for at in rows[torch.randperm(len(rows))].split(BATCH):  # type: ignore[no-untyped-call]
            which = torch.multinomial(torch.tensor([1 - DROPPED, DROPPED / 2, DROPPED / 2]), len(at), True)
            parts = [part[at] + 0.2 * torch.randn(part[at].shape) for part in inputs]
            logits, beside = network(*parts, masks[which])
            price = functional.cross_entropy(logits, truth[at], weight=weight)
            for one in beside:
                price = price + BESIDE * functional.cross_entropy(one, truth[at], weight=weight)
            optimiser.zero_grad()
            price.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            plan.step()
    return network.eval(), inputs
