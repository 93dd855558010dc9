"""Where nothing can be claimed, it says why, and of several reasons always the same one first."""

from __future__ import annotations

import numpy as np
import pytest

from liveaffect.engines.recipe import LABELS, SUBSETS
from liveaffect.realtime.clock import MS, SECOND
from liveaffect.realtime.cue import NOT_SURE, Scores
from liveaffect.realtime.estimate import Circumstances, Estimate, Labeller, Opinion, Reason
from liveaffect.realtime.expression import Pooled

PLAIN = Circumstances()


def scores(**given: float) -> Scores:
    """A distribution with the named probabilities, the rest shared out evenly."""
    rest = (1.0 - sum(given.values())) / (len(LABELS) - len(given))
    return tuple(given.get(label, rest) for label in LABELS)


def opinion(answer: Scores, quality: float = 1.0, weakness: str | None = None) -> Opinion:
    pooled = Pooled(np.zeros(2, np.float32), np.log(answer).astype(np.float32))
    return Opinion(0, pooled, pooled, quality, weakness)


def why(
    joint: Scores | None,
    face: Opinion | None = None,
    voice: Opinion | None = None,
    *,
    evidence_ns: int = 5 * SECOND,
    circumstances: Circumstances = PLAIN,
) -> str:
    logits = np.zeros((len(SUBSETS), len(LABELS)))
    logits[0] = 0.0 if joint is None else np.log(joint)
    shares = (0.0 if joint is None else 1.0, 0.0, 0.0)
    given = Estimate(0, 1, face, voice, evidence_ns, circumstances, logits=logits, shares=shares)
    shown = Labeller().label(given)
    assert (shown.label == NOT_SURE) == (shown.reason is not None)
    return shown.label if shown.reason is None else str(shown.reason)


UNCLEAR, CLEAR = scores(happy=0.35, sad=0.34), scores(happy=0.8)


def test_with_nothing_to_go_by_it_says_what_is_missing() -> None:
    assert why(None) == "no face or voice"
    assert why(None, circumstances=Circumstances(voice="nobody speaks")) == "no speech"
    assert why(None, circumstances=Circumstances(voice="nobody in view")) == "voice of nobody in view"
    failed = Circumstances(network_failed=True, voice="nobody speaks")
    assert why(None, circumstances=failed) == "network failed"


def test_one_look_is_little_and_a_few_are_enough() -> None:
    assert why(CLEAR, opinion(CLEAR), evidence_ns=33 * MS) == "little evidence"
    assert why(CLEAR, opinion(CLEAR), evidence_ns=66 * MS) == "happy"


def test_less_than_half_a_second_of_a_voice_alone_is_little_however_certain_it_is() -> None:
    assert why(CLEAR, voice=opinion(CLEAR), evidence_ns=499 * MS) == "little evidence"
    assert why(CLEAR, voice=opinion(CLEAR), evidence_ns=500 * MS) == "happy"


@pytest.mark.parametrize("weakness", ["face small", "face turned", "face dark", "face blurred"])
def test_an_unclear_answer_from_a_poor_face_blames_the_face(weakness: str) -> None:
    assert why(UNCLEAR, opinion(UNCLEAR, 0.2, weakness)) == weakness


def test_a_poor_face_alone_must_be_more_certain_than_a_good_one() -> None:
    fair = scores(happy=0.55)
    assert why(fair, opinion(fair)) == "happy"
    assert why(fair, opinion(fair, 0.1, "face small")) == "face small"
    assert why(CLEAR, opinion(CLEAR, 0.1, "face small")) == "happy"


def test_face_and_voice_that_disagree_need_a_clearer_answer() -> None:
    face, voice = opinion(scores(happy=0.9)), opinion(scores(sad=0.9))
    assert why(scores(happy=0.5), face, voice) == "face and voice disagree"
    assert why(scores(happy=0.5), face, opinion(scores(happy=0.9))) == "happy"


def test_two_voices_at_once_are_named_when_the_answer_is_unclear() -> None:
    both = Circumstances(two_voices=True)
    assert why(UNCLEAR, voice=opinion(UNCLEAR), circumstances=both) == "two voices"
    assert why(CLEAR, voice=opinion(CLEAR), circumstances=both) == "happy"


def test_two_labels_alike_are_too_close_to_call() -> None:
    assert why(scores(happy=0.47, sad=0.46), opinion(UNCLEAR)) == "scores too close"


def test_an_unknown_weakness_is_not_invented_as_a_reason() -> None:
    assert why(UNCLEAR, opinion(UNCLEAR, 0.5, "face green")) == "scores too close"


def test_every_reason_can_be_given_once_and_is_a_plain_string() -> None:
    assert len(set(Reason)) == 14
    shown = Labeller().label(Estimate(0, 1))
    assert shown.reason == "no face or voice"
    assert shown.confidence == 0.0
    assert shown.scores == pytest.approx((1 / 7,) * 7)
