"""What stands on frozen layers learns as it is used: pieces of the live grid, statistics that begin cold."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

torch = pytest.importorskip("torch", reason="networks are trained with torch")

from liveaffect.engines import parity
from liveaffect.engines.model import presets
from liveaffect.engines.model.frontend import WhisperSound
from liveaffect.engines.model.voice_statistics import (
    HeadPreset,
    SpeechJudge,
    StatisticsHead,
    StudentPreset,
    VoiceStudent,
    VoiceWhisper,
    over_time,
)
from liveaffect.engines.recipe import LABELS, SAMPLE_RATE, SpeakerStatistics, Statistics
from liveaffect.engines.training import piece_bank, train_listener, train_voice, voice_heads
from liveaffect.engines.training.corpora_voices import Take
from liveaffect.engines.training.listen import SPEECH, pieces_of
from liveaffect.engines.training.piece_bank import MOMENT_STEPS, NOTHING, Moments, PieceBank, Sound
from liveaffect.engines.training.voice_answers import called_among

WIDTH, PIECES, SPEAKERS = 24, 6, 8
SOUND = WhisperSound(piece=25_600, hop=6_400)


def made_up(seed: int = 0) -> PieceBank:
    """Speakers who differ more than moods do; each mood moves one number of whoever is in it."""
    rng = np.random.default_rng(seed)
    who = [(speaker, label, take) for speaker in range(SPEAKERS) for label in (0, 1, 3) for take in range(6)]
    offset = rng.normal(0, 4, (SPEAKERS, WIDTH))
    statistics = np.stack(
        [
            offset[speaker] + 2.0 * (np.arange(WIDTH) == label) + rng.normal(0, 0.7, WIDTH)
            for speaker, label, _ in who
            for _ in range(PIECES)
        ]
    )
    speech = np.tile(np.array([0.2, *[1.0] * (PIECES - 1)], np.float32), len(who))
    return PieceBank(
        statistics=statistics.astype(np.float16),
        newest=np.zeros((len(statistics), 4), np.float16),
        speech=speech,
        weight=speech,
        owner=np.repeat(np.arange(len(who)), PIECES),
        label=np.array([label for _, label, _ in who]),
        speaker=np.array([f"made/{speaker}" for speaker, _, _ in who]),
        copy=np.zeros(len(who), np.int64),
        name=np.array([f"{speaker}-{label}-{take}" for speaker, label, take in who]),
    )


Learnt = tuple[voice_heads.Voices, StatisticsHead, NDArray[np.int64]]


@pytest.fixture(scope="module")
def learnt() -> Learnt:
    torch.set_num_threads(1)
    bank = made_up()
    held = bank.speaker == "made/0"
    voices = voice_heads.Voices(bank, voice_heads.measure_of(bank, ~held))
    schedule = voice_heads.HeadSchedule(steps=600, batch=24)
    return (
        voices,
        voice_heads.fit(voices, ~held, HeadPreset(hidden=16, dropout=0.1), schedule),
        np.flatnonzero(held),
    )


def test_a_stranger_is_understood_better_the_longer_they_are_known(learnt: Learnt) -> None:
    voices, head, rows = learnt
    among = np.array([0, 1, 3])
    bank = voices.bank
    cold, known = (
        np.mean([called_among(one, among) == bank.label[row] for row, one in said.items()])
        for said in (voice_heads.asked(voices, head, rows, 0.4, known=flag) for flag in (False, True))
    )
    assert known > 0.6
    assert known > cold


def test_pieces_are_normalised_as_live_by_what_came_before(learnt: Learnt) -> None:
    voices, head, rows = learnt
    row = int(rows[0])
    said = voice_heads.asked(voices, head, np.array([row]), 0.4, known=False)[row]
    running = SpeakerStatistics.cold(kept=Statistics(WIDTH, "pieces"))
    for at, piece in enumerate(range(int(voices.start[row]), int(voices.end[row]))):
        z = voices.z[piece].float().numpy()
        mean, istd = running.normaliser()
        with torch.inference_mode():
            _, score, logits = head(torch.from_numpy((z - mean) * istd)[None])
        # What is forgotten of the prior in so few pieces is all that differs.
        np.testing.assert_allclose(said.logits[at], logits[0].numpy(), atol=0.15)
        np.testing.assert_allclose(said.score[at], score[0, 0].numpy(), atol=0.05)
        weight = float(voices.bank.weight[piece])
        running.add(z, z**2, speech=weight if weight >= SPEECH else 0.0, new=1.0)


def test_nothing_of_a_speaker_left_out_reaches_the_measure() -> None:
    bank = made_up()
    held = bank.speaker == "made/0"
    before = voice_heads.measure_of(bank, ~held)
    bank.statistics[held[bank.owner]] += 100
    after = voice_heads.measure_of(bank, ~held)
    assert torch.equal(before.mean, after.mean)
    assert torch.equal(before.deviation, after.deviation)


def test_the_first_piece_ends_with_the_first_sound_and_the_last_ones_with_silence() -> None:
    sound = np.arange(1, 20_001, dtype=np.float32)
    pieces = pieces_of(sound, SOUND.piece, SOUND.hop, SOUND.lead)
    assert len(pieces) == len(sound) // SOUND.hop + SOUND.lead // SOUND.hop
    assert not pieces[0, : SOUND.lead].any()
    np.testing.assert_array_equal(pieces[0, SOUND.lead :], sound[: SOUND.hop])
    np.testing.assert_array_equal(pieces[2, -SOUND.hop :], sound[2 * SOUND.hop : 3 * SOUND.hop])
    last = len(sound) % SOUND.hop + SOUND.piece - SOUND.lead  # What is left of the sound in the last piece.
    np.testing.assert_array_equal(pieces[-1, :last], sound[-last:])
    assert not pieces[-1, last:].any()


def test_plain_talk_is_drawn_more_often_than_any_mood() -> None:
    corpus, label = np.array(["a"] * 6 + ["b"] * 3), np.array([0, 0, 1, 1, 1, 3, 0, 1, 1])
    chance = voice_heads.even_chances(corpus, label, 2.0)
    of = {one: chance[(corpus == "a") & (label == one)].sum() for one in (0, 1, 3)}
    assert of[0] == pytest.approx(2 * of[1])
    assert of[1] == pytest.approx(of[3])
    assert chance.sum() == pytest.approx(1.0)


def test_what_is_quiet_is_no_speech() -> None:
    loud = 0.1 * np.random.default_rng(0).normal(size=3 * SOUND.hop)
    loud[SOUND.hop : 2 * SOUND.hop] *= 1e-3
    assert piece_bank.spoken(loud, SOUND.hop, 3).tolist() == [1.0, 0.0, 1.0]


def test_a_bank_that_was_stopped_goes_on_to_the_same_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    network = VoiceStudent(StudentPreset("tiny", SOUND, stem=4, width=8, dilations=(1,))).eval()
    monkeypatch.setattr(piece_bank, "GROUP", 2)
    samples = parity.inputs("voice", 3, piece=SAMPLE_RATE)["samples"]
    take = Take("made", "a", "made/1", "happy", tmp_path)
    sounds = [Sound(samples[0], take), Sound(samples[1], replace(take, name="b")), Sound(samples[2])]
    lines: list[str] = []
    assert piece_bank.filled(network, sounds, 2, tmp_path / "one", limit_s=-1.0, report=lines.append) is None
    assert "0 of 4 groups" in lines[0]
    bank = piece_bank.filled(network, sounds, 2, tmp_path / "one")
    again = piece_bank.filled(network, sounds, 2, tmp_path / "two")
    assert bank is not None
    assert again is not None
    np.testing.assert_array_equal(bank.statistics, again.statistics)
    assert bank.label.tolist() == [LABELS.index("happy")] * 2 + [NOTHING] + [LABELS.index("happy")] * 2 + [
        NOTHING
    ]
    assert bank.copy.tolist() == [0, 0, 0, 1, 1, 1]
    assert not bank.speech[(bank.label == NOTHING)[bank.owner]].any()
    assert bank.speech[(bank.label != NOTHING)[bank.owner]].any()
    kept = {path: path.stat().st_mtime_ns for path in (tmp_path / "one").rglob("*.npz")}
    more = piece_bank.filled(network, [*sounds[:2], Sound(sounds[2].samples), sounds[0]], 1, tmp_path / "one")
    assert more is not None
    assert {path: path.stat().st_mtime_ns for path in kept} == kept  # What was heard is not heard again.
    assert len(list((tmp_path / "one").rglob("*.npz"))) == len(kept) + 1
    assert len(more.label) == 4


MOMENTS, FEATURES = 20, 3 * 384


def rising_and_falling() -> PieceBank:
    """Moods that differ in the order of their moments alone: mean and deviation are the same."""
    rng = np.random.default_rng(3)
    bank = made_up()
    label = np.where(np.arange(len(bank.label)) % 2 == 0, LABELS.index("happy"), LABELS.index("sad"))
    way = np.where(label == LABELS.index("happy"), 1.0, -1.0)[bank.owner]
    raw = rng.normal(0, 0.7, (len(bank.owner), MOMENTS, FEATURES))
    raw[:, :, :8] += (way[:, None] * np.linspace(-2, 2, MOMENTS))[:, :, None]
    pieces = np.flatnonzero(bank.weight >= SPEECH)
    steps = np.clip(raw[pieces] * MOMENT_STEPS, -127, 127).astype(np.int8)
    half = len(steps) // 2
    moments = Moments(
        parts=[steps[:half], steps[half:]],
        middle=np.full((2, FEATURES), 3.0, np.float32),
        spread=np.full((2, FEATURES), 0.5, np.float32),
        share=np.full((len(steps), MOMENTS), 1 / MOMENTS, np.float16),
        piece=pieces,
    )
    return replace(bank, label=label, moments=moments)


def test_a_listener_hears_the_order_that_mean_and_deviation_lose(tmp_path: Path) -> None:
    torch.set_num_threads(1)
    bank = rising_and_falling()
    held = bank.speaker == "made/0"
    network = presets.build("voice", "whisper")
    assert isinstance(network, VoiceWhisper)
    plan = replace(train_listener.usual_schedule(), epochs=2)
    task = train_listener.ListenTask(bank, ~held, steps=20)
    found = train_listener.teach(network, task, tmp_path, plan, report=lambda _: None)
    assert found is not None
    assert found.moments is not None
    width = found.statistics.shape[1] - WIDTH
    assert width == 2 * network.preset.listener.width
    np.testing.assert_array_equal(found.statistics[:, width:], bank.statistics)
    # Without the listener's statistics a head knows nothing of this; with them it does, of a stranger too.
    right = []
    for one in (bank, found):
        voices = voice_heads.Voices(one, voice_heads.measure_of(one, ~held))
        schedule = voice_heads.HeadSchedule(steps=100, batch=24)
        first = one.statistics.shape[1] - WIDTH
        head = voice_heads.fit(voices, ~held, HeadPreset(hidden=16, dropout=0.1), schedule, first)
        said = voice_heads.asked(voices, head, np.flatnonzero(held), 0.4, known=False)
        among = np.unique(bank.label)
        right.append(np.mean([called_among(it, among) == bank.label[row] for row, it in said.items()]))
    assert right[0] < 0.75
    assert right[1] > 0.95
    # What learnt moments in the measure of speech takes them as the layers have them.
    rows = np.arange(4)
    raw = torch.from_numpy(np.asarray(found.moments.parts[0][:4], np.float32)) / MOMENT_STEPS * 0.5 + 3.0
    with torch.inference_mode():
        both = over_time((network.listener.eval()(raw),), torch.full((4, MOMENTS), 1 / MOMENTS))
    mean = both[:, : width // 2]
    told = found.statistics[found.moments.piece[rows], : width // 2].astype(np.float32)
    np.testing.assert_allclose(mean.numpy(), told, atol=0.05 * float(np.abs(told).max()))


def test_the_judge_learns_what_is_speech_in_features_of_any_measure() -> None:
    rng = np.random.default_rng(1)
    bank = made_up()
    newest = 50 + 20 * rng.normal(size=(len(bank.owner), 6))
    newest[:, 2] += 100 * bank.speech
    heard = replace(bank, newest=newest.astype(np.float16))
    torch.manual_seed(0)
    judge = SpeechJudge(6, 8)
    train_voice.fit(heard, bank.speaker != "made/0", judge, 0)
    with torch.inference_mode():
        said = judge(torch.from_numpy(heard.newest).float())[:, 0].numpy()
    assert ((said > 0.5) == (bank.speech > 0.5)).mean() > 0.95
