"""Trains a face network on soft votes, with rare expressions seen more often than they occur.

A training may have guides beside the corpora: the live finder, which says where it would cut each face out,
and the network before, which it begins with and whose opinion counts beside the votes.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from liveaffect.engines import manifest as manifests
from liveaffect.engines.build.export_onnx import export
from liveaffect.engines.build.quantize import quantize
from liveaffect.engines.model import presets
from liveaffect.engines.protocol import EngineFileError, Tensors
from liveaffect.engines.recipe import LABELS
from liveaffect.engines.training import corpora_faces, evaluate_face, loop
from liveaffect.engines.training.augment_faces import (
    PLACINGS,
    FaceChanges,
    Place,
    grey_crops,
    placings,
    seen,
    tinted,
)
from liveaffect.engines.training.corpora_faces import Faces, FaceSplit, load_split
from liveaffect.engines.training.learn_faces import Before, FaceRecipe, FaceTask, log_frequencies, read_before
from liveaffect.engines.training.ship import source_commit

QUANTISE_EACH = 24
"""Pictures of each label that INT8 is calibrated on."""
EPOCHS = 30
RATE, RATE_BEGUN = 2e-3, 1e-3
"""Of a network that knows nothing, and of one that goes on: twice as fast would undo what it knows."""
LIVE, TEACHER, TEACHERS = 0.5, 0.4, 0.6
"""Of `FaceRecipe`, where the live finder, a network before, and other networks too, are at hand."""
UNFOLD_PICTURES = 512
SMOKE_PICTURES, SMOKE_EPOCHS = 512, 1
Report = Callable[[str], None]
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class FaceOptions:
    """What is to be trained, and with which guides."""

    preset: str = "live"
    smoke: bool = False
    """A small part of everything, to see that it works."""
    place: Place | None = None
    """Says where the live finder puts a face; half of the faces are then placed so."""
    after: Path | None = None
    """A checkpoint of a finished training or a manifest, whose network is the beginning and a teacher."""
    teachers: tuple[Path, ...] = ()
    """The same of further networks, of any size, that are teachers alone."""


def face_schedule(
    *,
    smoke: bool = False,
    seed: int = 0,
    epochs: int | None = None,
    limit_s: float = math.inf,
    threads: int = 0,
    begun: bool = False,
) -> loop.Schedule:
    """How long and where to train: on a GPU if there is one. `begun`: with the weights of another."""
    return loop.Schedule(
        epochs=epochs or (SMOKE_EPOCHS if smoke else EPOCHS),
        rate=RATE_BEGUN if begun else RATE,
        seed=seed,
        device=loop.best_device(),
        limit_s=limit_s,
        threads=threads,
    )


def train_face(
    data: Path,
    out: Path,
    order: FaceOptions = FaceOptions(),
    *,
    schedule: loop.Schedule | None = None,
    report: Report = _log.info,
) -> Path | None:
    """Train on the corpora in `data`, or go on; then write network, manifest and verdict into `out`.

    The manifest's path, or None when the schedule's time limit came first: the same call goes on then.
    """
    cv2.setNumThreads(1)
    schedule = schedule or face_schedule(smoke=order.smoke)
    out.mkdir(parents=True, exist_ok=True)
    report(f"reading the faces in {data}")
    faces = load_split(corpora_faces.find_faces(data), out / "splits.json")
    if order.smoke:
        faces = replace(
            faces, train=_few(faces.train), calibrate=_few(faces.calibrate), test=_few(faces.test)
        )
    if order.place is not None:
        report("looking where the live finder puts them")
        faces = _placed_faces(faces, order.place, out / PLACINGS)
    report(f"{len(faces.train)} faces to train on, {len(faces.calibrate)} to watch")
    before = None if order.after is None else read_before(order.after)
    if before is not None and before.preset != order.preset:
        raise EngineFileError(f"{order.after} holds a network '{before.preset}', not one of '{order.preset}'")
    teachers = [read_before(path) for path in order.teachers]
    taught = TEACHERS if teachers else TEACHER if before else 0.0
    recipe = FaceRecipe(live=LIVE if order.place else 0.0, teacher=taught)
    network, task = _begun(faces, recipe, order.preset, schedule, before, teachers)
    outcome = loop.train(network, task, schedule, out, report=report)
    if not outcome.finished:
        report("the time is up; the same command goes on from here")
        return None
    often = log_frequencies(faces.train.soft)
    share = task.best_share(outcome.network, often)
    report(f"of the labels' log-frequencies {share} is added in use")
    state = with_frequencies(outcome.state, share * often)
    training = _training_facts(faces, recipe, schedule, share)
    if before is not None:
        training["after"] = before.told()
    if teachers:
        training["teachers"] = [one.told() for one in teachers]
    path = export("face", order.preset, out, state=state, training=training)
    quantize(path, face_batches(faces.calibrate))
    verdict = evaluate_face.judge_face(manifests.read(path), out, faces)
    manifests.record_figures(path, verdict.of_the_test_side())
    evaluate_face.write_verdict(verdict, out)
    report(f"wrote {path} and its networks\n{verdict.markdown()}")
    return path


def _placed_faces(faces: FaceSplit, place: Place, kept: Path) -> FaceSplit:
    """The sides that a training sees, with their live placing."""
    train, calibrate = faces.train, faces.calibrate
    matrices = placings(np.concatenate([train.pictures, calibrate.pictures]), place, kept)
    return replace(
        faces,
        train=replace(train, placing=matrices[: len(train)]),
        calibrate=replace(calibrate, placing=matrices[len(train) :]),
    )


def _begun(
    faces: FaceSplit,
    recipe: FaceRecipe,
    preset: str,
    schedule: loop.Schedule,
    before: Before | None,
    teachers: Sequence[Before],
) -> tuple[nn.Module, FaceTask]:
    """A network before its first step, and what it is to learn."""
    name = f"face-{preset}-{faces.digest[:12]}"
    few = grey_crops(faces.train.pictures[:UNFOLD_PICTURES])
    network = presets.build("face", preset, seed=schedule.seed)
    taught_by = [one.begun(few) for one in teachers]
    name += "".join(f"-by-{one.digest[:12]}" for one in teachers)
    if before is not None:
        network = before.begun(few, schedule.seed)
        taught_by.append(network)
        name += f"-after-{before.digest[:12]}"
    answering = [presets.deploy(one).to(schedule.device) for one in taught_by]
    return network, FaceTask(faces.train, faces.calibrate, recipe, name, schedule.device, teachers=answering)


def _training_facts(
    faces: FaceSplit, recipe: FaceRecipe, schedule: loop.Schedule, share: float
) -> dict[str, Any]:
    """What the manifest says about the training."""
    return {
        "corpora": list(faces.corpora),
        "licence": "; ".join(corpora_faces.LICENCES[corpus] for corpus in faces.corpora),
        "splits": faces.digest,
        "pictures": len(faces.train),
        "seed": schedule.seed,
        "commit": source_commit(),
        "epochs": schedule.epochs,
        "recipe": asdict(recipe) | {"frequency_in_use": share},
    }


def with_frequencies(state: Mapping[str, Tensor], often: NDArray[np.float32]) -> dict[str, Tensor]:
    """The weights with a share of the labels' log-frequencies in the last bias."""
    name = "to_logits.bias"
    return {**state, name: state[name] + torch.from_numpy(often)}


def face_batches(faces: Faces, each: int = QUANTISE_EACH, seed: int = 0) -> Iterator[Tensors]:
    """Crops of the calibrate side for INT8, as many of each label, half of them as a webcam sees them."""
    rng = np.random.default_rng(seed)
    strength = FaceChanges()
    for label in range(len(LABELS)):
        at = np.flatnonzero(faces.label == label)
        if not len(at):
            continue
        at = rng.choice(at, size=each, replace=len(at) < each)
        crops = grey_crops(faces.pictures[at])
        anyhow = np.stack([seen(faces.pictures[i], rng, strength) for i in at[::2]])
        crops[::2] = tinted(anyhow, rng, strength)
        yield {"crop": crops}


def _few(faces: Faces) -> Faces:
    return faces.take(np.arange(min(len(faces), SMOKE_PICTURES)))
