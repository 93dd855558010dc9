"""Fits temperatures and thresholds on what users would have seen, and judges them on people not fitted on.

Whatever is reported was said about people whose clips did not take part in fitting: the calibrate side is
taken fold by fold (speakers one by one; pictures, whose people nobody knows, in five parts), and the test
side by the temperature that is shipped. What is written are tables to reckon with again, and figures for a
page.
"""

from __future__ import annotations

import csv
import hashlib
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from liveaffect.calibration.clips import ClipTrace, ClipTraces
from liveaffect.calibration.reliability import (
    Fit,
    Promise,
    Reliability,
    Scores,
    Truth,
    fit_temperature,
    judge,
    kept,
    log_loss,
    promise,
    refuse_unfit,
    risk_against_coverage,
    tempered,
)
from liveaffect.engines.confidence import COVERAGE, LEAST_SURE, Calibrated
from liveaffect.engines.manifest import write_whole
from liveaffect.engines.recipe import LABELS
from liveaffect.engines.training.scores import ENDING, write_tables
from liveaffect.realtime.errors import SettingsError

PICTURE_FOLDS = 5
MOST_FOLDS = 12
"""With more speakers than this, they are put into five folds as well."""


class Answers(Protocol):
    """What was said in counted cues, as a function of one temperature."""

    @property
    def watches(self) -> tuple[ClipTrace, ...]:
        """The clips."""
        ...

    @property
    def clips(self) -> Truth:
        """For every cue, the number of its clip."""
        ...

    def take(self, chosen: Sequence[int]) -> Answers:
        """Those of some clips."""
        ...

    def scores(self, temperature: float) -> Scores:
        """(cues, 7)."""
        ...


class Fused:
    """The joint answers that rest on one subset of the evidence."""

    def __init__(self, chains: ClipTraces, subset: str, known: Mapping[str, float]) -> None:
        self._chains, self._subset, self._known = chains, subset, dict(known)

    @property
    def watches(self) -> tuple[ClipTrace, ...]:
        """The clips."""
        return self._chains.watches

    @property
    def clips(self) -> Truth:
        """For every cue, the number of its clip."""
        return self._chains.clips

    def take(self, chosen: Sequence[int]) -> Fused:
        """Those of some clips."""
        return Fused(self._chains.take(chosen), self._subset, self._known)

    def scores(self, temperature: float) -> Scores:
        """(cues, 7)."""
        return self._chains.scores({**self._known, self._subset: temperature})


class Reading:
    """What one modality says by itself."""

    def __init__(self, modality: str, watches: Sequence[ClipTrace]) -> None:
        self._modality = modality
        there = [
            (at, opinion.short.logits)
            for at, watch in enumerate(watches)
            for one, counts in zip(watch.estimates, watch.counted, strict=True)
            if counts and (opinion := one.face if modality == "face" else one.voice) is not None
        ]
        self.watches = tuple(watches)
        self.clips = np.array([at for at, _ in there], np.int64)
        self._logits = np.array([logits for _, logits in there], np.float64).reshape(-1, len(LABELS))

    def take(self, chosen: Sequence[int]) -> Reading:
        """Those of some clips."""
        return Reading(self._modality, [self.watches[k] for k in chosen])

    def scores(self, temperature: float) -> Scores:
        """(cues, 7)."""
        return tempered(self._logits, temperature)


@dataclass(frozen=True, slots=True, eq=False)
class HeldOutPredictions:
    """What was said about people not fitted on, with and without a temperature."""

    watches: tuple[ClipTrace, ...]
    clips: Truth
    truth: Truth
    before: Scores
    after: Scores
    thresholds: NDArray[np.float64]
    """What each cue had to reach to be answered."""
    promised: float
    """The risk that was promised for those that are."""

    def held(self) -> Promise:
        """How the promise was kept."""
        return kept(self.after, self.truth, self.clips.tolist(), self.thresholds)

    def reliability(self, scores: Scores) -> Reliability:
        """Of the cues."""
        groups = [self.watches[clip].group for clip in self.clips]
        return judge(scores, self.truth, self.clips.tolist(), groups)

    def last(self) -> NDArray[np.int64]:
        """The row of each clip's last cue: what stands when the clip ends."""
        return np.flatnonzero(np.append(np.diff(self.clips) > 0, [True]))

    def reliability_of_clips(self, scores: Scores) -> Reliability:
        """Of the last cue of each clip."""
        at = self.last()
        groups = [self.watches[clip].group for clip in self.clips[at]]
        return judge(scores[at], self.truth[at], self.clips[at].tolist(), groups)


POOLED = "pooled"
"""Everybody of both sides, each by a temperature that was fitted without them."""
Judged = Mapping[tuple[str, str, str], Reliability]
"""By side ('calibrate', 'test' or `POOLED`), level ('cues' or 'clips') and state ('before' or 'after')."""


