"""The two BlazeFace detectors: running one on a picture, and where their files lie, which are not ours.

The decoding of 16 numbers an anchor is our own, in NumPy, because the runtime that loads in 20 ms has none
and the package that has one costs 1.4 s to import; a test holds both to the same boxes. One detector serves
one thread. A file in the user's cache counts only if its SHA-256 fits; `liveaffect fetch` brings it.
"""

from __future__ import annotations

import contextlib
import hashlib
import math
import os
import tempfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from liveaffect.engines.user_folders import cache_dir
from liveaffect.realtime.errors import MissingFile, MissingLibrary
from liveaffect.realtime.frame import Box

POINTS = 6
OVERLAP = 0.3
"""Boxes that share more than this of their union are one face."""


@dataclass(frozen=True, slots=True, eq=False)
class Found:
    """One face as a detector saw it."""

    box: Box
    points: NDArray[np.float32]
    """(6, 2), in the order of `Face.points`."""
    score: float


class FaceFinder(Protocol):
    """Faces in one RGB picture, best first, in its own pixels. Not thread-safe: one caller."""

    def find(self, image: NDArray[np.uint8]) -> list[Found]:
        """All faces that are sure enough."""
        ...


@dataclass(frozen=True, slots=True)
class AnchorLayout:
    """What one BlazeFace file looks like from outside."""

    side: int
    """Side of the square picture that the network takes."""
    grids: tuple[tuple[int, int], ...]
    """Cells a side and anchors a cell, in the order of the outputs."""
    min_score: float
    """Low, because nobody is believed on one find: a suspect of the full range is looked at close up."""


FULL = AnchorLayout(192, ((48, 1),), 0.3)
SHORT = AnchorLayout(128, ((16, 2), (8, 6)), 0.35)
LAYOUTS = {2304: FULL, 896: SHORT}
"""By the number of anchors: nobody has to say which file is which."""


def anchors(layout: AnchorLayout) -> NDArray[np.float32]:
    """Centres of all anchors, (n, 2), as shares of the side."""
    parts = []
    for cells, each in layout.grids:
        line = (np.arange(cells, dtype=np.float32) + 0.5) / cells
        y, x = np.meshgrid(line, line, indexing="ij")
        parts.append(np.repeat(np.stack([x.ravel(), y.ravel()], axis=1), each, axis=0))
    return np.concatenate(parts)


