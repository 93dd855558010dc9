"""The running sums are the batch average, at every moment, whatever came before."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from liveaffect.realtime.clock import MS, SECOND
from liveaffect.realtime.pooling import Evidence, Forgetting, Memory, Window, pool, weighted_score

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


@given(steps)
@settings(max_examples=60, deadline=None)
def test_a_window_holds_exactly_the_items_of_its_length(script: list[tuple[int, float]]) -> None:
    window = Window(2 * SECOND)
    items = as_evidence(script)
    for count, item in enumerate(items, start=1):
        window.add(item)
        inside = [i for i in items[:count] if i.captured_ns > item.captured_ns - 2 * SECOND]
        got, want = window.read(item.captured_ns), pool(inside, None)
        assert got is not None
        np.testing.assert_allclose(got.vector, want.vector, rtol=1e-4, atol=1e-5)
        assert len(window) == len(inside)


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
    memory = Memory(2 * SECOND)
    memory.add(evidence(SECOND, 0.0, 1), 200 * MS)
    before = memory.read(SECOND)
    silent = evidence(SECOND, weighted_score(0.0, 0.0), 2)
    memory.add(silent, 0)
    after = memory.read(SECOND)
    assert before is not None
    assert after is not None
    np.testing.assert_allclose(after[0].vector, before[0].vector, atol=1e-4)
    assert memory.evidence_ns == 200 * MS


def test_pooling_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="no evidence"):
        pool([], None)


def test_a_memory_whose_window_is_empty_says_nothing() -> None:
    memory = Memory(2 * SECOND)
    assert memory.read(0) is None
    memory.add(evidence(0, 0.0, 1), 0)
    assert memory.read(SECOND) is not None
    assert memory.read(2 * SECOND) is None
