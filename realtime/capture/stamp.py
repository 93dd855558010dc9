"""Number and time of a picture written into its own pixels, and read back at the far end.

A strip of black and white cells in the upper left corner: 32 bits of number, 64 bits of nanoseconds, 16 bits
of checksum. Cells are large enough to survive video compression, so latency can be measured through a file,
a virtual camera or a browser.
"""

from __future__ import annotations

import zlib

import numpy as np
from numpy.typing import NDArray

CELL_PX = 4
COLUMNS = 28
ROWS = 4
STAMP_SIZE = (COLUMNS * CELL_PX, ROWS * CELL_PX)
"""Width and height of the strip in pixels."""


def write_stamp(image: NDArray[np.uint8], seq: int, captured_ns: int) -> None:
    """Draw the strip into `image`. Raises ValueError if it does not fit."""
    if image.shape[0] < STAMP_SIZE[1] or image.shape[1] < STAMP_SIZE[0]:
        raise ValueError(f"a stamp needs {STAMP_SIZE} pixels, the picture has {image.shape[1::-1]}")
    payload = seq.to_bytes(4, "big") + captured_ns.to_bytes(8, "big")
    bits = np.unpackbits(np.frombuffer(payload + _check(payload), np.uint8)).reshape(ROWS, COLUMNS)
    cells = np.kron(bits, np.full((CELL_PX, CELL_PX), 255, np.uint8))
    image[: STAMP_SIZE[1], : STAMP_SIZE[0]] = cells[:, :, None]


def read_stamp(image: NDArray[np.uint8]) -> tuple[int, int] | None:
    """Number and time that were written into this picture; None if it carries no readable stamp."""
    strip = image[: STAMP_SIZE[1], : STAMP_SIZE[0]]
    if strip.shape[:2] != STAMP_SIZE[::-1]:
        return None
    cells = strip.reshape(ROWS, CELL_PX, COLUMNS, CELL_PX, -1)[:, 1:-1, :, 1:-1]
    bits = cells.mean(axis=(1, 3, 4)) > 127
    data = np.packbits(bits.reshape(-1)).tobytes()
    payload, check = data[:12], data[12:]
    if check != _check(payload):
        return None
    return int.from_bytes(payload[:4], "big"), int.from_bytes(payload[4:], "big")


def _check(payload: bytes) -> bytes:
    # Inverted, because an all-black corner must not read as picture 0 at time 0.
    return (~zlib.crc32(payload) & 0xFFFF).to_bytes(2, "big")
