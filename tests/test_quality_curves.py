"""On a real portrait and on speech, the mean weight of what gets worse falls, step by step."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from liveaffect.calibration.clips import Engines
from liveaffect.calibration.fit_confidence import (
    EYES_PX,
    FACES_SPOILT,
    VOICES_SPOILT,
    Image,
    Points,
    face_curve,
    scaled,
    voice_curve,
)
from liveaffect.engines.recipe import SAMPLE_RATE
from liveaffect.engines.scripted_engine import ScriptedFace, ScriptedFusion, ScriptedVoice
from liveaffect.realtime.crop import eye_distance
from liveaffect.realtime.portrait import packaged_portraits
from liveaffect.realtime.replay import load_picture
from liveaffect.realtime.testing.engines import SchooledEngine
from liveaffect.realtime.testing.people import ScriptedFinder
from liveaffect.realtime.window import PIECES

CAST = Engines(
    SchooledEngine(ScriptedFace()),
    SchooledEngine(ScriptedVoice()),
    ScriptedFusion(),
    (ScriptedFinder(), ScriptedFinder()),
    PIECES,
)
HOPPER = np.array([[216, 190], [305, 184], [264, 233], [267, 281], [171, 221], [354, 209]], np.float32)
"""Where eyes, nose, mouth and ears are in `grace_hopper.jpg`."""


def speech() -> NDArray[np.float32]:
    t = np.arange(round(3 * SAMPLE_RATE)) / SAMPLE_RATE
    pitch = 2 * np.pi * np.cumsum(140 + 25 * np.sin(2 * np.pi * 0.4 * t)) / SAMPLE_RATE
    buzz = np.asarray(sum(np.sin(k * pitch) / k for k in range(1, 20)))
    return np.asarray(0.2 * buzz * np.clip(np.sin(2 * np.pi * 3.5 * t), 0, None), np.float32)


@pytest.fixture(scope="module")
def portrait() -> tuple[Image, Points]:
    for path in packaged_portraits():
        if path.name == "grace_hopper.jpg":
            return scaled(load_picture(path), HOPPER, EYES_PX / eye_distance(HOPPER))
    raise AssertionError("matplotlib, which is always installed, carries this portrait")


@pytest.mark.parametrize("kind", FACES_SPOILT)
def test_a_face_that_gets_worse_weighs_less(kind: str, portrait: tuple[Image, Points]) -> None:
    levels, spoil = FACES_SPOILT[kind]
    rows = list(face_curve(CAST, [portrait], speech(), levels, spoil))
    qualities, weights = ([row[k] for row in rows] for k in (1, 2))
    assert qualities == sorted(qualities, reverse=True)
    assert weights == sorted(weights, reverse=True)
    assert qualities[0] == 1.0
    assert weights[-1] < 0.6 * weights[0]


@pytest.mark.parametrize("kind", VOICES_SPOILT)
def test_a_voice_that_gets_worse_weighs_less(kind: str) -> None:
    levels, damage = VOICES_SPOILT[kind]
    rows = list(voice_curve(CAST, speech(), np.zeros(7, np.float32), levels, damage))
    qualities, weights = ([round(row[k], 3) for row in rows] for k in (1, 2))
    assert qualities == sorted(qualities, reverse=True)
    assert weights == sorted(weights, reverse=True)
    assert qualities[0] > 0.9
    assert weights[-1] < 0.6 * weights[0]
