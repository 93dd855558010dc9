"""How good, how soon and how dear are words that are heard live, against faster-whisper on the whole file?

    uv run --extra words python benchmarks/bench_words.py --data DIR [--words tiny.en] [--strings 3]
        [--pairs 0] [--only jfk read ...] [--hours 2] [--beside whole|agreement|nothing]

DIR holds `clips/jfk.wav`, `clips/demo_grid_10speakers.mp4` with its transcripts, and
`voice/ravdess_speech.tar`, whose clips become strings of ten with pauses, in which two sentences come again
and again. `--pairs` makes strings of two, in which each comes once, of other clips. Where espeak-ng is
installed, its voices also read a text that says nothing twice.

Live is what the product does: sound in tenths of a second, every due pass made at once. A word's delay is
from its end to the first form that shows it, and to the first that believes it, in time of the sound,
without the time of the pass itself. Processor time is that of all threads.
"""

from __future__ import annotations

import argparse
import csv
import io
import itertools
import random
import re
import resource
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from harness import Result, print_record
from numpy.typing import NDArray

from liveaffect.bench.agreement import Agreeing
from liveaffect.bench.sounds import words_live
from liveaffect.engines import stopwatch
from liveaffect.engines.recipe import SAMPLE_RATE
from liveaffect.realtime.acting import read_wav, speak
from liveaffect.realtime.clock import SECOND
from liveaffect.realtime.errors import EndOfStream
from liveaffect.realtime.frame import AudioBlock
from liveaffect.realtime.replay import MediaFile
from liveaffect.realtime.ring import AudioRing
from liveaffect.realtime.words import WordsAnalyzer, WordTools
from liveaffect.spoken_choice import SpokenWish, folder_of, make_tools

Sound = NDArray[np.float32]
BLOCK = SAMPLE_RATE // 10
PER_STRING = 10
JFK = (
    "and so my fellow americans ask not what your country can do for you ask what you can do for your country"
)
FIRST_PAIRED = 400
"""Clips before this one stand in the strings of the tables."""
TEXT = (
    "The ferry leaves the harbour shortly after breakfast.",
    "My sister forgot her umbrella on the kitchen table again.",
    "Please close the window before the cat jumps out.",
    "Nobody expected such a large crowd on a rainy afternoon.",
    "We planted cherry trees along the narrow road to the mill.",
    "His letter arrived while they were still travelling in the mountains.",
    "A good carpenter measures carefully and cuts only once.",
    "The children built a wooden bridge across the little stream.",
    "Fresh bread smells best when you are really hungry.",
    "Every evening an old man feeds the pigeons in the park.",
    "She promised to bring the photographs back by next weekend.",
    "Our neighbour plays the violin, but never after midnight.",
    "It takes about half an hour to walk around the lake.",
    "They painted the front door green because blue looked too cold.",
    "If the train is late, wait for me under the big clock.",
    "Somebody left a basket of apples beside the garden gate.",
)
READERS = (("en-us", 150), ("en+f3", 165), ("en-us+m3", 140), ("en+f2", 155))
"""Voice of espeak-ng, and words a minute."""


def sound_of(path: Path) -> Sound:
    """All samples of a file."""
    media, parts = MediaFile(path), []
    media.open()
    try:
        while True:
            item = media.read(1.0)
            if isinstance(item, AudioBlock):
                parts.append(item.samples)
    except EndOfStream:
        return np.concatenate(parts)
    finally:
        media.close()


def read_aloud() -> tuple[Sound, list[str]]:
    """The text, one voice after the other, and its words; nothing where espeak-ng is missing."""
    parts, rng = list[Sound](), random.Random(0)
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch, "read.wav")
        for sentence, (voice, pace) in zip(TEXT, itertools.cycle(READERS), strict=False):
            if not speak(path, sentence, "-v", voice, "-s", str(pace)):
                return np.zeros(0, np.float32), []
            parts += [read_wav(path), np.zeros(int(SAMPLE_RATE * rng.uniform(0.2, 1.2)), np.float32)]
    return np.concatenate(parts), plain_words(" ".join(TEXT))


