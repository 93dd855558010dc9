"""Pictures of faces to calibrate INT8 on and others to judge it by, as they are and as webcams see them."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from liveaffect.calibration.samples import Exam, Places, Samples, draw, freeze, left_over
from liveaffect.engines.manifest import Manifest
from liveaffect.engines.training import corpora_faces, splits
from liveaffect.engines.training.augment_faces import FaceChanges, grey_crops, seen, tinted
from liveaffect.engines.training.corpora_faces import Faces, load_split
from liveaffect.engines.training.evaluate_face import Crops

EACH = 32
BATCH = 32
AS_IT_IS, WEBCAM = "as it is", "as a webcam sees it"
CONDITIONS = (AS_IT_IS, WEBCAM)


def faces(data: Path, found: Manifest, *, sides: Path, frozen: Path) -> tuple[Samples, Exam]:
    """From the calibrate side of the corpora in `data`, for a network that was trained on the train side.

    `sides` and `frozen` are the files in which the sides and the samples are frozen.
    """
    cv2.setNumThreads(1)
    everything = load_split(corpora_faces.find(data), sides, add=False)
    splits.refuse_other_sides(found, everything.corpora, everything.digest)
    side = everything.calibrate
    picks = draw(side.label, side.groups, EACH, CONDITIONS)
    digest = freeze(frozen, "face", everything.corpora, side.names, picks)
    at = np.array([pick.at for pick in picks])
    crops = _crops(side, at, np.array([pick.condition == WEBCAM for pick in picks]), seed=1)
    batches = tuple({"crop": crops[start : start + BATCH]} for start in range(0, len(crops), BATCH))
    rest = left_over(side.label, picks)
    twice = np.repeat(rest, len(CONDITIONS))
    crops = _crops(side, twice, np.arange(len(twice)) % len(CONDITIONS) == 1, seed=2)
    # One condition of each picture, in turn, is enough to put layers in order.
    few = np.arange(len(rest)) * len(CONDITIONS) + np.arange(len(rest)) % len(CONDITIONS)
    exam = Exam({"crop": crops}, side.label[twice], few=few)
    exam.check("the pictures to judge INT8 by")
    return Samples(batches, digest, CONDITIONS), exam


def _crops(side: Faces, at: Places, webcam: NDArray[np.bool_], seed: int) -> Crops:
    crops = grey_crops(side.pictures[at])
    rng, strength = np.random.default_rng(seed), FaceChanges()
    anyhow = np.stack([seen(side.pictures[place], rng, strength) for place in at[webcam]])
    crops[webcam] = tinted(anyhow, rng, strength)
    return crops
