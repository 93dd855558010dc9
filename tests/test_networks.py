"""A network that fails costs its modality and nothing else."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from liveaffect.engines.recipe import PIECE
from liveaffect.engines.scripted_engine import ScriptedFace, ScriptedFusion, ScriptedVoice
from liveaffect.realtime.networks import GIVE_UP_AFTER, Networks, Row
from liveaffect.realtime.testing.engines import CountingEngine, FailingEngine, SchooledEngine


def crop(value: int) -> Row:
    return {"crop": np.full((64, 64, 3), value, np.uint8)}


def piece() -> dict[str, NDArray[Any]]:
    rng = np.random.default_rng(1)
    return {
        "samples": rng.normal(0, 0.1, PIECE).astype(np.float32),
        "mean": np.full(64, -6, np.float32),
        "istd": np.ones(64, np.float32),
    }


def test_every_row_gets_its_own_answer() -> None:
    networks = Networks(ScriptedFace(), ScriptedVoice(), ScriptedFusion())
    faces, voices = networks.ask([crop(20), crop(220)], [piece()])
    assert len(faces) == 2
    assert len(voices) == 1
    first, second = faces
    assert first is not None
    assert second is not None
    assert not np.allclose(first["logits"], second["logits"])
    assert not networks.trained("face")
    assert networks.caveat == "no trained network yet: the answers mean nothing"
    assert networks.model == "scripted"


def test_more_faces_than_a_batch_are_asked_in_parts_and_keep_their_order() -> None:
    counting = CountingEngine(ScriptedFace(max_batch=4))
    networks = Networks(counting, ScriptedVoice(), ScriptedFusion())
    values = list(range(0, 250, 25))
    together, _ = networks.ask([crop(v) for v in values], [])
    for value, answer in zip(values, together, strict=True):
        alone, _ = networks.ask([crop(value)], [])
        assert answer is not None
        assert alone[0] is not None
        np.testing.assert_allclose(answer["logits"], alone[0]["logits"], rtol=1e-5)


def test_a_broken_face_network_leaves_the_voice_alone() -> None:
    networks = Networks(FailingEngine(ScriptedFace(), after=0), ScriptedVoice(), ScriptedFusion())
    faces, voices = networks.ask([crop(1)], [piece()])
    assert faces == [None]
    assert voices[0] is not None
    assert "face network failed" in networks.failing["face"]
    assert "voice" not in networks.failing


def test_a_network_that_keeps_failing_is_left_alone() -> None:
    counting = CountingEngine(FailingEngine(ScriptedFace(), after=0))
    networks = Networks(counting, ScriptedVoice(), ScriptedFusion())
    for _ in range(GIVE_UP_AFTER + 5):
        networks.ask([crop(1)], [])
    assert networks.failures["face"] == GIVE_UP_AFTER


def test_one_hiccup_is_forgotten_after_the_next_good_answer() -> None:
    class Hiccup(ScriptedFace):
        calls = 0

        def submit(self, inputs: Any) -> Any:
            self.calls += 1
            if self.calls == 1:
                return FailingEngine(ScriptedFace(), after=0).submit(inputs)
            return super().submit(inputs)

    networks = Networks(Hiccup(), ScriptedVoice(), ScriptedFusion())
    assert networks.ask([crop(1)], [])[0] == [None]
    assert networks.failing
    assert networks.ask([crop(1)], [])[0][0] is not None
    assert not networks.failing
    assert networks.failures["face"] == 1


def test_beside_a_trained_network_an_untrained_one_does_not_count() -> None:
    nothing = Networks(ScriptedFace(), ScriptedVoice(), ScriptedFusion())
    assert nothing.judges("face")
    assert nothing.judges("voice")
    face_only = Networks(SchooledEngine(ScriptedFace()), ScriptedVoice(), ScriptedFusion())
    assert face_only.judges("face")
    assert not face_only.judges("voice")
    assert face_only.caveat == "no trained voice network yet: only faces are judged"
    both = Networks(SchooledEngine(ScriptedFace()), SchooledEngine(ScriptedVoice()), ScriptedFusion())
    assert both.judges("voice")
    assert both.caveat is None
