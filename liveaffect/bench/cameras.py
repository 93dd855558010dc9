"""How many cameras does this machine carry, what does each cost, and what becomes of the rest?

A real portrait moves in front of each of so many cameras through the real path. For each camera: how many
cues a second it got, how old the faces in them were, and the longest time without one; for the run: what was
left out, by cause, and what the overlay said about it. All pictures are drawn beforehand.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from liveaffect.bench.measure import Row
from liveaffect.realtime.clock import SECOND, MonotonicClock, process_cpu_ns
from liveaffect.realtime.cue import Cue
from liveaffect.realtime.feeds import Feed
from liveaffect.realtime.frame import AudioBlock, Source, VideoFrame
from liveaffect.realtime.live import LiveRun
from liveaffect.realtime.portrait import Portraits, packaged_portraits
from liveaffect.realtime.replay import Paced, load_picture
from liveaffect.realtime.sinks import Outputs
from liveaffect.realtime.wiring import Rings, Wiring
from liveaffect.settings import Settings

FPS = 30.0
LOOP = 150
"""Pictures that each camera shows again and again."""
WARM_UP_S = 4.0


class Looped:
    """Pictures that were drawn beforehand, for ever."""

    def __init__(self, name: str, pictures: Sequence[NDArray[np.uint8]]) -> None:
        self.name = name
        self._pictures = pictures
        self._next = 0

    def open(self) -> None: ...

    def read(self, timeout_s: float) -> VideoFrame:
        """The next one; its time is that of its number."""
        seq = self._next
        self._next += 1
        return VideoFrame(
            self.name, seq, round(seq * SECOND / FPS), self._pictures[seq % len(self._pictures)]
        )

    def close(self) -> None: ...


class Gauge:
    """Cues of each camera: when they came, and how old the face in them was."""

    wants_pictures = False
    wants_sound = False

    def __init__(self, clock: MonotonicClock) -> None:
        self._clock = clock
        self.came_ns: dict[str, list[int]] = defaultdict(list)
        self.ages_ms: dict[str, list[float]] = defaultdict(list)
        self.counting_from_ns = 0

    def show(self, picture: NDArray[np.uint8], frame: VideoFrame) -> None: ...

    def tell(self, cues: Sequence[Cue]) -> None:
        """Count what came after the warm-up."""
        now_ns = self._clock.now_ns()
        if not self.counting_from_ns or now_ns < self.counting_from_ns:
            return
        for cue in cues:
            if cue.age_ms[0] is not None:
                self.came_ns[cue.source].append(now_ns)
                self.ages_ms[cue.source].append(cue.age_ms[0])

    def hear(self, block: AudioBlock) -> None: ...

    def close(self) -> None: ...


def camera_row(count: int, seconds: float, settings: Settings) -> Row:
    """So many cameras for so long."""
    clock = MonotonicClock()
    gauge = Gauge(clock)
    face = load_picture(packaged_portraits()[0])
    portraits = Portraits([face], settings.picture_size, FPS)
    pictures = [portraits.draw(k) for k in range(LOOP)]

    def camera(name: str, begin: int) -> Callable[[], Source]:
        own = [*pictures[begin:], *pictures[:begin]]
        return lambda: Paced(Looped(name, own), clock)

    names = [f"camera:{k}" for k in range(count)]
    feeds = [
        Feed(name, camera(name, 7 * k % LOOP), pictures=True, sound=False, live=True)
        for k, name in enumerate(names)
    ]

    def make_wiring(rings: Rings, publish: Callable[[tuple[Cue, ...]], None]) -> Wiring:
        tools = settings.load_tools(lambda _: None)
        gauge.counting_from_ns = clock.now_ns() + round(WARM_UP_S * SECOND)
        return Wiring(rings, tools.networks, tools.make_finders, publish, pieces=tools.pieces)

    live = LiveRun(feeds, make_wiring, Outputs([gauge]), clock)
    said: Counter[str] = Counter()

    def is_over() -> bool:
        newest = live.analysis.snapshots.newest()
        said.update([*(newest[1].notices if newest else ()), *live.watchdog.notices])
        end_ns = gauge.counting_from_ns + round(seconds * SECOND)
        return bool(gauge.counting_from_ns) and clock.now_ns() >= end_ns

    cpu_ns = process_cpu_ns()
    live.run(wants_stop=is_over)
    cpu_ns = process_cpu_ns() - cpu_ns
    live.check_ledger()
    return result(names, gauge, seconds, live, said, cpu_ns / SECOND / (seconds + WARM_UP_S))


def result(
    names: Sequence[str], gauge: Gauge, seconds: float, live: LiveRun, said: Counter[str], cores: float
) -> Row:
    """One line about the run."""
    end_ns = gauge.counting_from_ns + round(seconds * SECOND)
    rates = {name: len(gauge.came_ns[name]) / seconds for name in names}
    answered = [name for name in names if rates[name] > 0]
    gaps = {
        name: max(np.diff([gauge.counting_from_ns, *gauge.came_ns[name], end_ns])) / SECOND
        for name in answered
    }
    ages = [age for name in names for age in gauge.ages_ms[name]]
    wiring = live.analysis.wiring
    assert wiring is not None
    figures = {
        "cues_a_second_least": min((rates[name] for name in answered), default=0.0),
        "cues_a_second_mean": sum(rates.values()) / len(names),
        "cameras_answered": float(len(answered)),
        "longest_gap_s": max(gaps.values(), default=seconds),
        "age_p50_ms": float(np.percentile(ages, 50)) if ages else float("nan"),
        "age_p95_ms": float(np.percentile(ages, 95)) if ages else float("nan"),
        "cores": cores,
    }
    left_out = {**wiring.scheduler.skipped, **wiring.health.left_out, **wiring.health.failures}
    lines = [line for line, _ in said.most_common(2)]
    note = "; ".join([f"{cause} {number}" for cause, number in left_out.items() if number] + lines)
    return Row(f"{len(names)} cameras, cores of the processor", cores, "cores", note=note, figures=figures)
