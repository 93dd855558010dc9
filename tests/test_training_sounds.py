"""Another room, another microphone, another speaker: what augmentation may do to a voice, and what not."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from liveaffect.engines import parity
from liveaffect.engines.recipe import SAMPLE_RATE
from liveaffect.engines.training import synthetic_sounds
from liveaffect.engines.training.synthetic_sounds import Hearing, heard

NOTHING = Hearing(pace=0, colour=0, band_limit=0, room=0, noise=0, level=0)
ALWAYS = Hearing(pace=1, colour=1, band_limit=1, room=1, noise=1, level=1)


def speech(seed: int) -> NDArray[np.float32]:
    """A second of a made voice."""
    found: NDArray[np.float32] = parity.inputs("voice", 1, seed=seed, piece=SAMPLE_RATE)["samples"][0]
    return found


def test_nothing_is_changed_by_no_augmentation() -> None:
    np.testing.assert_allclose(heard(speech(3), np.random.default_rng(0), NOTHING), speech(3), atol=1e-5)


@pytest.mark.parametrize("seed", range(6))
def test_whatever_a_room_does_samples_stay_finite_and_within_range_and_dice_decide(seed: int) -> None:
    out, same = (heard(speech(seed), np.random.default_rng(seed), ALWAYS) for _ in range(2))
    np.testing.assert_array_equal(out, same)
    assert out.dtype == np.float32
    assert np.isfinite(out).all()
    assert np.abs(out).max() <= 1.0
    assert 2**-0.26 <= len(out) / SAMPLE_RATE <= 2**0.26


def test_noise_is_as_loud_as_asked_for() -> None:
    sound = 0.1 * speech(3) / np.abs(speech(3)).max()
    for snr_db in (0.0, 20.0):
        how = Hearing(pace=0, colour=0, band_limit=0, room=0, noise=1, snr_db=(snr_db, snr_db), level=0)
        added = heard(sound, np.random.default_rng(0), how) - sound
        assert 20 * np.log10(np.std(sound) / np.std(added)) == pytest.approx(snr_db, abs=0.3)


def test_twice_the_pace_is_half_as_long_and_an_octave_higher() -> None:
    at_s = np.arange(SAMPLE_RATE) / SAMPLE_RATE
    fast = synthetic_sounds.paced(np.sin(2 * np.pi * 300 * at_s).astype(np.float32), 2.0)
    assert len(fast) == SAMPLE_RATE // 2
    assert np.abs(np.fft.rfft(fast)).argmax() * 2 == pytest.approx(600, abs=2)


def test_every_made_sound_is_audible_or_silent_but_never_broken_and_a_seed_makes_it_again() -> None:
    bank = synthetic_sounds.bank(2, 3) | synthetic_sounds.unlearnt(2, 3)
    again = synthetic_sounds.bank(2, 3) | synthetic_sounds.unlearnt(2, 3)
    assert set(bank) == set(synthetic_sounds.KINDS) | set(synthetic_sounds.UNLEARNT)
    for kind, sounds in bank.items():
        for one, other in zip(sounds, again[kind], strict=True):
            assert one.shape == (round(synthetic_sounds.LENGTH_S * SAMPLE_RATE),)
            assert np.isfinite(one).all()
            assert np.abs(one).max() <= 1.0
            np.testing.assert_array_equal(one, other)
