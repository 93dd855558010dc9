"""Puts together what one camera's overlay shows: the picture, who is in it, and how the path is doing.

The display has its own pace. *Locked*, it draws result N on picture N and is a few milliseconds late;
*late*, it draws the newest result on the newest picture, with the box moved on to where the face is now.
`Pace` decides between them by what it measures.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from liveaffect.realtime.clock import MS, SECOND
from liveaffect.realtime.cue import Cue
from liveaffect.realtime.drawing.canvas import Health, Mark, View
from liveaffect.realtime.frame import Box, Face, Sighting, VideoFrame
from liveaffect.realtime.health import Rate
from liveaffect.realtime.overlay import PanelPlace, lay_out, paint
from liveaffect.realtime.scheduler import Snapshot

NO_CAMERA = "no camera"
"""What a run with microphones alone draws its voice meter on."""
HISTORY_STEP_NS = 100 * MS
HEALTH_NS = 500 * MS
HISTORY = 300
"""Entries of the small timeline: half a minute."""
_MOVE_AT_MOST_NS = 200 * MS
"""A box is not moved on further than this; after it, nobody knows."""
LOCKED_BELOW_NS = 15 * MS
LATE_ABOVE_NS = 25 * MS
_PACE_PICTURES = 45


class Pace:
    """Locked or late, from how long results take after their picture. 'auto' has hysteresis."""

    def __init__(self, wanted: str) -> None:
        self._wanted = wanted
        self._delays: deque[int] = deque(maxlen=_PACE_PICTURES)
        self._locked = wanted != "late"

    @property
    def locked(self) -> bool:
        """Whether the display should wait for the result of its picture."""
        return self._locked

    @property
    def mode(self) -> str:
        """The word for the health line."""
        return "locked" if self._locked else "late"

    def switch(self) -> None:
        """The user wants the other one; no more measuring."""
        self._wanted = "late" if self._locked else "locked"
        self._locked = not self._locked

    def note(self, delay_ns: int) -> None:
        """A result came `delay_ns` after its picture."""
        self._delays.append(delay_ns)
        if self._wanted != "auto" or len(self._delays) < _PACE_PICTURES // 3:
            return
        slow = sorted(self._delays)[int(0.9 * (len(self._delays) - 1))]
        self._locked = slow <= (LATE_ABOVE_NS if self._locked else LOCKED_BELOW_NS)


@dataclass(frozen=True, slots=True)
class RunStatus:
    """What a picture is drawn under: the moment, and what the path has to say about itself."""

    now_ns: int
    mode: str
    dropped: int = 0
    skipped: int = 0
    notices: tuple[str, ...] = ()
    disclosure: bool = False
    """Whether the picture leaves the process and has to say what is done with it."""
    text_scale: float = 1.0
    """How much larger than usual text must be, because the picture is shown smaller than it is."""


class Screen:
    """The view of one camera. One caller."""

    def __init__(self, source: str, engine: str, *, mirrored: bool = False) -> None:
        self.mirrored = mirrored
        self._source = source
        self.engine = engine
        self._rate = Rate()
        self._history: deque[tuple[int, str, float]] = deque(maxlen=HISTORY)
        self._places: tuple[PanelPlace, ...] = ()
        self._health: tuple[int, Health] | None = None

    def draw(
        self, frame: VideoFrame, sighting: Sighting | None, snapshot: Snapshot | None, around: RunStatus
    ) -> NDArray[np.uint8]:
        """The drawn picture; panels stay on their side of the face from one picture to the next."""
        view = self.compose(frame, sighting, snapshot, around)
        layout = lay_out(view, self._places, text_scale=around.text_scale)
        self._places = layout.places
        return paint(view, layout)

    def compose(
        self,
        frame: VideoFrame,
        sighting: Sighting | None,
        snapshot: Snapshot | None,
        around: RunStatus,
    ) -> View:
        """What the overlay is given for `frame`."""
        now_ns = around.now_ns
        self._rate.add(now_ns)
        cues = (
            ()
            if snapshot is None
            else tuple(c for c in snapshot.cues if c.source == self._source or c.track is None)
        )
        by_track = {cue.track: cue for cue in cues}
        faces = () if sighting is None else sighting.faces
        moved_ns = 0 if sighting is None else min(frame.captured_ns - sighting.captured_ns, _MOVE_AT_MOST_NS)
        self._remember(faces, by_track, now_ns)
        return View(
            frame=frame,
            marks=tuple(_mark(face, by_track.get(face.track), moved_ns, now_ns) for face in faces),
            health=self._read_off(frame, around),
            nobody=by_track.get(None),
            voice_level=0.0 if snapshot is None else snapshot.level,
            history=tuple(self._history),
            notices=(*around.notices, *(() if snapshot is None else snapshot.notices)),
            disclosure=around.disclosure,
            captions=() if snapshot is None else snapshot.captions,
            mirrored=self.mirrored,
        )

    def _read_off(self, frame: VideoFrame, around: RunStatus) -> Health:
        """The health line. It changes twice a second: faster, nobody can read it, and it costs more."""
        if self._health is not None and around.now_ns - self._health[0] < HEALTH_NS:
            return self._health[1]
        health = Health(
            fps=self._rate.per_second(),
            age_ms=(around.now_ns - frame.captured_ns) / MS,
            dropped=around.dropped,
            skipped=around.skipped,
            engine=self.engine,
            mode=around.mode,
        )
        self._health = (around.now_ns, health)
        return health

    def _remember(self, faces: tuple[Face, ...], by_track: dict[int | None, Cue], now_ns: int) -> None:
        """One entry of the timeline every tenth of a second, of the largest face."""
        if not faces or (self._history and now_ns - self._history[-1][0] < HISTORY_STEP_NS):
            return
        largest = max(faces, key=lambda face: face.box[2] * face.box[3])
        cue = by_track.get(largest.track)
        if cue is not None:
            self._history.append((now_ns, cue.label, cue.confidence))


def blank_picture(name: str, now_ns: int) -> VideoFrame:
    """What is drawn before the first picture, and without a camera; it is in no ledger."""
    return VideoFrame(source=name, seq=0, captured_ns=now_ns, image=np.full((480, 640, 3), 24, np.uint8))


def _mark(face: Face, cue: Cue | None, moved_ns: int, now_ns: int) -> Mark:
    face_age = voice_age = None
    if cue is not None:
        since_ms = max(0, now_ns - cue.t_ns) // MS
        face_age, voice_age = (None if age is None else age + since_ms for age in cue.age_ms)
    return Mark(
        track=face.track,
        box=_moved(face.box, face.velocity, moved_ns),
        cue=cue,
        face_age_ms=face_age,
        voice_age_ms=voice_age,
    )


def _moved(box: Box, velocity: tuple[float, float], by_ns: int) -> Box:
    x, y, width, height = box
    seconds = by_ns / SECOND
    return x + velocity[0] * seconds, y + velocity[1] * seconds, width, height
