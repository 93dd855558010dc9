"""From a voice that changes to a label that changes: two recordings of a speaker, one after the other.

    uv run python benchmarks/bench_voice_response.py --data DIR [--voice small|full] [--side calibrate|test]
        [--pairs 40] [--ways] [--write]

Each stream goes through the whole path for files, in the order of time: silence, a recording of one label, a
short gap, a recording of another label. Counted is from the onset of speech in the second one until the label
of the second is shown. Beside it: how often the second is labelled at all, and how often the shown label
changes while one recording lasts. `--ways` sweeps how the voice's evidence comes and goes.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from harness import Result, print_record
from numpy.typing import NDArray

from liveaffect.calibration.clips import SOUND, PlayedSound, voice_clips
from liveaffect.calibration.clips import Clip as VoiceClip
from liveaffect.engines.recipe import LABELS, SAMPLE_RATE
from liveaffect.realtime import expression
from liveaffect.realtime.clock import MS, SECOND
from liveaffect.realtime.cue import NOT_SURE, Cue
from liveaffect.realtime.frame import AudioBlock, VideoFrame
from liveaffect.realtime.lockstep import Watched, analyse
from liveaffect.realtime.sinks import Outputs
from liveaffect.realtime.wiring import Tools
from liveaffect.settings import Settings

LEAD_S = 0.3
GAPS_S = (0.4, 1.2)
SOON_S = 1.5
WAYS = {
    "as shipped": expression.VOICE,
    "dwell 4 s": replace(expression.VOICE, dwell_ns=4 * SECOND),
    "dwell 2 s": replace(expression.VOICE, dwell_ns=2 * SECOND),
    "correlation 0.4 s": replace(expression.VOICE, correlation_ns=400 * MS),
    "correlation 0.4 s, dwell 4 s": replace(expression.VOICE, correlation_ns=400 * MS, dwell_ns=4 * SECOND),
    "correlation 0.4 s, dwell 2 s": replace(expression.VOICE, correlation_ns=400 * MS, dwell_ns=2 * SECOND),
    "memory 2 s": replace(expression.VOICE, memory_ns=2 * SECOND),
}


@dataclass(frozen=True, slots=True, eq=False)
class Stream:
    """Two recordings of one speaker in one sound."""

    samples: NDArray[np.float32]
    onset_s: float
    """Where speech of the second begins."""
    end_s: float
    truth: str


def streams(clips: Sequence[VoiceClip], pairs: int, seed: int = 0) -> Iterator[Stream]:
    """So many pairs of different labels of every speaker, drawn by chance."""
    rng = np.random.default_rng(seed)
    for speaker in sorted({clip.group for clip in clips}):
        mine = [clip for clip in clips if clip.group == speaker]
        other = [(a, b) for a, b in itertools.permutations(mine, 2) if a.truth != b.truth]
        for at in rng.choice(len(other), min(pairs, len(other)), replace=False):
            first, second = other[at]
            yield joined(first, second, gap_s=float(rng.uniform(*GAPS_S)))


def joined(first: VoiceClip, second: VoiceClip, gap_s: float) -> Stream:
    """One after the other, over the faint hiss that every microphone has."""
    parts = [np.zeros(round(LEAD_S * SAMPLE_RATE)), first.content, np.zeros(round(gap_s * SAMPLE_RATE))]
    begin = sum(map(len, parts))
    whole = np.concatenate([*parts, second.content]).astype(np.float32)
    whole += np.random.default_rng(0).normal(0, 1e-4, len(whole)).astype(np.float32)
    spoken = np.flatnonzero(loud(np.asarray(second.content, np.float32)))
    onset, end = begin + spoken[0] * SAMPLE_RATE // 100, begin + spoken[-1] * SAMPLE_RATE // 100
    return Stream(whole, onset / SAMPLE_RATE, end / SAMPLE_RATE, LABELS[second.truth])


def loud(samples: NDArray[np.float32]) -> NDArray[np.bool_]:
    """(hundredths of a second,): within 30 dB of the loud ones."""
    step = SAMPLE_RATE // 100
    power = (samples[: len(samples) // step * step].reshape(-1, step) ** 2).mean(1)
    return np.asarray(power > np.percentile(power, 95) * 1e-3)


def shown(stream: Stream, tools: Tools) -> list[tuple[float, str]]:
    """Time and label of every cue."""
    told: list[tuple[float, str]] = []

    class Kept:
        wants_pictures = wants_sound = False

        def tell(self, cues: Sequence[Cue]) -> None:
            told.extend((cue.t, cue.label) for cue in cues)

        def show(self, picture: NDArray[np.uint8], frame: VideoFrame) -> None: ...

        def hear(self, block: AudioBlock) -> None: ...

        def close(self) -> None: ...

    reader = PlayedSound(stream.samples)
    analyse(Watched(reader, None, SOUND), tools, Outputs([Kept()]), lambda _: None)
    return told


def judged(which: Sequence[Stream], tools: Tools, name: str) -> Result:
    """Delays and shares over all streams."""
    delays, labelled, soon, changes, seconds = [], 0, 0, 0, 0.0
    for stream in which:
        told = [(t, label) for t, label in shown(stream, tools) if t >= stream.onset_s]
        within = [(t, label) for t, label in told if t <= stream.end_s + 0.8]
        sure = [(t, label) for t, label in within if label != NOT_SURE]
        labelled += bool(sure)
        right = [t - stream.onset_s for t, label in sure if label == stream.truth]
        delays.append(right[0] if right else np.inf)
        soon += bool(right and right[0] <= SOON_S)
        changes += sum(a != b for (_, a), (_, b) in itertools.pairwise(sure))
        seconds += stream.end_s - stream.onset_s
    found = np.array(delays)
    figures = {
        "streams": float(len(which)),
        "ever_right": float(np.isfinite(found).mean()),
        "median_of_right_s": float(np.median(found[np.isfinite(found)])),
        "right_within_1.5_s": soon / len(which),
        "labelled": labelled / len(which),
        "changes_per_min": 60 * changes / seconds,
    }
    return Result(name, figures)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--voice", choices=("small", "full"), default="small")
    parser.add_argument("--side", choices=("calibrate", "test"), default="calibrate")
    parser.add_argument("--pairs", type=int, default=40, help="of every speaker")
    parser.add_argument("--ways", action="store_true")
    parser.add_argument("--write", action="store_true")
    given = parser.parse_args()
    clips = [clip for clip in voice_clips(given.data, None, print) if clip.side == given.side]
    which = list(streams(clips, given.pairs))
    tools = Settings(voice=given.voice).load_tools(lambda _: None)
    for way, dynamics in WAYS.items() if given.ways else [("as shipped", expression.VOICE)]:
        expression.VOICE = dynamics
        print_record(judged(which, tools, f"voice/{given.voice}/{given.side}/{way}"), write=given.write)


if __name__ == "__main__":
    main()
