"""Answers are steadied by time and not by calls, labels do not flicker, and doubt comes with its reason."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from liveaffect.engines.recipe import LABELS
from liveaffect.realtime.clock import MS, SECOND
from liveaffect.realtime.cue import NOT_SURE, Reading, Scores
from liveaffect.realtime.smoothing import (
    Circumstances,
    LabelSmoother,
    Shown,
    SmoothingSettings,
    checked,
    freshness,
)

SETTINGS = SmoothingSettings()
STEP_NS = 100 * MS
PLAIN = Circumstances()


def scores(**given: float) -> Scores:
    """A distribution with the named probabilities, the rest shared out evenly."""
    rest = (1.0 - sum(given.values())) / (len(LABELS) - len(given))
    return tuple(given.get(label, rest) for label in LABELS)


distributions = (
    st.lists(st.floats(0, 1), min_size=7, max_size=7)
    .filter(lambda raw: sum(raw) > 0.1)
    .map(lambda raw: tuple(x / math.fsum(raw) for x in raw))
)


def reading(answer: Scores, at_ns: int, quality: float = 1.0, weakness: str | None = None) -> Reading:
    return Reading(at_ns, answer, quality, weakness)


def step(
    steady: LabelSmoother,
    at_ns: int,
    raw: Scores | None,
    *,
    evidence_ns: int = 5 * SECOND,
    circumstances: Circumstances = PLAIN,
) -> Shown:
    """One step with a fresh face that says the same as the fused scores."""
    face = None if raw is None else reading(raw, at_ns)
    return steady.step(
        at_ns, raw, face=face, voice=None, evidence_ns=evidence_ns, circumstances=circumstances
    )


# --- the average -------------------------------------------------------------------------------------


@given(st.lists(st.tuples(st.integers(0, 700), distributions), min_size=1, max_size=30))
def test_whatever_comes_in_the_shown_scores_sum_to_one(feed: list[tuple[int, Scores]]) -> None:
    steady, now_ns = LabelSmoother(), 0
    for pause_ms, raw in feed:
        now_ns += pause_ms * MS
        shown = step(steady, now_ns, raw)
        assert math.fsum(shown.scores) == pytest.approx(1.0, abs=1e-9)
        assert min(shown.scores) >= 0.0
        assert (shown.label == NOT_SURE) == (shown.reason is not None)


@given(distributions, st.lists(st.integers(0, 1_000), min_size=1, max_size=20))
def test_a_constant_input_stays_as_it_is(raw: Scores, pauses_ms: list[int]) -> None:
    steady, now_ns = LabelSmoother(), 0
    for pause_ms in pauses_ms:
        now_ns += pause_ms * MS
        assert step(steady, now_ns, raw).scores == pytest.approx(raw, abs=1e-9)


@given(distributions, distributions, st.sampled_from(range(7)), st.integers(0, 1_000))
def test_a_label_that_wins_before_and_now_wins_after_smoothing(
    before: Scores, after: Scores, winner: int, pause_ms: int
) -> None:
    steady = LabelSmoother()
    step(steady, 0, won_by(winner, before))
    shown = step(steady, pause_ms * MS, won_by(winner, after)).scores
    assert max(shown) == shown[winner]


def won_by(winner: int, answer: Scores) -> Scores:
    """The same, with one more vote than all others together."""
    return tuple(0.49 * x + 0.51 * (i == winner) for i, x in enumerate(answer))


@given(distributions, distributions, st.integers(1, 40))
def test_ten_steps_of_ten_milliseconds_are_one_of_a_hundred(
    before: Scores, after: Scores, parts: int
) -> None:
    often, once = LabelSmoother(), LabelSmoother()
    step(often, 0, before)
    step(once, 0, before)
    shown = [step(often, k * 10 * MS, after) for k in range(1, parts + 1)]
    assert shown[-1].scores == pytest.approx(step(once, parts * 10 * MS, after).scores, abs=1e-9)


def test_the_stated_delay_is_the_measured_one() -> None:
    steady = LabelSmoother()
    lags = []
    for k in range(60):
        happy = k / 100
        shown = step(steady, k * STEP_NS, scores(happy=happy)).scores[LABELS.index("happy")]
        lags.append((happy - shown) / 0.01 * 100)  # a ramp of 0.01 a step of 100 ms
    assert lags[-1] == pytest.approx(steady.delay_ms, rel=1e-3)
    assert 90 < steady.delay_ms < 120


def test_no_smoothing_has_no_delay() -> None:
    steady = LabelSmoother(SmoothingSettings(time_constant_ms=0.0))
    step(steady, 0, scores(sad=0.9))
    assert steady.delay_ms == 0.0
    assert step(steady, STEP_NS, scores(happy=0.9)).scores == pytest.approx(scores(happy=0.9))


def test_time_that_goes_back_changes_nothing() -> None:
    steady = LabelSmoother()
    before = step(steady, SECOND, scores(sad=0.9))
    assert step(steady, SECOND // 2, scores(happy=0.9)).scores == pytest.approx(before.scores)


# --- the label ---------------------------------------------------------------------------------------


def test_a_clear_change_is_shown_within_three_steps() -> None:
    steady = LabelSmoother()
    for k in range(10):
        step(steady, k * STEP_NS, scores(sad=0.9))
    labels = [step(steady, k * STEP_NS, scores(happy=0.9)).label for k in range(10, 14)]
    assert labels[0] == "sad" or labels[0] == NOT_SURE
    assert labels[2:] == ["happy", "happy"]


def test_one_wrong_picture_does_not_change_the_label() -> None:
    steady = LabelSmoother()
    for k in range(10):
        step(steady, k * STEP_NS, scores(sad=0.8))
    assert step(steady, 10 * STEP_NS, scores(happy=0.7)).label == "sad"
    assert step(steady, 11 * STEP_NS, scores(sad=0.8)).label == "sad"


@given(st.integers(0, 1_000))
def test_two_labels_that_take_turns_by_noise_flip_at_most_twice_a_second(seed: int) -> None:
    noise = np.random.default_rng(seed).normal(0, 0.04, 100)
    steady = LabelSmoother(replace(SETTINGS, threshold=0.0, close=0.0))
    raw = [scores(happy=0.45 + x, sad=0.45 - x) for x in noise]
    labels = [step(steady, k * STEP_NS, answer).label for k, answer in enumerate(raw)]
    flips = sum(a != b for a, b in itertools.pairwise(labels))
    raw_flips = sum((a < 0) != (b < 0) for a, b in itertools.pairwise(noise))
    assert flips <= min(20, 0.5 * raw_flips)
    assert set(labels) <= {"happy", "sad"}


def test_a_small_lead_wins_when_it_lasts() -> None:
    steady = LabelSmoother()
    for k in range(10):
        step(steady, k * STEP_NS, scores(sad=0.5, happy=0.4))
    labels = [step(steady, k * STEP_NS, scores(sad=0.45, happy=0.5)).label for k in range(10, 22)]
    assert labels[0] == "sad"
    assert labels[-1] == "happy"


def test_a_confidence_that_wavers_around_the_threshold_does_not_flicker() -> None:
    steady = LabelSmoother()
    low, high = SETTINGS.threshold - 0.01, SETTINGS.threshold + 0.01
    step(steady, 0, scores(happy=0.6))
    labels = [step(steady, k * STEP_NS, scores(happy=low if k % 2 else high)).label for k in range(1, 30)]
    assert set(labels) == {"happy"}
    gone = [step(steady, k * STEP_NS, scores(happy=0.35)).label for k in range(30, 40)]
    assert gone[-1] == NOT_SURE
    back = [step(steady, k * STEP_NS, scores(happy=low)).label for k in range(40, 60)]
    assert set(back) == {NOT_SURE}


# --- age ---------------------------------------------------------------------------------------------

CLEAR = scores(happy=0.8)


def test_weights_go_down_in_a_straight_line_and_stay_at_nothing() -> None:
    face = [freshness(age * MS, 300, 500) for age in (0, 300, 350, 400, 450, 500, 900)]
    assert face == pytest.approx([1, 1, 0.75, 0.5, 0.25, 0, 0])
    assert freshness(-50 * MS, 300, 500) == 1.0


def test_a_face_that_stays_away_fades_and_vanishes_instead_of_sticking() -> None:
    steady = LabelSmoother()
    face = reading(CLEAR, 0)
    shown = [
        steady.step(at_ms * MS, CLEAR, face=face, voice=None, evidence_ns=SECOND, circumstances=PLAIN)
        for at_ms in range(0, 700, 100)
    ]
    happy = [s.scores[LABELS.index("happy")] for s in shown]
    assert happy[:4] == pytest.approx([0.8] * 4)
    assert happy[4] < 0.8
    assert happy[5:] == pytest.approx([1 / 7] * 2)
    assert [s.reason for s in shown[5:]] == ["no face or voice"] * 2


def test_a_voice_keeps_an_answer_alive_when_the_face_is_gone() -> None:
    steady = LabelSmoother()
    shown = steady.step(
        SECOND,
        CLEAR,
        face=reading(CLEAR, 0),
        voice=reading(CLEAR, 0),
        evidence_ns=SECOND,
        circumstances=PLAIN,
    )
    assert shown.label == "happy"


def test_after_a_gap_nothing_of_before_is_left() -> None:
    steady = LabelSmoother()
    for k in range(10):
        step(steady, k * STEP_NS, scores(sad=0.9))
    step(steady, 10 * STEP_NS, None)
    assert step(steady, 11 * STEP_NS, scores(happy=0.9)).scores == pytest.approx(scores(happy=0.9))


# --- refusal -----------------------------------------------------------------------------------------


def test_scores_that_make_no_sense_are_refused_by_name() -> None:
    broken = list(scores())
    broken[LABELS.index("fearful")] = math.nan
    with pytest.raises(ValueError, match="'fearful' is nan"):
        step(LabelSmoother(), 0, tuple(broken))
    with pytest.raises(ValueError, match="'neutral' is -0"):
        checked((-0.5, 1.5, 0, 0, 0, 0, 0))
    with pytest.raises(ValueError, match=r"sum to 0\.5"):
        checked((0.5, 0, 0, 0, 0, 0, 0))
    with pytest.raises(ValueError, match="7 entries, got 3"):
        checked((0.5, 0.25, 0.25))


def test_settings_that_make_no_sense_are_refused_by_name() -> None:
    with pytest.raises(ValueError, match="patience_ms"):
        SmoothingSettings(patience_ms=-1)
    with pytest.raises(ValueError, match="time_constant_ms"):
        SmoothingSettings(time_constant_ms=math.nan)
    with pytest.raises(ValueError, match="face reading fades before it expires"):
        SmoothingSettings(face_fades_ms=600)
