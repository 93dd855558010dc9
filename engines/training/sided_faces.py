"""Every face there is, on its side: to train on, to calibrate on, to test on.

A corpus's own test split stays a test split. Of what it trains on, a tenth is kept back for calibration;
corpora without a split give a tenth of their persons to each.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from liveaffect.engines.training import splits
from liveaffect.engines.training.augment_faces import grey_crops
from liveaffect.engines.training.corpora_faces import Faces

KEPT_BACK = 0.1


@dataclass(frozen=True, slots=True, eq=False)
class Sided:
    """All faces of some corpora."""

    train: Faces
    """Only those whose votes describe one of the seven."""
    calibrate: Faces
    test: Faces
    corpora: tuple[str, ...]
    digest: str
    """Of all sides, as frozen."""


def sided(found: Sequence[Faces], frozen: Path, *, add: bool = True) -> Sided:
    """Put every face on its side, after the sides were found to be those frozen in a file.

    `add` freezes a corpus that the file does not know yet.
    """
    parts: dict[str, list[Faces]] = {side: [] for side in splits.SIDES}
    digests = []
    for faces in found:
        sides = [_side(group, told) for group, told in zip(faces.groups, faces.sides, strict=True)]
        members = map(splits.Member, faces.names, faces.groups, sides)
        digests.append(splits.freeze(frozen, faces.corpus, members, add=add))
        for side, kept in parts.items():
            kept.append(faces.take(np.array([one == side for one in sides], np.bool_)))
    train, calibrate, test = (_joined(parts[side]) for side in splits.SIDES)
    described = np.flatnonzero(train.soft.any(1))
    digest = hashlib.sha256("".join(digests).encode()).hexdigest()
    return Sided(train.take(described), calibrate, test, tuple(faces.corpus for faces in found), digest)


def _side(group: str, told: str | None) -> str:
    if told == "test":
        return told
    return splits.side_of(group, calibrate=KEPT_BACK, test=0.0 if told else KEPT_BACK)


def _joined(parts: Sequence[Faces]) -> Faces:
    """Corpora of different sizes meet at the size of the crop."""
    if len(parts) == 1:
        return parts[0]
    return Faces(
        "+".join(part.corpus for part in parts),
        tuple(f"{part.corpus}/{name}" for part in parts for name in part.names),
        tuple(f"{part.corpus}/{group}" for part in parts for group in part.groups),
        np.concatenate([grey_crops(part.pictures)[..., 0] for part in parts]),
        np.concatenate([part.soft for part in parts]),
        np.concatenate([part.label for part in parts]),
        tuple(side for part in parts for side in part.sides),
    )
