"""Wide pieces are drawn from anywhere in a recording, in the statistics the live path would have by then."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch", reason="networks are trained with torch: pip install liveaffect[train]")

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "benchmarks"))

from accuracy import folds_voice

from liveaffect.engines import probe
from liveaffect.engines.model import presets
from liveaffect.engines.model.frontend import SoundFront
from liveaffect.engines.model.heads import VoiceNetwork
from liveaffect.engines.recipe import LABELS, SAMPLE_RATE, SpeakerStatistics
from liveaffect.engines.training import synthetic_sounds, voice_loss
from liveaffect.engines.training.corpora_voices import Take
from liveaffect.engines.training.replay_statistics import Replay
from liveaffect.engines.training.rooms import Rooms
from liveaffect.engines.training.voice_batches import NO_LABEL, Recording, VoiceBatch, recorded, unspoken
from liveaffect.engines.training.voice_windows import WideBatches, Windows

torch.set_num_threads(1)
NOWHERE = Rooms(warp=0.0, coloured=0.0, gain=0.0, band_limit=0.0, noise=0.0, echo=0.0)
PLAIN = Windows(stray=0.0, joined=0.0, warm=0.0, pace=0.0, masked=0.0, room=NOWHERE)


@pytest.fixture(scope="module")
def network() -> VoiceNetwork:
    made = presets.build("voice", "live-wide", seed=5).eval()
    assert isinstance(made, VoiceNetwork)
    return made


@pytest.fixture(scope="module")
def replay(network: VoiceNetwork) -> Replay:
    return Replay(network.sound)


@pytest.fixture(scope="module")
def recordings(replay: Replay) -> list[Recording]:
    """Two corpora, the second without the last label; four seconds of a made voice."""
    takes, sounds = [], []
    for at in range(10):
        corpus, label = ("one", LABELS[at % 7]) if at < 7 else ("two", LABELS[at % 7])
        takes.append(Take(corpus, f"{at}", f"{corpus}/{at % 2}", label, Path("x")))
        sound = probe.inputs("voice", 1, seed=at, piece=4 * SAMPLE_RATE)["samples"][0]
        sounds.append(sound)
    return recorded(takes, sounds, replay)


def made(recordings: list[Recording], replay: Replay, windows: Windows, seed: int = 1) -> VoiceBatch:
    noises = unspoken([s for kind in synthetic_sounds.bank(1, 0).values() for s in kind], replay)
    batches = WideBatches(recordings, noises, replay, windows)
    rng = np.random.default_rng(seed)
    return batches.make(batches.order(rng, 30)[0], rng)


def test_a_piece_is_normalised_with_what_the_live_path_would_know_of_its_past(
    recordings: list[Recording], replay: Replay
) -> None:
    batch = made(recordings, replay, replace(PLAIN, late=1.0))
    cold = SpeakerStatistics.cold().normaliser()[0]
    moved = 0
    for row in np.flatnonzero(batch.labels[batch.owner] != NO_LABEL):
        running = SpeakerStatistics.cold()
        past = batch.power[row][:, : -replay.newest].numpy()
        for part in np.split(past, past.shape[1] // replay.newest, axis=1):
            sums, squares = part.mean(1) * replay.newest, np.square(part).mean(1) * replay.newest
            running.add(sums, squares, speech=1.0, new=replay.newest)
        wanted = running.normaliser()[0] - cold
        found = batch.mean[row].numpy() - cold
        moved += bool(np.abs(wanted).max() > 0.5)
        # Two seconds forget a tenth.
        np.testing.assert_allclose(found, wanted, atol=0.1 * np.abs(wanted).max() + 0.02)
    assert moved > 3


def test_batches_depend_on_the_dice_alone_and_noise_teaches_no_emotion(
    recordings: list[Recording], replay: Replay
) -> None:
    one, other = (made(recordings, replay, Windows(), seed=3) for _ in range(2))
    np.testing.assert_array_equal(one.power, other.power)
    assert torch.isfinite(one.power).all()
    assert torch.isfinite(one.istd).all()
    noise = one.labels[one.owner] == NO_LABEL
    assert noise.any()
    assert not one.counts[noise].any()
    assert one.speech[noise].max() == 0
    assert one.power.shape[1:] == (64, replay.preset.frames)


def test_a_label_that_a_corpus_lacks_is_neither_right_nor_wrong_there(
    network: VoiceNetwork, recordings: list[Recording], replay: Replay
) -> None:
    batch = made(recordings, replay, PLAIN)
    assert batch.possible is not None
    lacking = ~batch.possible.all(1)
    assert lacking.any()
    count = len(batch.owner)
    logits = torch.zeros(count, len(LABELS), requires_grad=True)
    answer = network.forward(torch.zeros(count, network.sound.piece), batch.mean, batch.istd)
    voice_loss.loss(answer._replace(logits=logits), batch, torch.ones(7)).backward()  # type: ignore[no-untyped-call]
    assert logits.grad is not None
    rows = lacking[batch.owner] & batch.counts
    gone = ~batch.possible[batch.owner]
    assert logits.grad[rows][gone[rows]].abs().max() == 0
    assert logits.grad[rows].abs().max() > 0


def test_the_sums_of_a_wide_piece_are_those_of_what_is_new_in_it(network: VoiceNetwork) -> None:
    rng = np.random.default_rng(0)
    sound = torch.from_numpy(rng.normal(0, 0.1, (1, network.sound.piece)).astype(np.float32))
    changed = sound.clone()
    changed[:, : network.sound.lead] *= 0.01
    with torch.inference_mode():
        heard = SoundFront(network.sound)(torch.cat([sound, changed]), torch.zeros(2, 64), torch.ones(2, 64))
    for sums in (heard.stat_sum, heard.stat_sumsq):
        np.testing.assert_allclose(sums[0], sums[1], rtol=1e-5, atol=1e-3)
    assert (heard.picture[0] - heard.picture[1]).abs().max() > 0.1


def test_every_speaker_is_left_out_once() -> None:
    takes = [Take("x", f"{at}", f"x/{at:02d}", "happy", Path("x")) for at in range(20)]
    out = np.stack([folds_voice.divided(takes, str(fold)) for fold in range(folds_voice.FOLDS)])
    assert (out.sum(0) == 1).all()
    assert (out.sum(1) == 4).all()
    others = [*takes, Take("y", "a", "y/1", "sad", Path("y"))]
    assert folds_voice.divided(others, "x>").tolist() == [False] * 20 + [True]
