"""How the run is doing: what each stage costs, what was lost and why, and the ledger that must balance.

captured = shown + dropped (by cause) + in flight, for every camera, at any moment. Counters are only ever
added to, each by one thread, so reading them needs no lock; a snapshot is taken for the overlay line.
"""

from __future__ import annotations

import threading
from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass, field

from liveaffect.realtime.clock import MS, SECOND


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


def losses_in_words(*losses: Mapping[str, int]) -> str:
    """What was lost, by cause, as the end of a line; nothing if nothing was."""
    return "".join(f"; {count} {cause}" for causes in losses for cause, count in causes.items() if count)


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
