"""The recordings of the test side that a voice network is surest of and wrong about, and how they sound.

    python benchmarks/accuracy/wrong_voices.py --data DIR [--voice full-fp32] [--count 10]

How a recording sounds is given against all recordings of its speaker, in standard deviations: pitch (median
and spread, by autocorrelation), level, brightness (spectral centroid) and pace (share of the time that is
loud, and length). Answers are those of `docs/results/voice.tar.xz`, heard after others of the speaker.
"""

from __future__ import annotations

import argparse
from collections import Counter
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from liveaffect.engines.recipe import LABELS, SAMPLE_RATE
from liveaffect.engines.training.corpora_voices import default_folder, load_takes
from liveaffect.engines.training.scores import read_tables
from liveaffect.engines.training.splits import FROZEN, found_in, on_side
from liveaffect.engines.training.voice_answers import KNOWN, VoiceAnswer, read_answers

ANSWERS = Path(__file__).resolve().parents[2] / "docs/results/voice.tar.xz"
TRAITS = ("pitch", "pitch spread", "level", "brightness", "length")
FRAME, STEP = 640, 160
LOWEST_HZ, HIGHEST_HZ = 60, 500


def traits(samples: NDArray[np.floating]) -> NDArray[np.float64]:
    """What `TRAITS` names, of one recording."""
    sound = np.asarray(samples, np.float64)
    frames = np.lib.stride_tricks.sliding_window_view(sound, FRAME)[::STEP] * np.hanning(FRAME)
    power = (frames**2).mean(1) + 1e-12
    frames = frames[power > np.percentile(power, 95) * 1e-3]
    spectrum = np.abs(np.fft.rfft(frames, 2 * FRAME)) ** 2
    alike = np.fft.irfft(spectrum)[:, : FRAME // 2 + 1]
    alike /= np.maximum(alike[:, :1], 1e-12)
    first, last = SAMPLE_RATE // HIGHEST_HZ, SAMPLE_RATE // LOWEST_HZ
    lag = alike[:, first:last].argmax(1) + first
    voiced = alike[np.arange(len(lag)), lag] > 0.5
    tones = 12 * np.log2(SAMPLE_RATE / lag[voiced]) if voiced.any() else np.zeros(1)
    hertz = np.fft.rfftfreq(2 * FRAME, 1 / SAMPLE_RATE)
    bright = np.log((spectrum @ hertz) / np.maximum(spectrum.sum(1), 1e-12)).mean()
    spread = np.subtract(*np.percentile(tones, [85, 15]))
    level = 10 * np.log10(np.percentile(power, 95))
    return np.array([np.median(tones), spread, level, bright, len(frames) * STEP / SAMPLE_RATE])


def margin(answer: VoiceAnswer) -> float:
    """How far the label it was called stands above the true one."""
    return float(np.nanmax(answer.logits) - answer.logits[answer.truth])


def main() -> None:
    """The table, and which traits the wrong ones have in common."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--voice", default="full-fp32")
    parser.add_argument("--count", type=int, default=10)
    given = parser.parse_args()
    answers = [
        one for one in read_answers(read_tables(ANSWERS)[f"test/{given.voice}.csv"]) if one.known == KNOWN
    ]
    sounds = {
        take.name: samples
        for takes in on_side(found_in(given.data), "test", FROZEN).values()
        for take, samples in zip(takes, load_takes(takes, default_folder()), strict=True)
    }
    found = np.stack([traits(sounds[one.name]) for one in answers])
    for speaker in {one.speaker for one in answers}:
        rows = [at for at, one in enumerate(answers) if one.speaker == speaker]
        found[rows] = (found[rows] - found[rows].mean(0)) / found[rows].std(0)
    wrong = np.array([one.called != one.truth for one in answers])
    print("| recording | said | called | " + " | ".join(TRAITS) + " |\n|---|---|---|" + "--:|" * len(TRAITS))
    for at in sorted(np.flatnonzero(wrong), key=lambda at: -margin(answers[at]))[: given.count]:
        one = answers[at]
        said = f"| {one.name} | {LABELS[one.truth]} | {LABELS[one.called]} | "
        print(said + " | ".join(f"{value:+.1f}" for value in found[at]) + " |")
    pairs = Counter((one.truth, one.called) for one, missed in zip(answers, wrong, strict=True) if missed)
    for (truth, called), count in pairs.most_common(8):
        label = np.array([one.truth for one in answers]) == truth
        these = label & (np.array([one.called for one in answers]) == called)
        heard = ", ".join(
            f"{name} {found[these, at].mean():+.1f} (right {found[label & ~wrong, at].mean():+.1f})"
            for at, name in enumerate(TRAITS)
        )
        print(f"{LABELS[truth]} called {LABELS[called]}, {count} times: {heard}")


if __name__ == "__main__":
    main()
