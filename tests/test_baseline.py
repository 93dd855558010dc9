"""What a neutral face and voice say about one person: a bounded shift, statistics, refusals by name."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from liveaffect.calibration.baseline import TERMS, log_softmax, measure_baseline, shift_of, sound_of
from liveaffect.engines.recipe import LABELS, MEL_BANDS, SpeakerStatistics
from liveaffect.realtime.profile import FORMAT, Baseline, BaselineRefused, Side, VoiceStatistics, from_json

FACE = TERMS["face"]
SAD = LABELS.index("sad")


def logits(**raised: float) -> np.ndarray:
    return np.array([raised.get(label, 0.0) for label in LABELS])


def at_rest(**raised: float) -> np.ndarray:
    """A neutral face as the network usually sees one, with labels raised."""
    return np.asarray(logits(neutral=FACE.usual) + logits(**raised))


def test_a_face_like_most_is_left_as_it_is() -> None:
    assert shift_of("face", log_softmax(at_rest()), 5.0) == pytest.approx([0.0] * len(LABELS))


def test_a_label_that_a_face_pretends_is_lowered_and_one_that_it_hides_is_raised() -> None:
    shift = shift_of("face", log_softmax(at_rest(sad=1.5, happy=-1.0)), 5.0)
    trust = 5.0 / (5.0 + FACE.doubt_s)
    assert shift[SAD] == pytest.approx(-1.5 * trust)
    assert shift[LABELS.index("happy")] == pytest.approx(1.0 * trust)
    assert shift[0] == 0.0


def test_a_sad_looking_neutral_face_is_neutral_afterwards_and_a_really_sad_one_still_sad() -> None:
    seems_sad = at_rest(sad=2.5)
    assert seems_sad.argmax() == SAD
    side = measure_baseline("face", "net", [seems_sad] * 60, 5.0)
    assert (seems_sad + side.shift).argmax() == 0
    assert (seems_sad + logits(sad=2.0) + side.shift).argmax() == SAD


@given(st.lists(st.floats(-1e4, 1e4), min_size=len(LABELS), max_size=len(LABELS)), st.floats(0.1, 3600.0))
def test_no_shift_is_larger_than_the_bound_and_little_evidence_moves_less(row: list[float], s: float) -> None:
    mean = log_softmax(np.array(row))
    for modality, terms in TERMS.items():
        shift, longer = shift_of(modality, mean, s), shift_of(modality, mean, 2 * s)
        assert all(math.isfinite(value) and abs(value) <= terms.most for value in shift)
        assert all(abs(a) <= abs(b) + 1e-12 for a, b in zip(shift, longer, strict=True))


def test_only_the_mean_of_single_readings_counts_and_each_counts_alike() -> None:
    some = [at_rest(sad=2.0), at_rest(sad=-2.0)] * 10
    assert measure_baseline("face", "net", some, 5.0).shift[SAD] == pytest.approx(0.0)
    louder = [row + 100.0 for row in some]
    assert measure_baseline("face", "net", louder, 5.0).shift == pytest.approx(
        measure_baseline("face", "net", some, 5.0).shift
    )


def test_too_little_and_numbers_that_are_none_are_refused_by_name() -> None:
    with pytest.raises(BaselineRefused, match="only 3 readings of the face"):
        measure_baseline("face", "net", [at_rest()] * 3, 5.0)
    with pytest.raises(BaselineRefused, match=r"over 1\.0 s; 4 over 2\.0 s are needed"):
        measure_baseline("face", "net", [at_rest()] * 30, 1.0)
    with pytest.raises(BaselineRefused, match="face network gave readings that are no 7 finite numbers"):
        measure_baseline("face", "net", [*[at_rest()] * 30, at_rest(sad=math.nan)], 5.0)
    with pytest.raises(BaselineRefused, match="no 7 finite numbers"):
        measure_baseline("face", "net", [np.zeros(5)] * 30, 5.0)


def a_voice(level: float) -> SpeakerStatistics:
    statistics = SpeakerStatistics.cold()
    for _ in range(40):
        mel = np.full(MEL_BANDS, level)
        statistics.add(32 * mel, 32 * (mel**2 + 3.0), speech=1.0, new=16)
    return statistics


def test_a_known_voice_begins_half_way_and_learns_as_fast_as_an_unknown_one() -> None:
    measured, cold = a_voice(-7.0), SpeakerStatistics.cold()
    begin = sound_of(measured).statistics()
    assert begin.weight == cold.weight
    half = (measured.total / measured.weight + cold.total / cold.weight) / 2
    assert begin.total / begin.weight == pytest.approx(half, rel=1e-4)
    assert np.isfinite(begin.normaliser()[1]).all()


def test_beginning_anew_from_what_a_beginning_gave_changes_nothing_that_was_cold() -> None:
    cold = SpeakerStatistics.cold()
    again = sound_of(cold).statistics()
    for one, other in zip(cold.normaliser(), again.normaliser(), strict=True):
        assert one == pytest.approx(other, rel=1e-4)


A_BASELINE = Baseline(
    {"face": measure_baseline("face", "a1b2c3", [at_rest(sad=1.0)] * 60, 5.0)}, sound_of(a_voice(-4.0))
)


def test_json_holds_numbers_only_and_comes_back() -> None:
    text = json.dumps(A_BASELINE.to_json(), allow_nan=False)
    again = from_json(json.loads(text))
    assert again.to_json() == A_BASELINE.to_json()
    assert len(text) < 3000, "numbers, not pictures or sound"


def without(**changed: Any) -> dict[str, Any]:
    return {**A_BASELINE.to_json(), **changed}


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ([], "does not say its format"),
        (without(format=FORMAT + 1), f"has format {FORMAT + 1}"),
        (without(face=None), "empty"),
        (without(face={"network": "x", "shift": [0.0] * 7}), "something in it is wrong"),
        (without(face={"network": "x", "shift": [0.0] * 6, "seconds": 5}), "a shift has 7 numbers"),
        (without(face={"network": "x", "shift": [9.0] * 7, "seconds": 5}), "a shift lies between"),
        (without(face={"network": "x", "shift": [math.nan] * 7, "seconds": 5}), "a shift lies between"),
        (without(face={"network": "x", "shift": "0" * 7, "seconds": 5}), "no list of numbers"),
        (without(face={"network": "x", "shift": [0.0] * 7, "seconds": math.inf}), "is no length"),
        (without(sound={"mean": [0.0] * 3, "variance": [1.0] * 64, "seconds": 3}), "3 finite numbers"),
        (without(sound={"mean": [0.0] * 64, "variance": [-1.0] * 64, "seconds": 3}), "variance is positive"),
        (
            without(sound={"mean": [0.0] * 64, "variance": [1.0] * 64, "seconds": 1e9}),
            "the time it was heard",
        ),
        (without(picture="abc"), "it holds picture"),
    ],
)
def test_a_damaged_or_newer_one_is_refused_by_name(content: object, says: str) -> None:
    with pytest.raises(BaselineRefused, match=says):
        from_json(content)


def test_one_of_another_network_is_refused_by_name() -> None:
    A_BASELINE.check({"face": "a1b2c3", "voice": "whatever"})
    A_BASELINE.check({})
    with pytest.raises(BaselineRefused, match="another face network"):
        A_BASELINE.check({"face": "ffffff"})


def test_an_empty_one_cannot_be_made() -> None:
    with pytest.raises(BaselineRefused, match="empty"):
        Baseline({}, sound_of(a_voice(-4.0)))
    assert Side("n", (0.0,) * 7, 5.0).seconds == 5.0
    assert VoiceStatistics((0.0,) * 64, (1.0,) * 64, 2.0).seconds == 2.0
