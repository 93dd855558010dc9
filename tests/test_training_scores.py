"""Scores are what their names say, checked against counting by hand and against scipy's rank test."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import mannwhitneyu

from liveaffect.engines.recipe import LABELS
from liveaffect.engines.training.scores import area_under_curve, confusion, macro_f1, score, to_markdown

TRUTH = np.array([0, 0, 0, 0, 1, 1, 2, 2])
SAID = np.array([0, 0, 0, 1, 1, 2, 2, 2])


def certain(said: NDArray[np.integer], count: int = 3) -> NDArray[np.float64]:
    return np.asarray(np.eye(count)[said], np.float64)


def test_the_figures_are_those_counted_by_hand() -> None:
    found = score(TRUTH, certain(SAID))
    assert found.items == 8
    assert found.accuracy == pytest.approx(6 / 8)
    assert found.recall == pytest.approx((3 / 4, 1 / 2, 1.0))
    assert found.precision == pytest.approx((1.0, 1 / 2, 2 / 3))
    assert found.unweighted_recall == pytest.approx((3 / 4 + 1 / 2 + 1.0) / 3)
    assert found.macro_f1 == pytest.approx((6 / 7 + 1 / 2 + 4 / 5) / 3)
    assert found.confusion == ((3, 1, 0), (0, 1, 1), (0, 0, 2))


def test_saying_the_commonest_label_always_has_a_poor_unweighted_recall() -> None:
    truth = np.array([0] * 90 + [1] * 10)
    found = score(truth, certain(np.zeros(100, int), 2))
    assert found.accuracy == pytest.approx(0.9)
    assert found.unweighted_recall == pytest.approx(0.5)


def test_a_label_that_never_occurs_counts_neither_for_nor_against() -> None:
    found = score(np.array([0, 1]), certain(np.array([0, 1])))
    assert found.recall == (1.0, 1.0, None)
    assert found.unweighted_recall == 1.0
    assert found.auc[2] is None
    assert macro_f1(confusion(np.array([0, 1]), np.array([0, 1]), 3)) == 1.0


def test_the_area_is_that_of_the_rank_test_also_with_ties() -> None:
    rng = np.random.default_rng(0)
    positive = rng.random(200) < 0.3
    scores = np.round(rng.normal(size=200) + positive, 1)
    wanted = mannwhitneyu(scores[positive], scores[~positive]).statistic / (
        positive.sum() * (~positive).sum()
    )
    assert area_under_curve(positive, scores) == pytest.approx(wanted)


def test_the_interval_holds_the_figure_and_grows_when_whole_speakers_are_drawn() -> None:
    rng = np.random.default_rng(1)
    speaker = np.repeat(np.arange(10), 60)
    right = rng.random(600) < np.where(speaker < 5, 0.95, 0.4)
    truth = rng.integers(0, 3, 600)
    said = np.where(right, truth, (truth + 1) % 3)
    alone, grouped = (score(truth, certain(said), groups=g) for g in (None, [str(s) for s in speaker]))
    for found in (alone, grouped):
        assert found.accuracy_between[0] < found.accuracy < found.accuracy_between[1]
    assert np.ptp(grouped.accuracy_between) > 2 * np.ptp(alone.accuracy_between)


def test_the_same_scores_give_the_same_interval() -> None:
    assert score(TRUTH, certain(SAID)) == score(TRUTH, certain(SAID))


def test_scores_that_are_no_numbers_and_other_lengths_are_refused() -> None:
    broken = certain(SAID)
    broken[3] = np.nan
    with pytest.raises(ValueError, match="1 items have scores that are no numbers"):
        score(TRUTH, broken)
    with pytest.raises(ValueError, match="8 truths and 7 scores"):
        score(TRUTH, certain(SAID[:7]))


def test_the_tables_name_every_label_and_show_a_dash_where_nothing_was() -> None:
    text = to_markdown(score(TRUTH, certain(SAID, 7)))
    assert all(f"| {label} |" in text for label in LABELS)
    assert "| surprised | 0 | 0 | 0 | 0 | 0 | 0 | 0 | - | - | - |" in text
