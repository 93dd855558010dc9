"""How the run is doing: what each stage costs, what was lost and why, and what is left out when it is late.

captured = shown + dropped (by cause) + in flight, for every camera, at any moment. Counters are only ever
added to, each by one thread, so reading them needs no lock; a snapshot is taken for the overlay line.

When the machine cannot keep up, less is done in a fixed and visible order. Words come less often first; then
the small voice network takes the full one's place, then voices are judged half as often, then faces. With
several cameras each is then looked at less and less often, and when even the lowest rate is too much, the
cameras named last are shown without being analysed: some that are answered for are worth more than all that
are not. Capture and display are never touched. A second with many late steps goes one level up, five calm
ones go one level down, so the answer to a short hiccup is nothing and to a busy machine not a flicker.
"""

from __future__ import annotations

import threading
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from liveaffect.realtime.clock import MS, SECOND

WORDS_RARER = "words come less often"
WORDS_FINISHED = "words come when a sentence has ended"
VOICE_SMALL = "the small voice network judges in the place of the full one"
VOICES_HALVED = "voices are judged half as often"
"""Every second piece of sound is left out."""
FACES_HALVED = "faces are judged half as often"
"""Every second look at a face is left out."""
RATES_HZ = (15, 10, 6)
"""How often each of several cameras is looked at; at the lowest an answer is not older than it may be."""
_WINDOW_NS = SECOND
_CALM_NS = 5 * SECOND
_MOST_CALM_NS = 60 * SECOND
_RELAPSE_NS = 10 * SECOND
"""Who must go up again so soon after going down waits twice as long the next time."""
_LATE_SHARE = 0.25
_MIN_STEPS = 8
_FEW, _FEW_LATE = 4, 3
"""A machine that is too busy for many steps a second is judged by its last few."""


@dataclass(slots=True)
class Ledger:
    """What became of the pictures of one camera."""

    captured: int = 0
    """Pictures that entered the ring."""
    shown: int = 0
    """Pictures that were drawn."""
    dropped: Counter[str] = field(default_factory=Counter)
    """Pictures that were not drawn, by cause."""

    def check(self, in_flight: int) -> None:
        """Raise AssertionError unless every picture is accounted for."""
        if self.captured != self.shown + self.dropped.total() + in_flight:
            raise AssertionError(
                f"captured {self.captured} != shown {self.shown} + dropped {dict(self.dropped)} "
                f"+ in flight {in_flight}"
            )


@dataclass(frozen=True, slots=True)
class StageReport:
    """What one stage cost so far."""

    name: str
    calls: int
    busy_ms: float
    """Mean time of one call."""
    worst_ms: float
    overruns: int
    """Calls that took longer than the stage's period."""


class StageMeter:
    """Counts calls, time and overruns of one stage. One thread adds, any thread reads."""

    def __init__(self, name: str, period_ns: int) -> None:
        self._name = name
        self._period_ns = period_ns
        self._calls = self._total_ns = self._worst_ns = self._overruns = 0

    def add(self, busy_ns: int) -> None:
        """One call took `busy_ns`."""
        self._calls += 1
        self._total_ns += busy_ns
        self._worst_ns = max(self._worst_ns, busy_ns)
        self._overruns += busy_ns > self._period_ns

    def report(self) -> StageReport:
        """The figures so far."""
        mean = self._total_ns / self._calls / MS if self._calls else 0.0
        return StageReport(self._name, self._calls, mean, self._worst_ns / MS, self._overruns)


class Rate:
    """Events a second over the last `span_ns`, and the longest gap among them."""

    def __init__(self, span_ns: int = 2 * SECOND) -> None:
        self._span_ns = span_ns
        self._times: deque[int] = deque()

    def add(self, when_ns: int) -> None:
        """One event."""
        self._times.append(when_ns)
        while self._times[0] < when_ns - self._span_ns:
            self._times.popleft()

    def per_second(self) -> float:
        """Events a second; 0 before the second event."""
        if len(self._times) < 2 or self._times[-1] == self._times[0]:
            return 0.0
        return (len(self._times) - 1) * SECOND / (self._times[-1] - self._times[0])


def amount(count: int, what: str) -> str:
    """So many of something whose first word is a plural in 's', such as 'pieces of sound'."""
    first, space, rest = what.partition(" ")
    return f"{count} {first.removesuffix('s') if count == 1 else first}{space}{rest}"


