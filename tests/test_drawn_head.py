"""The drawn head goes through its scene in time, and the real path sees in it what it plays."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from liveaffect.engines import manifest as manifests
from liveaffect.engines.onnx_engine import OnnxEngine
from liveaffect.engines.recipe import LABELS
from liveaffect.realtime.acting import (
    BLEND_S,
    POSES,
    SCENE,
    SCENE_S,
    ActingHead,
    between,
    draw_head,
    shown_at,
)
from liveaffect.realtime.blazeface import make_finder
from liveaffect.realtime.errors import MissingFile
from liveaffect.realtime.face_analyzer import find_in_picture


@pytest.fixture(scope="module")
def engine() -> Iterator[OnnxEngine]:
    found = manifests.read(manifests.SHIPPED / "face.json")
    network = OnnxEngine(found, manifests.SHIPPED, "int8")
    yield network
    network.close()


@pytest.mark.parametrize("label", sorted(POSES))
def test_the_shipped_network_sees_what_the_head_plays(label: str, engine: OnnxEngine) -> None:
    try:
        finders = make_finder()
    except MissingFile as error:
        pytest.skip(f"needs the face detector's files: {error}")
    (face,) = find_in_picture(*finders, draw_head(POSES[label]))
    logits = engine.infer({"crop": face.crop[None]})["logits"][0]
    assert LABELS[int(np.argmax(logits))] == label


def test_a_scene_begins_at_rest_blends_and_begins_again() -> None:
    assert shown_at(0.0) == ("neutral", "neutral", 1.0)
    smile = SCENE[1]
    assert shown_at(smile.from_s) == ("neutral", smile.label, 0.0)
    assert shown_at(smile.from_s + BLEND_S / 2)[2] == pytest.approx(0.5)
    assert shown_at(smile.from_s + BLEND_S + 0.01)[2] == 1.0
    assert shown_at(SCENE_S)[0] == SCENE[-1].label
    assert shown_at(SCENE_S + smile.from_s + 0.01)[:2] == ("neutral", smile.label)


def test_half_way_lies_half_way_and_the_ends_are_the_ends() -> None:
    neutral, happy = POSES["neutral"], POSES["happy"]
    assert between(neutral, happy, 0.0) == neutral
    assert between(neutral, happy, 1.0) == happy
    assert between(neutral, happy, 0.5).smile == pytest.approx((neutral.smile + happy.smile) / 2)


def test_the_acting_head_changes_its_face_and_a_portrait_beside_it_does_not() -> None:
    other = np.random.default_rng(0).integers(0, 255, (200, 160, 3), np.uint8)
    acting = ActingHead([other])
    still, smiling = 30, 90
    assert not np.array_equal(acting._face(0, still), acting._face(0, smiling))
    assert np.array_equal(acting._face(1, still), acting._face(1, smiling))
    assert acting.draw(smiling).shape == (480, 640, 3)
