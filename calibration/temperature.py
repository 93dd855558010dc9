"""Finds the one number by which a network's logits are divided so that its confidence means something.

The temperature changes how sure an answer is, never which answer it is. It is the one that makes the truth
least surprising (log loss). For plain scores that loss is convex in 1/T; after smoothing over time it need
not be, so a coarse grid comes first and the best of its valleys is searched.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

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
