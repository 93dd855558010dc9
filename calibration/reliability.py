"""How far a confidence can be believed, and the one number that makes it mean more: the temperature.

A temperature changes how sure an answer is, never which answer it is. It is the one that makes the truth
least surprising (log loss). For plain scores that loss is convex in 1/T; after smoothing over time it need
not be, so a coarse grid comes first and the best of its valleys is searched.

A model that is calibrated perfectly still shows a calibration error, because bins hold few items. That
error is worked out for the very confidences at hand and stands beside every figure; the difference is what
counts. Cues of one clip share one truth: they are right or wrong together, and everything here takes them
so.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from liveaffect.engines.confidence import COLDEST, HOTTEST
from liveaffect.engines.protocol import EngineError
from liveaffect.engines.recipe import LABELS

FEWEST = 50
"""Fewer independent items than this say nothing about confidence."""
_GRID = 17
_CLOSE = 1e-4
"""In log T: the search ends when it is this narrow."""

Scores = NDArray[np.float64]
"""(n, 7)."""
Truth = NDArray[np.int64]


class UnfitSamples(EngineError):
    """Samples from which no confidence can be learnt; says what is wrong with them."""


@dataclass(frozen=True, slots=True)
class Fit:
    """A temperature and what it did to the log loss."""

    temperature: float
    before: float
    after: float


def check_samples(
    scores: NDArray[np.floating], truth: NDArray[np.integer], what: str
) -> tuple[Scores, Truth]:
    """The same as plain arrays. Raises UnfitSamples that names `what` and why it cannot be fitted on."""
    found = np.asarray(scores, np.float64)
    wanted = np.asarray(truth, np.int64)
    if found.ndim != 2 or found.shape[1] != len(LABELS) or found.shape[0] != len(wanted):
        raise UnfitSamples(
            f"{what}: {found.shape} scores for {len(wanted)} truths; wanted one row of {len(LABELS)} each"
        )
    if bad := int((~np.isfinite(found)).any(axis=1).sum()):
        raise UnfitSamples(f"{what}: {bad} of {len(found)} rows hold scores that are no numbers")
    if len(wanted) and not ((wanted >= 0) & (wanted < len(LABELS))).all():
        raise UnfitSamples(f"{what}: a truth is none of 0 to {len(LABELS) - 1}")
    return found, wanted


def refuse_unfit(truth: NDArray[np.integer], what: str, fewest: int = FEWEST) -> None:
    """Raise UnfitSamples where there are too few items, one truth each, or all of one label."""
    if len(truth) < fewest:
        raise UnfitSamples(
            f"{what}: {len(truth)} items are too few to learn a confidence from, wanted {fewest}"
        )
    if len(labels := np.unique(truth)) < 2:
        raise UnfitSamples(
            f"{what}: all {len(truth)} items are '{LABELS[int(labels[0])]}'; it takes at least two labels"
        )


def tempered(logits: NDArray[np.floating], temperature: float) -> Scores:
    """Probabilities of the last axis, which sum to one."""
    raised = np.asarray(logits, np.float64) / temperature
    powers = np.exp(raised - raised.max(axis=-1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=-1, keepdims=True), np.float64)


def log_loss(probabilities: Scores, truth: Truth) -> float:
    """Mean surprise in nats."""
    hit = probabilities[np.arange(len(truth)), truth]
    return float(-np.log(np.maximum(hit, 1e-12)).mean())


def fit_temperature(loss: Callable[[float], float]) -> Fit:
    """The temperature with the least loss."""
    from scipy.optimize import minimize_scalar

    grid = np.linspace(math.log(COLDEST), math.log(HOTTEST), _GRID)
    values = [loss(math.exp(at)) for at in grid]
    best = int(np.argmin(values))
    low, high = grid[max(best - 1, 0)], grid[min(best + 1, _GRID - 1)]
    close = minimize_scalar(
        lambda at: loss(math.exp(at)), bounds=(low, high), method="bounded", options={"xatol": _CLOSE}
    )
    temperature = math.exp(close.x)
    return Fit(temperature, loss(1.0), loss(temperature))


def fit_logits(
    logits: NDArray[np.floating], truth: NDArray[np.integer], what: str, *, fewest: int = FEWEST
) -> Fit:
    """The temperature of plain logits, one row an item. Raises UnfitSamples."""
    rows, wanted = check_samples(logits, truth, what)
    refuse_unfit(wanted, what, fewest)
    return fit_temperature(lambda temperature: log_loss(tempered(rows, temperature), wanted))


BINS = 15
ROUNDS = 200
WORLDS = 4
"""Perfect models drawn beside each resample."""
STEPS = tuple(step / 20 for step in range(1, 21))
FEW_GROUPS = 8
"""With fewer speakers than this, intervals draw clips instead: so few cannot stand for all others."""

Array = NDArray[np.float64]
Between = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Bin:
    """One bar of the reliability diagram."""

    items: int
    confidence: float
    accuracy: float


@dataclass(frozen=True, slots=True)
class Reliability:
    """What one set of answers says about its own confidence."""

    items: int
    clips: int
    groups: int
    accuracy: float
    confidence: float
    """Mean over the items; above the accuracy it boasts."""
    error: float
    """Mean distance of confidence and accuracy over bins of equally many items."""
    error_between: Between
    perfect: float
    """The error that a perfectly calibrated model shows with these confidences and clips, on average."""
    perfect_at_most: float
    """In 95 of 100 cases."""
    excess: float
    """`error` less `perfect`: around zero, to both sides, for a perfect model."""
    excess_between: Between
    debiased: float
    """Root mean square distance without the part that chance adds."""
    brier: float
    log_loss: float
    bins: tuple[Bin, ...]
    drawn: str
    """What the intervals draw: 'groups' or 'clips'. They cover 95 of 100 cases."""

    def to_json(self) -> dict[str, Any]:
        """Plain types only."""
        return asdict(self)


def judge(
    probabilities: NDArray[np.floating],
    truth: NDArray[np.integer],
    clips: Sequence[Any],
    groups: Sequence[Any],
    *,
    rounds: int = ROUNDS,
    seed: int = 0,
) -> Reliability:
    """Everything above about probabilities (n, 7); `clips` and `groups` name each row's clip and speaker."""
    rows, wanted = check_samples(probabilities, truth, "scores to judge")
    # In the order of confidence, so that no resample has to be put into it again.
    order = np.argsort(rows.max(axis=1), kind="stable")
    rows, wanted = rows[order], wanted[order]
    confidence, right = rows.max(axis=1), (rows.argmax(axis=1) == wanted).astype(np.float64)
    clip, group = _numbered(clips)[order], _numbered(groups)[order]
    rng = np.random.default_rng(seed)
    gap = right - confidence
    worlds = [_perfect(confidence, clip, rng) - confidence for _ in range(rounds)]
    perfect = [_binned(world, BINS) for world in worlds]
    error = _binned(gap, BINS)
    drawn = "groups" if group.max() + 1 >= FEW_GROUPS else "clips"
    errors, excesses = [], []
    for at in map(np.sort, _resamples(group if drawn == "groups" else clip, rounds, rng)):
        errors.append(_binned(gap[at], BINS))
        beside = [worlds[k] for k in rng.integers(0, rounds, WORLDS)]
        excesses.append(errors[-1] - float(np.mean([_binned(world[at], BINS) for world in beside])))
    return Reliability(
        items=len(rows),
        clips=int(clip.max()) + 1,
        groups=int(group.max()) + 1,
        accuracy=float(right.mean()),
        confidence=float(confidence.mean()),
        error=error,
        error_between=_middle_95(errors),
        perfect=float(np.mean(perfect)),
        perfect_at_most=float(np.quantile(perfect, 0.95)),
        excess=error - float(np.mean(perfect)),
        excess_between=_middle_95(excesses),
        debiased=float(np.sqrt(max(squared_gap(confidence, right, clip), 0.0))),
        brier=float(np.square(rows - np.eye(rows.shape[1])[wanted]).sum(axis=1).mean()),
        log_loss=log_loss(rows, wanted),
        bins=diagram(confidence, right),
        drawn=drawn,
    )


