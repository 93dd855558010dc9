"""How old is what is drawn, how far is the box from the face, what does the whole cost, how late is a label?

A real portrait moves in front of the real path: face finder, networks, overlay, at 30 pictures a second
with the rhythm of speech. Picture number and time are burned into the pixels and read back from the *drawn*
picture, so which picture is shown and when is not what the path says about itself. Pictures are drawn
beforehand, so the cost is that of the path, and what measuring costs is counted apart; ages are wall time.
How late a label is, is asked of a drawn head whose expression is known.
"""

from __future__ import annotations

import itertools
import math
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from liveaffect.bench.measure import Row
from liveaffect.engines.recipe import SAMPLE_RATE
from liveaffect.realtime.acting import BLEND_S, SCENE, SCENE_S, ActingHead, tone_voice
from liveaffect.realtime.blazeface import make_finder
from liveaffect.realtime.clock import MS, SECOND, MonotonicClock, cpu_ns, process_cpu_ns
from liveaffect.realtime.cue import Cue
from liveaffect.realtime.drawing.canvas import View
from liveaffect.realtime.errors import EndOfStream
from liveaffect.realtime.estimate import Estimate
from liveaffect.realtime.face_analyzer import find_in_picture
from liveaffect.realtime.feeds import Feed
from liveaffect.realtime.frame import AudioBlock, Sighting, VideoFrame
from liveaffect.realtime.live import LiveRun
from liveaffect.realtime.lockstep import Watched, analyse
from liveaffect.realtime.portrait import Motion, Portraits, packaged_portraits, read_stamp
from liveaffect.realtime.replay import Paced, load_picture
from liveaffect.realtime.scheduler import Snapshot
from liveaffect.realtime.screen import RunStatus, Screen
from liveaffect.realtime.sinks import Outputs, Sink
from liveaffect.realtime.wiring import Rings, Wiring
from liveaffect.settings import Settings

WARM_UP_NS = 3 * SECOND


@dataclass(slots=True)
class DrawnPictures:
    """What was measured while the run was on."""

    ages_ms: list[float] = field(default_factory=list)
    face_ages_ms: list[float] = field(default_factory=list)
    off_centre: list[float] = field(default_factory=list)
    gaps_ms: list[float] = field(default_factory=list)
    modes: list[str] = field(default_factory=list)
    first_picture_ms: float | None = None
    first_face_ms: float | None = None
    missed: int = 0
    unread: int = 0
    """Pictures whose stamp something was drawn over; they count in no figure."""
    meter_ns: int = 0
    cpu_from: tuple[int, int] | None = None
    cpu_until: tuple[int, int] = (0, 0)


class Probe(Screen):
    """A screen that keeps the view that was drawn last."""

    view: View | None = None

    def compose(
        self, frame: VideoFrame, sighting: Sighting | None, snapshot: Snapshot | None, around: RunStatus
    ) -> View:
        """As the screen does."""
        self.view = super().compose(frame, sighting, snapshot, around)
        return self.view


class Meter:
    """The sink at the far end: reads the stamp back and compares with the truth."""

    wants_pictures, wants_sound = True, False

    def __init__(
        self, clock: MonotonicClock, probe: Probe, truth: Callable[[int], list[NDArray[Any]]]
    ) -> None:
        self.drawn = DrawnPictures()
        self._clock, self._probe, self._truth = clock, probe, truth
        self._last_ns = 0

    def show(self, picture: NDArray[np.uint8], frame: VideoFrame) -> None:
        """One drawn picture; what measuring costs is taken off the bill."""
        began_ns = cpu_ns()
        self._measure(picture, frame)
        self.drawn.meter_ns += cpu_ns() - began_ns if self.drawn.cpu_from else 0

    def _measure(self, picture: NDArray[np.uint8], frame: VideoFrame) -> None:
        now_ns, drawn, view = self._clock.now_ns(), self.drawn, self._probe.view
        stamp = read_stamp(picture)
        if drawn.first_picture_ms is None:
            drawn.first_picture_ms = now_ns / MS
        if view is None or stamp is None:
            drawn.unread += stamp is None and read_stamp(frame.image) is not None
            return
        if drawn.first_face_ms is None and view.marks:
            drawn.first_face_ms = now_ns / MS
        if stamp[1] < WARM_UP_NS:
            self._last_ns = now_ns
            return
        drawn.cpu_from = drawn.cpu_from or (process_cpu_ns(), now_ns)
        drawn.cpu_until = (process_cpu_ns(), now_ns)
        drawn.modes.append(view.health.mode)
        drawn.gaps_ms.append((now_ns - self._last_ns) / MS)
        self._last_ns = now_ns
        # `Paced` added one constant to all times; the stamp says which moment this picture really shows.
        drawn.ages_ms.append((now_ns - frame.captured_ns) / MS)
        if frame.seq != stamp[0]:
            raise AssertionError(f"picture {stamp[0]} was shown as {frame.seq}")
        for centre in self._truth(stamp[0]):
            self._compare(view, centre)

    def _compare(self, view: View, truth: NDArray[Any]) -> None:
        x, y, width = truth
        offsets = [
            (np.hypot(b[0] + b[2] / 2 - x, b[1] + b[3] / 2 - y), m) for m in view.marks for b in [m.box]
        ]
        if not offsets or min(offsets, key=lambda pair: float(pair[0]))[0] > width:
            self.drawn.missed += 1
            return
        off, mark = min(offsets, key=lambda pair: float(pair[0]))
        self.drawn.off_centre.append(float(off) / width)
        if mark.face_age_ms is not None:
            self.drawn.face_ages_ms.append(float(mark.face_age_ms))

    def tell(self, cues: Any) -> None: ...

    def hear(self, block: AudioBlock) -> None: ...

    def close(self) -> None: ...


