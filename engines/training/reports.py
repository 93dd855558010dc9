"""Pictures beside the tables of a verdict: confusions, and the learning curve where there is a log."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from liveaffect.engines.manifest import write_whole
from liveaffect.engines.recipe import LABELS
from liveaffect.engines.training import draw, loop
from liveaffect.engines.training.results_page import DOCS
from liveaffect.engines.training.results_tables import CURVE
from liveaffect.engines.training.scores import Scores


def write(kind: str, verdict: Any, weights: Path | None, out: Path) -> list[Path]:
    """Write PNG files for what one kind's `main_run` returned; their paths."""
    paths = []
    for name, scores in confusions(kind, verdict).items():
        labels = (*LABELS, "unheard")[: len(scores.confusion)]
        path = out / f"{name}.png"
        write_whole(path, draw.png(draw.confusion(scores.confusion, labels, name)))
        paths.append(path)
    log = DOCS / "results" / CURVE if weights is None and kind == "face" else (weights or out) / loop.LOG
    if log.exists():
        rows = [json.loads(line) for line in log.read_text("utf-8").splitlines()]
        names = [name for name in rows[-1] if name not in ("epoch", "rate", "loss", "seconds")]
        path = out / f"{kind}-curve.png"
        write_whole(path, draw.png(draw.curves(rows, names, f"{kind}, learning curve")))
        paths.append(path)
    return paths


def confusions(kind: str, verdict: Any) -> dict[str, Scores]:
    """The scores to draw, by the name of their file."""
    if kind == "voice":
        return {f"voice-{one.corpus}-{one.precision}": one.whole for one in verdict}
    if kind == "face":
        return {f"face-{precision}": scores for precision, scores in verdict.scores.items()}
    return {f"fusion-{name.replace(' ', '-')}": scores for name, scores in verdict.scores.items()}
