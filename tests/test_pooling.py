"""The running sums are the batch average, at every moment, whatever came before."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from liveaffect.realtime.clock import MS, SECOND
from liveaffect.realtime.expression import Evidence, Forgetting, pool, weighted_score

HALF_LIFE_NS = 8 * SECOND


def evidence(at_ns: int, score: float, seed: int) -> Evidence:
    rng = np.random.default_rng(seed)
    return Evidence(
        at_ns, rng.normal(size=64).astype(np.float32), rng.normal(size=7).astype(np.float32), score
    )


steps = st.lists(st.tuples(st.integers(1, 900), st.floats(-30, 30)), min_size=1, max_size=40)


def as_evidence(script: list[tuple[int, float]]) -> list[Evidence]:
    at_ns, items = 0, []
    for i, (step_ms, score) in enumerate(script):
        at_ns += step_ms * MS
        items.append(evidence(at_ns, score, i))
    return items


@given(steps)
@settings(max_examples=60, deadline=None)
def test_forgetting_sums_equal_the_batch_form_after_every_item(script: list[tuple[int, float]]) -> None:
    running = Forgetting(HALF_LIFE_NS)
    items = as_evidence(script)
    for count, item in enumerate(items, start=1):
        running.add(item)
        got, want = running.read(), pool(items[:count], HALF_LIFE_NS)
        assert got is not None
        np.testing.assert_allclose(got.vector, want.vector, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(got.logits, want.logits, rtol=1e-5, atol=1e-6)


def test_sums_stay_finite_through_a_day_of_extreme_scores() -> None:
    running = Forgetting(HALF_LIFE_NS)
    for second in range(0, 24 * 3600, 97):
        running.add(evidence(second * SECOND, 60.0 if second % 2 else -60.0, second))
    pooled = running.read()
    assert pooled is not None
    assert np.isfinite(pooled.vector).all()


def test_an_item_a_half_life_older_weighs_half() -> None:
    old = Evidence(0, np.ones(64, np.float32), np.zeros(7, np.float32), 0.0)
    new = Evidence(HALF_LIFE_NS, np.zeros(64, np.float32), np.zeros(7, np.float32), 0.0)
    np.testing.assert_allclose(pool([old, new], HALF_LIFE_NS).vector, 1 / 3, rtol=1e-6)


def test_evidence_of_which_nothing_counts_moves_nothing() -> None:
    running = Forgetting(HALF_LIFE_NS)
    running.add(evidence(SECOND, 0.0, 1))
    before = running.read()
    running.add(evidence(SECOND, weighted_score(0.0, 0.0), 2))
    after = running.read()
    assert before is not None
    assert after is not None
    np.testing.assert_allclose(after.vector, before.vector, atol=1e-4)


def test_pooling_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="no evidence"):
        pool([], None)
