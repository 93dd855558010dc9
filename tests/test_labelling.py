"""A shown label does not flicker where two are close, and old evidence vanishes instead of sticking."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from liveaffect.engines.recipe import LABELS, SUBSETS
from liveaffect.realtime.clock import MS, SECOND
from liveaffect.realtime.cue import NOT_SURE, Scores
from liveaffect.realtime.estimate import UNKNOWN, Estimate, Labeller, LabelSettings, Opinion, checked
from liveaffect.realtime.expression import Pooled

SETTINGS = LabelSettings()
STEP_NS = 100 * MS


def scores(**given: float) -> Scores:
    """A distribution with the named probabilities, the rest shared out evenly."""
    rest = (1.0 - sum(given.values())) / (len(LABELS) - len(given))
    return tuple(given.get(label, rest) for label in LABELS)


distributions = (
    st.lists(st.floats(0, 1), min_size=7, max_size=7)
    .filter(lambda raw: sum(raw) > 0.1)
    .map(lambda raw: tuple(x / math.fsum(raw) for x in raw))
)


def opinion(answer: Scores, at_ns: int) -> Opinion:
    pooled = Pooled(np.zeros(2, np.float32), np.log(np.maximum(answer, 1e-9)).astype(np.float32))
    return Opinion(at_ns, pooled, pooled)


def estimate(at_ns: int, answer: Scores | None, *, seen_ns: int | None = None) -> Estimate:
    """Of a face that says the same as the joint answer."""
    if answer is None:
        return Estimate(at_ns, 1)
    logits = np.zeros((len(SUBSETS), len(LABELS)))
    logits[SUBSETS.index("face")] = np.log(np.maximum(answer, 1e-9))
    face = opinion(answer, at_ns if seen_ns is None else seen_ns)
    return Estimate(at_ns, 1, face, evidence_ns=SECOND, logits=logits, shares=(1.0, 0.0, 0.0))


def labels(labeller: Labeller, script: list[Scores]) -> list[str]:
    return [labeller.label(estimate(k * STEP_NS, answer)).label for k, answer in enumerate(script)]


@given(st.lists(st.tuples(st.integers(0, 700), distributions), min_size=1, max_size=30))
def test_whatever_comes_the_shown_scores_sum_to_one(feed: list[tuple[int, Scores]]) -> None:
    labeller, now_ns = Labeller(), 0
    for pause_ms, answer in feed:
        now_ns += pause_ms * MS
        shown = labeller.label(estimate(now_ns, answer))
        assert math.fsum(shown.scores) == pytest.approx(1.0, abs=1e-9)
        assert min(shown.scores) >= 0.0
        assert (shown.label == NOT_SURE) == (shown.reason is not None)


def test_a_clear_change_is_shown_at_once() -> None:
    assert labels(Labeller(), [scores(sad=0.9), scores(happy=0.9)]) == ["sad", "happy"]


@given(st.integers(0, 1_000))
def test_two_labels_that_take_turns_by_noise_flip_less_than_the_scores(seed: int) -> None:
    noise = np.random.default_rng(seed).normal(0, 0.03, 100)
    labeller = Labeller(replace(SETTINGS, threshold=0.0, close=0.0))
    said = labels(labeller, [scores(happy=0.45 + x, sad=0.45 - x) for x in noise])
    flips = sum(a != b for a, b in itertools.pairwise(said))
    raw_flips = sum((a < 0) != (b < 0) for a, b in itertools.pairwise(noise))
    assert flips <= 0.5 * raw_flips
    assert set(said) <= {"happy", "sad"}


def test_a_confidence_that_wavers_around_the_threshold_does_not_flicker() -> None:
    labeller = Labeller()
    low, high = SETTINGS.threshold - 0.01, SETTINGS.threshold + 0.01
    said = labels(labeller, [scores(happy=0.6), *[scores(happy=low if k % 2 else high) for k in range(29)]])
    assert set(said) == {"happy"}
    assert labels(labeller, [scores(happy=0.35)]) == [NOT_SURE]
    assert set(labels(labeller, [scores(happy=low)] * 20)) == {NOT_SURE}


def test_a_face_that_stays_away_fades_and_vanishes_instead_of_sticking() -> None:
    clear = scores(happy=0.8)
    labeller = Labeller()
    shown = [labeller.label(estimate(at_ms * MS, clear, seen_ns=0)) for at_ms in range(0, 700, 100)]
    happy = [one.scores[LABELS.index("happy")] for one in shown]
    assert happy[:4] == pytest.approx([0.8] * 4)
    assert happy[4] == pytest.approx(0.5 * 0.8 + 0.5 / 7)
    assert happy[5:] == pytest.approx([1 / 7] * 2)
    assert [one.reason for one in shown[5:]] == ["no face or voice"] * 2


def test_a_voice_keeps_an_answer_alive_when_the_face_is_gone() -> None:
    clear = scores(happy=0.8)
    both = replace(estimate(SECOND, clear, seen_ns=0), voice=opinion(clear, 0))
    assert Labeller().label(both).label == "happy"


def test_after_a_gap_nothing_of_before_is_held_on_to() -> None:
    labeller = Labeller(replace(SETTINGS, threshold=0.0, close=0.0))
    labels(labeller, [scores(sad=0.9)])
    assert labeller.label(estimate(STEP_NS, None)).scores == UNKNOWN
    assert labels(labeller, [scores(happy=0.46, sad=0.44)]) == ["happy"]


def test_scores_that_make_no_sense_are_refused_by_name() -> None:
    broken = list(scores())
    broken[LABELS.index("fearful")] = math.nan
    with pytest.raises(ValueError, match="'fearful' is nan"):
        checked(tuple(broken))
    with pytest.raises(ValueError, match="'neutral' is -0"):
        checked((-0.5, 1.5, 0, 0, 0, 0, 0))
    with pytest.raises(ValueError, match=r"sum to 0\.5"):
        checked((0.5, 0, 0, 0, 0, 0, 0))
    with pytest.raises(ValueError, match="7 entries, got 3"):
        checked((0.5, 0.25, 0.25))


def test_settings_that_make_no_sense_are_refused_by_name() -> None:
    with pytest.raises(ValueError, match="little_face_ms"):
        LabelSettings(little_face_ms=-1)
    with pytest.raises(ValueError, match="little_voice_ms"):
        LabelSettings(little_voice_ms=math.nan)


def test_a_voice_alone_must_be_surer_of_a_mood_than_of_plain_talk_and_a_face_need_not() -> None:
    def said(of: str, answer: Scores) -> str:
        one, two = estimate(0, answer), np.zeros((len(SUBSETS), len(LABELS)))
        two[SUBSETS.index("voice")] = np.log(np.maximum(answer, 1e-9))
        heard = replace(one, face=None, voice=one.face, logits=two, shares=(0.0, 1.0, 0.0))
        return Labeller().label(one if of == "face" else heard).label

    enough = SETTINGS.threshold + SETTINGS.lively_price / 2
    assert said("voice", scores(neutral=enough)) == "neutral"
    assert said("voice", scores(sad=enough)) == NOT_SURE
    assert said("voice", scores(sad=enough + SETTINGS.lively_price)) == "sad"
    assert said("face", scores(sad=enough)) == "sad"