def cases(data: Path, strings: int, pairs: int = 0) -> Iterator[tuple[str, Sound, list[str]]]:
    """Name, sound and words."""
    said: list[str] = list(JFK.split())
    yield "jfk", np.concatenate([sound_of(data / "clips/jfk.wav"), np.zeros(SAMPLE_RATE, np.float32)]), said
    grid = list(csv.DictReader((data / "clips/grid_transcripts.csv").open()))
    yield (
        "grid",
        sound_of(data / "clips/demo_grid_10speakers.mp4"),
        [w for r in grid for w in r["text"].split()],
    )
    read, text = read_aloud()
    if text:
        yield "read", read, text
    if not strings and not pairs:
        return
    rng = random.Random(0)
    with tarfile.open(data / "voice/ravdess_speech.tar") as archive, tempfile.TemporaryDirectory() as scratch:
        archive.extractall(scratch, filter="data")
        folder = next(Path(scratch).rglob("manifest.csv")).parent
        rows = list(csv.DictReader(io.StringIO((folder / "manifest.csv").read_text("utf-8"))))
        rng.shuffle(rows)
        chosen = {
            f"ravdess {number}": rows[number * PER_STRING : (number + 1) * PER_STRING]
            for number in range(strings)
        }
        first, second = (
            [row for row in rows[FIRST_PAIRED:] if row["text"] == text]
            for text in sorted({row["text"] for row in rows})
        )
        chosen |= {f"pair {at}": [first[at], second[at]] for at in range(pairs)}
        for name, clips in chosen.items():
            parts, wanted = list[Sound](), list[str]()
            for row in clips:
                pause = np.zeros(int(SAMPLE_RATE * rng.uniform(0.2, 1.2)), np.float32)
                parts += [sound_of(folder / f"{row['id']}.opus"), pause]
                wanted += row["text"].lower().split()
            yield name, np.concatenate(parts), wanted


def errors(wanted: list[str], found: list[str]) -> int:
    """Words to change, leave out and put in."""
    row = np.arange(len(found) + 1)
    for at, word in enumerate(wanted, 1):
        before, row = row, np.full(len(found) + 1, at)
        for place, other in enumerate(found, 1):
            row[place] = min(before[place] + 1, row[place - 1] + 1, before[place - 1] + (word != other))
    return int(row[-1])


def plain_words(text: str) -> list[str]:
    """Small letters without marks, however many words stand in one."""
    return re.findall(r"[a-z0-9']+", text.lower())


def live(sound: Sound, tools: WordTools) -> tuple[list[str], dict[str, float]]:
    """Words as they are believed at the end, and delays and cost."""
    began_ns = stopwatch.all_threads_cpu_ns()
    text, delays_s = words_live(sound, tools)
    figures = {"core_share": (stopwatch.all_threads_cpu_ns() - began_ns) / SECOND * SAMPLE_RATE / len(sound)}
    for name, of_them in zip(("pale", "final"), delays_s.T, strict=True):
        for share in (50, 95):
            figures[f"{name}_p{share}_s"] = float(np.percentile(of_them, share))
    return plain_words(text), figures


def whole(sound: Sound, folder: Path) -> tuple[list[str], float]:
    """faster-whisper as it comes, on all of it: words and share of a core."""
    from faster_whisper import WhisperModel  # type: ignore[import-untyped]

    model = WhisperModel(str(folder), device="cpu", compute_type="int8", cpu_threads=1, local_files_only=True)
    began_ns = stopwatch.all_threads_cpu_ns()
    segments, _ = model.transcribe(sound, beam_size=1, language="en")
    text = " ".join(segment.text for segment in segments)
    return plain_words(text), (stopwatch.all_threads_cpu_ns() - began_ns) / SECOND * SAMPLE_RATE / len(sound)


def agreement(sound: Sound, folder: Path, wanted: list[str]) -> dict[str, float]:
    """whisper_streaming's policy on the same sound: errors, delay and share of a core."""
    policy, began_ns, delays = Agreeing(str(folder)), stopwatch.all_threads_cpu_ns(), list[float]()
    for first in range(0, len(sound), BLOCK):
        policy.add(sound[first : first + BLOCK])
        now_s = min(first + BLOCK, len(sound)) / SAMPLE_RATE
        delays += [max(0.0, now_s - end_s) for _, end_s, _ in policy.believed[len(delays) :]]
    policy.finish()
    spent_s = (stopwatch.all_threads_cpu_ns() - began_ns) / SECOND
    return {
        "agreement_errors": float(
            errors(wanted, plain_words(" ".join(text for _, _, text in policy.believed)))
        ),
        "agreement_core_share": spent_s * SAMPLE_RATE / len(sound),
        "agreement_final_p50_s": float(np.percentile(delays, 50)),
        "agreement_final_p95_s": float(np.percentile(delays, 95)),
    }


