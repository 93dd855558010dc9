"""Cues as JSON lines, as `docs/cue.md` describes them. The same cues give the same bytes."""

from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from liveaffect.realtime.cue import Cue
from liveaffect.realtime.frame import AudioBlock, VideoFrame
from liveaffect.realtime.sinks.disk import Lines


class JsonLines:
    """Writes every cue at once, so that a reader can follow. '-' is standard output."""

    wants_pictures = False
    wants_sound = False

    def __init__(self, path: str) -> None:
        self._lines = Lines(path, begins='{"v":')
        self._told = False

    def show(self, picture: NDArray[np.uint8], frame: VideoFrame) -> None:
        """Nothing to do."""

    def tell(self, cues: Sequence[Cue]) -> None:
        """One line for each cue, written before this returns."""
        self._lines.write("".join(line(cue) for cue in cues))
        self._told = self._told or bool(cues)

    def hear(self, block: AudioBlock) -> None:
        """Nothing to do."""

    def close(self) -> str | None:
        """Close the file; safe to call twice. Says so if nothing came."""
        self._lines.close()
        return None if self._told else f"{self._lines.name}: there was no cue to write"


def line(cue: Cue) -> str:
    """One cue as a line of plain ASCII with its end."""
    return json.dumps(cue.to_json(), separators=(",", ":"), allow_nan=False) + "\n"
