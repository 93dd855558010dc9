"""Engines, frames and cues: what does not fit is refused in words; what is written sums to one."""

from __future__ import annotations

import json
import math
from dataclasses import FrozenInstanceError, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from liveaffect.engines.protocol import (
    FACE_INPUTS,
    FACE_OUTPUTS,
    FUSION_INPUTS,
    FUSION_OUTPUTS,
    VOICE_INPUTS,
    VOICE_OUTPUTS,
    Done,
    EngineError,
    EngineFailed,
    EngineFileError,
    EngineInputError,
    EngineSpec,
    EngineUnavailable,
    check_inputs,
)
from liveaffect.engines.recipe import LABELS
from liveaffect.realtime import errors
from liveaffect.realtime.clock import MS, SECOND
from liveaffect.realtime.cue import Cue, age_ms, distribution
from liveaffect.realtime.frame import AudioBlock, Face, VideoFrame

SPEC = EngineSpec("voice-live/test", VOICE_INPUTS, VOICE_OUTPUTS, 4, "abc", False)


def batch(count: int) -> dict[str, NDArray[Any]]:
    return {t.name: np.zeros((count, *t.shape), t.dtype) for t in VOICE_INPUTS}


@pytest.mark.parametrize("count", [1, 4])
def test_a_batch_that_fits_is_counted(count: int) -> None:
    assert check_inputs(SPEC, batch(count)) == count


REFUSALS: list[tuple[dict[str, NDArray[Any] | None], str]] = [
    ({"mean": None}, r"missing: mean; given: samples, istd"),
    ({"pitch": np.zeros(1)}, r"does not know the input pitch"),
    ({"mean": np.zeros((2, 64), np.float32)}, r"different sizes: samples \(1, 6600\), mean \(2, 64\)"),
    ({"mean": np.zeros((1, 63), np.float32)}, r"wants mean \(n, 64\) float32, got \(1, 63\) float32"),
    ({"mean": np.zeros((1, 64))}, r"wants mean \(n, 64\) float32, got \(1, 64\) float64"),
    ({"mean": np.zeros(64, np.float32)}, r"wants mean \(n, 64\) float32, got \(64,\) float32"),
    ({"mean": np.full((1, 64), np.nan, np.float32)}, r"mean with 64 values that are not finite"),
]


@pytest.mark.parametrize(("change", "words"), REFUSALS)
def test_what_does_not_fit_is_refused_with_wanted_and_given(
    change: dict[str, NDArray[Any] | None], words: str
) -> None:
    given = {name: array for name, array in {**batch(1), **change}.items() if array is not None}
    with pytest.raises(EngineInputError, match=words) as refusal:
        check_inputs(SPEC, given)
    assert "voice-live/test" in str(refusal.value)


@pytest.mark.parametrize("count", [0, 5])
def test_an_empty_and_a_too_large_batch_are_refused_with_both_numbers(count: int) -> None:
    with pytest.raises(EngineInputError, match=f"takes 1 to 4 items, got {count}"):
        check_inputs(SPEC, batch(count))


def test_no_tensor_of_a_network_has_a_name_twice() -> None:
    for tensors in (FACE_INPUTS, FACE_OUTPUTS, VOICE_INPUTS, VOICE_OUTPUTS, FUSION_INPUTS, FUSION_OUTPUTS):
        assert len({t.name for t in tensors}) == len(tensors)


def test_every_engine_error_is_an_engine_error_and_done_is_there_at_once() -> None:
    for kind in (EngineInputError, EngineFileError, EngineUnavailable, EngineFailed):
        assert issubclass(kind, EngineError)
    answer = batch(1)
    assert Done(answer).result() is answer


def test_the_tree_of_errors_is_the_one_its_docstring_draws() -> None:
    assert errors.__doc__ is not None
    for name, kind in vars(errors).items():
        if isinstance(kind, type) and issubclass(kind, Exception):
            assert name in errors.__doc__, f"{name} is missing in the drawing"
            assert issubclass(kind, errors.RealtimeError) == (name != "EndOfStream")


@pytest.mark.parametrize(
    "image", [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 4), np.uint8), np.zeros((4, 4, 3), np.float32)]
)
def test_a_picture_that_is_not_rgb_bytes_is_refused_with_its_shape(image: NDArray[Any]) -> None:
    with pytest.raises(ValueError, match=f"got .*{image.dtype}"):
        VideoFrame("camera:0", 0, 0, image)


