"""A whole run as one picture: for every person the label over time, all seven probabilities, and who said so.

Cues are kept as a few numbers each. A lane that grows too long loses every second entry, and only the
longest lanes are drawn, so a run of days costs no more memory than one of minutes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from liveaffect.realtime.cue import Cue
from liveaffect.realtime.drawing.chart import Entry, Lane, chart
from liveaffect.realtime.errors import SinkError
from liveaffect.realtime.frame import AudioBlock, VideoFrame
from liveaffect.realtime.sinks.contact_sheet import png
from liveaffect.realtime.sinks.disk import Replacing

LANES = 8
"""Most lanes on the picture."""
_ENTRIES = 4_096
_TRACKS = 64


@dataclass(slots=True)
class _Kept:
    """The entries of one person, every `step`-th of what came."""

    entries: list[Entry] = field(default_factory=list)
    step: int = 1
    seen: int = 0

    def add(self, entry: Entry) -> None:
        if self.seen % self.step == 0:
            self.entries.append(entry)
            if len(self.entries) >= _ENTRIES:
                self.entries = self.entries[::2]
                self.step *= 2
        self.seen += 1


class Timeline:
    """Collects cues while a run goes on and draws them when it is closed."""

    wants_pictures = False
    wants_sound = False

    def __init__(self, path: str) -> None:
        self._file = Replacing(Path(path))
        self._kept: dict[tuple[str, int | None], _Kept] = {}
        self._left_out = 0
        self._closed = False

    def show(self, picture: NDArray[np.uint8], frame: VideoFrame) -> None:
        """Nothing to do."""

    def tell(self, cues: Sequence[Cue]) -> None:
        """Keep what the picture will show of these cues."""
        if self._closed:
            raise SinkError(f"cannot add to {self._file.path}: this output was closed already")
        for cue in cues:
            entry = Entry(cue.t_ns, cue.label, cue.confidence, cue.fused, cue.weights)
            self._kept.setdefault((cue.source, cue.track), _Kept()).add(entry)
        while len(self._kept) > _TRACKS:
            shortest = min(
                self._kept, key=lambda who: (self._kept[who].seen, self._kept[who].entries[-1].t_ns)
            )
            del self._kept[shortest]
            self._left_out += 1

    def hear(self, block: AudioBlock) -> None:
        """Nothing to do."""

    def close(self) -> str | None:
        """Draw and write the picture; safe to call twice. Without any cue no file is left, which is said."""
        if self._closed:
            return None
        self._closed = True
        if not self._kept:
            self._file.discard()
            return f"{self._file.path}: there was no cue to draw, so it is not written"
        longest = sorted(self._kept, key=lambda who: -self._kept[who].seen)[:LANES]
        shown = [who for who in self._kept if who in longest]
        several = len({source for source, _ in shown}) > 1
        lanes = [Lane(_name(who, several), tuple(self._kept[who].entries)) for who in shown]
        left_out = self._left_out + len(self._kept) - len(shown)
        self._file.write_whole(png(chart(lanes, left_out)))
        return None


def _name(who: tuple[str, int | None], several: bool) -> str:
    source, track = who
    name = "nobody in view" if track is None else f"person {track}"
    return f"{name}, {source}" if several else name
