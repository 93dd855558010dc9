"""Fits temperatures and thresholds on what users would have seen, and judges them on people not fitted on.

Whatever is reported was said about people whose clips did not take part in fitting: the calibrate side is
taken fold by fold (speakers one by one; pictures, whose people nobody knows, in five parts), and the test
side by the temperature that is shipped.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from liveaffect.calibration.clip_trace import ClipTrace, ClipTraces
from liveaffect.calibration.reliability import Promise, Reliability, judge, kept, promise
from liveaffect.calibration.temperature import (
    Fit,
    Scores,
    Truth,
    fit_temperature,
    log_loss,
    refuse_unfit,
    tempered,
)
from liveaffect.engines.confidence import COVERAGE, LEAST_SURE, Calibrated
from liveaffect.engines.recipe import LABELS

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
