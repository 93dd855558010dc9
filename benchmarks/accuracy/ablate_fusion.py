"""Every fusion against every other and against the best single modality, on real pairs, fold by fold.

Everybody is judged on actors whom neither the two networks nor the fusion ever saw. What was called is kept
take by take, so that every figure can be made again from the files alone. Because no two networks share the
meaning of a vector's entries, vectors of another fold's network are first turned into the coordinates of the
fold's own, by a linear map between what both say about the same takes.

    python benchmarks/accuracy/ablate_fusion.py --data DIR --out DIR [--voices FILE] [--seeds 0 1 2]
"""

from __future__ import annotations

import argparse
import csv
import io
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from liveaffect.engines.manifest import write_whole
from liveaffect.engines.model import presets
from liveaffect.engines.model.fusion import (
    BilinearFusion,
    Fusion,
    FusionAnswer,
    FusionEvidence,
    FusionPreset,
)
from liveaffect.engines.protocol import VECTOR
from liveaffect.engines.recipe import LABELS
from liveaffect.engines.training import pairs, voice_answers
from liveaffect.engines.training.fit_fusion import (
    BLANKED_SHARE,
    BOTH,
    CONDITIONS,
    EPOCHS,
    PRESET,
    Opinions,
    evidence_of,
    fit_late_masked,
    probabilities,
    settle,
)
from liveaffect.engines.training.pairs import FOLDS, FoldAnswers, Pairs, balanced_weights
from liveaffect.engines.training.ship import source_commit

SEEDS = (0, 1, 2)
CALLED, TAKES = "called.csv", "takes.csv"
NONE_BLANKED = "no modality dropout"
TRAINED_ON = "learnt from answers about its networks' own actors"
USUAL = "as used"
COLUMNS = ("method", "how", "given", "seed", "commit", "voices", "called")
UNLEARNT = ("face alone", "voice alone", "mean of logits")
LEARNT = ("late", "late-masked", "concatenation", "gfbp", "agfbp", "amfbp")
AUXILIARY_SHARE = 0.3
_RIDGE = 10.0
Report = Callable[[str], None]
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class FusionFit:
    """How a fusion is learnt."""

    seed: int = 0
    blanked: float = BLANKED_SHARE
    """Share of the pairs that lose one modality."""
    epochs: int = EPOCHS
    rate: float = 3e-3
    batch: int = 128
    decay: float = 0.05


@dataclass(frozen=True, slots=True)
class Called:
    """What one method called every take, each by the fold that holds its actor out."""

    method: str
    how: str
    given: str
    seed: int
    commit: str
    voices: str
    """SHA-256 of the voice networks' answers, the first twelve digits."""
    called: NDArray[np.int64]


def compare_fusions(
    data: Path,
    out: Path,
    *,
    voices: Path | None = None,
    seeds: Sequence[int] = SEEDS,
    methods: Sequence[str] = LEARNT,
    report: Report = _log.info,
) -> None:
    """Run the whole comparison and write `called.csv` and `takes.csv` into `out`."""
    real = pairs.read_pairs(data)
    commit, told = source_commit(), voice_answers.fingerprint(voices)
    rows: list[Called] = []
    for seed in seeds:
        faces = pairs.answers_by_fold(real.face, real.truth, real.folds, seed=seed)
        heard = voice_answers.of_folds(real, voices, seed)
        alone = {"face alone": faces, "voice alone": heard}
        for method, said in alone.items():
            found = said.held_out(real.folds).argmax(1)
            rows.append(Called(method, USUAL, "itself", seed, commit, told, found))
        for method, how in variants(methods, first=seed == seeds[0]):
            answers = across_folds(method, how, real, (faces, heard), seed)
            rows += [
                Called(method, how, given, seed, commit, told, part.argmax(1))
                for given, part in answers.items()
            ]
            both = (answers["both"].argmax(1) == real.truth).mean()
            report(f"seed {seed}: {method}, {how}: {both:.3f} of the takes right")
            if method == "late-masked" and how == USUAL and seed == seeds[0]:
                write_takes(real, faces, heard, answers["both"], out)
    write_called(rows, out)


def variants(methods: Sequence[str], *, first: bool) -> list[tuple[str, str]]:
    """What is run: everything as used, and with the first seed each of two things left out."""
    runs = [("mean of logits", USUAL), *((method, USUAL) for method in methods)]
    if first:
        runs += [(method, NONE_BLANKED) for method in methods if method != "late-masked"]
        runs += [(method, TRAINED_ON) for method in methods]
    return runs