@dataclass(frozen=True, slots=True, eq=False)
class Outcome:
    """Everything that was found out about one sort of answer."""

    name: str
    fit: Fit
    promise: Promise
    """Made on the whole calibrate side: the surest `COVERAGE` of all cues."""
    applied: Promise
    """The same, less what is too unsure to be said at all; it stands in the manifest."""
    told: Mapping[str, HeldOutPredictions]
    """By side. On the calibrate side everybody by a temperature that was fitted on the others."""
    judged: Judged

    def calibrated(self) -> Calibrated:
        """What the manifest says."""
        side = POOLED if POOLED in self.told else "calibrate"
        before, after = (self.judged[side, "cues", state] for state in ("before", "after"))
        low, high = self.applied.risk_between
        return Calibrated(
            temperature=round(self.fit.temperature, 4),
            threshold=round(self.applied.threshold, 4),
            coverage=round(self.applied.coverage, 4),
            risk=round(self.applied.risk, 4),
            risk_between=(round(low, 4), round(high, 4)),
            cues=after.items,
            clips=after.clips,
            groups=after.groups,
            excess_before=round(before.excess, 4),
            excess_after=round(after.excess, 4),
        )


def find_out(name: str, answers: Answers, test: Answers | None) -> Outcome:
    """Fit on the calibrate side, judge there crosswise and on the test side. Raises UnfitSamples."""
    found = _fitted(name, answers)
    made = promise(answers.scores(found.temperature), _truth(answers), answers.clips.tolist(), COVERAGE)
    told = {"calibrate": _crossed(name, answers)}
    if test is not None and len(test.watches):
        told["test"] = HeldOutPredictions(
            test.watches,
            test.clips,
            _truth(test),
            test.scores(1.0),
            test.scores(found.temperature),
            np.full(len(test.clips), made.threshold),
            made.risk,
        )
        told[POOLED] = _pooled(told["calibrate"], told["test"])
    judged = {}
    for side, one in told.items():
        for state, scores in (("before", one.before), ("after", one.after)):
            judged[side, "cues", state] = one.reliability(scores)
            judged[side, "clips", state] = one.reliability_of_clips(scores)
    least = np.full(len(answers.clips), max(made.threshold, LEAST_SURE))
    applied = kept(answers.scores(found.temperature), _truth(answers), answers.clips.tolist(), least)
    return Outcome(name, found, made, applied, told, judged)


def _pooled(one: HeldOutPredictions, other: HeldOutPredictions) -> HeldOutPredictions:
    share = len(one.truth) / (len(one.truth) + len(other.truth))
    return HeldOutPredictions(
        (*one.watches, *other.watches),
        np.concatenate([one.clips, other.clips + len(one.watches)]),
        np.concatenate([one.truth, other.truth]),
        np.concatenate([one.before, other.before]),
        np.concatenate([one.after, other.after]),
        np.concatenate([one.thresholds, other.thresholds]),
        share * one.promised + (1.0 - share) * other.promised,
    )


def _fitted(name: str, answers: Answers) -> Fit:
    refuse_unfit(np.array([watch.truth for watch in answers.watches], np.int64), name)
    truth = _truth(answers)
    return fit_temperature(lambda temperature: log_loss(answers.scores(temperature), truth))


def _crossed(name: str, answers: Answers) -> HeldOutPredictions:
    fold = folds([watch.group for watch in answers.watches])
    size = len(answers.clips)
    after, thresholds = np.zeros((size, answers.scores(1.0).shape[1])), np.zeros(size)
    promised = 0.0
    for one in np.unique(fold):
        others = answers.take(np.flatnonzero(fold != one).tolist())
        temperature = _fitted(f"{name} without part {one}", others).temperature
        made = promise(others.scores(temperature), _truth(others), others.clips.tolist(), COVERAGE, rounds=1)
        here = np.isin(answers.clips, np.flatnonzero(fold == one))
        after[here] = answers.scores(temperature)[here]
        thresholds[here] = made.threshold
        promised += made.risk * float(here.mean())
    return HeldOutPredictions(
        answers.watches, answers.clips, _truth(answers), answers.scores(1.0), after, thresholds, promised
    )


def folds(groups: Sequence[str]) -> NDArray[np.int64]:
    """The fold of each clip: a speaker each where there are few, else five parts by the hash of the group."""
    names = sorted(set(groups))
    if len(names) <= MOST_FOLDS:
        return np.array([names.index(group) for group in groups], np.int64)
    dice = [int.from_bytes(hashlib.sha256(group.encode()).digest()[:4], "big") for group in groups]
    return np.array(dice, np.int64) % PICTURE_FOLDS


def _truth(answers: Answers) -> Truth:
    return np.array([watch.truth for watch in answers.watches], np.int64)[answers.clips]


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
