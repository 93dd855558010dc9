"""The tables about voices, made again from what networks said about recordings of people they never heard.

Folds by speaker, what another seed changes, and other kinds of network in the same training.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from accuracy.face_tables import Maker, rows_of
from numpy.typing import NDArray

from liveaffect.engines import manifest as manifests
from liveaffect.engines.recipe import LABELS
from liveaffect.engines.training.archive import ENDING, read_tables
from liveaffect.engines.training.scores import Scores, markdown_table, score, to_markdown

VOICE, DESIGN_VOICE, TEST = f"voice{ENDING}", f"voice_designs{ENDING}", "test.csv"
KEYS = ["name", "speaker", "truth"]
DESIGNS = {
    "live-wide": "convolutions over 2.4 s",
    "live-fcn": "convolutions over 0.8 s",
    "live": "hierarchical attention over 0.4 s",
}
SEED_CORPORA = ("ravdess", "nemo")
_TAUGHT = re.compile(r"taught by [1-9]")
_NAME = re.compile(r"fold-(?P<run>.+)-seed(?P<seed>\d+)\.csv")
_AFTER = {"window": "one window", "after_1s": "after 1 s", "after_2s": "after 2 s"}
UNHEARD = len(LABELS)


@dataclass(frozen=True, slots=True, eq=False)
class VoiceRun:
    """What one network said about the recordings it never heard."""

    name: str
    seed: int
    told: str
    """How it was trained, from the first line of the table."""
    speakers: tuple[str, ...]
    truth: NDArray[np.int64]
    scores: NDArray[np.float64]
    """(n, 8): the last is 'no speech heard'."""
    called_after: dict[str, NDArray[np.int64]]

    def opinions(self) -> NDArray[np.float64]:
        """(n, 7): logarithms of the probabilities, to be added up; one that was not heard says nothing."""
        return np.asarray(np.log(np.maximum(self.scores[:, :UNHEARD], 1e-3)))

    def of(self, corpus: str) -> NDArray[np.bool_]:
        """Which recordings belong to a corpus."""
        return np.array([speaker.startswith(f"{corpus}/") for speaker in self.speakers])


def read_run(name: str, text: str) -> VoiceRun:
    """One table. Raises ValueError if it is none."""
    found = _NAME.search(name)
    told, _, rest = text.partition("\n")
    rows = rows_of(rest)
    if found is None or not told.startswith("# ") or not rows or list(rows[0])[:3] != KEYS:
        raise ValueError(f"{name} is no table of a run of voices")
    scores = np.array([[float(row[label]) for label in LABELS] for row in rows])
    return VoiceRun(
        name=found["run"],
        seed=int(found["seed"]),
        told=told[2:],
        speakers=tuple(row["speaker"] for row in rows),
        truth=np.array([int(row["truth"]) for row in rows]),
        scores=np.concatenate([scores, (scores.sum(1) == 0)[:, None]], axis=1),
        called_after={name: np.array([int(row[name]) for row in rows]) for name in _AFTER},
    )


def runs(results: Path) -> list[VoiceRun]:
    """All runs there are, in the order of their names."""
    return _runs_of(results / VOICE, "fold-")


def _runs_of(path: Path, begin: str) -> list[VoiceRun]:
    tables = read_tables(path) if path.exists() else {}
    return [read_run(name, tables[name]) for name in sorted(tables) if name.startswith(begin)]


def folds_of(found: Sequence[VoiceRun]) -> list[VoiceRun]:
    """Those that leave out a fifth of the speakers, with the first seed."""
    return [run for run in found if run.name.isdecimal() and run.seed == 0]


def source(results: Path) -> str:
    """How every run with the first seed was made; the first line of every table says it of the others."""
    return "".join(f"* {run.told}\n" for run in runs(results) if run.seed == 0)


def folds(results: Path) -> str:
    """Unweighted recall of every fold and corpus."""
    cells = []
    for run in folds_of(runs(results)):
        for corpus in corpora(run):
            at = run.of(corpus)
            whole = judged(run, at)
            cells.append((f"{corpus}, fold {run.name}", *_cells(run, at, whole)))
    for corpus, parts in together(results).items():
        figures = [judged(run, at).unweighted_recall for run, at in parts]
        after = [
            np.mean([recall(run.truth[at], run.called_after[name][at]) for run, at in parts])
            for name in _AFTER
        ]
        twice = np.mean([two_recordings(run, at) for run, at in parts])
        shown = [f"**{np.mean(figures):.3f}**", *(f"{one:.3f}" for one in after), f"{twice:.3f}", ""]
        cells.append((f"**{corpus}, mean of folds**", sum(int(at.sum()) for _, at in parts), *shown))
    heads = (
        "left out",
        "recordings",
        "whole",
        *_AFTER.values(),
        "two recordings",
        "accuracy of each speaker",
    )
    return markdown_table(heads, cells)


def labels_of(corpus: str) -> Maker:
    """Figures and confusions of one corpus over all folds."""

    def make(results: Path) -> str:
        parts = together(results)[corpus]
        truth = np.concatenate([run.truth[at] for run, at in parts])
        scores = np.concatenate([run.scores[at] for run, at in parts])
        people = [who for run, at in parts for who, here in zip(run.speakers, at, strict=True) if here]
        return to_markdown(score(truth, scores, groups=people), (*LABELS, "unheard"))

    return make


def across(results: Path) -> str:
    """Trained on one corpus, judged by the others."""
    cells = []
    for run in runs(results):
        if not run.name.isdecimal() and run.seed == 0:
            for corpus in corpora(run):
                at = run.of(corpus)
                cells.append((f"{run.name.partition('-')[0]} to {corpus}", *_cells(run, at, judged(run, at))))
    if not cells:
        return "Not run yet.\n"
    heads = (
        "trained on, judged by",
        "recordings",
        "whole",
        *_AFTER.values(),
        "two",
        "accuracy of each speaker",
    )
    return markdown_table(heads, cells)


def corpora(run: VoiceRun) -> list[str]:
    """The corpora a run was judged by."""
    return sorted({speaker.partition("/")[0] for speaker in run.speakers})


def together(results: Path) -> dict[str, list[tuple[VoiceRun, NDArray[np.bool_]]]]:
    """For every corpus the folds that it was judged in."""
    found: dict[str, list[tuple[VoiceRun, NDArray[np.bool_]]]] = {}
    for run in folds_of(runs(results)):
        for corpus in corpora(run):
            found.setdefault(corpus, []).append((run, run.of(corpus)))
    return found


def judged(run: VoiceRun, at: NDArray[np.bool_]) -> Scores:
    """The whole recordings of one corpus; one draw, because the interval is not shown."""
    return score(run.truth[at], run.scores[at], rounds=1)


def recall(truth: NDArray[np.int64], called: NDArray[np.int64]) -> float:
    """Unweighted recall; what was not heard is wrong."""
    return float(np.mean([(called[truth == label] == label).mean() for label in np.unique(truth)]))


def two_recordings(run: VoiceRun, at: NDArray[np.bool_]) -> float:
    """Unweighted recall of two recordings of a speaker and label, what is said of each counting alike.

    Pairs are drawn by chance; one that is left over is not judged, one that was not heard says nothing.
    """
    rng = np.random.default_rng(0)
    people = np.array(run.speakers)
    opinions = run.opinions()
    truth, called = [], []
    for who in np.unique(people[at]):
        for label in np.unique(run.truth[at]):
            mine = rng.permutation(np.flatnonzero(at & (people == who) & (run.truth == label)))
            for one, other in zip(mine[::2], mine[1::2], strict=False):
                truth.append(label)
                called.append(int((opinions[one] + opinions[other]).argmax()))
    return recall(np.array(truth), np.array(called)) if truth else float("nan")


def _cells(run: VoiceRun, at: NDArray[np.bool_], whole: Scores) -> tuple[object, ...]:
    right = run.scores[at].argmax(1) == run.truth[at]
    people = np.array(run.speakers)[at]
    each = [f"{one.partition('/')[2]} {right[people == one].mean():.2f}" for one in np.unique(people)]
    after = [f"{recall(run.truth[at], run.called_after[name][at]):.3f}" for name in _AFTER]
    twice = f"{two_recordings(run, at):.3f}"
    return whole.items, f"{whole.unweighted_recall:.3f}", *after, twice, ", ".join(each)


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
    heads = [f"{corpus}, {part}" for corpus in SEED_CORPORA for part in ("whole", "one window")]
    return markdown_table(("judged by", "network", *heads), cells)


def _figures(these: Sequence[VoiceRun]) -> list[str]:
    out = []
    for corpus in SEED_CORPORA:
        parts = [(run, run.of(corpus)) for run in these if run.of(corpus).any()]
        whole = np.mean([judged(run, at).unweighted_recall for run, at in parts])
        window = np.mean([recall(run.truth[at], run.called_after["window"][at]) for run, at in parts])
        out += [f"{whole:.3f}", f"{window:.3f}"]
    return out


def _mean_opinion(alone: Sequence[Sequence[VoiceRun]]) -> list[str]:
    """Of whole recordings: the tables hold no probabilities of single windows."""
    out = []
    for corpus in SEED_CORPORA:
        figures = []
        for same in zip(*(sorted(these, key=lambda run: run.name) for these in alone), strict=True):
            at = same[0].of(corpus)
            if at.any():
                opinion = np.mean([run.opinions()[at] for run in same], axis=0)
                figures.append(recall(same[0].truth[at], opinion.argmax(1)))
        out += [f"{np.mean(figures):.3f}", "-"]
    return out


def design_voices(results: Path) -> str:
    """The first fold, every network with one seed, without teachers."""
    every = {name: _runs_of(results / DESIGN_VOICE, f"{name}/fold-0-seed") for name in DESIGNS}
    every["live-wide"] = _runs_of(results / VOICE, "fold-0-seed")
    cells = []
    for preset, what in DESIGNS.items():
        for run in every[preset]:
            if _TAUGHT.search(run.told):
                continue
            found = []
            for corpus in ("ravdess", "nemo"):
                at = run.of(corpus)
                found += [
                    f"{judged(run, at).unweighted_recall:.3f}",
                    f"{recall(run.truth[at], run.called_after['after_1s'][at]):.3f}",
                ]
            cells.append((f"{preset}, {what}, seed {run.seed}", *found))
    heads = [f"{corpus}, {what}" for corpus in ("ravdess", "nemo") for what in ("whole", "after 1 s")]
    return markdown_table(("network", *heads), cells)


def read_test(results: Path) -> dict[tuple[str, str], list[dict[str, str]]]:
    """What the shipped files said of the test side, by corpus and precision."""
    found: dict[tuple[str, str], list[dict[str, str]]] = {}
    heads: list[str] = []
    for cells in csv.reader(read_tables(results / VOICE)[TEST].splitlines()):
        if cells[0] == "corpus":
            heads = cells
            continue
        row = dict(zip(heads, cells, strict=True))
        found.setdefault((row["corpus"], row["precision"]), []).append(row)
    return found


def scores_of(rows: Sequence[dict[str, str]]) -> NDArray[np.float64]:
    """(n, 8): the last is 'no speech heard'."""
    return np.array([[float(row[label]) for label in (*LABELS, "unheard")] for row in rows])


def test_side(results: Path) -> str:
    """The shipped files on the speakers of the test side."""
    cells = []
    for (corpus, precision), rows in sorted(read_test(results).items()):
        truth = np.array([LABELS.index(row["truth"]) for row in rows])
        people = [row["speaker"] for row in rows]
        found = score(truth, scores_of(rows), groups=people)
        low, high = found.unweighted_recall_between
        cells.append(
            (
                f"{corpus}, {precision}, {len(set(people))} speakers",
                found.items,
                f"{found.unweighted_recall:.3f} ({low:.3f} to {high:.3f})",
                f"{found.accuracy:.3f}",
                f"{found.macro_f1:.3f}",
            )
        )
    return markdown_table(("test side", "recordings", "unweighted recall", "accuracy", "macro F1"), cells)


def package(_: Path) -> str:
    """What the manifest of the shipped network says of its test side."""
    cells = []
    for name, found in manifests.read(manifests.SHIPPED / "voice.json").figures.items():
        after = " / ".join(f"{share:.3f}" for share in found["after_speech_s"].values())
        times = " / ".join(f"{float(seconds):g} s" for seconds in found["after_speech_s"])
        figures = [
            found["unweighted_recall"],
            found["accuracy"],
            found["speaker_known"],
            found["worst_speaker"],
        ]
        cells.append((name, f"{after} ({times})", *(f"{figure:.3f}" for figure in figures)))
    heads = (
        "shipped",
        "after so much speech",
        "whole",
        "accuracy",
        "speaker known",
        "worst speaker's accuracy",
    )
    return markdown_table(heads, cells)


MAKERS: dict[str, Maker] = {
    "voice package": package,
    "voice test side": test_side,
    "voice runs": source,
    "voice folds": folds,
    "voice labels ravdess": labels_of("ravdess"),
    "voice labels nemo": labels_of("nemo"),
    "voice across": across,
    "voice seeds": seeds,
    "design voices": design_voices,
}