def across_folds(
    method: str, how: str, real: Pairs, said: tuple[FoldAnswers, FoldAnswers], seed: int
) -> dict[str, NDArray[np.float64]]:
    """Probabilities of every take under every condition, each by the fold that holds its actor out."""
    out = {given: np.zeros((len(real), len(LABELS))) for given in CONDITIONS}
    plan = FusionFit(seed, blanked=0.0 if how == NONE_BLANKED else BLANKED_SHARE)
    for fold in range(FOLDS):
        held = real.folds == fold
        face, voice = (
            scaled(as_fused(one, real.folds, fold, held_out=how != TRAINED_ON), ~held) for one in said
        )
        network = fit_method(method, evidence_of(face, voice, ~held, BOTH), real.truth[~held], plan)
        for given, mask in CONDITIONS.items():
            out[given][held] = probabilities(network, evidence_of(face, voice, held, mask))
    return out


def write_called(rows: Sequence[Called], out: Path) -> None:
    """One line a run: a digit for each take, the place of the label it was called, takes in their order."""
    out.mkdir(parents=True, exist_ok=True)
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(COLUMNS)
    for row in rows:
        digits = "".join(map(str, row.called.tolist()))
        table.writerow([row.method, row.how, row.given, row.seed, row.commit, row.voices, digits])
    write_whole(out / CALLED, text.getvalue().encode())


def read_called(text: str) -> list[Called]:
    """The runs of a `called.csv`. Raises ValueError if it is none."""
    rows = list(csv.DictReader(io.StringIO(text)))
    if not rows or tuple(rows[0]) != COLUMNS:
        raise ValueError(f"{CALLED} holds no runs with the columns {', '.join(COLUMNS)}")
    return [
        Called(
            **{key: row[key] for key in ("method", "how", "given", "commit", "voices")},
            seed=int(row["seed"]),
            called=np.array([int(digit) for digit in row["called"]]),
        )
        for row in rows
    ]


def write_takes(
    real: Pairs, faces: FoldAnswers, heard: FoldAnswers, fused: NDArray[np.float64], out: Path
) -> None:
    """One line a take: who, what, and the scores of the first seed by the fold that holds its actor out."""
    out.mkdir(parents=True, exist_ok=True)
    parts: dict[str, NDArray[np.floating]] = {
        "face": faces.held_out(real.folds),
        "voice": heard.held_out(real.folds),
        "fused": fused,
    }
    heads = [f"{part}_{label}" for part in parts for label in LABELS]
    lines = [",".join(["name", "actor", "fold", "truth", *heads])]
    for at, name in enumerate(real.names):
        cells = [f"{value:.5f}" for part in parts.values() for value in part[at].tolist()]
        who = [name, real.actors[at], str(real.folds[at]), LABELS[real.truth[at]]]
        lines.append(",".join([*who, *cells]))
    write_whole(out / TAKES, ("\n".join(lines) + "\n").encode())


@dataclass(frozen=True, slots=True, eq=False)
class Takes:
    """A `takes.csv`."""

    names: tuple[str, ...]
    actors: tuple[str, ...]
    folds: NDArray[np.int64]
    truth: NDArray[np.int64]
    scores: dict[str, NDArray[np.float64]]
    """Of 'face', 'voice' and 'fused', (n, 7)."""


def read_takes(text: str) -> Takes:
    """Truth and scores take by take. Raises ValueError if the file is no such table."""
    rows = list(csv.DictReader(io.StringIO(text)))
    parts = ("face", "voice", "fused")
    if not rows or list(rows[0])[4:] != [f"{part}_{label}" for part in parts for label in LABELS]:
        raise ValueError(f"{TAKES} holds no takes with scores of {', '.join(parts)}")
    return Takes(
        names=tuple(row["name"] for row in rows),
        actors=tuple(row["actor"] for row in rows),
        folds=np.array([int(row["fold"]) for row in rows]),
        truth=np.array([LABELS.index(row["truth"]) for row in rows]),
        scores={
            part: np.array([[float(row[f"{part}_{label}"]) for label in LABELS] for row in rows])
            for part in parts
        },
    )


