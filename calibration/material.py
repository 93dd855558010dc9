"""Brings the clips on which confidence is fitted and judged out of the corpora, by fixed rules.

Everything is of people whom the networks were not trained on: the calibrate side to fit, the test side to
judge. Where there is more than enough, the clips whose names have the lowest hash are taken.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from liveaffect.calibration.clips import Clip, first_by_hash
from liveaffect.engines import manifest as manifests
from liveaffect.engines.recipe import LABELS
from liveaffect.engines.training import (
    corpora_faces,
    evaluate_fusion,
    pairs,
    sided_voices,
    sound_store,
    splits,
)
from liveaffect.engines.training.corpora_faces import load_split
from liveaffect.engines.training.corpora_voices import Take

SIDES = ("calibrate", "test")
PICTURES = {"calibrate": 800, "test": 500}
TAKES = 90
"""Of each speaker."""
Say = Callable[[str], None]


def frozen_sides(weights: Path | None) -> Path:
    """The sides that the weights were trained on."""
    own = (weights or manifests.SHIPPED) / splits.FROZEN.name
    return splits.FROZEN if weights is None or not own.exists() else own


def pictures(data: Path, weights: Path | None) -> list[Clip]:
    """Pictures of faces; those that people called none of the seven are left out."""
    found = manifests.read((weights or manifests.SHIPPED) / "face.json")
    sides = load_split(corpora_faces.find(data), frozen_sides(weights), add=False)
    splits.refuse_other_sides(found, sides.corpora, sides.digest)
    clips = []
    for side, faces in zip(SIDES, (sides.calibrate, sides.test), strict=True):
        labelled = faces.take(np.flatnonzero(faces.label >= 0))
        for k in first_by_hash(labelled.names, PICTURES[side]):
            truth = int(labelled.label[k])
            clips.append(Clip(labelled.names[k], labelled.groups[k], side, truth, labelled.pictures[k]))
    return clips


def sounds(data: Path, weights: Path | None, say: Say) -> list[Clip]:
    """Takes of acted speech, as many of each speaker."""
    found = manifests.read((weights or manifests.SHIPPED) / "voice.json")
    takes = sided_voices.found_in(data)
    side_of, digest = sided_voices.sided(takes, frozen_sides(weights), add=False)
    splits.refuse_other_sides(found, tuple(takes), digest)
    chosen: list[Take] = []
    for these in takes.values():
        for speaker in sorted({take.speaker for take in these if side_of[take.speaker] in SIDES}):
            mine = [take for take in these if take.speaker == speaker]
            chosen += [mine[k] for k in first_by_hash([take.name for take in mine], TAKES)]
    return _decoded(chosen, side_of, say)


def real_pairs(data: Path, weights: Path | None, say: Say) -> list[Clip]:
    """Takes whose speaker's face is known through action units, with what stands in for the face network."""
    found = manifests.read((weights or manifests.SHIPPED) / "fusion.json")
    evaluate_fusion.refuse_other_actors(found, frozen_sides(weights))
    known = pairs.read_pairs(data)
    logits = evaluate_fusion.at_scale(known.face, known, float(found.training["temperature"]["face"]))
    faces = dict(zip(known.names, logits, strict=True))
    takes = {take.name[3:]: take for take in sided_voices.found_in(data)["ravdess"]}
    sides = dict(zip(known.actors, known.sides.tolist(), strict=True))
    both = [take for name, take in sorted(takes.items()) if name in faces and sides[take.speaker] in SIDES]
    clips = _decoded(both, sides, say)
    return [Clip(one.name, one.group, one.side, one.truth, one.content, faces[one.name[3:]]) for one in clips]


def _decoded(takes: Sequence[Take], sides: dict[str, str], say: Say) -> list[Clip]:
    clips = []
    for corpus in sorted({take.corpus for take in takes}):
        mine = [take for take in takes if take.corpus == corpus]
        for take, samples in zip(
            mine, sound_store.load(mine, sound_store.default_folder(), say), strict=True
        ):
            truth = LABELS.index(take.label)
            clips.append(Clip(take.name, take.speaker, sides[take.speaker], truth, samples))
    return clips