def calibration_error(confidence: Array, right: Array, bins: int = BINS) -> float:
    """Mean distance of confidence and accuracy, in bins that hold equally many items."""
    return _binned((right - confidence)[np.argsort(confidence, kind="stable")], bins)


def _binned(gap: Array, bins: int) -> float:
    """Mean absolute sum over bins of what is in the order of confidence."""
    return float(np.abs(np.add.reduceat(gap, _bin_starts(len(gap), bins))).sum() / len(gap))


def squared_gap(confidence: Array, right: Array, clips: Truth, bins: int = BINS) -> float:
    """Mean squared distance of confidence and accuracy over bins, without bias; below zero by chance.

    From each bin's squared distance the variance of its mean is taken off, clips being drawn, not cues.
    """
    total = 0.0
    for at in np.split(np.argsort(confidence, kind="stable"), _bin_starts(len(confidence), bins)[1:]):
        gap = right[at] - confidence[at]
        _, which = np.unique(clips[at], return_inverse=True)
        sums = np.bincount(which, gap - gap.mean())
        count = len(sums)
        if count > 1:
            variance = float(np.square(sums).sum()) / len(at) ** 2 * count / (count - 1)
            total += len(at) * (float(gap.mean()) ** 2 - variance)
    return total / len(confidence)


