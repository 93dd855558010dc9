"""Picture files: how large one is, before it costs any memory; read upright, large ones reduced.

A PNG of a few hundred kilobytes can hold gigabytes of pixels. So the size is read from the file's head and
judged first. JPEG is decoded small where it is large; the others have to be decoded whole to be shrunk, so
their limit is lower.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from liveaffect.realtime.errors import SourceError, SourceNotFound, SourceRefused

ENOUGH_PIXELS = 25_000_000
"""Faces of 40 pixels are found in this many; more is decoded at a half, a quarter, an eighth."""
MOST_PIXELS = 100_000_000
MOST_JPEG_PIXELS = 400_000_000
MOST_BYTES = 1_000_000_000
_JPEG = b"\xff\xd8"
_PNG = b"\x89PNG\r\n\x1a\n"
_SIZES_OF_JPEG = (*range(0xC0, 0xC4), *range(0xC5, 0xC8), *range(0xC9, 0xCC), *range(0xCD, 0xD0))
"""Markers of the segment that holds height and width."""
_ALONE = (0x01, *range(0xD0, 0xD8))
"""Markers without a length."""


@dataclass(frozen=True, slots=True, eq=False)
class Picture:
    """A decoded picture, and what must be known about it."""

    image: NDArray[np.uint8]
    """(height, width, 3), RGB, upright."""
    shrunk: int = 1
    """Pixels of the file for each pixel of the image, along a side."""
    damage: str | None = None
    """What is wrong with the file, although there is an image."""


def read_picture(path: Path) -> Picture:
    """A picture file, turned as its EXIF data say. Raises SourceNotFound, SourceRefused or SourceError."""
    import cv2

    data = _content(path)
    size = size_in_head(data) if data else None
    shrunk = 1
    if size is not None:
        pixels = size[0] * size[1]
        most = MOST_JPEG_PIXELS if data.startswith(_JPEG) else MOST_PIXELS
        if pixels > most:
            raise SourceError(
                f"'{path}' is a picture of {size[0]} x {size[1]}; more than {most // 1_000_000} million "
                "pixels are not read. Make it smaller first"
            )
        while pixels > ENOUGH_PIXELS * shrunk**2 and shrunk < 8:
            shrunk *= 2
    how = {
        1: cv2.IMREAD_COLOR, 2: cv2.IMREAD_REDUCED_COLOR_2, 4: cv2.IMREAD_REDUCED_COLOR_4,
        8: cv2.IMREAD_REDUCED_COLOR_8,
    }  # fmt: skip
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), how[shrunk]) if data else None
    except (cv2.error, MemoryError) as failure:
        raise SourceError(f"'{path}' is no picture that OpenCV can read: {_short(failure)}") from failure
    if image is None:
        raise SourceError(f"'{path}' is no picture that OpenCV can read")
    return Picture(np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), np.uint8), shrunk, damage_of(data))


def size_in_head(data: bytes) -> tuple[int, int] | None:
    """Width and height as the file's head says; None for a format that has no such head."""
    try:
        if data.startswith(_PNG):
            return struct.unpack_from(">II", data, 16)
        if data.startswith(_JPEG):
            return _size_of_jpeg(data)
        if data.startswith(b"BM"):
            width, height = struct.unpack_from("<ii", data, 18)
            return abs(width), abs(height)
        if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
            return _size_of_webp(data)
        if data[:4] in (b"II*\0", b"MM\0*"):
            return _size_of_tiff(data)
    except struct.error:
        return None
    return None


def damage_of(data: bytes) -> str | None:
    """What can be seen to be missing; decoders fill it with grey without a word."""
    if data.startswith(_JPEG) and b"\xff\xd9" not in data[-4096:]:
        return "it is cut off; what is missing is grey"
    if data.startswith(_PNG) and b"IEND" not in data[-4096:]:
        return "it is cut off; what is missing is black"
    if data[:4] == b"RIFF" and len(data) < struct.unpack_from("<I", data, 4)[0] + 8:
        return "it is cut off"
    return None


def _content(path: Path) -> bytes:
    try:
        if not path.is_file():
            raise SourceNotFound(f"there is no picture '{path}'")
        if path.stat().st_size > MOST_BYTES:
            raise SourceError(
                f"'{path}' is larger than {MOST_BYTES // 1_000_000} megabytes; that is no picture"
            )
        return path.read_bytes()
    except OSError as failure:
        raise SourceRefused(f"'{path}' cannot be read: {failure.strerror}") from failure


def _size_of_jpeg(data: bytes) -> tuple[int, int] | None:
    at = 2
    while at + 9 < len(data):
        if data[at] != 0xFF:
            return None
        marker = data[at + 1]
        if marker == 0xFF:
            at += 1  # a byte of padding
        elif marker in _ALONE:
            at += 2
        elif marker in _SIZES_OF_JPEG:
            height, width = struct.unpack_from(">HH", data, at + 5)
            return width, height
        else:
            at += 2 + struct.unpack_from(">H", data, at + 2)[0]
    return None


def _size_of_webp(data: bytes) -> tuple[int, int] | None:
    kind = data[12:16]
    if kind == b"VP8X":
        return int.from_bytes(data[24:27], "little") + 1, int.from_bytes(data[27:30], "little") + 1
    if kind == b"VP8L":
        bits = struct.unpack_from("<I", data, 21)[0]
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    if kind == b"VP8 ":
        width, height = struct.unpack_from("<HH", data, 26)
        return width & 0x3FFF, height & 0x3FFF
    return None


def _size_of_tiff(data: bytes) -> tuple[int, int] | None:
    order = "<" if data[:2] == b"II" else ">"
    at = struct.unpack_from(order + "I", data, 4)[0]
    entries = struct.unpack_from(order + "H", data, at)[0]
    found: dict[int, int] = {}
    for place in range(at + 2, at + 2 + 12 * entries, 12):
        tag, kind = struct.unpack_from(order + "HH", data, place)
        if tag in (256, 257):
            found[tag] = struct.unpack_from(order + ("H" if kind == 3 else "I"), data, place + 8)[0]
    return (found[256], found[257]) if len(found) == 2 else None


def _short(failure: BaseException) -> str:
    """The last line of what OpenCV says, without the place in its source."""
    return str(failure).strip().splitlines()[-1].rpartition("error: ")[2] or type(failure).__name__
