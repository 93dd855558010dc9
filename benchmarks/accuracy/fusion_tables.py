"""The tables about fusion, made again from what every method called every take.

The comparison was made with the voices of folds that were replaced since, and a fusion of vectors needs their
very vectors; so what was called stays, as of commit 006a6a0, and the program that called it is there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from accuracy.face_tables import Maker, rows_of
from numpy.typing import NDArray

from liveaffect.engines.recipe import LABELS
from liveaffect.engines.training.scores import (
    ENDING,
    markdown_table,
    read_tables,
    score,
    to_markdown,
    two_figures,
)

FUSION, TEST = f"fusion{ENDING}", "test.csv"
ORDER = (
    "face alone",
    "voice alone",
    "mean of logits",
    "late",
    "late-masked",
    "concatenation",
    "gfbp",
    "agfbp",
    "amfbp",
)
ROUNDS, PAIRINGS = 1000, 20
_EQUAL, _ANY = "the voice of a random take of equal label", "the voice of any random take"


CALLED, TAKES = "called.csv", "takes.csv"
USUAL = "as used"
NONE_BLANKED = "no modality dropout"
TRAINED_ON = "learnt from answers about its networks' own actors"
COLUMNS = ("method", "how", "given", "seed", "commit", "voices", "called")
PARTS = ("face", "voice", "fused")


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


@dataclass(frozen=True, slots=True, eq=False)
class Takes:
    """Who was judged, and the scores of the first seed."""

    names: tuple[str, ...]
    actors: tuple[str, ...]
    folds: NDArray[np.int64]
    truth: NDArray[np.int64]
    scores: dict[str, NDArray[np.float64]]
    """Of 'face', 'voice' and 'fused', (n, 7)."""


def read_called(text: str) -> list[Called]:
    """The runs of a `called.csv`. Raises ValueError if it is none."""
    rows = rows_of(text)
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


def read_takes(text: str) -> Takes:
    """Truth and scores take by take. Raises ValueError if the file is no such table."""
    rows = rows_of(text)
    if not rows or list(rows[0])[4:] != [f"{part}_{label}" for part in PARTS for label in LABELS]:
        raise ValueError(f"{TAKES} holds no takes with scores of {', '.join(PARTS)}")
    return Takes(
        names=tuple(row["name"] for row in rows),
        actors=tuple(row["actor"] for row in rows),
        folds=np.array([int(row["fold"]) for row in rows]),
        truth=np.array([LABELS.index(row["truth"]) for row in rows]),
        scores={
            part: np.array([[float(row[f"{part}_{label}"]) for label in LABELS] for row in rows])
            for part in PARTS
        },
    )


def _read(results: Path) -> tuple[Takes, list[Called]]:
    tables = read_tables(results / FUSION)
    return read_takes(tables[TAKES]), read_called(tables[CALLED])


def _of(runs: Sequence[Called], method: str, given: str, how: str = USUAL) -> list[NDArray[np.int64]]:
    """What one method called everything, seed by seed."""
    given = "itself" if method.endswith(" alone") else given
    return [run.called for run in runs if (run.method, run.given, run.how) == (method, given, how)]


def comparison(results: Path) -> str:
    """Every method, mean over seeds, with spread, interval and folds."""
    takes, runs = _read(results)
    cells = []
    for method in ORDER:
        calls = _of(runs, method, "both")
        if not calls:
            continue
        rights, recalls = zip(*(two_figures(takes.truth, one) for one in calls), strict=True)
        low, high = between(takes, calls[0])
        folds = np.mean([fold_recalls(takes, one) for one in calls], axis=0)
        cells.append(
            (
                f"**{method}**" if method == "late-masked" else method,
                f"{np.mean(recalls):.3f}",
                f"{min(recalls):.3f} to {max(recalls):.3f}",
                f"{low:.3f} to {high:.3f}",
                f"{np.mean(rights):.3f}",
                " ".join(f"{one:.2f}" for one in folds),
            )
        )
    heads = ("method", "unweighted recall", "over seeds", "over actors", "accuracy", "each fold")
    return markdown_table(heads, cells)


def gain(results: Path) -> str:
    """What the shipped sort of fusion adds to the best single modality, with an interval over actors."""
    takes, runs = _read(results)
    alone = {name: _of(runs, name, "") for name in ORDER[:2]}
    best = max(alone, key=lambda name: np.mean([two_figures(takes.truth, one)[1] for one in alone[name]]))
    pairs = list(zip(_of(runs, "late-masked", "both"), alone[best], strict=True))
    points = [100 * (two_figures(takes.truth, a)[1] - two_figures(takes.truth, b)[1]) for a, b in pairs]
    low, high = gain_between(takes, *pairs[0])
    return (
        f"`late-masked` adds {np.mean(points):.1f} points of unweighted recall to {best} (mean of "
        f"{len(points)} seeds; {low:.1f} to {high:.1f} over draws of actors with the first seed).\n"
    )


def blanked(results: Path) -> str:
    """Each method with a modality taken away, beside what remains alone."""
    takes, runs = _read(results)
    cells: list[tuple[object, ...]] = []
    for method in ORDER[2:]:
        shown: list[str] = []
        for how in (USUAL, NONE_BLANKED):
            for given in ("voice blanked", "face blanked"):
                calls = _of(runs, method, given, how)
                recalls = [two_figures(takes.truth, one)[1] for one in calls]
                shown.append(f"{np.mean(recalls):.3f}" if recalls else "-")
        if shown[0] != "-":
            cells.append((method, *shown))
    alone = [np.mean([two_figures(takes.truth, one)[1] for one in _of(runs, m, "")]) for m in ORDER[:2]]
    cells.append(("what remains, alone", *[f"{one:.3f}" for one in alone] * 2))
    return markdown_table(
        (
            "method",
            "voice blanked",
            "face blanked",
            "voice blanked, learnt without blanking",
            "face blanked, learnt without blanking",
        ),
        cells,
    )


def variants(results: Path) -> str:
    """The first seed with one thing left out of the learning at a time."""
    takes, runs = _read(results)
    cells = []
    for method in ORDER[3:]:
        found = [_of(runs, method, "both", how) for how in (USUAL, NONE_BLANKED, TRAINED_ON)]
        if found[0]:
            shown = [f"{two_figures(takes.truth, one[0])[1]:.3f}" if one else "-" for one in found]
            cells.append((method, *shown))
    return markdown_table(("method, first seed", USUAL, NONE_BLANKED, TRAINED_ON), cells)


def labels(results: Path) -> str:
    """Figures and confusions of the shipped sort of fusion over all folds."""
    takes, _ = _read(results)
    return to_markdown(score(takes.truth, takes.scores["fused"], groups=takes.actors))


def source(results: Path) -> str:
    """Where the answers come from."""
    takes, runs = _read(results)
    told = sorted({(run.voices, run.commit) for run in runs})
    seeds = sorted({run.seed for run in runs})
    shown = "; ".join(f"voices {voices}, commit {commit}" for voices, commit in told)
    return (
        f"{len(takes.names)} takes of {len(set(takes.actors))} actors, "
        f"{len(set(takes.folds.tolist()))} folds, seeds {', '.join(map(str, seeds))}; {shown}.\n"
    )


def robustness(results: Path) -> str:
    """Faces and voices that do not belong together: no measure of fusion, only of what it stands."""
    takes, _ = _read(results)
    face, voice = (
        raw - np.log(np.exp(raw).sum(1, keepdims=True))
        for raw in (takes.scores["face"], takes.scores["voice"])
    )
    rng = np.random.default_rng(0)
    found: dict[str, list[float]] = {name: [] for name in ("real pairs", _EQUAL, _ANY)}
    for _ in range(PAIRINGS):
        other = {
            "real pairs": np.arange(len(face)),
            _ANY: rng.permutation(len(face)),
            _EQUAL: np.arange(len(face)),
        }
        for label in range(len(LABELS)):
            at = np.flatnonzero(takes.truth == label)
            other[_EQUAL][at] = rng.permutation(at)
        for name, whose in other.items():
            found[name].append(two_figures(takes.truth, (face + voice[whose]).argmax(1))[1])
    cells = [(name, f"{np.mean(recalls):.3f}") for name, recalls in found.items()]
    return markdown_table(
        ("robustness only: face with", "unweighted recall of the product, by the face's label"), cells
    )


def test_side(results: Path) -> str:
    """The shipped file on the actors of the test side."""
    rows = rows_of(read_tables(results / FUSION)[TEST])
    truth = np.array([LABELS.index(row["truth"]) for row in rows])
    cells = []
    for part in ("face", "voice", "fused"):
        scores = np.array([[float(row[f"{part}_{label}"]) for label in LABELS] for row in rows])
        silent = ~np.isfinite(scores).all(1)
        scores[silent] = np.eye(len(LABELS))[(truth[silent] + 1) % len(LABELS)]  # Not heard is wrong.
        found = score(truth, scores, groups=[row["actor"] for row in rows])
        low, high = found.unweighted_recall_between
        cells.append(
            (
                part,
                found.items,
                f"{found.unweighted_recall:.3f} ({low:.3f} to {high:.3f})",
                f"{found.accuracy:.3f}",
                f"{found.macro_f1:.3f}",
            )
        )
    return markdown_table(("said by", "takes", "unweighted recall", "accuracy", "macro F1"), cells)


def fold_recalls(takes: Takes, called: NDArray[np.int64]) -> list[float]:
    """Unweighted recall of each fold's actors."""
    return [
        two_figures(takes.truth[takes.folds == fold], called[takes.folds == fold])[1]
        for fold in np.unique(takes.folds)
    ]


