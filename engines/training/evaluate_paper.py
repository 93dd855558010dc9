"""One page: what the papers report, and beside it what was measured here, by whoever has the corpora.

A cell that nobody measured stays empty. Answers of all folds are put together before they are judged, each
seed for itself, and intervals draw whole speakers anew.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from liveaffect.engines.manifest import write_whole
from liveaffect.engines.protocol import EngineFileError
from liveaffect.engines.training.protocols import PROTOCOLS, Protocol, baselines, judged
from liveaffect.engines.training.scores import markdown_table
from liveaffect.engines.training.train_paper import ANSWERS, RESULT

PAGE = "papers.md"


@dataclass(frozen=True, slots=True)
class Reported:
    """A figure that a paper or its code states."""

    system: str
    protocol: str
    """Ours that comes closest."""
    figures: str
    source: str


REPORTED = (
    Reported(
        "fcn", "iemocap-4-session", "accuracy 71.40", "2111.08910, sound; we do not know their protocol"
    ),
    Reported("attention FCN", "iemocap-4-session", "accuracy 70.4, recall 63.9", "1806.01506, sound"),
    Reported("amfbp", "iemocap-4-session", "accuracy 75.49", "2111.08910, face and sound; likewise"),
    Reported("amfbp", "afew-7", "accuracy 63.09", "2111.08910, on the test clips, which are not published"),
    Reported(
        "fv2es",
        "iemocap-6-published",
        "accuracy 84.77, F1 58.57, AUC 87.47",
        "name of a checkpoint in their code; plain accuracy, in which 'no' everywhere gives 83.33",
    ),
    Reported(
        "FE2E", "iemocap-6-published", "accuracy 84.5, F1 58.8", "what FV2ES is built on, plain accuracy"
    ),
    Reported("FE2E", "mosei-6", "weighted accuracy 67.6, F1 47.4", "likewise, but weighted accuracy"),
    Reported(
        "fv2es",
        "mosei-6",
        "accuracy 71.34, F1 46.81, AUC 73.56",
        "name of a second checkpoint; that it is of MOSEI is a guess",
    ),
)


@dataclass(frozen=True, slots=True)
class Measured:
    """One variant by one protocol: its answers of all folds, seed by seed."""

    protocol: Protocol
    variant: str
    results: tuple[Mapping[str, Any], ...]
    judged: tuple[Mapping[str, Any], ...]
    """One a seed."""
    baselines: Mapping[str, Any]

    @property
    def cells(self) -> list[str]:
        """Figures of the table."""
        return [
            *_row_figures(self.protocol, self.judged),
            str(len({result["fold"] for result in self.results})),
            str(len(self.judged)),
            f"{self.judged[0]['items']}",
        ]


HEADS = (
    "system",
    "accuracy",
    "unweighted recall",
    "macro F1",
    "plain accuracy of yes and no",
    "weighted accuracy",
    "F1 of yes",
    "AUC",
    "folds",
    "seeds",
    "tested on",
)


def evaluate_paper(results: Path, out: Path | None = None) -> str:
    """The page, from every result below a folder; also written where `out` names a folder."""
    page = "\n".join(_page_lines(read_measured(results)))
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        write_whole(out / PAGE, page.encode())
    return page


def read_measured(results: Path) -> list[Measured]:
    """Every variant that left answers; a training that is not finished is not there yet."""
    runs: dict[tuple[str, str], list[tuple[Mapping[str, Any], Mapping[str, NDArray[Any]]]]] = {}
    for path in sorted(results.rglob(RESULT)):
        try:
            told = json.loads(path.read_text("utf-8"))
            with np.load(path.with_name(ANSWERS)) as kept:
                answers = {name: kept[name] for name in kept.files}
            runs.setdefault((told["protocol"], told["variant"]), []).append((told, answers))
        except (OSError, ValueError, KeyError) as err:
            raise EngineFileError(
                f"the result {path} is damaged ({err}); remove its folder, train again"
            ) from err
    return [_measured(PROTOCOLS[name], variant, those) for (name, variant), those in runs.items()]


def _measured(
    protocol: Protocol, variant: str, runs: Sequence[tuple[Mapping[str, Any], Mapping[str, NDArray[Any]]]]
) -> Measured:
    by_seed: dict[int, list[Mapping[str, NDArray[Any]]]] = {}
    for told, answers in runs:
        by_seed.setdefault(told["seed"], []).append(answers)
    found = [judged(protocol, *_whole_answers(parts)) for parts in by_seed.values()]
    truth, _, _, speakers = _whole_answers(next(iter(by_seed.values())))
    commonest = np.zeros((1, len(protocol.names)), bool)
    commonest[0, protocol.names.index(runs[0][0]["majority"])] = True
    nothing = baselines(protocol, commonest, truth, speakers)
    return Measured(protocol, variant, tuple(told for told, _ in runs), tuple(found), nothing)


def _whole_answers(parts: Sequence[Mapping[str, NDArray[Any]]]) -> tuple[Any, Any, Any, list[str]]:
    """Truth, shares, verdicts and speakers of all folds."""
    truth, shares, said, speakers = (
        np.concatenate([part[key] for part in parts]) for key in ("truth", "shares", "said", "speakers")
    )
    return truth, shares, said, [str(one) for one in speakers]


def _page_lines(measured: Sequence[Measured]) -> list[str]:
    lines = [
        "# The papers' figures, and ours",
        "",
        "Written by `liveaffect evaluate paper`. Figures in per cent; behind ours the interval of 95 %, with",
        "whole speakers drawn anew, for one seed, and from the worst to the best seed for several.",
        "An empty cell was not measured by anybody. Protocols that keep speakers apart come first.",
        "",
    ]
    for protocol in PROTOCOLS.values():
        mine = [one for one in measured if one.protocol.name == protocol.name]
        theirs = [one for one in REPORTED if one.protocol == protocol.name]
        if not (mine or theirs):
            continue
        lines += [f"## {protocol.title}", ""]
        rows: list[list[str]] = [
            [f"{one.system}, reported", *_reported_cells(one.figures, protocol), "", "", ""] for one in theirs
        ]
        empty = [""] * (len(HEADS) - 1)
        for system in [] if mine else dict.fromkeys(one.system for one in theirs if one.system in _RUNNABLE):
            rows.append([f"{system}, here", *empty])
        for one in mine:
            rows.append([f"{one.variant}, here", *one.cells])
        for name in mine[0].baselines if mine else ():
            rows.append([name, *_row_figures(protocol, [mine[0].baselines[name]]), "", "", ""])
        lines += [markdown_table(HEADS, rows)]
        lines += [f"* {one.system}: {one.source}." for one in theirs]
        lines += [*(_row_a_class(one) for one in mine), ""]
    return lines


_RUNNABLE = ("fv2es", "fcn", "amfbp")


def _row_figures(protocol: Protocol, seeds: Sequence[Mapping[str, Any]]) -> list[str]:
    """Accuracy, recall, macro F1 of one class of all; then the binary figures."""
    cells = ["", "", ""]
    if not protocol.several:
        classes = [one["classes"] for one in seeds]
        cells = [
            _with_interval([c["accuracy"] for c in classes], classes[0]["accuracy_between"]),
            _with_interval(
                [c["unweighted_recall"] for c in classes], classes[0]["unweighted_recall_between"]
            ),
            _with_interval([c["macro_f1"] for c in classes]),
        ]
    between = {"weighted_accuracy": "weighted_accuracy_between", "f1": "f1_between"}
    for key in ("accuracy", "weighted_accuracy", "f1", "auc"):
        interval = seeds[0].get(between.get(key, ""))
        cells.append(_with_interval([one["mean"][key] for one in seeds], interval))
    return cells


def _with_interval(values: Sequence[float | None], between: Sequence[float] | None = None) -> str:
    there = [value for value in values if value is not None]
    if not there:
        return ""
    low_high = (min(there), max(there)) if len(there) > 1 else between
    told = f" ({100 * low_high[0]:.1f} to {100 * low_high[1]:.1f})" if low_high is not None else ""
    return f"{100 * float(np.mean(there)):.1f}{told}"


def _reported_cells(figures: str, protocol: Protocol) -> list[str]:
    given = dict(part.rsplit(" ", 1) for part in figures.split(", "))
    binary = protocol.several or "published" in protocol.name
    names = ("accuracy", "recall", "", "", "weighted accuracy", "F1", "AUC")
    cells = [given.get(name, "") if name else "" for name in names]
    if binary:
        # Theirs is that of yes and no.
        cells[3], cells[0] = cells[0], ""
    return cells


def _row_a_class(one: Measured) -> str:
    first = one.judged[0]["each"]
    parts = [
        f"{name} {_with_interval([first['weighted_accuracy'][at]])}/{_with_interval([first['f1'][at]])}"
        for at, name in enumerate(one.protocol.names)
    ]
    speed = float(np.median([result["seconds_an_epoch"] for result in one.results]))
    epochs = " or ".join(str(count) for count in sorted({result["epochs"] for result in one.results}))
    return (
        f"* {one.variant}: weighted accuracy/F1 of {', '.join(parts)}; "
        f"{one.results[0]['parameters']:,} parameters, {epochs} epochs of {speed:.0f} s "
        f"on {one.results[0]['device']}."
    )
