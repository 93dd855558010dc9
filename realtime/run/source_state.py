"""How a source is doing, in words for the overlay and for health, and how patient its supervisor is.

Five phases, because five different things are true of a source and a user does something else in each:
wait, look, plug it in, look for the other program, nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Phase = Literal["opening", "running", "stalled", "lost", "ended"]


@dataclass(frozen=True, slots=True)
class Patience:
    """How long to wait before giving up, and before trying again."""

    first_s: float = 5.0
    """For the first item after opening: some microphones take two seconds to wake."""
    stall_s: float = 0.8
    """For the next item; after this the source is called stalled."""
    abandon_s: float = 1.6
    """For the next item; after this the source is dropped and made anew."""
    black_s: float = 0.9
    """Nothing but zeros for so long is named."""
    pause_s: float = 0.25
    """Before the first new attempt; doubled each time, up to `longest_pause_s`."""
    longest_pause_s: float = 5.0
    close_s: float = 0.3
    """A source that takes longer to close is left to a thread of its own."""


@dataclass(frozen=True, slots=True)
class SourceState:
    """How a source is doing, for the overlay and for health."""

    name: str
    phase: Phase
    since_ns: int
    """Since when it is in this phase."""
    message: str
    """What a user should know about it; empty when all is well."""
    restarts: int
    delivered: int
    lost: int
    """Pictures or samples known to be lost; the sum over `losses`."""
    losses: Mapping[str, int] = field(default_factory=dict)
    """The same by cause."""
