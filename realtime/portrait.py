"""Portraits that move as if filmed by hand, with known truth: a camera for demos, tests and benchmarks.

`truth` says where each portrait was put, and every picture carries its number and time in its own pixels,
so a far end can be compared with what really went in. Same seed, same pictures.

The stamp is a strip of black and white cells: 32 bits of number, 64 bits of nanoseconds, 16 bits of
checksum. It lies along the upper edge, in the margin that the overlay leaves free; a picture too narrow for
that has it in four rows in the upper left corner. Cells are large enough to survive video compression, so
latency can be measured through a file, a virtual camera or a browser.
"""

from __future__ import annotations

import importlib.util
import math
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from liveaffect.realtime.clock import SECOND
from liveaffect.realtime.errors import EndOfStream, SourceError
from liveaffect.realtime.frame import VideoFrame

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


_SHARE = 0.8
"""Of its part of the canvas, how much a portrait takes at most."""
_ROOM = 0.12
"""Of its part of the canvas, how far a hand moves it to each side."""


@dataclass(frozen=True, slots=True)
class Motion:
    """How the portraits move."""

    turn_deg: float = 6.0
    """Slow rotation to each side."""
    zoom: float = 0.06
    """Nearer and farther by this share."""
    speed_px_s: float | None = None
    """Steady speed to and fro across the canvas, without turning or zooming; None: as by a hand."""


class Portraits:
    """One or several portraits side by side on a quiet background, as a source of pictures."""

    def __init__(
        self,
        faces: Sequence[NDArray[np.uint8]],
        size: tuple[int, int] = (640, 480),
        fps: float = 30.0,
        *,
        seed: int = 0,
        frames: int | None = None,
        motion: Motion | None = None,
    ) -> None:
        if not faces:
            raise SourceError("a portrait source needs at least one portrait")
        if size[0] < STAMP_SIZE[0] or size[1] < STAMP_SIZE[1]:
            raise SourceError(
                f"a portrait source of {size[0]}x{size[1]} pixels has no room for the stamp of its number "
                f"and time; it takes at least {STAMP_SIZE[0]}x{STAMP_SIZE[1]}"
            )
        self._size = size
        self._fps = fps
        self._frames = frames
        self._motion = motion or Motion()
        self._faces = [_shrunk_to_fit(face, size, len(faces)) for face in faces]
        rng = np.random.default_rng(seed)
        # Per portrait: phases and rates (in Hz) of the five slow swings of a hand.
        self._phases = rng.uniform(0, 2 * math.pi, (len(faces), 5))
        self._rates = rng.uniform(0.11, 0.37, (len(faces), 5))
        self._background = _background(size, rng)
        self._next = 0
        self._open = self._closed = False

    @property
    def name(self) -> str:
        """'portrait:' and how many there are."""
        return f"portrait:{len(self._faces)}"

    def open(self) -> None:
        """Begin with picture 0."""
        if self._open or self._closed:
            raise SourceError(f"{self.name} was opened before; a source is opened once")
        self._open = True

    def read(self, timeout_s: float) -> VideoFrame:
        """The next picture; raises EndOfStream after the last one."""
        if not self._open or self._closed:
            raise SourceError(f"{self.name} is not open")
        if self._frames is not None and self._next >= self._frames:
            raise EndOfStream(f"{self.name} is at its end")
        seq, self._next = self._next, self._next + 1
        return VideoFrame(self.name, seq, self.time_ns(seq), self.draw(seq))

    def close(self) -> None:
        """Safe to call twice."""
        self._closed = True

    def time_ns(self, seq: int) -> int:
        """When picture `seq` is captured."""
        return round(seq * SECOND / self._fps)

    def truth(self, seq: int) -> list[NDArray[np.float64]]:
        """For each portrait the 2x3 matrix that maps its pixels to those of picture `seq`."""
        return [
            self._placing(number, seq) @ np.vstack([shrink, [0, 0, 1]])
            for number, (_, shrink) in enumerate(self._faces)
        ]

    def draw(self, seq: int) -> NDArray[np.uint8]:
        """Picture `seq`, stamp included."""
        import cv2

        canvas = self._background.copy()
        for number in range(len(self._faces)):
            cv2.warpAffine(
                self._face(number, seq),
                self._placing(number, seq),
                self._size,
                dst=canvas,
                flags=cv2.INTER_LINEAR,
                borderMode=cv2.BORDER_TRANSPARENT,
            )
        write_stamp(canvas, seq, self.time_ns(seq))
        return canvas

    def _face(self, number: int, seq: int) -> NDArray[np.uint8]:
        """The shrunken portrait as it looks in picture `seq`; a photograph always looks the same."""
        return self._faces[number][0]

    def _placing(self, number: int, seq: int) -> NDArray[np.float64]:
        """Where the shrunken portrait lies in picture `seq`: 2x3."""
        face, _ = self._faces[number]
        height, width = face.shape[:2]
        cell = self._size[0] / len(self._faces)
        centre_x, centre_y = cell * (number + 0.5), self._size[1] / 2
        t_s = seq / self._fps
        angle, zoom = 0.0, 1.0
        if self._motion.speed_px_s is not None:
            centre_x += _to_and_fro(self._motion.speed_px_s * t_s, (cell - width) / 2)
        else:
            swing = np.sin(2 * math.pi * self._rates[number] * t_s + self._phases[number])
            centre_x += _ROOM * cell * float(swing[0] + 0.3 * swing[1]) / 1.3
            centre_y += _ROOM * self._size[1] * float(swing[2])
            angle = math.radians(self._motion.turn_deg) * float(swing[3])
            zoom += self._motion.zoom * float(swing[4])
        cos, sin = zoom * math.cos(angle), zoom * math.sin(angle)
        turn = np.array([[cos, -sin], [sin, cos]])
        shift = np.array([centre_x, centre_y]) - turn @ [(width - 1) / 2, (height - 1) / 2]
        return np.column_stack([turn, shift])


