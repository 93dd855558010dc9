"""Writes what was found out about confidence: tables to reckon with again, and figures for a page."""

from __future__ import annotations

import csv
import hashlib
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from liveaffect.calibration.held_out import POOLED, HeldOutPredictions, Outcome
from liveaffect.calibration.reliability import Reliability, risk_against_coverage
from liveaffect.engines.confidence import COVERAGE
from liveaffect.engines.manifest import write_whole
from liveaffect.engines.recipe import LABELS
from liveaffect.engines.training.archive import ENDING, write_tables
from liveaffect.realtime.errors import SettingsError

BEGIN, END = "<!-- figures: begin -->", "<!-- figures: end -->"


@dataclass(frozen=True, slots=True)
class ClipCount:
    """How many clips there were, and how many of them gave cues."""

    name: str
    side: str
    clips: int
    watched: int


@dataclass(frozen=True, slots=True)
class ShownCount:
    """What came out in the end, with every rule of "not sure"."""

    name: str
    side: str
    cues: int
    labels: int
    wrong: int


@dataclass(frozen=True, slots=True, eq=False)
class Findings:
    """Everything there is to report."""

    outcomes: Mapping[str, Outcome]
    seen: tuple[ClipCount, ...]
    shown: tuple[ShownCount, ...]
    models: Mapping[str, str]
    """Short sums of the networks that were asked."""


def write_findings(findings: Findings, curves: list[list[Any]], out: Path, page: Path | None) -> str:
    """All tables into `out`, the figures into `page` if there is one; the figures as text."""
    figures = findings_markdown(findings)
    out.mkdir(parents=True, exist_ok=True)
    tables = {
        "summary.csv": _summary_rows(findings),
        "diagram.csv": _diagram(findings),
        "risk.csv": _risk(findings),
        "promises.csv": _promises(findings),
        "quality_curves.csv": curves,
        "clips.csv": [["answers", "side", "clips", "gave_cues"]]
        + [[s.name, s.side, s.clips, s.watched] for s in findings.seen],
    }
    answers = {
        f"{name.replace(' ', '-').replace('+', '-and-')}.csv": _csv(_answers_table(outcome)).decode()
        for name, outcome in findings.outcomes.items()
    }
    write_tables(out / f"answers{ENDING}", answers)
    for name, rows in tables.items():
        write_whole(out / name, _csv(rows))
    if page is not None:
        write_whole(page, between_marks(page.read_text("utf-8"), figures, page).encode())
    return figures


def between_marks(text: str, figures: str, page: Path) -> str:
    """The page with new figures. Raises SettingsError if it has no place for them."""
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise SettingsError(f"{page} has no lines {BEGIN} and {END} for the figures to stand between")
    return f"{before}{begin}\n\n{figures}\n{end}{after}"


def findings_markdown(findings: Findings) -> str:
    """The figures for a reader."""
    networks = ", ".join(f"{kind} `{model}`" for kind, model in findings.models.items())
    lines = [
        f"Networks: {networks}. An interval holds in 95 of 100 samples of other people.",
        "",
        "| answers | people | cues of clips | right | sure before | sure after | temperature |",
        "|---|---|--:|--:|--:|--:|--:|",
    ]
    for name, side, outcome in _judged_sides(findings):
        before, after = (outcome.judged[side, "cues", state] for state in ("before", "after"))
        lines.append(
            f"| {name} | {_people(side)}, {after.groups} | {after.items} of {after.clips} "
            f"| {after.accuracy:.3f} | {before.confidence:.3f} "
            f"| {after.confidence:.3f} | {outcome.fit.temperature:.2f} |"
        )
    lines += [
        "",
        "| answers | people | level | calibration error before | after | of a perfect model | "
        "excess before | excess after |",
        "|---|---|---|--:|--:|--:|--:|--:|",
    ]
    for name, side, outcome in _judged_sides(findings):
        for level in ("cues", "clips") if side == POOLED else ("cues",):
            before, after = (outcome.judged[side, level, state] for state in ("before", "after"))
            low, high = after.excess_between
            lines.append(
                f"| {name} | {_people(side)} | {level} | {before.error:.3f} | {after.error:.3f} "
                f"| {after.perfect:.3f} | {before.excess:+.3f} "
                f"| **{after.excess:+.3f}** ({low:+.3f} to {high:+.3f}) |"
            )
    lines += [
        "",
        "| answers | people | Brier score before | after | log loss before | after |",
        "|---|---|--:|--:|--:|--:|",
    ]
    for name, side, outcome in _judged_sides(findings):
        before, after = (outcome.judged[side, "cues", state] for state in ("before", "after"))
        lines.append(
            f"| {name} | {_people(side)} | {before.brier:.3f} | {after.brier:.3f} "
            f"| {before.log_loss:.3f} | {after.log_loss:.3f} |"
        )
    return "\n".join([*lines, "", *_promise_lines(findings), "", *_shown_lines(findings)]) + "\n"