def decode_boxes(
    raw: NDArray[np.float32], logits: NDArray[np.float32], layout: AnchorLayout, centres: NDArray[np.float32]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Rows of x, y, w, h and six points as shares of the side, (n, 8, 2), and their scores, best first.

    `raw` is (anchors, 16), `logits` (anchors,). Rows below the layout's score are left out before any
    arithmetic, so the cost follows the number of faces.
    """
    bar = float(np.log(layout.min_score / (1.0 - layout.min_score)))
    keep = np.flatnonzero(logits >= bar)
    keep = keep[np.argsort(-logits[keep], kind="stable")]
    pairs = raw[keep].reshape(-1, 2 + POINTS, 2) / np.float32(layout.side)
    pairs[:, 0] += centres[keep]
    pairs[:, 2:] += centres[keep, None]
    pairs[:, 0] -= pairs[:, 1] / 2
    return pairs, (1.0 / (1.0 + np.exp(-logits[keep]))).astype(np.float32)


def overlap_with_each(box: NDArray[np.floating], others: NDArray[np.floating]) -> NDArray[np.floating]:
    """Shared area over united area of one x, y, w, h row with many."""
    low = np.maximum(box[:2], others[:, :2])
    high = np.minimum(box[:2] + box[2:], others[:, :2] + others[:, 2:])
    shared = np.prod(np.maximum(high - low, 0.0), axis=1)
    united = box[2] * box[3] + others[:, 2] * others[:, 3] - shared
    return np.asarray(shared / np.maximum(united, 1e-12))


def merge(rows: NDArray[np.float32], scores: NDArray[np.float32]) -> list[tuple[NDArray[np.float32], float]]:
    """One row a face: rows that overlap the best one are averaged by score, as BlazeFace was made for.

    `rows` is (n, 8, 2), best first. Averaging instead of suppressing is what keeps a still face's box still.
    """
    out = []
    left = np.arange(len(rows))
    flat = rows.reshape(len(rows), 4 + 2 * POINTS)
    while len(left):
        alike = overlap_with_each(flat[left[0], :4], flat[left, :4]) > OVERLAP
        alike[0] = True
        group = left[alike]
        weights = scores[group]
        mean = (flat[group] * weights[:, None]).sum(axis=0) / weights.sum()
        out.append((mean.reshape(-1, 2).astype(np.float32), float(scores[left[0]])))
        left = left[~alike]
    return out


class BlazeFace:
    """One BlazeFace file in LiteRT on one thread. Picture of any size in, faces in its pixels out."""

    def __init__(self, path: Path) -> None:
        interpreter = _interpreter(path)
        self._run: Callable[[], None] = interpreter.invoke
        self._input: Callable[[], NDArray[np.float32]] = interpreter.tensor(
            interpreter.get_input_details()[0]["index"]
        )
        by_width = {
            int(o["shape"][2]): interpreter.tensor(o["index"]) for o in interpreter.get_output_details()
        }
        if set(by_width) != {1, 4 + 2 * POINTS} or by_width[1]().shape[1] not in LAYOUTS:
            raise MissingFile(
                f"'{path}' is not one of the two BlazeFace detectors; bring them with: liveaffect fetch"
            )
        self._raw, self._logits = by_width[4 + 2 * POINTS], by_width[1]
        self._layout = LAYOUTS[by_width[1]().shape[1]]
        self._centres = anchors(self._layout)

    def find(self, image: NDArray[np.uint8]) -> list[Found]:
        """All faces that are sure enough, best first."""
        small, scale, offset = letterbox(image, self._layout.side)
        tensor = self._input()
        tensor[0] = small
        tensor *= np.float32(1 / 127.5)
        tensor -= np.float32(1.0)
        del tensor  # LiteRT refuses to run while a view of its memory is held
        self._run()
        rows, scores = decode_boxes(self._raw()[0], self._logits()[0, :, 0], self._layout, self._centres)
        return [_found(row, score, scale, offset) for row, score in merge(rows, scores)]


class MediapipeFace:
    """The same file in mediapipe, decoded by mediapipe: for machines that LiteRT has no wheel for."""

    def __init__(self, path: Path) -> None:
        # Importing it takes more than a second, so only who needs it pays.
        import mediapipe  # type: ignore[import-untyped,import-not-found,unused-ignore]
        from mediapipe.tasks.python import BaseOptions, vision  # type: ignore[import-untyped,import-not-found,unused-ignore]

        self._wrap: Callable[[NDArray[np.uint8]], Any] = lambda image: mediapipe.Image(
            image_format=mediapipe.ImageFormat.SRGB, data=np.ascontiguousarray(image)
        )
        options = vision.FaceDetectorOptions(
            base_options=BaseOptions(model_asset_path=str(path)),
            min_detection_confidence=SHORT.min_score,
            min_suppression_threshold=OVERLAP,
        )
        self._detector = vision.FaceDetector.create_from_options(options)

    def find(self, image: NDArray[np.uint8]) -> list[Found]:
        """All faces that are sure enough, best first."""
        size = np.array([image.shape[1], image.shape[0]], np.float32)
        out = []
        for one in self._detector.detect(self._wrap(image)).detections:
            box = one.bounding_box
            points = np.array([(p.x, p.y) for p in one.keypoints], np.float32) * size
            place = (float(box.origin_x), float(box.origin_y), float(box.width), float(box.height))
            out.append(Found(place, points, float(one.categories[0].score)))
        return sorted(out, key=lambda found: -found.score)

    def close(self) -> None:
        """Free the detector. Safe to call twice."""
        self._detector.close()


def open_finder(path: Path) -> FaceFinder:
    """The best runtime that is installed for a BlazeFace file. Raises MissingLibrary when there is none."""
    try:
        return BlazeFace(path)
    except MissingLibrary:
        try:
            return MediapipeFace(path)
        except ImportError as error:
            raise MissingLibrary(
                f"the face detector needs ai-edge-litert or mediapipe ({error}); "
                "mend it with: uv sync --inexact"
            ) from error


def letterbox(image: NDArray[np.uint8], side: int) -> tuple[NDArray[np.uint8], float, tuple[float, float]]:
    """The picture in a square with black margins, the square's side in pixels of the picture, its origin."""
    height, width = image.shape[:2]
    longest = max(height, width)
    size = (max(1, round(width * side / longest)), max(1, round(height * side / longest)))
    small = shrink(image, size)
    left, top = (side - size[0]) // 2, (side - size[1]) // 2
    if size != (side, side):
        square = np.zeros((side, side, 3), np.uint8)
        square[top : top + size[1], left : left + size[0]] = small
        small = square
    return small, float(longest), (left / side, top / side)


def shrink(image: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """Resize so that no pixel is left out: by exact halves as long as that goes, the rest linearly."""
    halves = int(math.log2(max(1.0, min(image.shape[1] / size[0], image.shape[0] / size[1]))))
    return np.asarray(cv2.resize(halve(image, halves), size, interpolation=cv2.INTER_LINEAR), np.uint8)


def halve(image: NDArray[np.uint8], times: int) -> NDArray[np.uint8]:
    """Means of 2x2 pixels, `times` over. OpenCV does these five times as fast as any other factor."""
    for _ in range(times):
        even = image[: image.shape[0] // 2 * 2, : image.shape[1] // 2 * 2]
        image = np.asarray(cv2.resize(even, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA), np.uint8)
    return image


def _found(row: NDArray[np.float32], score: float, scale: float, offset: tuple[float, float]) -> Found:
    moved = row.copy()
    moved[0] -= offset
    moved[2:] -= offset
    moved *= scale
    (x, y), (w, h) = moved[0].tolist(), moved[1].tolist()
    return Found((x, y, w, h), moved[2:], score)


def _interpreter(path: Path) -> Any:
    try:
        from ai_edge_litert.interpreter import Interpreter  # type: ignore[import-untyped,import-not-found,unused-ignore]
    except ImportError as error:
        raise MissingLibrary(f"the face detector needs the package ai-edge-litert: {error}") from error
    try:
        with _without_its_banner():
            interpreter = Interpreter(model_path=str(path), num_threads=1)
            interpreter.allocate_tensors()
    except (ValueError, RuntimeError) as error:
        raise MissingFile(
            f"the face detector '{path}' cannot be read ({error}); bring it again with: liveaffect fetch"
        ) from error
    return interpreter


_BANNER = b"INFO: Created TensorFlow Lite XNNPACK delegate for CPU."
_one_at_a_time = threading.Lock()


@contextlib.contextmanager
def _without_its_banner() -> Iterator[None]:
    """What is written to standard error meanwhile follows after it, except LiteRT's line about itself.

    The library writes past Python and has no switch for it.
    """
    with _one_at_a_time, tempfile.TemporaryFile() as kept:
        before = os.dup(2)
        os.dup2(kept.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(before, 2)
            os.close(before)
            kept.seek(0)
            rest = b"".join(line for line in kept if _BANNER not in line)
            with contextlib.suppress(OSError):
                os.write(2, rest)


FULL_RANGE = "face_detection_full_range_sparse.tflite"
SHORT_RANGE = "face_detection_short_range.tflite"
COMMAND = "liveaffect fetch"


@dataclass(frozen=True, slots=True)
class ForeignFile:
    """A file somebody else made, and how to know it."""

    name: str
    sha256: str
    size: int


FILES = (
    ForeignFile(FULL_RANGE, "2c3728e6da56f21e21a320433396fb06d40d9088f2247c05e5635a688d45dfe1", 676_746),
    ForeignFile(SHORT_RANGE, "bbff11cebd1eb27a1e004cae0b0e63ec8c551cbf34a4451148b4908b8db3eca8", 229_714),
)


def files_dir(explicit: Path | None = None) -> Path:
    """The folder that counts: the explicit one, else LIVEAFFECT_FILES, else the user's cache."""
    if explicit is not None:
        return explicit.parent if explicit.is_file() else explicit
    if given := os.environ.get("LIVEAFFECT_FILES"):
        return Path(given).expanduser()
    return cache_dir()


def model_path(name: str, explicit: Path | None = None) -> Path:
    """Where the file `name` lies. Raises MissingFile, which names the command that brings it.

    `explicit` is a folder, or a file in it. A file in the cache must be undamaged; one in a folder that
    the user named is the user's choice and taken as it is.
    """
    path = files_dir(explicit) / name
    if not path.is_file():
        raise MissingFile(f"the face detector '{path}' is not there; bring it with: {COMMAND}")
    known = {file.name: file for file in FILES}.get(name)
    if path.parent == cache_dir() and known is not None and not is_whole(path, known):
        raise MissingFile(f"the face detector '{path}' is damaged; bring it again with: {COMMAND}")
    return path


def is_whole(path: Path, file: ForeignFile) -> bool:
    """Whether the file is there and is the one that is meant."""
    return path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest() == file.sha256


def make_finder(folder: Path | None = None) -> tuple[FaceFinder, FaceFinder]:
    """`far` and `near` as `FaceAnalyzer` takes them; one pair serves one thread.

    Raises MissingFile, which names the command that brings the files, or MissingLibrary.
    """
    return open_finder(model_path(FULL_RANGE, folder)), open_finder(model_path(SHORT_RANGE, folder))
