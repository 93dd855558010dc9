"""How long what was seen or heard is true: the only place that knows the ages of readings.

One law for everything: a reading counts fully until it begins to fade, then less in a straight line, and from
the age at which it expires nothing. Estimates, cues and the overlay all ask here, so that what is drawn
vanishes when it stops to count.
"""

from __future__ import annotations

from dataclasses import dataclass

from liveaffect.realtime.clock import MS, SECOND


@dataclass(frozen=True, slots=True)
class Lifetime:
    """Of one sort of reading."""

    fades_ns: int
    expires_ns: int

    def __post_init__(self) -> None:
        if not 0 <= self.fades_ns < self.expires_ns:
            raise ValueError(
                f"a reading fades before it expires, "
                f"got {self.fades_ns / MS:g} and {self.expires_ns / MS:g} ms"
            )

    def share(self, age_ns: int | None) -> float:
        """How much a reading of this age counts, 0 to 1; nothing without one."""
        if age_ns is None:
            return 0.0
        left_ns = self.expires_ns - age_ns
        return min(max(left_ns / (self.expires_ns - self.fades_ns), 0.0), 1.0)

    def holds(self, age_ns: int | None) -> bool:
        """Whether it still counts at all."""
        return self.share(age_ns) > 0.0


FACE = Lifetime(300 * MS, 500 * MS)
VOICE = Lifetime(1_500 * MS, 2 * SECOND)
WORDS = Lifetime(2 * SECOND, 6 * SECOND)
"""What was said still counts while the next sentence is on its way."""


def age_ns(now_ns: int, captured_ns: int | None) -> int | None:
    """How old evidence is, never negative; None stays None."""
    return None if captured_ns is None else max(0, now_ns - captured_ns)