FPS = 30.0


@dataclass(frozen=True, slots=True)
class WholeCase:
    """One run of the whole path."""

    faces: int = 1
    size: str = "640x480"
    fps: float = FPS
    speed: float = 0.0
    """Pixels a second; 0, as a hand moves."""
    busy: int = 0
    """Cores taken away."""
    seconds: float = 12.0

    @property
    def name(self) -> str:
        """Such as 'whole, 4 faces, 640x480, 30 a second'."""
        faces = "1 face" if self.faces == 1 else f"{self.faces} faces"
        moved = f", {self.speed:g} px a second" if self.speed else ""
        taken = f", {self.busy} core{'s' if self.busy > 1 else ''} taken away" if self.busy else ""
        return f"whole, {faces}, {self.size}, {self.fps:g} a second{moved}{taken}"


QUICK = (WholeCase(),)
FULL = (
    WholeCase(speed=300.0),
    WholeCase(),
    WholeCase(busy=1),
    WholeCase(busy=2),
    WholeCase(faces=4),
    WholeCase(faces=16, size="1280x720"),
    WholeCase(size="1280x720"),
    WholeCase(size="1920x1080", seconds=5.0),
    WholeCase(size="3840x2160", fps=15.0, seconds=3.0),
    WholeCase(fps=15.0),
    WholeCase(fps=60.0),
)
"""What the budgets ask for, and what lies around it; large pictures for less long: all are drawn before."""
BUDGETS = {"core_share_percent": 17.0, "face_age_p95_ms": 50.0}


class DrawnBefore:
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


def live_run(
    feeds: Sequence[Feed], sinks: Sequence[Sink], probe: Probe, clock: MonotonicClock, settings: Settings
) -> LiveRun:
    """A live run of these feeds, its first screen the probe."""

    def make_wiring(rings: Rings, publish: Callable[[tuple[Cue, ...]], None]) -> Wiring:
        tools = settings.load_tools(lambda _: None, live=True)
        return Wiring(rings, tools.networks, tools.make_finders, publish, pieces=tools.pieces)

    live = LiveRun(feeds, make_wiring, Outputs(sinks), clock, overlay=settings.overlay)
    live.screens[feeds[0].name] = probe
    return live


def run(case: WholeCase, settings: Settings) -> tuple[LiveRun, DrawnPictures]:
    """The live run with its meter."""
    faces = [load_picture(packaged_portraits()[i % len(packaged_portraits())]) for i in range(case.faces)]
    portraits = Portraits(
        faces, settings.picture_size, case.fps, motion=Motion(speed_px_s=case.speed or None)
    )
    count = round(case.seconds * case.fps) + round(WARM_UP_NS / SECOND * case.fps)
    frames = [VideoFrame("portraits", i, portraits.time_ns(i), portraits.draw(i)) for i in range(count)]
    still = [boxes_in(face) for face in faces]
    clock = MonotonicClock()
    blocks = sound(case.seconds + WARM_UP_NS / SECOND)
    feeds = [
        Feed("portraits", lambda: Paced(DrawnBefore(frames), clock), pictures=True, sound=False, live=False),
        Feed("voice", lambda: Paced(DrawnBefore(blocks), clock), pictures=False, sound=True, live=False),
    ]

    probe = Probe("portraits", "starting")
    meter = Meter(
        clock, probe, lambda seq: [moved(m, b) for m, b in zip(portraits.truth(seq), still, strict=True)]
    )
    live = live_run(feeds, [meter], probe, clock, settings)
    live.run(wants_stop=lambda: live.supervisors[0].state.phase == "ended")
    live.check_ledger()
    return live, meter.drawn


@contextmanager
def busy_neighbours(count: int) -> Iterator[None]:
    """Takes cores away, as a video call would: processes of their own, because threads share a lock."""
    processes = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


