"""What the overlay is given: one picture, who is in it, and how the path is doing.

Everything is already decided when a `View` is made: boxes stand where the faces are in this picture, ages
are those at the moment of drawing. Drawing is therefore a function of the view alone.
"""

from __future__ import annotations

from dataclasses import dataclass

from liveaffect.realtime.cue import Caption, Cue
from liveaffect.realtime.frame import Box, VideoFrame


@dataclass(frozen=True, slots=True)
class Mark:
    """One face to draw."""

    track: int
    box: Box
    """Already moved to the time of the picture; unmirrored source pixels."""
    cue: Cue | None = None
    """The newest cue of this track; None before the first."""
    face_age_ms: int | None = None
    """How old the face evidence is at the moment of drawing; None without any."""
    voice_age_ms: int | None = None


@dataclass(frozen=True, slots=True)
class Health:
    """How the path is doing, in one line."""

    fps: float
    """Pictures drawn a second."""
    age_ms: float | None
    """From light on the sensor to this picture; None before the first measurement."""
    dropped: int
    """Pictures lost, whatever the cause."""
    skipped: int
    """Grid points left out because the machine was late."""
    engine: str
    mode: str
    """'locked': result N on picture N. 'late': the newest result, its box moved on."""


@dataclass(frozen=True, slots=True, eq=False)
class View:
    """Everything that one drawn picture shows."""

    frame: VideoFrame
    marks: tuple[Mark, ...]
    health: Health
    nobody: Cue | None = None
    """The newest cue of a voice that belongs to nobody in view."""
    voice_level: float = 0.0
    """0..1 for the meter, which stands at the speaker if one speaks, else at the edge."""
    history: tuple[tuple[int, str, float], ...] = ()
    """(t_ns, label, confidence) of the largest face, newest last, for the small timeline."""
    notices: tuple[str, ...] = ()
    """What the person must know now, such as 'camera:0 lost; trying again'."""
    captions: tuple[Caption, ...] = ()
    """What was said lately, at the face of whoever said it."""
    disclosure: bool = False
    """Say on the picture that emotions are being analysed: it is seen by others."""
    mirrored: bool = False
    """Mirror the picture; text and meters stay as they are."""
