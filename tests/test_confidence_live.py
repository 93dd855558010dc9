"""What calibration found is what the path says: temperatures, thresholds, less weight for bad evidence."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from liveaffect.engines.recipe import LABELS
from liveaffect.engines.scripted_engine import ScriptedFace, ScriptedFusion, ScriptedVoice
from liveaffect.realtime.clock import SECOND
from liveaffect.realtime.confidence import Confidence
from liveaffect.realtime.cue import NOT_SURE, Reading, Scores
from liveaffect.realtime.fusion import Fused, Gathered, ask_fusion, join
from liveaffect.realtime.networks import Networks
from liveaffect.realtime.pooling import Pooled
from liveaffect.realtime.scheduler import Scheduler
from liveaffect.realtime.smoothing import Circumstances

QUALITIES = st.floats(0, 1)


def trunks(label: str, certainty: float = 3.0) -> tuple[Pooled, Pooled]:
    logits = np.zeros(7, np.float32)
    logits[LABELS.index(label)] = certainty
    pooled = Pooled(np.ones(64, np.float32), logits)
    return pooled, pooled


BOTH = Gathered(trunks("happy"), trunks("sad"))


def fused(gathered: Gathered, temperatures: dict[str, float] | None = None) -> Fused:
    networks = Networks(ScriptedFace(), ScriptedVoice(), ScriptedFusion())
    (parts,) = ask_fusion([gathered], networks.fuse)
    found = join(parts, temperatures or {})
    assert found is not None
    return found


def test_good_evidence_is_asked_about_once_and_only_where_both_are_there_without_one() -> None:
    assert [(view.subset, share) for view, share in BOTH.views()] == [("face+voice", 1.0)]
    poor = replace(BOTH, face_quality=0.5)
    assert [(view.subset, share) for view, share in poor.views()] == [("face+voice", 0.5), ("voice", 0.5)]
    alone = Gathered(trunks("happy"), None, face_quality=0.1)
    assert [(view.subset, share) for view, share in alone.views()] == [("face", 1.0)]


@given(QUALITIES, QUALITIES, QUALITIES)
def test_the_worse_a_face_the_less_it_weighs_and_all_shares_sum_to_one(
    worse: float, better: float, voice: float
) -> None:
    worse, better = sorted((worse, better))
    low = fused(replace(BOTH, face_quality=worse, voice_quality=voice))
    high = fused(replace(BOTH, face_quality=better, voice_quality=voice))
    assert low.weights[0] <= high.weights[0] + 1e-9
    assert low.weights[1] >= high.weights[1] - 1e-9
    for found in (low, high):
        assert sum(found.weights) == pytest.approx(1)
        assert sum(found.scores) == pytest.approx(1)


@given(QUALITIES, QUALITIES)
def test_the_worse_a_voice_the_nearer_the_answer_is_to_the_face_alone(worse: float, better: float) -> None:
    worse, better = sorted((worse, better))
    happy = [fused(replace(BOTH, voice_quality=quality)).scores[1] for quality in (worse, better)]
    assert happy[0] >= happy[1] - 1e-9


def test_evidence_that_is_all_bad_is_still_an_answer() -> None:
    found = fused(replace(BOTH, face_quality=0.0, voice_quality=0.0))
    assert found.weights[:2] == pytest.approx((0.5, 0.5), abs=0.02)


def test_a_view_without_an_answer_costs_that_person_alone() -> None:
    poor, good = replace(BOTH, face_quality=0.5), BOTH
    row = {"logits": np.zeros(7, np.float32), "weights": np.array([0.5, 0.5, 0.0], np.float32)}
    answers = ask_fusion([poor, Gathered(None, None), good], lambda tensors: [row, None, row])
    assert [len(parts) for parts in answers] == [0, 0, 1]
    assert join(answers[0], {}) is None


@given(st.floats(0.3, 5), st.floats(0.3, 5))
def test_a_temperature_keeps_the_winner_and_more_of_it_means_less_certain(one: float, other: float) -> None:
    cold, hot = (fused(BOTH, {"face+voice": temperature}).scores for temperature in sorted((one, other)))
    plain = fused(BOTH).scores
    assert int(np.argmax(cold)) == int(np.argmax(hot)) == int(np.argmax(plain))
    assert max(cold) >= max(hot) - 1e-12
    assert sum(cold) == pytest.approx(1)


def test_every_subset_has_its_own_temperature() -> None:
    temperatures = {"face": 4.0}
    face = Gathered(trunks("happy"), None)
    assert max(fused(face, temperatures).scores) < max(fused(face).scores)
    assert fused(BOTH, temperatures) == fused(BOTH)


def label_of(confidence: Confidence, scores: Scores, *, face: bool, voice: bool) -> str:
    reading = Reading(0, scores, 1.0)
    shown = confidence.steady().step(
        0,
        scores,
        face=reading if face else None,
        voice=reading if voice else None,
        evidence_ns=SECOND,
        circumstances=Circumstances(),
    )
    return shown.label


def test_every_subset_has_its_own_threshold_and_without_one_that_of_the_smoothing_holds() -> None:
    scores = (0.08, 0.52, 0.08, 0.08, 0.08, 0.08, 0.08)
    found = Confidence(thresholds={"voice": 0.6, "face+voice": 0.5})
    assert label_of(found, scores, face=False, voice=True) == NOT_SURE
    assert label_of(found, scores, face=True, voice=True) == "happy"
    assert label_of(found, scores, face=True, voice=False) == "happy"
    assert label_of(Confidence(thresholds={"face": 0.6}), scores, face=True, voice=False) == NOT_SURE


def test_a_run_without_calibration_says_so_on_every_board() -> None:
    confidence = Confidence(caveat="confidence not calibrated")
    networks = Networks(ScriptedFace(), ScriptedVoice(), ScriptedFusion(), confidence)
    snapshot = Scheduler(networks, face_analyzers={}, voice_analyzers=[], publish=lambda cues: None).step(0)
    assert snapshot.notices == ("confidence not calibrated",)
    plain = Networks(ScriptedFace(), ScriptedVoice(), ScriptedFusion())
    assert (
        Scheduler(plain, face_analyzers={}, voice_analyzers=[], publish=lambda cues: None).step(0).notices
        == ()
    )