def whole_rows(cases: Sequence[WholeCase], settings: Settings, say: Callable[[str], None]) -> list[Row]:
    """Share of a core and age of what is drawn, for each case. A case that gives no figures says why."""
    rows: list[Row] = []
    for case in cases:
        say(case.name)
        with busy_neighbours(case.busy):
            live, drawn = run(case, replace(settings, size=case.size))
        if drawn.cpu_from is None or not drawn.face_ages_ms:
            why = (
                f"no reading of a face was drawn in {case.seconds:g} s; the machine is too busy to measure on"
            )
            rows.append(Row(f"{case.name}, share of a core", math.nan, "%", settled=False, note=why))
            continue
        figures = _figures(live, drawn)
        share, age = figures["core_share_percent"], figures["face_age_p95_ms"]
        budgeted = case in (WholeCase(), WholeCase(speed=300.0))
        rows.append(
            Row(
                f"{case.name}, share of a core",
                share,
                "%",
                budget=BUDGETS["core_share_percent"] if budgeted else None,
                note=f"{drawn.modes.count('locked') / len(drawn.modes):.0%} locked",
            )
        )
        budget = BUDGETS["face_age_p95_ms"] if budgeted else None
        rows.append(Row(f"{case.name}, age of the face, p95", age, budget=budget, figures=figures))
    return rows


def _figures(live: LiveRun, drawn: DrawnPictures) -> dict[str, float]:
    assert drawn.cpu_from is not None
    spent_ns, wall_ns = (b - a for a, b in zip(drawn.cpu_from, drawn.cpu_until, strict=True))
    spent_ns -= drawn.meter_ns
    ledger = live.health.ledger("portraits")
    out = {
        "core_share_percent": 100 * spent_ns / wall_ns,
        "cpu_a_picture_ms": spent_ns / MS / len(drawn.ages_ms),
        "picture_age_p50_ms": float(np.percentile(drawn.ages_ms, 50)),
        "picture_age_p95_ms": float(np.percentile(drawn.ages_ms, 95)),
        "face_age_p50_ms": float(np.percentile(drawn.face_ages_ms, 50)),
        "face_age_p95_ms": float(np.percentile(drawn.face_ages_ms, 95)),
        "drawn_per_s": 1000 / float(np.mean(drawn.gaps_ms)),
        "first_picture_ms": drawn.first_picture_ms or 0.0,
        "first_face_ms": drawn.first_face_ms or 0.0,
        "captured": float(ledger.captured),
        "shown": float(ledger.shown),
        "faces_missed": float(drawn.missed),
    }
    if drawn.off_centre:
        out["box_off_p95_percent"] = 100 * float(np.percentile(drawn.off_centre, 95))
    return out


class _Acted:
    """Pictures of the acting head, as a source of a file."""

    def __init__(self, seconds: float) -> None:
        self._head = ActingHead([])
        self._left = iter(range(round(seconds * FPS)))

    def read(self, timeout_s: float) -> VideoFrame:
        """The next picture."""
        for at in self._left:
            return VideoFrame("head", at, self._head.time_ns(at), self._head.draw(at))
        raise EndOfStream("head")


def response_rows(settings: Settings, say: Callable[[str], None], scenes: int = 2) -> list[Row]:
    """From when an expression of the drawn head begins to change to the first moment it is shown.

    In the time of the film, so that a busy machine changes nothing; the age of what is drawn comes on top.
    """
    say("expression changed to label changed")
    tools = settings.load_tools(say)
    shown: list[Estimate] = []
    tools.networks.confidence = replace(tools.networks.confidence, watch=shown.append)
    analyse(Watched(_Acted(scenes * SCENE_S), "head", None), tools, Outputs([]), lambda _: None)
    tools.networks.close()
    delays: dict[str, list[float]] = {}
    for scene in range(scenes):
        for act, after in itertools.pairwise(SCENE):
            begin_s = scene * SCENE_S + after.from_s
            times = (one.at_ns / SECOND for one in shown if one.label == after.label)
            hold_s = min(1.2, BLEND_S + 1.0)
            found = next((t - begin_s for t in times if begin_s <= t <= begin_s + hold_s), math.inf)
            kind = "to neutral" if after.label == "neutral" else f"{act.label} to {after.label}"
            delays.setdefault(kind, []).append(found)
    rows = []
    for kind, all_s in delays.items():
        seen = [one for one in all_s if math.isfinite(one)]
        note = f"shown {len(seen)} of {len(all_s)} times"
        value = float(np.median(seen)) if seen else math.nan
        budget = 0.5 if kind == "to neutral" else 0.35
        rows.append(Row(f"expression changed to label changed, {kind}", value, "s", budget, note=note))
    return rows
