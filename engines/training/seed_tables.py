"""What another seed changes: voice networks alone, their mean opinion, and the one that they taught."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from liveaffect.engines.training.results_tables import Maker, table
from liveaffect.engines.training.voice_tables import Run, judged, recall, runs

CORPORA = ("ravdess", "nemo")


def seeds(results: Path) -> str:
    """Folds by speaker, then across corpora; a seed that is not through all of them is left out."""
    found = runs(results)
    cells: list[tuple[object, ...]] = []
    for what, within in (("folds", True), ("across corpora", False)):
        mine = [run for run in found if run.name.isdecimal() == within]
        names = {run.name for run in mine}
        of_seed = {seed: [run for run in mine if run.seed == seed] for seed in {run.seed for run in mine}}
        whole = {seed: these for seed, these in of_seed.items() if {run.name for run in these} == names}
        alone = [whole[seed] for seed in sorted(whole) if seed]
        cells += [(what, f"seed {these[0].seed}, alone", *_figures(these)) for these in alone]
        if len(alone) > 1:
            cells.append((what, "the mean opinion of these", *_mean_opinion(alone)))
        if 0 in whole:
            cells.append((what, "**seed 0, taught by them**", *_figures(whole[0])))
    heads = [f"{corpus}, {part}" for corpus in CORPORA for part in ("whole", "one window")]
    return table(("judged by", "network", *heads), cells)


def _figures(these: Sequence[Run]) -> list[str]:
    out = []
    for corpus in CORPORA:
        parts = [(run, run.of(corpus)) for run in these if run.of(corpus).any()]
        whole = np.mean([judged(run, at).unweighted_recall for run, at in parts])
        window = np.mean([recall(run.truth[at], run.called_after["window"][at]) for run, at in parts])
        out += [f"{whole:.3f}", f"{window:.3f}"]
    return out


def _mean_opinion(alone: Sequence[Sequence[Run]]) -> list[str]:
    """Of whole recordings: the tables hold no probabilities of single windows."""
    out = []
    for corpus in CORPORA:
        figures = []
        for same in zip(*(sorted(these, key=lambda run: run.name) for these in alone), strict=True):
            at = same[0].of(corpus)
            if at.any():
                opinion = np.mean([run.opinions()[at] for run in same], axis=0)
                figures.append(recall(same[0].truth[at], opinion.argmax(1)))
        out += [f"{np.mean(figures):.3f}", "-"]
    return out


MAKERS: dict[str, Maker] = {"voice seeds": seeds}
