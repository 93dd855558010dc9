"""A live run for minutes: memory, threads, open files and lag do not grow over its last two thirds.

LIVEAFFECT_SOAK_MINUTES says how long (10), LIVEAFFECT_SOAK_WRITE=1 keeps the figures in
benchmarks/results/soak_live.jsonl and draws docs/memory.png. Run it with `pytest -m soak tests/soak`.
"""

from __future__ import annotations

import json
import os
import platform
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from numpy.typing import NDArray

from liveaffect.findings import limit_arenas
from liveaffect.realtime.acting import make_speech
from liveaffect.realtime.clock import MS, SECOND, MonotonicClock, process_cpu_ns
from liveaffect.realtime.cue import Cue
from liveaffect.realtime.errors import MissingFile
from liveaffect.realtime.feeds import Feed
from liveaffect.realtime.frame import AudioBlock, Source, VideoFrame
from liveaffect.realtime.live import LiveRun
from liveaffect.realtime.portrait import Portraits, packaged_portraits
from liveaffect.realtime.replay import MediaFile, Paced, load_picture
from liveaffect.realtime.sinks import Outputs
from liveaffect.realtime.wiring import Rings, Wiring
from liveaffect.settings import Settings

ROOT = Path(__file__).resolve().parents[2]
RESULTS, PICTURE = ROOT / "benchmarks" / "results" / "soak_live.jsonl", ROOT / "docs" / "memory.png"
EVERY_NS = 2 * SECOND
MOST_MB_AN_HOUR = 30.0
"""The slope of the resident memory that a run of ten minutes can tell from zero."""
MOST_LAG_MS_AN_HOUR = 60.0


@dataclass
class Gauge:
    """A sink that looks at the process every two seconds and at the age of every drawn picture."""

    clock: MonotonicClock
    wants_pictures: bool = True
    wants_sound: bool = True
    at_s: list[float] = field(default_factory=list)
    rss_mb: list[float] = field(default_factory=list)
    threads: list[int] = field(default_factory=list)
    files: list[int] = field(default_factory=list)
    lag_ms: list[float] = field(default_factory=list)
    """Median age of the pictures drawn since the look before."""
    cues: int = 0
    with_face: int = 0
    with_voice: int = 0
    blocks: int = 0
    _ages_ms: list[float] = field(default_factory=list)
    _next_ns: int = 0

    def show(self, picture: NDArray[np.uint8], frame: VideoFrame) -> None:
        now_ns = self.clock.now_ns()
        self._ages_ms.append((now_ns - frame.captured_ns) / MS)
        if now_ns < self._next_ns:
            return
        self._next_ns = now_ns + EVERY_NS
        self.at_s.append(now_ns / SECOND)
        self.rss_mb.append(resident_mb())
        self.threads.append(threading.active_count())
        self.files.append(len(os.listdir("/proc/self/fd")))
        self.lag_ms.append(float(np.median(self._ages_ms)))
        self._ages_ms.clear()

    def tell(self, cues: Sequence[Cue]) -> None:
        self.cues += len(cues)
        self.with_face += sum(cue.face is not None for cue in cues)
        self.with_voice += sum(cue.voice is not None for cue in cues)

    def hear(self, block: AudioBlock) -> None:
        self.blocks += 1

    def close(self) -> None: ...


