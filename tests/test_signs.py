"""A mouth that opens is told from a head that moves, and a voice from the noise it stands in."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from liveaffect.engines.recipe import SAMPLE_RATE
from liveaffect.realtime.attribution import AttributionSettings
from liveaffect.realtime.clock import MS, SECOND
from liveaffect.realtime.signs import SpeechEnergy, mouth_motion

LOUD = AttributionSettings().loud_nats


def a_face(seed: int = 0) -> NDArray[np.uint8]:
    """A face as far as matching is concerned: soft structure everywhere."""
    rng = np.random.default_rng(seed)
    rough = rng.uniform(40, 210, (16, 16, 3)).astype(np.float32)
    return np.clip(cv2.resize(rough, (64, 64), interpolation=cv2.INTER_CUBIC), 0, 255).astype(np.uint8)


def moved(
    face: NDArray[np.uint8], *, chin: float = 0.0, all_x: float = 0.0, all_y: float = 0.0
) -> NDArray[np.uint8]:
    """The same face, its lower part `chin` pixels further down, all of it shifted."""
    y, x = np.mgrid[0:64, 0:64].astype(np.float32)
    lower = np.clip((y - 42) / 6, 0, 1)
    warped = cv2.remap(
        face, x - np.float32(all_x), y - np.float32(all_y) - np.float32(chin) * lower,
        cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE,
    )  # fmt: skip
    return np.asarray(warped, np.uint8)


@pytest.mark.parametrize("chin", [-2.0, -1.0, -0.4, 0.0, 0.4, 1.0, 2.0])
def test_an_opening_mouth_is_positive_a_closing_one_negative_and_both_in_pixels(chin: float) -> None:
    for seed in range(5):
        face = a_face(seed)
        assert mouth_motion(face, moved(face, chin=chin)) == pytest.approx(chin, abs=0.2)


def test_light_that_changes_is_not_motion() -> None:
    face = a_face()
    darker = np.clip(face * 0.6 + 15, 0, 255).astype(np.uint8)
    assert abs(mouth_motion(face, darker)) < 0.05
    assert mouth_motion(face, moved(darker, chin=1.0)) == pytest.approx(1.0, abs=0.2)


def test_a_head_that_moves_is_not_a_mouth_that_moves() -> None:
    for seed in range(5):
        face = a_face(seed)
        assert abs(mouth_motion(face, moved(face, all_x=0.7, all_y=1.3))) < 0.25


def test_blur_of_one_picture_is_not_motion() -> None:
    for seed in range(5):
        face = a_face(seed)
        assert abs(mouth_motion(face, np.asarray(cv2.GaussianBlur(face, (0, 0), 1.5), np.uint8))) < 0.2


def test_where_nothing_can_be_matched_nothing_moves() -> None:
    flat = np.full((64, 64, 3), 128, np.uint8)
    assert mouth_motion(flat, flat) == 0.0
    assert mouth_motion(a_face(), flat) == 0.0
    assert mouth_motion(a_face(1), a_face(2)) == 0.0


def noise(seconds: float, loudness: float = 0.01) -> NDArray[np.float32]:
    return (np.random.default_rng(0).standard_normal(int(seconds * SAMPLE_RATE)) * loudness).astype(
        np.float32
    )


def a_vowel(seconds: float, loudness: float = 0.2) -> NDArray[np.float32]:
    t = np.arange(int(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    harmonics = np.arange(1, 20)[:, None]
    tone = (np.sin(2 * np.pi * 140 * harmonics * t) / harmonics).sum(axis=0)
    return np.asarray(loudness * tone, np.float32)


def values(energy: SpeechEnergy, samples: NDArray[np.float32], begin_ns: int = 0) -> NDArray[np.float64]:
    return np.array([value for _, value in energy.add(begin_ns, samples)])


def test_steady_noise_is_never_loud_and_a_voice_over_it_is() -> None:
    sound = noise(4.0)
    sound[2 * SAMPLE_RATE : 3 * SAMPLE_RATE] += a_vowel(1.0)
    heard = values(SpeechEnergy(), sound)
    assert heard[20:98].max() < LOUD
    assert heard[102:147].min() > 2 * LOUD
    assert heard[155:].max() < LOUD


def test_digital_silence_and_the_hum_of_a_converter_are_nothing() -> None:
    assert values(SpeechEnergy(), np.zeros(SAMPLE_RATE, np.float32)).max() == 0.0
    assert values(SpeechEnergy(), noise(1.0, 1e-4)).max() < LOUD


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(1, 2_000), min_size=1, max_size=12))
def test_the_envelope_does_not_depend_on_how_sound_comes_in(sizes: list[int]) -> None:
    sound = (noise(1.0) + a_vowel(1.0))[: sum(sizes)]
    whole = SpeechEnergy().add(5 * MS, sound)
    energy, parts, at = SpeechEnergy(), [], 0
    for size in sizes:
        parts += energy.add(5 * MS + at * SECOND // SAMPLE_RATE, sound[at : at + size])
        at += size
    assert [when for when, _ in parts] == pytest.approx([when for when, _ in whole], abs=2)
    assert [value for _, value in parts] == pytest.approx([value for _, value in whole], abs=1e-4)


def test_a_gap_in_the_sound_is_not_bridged() -> None:
    energy = SpeechEnergy()
    energy.add(0, noise(0.11))
    after = energy.add(SECOND, noise(0.1))
    assert after[0][0] == SECOND + 15 * MS


def test_samples_that_are_not_finite_count_as_silence() -> None:
    broken = noise(1.0)
    broken[4_000:5_000] = np.nan
    broken[5_000:6_000] = np.inf
    assert np.isfinite(values(SpeechEnergy(), broken)).all()
