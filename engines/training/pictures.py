"""Pictures beside the tables of a verdict: confusions, and learning curves where there is a log."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from liveaffect.engines.manifest import write_whole
from liveaffect.engines.recipe import LABELS
from liveaffect.engines.training.scores import Scores

NO_CURVES = ("epoch", "rate", "loss", "seconds")
"""Columns of a log that are no shares."""


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
