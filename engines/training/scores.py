"""How good answers are, in numbers that a rare label cannot hide in, as tables and as pictures.

Everything follows from truth and scores of single items, so a table can be made again from those alone,
and an interval says what another sample of people would have given. The tables of items therefore belong to
the repository; packed together they take a sixth of their size, and the same ones always give the same bytes.
"""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from liveaffect.engines.manifest import write_whole
from liveaffect.engines.recipe import LABELS

Labels = NDArray[np.int64]
NO_CURVES = ("epoch", "rate", "loss", "seconds")
"""Columns of a log that are no shares."""
ENDING = ".tar.xz"


@dataclass(frozen=True, slots=True)
class Scores:
    """What one set of answers is worth."""

    items: int
    accuracy: float
    accuracy_between: tuple[float, float]
    """In 95 of 100 samples drawn anew from these items or their groups."""
    unweighted_recall: float
    unweighted_recall_between: tuple[float, float]
    macro_f1: float
    recall: tuple[float | None, ...]
    """Per label; None where there is no such item."""
    precision: tuple[float | None, ...]
    auc: tuple[float | None, ...]
    """Per label against all others."""
    confusion: tuple[tuple[int, ...], ...]
    """Rows are the truth."""

    def to_json(self) -> dict[str, Any]:
        """Plain types only."""
        return asdict(self)


def score(
    truth: Labels,
    scores: NDArray[np.floating],
    *,
    groups: Sequence[str] | None = None,
    rounds: int = 1000,
    seed: int = 0,
) -> Scores:
    """Judge scores (n, labels), the highest being the answer.

    With `groups`, such as speakers, the intervals draw whole groups, because one speaker's clips are alike.
    """
    truth = np.asarray(truth, np.int64)
    if len(truth) != len(scores) or not len(truth):
        raise ValueError(f"{len(truth)} truths and {len(scores)} scores cannot be compared")
    if not np.isfinite(scores).all():
        raise ValueError(f"{int((~np.isfinite(scores)).any(1).sum())} items have scores that are no numbers")
    count, said = scores.shape[1], scores.argmax(1)
    table = confusion(truth, said, count)
    recalls, precisions = _shares_along(table, 1), _shares_along(table, 0)
    draws = bootstrap(len(truth), groups, rounds, seed)
    return Scores(
        items=len(truth),
        accuracy=accuracy(truth, said),
        accuracy_between=_interval(draws, lambda at: accuracy(truth[at], said[at])),
        unweighted_recall=unweighted_recall(truth, said, count),
        unweighted_recall_between=_interval(draws, lambda at: unweighted_recall(truth[at], said[at], count)),
        macro_f1=macro_f1(table),
        recall=recalls,
        precision=precisions,
        auc=tuple(area_under_curve(truth == label, scores[:, label]) for label in range(count)),
        confusion=tuple(tuple(int(cell) for cell in row) for row in table),
    )


def confusion(truth: Labels, said: Labels, count: int) -> NDArray[np.int64]:
    """How often which truth was called what; rows are the truth."""
    return np.bincount(truth * count + said, minlength=count * count).reshape(count, count).astype(np.int64)


def accuracy(truth: Labels, said: Labels) -> float:
    """Share of right answers, weighted by how often labels occur."""
    return float((truth == said).mean())


def unweighted_recall(truth: Labels, said: Labels, count: int) -> float:
    """Mean of the recalls of all labels that occur."""
    return float(
        np.mean([share for share in _shares_along(confusion(truth, said, count), 1) if share is not None])
    )


def two_figures(truth: Labels, said: Labels) -> tuple[float, float]:
    """Accuracy and unweighted recall of the seven labels."""
    return accuracy(truth, said), unweighted_recall(truth, said, len(LABELS))


def macro_f1(table: NDArray[np.int64]) -> float:
    """Mean F1 over the labels that occur."""
    hits, occurs, said = np.diag(table), table.sum(1), table.sum(0)
    f1 = 2 * hits / np.maximum(occurs + said, 1)
    return float(f1[occurs > 0].mean())


def area_under_curve(positive: NDArray[np.bool_], scores: NDArray[np.floating]) -> float | None:
    """How likely a positive item scores above another; None without items of both sorts."""
    from scipy.stats import rankdata

    count, others = int(positive.sum()), int((~positive).sum())
    if not count or not others:
        return None
    ranks = rankdata(scores)  # Equal scores share their mean rank.
    return float((ranks[positive].sum() - count * (count + 1) / 2) / (count * others))


def to_markdown(scores: Scores, labels: Sequence[str] = LABELS) -> str:
    """The figures and the confusion as two tables."""
    low, high = scores.accuracy_between
    least, most = scores.unweighted_recall_between
    lines = [
        "| items | accuracy | unweighted recall | macro F1 |",
        "|---|---|---|---|",
        f"| {scores.items} | {scores.accuracy:.3f} ({low:.3f} to {high:.3f}) "
        f"| {scores.unweighted_recall:.3f} ({least:.3f} to {most:.3f}) | {scores.macro_f1:.3f} |",
        "",
        "| truth, called | " + " | ".join(labels) + " | recall | precision | AUC |",
        "|---|" + "---|" * (len(labels) + 3),
    ]
    for at, label in enumerate(labels):
        cells = [str(cell) for cell in scores.confusion[at]]
        shares = [_figure(part[at]) for part in (scores.recall, scores.precision, scores.auc)]
        lines.append(f"| {label} | " + " | ".join(cells + shares) + " |")
    return "\n".join(lines) + "\n"


