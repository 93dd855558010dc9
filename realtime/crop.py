"""Cuts an aligned face out of a picture, says how good it is, and remembers what it looks like.

One affine warp, placed by `engines.recipe.crop_matrix`, does everything; a large face is halved first,
because a warp that skips pixels turns skin texture into noise the network never saw.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from liveaffect.engines.recipe import CROP_SIZE, crop_matrix
from liveaffect.realtime.blazeface import halve

POOR_EYES_PX, GOOD_EYES_PX = 12.0, 28.0
"""Distance of the eyes in the picture. The crop puts them 24 apart: below 12 half of it is invented."""
FULL_TURN = 0.75
"""At this much turn (0 frontal, 1 the nose in line with an eye) one half of the face is out of sight."""
DARK, LIGHT = 25.0, 60.0
"""Mean level of the inner face, 0..255."""
BLURRED, SHARP = 1.5, 4.0
"""Root mean square of the Laplacian relative to the contrast, times ten; see `sharpness`."""
GOOD_ENOUGH = 0.5
"""Below this a measure is named as the weakness."""

LIKENESS_GRID = 16
COLOUR_GRID = 4


@dataclass(frozen=True, slots=True)
class Quality:
    """How much a face in a picture can be trusted."""

    score: float
    """0..1, the worst of all measures."""
    weakness: str | None
    """'face small', 'face turned', 'face dark' or 'face blurred'; None when nothing is wrong."""


def cut_out(image: NDArray[np.uint8], points: NDArray[np.floating]) -> NDArray[np.uint8]:
    """The (64, 64, 3) aligned crop of the face with these points. Raises ValueError if the eyes coincide.

    What lies outside the picture repeats its border.
    """
    matrix = crop_matrix(points[0], points[1])
    step = 1.0 / float(np.hypot(matrix[0, 0], matrix[1, 0]))
    if step >= 2.0:
        image, matrix = _shrunken(image, matrix, int(math.log2(step)))
    flags, border = cv2.INTER_LINEAR, cv2.BORDER_REPLICATE
    return np.asarray(
        cv2.warpAffine(image, matrix, (CROP_SIZE, CROP_SIZE), flags=flags, borderMode=border), np.uint8
    )


def _shrunken(
    image: NDArray[np.uint8], matrix: NDArray[np.float64], halves: int
) -> tuple[NDArray[np.uint8], NDArray[np.float64]]:
    # Only the part that the crop shows is averaged, and the matrix learns of the shift and the scale.
    factor = 2**halves
    back = cv2.invertAffineTransform(matrix)
    ends = np.array([(-1, -1), (CROP_SIZE, -1), (-1, CROP_SIZE), (CROP_SIZE, CROP_SIZE)], np.float64)
    corners = ends @ back[:, :2].T + back[:, 2]
    height, width = image.shape[:2]
    low = np.clip(
        np.floor(corners.min(axis=0)).astype(int) - factor,
        0,
        (max(0, width - factor), max(0, height - factor)),
    )
    high = np.clip(np.ceil(corners.max(axis=0)).astype(int) + 2 * factor, low + factor, (width, height))
    small = halve(image[low[1] : high[1], low[0] : high[0]], halves)
    # Pixel x of the small picture has its centre at low + factor * x + (factor - 1) / 2.
    origin = low + (factor - 1) / 2
    return small, np.column_stack([matrix[:, :2] * factor, matrix[:, :2] @ origin + matrix[:, 2]])


def quality(crop: NDArray[np.uint8], points: NDArray[np.floating]) -> Quality:
    """How good the evidence in a face is: its size in the picture, its turn, its light, its sharpness."""
    inner = np.asarray(cv2.cvtColor(crop[12:60, 10:54], cv2.COLOR_RGB2GRAY), np.uint8)
    measures = {
        "face small": _share_of_range(eye_distance(points), POOR_EYES_PX, GOOD_EYES_PX),
        "face turned": 1.0 - _share_of_range(abs(turn(points)), FULL_TURN / 3, FULL_TURN),
        "face dark": _share_of_range(float(inner.mean()), DARK, LIGHT),
        "face blurred": _share_of_range(sharpness(inner), BLURRED, SHARP),
    }
    name, worst = min(measures.items(), key=lambda item: item[1])
    return Quality(worst, name if worst < GOOD_ENOUGH else None)


def eye_distance(points: NDArray[np.floating]) -> float:
    """Distance of the eyes in pixels of the picture."""
    return float(np.hypot(*(points[1] - points[0])))


def turn(points: NDArray[np.floating]) -> float:
    """Where the nose lies between the eyes: 0 in the middle, 1 or -1 in line with one of them.

    The nose stands out of the face, so this follows the yaw: about 1 at 45 degrees.
    """
    eyes = np.asarray(points[1] - points[0], np.float64)
    length_squared = float(eyes @ eyes)
    if length_squared <= 0.0:
        return 1.0
    return float((points[2] - (points[0] + points[1]) / 2) @ eyes) / length_squared * 2


def sharpness(grey: NDArray[np.uint8]) -> float:
    """Fine detail relative to contrast, so that a dark or pale face is not called blurred."""
    fine = cv2.Laplacian(grey, cv2.CV_32F)
    return float(np.sqrt(np.mean(fine * fine)) / (grey.std() + 4.0) * 10)


def likeness(crop: NDArray[np.uint8]) -> NDArray[np.float32]:
    """What a face looks like, (304,): the pattern of light, level and contrast taken out, and its colours.

    Good for telling the people in view apart over seconds, not for recognising anybody.
    """
    small = cv2.resize(crop, (LIKENESS_GRID, LIKENESS_GRID), interpolation=cv2.INTER_AREA).astype(np.float32)
    grey = small.mean(axis=2)
    block = LIKENESS_GRID // COLOUR_GRID
    colour = (small - grey[:, :, None]).reshape(COLOUR_GRID, block, COLOUR_GRID, block, 3).mean(axis=(1, 3))
    pattern = grey - grey.mean()
    pattern /= float(np.linalg.norm(pattern)) + 1e-6
    return np.concatenate([pattern.ravel(), colour.ravel()])


def unlikeness(one: NDArray[np.float32], other: NDArray[np.float32]) -> float:
    """How different two faces look: below 0.7 one person a moment apart, above 1.2 most likely two people."""
    cells = LIKENESS_GRID**2
    alike = float(one[:cells] @ other[:cells])
    colour = float(np.abs(one[cells:] - other[cells:]).mean())
    return 4.0 * (1.0 - alike) + colour / 12.0


def _share_of_range(value: float, low: float, high: float) -> float:
    return min(1.0, max(0.0, (value - low) / (high - low)))
