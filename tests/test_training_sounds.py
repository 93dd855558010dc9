"""Another room, another microphone, another speaker: what augmentation may do to a voice, and what not."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

pytest.importorskip("torch", reason="networks are trained with torch: pip install liveaffect[train]")

import torch

from liveaffect.engines import probe
from liveaffect.engines.model import presets
from liveaffect.engines.recipe import LOG_FLOOR, MEL_BANDS, SAMPLE_RATE
from liveaffect.engines.training import augment_sound, synthetic_sounds
from liveaffect.engines.training.augment_sound import NONE, Strength, heard_elsewhere, masked, reverberated
from liveaffect.engines.training.replay_statistics import Replay, speech_frames

torch.set_num_threads(1)
SECONDS = 2.0
Sound = NDArray[np.float32]
LIVE = presets.VOICE_LIVE.sound


def speech(seed: int, seconds: float = SECONDS) -> Sound:
    """Some syllables of a made voice between two stretches of a quiet room."""
    count = round(seconds * SAMPLE_RATE)
    sound = probe.inputs("voice", 1, seed=seed, piece=count)["samples"][0]
    quiet = np.random.default_rng(seed).normal(0, 1e-4, count).astype(np.float32)
    quiet[count // 5 : -count // 5] += sound[count // 5 : -count // 5]
    return quiet


def test_nothing_is_changed_by_no_augmentation() -> None:
    replay = Replay(LIVE)
    picture = replay.picture(speech(3))
    same, frames = heard_elsewhere(picture, speech_frames(picture), [picture], np.random.default_rng(0), NONE)
    np.testing.assert_allclose(same, picture, atol=1e-4)
    np.testing.assert_array_equal(frames, speech_frames(picture))


ALWAYS = Strength(noise=1, reverb=1, colour=1, band_limit=1, codec=1, warp=1, shift=1)


@pytest.mark.parametrize("seed", range(12))
def test_whatever_a_room_does_the_spectrum_stays_finite_and_the_frames_fit(seed: int) -> None:
    replay = Replay(LIVE)
    picture = replay.picture(speech(seed))
    out, frames = heard_elsewhere(
        picture, speech_frames(picture), [picture], np.random.default_rng(seed), ALWAYS
    )
    assert out.shape == (MEL_BANDS, len(frames))
    assert out.dtype == np.float32
    assert np.isfinite(out).all()
    assert out.min() >= np.log(LOG_FLOOR) - 1e-3
    assert frames.any()


def test_noise_is_as_loud_as_asked_for() -> None:
    replay = Replay(LIVE)
    picture = replay.picture(speech(3))
    spoken = speech_frames(picture)
    noise = np.full((MEL_BANDS, 50), -2.0, np.float32)
    loud = np.exp(picture[:, spoken]).mean()
    for snr_db in (0.0, 20.0):
        strength = Strength(
            (0.0, 0.0), 1.0, (snr_db, snr_db), reverb=0, colour=0, band_limit=0, codec=0, warp=0, shift=0
        )
        out, _ = heard_elsewhere(picture, spoken, [noise], np.random.default_rng(0), strength)
        added = np.exp(out) - np.exp(picture)
        assert 10 * np.log10(loud / added.mean()) == pytest.approx(snr_db, abs=0.1)


def test_reverberation_rings_after_the_sound_and_never_before_it() -> None:
    power = np.zeros((2, 60), np.float32)
    power[:, 20] = 1.0
    out = reverberated(power, 0.3, 0.5)
    assert not out[:, :20].any()
    assert out[0, 20] == 1.0
    assert (np.diff(out[0, 21:36]) < 0).all()
    assert out[0, 21:].sum() == pytest.approx(0.5, rel=0.02)


def test_masks_hide_stripes_behind_the_speakers_own_mean() -> None:
    power = np.ones((40, MEL_BANDS, 32), np.float32)
    mean = np.full((40, MEL_BANDS), 7.0, np.float32)
    masked(power, mean, np.random.default_rng(0), share=1.0)
    assert set(np.unique(power)) == {1.0, 7.0}
    assert 0.02 < (power == 7.0).mean() < 0.5


def test_every_made_sound_is_audible_or_silent_but_never_broken_and_a_seed_makes_it_again() -> None:
    bank = synthetic_sounds.bank(2, 3)
    again = synthetic_sounds.bank(2, 3)
    assert set(bank) == set(synthetic_sounds.KINDS)
    for kind, sounds in bank.items():
        for one, other in zip(sounds, again[kind], strict=True):
            assert one.shape == (round(synthetic_sounds.LENGTH_S * SAMPLE_RATE),)
            assert np.isfinite(one).all()
            assert np.abs(one).max() <= 1.0
            np.testing.assert_array_equal(one, other)


def test_frames_of_speech_are_where_the_voice_is() -> None:
    replay = Replay(LIVE)
    frames = speech_frames(replay.picture(speech(4)))
    count = len(frames)
    assert frames[round(0.25 * count) : round(0.75 * count)].mean() > 0.9
    assert frames[: round(0.17 * count)].mean() < 0.1


def test_a_codec_leaves_steps_and_holes() -> None:
    picture = np.random.default_rng(0).normal(0, 3, (MEL_BANDS, 80)).astype(np.float32)
    out = augment_sound.coded(picture, np.random.default_rng(1))
    assert len(np.unique(out)) < 60
    assert (out == np.float32(np.log(LOG_FLOOR))).any()
