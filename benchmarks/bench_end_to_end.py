"""How old is what is drawn, how far is the box from the face, and what does the whole cost?

    uv run python benchmarks/bench_end_to_end.py [--faces 1] [--seconds 20] [--size 640x480] [--write]

A real portrait moves to and fro at 300 pixels a second in front of the real path: face finder, networks,
overlay, at 30 pictures a second with the rhythm of speech. Picture number and time are burned into the
pixels and read back from the *drawn* picture, so which picture is shown and when is not what the path says
about itself. Pictures are drawn beforehand, so the cost is that of the path; ages are wall time.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence

import numpy as np
from end_to_end_meter import WARM_UP_NS, Drawn, Meter, Probe
from harness import Result, print_record
from numpy.typing import NDArray

from liveaffect.engines.recipe import SAMPLE_RATE
from liveaffect.realtime.clock import MS, SECOND, MonotonicClock
from liveaffect.realtime.cue import Cue
from liveaffect.realtime.errors import EndOfStream
from liveaffect.realtime.face_analyzer import find_in_picture
from liveaffect.realtime.faces.files import make_finder
from liveaffect.realtime.feeds import Feed
from liveaffect.realtime.frame import AudioBlock, VideoFrame
from liveaffect.realtime.live import LiveRun
from liveaffect.realtime.portrait import Motion, Portraits, packaged_portraits
from liveaffect.realtime.replay import Paced, load_picture
from liveaffect.realtime.sinks.outputs import Outputs
from liveaffect.realtime.speech import tone_voice
from liveaffect.realtime.wiring import Rings, Wiring
from liveaffect.settings import Settings

FPS = 30.0


class NothingMeasured(Exception):
    """A run that gives no figures, and why."""


class Prepared:
    """Pictures or sound that were made beforehand, in the order of their time."""

    def __init__(self, frames: Sequence[VideoFrame | AudioBlock]) -> None:
        self.name = frames[0].source
        self._frames = iter(frames)

    def open(self) -> None: ...

    def read(self, timeout_s: float) -> VideoFrame | AudioBlock:
        """The next one."""
        for frame in self._frames:
            return frame
        raise EndOfStream(self.name)

    def close(self) -> None: ...


def boxes_in(face: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Centre and width of the face in the still portrait, as the finder sees it."""
    found = find_in_picture(*make_finder(), face)
    x, y, width, height = found[0].box
    return np.array([x + width / 2, y + height / 2, width])


def moved(matrix: NDArray[np.float64], box: NDArray[np.float64]) -> NDArray[np.float64]:
    """Centre and width in the picture."""
    centre = matrix[:, :2] @ box[:2] + matrix[:, 2]
    return np.array([*centre, box[2] * float(np.hypot(matrix[0, 0], matrix[1, 0]))])