def markdown_table(heads: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Rows for people; everything but the first column to the right."""
    lines = ["| " + " | ".join(heads) + " |", "|---|" + "--:|" * (len(heads) - 1)]
    return "\n".join([*lines, *("| " + " | ".join(map(str, row)) + " |" for row in rows)]) + "\n"


def _figure(share: float | None) -> str:
    return "-" if share is None else f"{share:.3f}"


def _shares_along(table: NDArray[np.int64], axis: int) -> tuple[float | None, ...]:
    whole = table.sum(axis)
    return tuple(
        float(hit) / int(all_) if all_ else None for hit, all_ in zip(np.diag(table), whole, strict=True)
    )


def bootstrap(items: int, groups: Sequence[str] | None, rounds: int, seed: int) -> list[NDArray[np.int64]]:
    """Rows of samples drawn anew from these items, whole groups where there are any."""
    rng = np.random.default_rng(seed)
    if groups is None:
        return [rng.integers(0, items, items) for _ in range(rounds)]
    _, which = np.unique(np.asarray(groups), return_inverse=True)
    members = [np.flatnonzero(which == group) for group in range(which.max() + 1)]
    return [
        np.concatenate([members[at] for at in rng.integers(0, len(members), len(members))])
        for _ in range(rounds)
    ]


def _interval(
    draws: list[NDArray[np.int64]], measure: Callable[[NDArray[np.int64]], float]
) -> tuple[float, float]:
    found = [measure(at) for at in draws]
    low, high = np.percentile(found, [2.5, 97.5]) if found else (0.0, 0.0)
    return float(low), float(high)


def write_pictures(out: Path, confusions: Mapping[str, Scores], trained: Path) -> list[Path]:
    """`NAME.png` for every confusion and, where the training left its log, the curve; their paths."""
    from liveaffect.engines.training.loop import LOG

    log = trained / LOG
    drawn = {name: confusion_figure(scores.confusion, name) for name, scores in confusions.items()}
    if log.exists():
        rows = [json.loads(line) for line in log.read_text("utf-8").splitlines()]
        drawn["curve"] = curve_figure(rows, [name for name in rows[-1] if name not in NO_CURVES])
    out.mkdir(parents=True, exist_ok=True)
    for name, figure in drawn.items():
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=100)
        write_whole(out / f"{name}.png", buffer.getvalue())
    return [out / f"{name}.png" for name in drawn]


def confusion_figure(table: Sequence[Sequence[int]], title: str) -> Figure:
    """Rows are the truth; the darker a cell, the larger its share of the row."""
    count = np.array(table)
    share = count / np.maximum(count.sum(1, keepdims=True), 1)
    labels = (*LABELS, "unheard")[: len(count)]
    figure = Figure(figsize=(8, 7), layout="constrained")
    axes = figure.subplots()
    axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
    axes.set_title(title)
    axes.set_xlabel("called")
    axes.set_ylabel("truth")
    axes.set_xticks(range(len(labels)), labels, rotation=30)
    axes.set_yticks(range(len(labels)), labels)
    for row, column in np.ndindex(*count.shape):
        told = f"{count[row, column]}\n{share[row, column]:.0%}"
        ink = "white" if share[row, column] > 0.5 else "black"
        axes.text(column, row, told, ha="center", va="center", color=ink, fontsize=9)
    return figure


def curve_figure(rows: Sequence[Mapping[str, float]], names: Sequence[str]) -> Figure:
    """Shares over epochs, from 0 to 1, one line a name; rows without the name are left out."""
    figure = Figure(figsize=(9, 4), layout="constrained")
    axes = figure.subplots()
    for name in names:
        points = [(row["epoch"], row[name]) for row in rows if name in row]
        axes.plot(*zip(*points, strict=True), label=name)
    axes.set(xlabel="epoch", ylim=(0, 1))
    axes.grid(alpha=0.3)
    if names:
        axes.legend(loc="lower right")
    return figure


def read_tables(path: Path) -> dict[str, str]:
    """Every table of a packed file by its name. Raises ValueError if it is damaged."""
    return dict(_unpacked(path, path.stat().st_mtime_ns))


@lru_cache(maxsize=8)
def _unpacked(path: Path, changed_ns: int) -> dict[str, str]:
    try:
        with tarfile.open(path, "r:xz") as packed:
            members = ((one.name, packed.extractfile(one)) for one in packed.getmembers())
            return {name: file.read().decode() for name, file in members if file is not None}
    except (tarfile.TarError, UnicodeDecodeError, EOFError) as err:
        raise ValueError(f"{path} holds no packed tables: {err}") from err


def write_tables(path: Path, tables: Mapping[str, str]) -> None:
    """Pack tables, in the order of their names, in place of those that were there."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:xz", preset=9, format=tarfile.USTAR_FORMAT) as packed:
        for name in sorted(tables):
            content = tables[name].encode()
            about = tarfile.TarInfo(name)
            about.size = len(content)
            packed.addfile(about, io.BytesIO(content))
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, buffer.getvalue())


def change_tables(path: Path, tables: Mapping[str, str]) -> None:
    """Put tables beside those that are packed already, or in the place of those of the same name."""
    write_tables(path, {**(read_tables(path) if path.exists() else {}), **tables})