@pytest.mark.parametrize("samples", [np.zeros((2, 4), np.float32), np.zeros(4), np.zeros(4, np.int16)])
def test_sound_that_is_not_mono_float32_is_refused_with_its_type(samples: NDArray[Any]) -> None:
    with pytest.raises(ValueError, match=f"got .*{samples.dtype}"):
        AudioBlock("mic:0", 0, 0, samples)


def test_what_crosses_threads_cannot_be_changed() -> None:
    frame = VideoFrame("camera:0", 0, 0, np.zeros((2, 5, 3), np.uint8))
    assert frame.size == (5, 2)
    with pytest.raises(FrozenInstanceError):
        frame.seq = 3  # type: ignore[misc]
    with pytest.raises(ValueError, match="read-only"):
        frame.image[0] = 1
    block = AudioBlock("mic:0", 7, 0, np.zeros(3, np.float32))
    assert block.end == 10
    with pytest.raises(ValueError, match="read-only"):
        block.samples[0] = 1


@pytest.mark.parametrize(
    ("points", "crop", "words"), [((5, 2), (64, 64, 3), "six points"), ((6, 2), (32, 32, 3), "a crop is")]
)
def test_a_face_without_six_points_or_a_whole_crop_is_refused(
    points: tuple[int, ...], crop: tuple[int, ...], words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        Face(1, (0, 0, 9, 9), np.zeros(points, np.float32), (0, 0), 0, 1.0, np.zeros(crop, np.uint8))


weights = st.lists(st.floats(0, 1), min_size=7, max_size=7).filter(lambda w: sum(w) > 1e-3)


@given(weights)
def test_a_written_distribution_sums_to_one_whatever_rounding_did(scores: list[float]) -> None:
    exact = [score / sum(scores) for score in scores]
    written = distribution(exact)
    assert written is not None
    assert tuple(written) == LABELS
    assert math.fsum(written.values()) == pytest.approx(1.0, abs=1e-12)
    assert all(0 <= value <= 1 for value in written.values())
    assert all(abs(a - b) < 1e-5 for a, b in zip(written.values(), exact, strict=True))


def test_a_modality_without_evidence_is_written_as_null() -> None:
    assert distribution(None) is None
    with pytest.raises(ValueError, match="7 entries, got 3"):
        distribution((0.2, 0.3, 0.5))


def test_ages_are_whole_milliseconds_and_never_negative() -> None:
    assert age_ms(100 * MS, 79 * MS + 1) == 20
    assert age_ms(0, 5 * MS) == 0
    assert age_ms(0, None) is None


EVEN = (1 / 7,) * 7
CUE = Cue(
    t_ns=12_300 * MS,
    source="camera:0",
    frame=(640, 480),
    track=3,
    box=(212, 80, 128, 128),
    speaking=True,
    face=EVEN,
    voice=None,
    words=None,
    raw=EVEN,
    fused=EVEN,
    weights=(0.7, 0.3, 0.0),
    label="happy",
    confidence=0.86,
    reason=None,
    age_ms=(21, None),
    skipped=0,
    model="3f2a91",
)


def test_the_json_of_a_cue_holds_plain_values_in_the_order_of_the_format() -> None:
    written = CUE.to_json()
    wanted = "v t source frame track box speaking face voice words raw fused weights label confidence reason"
    assert list(written) == [*wanted.split(), "strength", "age_ms", "skipped", "model"]
    assert json.loads(json.dumps(written)) == written
    assert written["t"] == 12.3
    assert written["weights"] == {"face": 0.7, "voice": 0.3, "words": 0.0}
    assert written["age_ms"] == {"face": 21, "voice": None}


def test_only_a_live_cue_says_the_wall_clock_time() -> None:
    assert replace(CUE, epoch_ns=SECOND).to_json()["epoch_ns"] == SECOND
    assert "epoch_ns" not in CUE.to_json()


def test_a_voice_that_belongs_to_nobody_has_neither_track_nor_box() -> None:
    written = replace(CUE, track=None, box=None, frame=None).to_json()
    assert (written["track"], written["box"], written["frame"]) == (None, None, None)