def between(takes: Takes, called: NDArray[np.int64]) -> tuple[float, float]:
    """The middle 95 % of unweighted recall over draws of actors."""
    found = [two_figures(takes.truth[at], called[at])[1] for at in _draws(takes)]
    return float(np.percentile(found, 2.5)), float(np.percentile(found, 97.5))


def gain_between(takes: Takes, one: NDArray[np.int64], other: NDArray[np.int64]) -> tuple[float, float]:
    """The middle 95 % of the difference in points, both judged on the same actors in every draw."""
    found = [
        100 * (two_figures(takes.truth[at], one[at])[1] - two_figures(takes.truth[at], other[at])[1])
        for at in _draws(takes)
    ]
    return float(np.percentile(found, 2.5)), float(np.percentile(found, 97.5))


def _draws(takes: Takes) -> list[NDArray[np.int64]]:
    rng = np.random.default_rng(0)
    actors = np.array(takes.actors)
    members = [np.flatnonzero(actors == actor) for actor in sorted(set(takes.actors))]
    return [
        np.concatenate([members[at] for at in rng.integers(0, len(members), len(members))])
        for _ in range(ROUNDS)
    ]


MAKERS: dict[str, Maker] = {
    "fusion source": source,
    "fusion comparison": comparison,
    "fusion gain": gain,
    "fusion blanked": blanked,
    "fusion variants": variants,
    "fusion labels": labels,
    "fusion robustness": robustness,
    "fusion test side": test_side,
}
