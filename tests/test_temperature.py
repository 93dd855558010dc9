"""The temperature found is the right one, keeps every winner, and is not found from senseless samples."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray

from liveaffect.calibration.reliability import (
    UnfitSamples,
    check_samples,
    fit_logits,
    fit_temperature,
    log_loss,
    tempered,
)
from liveaffect.engines.confidence import COLDEST, HOTTEST

Logits = NDArray[np.float64]
Truth = NDArray[np.int64]
LOGITS = arrays.arrays(np.float64, (5, 7), elements=st.floats(-60, 60))


def honest(items: int, seed: int = 0) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Logits whose softmax is exactly how often each label is true."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 1.6, (items, 7))
    chances = tempered(logits, 1.0).cumsum(axis=1)
    return logits, np.asarray((rng.random((items, 1)) > chances).sum(axis=1).clip(0, 6), np.int64)


@given(LOGITS, st.floats(COLDEST, HOTTEST))
def test_the_winner_stays_and_probabilities_sum_to_one(
    logits: NDArray[np.float64], temperature: float
) -> None:
    found = tempered(logits, temperature)
    np.testing.assert_allclose(found.sum(axis=1), 1.0, atol=1e-12)
    rows = np.arange(len(logits))
    assert (found[rows, logits.argmax(axis=1)] == found.max(axis=1)).all()


@settings(max_examples=8, deadline=None)
@given(st.floats(0.4, 5.0))
def test_a_model_that_is_sharper_than_it_should_be_by_a_factor_is_told_that_factor(factor: float) -> None:
    logits, truth = honest(6000)
    found = fit_logits(logits * factor, truth, "a model")
    assert found.temperature == pytest.approx(factor, rel=0.08)
    assert found.after <= found.before + 1e-9


def test_an_honest_model_keeps_its_temperature_within_what_chance_allows() -> None:
    found = [fit_logits(*honest(1500, seed), "a model").temperature for seed in range(12)]
    low, high = np.percentile(found, [2.5, 97.5])
    assert low < 1.0 < high
    assert high - low < 0.2


def test_the_search_is_as_good_as_trying_everything() -> None:
    logits, truth = honest(400, seed=3)
    every = np.exp(np.linspace(np.log(COLDEST), np.log(HOTTEST), 4000))
    best = min(log_loss(tempered(logits * 2.3, t), truth) for t in every)
    assert fit_logits(logits * 2.3, truth, "a model").after == pytest.approx(best, abs=1e-6)


def test_of_two_valleys_the_deeper_one_is_taken() -> None:
    def loss(temperature: float) -> float:
        at = np.log(temperature)
        return float(min((at + 0.9) ** 2 + 0.2, 2 * (at - 1.1) ** 2))

    assert fit_temperature(loss).temperature == pytest.approx(np.exp(1.1), rel=1e-3)


def test_a_model_that_knows_nothing_ends_at_the_edge_and_not_beyond() -> None:
    rng = np.random.default_rng(0)
    found = fit_logits(rng.normal(0, 5, (800, 7)), rng.integers(0, 7, 800), "noise")
    assert HOTTEST * 0.99 <= found.temperature <= HOTTEST


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda logits, truth: (logits[:20], truth[:20]), "voices: 20 items are too few"),
        (lambda logits, truth: (logits, np.full_like(truth, 3)), "voices: all 200 items are 'angry'"),
        (lambda logits, truth: (np.where(logits > 2, np.nan, logits), truth), "scores that are no numbers"),
        (lambda logits, truth: (logits[:, :6], truth), "wanted one row of 7"),
        (lambda logits, truth: (logits[:-1], truth), "voices: (199, 7) scores for 200 truths"),
        (lambda logits, truth: (logits, truth - 1), "a truth is none of 0 to 6"),
    ],
)
def test_samples_that_say_nothing_are_refused_by_name(
    spoil: Callable[[Logits, Truth], tuple[Logits, Truth]], said: str
) -> None:
    logits, truth = spoil(*honest(200))
    with pytest.raises(UnfitSamples, match=said.replace("(", r"\(").replace(")", r"\)")):
        fit_logits(logits, truth, "voices")


def test_infinity_is_no_number_either() -> None:
    logits, truth = honest(60)
    logits[7, 3] = np.inf
    with pytest.raises(UnfitSamples, match="1 of 60 rows"):
        check_samples(logits, truth, "faces")
