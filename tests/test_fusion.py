"""Evidence is laid out for the fusion network so that what is absent stays absent."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from liveaffect.engines.protocol import check_inputs
from liveaffect.engines.recipe import LABELS
from liveaffect.engines.scripted_engine import ScriptedFusion
from liveaffect.realtime.fusion import UNKNOWN, Gathered, fusion_inputs, read_fused, softmax
from liveaffect.realtime.pooling import Pooled


def trunks(seed: int) -> tuple[Pooled, Pooled]:
    rng = np.random.default_rng(seed)
    short, long = (
        Pooled(rng.normal(size=64).astype(np.float32), rng.normal(size=7).astype(np.float32))
        for _ in range(2)
    )
    return short, long


def test_a_missing_modality_is_zeros_with_mask_zero() -> None:
    tensors = fusion_inputs([Gathered(face=trunks(1), voice=None), Gathered(face=None, voice=trunks(2))])
    np.testing.assert_array_equal(tensors["mask"], [[1, 0, 0], [0, 1, 0]])
    assert not tensors["voice_short"][0].any()
    assert not tensors["face_logits"][1].any()
    np.testing.assert_array_equal(tensors["voice_long"][1], trunks(2)[1].vector)


def test_the_layout_is_what_the_fusion_engine_wants() -> None:
    tensors = fusion_inputs([Gathered(face=trunks(i), voice=trunks(i + 10)) for i in range(3)])
    assert check_inputs(ScriptedFusion().spec, tensors) == 3


def test_short_logits_are_the_ones_that_are_fused() -> None:
    evidence = trunks(5)
    tensors = fusion_inputs([Gathered(face=evidence, voice=None)])
    np.testing.assert_array_equal(tensors["face_logits"][0], evidence[0].logits)


@given(st.lists(st.floats(-80, 80), min_size=7, max_size=7), st.floats(0.2, 5))
def test_softmax_sums_to_one_and_keeps_the_winner(logits: list[float], temperature: float) -> None:
    scores = softmax(np.array(logits), temperature)
    assert sum(scores) == pytest.approx(1, abs=1e-9)
    assert scores[int(np.argmax(logits))] == max(scores)


def test_an_answer_row_becomes_scores_and_weights() -> None:
    answer = {"logits": np.zeros(7, np.float32), "weights": np.array([0.25, 0.75, 0], np.float32)}
    fused = read_fused(answer)
    assert fused.scores == pytest.approx(UNKNOWN)
    assert fused.weights == (0.25, 0.75, 0.0)
    assert len(UNKNOWN) == len(LABELS)
