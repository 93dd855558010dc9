"""Which grid points and which pieces of sound are due. Pure arithmetic: no clock, no thread, no arrays.

Grid points lie at `k * step`, pieces at `k * hop` samples, so two runs over one recording analyse the
same stretches whatever the machine's speed. A slow machine skips; it never shifts.
"""

from __future__ import annotations

from dataclasses import dataclass

from liveaffect.engines.recipe import FRAMES, HOP, PIECE, Statistics
from liveaffect.realtime.clock import MS

FUSION_STEP_NS = 100 * MS


@dataclass(frozen=True, slots=True)
class Due:
    """What is due: one index to work on, and how many older ones were left out for it."""

    index: int
    skipped: int


def grid_due(step_ns: int, *, last_index: int, now_ns: int) -> Due | None:
    """The newest grid point that time has reached after `last_index`, or None if there is no new one.

    Choosing the newest rather than the next is what bounds the delay under overload: points that are
    already late are skipped and counted, never queued.
    """
    if step_ns < 1:
        raise ValueError(f"the grid step must be positive, got {step_ns} ns")
    index = now_ns // step_ns
    if index <= last_index:
        return None
    return Due(index=index, skipped=index - last_index - 1)


@dataclass(frozen=True, slots=True)
class PieceGrid:
    """Pieces of sound: `length` samples every `hop` samples, as the voice network's manifest says.

    The first `lead` samples of a piece were heard before; what is new in piece k begins at sample k * hop.
    """

    length: int
    hop: int
    lead: int = 0
    statistics: Statistics = FRAMES
    """What the network that hears them keeps of a speaker."""

    def __post_init__(self) -> None:
        if not 1 <= self.hop <= self.length - self.lead <= self.length:
            raise ValueError(
                f"a hop of {self.hop} samples does not fit pieces of {self.length} that lead by {self.lead}: "
                "it must be at least 1 and at most what is new, or sound between pieces is never heard"
            )

    def due(self, *, next_index: int, oldest: int, end: int, most: int) -> tuple[range, int]:
        """Complete pieces from `next_index` on whose samples are still there, at most `most`.

        Returns their indices and how many were skipped, because their samples are gone or because more
        than `most` were waiting. Piece k covers samples k * hop - lead to k * hop - lead + length.
        """
        newest = (end + self.lead - self.length) // self.hop
        available = max(next_index, -(-(oldest + self.lead) // self.hop), newest - most + 1)
        if newest < available:
            return range(next_index, next_index), 0
        return range(available, newest + 1), available - next_index


PIECES = PieceGrid(PIECE, HOP)
"""What the recipe says; a network may declare its own."""
