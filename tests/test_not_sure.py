"""Where nothing can be claimed, it says why, and of several reasons always the same one first."""

from __future__ import annotations

import pytest

from liveaffect.engines.recipe import LABELS
from liveaffect.realtime.clock import MS, SECOND
from liveaffect.realtime.cue import NOT_SURE, Reading, Scores
from liveaffect.realtime.smoothing import (
    Basis,
    Circumstances,
    LabelSmoother,
    Reason,
    SmoothingSettings,
    decide_label,
)

SETTINGS = SmoothingSettings()
PLAIN = Circumstances()


def scores(**given: float) -> Scores:
    """A distribution with the named probabilities, the rest shared out evenly."""
    rest = (1.0 - sum(given.values())) / (len(LABELS) - len(given))
    return tuple(given.get(label, rest) for label in LABELS)


def reading(answer: Scores, at_ns: int, quality: float = 1.0, weakness: str | None = None) -> Reading:
    return Reading(at_ns, answer, quality, weakness)


def why(
    fused: Scores | None,
    face: Reading | None = None,
    voice: Reading | None = None,
    *,
    evidence_ns: int = 5 * SECOND,
    circumstances: Circumstances = PLAIN,
) -> str:
    leading = LABELS[0] if fused is None else LABELS[max(range(7), key=fused.__getitem__)]
    basis = Basis(face, voice, evidence_ns, circumstances)
    label, _, reason = decide_label(fused, basis, SETTINGS, leading=leading, shown=False)
    assert (label == NOT_SURE) == (reason is not None)
    return label if reason is None else str(reason)


UNCLEAR, CLEAR = scores(happy=0.35, sad=0.34), scores(happy=0.8)


def test_with_nothing_to_go_by_it_says_what_is_missing() -> None:
    assert why(None) == "no face or voice"
    assert why(None, circumstances=Circumstances(voice="nobody speaks")) == "no speech"
    assert why(None, circumstances=Circumstances(voice="nobody in view")) == "voice of nobody in view"
    failed = Circumstances(network_failed=True, voice="nobody speaks")
    assert why(None, circumstances=failed) == "network failed"


def test_less_than_half_a_second_of_evidence_is_little_however_certain_it_is() -> None:
    assert why(CLEAR, reading(CLEAR, 0), evidence_ns=499 * MS) == "little evidence"
    assert why(CLEAR, reading(CLEAR, 0), evidence_ns=500 * MS) == "happy"


@pytest.mark.parametrize("weakness", ["face small", "face turned", "face dark", "face blurred"])
def test_an_unclear_answer_from_a_poor_face_blames_the_face(weakness: str) -> None:
    assert why(UNCLEAR, reading(UNCLEAR, 0, 0.2, weakness)) == weakness


def test_a_poor_face_alone_must_be_more_certain_than_a_good_one() -> None:
    fair = scores(happy=0.55)
    assert why(fair, reading(fair, 0)) == "happy"
    assert why(fair, reading(fair, 0, 0.1, "face small")) == "face small"
    assert why(CLEAR, reading(CLEAR, 0, 0.1, "face small")) == "happy"


def test_face_and_voice_that_disagree_need_a_clearer_answer() -> None:
    face, voice = reading(scores(happy=0.9), 0), reading(scores(sad=0.9), 0)
    assert why(scores(happy=0.5), face, voice) == "face and voice disagree"
    assert why(scores(happy=0.5), face, reading(scores(happy=0.9), 0)) == "happy"


def test_two_voices_at_once_are_named_when_the_answer_is_unclear() -> None:
    both = Circumstances(two_voices=True)
    assert why(UNCLEAR, voice=reading(UNCLEAR, 0), circumstances=both) == "two voices"
    assert why(CLEAR, voice=reading(CLEAR, 0), circumstances=both) == "happy"


def test_two_labels_alike_are_too_close_to_call() -> None:
    assert why(scores(happy=0.47, sad=0.46), reading(UNCLEAR, 0)) == "scores too close"


def test_an_unknown_weakness_is_not_invented_as_a_reason() -> None:
    assert why(UNCLEAR, reading(UNCLEAR, 0, 0.5, "face green")) == "scores too close"


def test_every_reason_can_be_given_once_and_is_a_plain_string() -> None:
    assert len(set(Reason)) == 14
    steady = LabelSmoother()
    shown = steady.step(0, None, face=None, voice=None, evidence_ns=0, circumstances=PLAIN)
    assert shown.reason == "no face or voice"
    assert shown.confidence == 0.0
    assert shown.scores == pytest.approx((1 / 7,) * 7)