def _promise_lines(findings: Findings) -> list[str]:
    lines = [
        "| answers | threshold | people | answered | promised wrong | found wrong | labels are shown from |",
        "|---|--:|---|--:|--:|--:|--:|",
    ]
    for name, side, outcome in _judged_sides(findings):
        held = outcome.told[side].held()
        low, high = held.risk_between
        lines.append(
            f"| {name} | {outcome.promise.threshold:.2f} | {_people(side)} | {held.coverage:.3f} "
            f"| {outcome.told[side].promised:.3f} | {held.risk:.3f} ({low:.3f} to {high:.3f}) "
            f"| {outcome.applied.threshold:.2f} |"
        )
    return [f"Of the surest {COVERAGE:.0%} of cues:", "", *lines]


def _shown_lines(findings: Findings) -> list[str]:
    lines = ["| answers | people | cues | with a label | of those wrong |", "|---|---|--:|--:|--:|"]
    for one in findings.shown:
        wrong = one.wrong / one.labels if one.labels else 0.0
        lines.append(
            f"| {one.name} | {_people(one.side)} | {one.cues} | {one.labels / one.cues:.3f} | {wrong:.3f} |"
        )
    return ['As shown in the end, every rule of "not sure" included:', "", *lines]


def _judged_sides(findings: Findings) -> Iterable[tuple[str, str, Outcome]]:
    """What the page shows: everybody, and the test side by itself; the tables have all."""
    for name, outcome in findings.outcomes.items():
        wanted = [side for side in (POOLED, "test") if side in outcome.told] or ["calibrate"]
        yield from ((name, side, outcome) for side in wanted)


def _every(findings: Findings) -> Iterable[tuple[str, str, Outcome]]:
    return ((name, side, outcome) for name, outcome in findings.outcomes.items() for side in outcome.told)


def _people(side: str) -> str:
    return "all" if side == POOLED else f"{side} side"


def _summary_rows(findings: Findings) -> list[list[Any]]:
    plain = [name for name in Reliability.__dataclass_fields__ if name != "bins"]
    heads = [h for name in plain for h in ((f"{name}_low", f"{name}_high") if "between" in name else (name,))]
    rows: list[list[Any]] = [["answers", "side", "level", "state", "temperature", *heads]]
    for name, outcome in findings.outcomes.items():
        for (side, level, state), found in outcome.judged.items():
            temperature = 1.0 if state == "before" else outcome.fit.temperature
            row: list[Any] = [name, side, level, state, temperature]
            for field in plain:
                value = getattr(found, field)
                row += list(value) if isinstance(value, tuple) else [value]
            rows.append(row)
    return rows


def _diagram(findings: Findings) -> list[list[Any]]:
    rows: list[list[Any]] = [["answers", "side", "level", "state", "cues", "confidence", "accuracy"]]
    for name, outcome in findings.outcomes.items():
        for key, found in outcome.judged.items():
            rows += [[name, *key, bar.items, bar.confidence, bar.accuracy] for bar in found.bins]
    return rows


def _risk(findings: Findings) -> list[list[Any]]:
    rows: list[list[Any]] = [["answers", "side", "coverage", "threshold", "risk"]]
    for name, side, outcome in _every(findings):
        told = outcome.told[side]
        rows += [[name, side, *point] for point in risk_against_coverage(told.after, told.truth)]
    return rows


def _promises(findings: Findings) -> list[list[Any]]:
    rows: list[list[Any]] = [
        ["answers", "side", "threshold", "answered", "promised_risk", "risk", "risk_low", "risk_high"]
    ]
    for name, side, outcome in _every(findings):
        held = outcome.told[side].held()
        promised = outcome.told[side].promised
        rows.append([name, side, held.threshold, held.coverage, promised, held.risk, *held.risk_between])
    return rows


def _answers_table(outcome: Outcome) -> list[list[Any]]:
    """The last cue of every clip, before and after, from which the figures on clips can be made again."""
    heads = [f"{state}_{label}" for state in ("before", "after") for label in LABELS]
    rows: list[list[Any]] = [["id", "people", "side", "label", "cues", *heads]]
    for told in (told for side, told in outcome.told.items() if side != POOLED):
        rows += [[*_clip(told, at), *told.before[at], *told.after[at]] for at in told.last()]
    return rows


def _clip(told: HeldOutPredictions, at: int) -> list[Any]:
    watch = told.watches[told.clips[at]]
    name = hashlib.sha256(watch.clip.encode()).hexdigest()[:12]
    cues = int(np.count_nonzero(told.clips == told.clips[at]))
    return [name, watch.group, watch.side, LABELS[watch.truth], cues]


def _csv(rows: Sequence[Sequence[Any]]) -> bytes:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    for row in rows:
        writer.writerow([f"{value:.4f}" if isinstance(value, float) else value for value in row])
    return text.getvalue().encode()
