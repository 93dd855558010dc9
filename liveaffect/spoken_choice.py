"""Which Whisper hears what is said, if any: packages, weights and machine decide where nobody else did.

What was asked for by name and cannot be had ends the run with the command that mends it; with `auto` it is
said in a line, and the run goes on without words.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from liveaffect.engines import stopwatch, whisper
from liveaffect.engines.protocol import EngineError, EngineUnavailable
from liveaffect.engines.recipe import SAMPLE_RATE
from liveaffect.engines.transcriber import CURE, Transcriber, VoiceActivity
from liveaffect.engines.whisper import whisper_folder
from liveaffect.engines.word_emotions import load_judge
from liveaffect.realtime.wiring import SpokenChoice
from liveaffect.realtime.words import HOP_S, WordTools

OFF = "off"
PACKAGES = ("faster_whisper", "ctranslate2", "tokenizers")
MOST_OF_A_CORE = 0.35
"""A live machine carries words if they take no larger share of a core than this while somebody speaks."""

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class SpokenWish:
    """What was asked for."""

    words: str = "auto"
    """'off', 'auto', the name of a Whisper, or a folder."""
    language: str = "auto"
    transcript: bool = False
    threads: int = 1
    weights: Path | None = None

    @property
    def name(self) -> str:
        """The Whisper that is meant."""
        return whisper.TINY_EN.name if self.words == "auto" else self.words


def spoken_choice(wish: SpokenWish, say: Say, *, live: bool) -> SpokenChoice | None:
    """What words are heard with. Raises EngineError where they were asked for by name and cannot be."""
    if wish.words == OFF:
        return None
    if why := why_no_words(wish.name):
        if wish.words == "auto":
            say(f"words: off; {why}")
            return None
        raise EngineUnavailable(f"words cannot be heard: {why}")
    make = cache(partial(make_tools, folder_of(wish.name), wish))
    if wish.words == "auto" and live:
        return SpokenChoice(lambda: carried(make(), wish), wish.transcript)
    return SpokenChoice(make, wish.transcript)


def carried(tools: WordTools, wish: SpokenWish) -> WordTools:
    """The same, unless it costs too much here: then EngineUnavailable, which ends words and nothing else."""
    if (share := share_of_a_core(tools)) > MOST_OF_A_CORE:
        raise EngineUnavailable(
            f"{wish.name} would take {share:.0%} of a core while somebody speaks; "
            f"--words {wish.name} hears them all the same"
        )
    return tools


def folder_of(name: str) -> Path:
    """Where the files of that Whisper lie or would lie."""
    return whisper_folder(name) if name in whisper.KNOWN else Path(name).expanduser()


def why_no_words(name: str) -> str | None:
    """Why that Whisper cannot be used here, in a few words with the cure; None if it can."""
    if lacking := [package for package in PACKAGES if find_spec(package) is None]:
        return f"{lacking[0]} is not installed: {CURE}"
    folder = folder_of(name)
    if lacking := [file for file in (whisper.FILE, "tokenizer.json") if not (folder / file).is_file()]:
        if name not in whisper.KNOWN:
            return (
                f"'{name}' is no Whisper, which is {', '.join(whisper.KNOWN)} or a folder: {lacking[0]} is "
                f"not in such a folder; `liveaffect fetch --words {whisper.BASE.name}` brings one"
            )
        cure = f"liveaffect fetch --words {name}" if name != whisper.TINY_EN.name else "liveaffect fetch"
        return f"{lacking[0]} is not in {folder}; `{cure}` brings it"
    return None


def make_tools(folder: Path, wish: SpokenWish) -> WordTools:
    """Whisper, speech detection and the network that judges words, loaded. Raises EngineError."""
    for model in whisper.KNOWN.values():
        if folder == whisper_folder(model.name):
            whisper.check(folder / whisper.FILE, model)
    ears = Transcriber(folder, threads=wish.threads, language=wish.language)
    return WordTools(ears, VoiceActivity, load_judge(wish.weights))


def share_of_a_core(tools: WordTools) -> float:
    """What a pass over three seconds of sound costs, against the time between two passes."""
    rng = np.random.default_rng(0)
    sound = (0.1 * rng.standard_normal(3 * SAMPLE_RATE)).astype(np.float32)
    (spent_ns,) = stopwatch.median_ns(
        [lambda: tools.ears.hear(sound)], rounds=3, now=stopwatch.all_threads_cpu_ns
    )
    return spent_ns * 1e-9 / HOP_S


def try_to_load(wish: SpokenWish) -> str:
    """One line about the Whisper that these settings name, after loading it. Raises EngineError."""
    if why := why_no_words(wish.name):
        raise EngineError(why)
    tools = make_tools(folder_of(wish.name), wish)
    return f"{wish.name}, {share_of_a_core(tools):.0%} of a core while somebody speaks"
