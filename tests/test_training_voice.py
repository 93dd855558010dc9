"""A voice network is trained on what it will be given live: same pieces, same statistics, same pooling."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

pytest.importorskip("torch", reason="networks are trained with torch: pip install liveaffect[train]")

import torch

from liveaffect.engines import probe
from liveaffect.engines.model import presets
from liveaffect.engines.model.heads import VoiceAnswer, VoiceNetwork
from liveaffect.engines.model.voice_fcn import LocalNorm
from liveaffect.engines.recipe import HOP, LABELS, LOG_FLOOR, MEL_BANDS, PIECE, SAMPLE_RATE, SpeakerStatistics
from liveaffect.engines.training import synthetic_sounds, voice_loss
from liveaffect.engines.training.augment_sound import NONE, Strength
from liveaffect.engines.training.corpora_voices import Take
from liveaffect.engines.training.listen import asking, listen
from liveaffect.engines.training.quick_norm import QuickLocalNorm, quicken
from liveaffect.engines.training.replay_statistics import Replay, speech_frames
from liveaffect.engines.training.taught_voice import replaying
from liveaffect.engines.training.voice_batches import (
    NO_LABEL,
    Batches,
    Drawing,
    Recording,
    VoiceBatch,
    recorded,
    unspoken,
)
from liveaffect.realtime.audio_ring import AudioRing
from liveaffect.realtime.frame import AudioBlock
from liveaffect.realtime.pooling import Evidence, pool, weighted_score
from liveaffect.realtime.voice_analyzer import VoiceAnalyzer
from liveaffect.realtime.window import PieceGrid

torch.set_num_threads(1)
SECONDS = 2.0
Sound = NDArray[np.float32]


def speech(seed: int, seconds: float = SECONDS) -> Sound:
    """Some syllables of a made voice between two stretches of a quiet room."""
    count = round(seconds * SAMPLE_RATE)
    sound = probe.inputs("voice", 1, seed=seed, piece=count)["samples"][0]
    quiet = np.random.default_rng(seed).normal(0, 1e-4, count).astype(np.float32)
    quiet[count // 5 : -count // 5] += sound[count // 5 : -count // 5]
    return quiet


def take(name: str, speaker: str = "x/1", label: str = "happy", corpus: str = "x") -> Take:
    return Take(corpus, name, speaker, label, Path(name))


def some(replay: Replay, count: int = 6) -> list[Recording]:
    takes = [take(f"{i}", f"x/{i % 2}", LABELS[i % 3]) for i in range(count)]
    return recorded(takes, [speech(i) for i in range(count)], replay)


class AllIsSpeech:
    """A network that takes everything for speech, and keeps what it was given."""

    def __init__(self, network: VoiceNetwork) -> None:
        self._ask = asking(network)
        self.given: list[dict[str, NDArray[Any]]] = []

    def __call__(self, given: Mapping[str, NDArray[Any]]) -> Mapping[str, NDArray[Any]]:
        self.given.append({name: array.copy() for name, array in given.items()})
        answer = dict(self._ask(given))
        answer["speech"] = np.full_like(answer["speech"], 0.9)
        return answer


def network(preset: str = "live") -> VoiceNetwork:
    made = presets.build("voice", preset, seed=5).eval()
    assert isinstance(made, VoiceNetwork)
    return made


def live(sound: Sound, ask: AllIsSpeech, grid: PieceGrid) -> list[dict[str, NDArray[Any]]]:
    """What the live path gives the network for this sound, 20 ms at a time."""
    ring = AudioRing(len(sound))
    voice_analyzer = VoiceAnalyzer("microphone:0", ring, grid)
    for start in range(0, len(sound) - 319, 320):
        ring.push(AudioBlock("microphone:0", start, start * 62_500, sound[start : start + 320].copy()))
        for piece in voice_analyzer.due(hop_doubled=False):
            answer = ask({name: array[None] for name, array in voice_analyzer.inputs(piece).items()})
            voice_analyzer.take(piece, {name: array[0] for name, array in answer.items()})
    return ask.given


@pytest.mark.parametrize("preset", ["live", "live-fcn", "live-wide"])
def test_what_is_trained_on_is_what_the_live_path_gives_the_network(preset: str) -> None:
    sound = speech(1)
    ask = AllIsSpeech(network(preset))
    replay = Replay(network(preset).sound)
    given = live(sound, ask, PieceGrid(replay.preset.piece, replay.preset.hop, replay.preset.lead))
    pieces = replay.run(replay.picture(sound), np.full(len(given), 0.9))
    assert len(pieces.power) == len(given) > 3
    for name, found in (("mean", pieces.mean), ("istd", pieces.istd), ("samples", replay.samples(sound))):
        np.testing.assert_allclose(np.concatenate([one[name] for one in given]), found, atol=1e-4)
    assert np.abs(np.diff(pieces.mean, axis=0)).max() > 0.1, "the statistics never moved"


@pytest.mark.parametrize("preset", ["live", "live-fcn", "live-wide", "amfbp"])
def test_a_network_answers_the_same_to_a_log_spectrum_computed_before(preset: str) -> None:
    whole, ready = network(preset), network(preset)
    replay = replaying(ready)
    sound = speech(2, replay.preset.piece / SAMPLE_RATE + 0.5)
    pieces = replay.run(replay.picture(sound), np.full(replay.count(replay.picture(sound).shape[1]), 1.0))
    inputs = [torch.from_numpy(part) for part in (replay.samples(sound), pieces.mean, pieces.istd)]
    with torch.inference_mode():
        for one, other in zip(
            whole(*inputs), ready(torch.from_numpy(pieces.power), *inputs[1:]), strict=True
        ):
            np.testing.assert_allclose(one, other, atol=2e-3, rtol=2e-3)


def test_a_recording_shorter_than_a_piece_is_filled_up_with_silence() -> None:
    replay = Replay(network().sound)
    picture = replay.picture(speech(1)[: PIECE // 2])
    assert replay.count(picture.shape[1]) == 1
    np.testing.assert_allclose(picture[:, -1], np.log(LOG_FLOOR), atol=1e-3)
    assert replay.samples(speech(1)[: PIECE // 2]).shape == (1, PIECE)


def test_many_recordings_side_by_side_are_heard_like_one_after_the_other() -> None:
    ask = AllIsSpeech(network())
    replay = Replay(network().sound)
    pieces = [replay.samples(speech(i, 0.6 + 0.4 * i)) for i in range(4)]
    together = listen(ask, pieces, HOP)
    for one, alone in zip(together, (listen(ask, [part], HOP)[0] for part in pieces), strict=True):
        np.testing.assert_allclose(one.logits, alone.logits, atol=1e-4)
        np.testing.assert_allclose(one.mean, alone.mean, atol=1e-4)


def test_what_is_known_of_a_speaker_goes_on() -> None:
    ask, replay = AllIsSpeech(network()), Replay(network().sound)
    known = SpeakerStatistics.cold()
    first, second = (replay.samples(speech(i)) for i in (1, 2))
    listen(ask, [first], HOP, [known])
    (warm,) = listen(ask, [second], HOP, [known.copy()])
    np.testing.assert_allclose(warm.mean[0], known.normaliser()[0])


def test_only_speech_that_was_heard_counts_and_silence_gives_no_answer() -> None:
    ask, replay = AllIsSpeech(network()), Replay(network().sound)
    (one,) = listen(ask, [replay.samples(speech(1))], HOP)
    early = one.until(0.5)
    assert len(early.score) == 3  # 0.9 of 0.2 s each
    evidence = [
        Evidence(i, one.vector[i], one.logits[i], weighted_score(float(one.score[i]), 0.9))
        for i in range(len(one.score))
    ]
    found = one.pooled()
    assert found is not None
    np.testing.assert_allclose(found, pool(evidence, None).logits, atol=1e-5)
    one.speech[:] = 0.1
    assert one.pooled() is None


def batch_of(speech_shares: list[float], owner: list[int], labels: list[int]) -> VoiceBatch:
    shares = torch.tensor(speech_shares)
    count = len(owner)
    label = torch.tensor(labels)
    return VoiceBatch(
        power=torch.zeros(count, MEL_BANDS, 32),
        mean=torch.zeros(count, MEL_BANDS),
        istd=torch.ones(count, MEL_BANDS),
        speech=shares,
        owner=torch.tensor(owner),
        counts=(shares >= 0.5) & (label[torch.tensor(owner)] != NO_LABEL),
        labels=label,
    )


def answer_of(count: int, seed: int = 0) -> VoiceAnswer:
    rng = np.random.default_rng(seed)

    def drawn(*shape: int) -> Any:
        return torch.from_numpy(rng.normal(size=shape).astype(np.float32)).requires_grad_()

    speech_told = torch.sigmoid(drawn(count, 1))
    return VoiceAnswer(
        drawn(count, 64), drawn(count, 1), drawn(count, 7), speech_told, drawn(count, 64), drawn(count, 64)
    )


def test_pooling_in_training_is_pooling_in_use() -> None:
    batch = batch_of([0.9, 0.2, 0.6, 1.0, 0.7, 0.0], [0, 0, 0, 1, 1, 2], [1, 2, NO_LABEL])
    answer = VoiceAnswer(*(part.detach() for part in answer_of(6)))
    found, has_evidence = voice_loss.pooled_logits(answer, batch)
    assert has_evidence.tolist() == [True, True, False]
    for recording, pieces in enumerate(([0, 2], [3, 4])):
        evidence = [
            Evidence(
                i,
                answer.vector[i].numpy(),
                answer.logits[i].numpy(),
                weighted_score(float(answer.score[i]), float(batch.speech[i])),
            )
            for i in pieces
        ]
        np.testing.assert_allclose(found[recording], pool(evidence, None).logits, atol=1e-5)


def test_the_weight_a_piece_asks_for_learns_and_a_silent_one_teaches_no_emotion() -> None:
    batch = batch_of([0.9, 0.8, 0.1], [0, 0, 0], [3])
    answer = answer_of(3)
    answer.logits.retain_grad()
    answer.score.retain_grad()
    voice_loss.loss(answer, batch, torch.ones(7)).backward()  # type: ignore[no-untyped-call]
    assert answer.score.grad is not None
    assert answer.score.grad[:2].abs().min() > 0
    assert answer.logits.grad is not None
    assert answer.logits.grad[2].abs().max() == 0


def test_a_batch_of_nothing_but_noise_teaches_only_what_is_no_speech() -> None:
    batch = batch_of([0.0, 0.0], [0, 1], [NO_LABEL, NO_LABEL])
    answer = answer_of(2)
    found = voice_loss.loss(answer, batch, torch.ones(7))
    told = answer.speech[:, 0].detach()
    wanted = voice_loss.SPEECH_WEIGHT * -(1 - told).log().mean() / 2
    assert float(found.detach()) == pytest.approx(float(wanted), rel=1e-5)


def test_rare_labels_weigh_as_much_as_frequent_ones() -> None:
    weights = voice_loss.class_weights([0] * 30 + [1] * 10 + [NO_LABEL])
    assert weights[0] * 30 == pytest.approx(float(weights[1]) * 10)
    assert weights[2:].abs().max() == 0


def test_the_quick_normalisation_is_the_plain_one_and_so_is_its_gradient() -> None:
    plain, quick = LocalNorm(alpha=0.1), QuickLocalNorm(alpha=0.1)
    given = torch.randn(2, 9, 3, 4, generator=torch.Generator().manual_seed(0))
    gradients = []
    for module in (plain, quick):
        x = given.clone().requires_grad_()
        out = module(x)
        (out * torch.linspace(-1, 1, out.numel()).reshape(out.shape)).sum().backward()
        assert x.grad is not None
        gradients.append((out.detach(), x.grad))
    for one, other in zip(*gradients, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)
    fast = network("live-fcn")
    quicken(fast)
    assert sum(isinstance(part, QuickLocalNorm) for part in fast.modules()) == 2
    fast.load_state_dict(network("live-fcn").state_dict())


def test_batches_depend_on_the_dice_alone_and_hold_every_recording_once() -> None:
    replay = Replay(network().sound)
    noises = unspoken([one for kind in synthetic_sounds.bank(1, 0).values() for one in kind], replay)
    batches = Batches(some(replay, 7), noises, replay, Strength(), Drawing(noises=0.3))
    order = batches.order(np.random.default_rng(1), 4)
    assert sorted(i for part in order for i in part if i < 7) == list(range(7))
    assert len(order) == batches.steps(4)
    assert all(sum(i >= 7 for i in part) == 1 for part in order)
    one, other = (batches.make(order[0], np.random.default_rng(2)) for _ in range(2))
    np.testing.assert_array_equal(one.power, other.power)
    assert one.labels[-1] == NO_LABEL
    assert not one.counts[one.owner == len(one.labels) - 1].any()
    assert one.speech[one.owner == len(one.labels) - 1].max() == 0


def test_a_small_corpus_is_not_drowned_by_a_large_one() -> None:
    replay = Replay(network().sound)
    picture = replay.picture(speech(0))
    takes = [take(f"{i}", corpus="small" if i < 100 else "large") for i in range(1000)]
    frames = speech_frames(picture)
    recordings = [Recording(one, picture, frames, np.zeros(0)) for one in takes]
    order = Batches(recordings, [], replay, NONE).order(np.random.default_rng(0), 50)
    share = np.mean([i < 100 for part in order for i in part])
    assert 0.2 < share < 0.3  # sqrt(100) / (sqrt(100) + sqrt(900))


def test_some_recordings_are_heard_after_another_of_their_speaker() -> None:
    replay = Replay(network().sound)
    for warm, moved in ((0.0, False), (1.0, True)):
        batches = Batches(some(replay), [], replay, NONE, Drawing(warm=warm, pieces=20, silent=1.0))
        made = batches.make([0], np.random.default_rng(0))
        cold = torch.from_numpy(SpeakerStatistics.cold().normaliser()[0])
        nearest = (made.mean - cold).abs().amax(1).min()
        assert (float(nearest) > 0.05) == moved
