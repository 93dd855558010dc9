"""Every fusion against every other and against the best single modality, on real pairs, fold by fold.

Everybody is judged on actors whom neither the two networks nor the fusion ever saw. What was called is kept
take by take, so that every figure can be made again from the files alone.
"""

from __future__ import annotations

import csv
import hashlib
import io
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from liveaffect.engines.manifest import write_whole
from liveaffect.engines.recipe import LABELS
from liveaffect.engines.training import fit_fusion, pairs, stand_in, voice_answers
from liveaffect.engines.training.fit_fusion import BLANKED_SHARE, BOTH, CONDITIONS, LEARNT, Plan, evidence_of
from liveaffect.engines.training.pairs import FOLDS, Pairs
from liveaffect.engines.training.source import source_commit
from liveaffect.engines.training.stand_in import FoldAnswers, as_fused

SEEDS = (0, 1, 2)
CALLED, TAKES = "called.csv", "takes.csv"
NONE_BLANKED = "no modality dropout"
TRAINED_ON = "learnt from answers about its networks' own actors"
USUAL = "as used"
COLUMNS = ("method", "how", "given", "seed", "commit", "voices", "called")
Report = Callable[[str], None]
_log = logging.getLogger(__name__)


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


def main_run(
    data: Path,
    out: Path,
    *,
    voices: Path | None = None,
    seeds: Sequence[int] = SEEDS,
    methods: Sequence[str] = LEARNT,
    report: Report = _log.info,
) -> None:
    """Run the whole comparison and write `called.csv` and `takes.csv` into `out`."""
    real = pairs.read(data)
    commit, told = source_commit(), fingerprint(voices)
    rows: list[Called] = []
    for seed in seeds:
        faces = stand_in.answers_by_fold(real.face, real.truth, real.folds, seed=seed)
        heard = voices_of(real, voices, seed)
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
    plan = Plan(seed, blanked=0.0 if how == NONE_BLANKED else BLANKED_SHARE)
    for fold in range(FOLDS):
        held = real.folds == fold
        face, voice = (
            fit_fusion.scaled(as_fused(one, real.folds, fold, held_out=how != TRAINED_ON), ~held)
            for one in said
        )
        network = fit_fusion.fit(method, evidence_of(face, voice, ~held, BOTH), real.truth[~held], plan)
        for given, mask in CONDITIONS.items():
            out[given][held] = fit_fusion.probabilities(network, evidence_of(face, voice, held, mask))
    return out


def voices_of(real: Pairs, voices: Path | None, seed: int) -> FoldAnswers:
    """The answers of fold-wise voice networks, or of stand-ins over statistics of the sound."""
    if voices is not None:
        return voice_answers.read_folds(voices, real)
    return stand_in.answers_by_fold(real.sound, real.truth, real.folds, seed=seed)


def fingerprint(voices: Path | None) -> str:
    """Which answers of voice networks were used."""
    return "stand-in" if voices is None else hashlib.sha256(voices.read_bytes()).hexdigest()[:12]


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


def read_called(path: Path) -> list[Called]:
    """The runs of a `called.csv`. Raises ValueError if it is none."""
    rows = list(csv.DictReader(io.StringIO(path.read_text("utf-8"))))
    if not rows or tuple(rows[0]) != COLUMNS:
        raise ValueError(f"{path} holds no runs with the columns {', '.join(COLUMNS)}")
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


def read_takes(path: Path) -> Takes:
    """Truth and scores take by take. Raises ValueError if the file is no such table."""
    rows = list(csv.DictReader(io.StringIO(path.read_text("utf-8"))))
    parts = ("face", "voice", "fused")
    if not rows or list(rows[0])[4:] != [f"{part}_{label}" for part in parts for label in LABELS]:
        raise ValueError(f"{path} holds no takes with scores of {', '.join(parts)}")
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
