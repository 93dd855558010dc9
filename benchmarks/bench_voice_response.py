"""From a voice that changes to a label that changes: two recordings of a speaker, one after the other.

    uv run python benchmarks/bench_voice_response.py --data DIR [--voice small|full] [--side calibrate|test]
        [--pairs 40] [--alike] [--ways] [--write]

Each stream goes through the whole path for files, in the order of time: silence, a recording of one label, a
short gap, a recording of another label. Counted is from the onset of speech in the second one until the label
of the second is shown. Beside it: how often the second is labelled at all, for which shares of the time the
label of what was said last is shown and another one is, and how often labels change in one stream: once would
be right, and with `--alike`, where both recordings have one label, never. `--ways` sweeps how the voice's
evidence comes and goes.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from harness import Result, print_record

from liveaffect.bench.sounds import VoicePair, delays_of, voice_pairs
from liveaffect.calibration.clips import voice_clips
from liveaffect.realtime import expression
from liveaffect.realtime.clock import MS, SECOND
from liveaffect.realtime.wiring import Tools
from liveaffect.settings import Settings

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


def judged(which: Sequence[VoicePair], tools: Tools, name: str) -> Result:
    """Delays and shares over all streams."""
    found = delays_of(which, tools)
    figures = {
        "streams": float(len(which)),
        "ever_right": float(np.isfinite(found.right_s).mean()),
        "median_of_right_s": float(np.median(found.right_s[np.isfinite(found.right_s)])),
        "right_within_1.5_s": float((found.right_s <= SOON_S).mean()),
        "labelled": found.labelled,
        "time_right": found.right,
        "time_wrong": found.wrong,
        "changes_per_stream": found.changes,
    }
    return Result(name, figures)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--voice", choices=("small", "full"), default="small")
    parser.add_argument("--side", choices=("calibrate", "test"), default="calibrate")
    parser.add_argument("--pairs", type=int, default=40, help="of every speaker")
    parser.add_argument("--alike", action="store_true", help="pairs of one label instead of two")
    parser.add_argument("--ways", action="store_true")
    parser.add_argument("--write", action="store_true")
    given = parser.parse_args()
    clips = [clip for clip in voice_clips(given.data, None, print) if clip.side == given.side]
    which = list(voice_pairs(clips, given.pairs, alike=given.alike))
    tools = Settings(voice=given.voice).load_tools(lambda _: None)
    for way, dynamics in WAYS.items() if given.ways else [("as shipped", expression.VOICE)]:
        expression.VOICE = dynamics
        name = f"voice/{given.voice}/{given.side}/{'alike' if given.alike else 'changed'}/{way}"
        print_record(judged(which, tools, name), write=given.write)


if __name__ == "__main__":
    main()