class Concatenation(Fusion):
    """What bilinear pooling must beat: both vectors side by side through one hidden layer."""

    def __init__(self) -> None:
        super().__init__(FusionPreset("concatenation"))
        self.layers = nn.Sequential(
            nn.Linear(2 * VECTOR + 2, 128), nn.ReLU(), nn.Dropout(0.3), nn.Linear(128, len(LABELS))
        )

    def fuse(self, evidence: FusionEvidence) -> FusionAnswer:
        there = evidence.mask[:, :2]
        logits = self.layers(torch.cat([evidence.face_long, evidence.voice_long, there], 1))
        return FusionAnswer(logits, evidence.mask / evidence.mask.sum(1, keepdim=True).clamp(min=1e-9))


class MeanOfLogits(Fusion):
    """Nothing is learnt: raw logits of what is there, averaged. With one modality it is that modality."""

    def __init__(self) -> None:
        super().__init__(FusionPreset("mean of logits"))

    def fuse(self, evidence: FusionEvidence) -> FusionAnswer:
        shares = evidence.mask / evidence.mask.sum(1, keepdim=True).clamp(min=1e-9)
        stacked = torch.stack([evidence.face_logits, evidence.voice_logits, evidence.words_logits], 1)
        return FusionAnswer((shares[:, :, None] * stacked).sum(1), shares)


def scaled(said: Opinions, train: NDArray[np.bool_]) -> Opinions:
    """Vectors divided by one number, so that those of both modalities have about the same length."""
    size = float(np.sqrt((said.vectors[train] ** 2).mean())) or 1.0
    return Opinions(said.vectors / size, said.logits)


def make_method(method: str, seed: int) -> Fusion:
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


def fit_method(method: str, given: FusionEvidence, truth: NDArray[np.int64], plan: FusionFit) -> Fusion:
    """A fusion learnt from pairs, in evaluation mode."""
    if method == PRESET:
        return fit_late_masked(given, truth, seed=plan.seed, epochs=plan.epochs, blanked=plan.blanked)
    network, wanted = make_method(method, plan.seed), torch.from_numpy(truth)
    if method not in UNLEARNT:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(plan.seed)
            if method == "late":
                settle(network, given, wanted, epochs=plan.epochs, blanked=plan.blanked)
            else:
                _learn(network, given, wanted, plan)
    return network.eval()


def _learn(network: Fusion, given: FusionEvidence, truth: Tensor, plan: FusionFit) -> None:
    weight, count = balanced_weights(truth), len(truth)
    kept = [p for p in network.parameters() if p.requires_grad]
    optimiser = torch.optim.AdamW(kept, lr=plan.rate, weight_decay=plan.decay)
    batches = -(-count // plan.batch)
    falling = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, plan.epochs * batches)
    network.train()
    for _ in range(plan.epochs):
        for at in torch.randperm(count).split(plan.batch):  # type: ignore[no-untyped-call]
            batch = FusionEvidence._make(tensor[at] for tensor in given)
            batch = batch._replace(mask=_blanked(batch.mask, plan.blanked)).without_masked()
            loss = _loss(network, batch, truth[at], weight)
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            falling.step()


def _loss(network: Fusion, batch: FusionEvidence, truth: Tensor, weight: Tensor) -> Tensor:
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


def as_fused(said: FoldAnswers, folds: NDArray[np.int64], fold: int, *, held_out: bool) -> Opinions:
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
    return Opinions(vectors, logits)


def linear_map(given: NDArray[np.float32], wanted: NDArray[np.float32]) -> NDArray[np.float64]:
    """(65, 64): the ridge regression from one network's vectors, and a constant, to another's."""
    one = np.concatenate([given, np.ones((len(given), 1))], axis=1).astype(np.float64)
    price = np.eye(one.shape[1]) * _RIDGE * float((given**2).mean())
    price[-1, -1] = 1e-6
    return np.asarray(np.linalg.solve(one.T @ one + price, one.T @ wanted), np.float64)


def _turned(vectors: NDArray[np.float32], turn: NDArray[np.float64]) -> NDArray[np.float32]:
    return np.asarray(vectors @ turn[:-1] + turn[-1], np.float32)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with the corpora")
    parser.add_argument("--out", type=Path, required=True, help="folder for the two tables")
    parser.add_argument("--voices", type=Path, help="what fold-wise voice networks said")
    parser.add_argument("--seeds", type=int, nargs="+", default=SEEDS)
    given = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    compare_fusions(given.data, given.out, voices=given.voices, seeds=given.seeds)


if __name__ == "__main__":
    main()
