"""Number and time of a picture written into its own pixels, and read back at the far end.

A strip of black and white cells: 32 bits of number, 64 bits of nanoseconds, 16 bits of checksum. It lies
along the upper edge, in the margin that the overlay leaves free, so a drawn picture still says which one it
is; a picture too narrow for that has it in four rows in the upper left corner. Cells are large enough to
survive video compression, so latency can be measured through a file, a virtual camera or a browser.
"""

from __future__ import annotations

import zlib

import numpy as np
from numpy.typing import NDArray

CELL_PX = 4
_BITS = 112
_ROWS_IF_NARROW = 4
STAMP_SIZE = (_BITS // _ROWS_IF_NARROW * CELL_PX, _ROWS_IF_NARROW * CELL_PX)
"""Width and height in pixels of the smallest picture that takes a strip."""


def write_stamp(image: NDArray[np.uint8], seq: int, captured_ns: int) -> None:
    """Draw the strip into `image`. Raises ValueError if it does not fit."""
    rows, columns = _stamp_cells(image)
    strip = image[: rows * CELL_PX, : columns * CELL_PX]
    if strip.shape[:2] != (rows * CELL_PX, columns * CELL_PX):
        raise ValueError(f"a stamp needs {STAMP_SIZE} pixels, the picture has {image.shape[1::-1]}")
    payload = seq.to_bytes(4, "big") + captured_ns.to_bytes(8, "big")
    bits = np.unpackbits(np.frombuffer(payload + _checksum(payload), np.uint8)).reshape(rows, columns)
    strip[:] = np.kron(bits, np.full((CELL_PX, CELL_PX), 255, np.uint8))[:, :, None]


def read_stamp(image: NDArray[np.uint8]) -> tuple[int, int] | None:
    """Number and time that were written into this picture; None if it carries no readable stamp."""
    rows, columns = _stamp_cells(image)
    strip = image[: rows * CELL_PX, : columns * CELL_PX]
    if strip.shape[:2] != (rows * CELL_PX, columns * CELL_PX):
        return None
    cells = strip.reshape(rows, CELL_PX, columns, CELL_PX, -1)[:, 1:-1, :, 1:-1]
    bits = cells.mean(axis=(1, 3, 4)) > 127
    data = np.packbits(bits.reshape(-1)).tobytes()
    payload, check = data[:12], data[12:]
    if check != _checksum(payload):
        return None
    return int.from_bytes(payload[:4], "big"), int.from_bytes(payload[4:], "big")


def _stamp_cells(image: NDArray[np.uint8]) -> tuple[int, int]:
    """Rows and columns of the strip in a picture of this width."""
    rows = 1 if image.shape[1] >= _BITS * CELL_PX else _ROWS_IF_NARROW
    return rows, _BITS // rows


def _checksum(payload: bytes) -> bytes:
    # Inverted, because an all-black corner must not read as picture 0 at time 0.
    return (~zlib.crc32(payload) & 0xFFFF).to_bytes(2, "big")
