"""Two plain pictures for reports: a table of confusions, and curves over epochs. OpenCV alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

Picture = NDArray[np.uint8]
"""BGR."""
_PAPER, _INK, _QUIET, _FULL = (255, 255, 255), (40, 36, 30), (205, 200, 196), np.array([140.0, 84.0, 24.0])
_LINES = ((140, 84, 24), (30, 110, 225), (70, 150, 40), (150, 60, 150))
_CELL, _LEFT, _TOP, _EDGE = 84, 130, 96, 24
_WIDE, _HIGH = 900, 420


def confusion(table: Sequence[Sequence[int]], labels: Sequence[str], title: str) -> Picture:
    """Rows are the truth; the darker a cell, the larger its share of the row."""
    count = len(labels)
    page = _page(_LEFT + count * _CELL + _EDGE, _TOP + count * _CELL + _EDGE)
    _write(page, title, (_EDGE, 34), 0.6)
    _write(page, "truth, called", (_EDGE, _TOP - 12), 0.42)
    for at, label in enumerate(labels):
        _write(page, label, (_LEFT + at * _CELL + 6, _TOP - 12), 0.42)
        _write(page, label, (_EDGE, _TOP + at * _CELL + _CELL // 2 + 5), 0.42)
        whole = max(sum(table[at]), 1)
        for other, cell in enumerate(table[at]):
            share = cell / whole
            corner = (_LEFT + other * _CELL, _TOP + at * _CELL)
            shade = tuple(float(v) for v in (1 - share) * 255.0 + share * _FULL)
            cv2.rectangle(page, corner, (corner[0] + _CELL - 2, corner[1] + _CELL - 2), shade, cv2.FILLED)
            ink = _PAPER if share > 0.5 else _INK
            _write(page, str(cell), (corner[0] + 10, corner[1] + 36), 0.5, ink)
            _write(page, f"{share:.0%}", (corner[0] + 10, corner[1] + 60), 0.42, ink)
    return page


def curves(rows: Sequence[Mapping[str, float]], names: Sequence[str], title: str) -> Picture:
    """Shares over epochs, from 0 to 1, one line a name; rows without the name are left out."""
    page = _page(_WIDE, _HIGH)
    _write(page, title, (_EDGE, 34), 0.6)
    last = max(row["epoch"] for row in rows)

    def place(epoch: float, share: float) -> tuple[int, int]:
        across = (epoch - 1) / max(last - 1, 1)
        return round(70 + across * (_WIDE - 100)), round(_HIGH - 50 - share * (_HIGH - 110))

    for tenth in range(0, 11, 2):
        left, right = place(1, tenth / 10), place(last, tenth / 10)
        cv2.line(page, left, right, _QUIET, 1)
        _write(page, f"{tenth / 10:.1f}", (_EDGE, left[1] + 5), 0.42)
    for epoch in np.unique(np.linspace(1, last, 8).round()):
        _write(page, f"{epoch:.0f}", (place(float(epoch), 0)[0] - 6, _HIGH - 24), 0.42)
    for at, (name, colour) in enumerate(zip(names, _LINES, strict=False)):
        points = [place(row["epoch"], row[name]) for row in rows if name in row]
        cv2.polylines(page, [np.array(points, np.int32)], False, colour, 2, cv2.LINE_AA)
        _write(page, name, (_WIDE - 200, 60 + 22 * at), 0.5, colour)
    return page


def png(picture: Picture) -> bytes:
    """As a file."""
    _, code = cv2.imencode(".png", picture)
    return bytes(code)


def _page(width: int, height: int) -> Picture:
    return np.full((height, width, 3), 255, np.uint8)


def _write(
    page: Picture, text: str, at: tuple[int, int], size: float, ink: tuple[int, int, int] = _INK
) -> None:
    cv2.putText(page, text, at, cv2.FONT_HERSHEY_SIMPLEX, size, ink, 1, cv2.LINE_AA)
