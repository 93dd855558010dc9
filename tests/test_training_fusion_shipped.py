"""The fusion that comes with the package joins what is there and leaves alone what is alone."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from liveaffect.engines import manifest as manifests
from liveaffect.engines.load import load
from liveaffect.engines.protocol import FUSION_INPUTS, Engine
from liveaffect.engines.recipe import LABELS
from liveaffect.engines.training import splits

FACE, VOICE, BOTH = (1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (1.0, 1.0, 0.0)


@pytest.fixture
def fusion() -> Iterator[Engine]:
    engine = load("fusion")
    yield engine
    engine.close()


def opinion(label: str, sure: float) -> NDArray[np.float32]:
    return np.where(np.array(LABELS) == label, np.float32(sure), np.float32(0))


def people(
    *rows: tuple[str, float, str, float, tuple[float, float, float]],
) -> dict[str, NDArray[np.float32]]:
    """One row a person: what face and voice say, how loudly, and which of them there is."""
    given = {t.name: np.zeros((len(rows), *t.shape), np.float32) for t in FUSION_INPUTS}
    for at, (face, face_sure, voice, voice_sure, mask) in enumerate(rows):
        given["face_logits"][at] = opinion(face, face_sure)
        given["voice_logits"][at] = opinion(voice, voice_sure)
        given["mask"][at] = mask
    return given


def said(logits: NDArray[np.float32]) -> NDArray[np.float64]:
    raised = np.exp(logits - logits.max(1, keepdims=True)).astype(np.float64)
    return np.asarray(raised / raised.sum(1, keepdims=True))


def test_the_package_brings_a_trained_fusion_and_the_live_path_takes_it(fusion: Engine) -> None:
    assert fusion.spec.trained
    assert fusion.spec.model != "scripted"


def test_it_was_learnt_from_the_train_side_and_joins_the_networks_beside_it() -> None:
    found = manifests.read(manifests.SHIPPED / "fusion.json")
    assert found.training["splits"] == splits.read_splits(splits.FROZEN)["ravdess"]["sha256"]
    assert found.training["licence"] == "CC-BY-NC-SA-4.0"
    for kind, digest in found.training["networks"].items():
        shipped = manifests.read(manifests.SHIPPED / f"{kind}.json").files[f"{kind}.onnx"]
        assert shipped == digest, (
            f"the {kind} network changed; learn the fusion anew: liveaffect train fusion"
        )


def test_of_two_people_the_one_without_a_voice_is_judged_by_the_face_alone(fusion: Engine) -> None:
    both = fusion.infer(people(("happy", 3, "sad", 9, FACE), ("angry", 2, "angry", 2, BOTH)))
    alone = fusion.infer(people(("happy", 3, "neutral", 0, FACE)))
    np.testing.assert_allclose(both["logits"][0], alone["logits"][0], atol=1e-5)
    np.testing.assert_allclose(both["weights"][0], FACE, atol=1e-6)
    scaled = 3 / manifests.read(manifests.SHIPPED / "fusion.json").training["temperature"]["face"]
    np.testing.assert_allclose(said(both["logits"])[0], said(opinion("happy", scaled)[None])[0], atol=2e-4)


def test_a_voice_of_nobody_in_view_is_judged_by_itself(fusion: Engine) -> None:
    answer = fusion.infer(people(("happy", 9, "sad", 2, VOICE)))
    assert said(answer["logits"])[0].argmax() == LABELS.index("sad")
    np.testing.assert_allclose(answer["weights"][0], VOICE, atol=1e-6)


def test_two_who_agree_are_surer_and_of_two_who_do_not_the_surer_wins(fusion: Engine) -> None:
    rows = people(
        ("angry", 2, "angry", 2, BOTH),
        ("angry", 2, "angry", 2, FACE),
        ("happy", 5, "sad", 1, BOTH),
        ("happy", 1, "sad", 5, BOTH),
    )
    answer = fusion.infer(rows)
    scores, weights = said(answer["logits"]), answer["weights"]
    assert scores[0, 3] > scores[1, 3] + 0.05
    assert [LABELS[at] for at in scores[2:].argmax(1)] == ["happy", "sad"]
    assert weights[2, 0] > 0.7
    assert weights[3, 1] > 0.6
    np.testing.assert_allclose(weights.sum(1), 1.0, atol=1e-6)


def test_a_voice_that_knows_nothing_leaves_the_face_as_it_was(fusion: Engine) -> None:
    beside, alone = fusion.infer(
        people(("surprised", 3, "neutral", 0, BOTH), ("surprised", 3, "neutral", 0, FACE))
    )["logits"]
    assert np.abs(said(beside[None]) - said(alone[None])).max() < 0.06


@pytest.mark.parametrize("folder", [manifests.SHIPPED, manifests.SHIPPED / "full"])
def test_a_clear_smile_stays_one_while_the_person_talks_plainly(folder: Path) -> None:
    """Decision 0026: beside voices that taught only by their own corpus it was neutral with 0.9."""
    fusion = load("fusion", weights=folder)
    smile = np.log(np.array([0.09, 0.9, 0.002, 0.002, 0.002, 0.002, 0.002], np.float32))
    plain = np.log(np.array([0.95, 0.002, 0.04, 0.002, 0.002, 0.002, 0.002], np.float32))
    given = people(("happy", 0, "neutral", 0, BOTH))
    given["face_logits"][0], given["voice_logits"][0] = smile, plain
    try:
        scores = said(fusion.infer(given)["logits"])[0]
    finally:
        fusion.close()
    assert LABELS[scores.argmax()] == "happy"
    assert scores.max() > 0.75
