"""Cues in a file: as JSON lines, as `docs/cue.md` describes them, or as a table of numbers.

The same cues give the same bytes.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from liveaffect.engines.recipe import LABELS
from liveaffect.realtime.cue import MODALITIES, Cue
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


DISTRIBUTIONS = ("fused", "raw", *MODALITIES)
COLUMNS = (
    "t",
    "source",
    "track",
    "label",
    "confidence",
    "reason",
    "speaking",
    "box_x",
    "box_y",
    "box_width",
    "box_height",
    "frame_width",
    "frame_height",
    *(f"weight_{name}" for name in MODALITIES),
    "age_face_ms",
    "age_voice_ms",
    "skipped",
    *(f"{distribution}_{label}" for distribution in DISTRIBUTIONS for label in LABELS),
    "model",
    "epoch_ns",
)


class CsvFile:
    """Writes the heading at once and every cue as it comes. '-' is standard output."""

    wants_pictures = False
    wants_sound = False

    def __init__(self, path: str) -> None:
        heading = _lines_of([COLUMNS])
        self._lines = Lines(path, begins=heading[:9])
        self._lines.write(heading)
        self._told = False

    def show(self, picture: NDArray[np.uint8], frame: VideoFrame) -> None:
        """Nothing to do."""

    def tell(self, cues: Sequence[Cue]) -> None:
        """One row for each cue, written before this returns."""
        self._lines.write(_lines_of([row(cue) for cue in cues]))
        self._told = self._told or bool(cues)

    def hear(self, block: AudioBlock) -> None:
        """Nothing to do."""

    def close(self) -> str | None:
        """Close the file; safe to call twice. Says so if nothing came."""
        self._lines.close()
        return None if self._told else f"{self._lines.name}: there was no cue to write, only the heading"


def row(cue: Cue) -> tuple[object, ...]:
    """The values of one cue in the order of COLUMNS; what is not known is left empty."""
    out = cue.to_json()
    nothing = dict.fromkeys(LABELS)
    return (
        out["t"],
        out["source"],
        out["track"],
        out["label"],
        out["confidence"],
        out["reason"],
        int(out["speaking"]),
        *(out["box"] or (None,) * 4),
        *(out["frame"] or (None,) * 2),
        *out["weights"].values(),
        out["age_ms"]["face"],
        out["age_ms"]["voice"],
        out["skipped"],
        *(value for name in DISTRIBUTIONS for value in (out[name] or nothing).values()),
        out["model"],
        out.get("epoch_ns"),
    )


def _lines_of(rows: Sequence[Sequence[object]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()
