"""What is said is heard while it is said: with Whisper itself, and scripted where time is the matter."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from liveaffect.engines.protocol import SPEECH_CHUNK, EngineFileError, HeardWords, SpeechReader, TimedWord
from liveaffect.engines.recipe import SAMPLE_RATE
from liveaffect.engines.transcriber import VoiceActivity
from liveaffect.realtime.acting import SENTENCES, make_speech, read_wav, speak
from liveaffect.realtime.clock import SECOND
from liveaffect.realtime.frame import AudioBlock
from liveaffect.realtime.ring import AudioRing
from liveaffect.realtime.utterance import Utterance
from liveaffect.realtime.words import OVERRUN, SPEECH, UNHEARD, WordsAnalyzer, WordTools
from liveaffect.spoken_choice import SpokenWish, folder_of, make_tools, why_no_words

BLOCK = SAMPLE_RATE // 10
TINY = SpokenWish("tiny.en")


@pytest.fixture(scope="module")
def whisper() -> WordTools:
    if why := why_no_words(TINY.name):
        pytest.skip(f"no Whisper tiny.en: {why}")
    return make_tools(folder_of(TINY.name), TINY)


def play(
    analyzer: WordsAnalyzer, ring: AudioRing, sound: NDArray[np.float32]
) -> list[tuple[float, Utterance]]:
    """The sound in blocks of a tenth of a second, every due pass made; each form with when it came."""
    forms, cursor = [], 0
    for first in range(0, len(sound), BLOCK):
        ring.push(AudioBlock("mic", first, first * SECOND // SAMPLE_RATE, sound[first : first + BLOCK]))
        while analyzer.step():
            pass
        batch = analyzer.said.read_since(cursor)
        cursor = batch.cursor
        forms += [((first + BLOCK) / SAMPLE_RATE, form) for form in batch.items]
    analyzer.finish()
    forms += [(len(sound) / SAMPLE_RATE, form) for form in analyzer.said.read_since(cursor).items]
    return forms


def text_of(forms: Sequence[tuple[float, Utterance]]) -> list[str]:
    newest = {form.number: form for _, form in forms}
    text = " ".join(word.text for _, form in sorted(newest.items()) for word in form.words if word.final)
    return re.findall(r"[a-z']+", text.lower())


def speech(tmp_path: Path) -> NDArray[np.float32]:
    sound = read_wav(make_speech(tmp_path))
    if len(sound) < 9 * SAMPLE_RATE:
        pytest.skip("espeak-ng is missing, so there is nobody to hear: apt-get install espeak-ng")
    return np.concatenate([sound, np.zeros(2 * SAMPLE_RATE, np.float32)])


def test_spoken_sentences_are_heard_while_they_are_said(whisper: WordTools, tmp_path: Path) -> None:
    ring = AudioRing(20 * SAMPLE_RATE)
    forms = play(WordsAnalyzer("mic", ring, whisper), ring, speech(tmp_path))
    found, wanted = text_of(forms), re.findall(r"[a-z']+", " ".join(SENTENCES).lower())
    missing = [word for word in wanted if word not in found]
    assert len(missing) <= 0.3 * len(wanted), f"of {wanted} these were not heard: {missing}; heard: {found}"
    assert len(found) <= 1.4 * len(wanted), f"words were made up: {found}"
    shown: dict[tuple[int, int], tuple[float, float]] = {}
    for at_s, form in forms:
        for place, word in enumerate(form.words):
            shown.setdefault((form.number, place), (at_s, word.end_ns / SECOND))
    assert np.median([at_s - end_s for at_s, end_s in shown.values()]) <= 1.0


@pytest.mark.parametrize("kind", ["silence", "noise", "tones"])
def test_where_nobody_speaks_no_word_is_made_up(whisper: WordTools, kind: str) -> None:
    rng, t = np.random.default_rng(1), np.arange(60 * SAMPLE_RATE) / SAMPLE_RATE
    sound = {
        "silence": np.zeros(len(t)),
        "noise": 0.05 * rng.standard_normal(len(t)) * (1 + np.sin(2 * np.pi * t / 3)),
        "tones": sum(
            0.1 * np.sin(2 * np.pi * f * t) * (np.sin(2 * np.pi * t * r) > 0)
            for f, r in ((220, 1), (330, 2), (440, 3))
        ),
    }[kind]
    ring = AudioRing(20 * SAMPLE_RATE)
    forms = play(WordsAnalyzer("mic", ring, whisper), ring, np.asarray(sound, np.float32))
    assert len(text_of(forms)) <= 1


def test_words_are_the_same_however_often_the_file_is_read(whisper: WordTools, tmp_path: Path) -> None:
    sound = speech(tmp_path)[: 5 * SAMPLE_RATE]
    heard = []
    for _ in range(2):
        ring = AudioRing(20 * SAMPLE_RATE)
        heard.append(
            [(at, form.words) for at, form in play(WordsAnalyzer("mic", ring, whisper), ring, sound)]
        )
    assert heard[0] == heard[1]


def test_a_voice_as_high_as_a_scream_is_speech_however_its_sound_is_cut(tmp_path: Path) -> None:
    if why := why_no_words(TINY.name):
        pytest.skip(f"the network for speech comes with the same packages: {why}")
    path = tmp_path / "high.wav"
    if not speak(path, "I told you, nobody is in the house!", "-v", "en+f3", "-p", "99", "-s", "130"):
        pytest.skip("espeak-ng is missing, so there is nobody to scream: apt-get install espeak-ng")
    sound = read_wav(path)
    octave_up = sound[: len(sound) // (6 * SPEECH_CHUNK) * (6 * SPEECH_CHUNK)][::2]
    at_once = VoiceActivity().add(octave_up)
    assert (at_once >= SPEECH).mean() > 0.6
    cut = VoiceActivity()
    parts = [cut.add(part) for part in octave_up.reshape(-1, SPEECH_CHUNK)]
    np.testing.assert_allclose(np.concatenate(parts), at_once, atol=1e-5)


class Loud:
    """Speech is where it is loud."""

    def add(self, samples: NDArray[np.float32]) -> NDArray[np.float32]:
        chunks = samples.reshape(-1, SPEECH_CHUNK)
        return np.asarray(np.abs(chunks).max(axis=1) > 0.1, np.float32)


class Counting:
    """Hears one word for each half second of sound and counts how often it is asked."""

    multilingual = False

    def __init__(self) -> None:
        self.seconds: list[float] = []

    def hear(
        self,
        samples: NDArray[np.float32],
        *,
        language: str | None = None,
        cut: bool = False,
    ) -> HeardWords:
        self.seconds.append(len(samples) / SAMPLE_RATE)
        count = int(self.seconds[-1] / 0.5)
        names = [chr(ord("a") + at % 26) + str(at // 26) for at in range(count)]
        words = tuple(TimedWord(f" {name}", at * 0.5, at * 0.5 + 0.5) for at, name in enumerate(names))
        return HeardWords(words, -0.1, 0.0, "en")

    def translate(self, samples: NDArray[np.float32], language: str) -> str:
        return ""


def analyzer(seconds: int = 20, reader: SpeechReader | None = None) -> tuple[WordsAnalyzer, AudioRing]:
    ring = AudioRing(seconds * SAMPLE_RATE)
    tools = WordTools(reader or Counting(), Loud, lambda text: None)
    return WordsAnalyzer("mic", ring, tools), ring


def loud(seconds: float) -> NDArray[np.float32]:
    return np.full(int(seconds * SAMPLE_RATE), 0.5, np.float32)


def quiet(seconds: float) -> NDArray[np.float32]:
    return np.zeros(int(seconds * SAMPLE_RATE), np.float32)


def test_silence_costs_no_pass() -> None:
    reader = Counting()
    words, ring = analyzer(reader=reader)
    play(words, ring, quiet(30))
    assert reader.seconds == []


def test_five_minutes_of_speech_without_a_pause_stay_within_bounds() -> None:
    reader = Counting()
    words, ring = analyzer(reader=reader)
    block, longest = loud(0.5), 0
    for at in range(600):
        ring.push(AudioBlock("mic", at * len(block), at * SECOND // 2, block))
        while words.step():
            pass
        newest = words.said.newest()
        longest = max(longest, 0 if newest is None else len(newest.words))
    assert max(reader.seconds) < 16.0
    assert longest < 120
    assert words.said.written > 100


def test_a_late_machine_hears_finished_utterances_newest_first_and_counts_what_it_gave_up() -> None:
    words, ring = analyzer(60)
    sound = np.concatenate([np.concatenate([loud(1.0), quiet(2.0)]) for _ in range(6)])
    for first in range(0, len(sound), BLOCK):
        ring.push(AudioBlock("mic", first, first * SECOND // SAMPLE_RATE, sound[first : first + BLOCK]))
    assert words.step(finished_only=True)
    newest = words.said.newest()
    assert newest is not None
    assert newest.number == 6
    assert words.lost[UNHEARD] == 3
    while words.step(finished_only=True):
        pass
    assert words.lost[UNHEARD] == 3


def test_an_utterance_that_grows_is_left_alone_when_only_finished_ones_are_heard() -> None:
    words, ring = analyzer()
    ring.push(AudioBlock("mic", 0, 0, loud(3.0)))
    assert not words.step(finished_only=True)
    assert words.step()


def test_sound_that_was_overwritten_unheard_is_counted() -> None:
    words, ring = analyzer(5)
    ring.push(AudioBlock("mic", 0, 0, quiet(1.0)))
    words.step()
    ring.push(AudioBlock("mic", SAMPLE_RATE, SECOND, loud(12.0)))
    words.step()
    assert words.lost[OVERRUN] > 0


def test_the_end_of_the_stream_ends_what_was_being_said() -> None:
    words, ring = analyzer()
    forms = play(words, ring, loud(2.0))
    assert forms[-1][1].ended
    assert all(word.final for word in forms[-1][1].words)


@pytest.mark.parametrize(
    ("name", "why"), [("tiny.en", "understands English alone, not 'xx'"), ("base", "knows no language 'xx'")]
)
def test_a_language_that_a_whisper_does_not_know_is_refused_before_anything_is_heard(
    name: str, why: str
) -> None:
    if lacking := why_no_words(name):
        pytest.skip(lacking)
    with pytest.raises(EngineFileError, match=why):
        make_tools(folder_of(name), SpokenWish(name, "xx"))


@pytest.fixture(scope="module")
def base() -> WordTools:
    if why := why_no_words("base"):
        pytest.skip(f"no Whisper base: {why}")
    return make_tools(folder_of("base"), SpokenWish("base"))


def test_a_language_may_change_with_the_utterance_and_is_put_into_english(
    base: WordTools, tmp_path: Path
) -> None:
    if shutil.which("espeak-ng") is None:
        pytest.skip("nobody speaks German here: apt-get install espeak-ng")
    parts, pause = list[NDArray[np.float32]](), quiet(1.6)
    for number, (voice, text) in enumerate(
        (
            ("en-us", "The weather is very nice today, and we are going to the beach."),
            ("de", "Heute ist das Wetter sehr schlecht, und wir bleiben alle zu Hause."),
            ("en-us", "Tomorrow we will come back and talk about it again."),
        )
    ):
        path = tmp_path / f"{number}.wav"
        subprocess.run(["espeak-ng", "-v", voice, "-s", "140", "-w", str(path), text], check=True)
        parts += [read_wav(path), pause]
    ring = AudioRing(20 * SAMPLE_RATE)
    newest = {
        form.number: form for _, form in play(WordsAnalyzer("mic", ring, base), ring, np.concatenate(parts))
    }
    assert [form.language for form in newest.values()] == ["en", "de", "en"]
    assert [bool(form.translation) for form in newest.values()] == [False, True, False]
    assert "bleiben" in " ".join(word.text for word in newest[2].words).lower()


def test_speech_without_pauses_is_heard_on_and_no_sentence_is_said_again(
    whisper: WordTools, tmp_path: Path
) -> None:
    """Words that were believed are neither told twice nor in the way of those behind them."""
    sound = speech(tmp_path)
    sound = sound[: len(sound) // (BLOCK // 8) * (BLOCK // 8)]
    loudness = np.abs(sound).reshape(-1, BLOCK // 8).max(axis=1)
    dense = np.repeat(loudness > 0.01, BLOCK // 8)
    ring = AudioRing(20 * SAMPLE_RATE)
    forms = play(WordsAnalyzer("mic", ring, whisper), ring, np.concatenate([sound[dense], quiet(2.0)]))
    found, wanted = text_of(forms), re.findall(r"[a-z']+", " ".join(SENTENCES).lower())
    assert len(found) <= 1.2 * len(wanted), f"words were said again: {found}"
    assert sum(word in found for word in wanted) >= 0.7 * len(wanted), f"words were lost: {found}"


class Stopping(Counting):
    """Hears two seconds of a longer sound and no more, as Whisper does behind a sentence."""

    def hear(
        self, samples: NDArray[np.float32], *, language: str | None = None, cut: bool = False
    ) -> HeardWords:
        return super().hear(samples[: 2 * SAMPLE_RATE], language=language, cut=cut)


def test_what_a_pass_leaves_out_behind_a_sentence_is_heard_as_a_piece_of_its_own() -> None:
    words, ring = analyzer(reader=Stopping())
    forms = play(words, ring, np.concatenate([loud(5.0), quiet(1.5)]))
    last = forms[-1][1].words[-1]
    assert last.end_ns >= 4.4 * SECOND


def test_after_a_pause_only_what_is_new_is_heard() -> None:
    reader = Counting()
    words, ring = analyzer(reader=reader)
    forms = play(words, ring, np.concatenate([loud(3.0), quiet(0.6), loud(2.0), quiet(1.5)]))
    assert forms[-1][1].number == 1, "a short pause ended the utterance"
    assert max(reader.seconds[-2:]) < 3.0, f"the first part was heard again: {reader.seconds}"
    assert [word.begin_ns for word in forms[-1][1].words] == sorted(
        word.begin_ns for word in forms[-1][1].words
    )


def test_what_is_given_up_ends_with_what_was_believed_of_it() -> None:
    words, ring = analyzer(60)
    sound = np.concatenate([np.concatenate([loud(1.0), quiet(2.0)]) for _ in range(6)])
    for first in range(0, len(sound), BLOCK):
        ring.push(AudioBlock("mic", first, first * SECOND // SAMPLE_RATE, sound[first : first + BLOCK]))
    words.step(finished_only=True)
    assert {form.number for form in words.said.read_since(0).items if form.ended} >= {1, 2, 3, 6}
