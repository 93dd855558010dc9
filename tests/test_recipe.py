"""Crops put the eyes where the template says; speaker statistics are those of the frames they were given."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from liveaffect.engines.recipe import (
    CROP_SIZE,
    EYE_IMAGE_LEFT,
    EYE_IMAGE_RIGHT,
    HOP,
    LABELS,
    MEL_BANDS,
    MIN_VARIANCE,
    PIECE,
    PRIOR_MEAN,
    PRIOR_VARIANCE,
    SAMPLE_RATE,
    STATISTICS_DECAY_S,
    STFT_FRAMES,
    STFT_STEP,
    SpeakerStatistics,
    crop_matrix,
)

points = st.tuples(st.floats(-2_000, 2_000), st.floats(-2_000, 2_000)).map(np.array)
HOP_FRAMES = HOP / STFT_STEP


def place(matrix: NDArray[np.float64], point: NDArray[np.float64]) -> NDArray[np.float64]:
    placed: NDArray[np.float64] = matrix @ np.append(point, 1.0)
    return placed


@given(points, points)
def test_the_eyes_come_to_lie_where_the_template_says(
    left: NDArray[np.float64], right: NDArray[np.float64]
) -> None:
    if np.linalg.norm(right - left) < 1:
        return
    matrix = crop_matrix(left, right)
    for eye, wanted in ((left, EYE_IMAGE_LEFT), (right, EYE_IMAGE_RIGHT)):
        np.testing.assert_allclose(place(matrix, eye), np.multiply(wanted, CROP_SIZE) - 0.5, atol=1e-6)


@given(points, points)
def test_a_crop_turns_and_scales_but_never_shears_or_mirrors(
    left: NDArray[np.float64], right: NDArray[np.float64]
) -> None:
    if np.linalg.norm(right - left) < 1:
        return
    turn = crop_matrix(left, right)[:, :2]
    scale = np.sqrt(np.linalg.det(turn))
    np.testing.assert_allclose(turn @ turn.T, np.eye(2) * scale**2, rtol=1e-9, atol=1e-12)
    eyes_px = (EYE_IMAGE_RIGHT[0] - EYE_IMAGE_LEFT[0]) * CROP_SIZE
    assert scale == pytest.approx(eyes_px / np.linalg.norm(right - left))


def test_in_an_upright_face_the_mouth_stays_below_the_eyes() -> None:
    matrix = crop_matrix(np.array([100.0, 100.0]), np.array([140.0, 100.0]))
    x, y = place(matrix, np.array([120.0, 143.0]))
    assert (x + 0.5) / CROP_SIZE == pytest.approx(0.5025)
    assert (y + 0.5) / CROP_SIZE == pytest.approx(0.39 + 0.375 * 43 / 40)


def test_eyes_that_coincide_are_refused() -> None:
    with pytest.raises(ValueError, match="coincide"):
        crop_matrix(np.array([3.0, 4.0]), np.array([3.0, 4.0]))


def test_the_piece_is_a_whole_number_of_frames_and_hops_overlap_by_whole_frames() -> None:
    assert STFT_FRAMES == 32
    assert (PIECE - 400) % STFT_STEP == 0
    assert HOP % STFT_STEP == 0
    assert len(LABELS) == 7


def test_a_cold_speaker_is_normalised_by_the_prior() -> None:
    mean, istd = SpeakerStatistics.cold().normaliser()
    assert mean.shape == istd.shape == (MEL_BANDS,)
    assert mean.dtype == istd.dtype == np.float32
    np.testing.assert_allclose(mean, PRIOR_MEAN)
    np.testing.assert_allclose(istd, 1 / np.sqrt(PRIOR_VARIANCE), rtol=1e-6)


def test_priors_can_differ_from_band_to_band() -> None:
    mean, _ = SpeakerStatistics.cold(np.arange(MEL_BANDS, dtype=float), 1.0).normaliser()
    np.testing.assert_allclose(mean, np.arange(MEL_BANDS))


def pieces(count: int, seed: int) -> list[NDArray[np.float64]]:
    rng = np.random.default_rng(seed)
    return [rng.normal(-4.0, 1.5, (STFT_FRAMES, MEL_BANDS)) for _ in range(count)]


@given(st.integers(1, 40), st.integers(0, 99), st.floats(0.1, 1.0))
def test_running_statistics_equal_the_weighted_sum_over_all_frames(
    count: int, seed: int, speech: float
) -> None:
    mels = pieces(count, seed)
    running = SpeakerStatistics.cold()
    for mel in mels:
        running.add(mel.sum(axis=0), (mel**2).sum(axis=0), speech=speech, new=HOP_FRAMES)
    new = HOP_FRAMES * speech
    keep = np.exp(-new * STFT_STEP / SAMPLE_RATE / STATISTICS_DECAY_S)
    weights = new * keep ** np.arange(count - 1, -1, -1)
    prior = 80 * keep**count
    total = prior * PRIOR_MEAN + sum(w * mel.mean(axis=0) for w, mel in zip(weights, mels, strict=True))
    square = prior * (PRIOR_VARIANCE + PRIOR_MEAN**2)
    square = square + sum(w * (mel**2).mean(axis=0) for w, mel in zip(weights, mels, strict=True))
    weight = prior + weights.sum()
    mean, istd = running.normaliser()
    np.testing.assert_allclose(mean, total / weight, rtol=1e-5)
    np.testing.assert_allclose(istd, 1 / np.sqrt(square / weight - (total / weight) ** 2), rtol=1e-4)


def test_after_a_minute_of_speech_the_statistics_are_the_speakers() -> None:
    statistics = SpeakerStatistics.cold()
    for mel in pieces(300, 1):
        statistics.add(mel.sum(axis=0), (mel**2).sum(axis=0), speech=1.0, new=HOP_FRAMES)
    mean, istd = statistics.normaliser()
    assert np.abs(mean - -4.0).max() < 0.2
    assert np.abs(1 / istd - 1.5).max() < 0.2


def test_what_is_not_speech_changes_nothing() -> None:
    statistics = SpeakerStatistics.cold()
    loud = np.full(MEL_BANDS, 99.0)
    statistics.add(loud, loud**2, speech=0.0, new=HOP_FRAMES)
    statistics.add(loud, loud**2, speech=-1.0, new=HOP_FRAMES)
    statistics.add(loud, loud**2, speech=1.0, new=0)
    np.testing.assert_allclose(statistics.normaliser()[0], PRIOR_MEAN)


@pytest.mark.parametrize(
    ("where", "bad"),
    [(where, bad) for where in ("stat_sum", "stat_sumsq", "new") for bad in (np.nan, np.inf)]
    + [("speech", np.nan)],
)
def test_a_piece_with_a_number_that_is_not_finite_is_left_out(where: str, bad: float) -> None:
    statistics = SpeakerStatistics.cold()
    ones = np.ones(MEL_BANDS)
    spoilt = np.where(np.arange(MEL_BANDS) == 3, bad, ones)
    statistics.add(
        spoilt if where == "stat_sum" else ones,
        spoilt if where == "stat_sumsq" else ones,
        speech=bad if where == "speech" else 1.0,
        new=bad if where == "new" else HOP_FRAMES,
    )
    np.testing.assert_allclose(statistics.normaliser()[0], PRIOR_MEAN)
    assert np.isfinite(statistics.weight)


def test_a_band_that_never_changes_is_not_divided_by_nothing() -> None:
    statistics = SpeakerStatistics.cold()
    for _ in range(500):
        still = np.full(MEL_BANDS, -13.8 * STFT_FRAMES)
        statistics.add(still, np.full(MEL_BANDS, 13.8**2 * STFT_FRAMES), speech=1.0, new=HOP_FRAMES)
    _, istd = statistics.normaliser()
    np.testing.assert_allclose(istd, 1 / np.sqrt(MIN_VARIANCE), rtol=1e-3)


def test_a_copy_goes_its_own_way() -> None:
    statistics = SpeakerStatistics.cold()
    other = statistics.copy()
    mel = pieces(1, 0)[0]
    other.add(mel.sum(axis=0), (mel**2).sum(axis=0), speech=1.0, new=HOP_FRAMES)
    np.testing.assert_allclose(statistics.normaliser()[0], PRIOR_MEAN)
    assert np.abs(other.normaliser()[0] - PRIOR_MEAN).mean() > 0.05