def losses_in_words(*losses: Mapping[str, int]) -> str:
    """What was lost, by cause, as the end of a line; nothing if nothing was."""
    every = [(count, cause) for causes in losses for cause, count in causes.items()]
    return "".join(f"; {amount(count, cause)}" for count, cause in every if count)


class HealthBook:
    """All figures of a run; each entry belongs to the one thread that adds to it."""

    def __init__(self) -> None:
        self.ledgers: dict[str, Ledger] = {}
        self.stages: dict[str, StageMeter] = {}
        self.left_out: Counter[str] = Counter()
        """Pictures that were not analysed, drawn or not, by cause."""
        self.failures: Counter[str] = Counter()
        """What went wrong and was survived, by cause."""
        self._lock = threading.Lock()

    def ledger(self, source: str) -> Ledger:
        """The ledger of that camera, made on first use."""
        with self._lock:
            return self.ledgers.setdefault(source, Ledger())

    def stage(self, name: str, period_ns: int) -> StageMeter:
        """The stage of that name, made on first use."""
        with self._lock:
            return self.stages.setdefault(name, StageMeter(name, period_ns))

    def dropped(self) -> int:
        """Pictures of all cameras that were not drawn."""
        return sum(ledger.dropped.total() for ledger in self.ledgers.values())


class LoadShedder:
    """How much is left out. One caller notes; any thread may ask."""

    def __init__(self, measures: Sequence[str], cameras: int = 1) -> None:
        """`measures`: what this run can leave out, in the order in which it is."""
        self.level = 0
        """How many measures are in force; beyond them come the cameras."""
        self._measures = tuple(measures)
        self._cameras = cameras
        self._most = len(measures) + (len(RATES_HZ) + cameras - 1 if cameras > 1 else 0)
        self._steps: deque[tuple[int, bool]] = deque()
        self._last_late_ns: int | None = None
        self._changed_ns = 0
        self._eased_ns: int | None = None
        self._calm_ns = _CALM_NS

    def note(self, now_ns: int, *, late: bool) -> None:
        """One step of the scheduler: was it late?"""
        self._steps.append((now_ns, late))
        while len(self._steps) > _FEW and self._steps[0][0] <= now_ns - _WINDOW_NS:
            self._steps.popleft()
        if late:
            self._last_late_ns = now_ns
        if now_ns - self._changed_ns < _WINDOW_NS:
            return
        late_steps = sum(was_late for _, was_late in self._steps)
        many = len(self._steps) >= _MIN_STEPS
        if late_steps >= (max(_LATE_SHARE * len(self._steps), 1) if many else _FEW_LATE):
            self._worse(now_ns)
        elif self.level and now_ns - max(self._last_late_ns or 0, self._changed_ns) >= self._calm_ns:
            self._eased_ns = now_ns
            self._move(now_ns, -1)

    def does(self, measure: str) -> bool:
        """Whether that is left out now."""
        return measure in self._measures[: self.level]

    @property
    def look_period_ns(self) -> int:
        """Time between two looks at one camera; 0: every picture."""
        step = self.level - len(self._measures)
        return SECOND // RATES_HZ[min(step, len(RATES_HZ)) - 1] if step > 0 else 0

    @property
    def cameras(self) -> int:
        """So many cameras, the ones named first, are analysed."""
        return self._cameras - max(0, self.level - len(self._measures) - len(RATES_HZ))

    def says(self) -> str:
        """What is left out, for the user; empty when nothing is."""
        if self.cameras < self._cameras:
            rest = self._cameras - self.cameras
            return (
                f"{self.cameras} of {self._cameras} cameras are analysed, {RATES_HZ[-1]} times a second; "
                f"the last {'one is' if rest == 1 else f'{rest} are'} only shown"
            )
        if self.look_period_ns:
            return f"each camera is analysed {SECOND // self.look_period_ns} times a second"
        return self._measures[self.level - 1] if self.level else ""

    def _worse(self, now_ns: int) -> None:
        if self._eased_ns is not None:
            relapsed = now_ns - self._eased_ns <= _RELAPSE_NS
            self._calm_ns = min(2 * self._calm_ns, _MOST_CALM_NS) if relapsed else _CALM_NS
            self._eased_ns = None
        self._move(now_ns, +1)

    def _move(self, now_ns: int, by: int) -> None:
        self.level = min(max(self.level + by, 0), self._most)
        self._changed_ns = now_ns