def sound(seconds: float) -> list[AudioBlock]:
    """Blocks of 20 ms with the rhythm of speech, as a microphone delivers them."""
    samples = tone_voice(seconds)
    return [
        AudioBlock("voice", first, first * SECOND // SAMPLE_RATE, samples[first : first + 320].copy())
        for first in range(0, len(samples) - 319, 320)
    ]


def run(given: argparse.Namespace, settings: Settings) -> tuple[LiveRun, Drawn]:
    """The live run with its meter."""
    faces = [load_picture(packaged_portraits()[i % len(packaged_portraits())]) for i in range(given.faces)]
    portraits = Portraits(faces, settings.picture_size, FPS, motion=Motion(speed_px_s=given.speed or None))
    count = round(given.seconds * FPS) + round(WARM_UP_NS / SECOND * FPS)
    frames = [VideoFrame("portraits", i, portraits.time_ns(i), portraits.draw(i)) for i in range(count)]
    still = [boxes_in(face) for face in faces]
    clock = MonotonicClock()
    blocks = sound(given.seconds + WARM_UP_NS / SECOND)
    feeds = [
        Feed("portraits", lambda: Paced(Prepared(frames), clock), pictures=True, sound=False, live=False),
        Feed("voice", lambda: Paced(Prepared(blocks), clock), pictures=False, sound=True, live=False),
    ]

    def make_wiring(rings: Rings, publish: Callable[[tuple[Cue, ...]], None]) -> Wiring:
        tools = settings.load_tools(lambda _: None, live=True)
        return Wiring(rings, tools.networks, tools.make_finders, publish, pieces=tools.pieces)

    probe = Probe("portraits", "starting")
    meter = Meter(
        clock, probe, lambda seq: [moved(m, b) for m, b in zip(portraits.truth(seq), still, strict=True)]
    )
    live = LiveRun(feeds, make_wiring, Outputs([meter]), clock, overlay=given.overlay)
    live.screens["portraits"] = probe
    live.run(wants_stop=lambda: live.supervisors[0].state.phase == "ended")
    live.check_ledger()
    return live, meter.drawn


def busy_neighbour(stop: threading.Event) -> None:
    """Takes a core away, as a video call would: a process of its own, because threads share a lock."""
    process = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    stop.wait()
    process.kill()
    process.wait()


def report(name: str, live: LiveRun, drawn: Drawn, given: argparse.Namespace) -> None:
    """One line with everything."""
    if drawn.cpu_from is None:
        raise NothingMeasured(
            f"{name}: after the warm-up no drawn picture said which one it is; of {drawn.unread} the stamp "
            "could not be read. Look at what is drawn over the upper edge of the picture"
        )
    if not drawn.face_ages_ms:
        raise NothingMeasured(
            f"{name}: no reading of a face was drawn in {given.seconds:g} s after the warm-up. The machine "
            "is too busy to measure on, or --seconds is too short"
        )
    spent_ns, wall_ns = (b - a for a, b in zip(drawn.cpu_from, drawn.cpu_until, strict=True))
    spent_ns -= drawn.meter_ns
    ledger = live.health.ledger("portraits")
    figures = {
        "core_share_percent": 100 * spent_ns / wall_ns,
        "cpu_a_picture_ms": spent_ns / MS / len(drawn.ages_ms),
        "picture_age_p50_ms": float(np.percentile(drawn.ages_ms, 50)),
        "picture_age_p95_ms": float(np.percentile(drawn.ages_ms, 95)),
        "face_age_p50_ms": float(np.percentile(drawn.face_ages_ms, 50)),
        "face_age_p95_ms": float(np.percentile(drawn.face_ages_ms, 95)),
        "box_off_p50_percent": 100 * float(np.percentile(drawn.off_centre, 50)),
        "box_off_p95_percent": 100 * float(np.percentile(drawn.off_centre, 95)),
        "drawn_per_s": 1000 / float(np.mean(drawn.gaps_ms)),
        "harmonic_rate_per_s": 1000 * float(np.sum(drawn.gaps_ms)) / float(np.sum(np.square(drawn.gaps_ms))),
        "first_picture_ms": drawn.first_picture_ms or 0.0,
        "first_face_ms": drawn.first_face_ms or 0.0,
    }
    notes = {
        "seconds": given.seconds,
        "speed_px_s": given.speed,
        "captured": ledger.captured,
        "shown": ledger.shown,
        "dropped": dict(ledger.dropped),
        "faces_missed": drawn.missed,
        "stamps_unread": drawn.unread,
        "locked_share": drawn.modes.count("locked") / len(drawn.modes),
        "engine": live.analysis.wiring.networks.name if live.analysis.wiring else "",
        "skipped": dict(live.analysis.wiring.scheduler.skipped) if live.analysis.wiring else {},
    }
    print_record(Result(name, figures, judged=("core_share_percent", "face_age_p95_ms"), notes=notes))


def one_case(given: argparse.Namespace) -> None:
    """One run, and its line."""
    settings = Settings(size=given.size, engine=given.engine, weights=given.weights, voice=given.voice)
    stop = threading.Event()
    neighbour = threading.Thread(target=busy_neighbour, args=(stop,))
    if given.busy:
        neighbour.start()
    try:
        live, drawn = run(given, settings)
    finally:
        stop.set()
        if given.busy:
            neighbour.join()
    moved = f"{given.speed:.0f} px a second" if given.speed else "by hand"
    name = f"end-to-end/{given.faces} {'face' if given.faces == 1 else 'faces'}/{given.size}/{moved}"
    report(name + ("/a core taken away" if given.busy else ""), live, drawn, given)


ALL = (
    {"faces": 1, "speed": 300.0},
    {"faces": 1, "speed": 0.0},
    {"faces": 1, "speed": 0.0, "busy": True},
    {"faces": 4, "speed": 0.0},
    {"faces": 1, "speed": 0.0, "size": "1280x720"},
)
"""What `--all` measures: what the budgets ask for."""


def main() -> None:
    """One run as the flags say, or all of them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--faces", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--speed", type=float, default=300.0, help="pixels a second; 0: moved as by a hand")
    parser.add_argument("--size", default="640x480")
    parser.add_argument("--overlay", default="auto")
    parser.add_argument("--engine", default="auto")
    parser.add_argument("--weights", default="")
    parser.add_argument("--voice", default="auto", help="small, full, or what live takes by itself")
    parser.add_argument("--busy", action="store_true", help="take a core away")
    parser.add_argument("--all", action="store_true", help="every case that a budget asks for")
    parser.add_argument("--write", action="store_true", help="keep the result")
    given = parser.parse_args()
    failed = False
    for case in ALL if given.all else ({},):
        try:
            one_case(argparse.Namespace(**(vars(given) | case)))
        except NothingMeasured as error:
            failed = True
            print(error, file=sys.stderr)
    raise SystemExit(failed)


if __name__ == "__main__":
    main()
