"""The calibration error says what is wrong with a model and nothing about how few items there were."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from liveaffect.calibration.reliability import (
    UnfitSamples,
    calibration_error,
    fit_logits,
    judge,
    kept,
    promise,
    risk_against_coverage,
    squared_gap,
    tempered,
)

Rows = tuple[NDArray[np.float64], NDArray[np.int64]]


def honest(items: int, seed: int) -> Rows:
    """Logits whose softmax is exactly how often each label is true."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 1.6, (items, 7))
    chances = tempered(logits, 1.0).cumsum(axis=1)
    return logits, np.asarray((rng.random((items, 1)) > chances).sum(axis=1).clip(0, 6), np.int64)


def as_cues(rows: Rows, each: int, seed: int) -> tuple[NDArray[np.float64], NDArray[np.int64], list[int]]:
    """Every item as a clip of several nearly equal cues that share its truth."""
    logits, truth = rows
    wobble = np.random.default_rng(seed).normal(0, 0.02, (len(logits) * each, 7))
    return (
        np.repeat(logits, each, 0) + wobble,
        np.repeat(truth, each),
        list(np.repeat(range(len(truth)), each)),
    )


def test_a_perfect_model_has_no_excess_within_its_interval() -> None:
    hits = 0
    for seed in range(10):
        logits, truth = honest(500, seed)
        found = judge(tempered(logits, 1.0), truth, range(500), range(500), rounds=60)
        low, high = found.excess_between
        hits += low <= 0.0 <= high
        assert found.error > 0.01
        assert found.perfect <= found.perfect_at_most
    assert hits >= 8


def test_an_overconfident_model_is_found_out_and_mended_by_its_temperature() -> None:
    logits, truth = honest(3000, 1)
    boasting = judge(tempered(logits * 2.5, 1.0), truth, range(3000), range(3000), rounds=40)
    assert boasting.excess > 0.1
    assert boasting.excess_between[0] > 0.05
    assert boasting.confidence > boasting.accuracy
    temperature = fit_logits(logits * 2.5, truth, "a model").temperature
    fresh, fresh_truth = honest(3000, 2)
    mended = judge(tempered(fresh * 2.5, temperature), fresh_truth, range(3000), range(3000), rounds=40)
    assert abs(mended.excess) < 0.02
    assert mended.brier < boasting.brier
    assert mended.log_loss < boasting.log_loss
    assert mended.accuracy == pytest.approx(boasting.accuracy, abs=0.05)


@pytest.mark.parametrize("gap", [0.0, 0.1])
def test_the_squared_gap_is_right_on_average_however_few_items_there_are(gap: float) -> None:
    rng = np.random.default_rng(0)
    confidence = np.repeat(np.linspace(0.3, 0.8, 5), 12)
    found, plain = [], []
    for _ in range(2000):
        right = (rng.random(60) < confidence - gap).astype(np.float64)
        found.append(squared_gap(confidence, right, np.arange(60), bins=5))
        bins = (right - confidence).reshape(5, 12).mean(axis=1)
        plain.append(float(np.square(bins).mean()))
    assert np.mean(found) == pytest.approx(gap**2, abs=0.0015)
    assert np.mean(plain) > gap**2 + 0.01


def test_cues_that_share_a_truth_are_not_taken_for_as_many_proofs() -> None:
    logits, truth, clips = as_cues(honest(150, 5), each=12, seed=0)
    scores = tempered(logits, 1.0)
    together = judge(scores, truth, clips, clips, rounds=60)
    apart = judge(scores, truth, range(len(truth)), range(len(truth)), rounds=60)
    assert together.perfect > 2 * apart.perfect
    assert together.excess_between[0] <= 0.0 <= together.excess_between[1]
    assert (together.items, together.clips) == (1800, 150)


def test_few_speakers_let_clips_be_drawn_and_many_speakers_themselves() -> None:
    logits, truth = honest(300, 4)
    few = judge(tempered(logits, 1.0), truth, range(300), [k % 5 for k in range(300)], rounds=20)
    many = judge(tempered(logits, 1.0), truth, range(300), [k % 30 for k in range(300)], rounds=20)
    assert (few.drawn, few.groups) == ("clips", 5)
    assert (many.drawn, many.groups) == ("groups", 30)


def test_bins_hold_equally_many_and_all_items_count_once() -> None:
    logits, truth = honest(307, 6)
    found = judge(tempered(logits, 1.0), truth, range(307), range(307), rounds=5)
    sizes = [one.items for one in found.bins]
    assert sum(sizes) == 307
    assert max(sizes) - min(sizes) <= 1
    assert [b.confidence for b in found.bins] == sorted(b.confidence for b in found.bins)
    recomputed = sum(b.items * abs(b.accuracy - b.confidence) for b in found.bins) / 307
    assert found.error == pytest.approx(recomputed)
    assert found.to_json()["items"] == 307


def test_the_error_of_one_bin_is_the_distance_of_two_means() -> None:
    confidence, right = np.array([0.9, 0.7, 0.8]), np.array([1.0, 0.0, 0.0])
    assert calibration_error(confidence, right, bins=1) == pytest.approx(0.8 - 1 / 3)


def test_the_promised_risk_is_kept_by_people_it_was_not_made_with() -> None:
    logits, truth = honest(4000, 7)
    made = promise(tempered(logits, 1.0), truth, range(4000), 0.8, rounds=50)
    assert made.coverage == pytest.approx(0.8, abs=0.01)
    fresh, fresh_truth = honest(4000, 8)
    held = kept(tempered(fresh, 1.0), fresh_truth, range(4000), np.full(4000, made.threshold), rounds=50)
    assert held.risk_between[0] <= made.risk <= held.risk_between[1]
    assert held.coverage == pytest.approx(0.8, abs=0.03)


def test_the_surer_the_answers_that_are_kept_the_fewer_are_wrong() -> None:
    logits, truth = honest(5000, 9)
    curve = risk_against_coverage(tempered(logits, 1.0), truth, (0.2, 0.5, 0.8, 1.0))
    risks = [risk for _, _, risk in curve]
    assert risks == sorted(risks)
    assert risks[-1] == pytest.approx(float((logits.argmax(axis=1) != truth).mean()))
    thresholds = [threshold for _, threshold, _ in curve]
    assert thresholds == sorted(thresholds, reverse=True)


def test_nothing_kept_is_no_risk_and_no_coverage() -> None:
    scores = tempered(np.zeros((4, 7)), 1.0)
    nothing = kept(scores, np.zeros(4, np.int64), range(4), np.ones(4))
    assert (nothing.coverage, nothing.risk) == (0.0, 0.0)


def test_what_is_no_number_is_refused() -> None:
    scores = tempered(np.zeros((4, 7)), 1.0)
    scores[2, 1] = np.nan
    with pytest.raises(UnfitSamples, match="1 of 4 rows"):
        judge(scores, np.zeros(4, np.int64), range(4), range(4))