def diagram(confidence: Array, right: Array, bins: int = BINS) -> tuple[Bin, ...]:
    """The reliability diagram, from the least sure bin to the surest."""
    parts = np.split(np.argsort(confidence, kind="stable"), _bin_starts(len(confidence), bins)[1:])
    return tuple(Bin(len(at), float(confidence[at].mean()), float(right[at].mean())) for at in parts)


@dataclass(frozen=True, slots=True)
class Promise:
    """From which confidence on an answer is given, and how often those answers are wrong."""

    threshold: float
    coverage: float
    """Share of items at or above the threshold."""
    risk: float
    """Share of those that is wrong."""
    risk_between: Between


def promise(
    probabilities: Scores, truth: Truth, clips: Sequence[Any], coverage: float, *, rounds: int = ROUNDS
) -> Promise:
    """The threshold that lets `coverage` of the items through, and the risk among them."""
    threshold = float(np.quantile(probabilities.max(axis=1), 1.0 - coverage))
    return kept(probabilities, truth, clips, np.full(len(truth), threshold), rounds=rounds)


def kept(
    probabilities: Scores, truth: Truth, clips: Sequence[Any], thresholds: Array, *, rounds: int = ROUNDS
) -> Promise:
    """Coverage and risk of items at or above their threshold, with the interval of the risk."""
    shown = probabilities.max(axis=1) >= thresholds
    wrong = probabilities.argmax(axis=1) != truth
    risks = [
        float(wrong[at][shown[at]].mean())
        for at in _resamples(_numbered(clips), rounds, np.random.default_rng(0))
        if shown[at].any()
    ]
    risk = float(wrong[shown].mean()) if shown.any() else 0.0
    return Promise(float(np.mean(thresholds)), float(shown.mean()), risk, _middle_95(risks or [0.0]))


def risk_against_coverage(
    probabilities: Scores, truth: Truth, steps: Sequence[float] = STEPS
) -> list[tuple[float, float, float]]:
    """(coverage, threshold, risk) when only the surest share of all items is answered."""
    confidence = probabilities.max(axis=1)
    order = np.argsort(-confidence, kind="stable")
    wrong = np.cumsum((probabilities.argmax(axis=1) != truth)[order])
    found = []
    for share in steps:
        count = max(1, round(share * len(order)))
        found.append((share, float(confidence[order[count - 1]]), float(wrong[count - 1] / count)))
    return found


def _perfect(confidence: Array, clips: Truth, rng: np.random.Generator) -> Array:
    """Right or wrong as a perfect model would be: as often as it says, the cues of a clip together."""
    return (rng.random(int(clips.max()) + 1)[clips] < confidence).astype(np.float64)


def _resamples(which: Truth, rounds: int, rng: np.random.Generator) -> list[Truth]:
    """Resamples of whole clips or groups, with repetition."""
    order = np.argsort(which, kind="stable")
    members = np.split(order, np.cumsum(np.bincount(which))[:-1])
    return [
        np.concatenate([members[k] for k in rng.integers(0, len(members), len(members))])
        for _ in range(rounds)
    ]


def _bin_starts(items: int, bins: int) -> Truth:
    count = min(bins, items)
    return np.asarray(np.arange(count) * items // count, np.int64)


def _numbered(names: Sequence[Any]) -> Truth:
    return np.asarray(np.unique(np.asarray(names), return_inverse=True)[1], np.int64).reshape(-1)


def _middle_95(found: Sequence[float]) -> Between:
    low, high = np.percentile(found, [2.5, 97.5])
    return float(low), float(high)
