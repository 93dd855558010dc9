"""What is shown follows evidence that changes for good, and is not moved by evidence that repeats itself."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from liveaffect.engines.recipe import LABELS
from liveaffect.realtime.clock import MS, SECOND
from liveaffect.realtime.expression import (
    FACE,
    FIRST_SHARE,
    VOICE,
    Dynamics,
    Evidence,
    Expression,
    Memory,
    Rest,
)

FRAME_NS = 33 * MS
NEUTRAL, HAPPY, SAD = 0, 1, 2


def logits(label: int, certainty: float = 4.0) -> NDArray[np.float32]:
    return np.asarray(certainty * np.eye(len(LABELS))[label], np.float32)


def look(at_ns: int, said: NDArray[np.float32], score: float = 0.0, share: float = 1.0) -> Evidence:
    return Evidence(at_ns, np.full(3, at_ns / SECOND, np.float32), said, score, share)


def seen(script: list[NDArray[np.float32]], step_ns: int = FRAME_NS, dynamics: Dynamics = FACE) -> Expression:
    expression = Expression(dynamics)
    for k, said in enumerate(script):
        expression.add(look(k * step_ns, said))
    return expression


def shown(expression: Expression) -> NDArray[np.float64]:
    pooled = expression.read()
    assert pooled is not None
    raised = pooled.logits.astype(np.float64) / FACE.temperature
    powers = np.exp(raised - raised.max())
    return np.asarray(powers / powers.sum())


def looks_until(expression: Expression, said: NDArray[np.float32], at: int, step_ns: int) -> int:
    """How many looks it takes until what they say is shown."""
    for count in range(1, 200):
        expression.add(look((at + count) * step_ns, said))
        if int(shown(expression).argmax()) == int(said.argmax()):
            return count
    raise AssertionError("it was never shown")


@pytest.mark.parametrize("rest_s", [1, 10, 120])
def test_a_clear_change_is_followed_within_four_looks_however_long_it_was_otherwise(rest_s: int) -> None:
    expression = seen([logits(NEUTRAL)] * (rest_s * SECOND // FRAME_NS))
    assert looks_until(expression, logits(HAPPY), rest_s * SECOND // FRAME_NS, FRAME_NS) <= 4


def test_at_ten_pictures_a_second_two_looks_are_enough() -> None:
    expression = seen([logits(NEUTRAL)] * 30, 100 * MS)
    assert looks_until(expression, logits(HAPPY), 30, 100 * MS) <= 2


def test_one_odd_look_changes_nothing() -> None:
    for odd in (HAPPY, SAD):
        expression = seen([logits(NEUTRAL)] * 30 + [logits(odd)])
        assert int(shown(expression).argmax()) == NEUTRAL
        expression.add(look(31 * FRAME_NS, logits(NEUTRAL)))
        assert shown(expression)[NEUTRAL] > 0.9


def test_unclear_looks_need_more_of_them_than_clear_ones() -> None:
    taken = [
        looks_until(seen([logits(NEUTRAL)] * 30), logits(HAPPY, certainty), 30, FRAME_NS)
        for certainty in (1.0, 2.0, 4.0, 8.0)
    ]
    assert taken == sorted(taken, reverse=True)
    assert taken[0] > taken[-1]


def test_after_a_change_nothing_of_before_is_left_and_sums_rest_on_the_looks_since() -> None:
    change = 40
    expression = seen([logits(NEUTRAL)] * change + [logits(HAPPY)] * 10)
    pooled = expression.read()
    assert pooled is not None
    since = np.mean([k * FRAME_NS / SECOND for k in range(change, change + 10)])
    assert pooled.vector[0] == pytest.approx(since, abs=0.05)
    np.testing.assert_allclose(pooled.logits, logits(HAPPY), atol=0.1)


def test_looks_of_the_same_moment_do_not_add_certainty() -> None:
    often, once = Expression(FACE), Expression(FACE)
    for expression, count in ((often, 60), (once, 1)):
        for k in range(count):
            expression.add(look(k * MS // 100, logits(HAPPY, 1.0)))
    certain = [expression.read() for expression in (often, once)]
    assert certain[0] is not None
    assert certain[1] is not None
    np.testing.assert_allclose(certain[0].logits, certain[1].logits, atol=1e-3)
    # Nor do they make the next label wait: it is as quickly there as after one look.
    waits = [looks_until(expression, logits(SAD), 1, FRAME_NS) for expression in (often, once)]
    assert waits[0] <= waits[1] + 1


@given(st.integers(1, 30), st.integers(2, 8))
def test_a_second_of_looks_tells_about_as_much_at_any_rate(first: int, times: int) -> None:
    slow_ns, fast_ns = first * MS, first * MS // times
    slow = FACE.told(slow_ns)
    fast = sum(FACE.told(fast_ns) for _ in range(times))
    assert slow == pytest.approx(fast, rel=0.06)


def test_a_look_counts_less_the_closer_it_is_and_never_more_than_one() -> None:
    told = [FACE.told(ms * MS) for ms in range(0, 1_000, 7)]
    assert told == sorted(told)
    assert 0 < told[0] < 0.01
    assert told[-1] == pytest.approx(1.0, abs=1e-3)
    assert FACE.told(-5) == told[0]


def test_what_is_shown_is_the_average_over_all_histories() -> None:
    rng = np.random.default_rng(3)
    script = [np.asarray(rng.normal(0, 2, len(LABELS)), np.float32) for _ in range(4)]
    expression = seen(script, 40 * MS)
    pooled = expression.read()
    assert pooled is not None
    np.testing.assert_allclose(pooled.logits, by_all_histories(script, 40 * MS), atol=1e-5)


def by_all_histories(script: list[NDArray[np.float32]], step_ns: int) -> NDArray[np.float64]:
    """The mean since the last change of label, over every sequence of labels there could have been."""
    told = [FIRST_SHARE, *[FACE.told(step_ns)] * (len(script) - 1)]
    stay = math.exp(-step_ns / FACE.dwell_ns)
    change = (1 - stay) / (len(LABELS) - 1)
    keep = math.exp(-step_ns / FACE.memory_ns)
    total, chance_of_all = np.zeros(len(LABELS)), 0.0
    for labels in itertools.product(range(len(LABELS)), repeat=len(script)):
        chance = 1 / len(LABELS)
        begun = 0
        for k, label in enumerate(labels):
            if k and label != labels[k - 1]:
                begun, chance = k, chance * change
            elif k:
                chance *= stay
            chance *= math.exp(told[k] * float(script[k][label]) / FACE.temperature)
            chance /= math.exp(told[k] * float(script[k].max()) / FACE.temperature)
        weights = np.array([told[k] * keep ** (len(script) - 1 - k) for k in range(begun, len(script))])
        total += chance * (weights / weights.sum()) @ np.array(script[begun:], np.float64)
        chance_of_all += chance
    return total / chance_of_all


@given(st.lists(st.tuples(st.integers(0, 900), st.floats(-20, 20), st.floats(0, 1)), min_size=1, max_size=60))
@settings(max_examples=60, deadline=None)
def test_whatever_comes_it_stays_finite_and_between_what_was_said(
    script: list[tuple[int, float, float]],
) -> None:
    expression, at_ns = Expression(FACE), 0
    said = []
    for k, (pause_ms, score, share) in enumerate(script):
        at_ns += pause_ms * MS
        said.append(logits(k % 7, 20.0))
        expression.add(look(at_ns, said[-1], score, share))
        pooled = expression.read()
        assert pooled is not None
        assert np.isfinite(pooled.logits).all()
        assert pooled.logits.min() >= np.min(said) - 1e-3
        assert pooled.logits.max() <= np.max(said) + 1e-3


def test_a_day_costs_no_more_memory_than_a_minute() -> None:
    expression = Expression(FACE)
    for k in range(2_000):
        expression.add(look(k * FRAME_NS, logits(k // 400 % 7)))
    assert len(expression._begun_ns) <= FACE.memory_ns // FRAME_NS + 3
    assert len(expression._belief) < 200


def test_looks_that_come_out_of_order_do_not_turn_time_back() -> None:
    expression = seen([logits(NEUTRAL)] * 20)
    expression.add(look(3 * FRAME_NS, logits(HAPPY)))
    assert int(shown(expression).argmax()) == NEUTRAL


def test_a_poor_look_moves_less_than_a_good_one() -> None:
    answers = []
    for share in (0.05, 1.0):
        expression = seen([logits(NEUTRAL)] * 30)
        for k in range(3):
            expression.add(look((30 + k) * FRAME_NS, logits(HAPPY), share=share))
        answers.append(shown(expression)[HAPPY])
    assert answers[0] < 0.05 < answers[1]


def test_nothing_seen_is_nothing_shown() -> None:
    assert Expression(VOICE).read() is None
    assert Memory(VOICE).read() is None


def test_a_memory_counts_what_it_was_given_and_keeps_the_newest_time() -> None:
    memory = Memory(FACE, rest=Rest(FACE.temperature))
    memory.add(look(SECOND, logits(HAPPY)), 0)
    memory.add(look(SECOND + FRAME_NS, logits(HAPPY)), FRAME_NS)
    assert (memory.newest_ns, memory.evidence_ns) == (SECOND + FRAME_NS, FRAME_NS)
    assert memory.read() is not None


def test_dynamics_that_make_no_sense_are_refused() -> None:
    with pytest.raises(ValueError, match="positive"):
        Dynamics(0, SECOND, SECOND, 1.0)
    with pytest.raises(ValueError, match="positive"):
        Dynamics(MS, SECOND, SECOND, 0.0)