def speak_on(sounds: list[Sound], tools: WordTools, hours: float) -> Result:
    """Hours of speech without a break: resident memory at every quarter, and what was given up."""
    ring, first, marks = AudioRing(20 * SAMPLE_RATE), 0, list[float]()
    analyzer, sound = WordsAnalyzer("mic", ring, tools), np.concatenate(sounds)
    for quarter in range(1, 1 + round(hours * 4)):
        while first < quarter * 900 * SAMPLE_RATE:
            at = first % (len(sound) // BLOCK * BLOCK)
            ring.push(AudioBlock("mic", first, first * SECOND // SAMPLE_RATE, sound[at : at + BLOCK]))
            first += BLOCK
            while analyzer.step():
                pass
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        marks.append(pages * resource.getpagesize() / 1e6)
        sys.stderr.write(f"{15 * quarter} min: {marks[-1]:.0f} MB, {analyzer.passes} passes\n")
    figures = {f"mb_after_{15 * at}_min": mb for at, mb in enumerate(marks, 1)}
    figures |= {"passes": float(analyzer.passes), "given_up": float(sum(analyzer.lost.values()))}
    return Result("words/hours", figures)


def main() -> None:
    """Every case, one line each; then silence and noise."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--words", default="tiny.en")
    parser.add_argument("--strings", type=int, default=3)
    parser.add_argument("--pairs", type=int, default=0, help="strings of two sentences")
    parser.add_argument("--only", nargs="+", default=[], help="of jfk, grid, read, ravdess, pair")
    parser.add_argument("--beside", choices=("whole", "agreement", "nothing"), default="whole")
    parser.add_argument("--noise-s", type=int, default=120, help="seconds of silence, noise and tones each")
    parser.add_argument(
        "--hours", type=float, default=0.0, help="speak the strings on and on, memory watched"
    )
    given = parser.parse_args()
    tools, folder = make_tools(folder_of(given.words), SpokenWish(given.words, "en")), folder_of(given.words)
    if given.hours:
        spoken = [sound for name, sound, _ in cases(given.data, given.strings) if name.startswith("ravdess")]
        print_record(speak_on(spoken, tools, given.hours))
        return
    for name, sound, wanted in cases(given.data, given.strings, given.pairs):
        if given.only and name.split()[0] not in given.only:
            continue
        found, figures = live(sound, tools)
        figures |= {"words": float(len(wanted)), "errors": float(errors(wanted, found))}
        if given.beside == "whole":
            all_at_once, core_share = whole(sound, folder)
            figures |= {"whole_errors": float(errors(wanted, all_at_once)), "whole_core_share": core_share}
            figures["cost_ratio"] = figures["core_share"] / core_share
        if given.beside == "agreement":
            figures |= agreement(sound, folder, wanted)
        print_record(
            Result(f"words/{Path(given.words).name}/{name}", figures, notes={"heard": " ".join(found)})
        )
    rng, t = np.random.default_rng(0), np.arange(given.noise_s * SAMPLE_RATE) / SAMPLE_RATE
    for name, made in (
        ("silence", np.zeros(len(t))),
        ("noise", 0.05 * rng.standard_normal(len(t)) * (1 + np.sin(2 * np.pi * t / 3))),
        (
            "tones",
            sum(0.1 * np.sin(440 * np.pi * k * t) * (np.sin(2 * np.pi * t * k) > 0) for k in (1, 2, 3)),
        ),
    ):
        sound = np.asarray(made, np.float32)
        ring, began_ns = AudioRing(20 * SAMPLE_RATE), stopwatch.all_threads_cpu_ns()
        analyzer = WordsAnalyzer("mic", ring, tools)
        for first in range(0, len(sound), BLOCK):
            ring.push(AudioBlock("mic", first, first * SECOND // SAMPLE_RATE, sound[first : first + BLOCK]))
            analyzer.step()
        analyzer.finish()
        spent_s = (stopwatch.all_threads_cpu_ns() - began_ns) / SECOND
        words = sum(len(form.words) for form in analyzer.said.read_since(0).items)
        figures = {"words_a_minute": words / given.noise_s * 60, "core_share": spent_s / given.noise_s}
        print_record(Result(f"words/{Path(given.words).name}/{name}", figures))


if __name__ == "__main__":
    main()