def packaged_portraits() -> list[Path]:
    """Portraits that installed packages carry, found without importing them; may be empty."""
    candidates = []
    for package, inside in (
        ("matplotlib", "mpl-data/sample_data/grace_hopper.jpg"),
        ("skimage", "data/astronaut.png"),
    ):
        spec = importlib.util.find_spec(package)
        if spec is not None and spec.origin is not None:
            candidates.append(Path(spec.origin).parent / inside)
    return [path for path in candidates if path.is_file()]


def _to_and_fro(way_px: float, reach_px: float) -> float:
    """A steady walk of `way_px` between -reach and +reach, starting in the middle."""
    reach_px = max(reach_px, 1.0)
    at = (way_px + reach_px) % (4 * reach_px)
    return at - reach_px if at <= 2 * reach_px else 3 * reach_px - at


def _shrunk_to_fit(
    face: NDArray[np.uint8], size: tuple[int, int], count: int
) -> tuple[NDArray[np.uint8], NDArray[np.float64]]:
    """The portrait shrunk (never grown) to its part of the canvas, and the 2x3 matrix of the shrinking."""
    import cv2

    height, width = face.shape[:2]
    scale = min(1.0, _SHARE * size[0] / count / width, _SHARE * size[1] / height)
    new = max(1, round(width * scale)), max(1, round(height * scale))
    shrunk = np.asarray(cv2.resize(face, new, interpolation=cv2.INTER_AREA), np.uint8)
    sx, sy = new[0] / width, new[1] / height
    # Pixel centres lie at whole numbers, so scaling moves the origin by half a pixel's difference.
    return shrunk, np.array([[sx, 0.0, (sx - 1) / 2], [0.0, sy, (sy - 1) / 2]])


def _background(size: tuple[int, int], rng: np.random.Generator) -> NDArray[np.uint8]:
    """A soft grey slope with a little grain, so that nothing in it looks like a face."""
    slope = np.linspace(96, 150, size[1])[:, None, None]
    grain = rng.normal(0, 2.0, (size[1], size[0], 1))
    return np.broadcast_to(np.clip(slope + grain, 0, 255), (size[1], size[0], 3)).astype(np.uint8)
