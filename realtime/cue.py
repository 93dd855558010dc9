"""What the path says about one person at one moment: the cue; and how long what it rests on is true.

A cue answers "what does this person show, and how sure is it" at one point of the grid. It is published for
every track in view, and once more with no track for a voice that belongs to nobody in view. The JSON form
is fixed in `docs/cue.md`; `to_json` is the only place that writes it.

`Lifetime` is the only law about ages: a reading counts fully until it begins to fade, then less in a
straight line, and from the age at which it expires nothing. Estimates, cues and the overlay all ask here,
so that what is drawn vanishes when it stops to count.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from liveaffect.engines import LABELS
from liveaffect.realtime.clock import MS, SECOND

VERSION = 1
NOT_SURE = "not sure"
MODALITIES = ("face", "voice", "words")

Scores = tuple[float, ...]
"""Seven probabilities in the order of LABELS; they sum to one."""


@dataclass(frozen=True, slots=True)
class Cue:
    """What one person shows at one point of the grid."""

    t_ns: int
    """Media or run time of the grid point."""
    source: str
    frame: tuple[int, int] | None
    """Width and height of the picture; None when there is no camera."""
    track: int | None
    """None: a voice that belongs to nobody in view."""
    box: tuple[int, int, int, int] | None
    speaking: bool
    face: Scores | None
    voice: Scores | None
    words: Scores | None
    raw: Scores
    """Fused, before it fades by its age."""
    fused: Scores
    """What is shown."""
    weights: tuple[float, float, float]
    """Share of face, voice and words in `raw`; sums to one, or all zero without evidence."""
    label: str
    """One of LABELS, or 'not sure'."""
    confidence: float
    reason: str | None
    """Why the label is 'not sure'."""
    age_ms: tuple[int | None, int | None]
    """How old the newest evidence of face and of voice was at `t_ns`."""
    skipped: int
    """Grid points left out just before this one because the machine was late."""
    model: str
    epoch_ns: int | None = None
    """Wall-clock time, when live."""
    strength: float | None = None
    """How far the face has come from rest to the full expression of the label, 0..1; None without either."""
    transcript: str | None = None
    """What this person said last; only where it was asked for."""

    @property
    def t(self) -> float:
        """`t_ns` in seconds, as the wire form has it."""
        return round(self.t_ns / SECOND, 6)

    def to_json(self) -> dict[str, Any]:
        """The wire form: plain types only, keys in a fixed order."""
        out: dict[str, Any] = {
            "v": VERSION,
            "t": self.t,
            "source": self.source,
            "frame": None if self.frame is None else list(self.frame),
            "track": self.track,
            "box": None if self.box is None else list(self.box),
            "speaking": self.speaking,
            "face": distribution(self.face),
            "voice": distribution(self.voice),
            "words": distribution(self.words),
            "raw": distribution(self.raw),
            "fused": distribution(self.fused),
            "weights": {name: round(w, 4) for name, w in zip(MODALITIES, self.weights, strict=True)},
            "label": self.label,
            "confidence": round(self.confidence, 6),
            "reason": self.reason,
            "strength": None if self.strength is None else round(self.strength, 3),
            "age_ms": {"face": self.age_ms[0], "voice": self.age_ms[1]},
            "skipped": self.skipped,
            "model": self.model,
        }
        if self.transcript is not None:
            out["transcript"] = self.transcript
        if self.epoch_ns is not None:
            out["epoch_ns"] = self.epoch_ns
        return out


@dataclass(frozen=True, slots=True)
class Caption:
    """What one person, or nobody in view, said last."""

    source: str
    """The microphone."""
    track: int | None
    text: str
    """What is believed."""
    guess: str
    """What follows and may change."""


def distribution(scores: Sequence[float] | None) -> dict[str, float] | None:
    """Seven named probabilities rounded to six places that still sum to one; None stays None."""
    if scores is None:
        return None
    if len(scores) != len(LABELS):
        raise ValueError(f"a distribution has {len(LABELS)} entries, got {len(scores)}")
    micro = [round(score * 1_000_000) for score in scores]
    # What rounding lost or gained goes to the largest entry, where nobody can see it.
    micro[max(range(len(micro)), key=micro.__getitem__)] += 1_000_000 - sum(micro)
    return {label: count / 1_000_000 for label, count in zip(LABELS, micro, strict=True)}


def age_ms(now_ns: int, captured_ns: int | None) -> int | None:
    """How old evidence is in whole milliseconds, never negative; None stays None."""
    return None if captured_ns is None else max(0, (now_ns - captured_ns) // MS)


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