def resident_mb() -> float:
    pages = int(Path("/proc/self/statm").read_text("ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def slope_an_hour(at_s: Sequence[float], values: Sequence[float]) -> float:
    """Of the last two thirds: the median slope between all pairs, which no single outlier moves."""
    begin = at_s[0] + (at_s[-1] - at_s[0]) / 3
    kept = [(t, v) for t, v in zip(at_s, values, strict=True) if t >= begin]
    t, v = np.array(kept).T
    i, j = np.triu_indices(len(t), 1)
    return float(np.median((v[j] - v[i]) / (t[j] - t[i]))) * 3600


def between_an_hour(at_s: Sequence[float], values: Sequence[float], parts: int = 12) -> list[float]:
    """A 95 % interval of that slope: the last two thirds in parts, drawn again with replacement.

    Looks that follow each other are alike; parts of minutes hardly are.
    """
    begin = at_s[0] + (at_s[-1] - at_s[0]) / 3
    kept = np.array([(t, v) for t, v in zip(at_s, values, strict=True) if t >= begin])
    pieces = [part for part in np.array_split(kept, parts) if len(part)]
    rng = np.random.default_rng(0)
    slopes = []
    for _ in range(1000):
        drawn = np.concatenate([pieces[i] for i in rng.integers(len(pieces), size=len(pieces))])
        slopes.append(np.polyfit(drawn[:, 0], drawn[:, 1], 1)[0] * 3600)
    return [round(float(x), 2) for x in np.percentile(slopes, (2.5, 97.5))]


def draw(gauge: Gauge, path: Path) -> None:
    """Memory and lag over the whole run."""
    figure = Figure(figsize=(9, 4.5), layout="constrained")
    memory, lag = figure.subplots(2, sharex=True)
    minutes = (np.array(gauge.at_s) - gauge.at_s[0]) / 60
    memory.plot(minutes, gauge.rss_mb, linewidth=1)
    memory.set(ylabel="resident memory, MB", ylim=(0, None))
    lag.plot(minutes, gauge.lag_ms, linewidth=0.5)
    lag.set(ylabel="age when drawn, ms", xlabel="minutes", ylim=(0, None))
    for axes in (memory, lag):
        axes.grid(alpha=0.3)
    figure.savefig(path, dpi=80)


def make_run(folder: Path, gauge: Gauge, clock: MonotonicClock) -> LiveRun:
    pictures = packaged_portraits()
    if not pictures:
        pytest.skip("no installed package carries a portrait")
    face, speech = load_picture(pictures[0]), make_speech(folder)

    def camera() -> Source:
        return Paced(Portraits([face]), clock)

    def microphone() -> Source:
        return Paced(MediaFile(speech, loop=True), clock)

    def make_wiring(rings: Rings, publish: Callable[[tuple[Cue, ...]], None]) -> Wiring:
        tools = Settings().load_tools(lambda _: None)
        return Wiring(rings, tools.networks, tools.make_finders, publish, pieces=tools.pieces)

    feeds = [
        Feed(camera().name, camera, pictures=True, sound=False, live=True),
        Feed(microphone().name, microphone, pictures=False, sound=True, live=True),
    ]
    return LiveRun(feeds, make_wiring, Outputs([gauge]), clock)


@pytest.mark.soak
@pytest.mark.skipif(platform.system() != "Linux", reason="reads /proc, which Windows and macOS lack")
def test_nothing_grows_in_a_live_run(tmp_path: Path) -> None:
    """Slopes of memory, threads, files and lag over the last two thirds; ledger balanced at the end."""
    minutes = float(os.environ.get("LIVEAFFECT_SOAK_MINUTES", "10"))
    limit_arenas()  # As every command does.
    clock = MonotonicClock()
    gauge = Gauge(clock)
    run = make_run(tmp_path, gauge, clock)
    cpu_ns = process_cpu_ns()
    try:
        run.run(seconds=60 * minutes)
    except MissingFile as error:
        pytest.skip(str(error))
    cpu_ns = process_cpu_ns() - cpu_ns
    run.check_ledger()
    (ledger,) = run.health.ledgers.values()
    wiring = run.analysis.wiring
    assert wiring is not None
    record = {
        "name": "soak/live",
        "minutes": minutes,
        "engine": wiring.networks.name,
        "cpu_percent_of_a_core": round(100 * cpu_ns / (60 * minutes * SECOND), 1),
        "rss_mb": [round(mb, 1) for mb in gauge.rss_mb[:: max(1, len(gauge.rss_mb) // 12)]],
        "slopes_an_hour": {
            "rss_mb": round(slope_an_hour(gauge.at_s, gauge.rss_mb), 2),
            "rss_mb_between": between_an_hour(gauge.at_s, gauge.rss_mb),
            "threads": round(slope_an_hour(gauge.at_s, gauge.threads), 2),
            "files": round(slope_an_hour(gauge.at_s, gauge.files), 2),
            "lag_ms": round(slope_an_hour(gauge.at_s, gauge.lag_ms), 2),
        },
        "lag_ms": {"p50": round(float(np.median(gauge.lag_ms)), 1), "worst": round(max(gauge.lag_ms), 1)},
        "pictures": {
            "captured": ledger.captured,
            "shown": ledger.shown,
            "dropped": {cause: count for cause, count in ledger.dropped.items() if count},
        },
        "cues": {"all": gauge.cues, "with face": gauge.with_face, "with voice": gauge.with_voice},
        "skipped": {cause: count for cause, count in wiring.scheduler.skipped.items() if count},
        "machine": {"python": platform.python_version(), "cores": os.cpu_count()},
    }
    line = json.dumps(record)
    print(line)  # noqa: T201
    if os.environ.get("LIVEAFFECT_SOAK_WRITE"):
        RESULTS.parent.mkdir(exist_ok=True)
        with RESULTS.open("w", encoding="utf-8") as file:
            file.write(line + "\n")
        draw(gauge, PICTURE)
    assert run.analysis.failed is None
    assert gauge.with_face > 0
    assert gauge.blocks > 0
    assert slope_an_hour(gauge.at_s, gauge.rss_mb) <= MOST_MB_AN_HOUR
    assert slope_an_hour(gauge.at_s, gauge.lag_ms) <= MOST_LAG_MS_AN_HOUR
    assert slope_an_hour(gauge.at_s, gauge.threads) == 0
    assert slope_an_hour(gauge.at_s, gauge.files) == 0
    third = len(gauge.threads) // 3
    assert max(gauge.threads[third:]) == gauge.threads[third]
    assert gauge.rss_mb[-1] <= 400
