"""A run at one glance: evenly spaced drawn pictures on one PNG, each with its time.

How long a run will be is not known, so pictures are collected ever more sparsely: whenever the store is
full, every second one goes and the distance doubles. Memory is bounded and the spacing stays even.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from liveaffect.realtime.clock import MS, SECOND
from liveaffect.realtime.cue import Cue
from liveaffect.realtime.drawing.canvas import INK, Canvas, paste
from liveaffect.realtime.errors import SinkError
from liveaffect.realtime.frame import AudioBlock, VideoFrame
from liveaffect.realtime.sinks.disk import Replacing

Tile = tuple[int, str, NDArray[np.uint8]]
"""When it was captured, by which source, and the small picture."""

COLUMNS = 4
PICTURES = 16
"""Most pictures on a sheet."""
_STORE = 4 * PICTURES
_FIRST_STEP_NS = 33 * MS
_TILE_WIDTH_PX = 400
_GAP_PX = 10
_CAP_PX = 10
_CAPTION_PX = 28
_GROUND = (20, 23, 28)


class ContactSheet:
    """Collects pictures while a run goes on and writes the sheet when it is closed."""

    wants_pictures = True
    wants_sound = False

    def __init__(self, path: str) -> None:
        self._file = Replacing(Path(path))
        self._kept: list[Tile] = []
        self._start_ns = 0
        self._step_ns = _FIRST_STEP_NS
        self._next_ns = 0
        self._closed = False

    def show(self, picture: NDArray[np.uint8], frame: VideoFrame) -> None:
        """Keep a small copy if its time has come."""
        if self._closed:
            raise SinkError(f"cannot add to {self._file.path}: this output was closed already")
        if not self._kept:
            self._start_ns = self._next_ns = frame.captured_ns
        if frame.captured_ns < self._next_ns:
            return
        self._kept.append((frame.captured_ns, frame.source, _tile(picture)))
        if len(self._kept) >= _STORE:
            self._kept = self._kept[::2]
            self._step_ns *= 2
        slots = (frame.captured_ns - self._start_ns) // self._step_ns + 1
        self._next_ns = self._start_ns + slots * self._step_ns

    def tell(self, cues: Sequence[Cue]) -> None:
        """Nothing to do: what cues say is drawn on the pictures."""

    def hear(self, block: AudioBlock) -> None:
        """Nothing to do."""

    def close(self) -> str | None:
        """Write the sheet; safe to call twice. Without any picture no file is left, which is said."""
        if self._closed:
            return None
        self._closed = True
        if not self._kept:
            self._file.discard()
            return f"{self._file.path}: there was no picture to draw, so it is not written"
        self._file.write_whole(png(sheet(chosen(self._kept, PICTURES))))
        return None


def chosen(kept: Sequence[Tile], most: int) -> list[Tile]:
    """At most so many of them, evenly spaced, the first and the last among them."""
    if len(kept) <= most:
        return list(kept)
    return [kept[index * (len(kept) - 1) // (most - 1)] for index in range(most)]


def sheet(tiles: Sequence[Tile]) -> NDArray[np.uint8]:
    """Tiles in rows, each with its time below."""
    columns = min(COLUMNS, len(tiles))
    width, height = max(t.shape[1] for _, _, t in tiles), max(t.shape[0] for _, _, t in tiles)
    canvas = Canvas(
        columns * (width + _GAP_PX) + _GAP_PX, -(-len(tiles) // columns) * (height + _CAPTION_PX) + _GAP_PX
    )
    canvas.fill(0, 0, *canvas.size, _GROUND)
    several = len({source for _, source, _ in tiles}) > 1
    places = []
    for index, (t_ns, source, tile) in enumerate(tiles):
        x = _GAP_PX + index % columns * (width + _GAP_PX)
        y = _GAP_PX + index // columns * (height + _CAPTION_PX)
        caption = f"{t_ns / SECOND:.2f} s" + (f"  {source}" if several else "")
        canvas.text((x, y + tile.shape[0] + _CAP_PX + 7), caption, _CAP_PX, INK)
        places.append((tile, x, y))
    out = np.zeros((canvas.size[1], canvas.size[0], 3), np.uint8)
    paste(out, canvas.sprite(), 0, 0)
    for tile, x, y in places:
        out[y : y + tile.shape[0], x : x + tile.shape[1]] = tile
    return out


def png(picture: NDArray[np.uint8]) -> bytes:
    """The picture as a PNG file."""
    import cv2

    done, content = cv2.imencode(".png", picture[..., ::-1])
    if not done:
        raise SinkError("cannot make a PNG of the picture")
    return bytes(content)


def _tile(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The picture at the width of a tile."""
    import cv2

    height, width = picture.shape[:2]
    if width <= _TILE_WIDTH_PX:
        return picture.copy()
    size = (_TILE_WIDTH_PX, max(1, round(height * _TILE_WIDTH_PX / width)))
    return np.asarray(cv2.resize(picture, size, interpolation=cv2.INTER_AREA), np.uint8)
