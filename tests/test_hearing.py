"""Words have a thread of their own: it ends when asked, and what fails in it ends words and nothing else."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from liveaffect.calibration.clips import SOUND, PlayedSound
from liveaffect.engines.protocol import SPEECH_CHUNK, EngineUnavailable, HeardWords, TimedWord
from liveaffect.engines.recipe import LABELS, SAMPLE_RATE
from liveaffect.realtime import analysis
from liveaffect.realtime.clock import SECOND, MonotonicClock
from liveaffect.realtime.cue import Cue
from liveaffect.realtime.frame import AudioBlock
from liveaffect.realtime.hearing import SpeechHearing
from liveaffect.realtime.lockstep import Watched, analyse
from liveaffect.realtime.ring import AudioRing
from liveaffect.realtime.sinks import Outputs
from liveaffect.realtime.testing.people import ScriptedFinder
from liveaffect.realtime.testing.virtual_time import constant_networks
from liveaffect.realtime.wiring import Rings, SpokenChoice, Tools, Wiring
from liveaffect.realtime.words import WordTools
from liveaffect.settings import Settings
from liveaffect.spoken_choice import SpokenWish, spoken_choice, why_no_words

NAME = "hears words"


def threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name == NAME]


def test_a_whisper_that_cannot_be_loaded_is_said_and_ends_only_words() -> None:
    def fails() -> WordTools:
        raise EngineUnavailable("Whisper is not here")

    hearing = SpeechHearing({"mic": AudioRing(SAMPLE_RATE)}, fails)
    hearing.start(MonotonicClock())
    hearing.close()
    assert threads() == []
    assert hearing.notices == ("no words: Whisper is not here",)
    assert hearing.news("mic") == ()
    assert hearing.judge("I am glad") is None


def test_closing_ends_the_thread_in_the_middle_of_listening() -> None:
    if why := why_no_words("tiny.en"):
        pytest.skip(f"no Whisper tiny.en: {why}")
    choice = spoken_choice(SpokenWish("tiny.en"), print, live=True)
    assert choice is not None
    ring = AudioRing(20 * SAMPLE_RATE)
    hearing = SpeechHearing({"mic": ring}, choice.make_tools)
    hearing.start(MonotonicClock())
    rng = np.random.default_rng(0)
    for at in range(50):
        noise = (0.1 * rng.standard_normal(SAMPLE_RATE // 10)).astype(np.float32)
        ring.push(AudioBlock("mic", at * len(noise), at * SECOND // 10, noise))
    hearing.close()
    assert threads() == []
    assert hearing.notices == ()


def test_the_end_of_a_run_waits_for_a_whisper_that_still_loads(monkeypatch: pytest.MonkeyPatch) -> None:
    """However short it waits for the rest: a process that ends in the middle of it crashes."""
    monkeypatch.setattr(analysis, "JOIN_S", 0.05)
    loading, loaded = threading.Event(), threading.Event()

    def slowly() -> WordTools:
        loading.set()
        loaded.wait(1.0)
        loaded.set()
        raise EngineUnavailable("it took too long")

    def wire() -> Wiring:
        rings = Rings.plain([], ["mic"])
        finders = ScriptedFinder(), ScriptedFinder()
        wiring = Wiring(rings, constant_networks(), lambda: finders, lambda cues: None)
        wiring.hear_words(SpokenChoice(slowly, transcript=False))
        return wiring

    run = analysis.Analysis(wire, MonotonicClock())
    run.start()
    assert loading.wait(10.0)
    run.stop()
    assert loaded.is_set()
    assert threads() == []


def test_a_thread_that_begins_after_the_end_loads_nothing() -> None:
    asked = threading.Event()

    def load() -> WordTools:
        asked.set()
        raise EngineUnavailable("nobody should ask")

    hearing = SpeechHearing({"mic": AudioRing(SAMPLE_RATE)}, load)
    hearing.close()
    hearing.start(MonotonicClock())
    hearing.close()
    assert not asked.is_set()


def test_off_hears_nothing_and_says_nothing() -> None:
    lines: list[str] = []
    assert spoken_choice(SpokenWish("off"), lines.append, live=False) is None
    assert lines == []


def test_auto_without_whisper_says_why_and_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIVEAFFECT_WHISPER", str(tmp_path))
    lines: list[str] = []
    assert spoken_choice(SpokenWish("auto"), lines.append, live=False) is None
    assert len(lines) == 1
    assert lines[0].startswith("words: off; ")


def test_a_whisper_that_was_named_and_is_not_there_ends_the_run_with_the_cure(tmp_path: Path) -> None:
    pytest.importorskip("faster_whisper", reason="without it the cure is another: uv sync --extra words")
    with pytest.raises(EngineUnavailable, match="liveaffect fetch --words base`"):
        spoken_choice(SpokenWish(str(tmp_path)), print, live=False)


def test_scripted_networks_hear_no_words_unless_they_are_asked_for() -> None:
    assert Settings(engine="scripted").spoken(print) is None


class Letters:
    """Hears one word in every sound, by how loud it is."""

    multilingual = False

    def hear(
        self, samples: NDArray[np.float32], *, language: str | None = None, cut: bool = False
    ) -> HeardWords:
        loudness = float(np.abs(samples).max())
        word = TimedWord(" high" if loudness > 0.6 else " low", 0.3, 0.8)
        return HeardWords((word,), -0.1, 0.0, "en")

    def translate(self, samples: NDArray[np.float32], language: str) -> str:
        return ""


class Loud:
    """Speech is where it is loud."""

    def add(self, samples: NDArray[np.float32]) -> NDArray[np.float32]:
        return np.asarray(np.abs(samples.reshape(-1, SPEECH_CHUNK)).max(axis=1) > 0.1, np.float32)


def test_two_who_speak_at_once_at_two_microphones_are_each_heard_at_their_own() -> None:
    rings = {name: AudioRing(20 * SAMPLE_RATE) for name in ("left", "right")}
    hearing = SpeechHearing(rings, lambda: WordTools(Letters(), Loud, lambda text: None))
    hearing.load()
    for at in range(30):
        for name, level in (("left", 0.4), ("right", 0.8)):
            samples = np.full(SAMPLE_RATE // 10, level if at < 15 else 0.0, np.float32)
            rings[name].push(AudioBlock(name, at * len(samples), at * SECOND // 10, samples))
        hearing.catch_up()
    hearing.finish()
    heard = {name: {word.text for form in hearing.news(name) for word in form.words} for name in rings}
    assert heard == {"left": {" low"}, "right": {" high"}}


class LastWord(Letters):
    """Hears one word, at the very end of every sound."""

    def hear(
        self, samples: NDArray[np.float32], *, language: str | None = None, cut: bool = False
    ) -> HeardWords:
        end_s = len(samples) / SAMPLE_RATE
        return HeardWords((TimedWord(" last", end_s - 0.4, end_s - 0.1),), -0.1, 0.0, "en")


@pytest.mark.parametrize("seconds", [3.0, 3.04])
def test_what_is_said_right_up_to_the_end_of_a_file_is_in_its_last_cue(seconds: float) -> None:
    """Whether or not the file ends on a grid point."""
    told: list[Cue] = []
    tools = Tools(
        constant_networks(),
        lambda: (ScriptedFinder(), ScriptedFinder()),
        spoken=SpokenChoice(
            lambda: WordTools(LastWord(), Loud, lambda text: (0.0,) * len(LABELS)), transcript=True
        ),
    )
    sound = np.tile(np.array([0.5, -0.5], np.float32), round(seconds * SAMPLE_RATE / 2))
    analyse(Watched(PlayedSound(sound), None, SOUND), tools, Outputs([]), told.extend)
    assert told[-1].transcript == "last"
    assert all(cue.transcript is None for cue in told[:-1]), "it was believed before the end"
