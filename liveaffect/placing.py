"""Where the live path would cut a face out of a corpus's picture: to learn from, and to judge its cost."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
from numpy.typing import NDArray

from liveaffect.engines.recipe import EYE_IMAGE_LEFT, EYE_IMAGE_RIGHT, crop_matrix
from liveaffect.realtime.crop import cut_out
from liveaffect.realtime.faces.blazeface import FaceFinder, Found, make_finder

SIDE_PX, MARGIN_PX = 192, 72
TEMPLATE = np.array([EYE_IMAGE_LEFT, EYE_IMAGE_RIGHT]) * SIDE_PX + MARGIN_PX - 0.5
Picture = NDArray[np.uint8]


def in_a_room(picture: Picture) -> Picture:
    """A grey face 192 pixels wide in a larger RGB picture."""
    large = cv2.resize(picture, (SIDE_PX, SIDE_PX), interpolation=cv2.INTER_CUBIC)
    m = MARGIN_PX
    wide = cv2.copyMakeBorder(large, m, m, m, m, cv2.BORDER_REPLICATE)
    return np.asarray(cv2.cvtColor(wide, cv2.COLOR_GRAY2RGB), np.uint8)


def live_crop(finder: FaceFinder, image: Picture) -> tuple[Picture, float] | None:
    """What the live path would cut out, and how far its eyes lie from the template, in sides of the face."""
    found = _best_place(finder, image)
    if found is None:
        return None
    away = np.hypot(*(np.asarray(found.points[:2]) - TEMPLATE).T).mean() / SIDE_PX
    return cut_out(image, found.points), float(away)


def placed_live() -> Callable[[Picture], NDArray[np.float64] | None]:
    """A function from a grey picture to the (2, 3) matrix of its live crop, None if no face is found in it.

    Raises MissingFile, which names the command that brings the finder.
    """
    _, near = make_finder()

    def place(picture: Picture) -> NDArray[np.float64] | None:
        found = _best_place(near, in_a_room(picture))
        return None if found is None else from_the_corpus(crop_matrix(*found.points[:2]), len(picture))

    return place


def from_the_corpus(matrix: NDArray[np.float64], side: int) -> NDArray[np.float64]:
    """A matrix for the picture in its room as one for the picture of the corpus, `side` pixels wide."""
    scale = SIDE_PX / side
    # Pixel x of the corpus has its middle at scale * (x + 0.5) - 0.5 + margin in the room.
    origin = np.full(2, scale / 2 - 0.5 + MARGIN_PX)
    return np.column_stack([matrix[:, :2] * scale, matrix[:, :2] @ origin + matrix[:, 2]])


def _best_place(finder: FaceFinder, image: Picture) -> Found | None:
    return max(finder.find(image), key=lambda one: one.score, default=None)
