"""What calibration found is what the path says: temperatures, thresholds, less weight for bad evidence."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from liveaffect.engines.recipe import LABELS, SUBSETS
from liveaffect.engines.scripted_engine import ScriptedFace, ScriptedFusion, ScriptedVoice
from liveaffect.realtime.clock import SECOND
from liveaffect.realtime.cue import NOT_SURE, Scores
from liveaffect.realtime.estimate import Confidence, Estimate, Opinion
from liveaffect.realtime.expression import Pooled
from liveaffect.realtime.networks import Networks, fuse, views
from liveaffect.realtime.scheduler import Scheduler

QUALITIES = st.floats(0, 1)


def opinion(label: str, say: float = 1.0, certainty: float = 3.0) -> Opinion:
    logits = np.zeros(7, np.float32)
    logits[LABELS.index(label)] = certainty
    pooled = Pooled(np.ones(64, np.float32), logits)
    return Opinion(0, pooled, pooled, say=say)


def both(face: float = 1.0, voice: float = 1.0) -> Estimate:
    return Estimate(0, 1, opinion("happy", face), opinion("sad", voice))


FACE = Estimate(0, 1, opinion("happy"))


def fused(estimate: Estimate) -> Estimate:
    networks = Networks(ScriptedFace(), ScriptedVoice(), ScriptedFusion())
    (found,) = fuse([estimate], networks.fuse)
    assert found.answered
    return found


def test_good_evidence_is_asked_about_once_and_only_where_both_are_there_without_one() -> None:
    assert [(view.subset, share) for view, share in views(both())] == [("face+voice", 1.0)]
    poor = views(both(face=0.5))
    assert [(view.subset, share) for view, share in poor] == [("face+voice", 0.5), ("voice", 0.5)]
    alone = Estimate(0, 1, opinion("happy", 0.1))
    assert [(view.subset, share) for view, share in views(alone)] == [("face", 1.0)]
    assert views(Estimate(0, 1)) == []


@given(QUALITIES, QUALITIES, QUALITIES)
def test_the_worse_a_face_the_less_it_weighs_and_all_shares_sum_to_one(
    worse: float, better: float, voice: float
) -> None:
    worse, better = sorted((worse, better))
    low, high = fused(both(worse, voice)), fused(both(better, voice))
    assert low.weights[0] <= high.weights[0] + 1e-9
    assert low.weights[1] >= high.weights[1] - 1e-9
    for found in (low, high):
        assert sum(found.weights) == pytest.approx(1)
        assert sum(found.joint({})) == pytest.approx(1)


@given(QUALITIES, QUALITIES)
def test_the_worse_a_voice_the_nearer_the_answer_is_to_the_face_alone(worse: float, better: float) -> None:
    worse, better = sorted((worse, better))
    happy = [fused(both(voice=quality)).joint({})[1] for quality in (worse, better)]
    assert happy[0] >= happy[1] - 1e-9


def test_evidence_that_is_all_bad_is_still_an_answer() -> None:
    assert fused(both(0.0, 0.0)).weights[:2] == pytest.approx((0.5, 0.5), abs=0.02)


def test_a_view_without_an_answer_costs_that_person_alone() -> None:
    row = {"logits": np.zeros(7, np.float32), "weights": np.array([0.5, 0.5, 0.0], np.float32)}
    found = fuse([both(face=0.5), Estimate(0, 2), both()], lambda tensors: [row, None, row])
    assert [one.answered for one in found] == [False, False, True]


@given(st.floats(0.3, 5), st.floats(0.3, 5))
def test_a_temperature_keeps_the_winner_and_more_of_it_means_less_certain(one: float, other: float) -> None:
    found = fused(both())
    cold, hot = (found.joint({"face+voice": temperature}) for temperature in sorted((one, other)))
    assert int(np.argmax(cold)) == int(np.argmax(hot)) == int(np.argmax(found.joint({})))
    assert max(cold) >= max(hot) - 1e-12
    assert sum(cold) == pytest.approx(1)


def test_every_subset_has_its_own_temperature() -> None:
    temperatures = {"face": 4.0}
    assert max(fused(FACE).joint(temperatures)) < max(fused(FACE).joint({}))
    assert fused(both()).joint(temperatures) == fused(both()).joint({})


def label_of(confidence: Confidence, scores: Scores, subset: str) -> str:
    row = SUBSETS.index(subset)
    logits, shares = np.zeros((len(SUBSETS), 7)), [0.0] * len(SUBSETS)
    logits[row], shares[row] = np.log(scores), 1.0
    estimate = Estimate(
        0,
        1,
        opinion("happy") if "face" in subset else None,
        opinion("happy") if "voice" in subset else None,
        SECOND,
        logits=logits,
        shares=tuple(shares),
    )
    return confidence.labeller().label(estimate).label


def test_every_subset_has_its_own_threshold_and_without_one_that_of_the_labels_holds() -> None:
    scores = (0.08, 0.52, 0.08, 0.08, 0.08, 0.08, 0.08)
    found = Confidence(thresholds={"voice": 0.6, "face+voice": 0.5})
    assert label_of(found, scores, "voice") == NOT_SURE
    assert label_of(found, scores, "face+voice") == "happy"
    assert label_of(found, scores, "face") == "happy"
    assert label_of(Confidence(thresholds={"face": 0.6}), scores, "face") == NOT_SURE


def test_a_run_without_calibration_says_so_on_every_board() -> None:
    confidence = Confidence(caveat="confidence not calibrated")
    networks = Networks(ScriptedFace(), ScriptedVoice(), ScriptedFusion(), confidence)
    snapshot = Scheduler(networks, sightings={}, voice_analyzers=[], publish=lambda cues: None).step(0)
    assert snapshot.notices == ("confidence not calibrated",)
    plain = Networks(ScriptedFace(), ScriptedVoice(), ScriptedFusion())
    assert Scheduler(plain, sightings={}, voice_analyzers=[], publish=lambda cues: None).step(0).notices == ()
