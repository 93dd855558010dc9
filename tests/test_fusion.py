"""Opinions are laid out for the fusion network so that what is absent stays absent; answers are mixed."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from liveaffect.engines.protocol import Tensors, check_inputs
from liveaffect.engines.recipe import LABELS, SUBSETS
from liveaffect.engines.scripted_engine import ScriptedFusion
from liveaffect.realtime.clock import SECOND
from liveaffect.realtime.estimate import UNKNOWN, Estimate, Opinion, SpokenEvidence, softmax
from liveaffect.realtime.expression import Pooled
from liveaffect.realtime.networks import fuse, fusion_inputs, spoken_opinion


def opinion(seed: int) -> Opinion:
    rng = np.random.default_rng(seed)
    short, long = (
        Pooled(rng.normal(size=64).astype(np.float32), rng.normal(size=7).astype(np.float32))
        for _ in range(2)
    )
    return Opinion(0, short, long)


def test_a_missing_modality_is_zeros_with_mask_zero() -> None:
    tensors = fusion_inputs([Estimate(0, 1, opinion(1)), Estimate(0, 2, voice=opinion(2))])
    np.testing.assert_array_equal(tensors["mask"], [[1, 0, 0], [0, 1, 0]])
    assert not tensors["voice_short"][0].any()
    assert not tensors["face_logits"][1].any()
    np.testing.assert_array_equal(tensors["voice_long"][1], opinion(2).long.vector)


def test_the_layout_is_what_the_fusion_engine_wants() -> None:
    tensors = fusion_inputs([Estimate(0, i, opinion(i), opinion(i + 10)) for i in range(3)])
    assert check_inputs(ScriptedFusion().spec, tensors) == 3


def test_the_present_expression_is_what_is_fused() -> None:
    tensors = fusion_inputs([Estimate(0, 1, opinion(5))])
    np.testing.assert_array_equal(tensors["face_logits"][0], opinion(5).short.logits)


@given(st.lists(st.floats(-80, 80), min_size=7, max_size=7), st.floats(0.2, 5))
def test_softmax_sums_to_one_and_keeps_the_winner(logits: list[float], temperature: float) -> None:
    scores = softmax(np.array(logits), temperature)
    assert sum(scores) == pytest.approx(1, abs=1e-9)
    assert scores[int(np.argmax(logits))] == max(scores)


def test_an_answer_becomes_logits_of_its_subset_a_share_and_weights() -> None:
    answer = {"logits": np.arange(7, dtype=np.float32), "weights": np.array([0.25, 0.75, 0], np.float32)}
    (both,) = fuse([Estimate(0, 1, opinion(1), opinion(2))], lambda tensors: [answer])
    row = SUBSETS.index("face+voice")
    np.testing.assert_array_equal(both.logits[row], answer["logits"])
    assert both.shares[row] == 1.0
    assert both.weights == (0.25, 0.75, 0.0)
    assert both.joint({}) == pytest.approx(softmax(answer["logits"]))
    assert both.joint({"face+voice": 3.0}) == pytest.approx(softmax(answer["logits"], 3.0))


@pytest.mark.parametrize(("ago_s", "present"), [(0, 1.0), (4, 0.5), (7, 0.0)])
def test_a_fusion_that_learnt_from_words_is_given_them_and_they_are_not_joined_twice(
    ago_s: int, present: float
) -> None:
    heard = SpokenEvidence(0, np.array([0.0, 4.0, 0.0, 0.0, 0.0, 0.0, -2.0]))
    said = spoken_opinion(heard, ago_s * SECOND, weighed=True)
    answer = {"logits": np.arange(7, dtype=np.float32), "weights": np.array([0.2, 0.3, 0.5], np.float32)}
    given: list[Tensors] = []

    def ask(tensors: Tensors) -> list[Tensors]:
        given.append(tensors)
        return [answer]

    (found,) = fuse([Estimate(0, 1, opinion(1), opinion(2), words=said)], ask)
    assert given[0]["mask"][0] == pytest.approx([1.0, 1.0, present])
    if present:
        assert softmax(given[0]["words_logits"][0]) == pytest.approx(softmax(heard.logits), abs=1e-6)
    assert found.weights == pytest.approx((0.2, 0.3, 0.5))
    assert found.joint({}) == softmax(answer["logits"])


def test_a_fusion_without_words_is_not_asked_about_them_and_they_join_behind_it() -> None:
    heard = SpokenEvidence(0, np.array([0.0, 9.0, 0.0, 0.0, 0.0, 0.0, 0.0]))
    person = Estimate(0, 1, opinion(1), words=spoken_opinion(heard, 0))
    assert not fusion_inputs([person])["mask"][0, 2]
    answer = {"logits": np.zeros(7, np.float32), "weights": np.array([1.0, 0.0, 0.0], np.float32)}
    (found,) = fuse([person], lambda tensors: [answer])
    assert found.weights == pytest.approx((0.84, 0.0, 0.16), abs=0.01)
    assert found.joint({})[1] > 0.35


def test_without_evidence_or_without_an_answer_nothing_is_known() -> None:
    nobody, failed = fuse([Estimate(0, 1), Estimate(0, 2, opinion(1))], lambda tensors: [None])
    for estimate in (nobody, failed):
        assert not estimate.answered
        assert estimate.joint({}) == UNKNOWN
    assert len(UNKNOWN) == len(LABELS)
