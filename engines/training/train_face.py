"""Trains a face network on soft votes, with rare expressions seen more often than they occur.

How rare expressions are weighed is one decision in two halves: they are drawn more often, and the rest of
what they lack is added to the logits during training. The weight a face asks for in pooling is learnt from
bags of faces, behind a barrier, so that it never changes what the network sees in a single face.
"""

from __future__ import annotations

import hashlib
import logging
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from engines import manifest as manifests
from engines.build.export_onnx import export
from engines.build.quantize import quantize
from engines.model import presets
from engines.protocol import Tensors
from engines.recipe import LABELS
from engines.training import corpora_faces, evaluate_face, loop
from engines.training.augment_faces import Strength, grey_crops, seen, tinted
from engines.training.corpora_faces import Faces
from engines.training.scores import accuracy, unweighted_recall
from engines.training.sided_faces import sided
from engines.training.source import source_commit

QUANTISE_EACH = 24
"""Pictures of each label that INT8 is calibrated on."""
EPOCHS = 30
SMOKE_PICTURES, SMOKE_EPOCHS = 512, 1
BAG = 4
FREQUENCY_IN_USE = 0.2
"""Share of the log-frequencies of labels that is added to the logits in use, as part of the last layer.

Of 0, 0.1, 0.15, 0.2, 0.3 and 0.5 the one with the best accuracy plus unweighted recall on the calibrate side.
"""
Report = Callable[[str], None]
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Recipe:
    """What is special about learning faces."""

    batch: int = 128
    rarity: float = 0.3
    """A label that is n times rarer is drawn n**rarity times as often as it occurs."""
    adjustment: float = 0.4
    """Share of the remaining log-frequencies that training adds to the logits, and use does not."""
    strength: Strength = field(default_factory=Strength)


class FaceTask:
    """For `loop.train`: batches of crops with soft labels."""

    def __init__(self, train: Faces, watched: Faces, recipe: Recipe, name: str, device: str = "cpu") -> None:
        self._train, self._recipe, self._device = train, recipe, device
        known = watched.label >= 0
        self._watched = grey_crops(watched.pictures[known])
        self._truth = watched.label[known]
        self._chance = drawing_chances(train.soft, recipe.rarity)
        drawn = self._chance @ train.soft
        self._prior = torch.from_numpy(np.log(np.maximum(drawn, 1e-4)).astype(np.float32)).to(device)
        self.name = f"{name}/{hashlib.sha256(repr(recipe).encode()).hexdigest()[:12]}"
        self.steps = max(len(train) // recipe.batch, 1)

    def batches(self, epoch: int, rng: np.random.Generator) -> Iterator[tuple[Tensor, Tensor]]:
        """Crops, none like any before, and their votes."""
        recipe, faces = self._recipe, self._train
        for _ in range(self.steps):
            at = rng.choice(len(faces), size=recipe.batch, p=self._chance)
            grey = np.stack([seen(faces.pictures[i], rng, recipe.strength) for i in at])
            crops = torch.from_numpy(tinted(grey, rng, recipe.strength))
            yield crops.to(self._device), torch.from_numpy(faces.soft[at]).to(self._device)

    def loss(self, network: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        """Cross entropy with the votes, of single faces and of bags."""
        crops, votes = batch
        answer = network(crops)
        shifted = answer.logits.float() + self._recipe.adjustment * self._prior
        single = _cross_entropy(shifted, votes)
        pooled, shared = self._bags(network, answer.vector.detach(), votes)
        return single + _cross_entropy(pooled + self._recipe.adjustment * self._prior, shared)

    def _bags(self, network: Any, vector: Tensor, votes: Tensor) -> tuple[Tensor, Tensor]:
        """Logits of pooled faces, and the mean of their votes. Only what asks for weight learns from them.

        Half of the bags show one label, where a clear face should count for more than a spoilt one; half show
        any, where no label may count for more than another.
        """
        order = torch.randperm(len(vector), device=vector.device)
        half = len(order) // 2
        order = torch.cat([order[:half][votes[order[:half]].argmax(1).argsort()], order[half:]])
        order = order[: len(order) // BAG * BAG].reshape(-1, BAG)
        weights = network.to_score(vector).float()[order].softmax(1)
        pooled = (weights * vector.float()[order]).sum(1)
        head = network.to_logits
        with torch.autocast(vector.device.type, enabled=False):
            logits = functional.linear(pooled, head.weight.detach().float(), head.bias.detach().float())
        return logits, votes[order].mean(1)

    def figures(self, network: nn.Module) -> Mapping[str, float]:
        """On the calibrate side, as people's majority has it."""
        said = answers(network, self._watched, self._device).argmax(1)
        return {
            "accuracy": accuracy(self._truth, said),
            "recall": unweighted_recall(self._truth, said, len(LABELS)),
        }


def drawing_chances(soft: NDArray[np.float32], rarity: float) -> NDArray[np.float64]:
    """How likely each picture is drawn."""
    often = np.bincount(soft.argmax(1), minlength=soft.shape[1]).astype(np.float64)
    chance = np.maximum(often, 1.0)[soft.argmax(1)] ** -rarity
    return np.asarray(chance / chance.sum(), np.float64)


def answers(
    network: nn.Module, crops: NDArray[np.uint8], device: str, batch: int = 256
) -> NDArray[np.float32]:
    """Logits of many crops, in the network's own precision."""
    with torch.inference_mode():
        parts = [
            network(torch.from_numpy(crops[at : at + batch]).to(device)).logits.float().cpu().numpy()
            for at in range(0, len(crops), batch)
        ]
    return np.concatenate(parts)


def schedule_of(
    *,
    smoke: bool = False,
    seed: int = 0,
    epochs: int | None = None,
    limit_s: float = math.inf,
    threads: int = 0,
) -> loop.Schedule:
    """How long and where to train: on a GPU if there is one."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    epochs = epochs or (SMOKE_EPOCHS if smoke else EPOCHS)
    return loop.Schedule(epochs=epochs, seed=seed, device=device, limit_s=limit_s, threads=threads)


def main_run(
    data: Path,
    out: Path,
    *,
    preset: str = "live",
    smoke: bool = False,
    schedule: loop.Schedule | None = None,
    report: Report = _log.info,
) -> Path | None:
    """Train on the corpora in `data`, or go on; then write network, manifest and verdict into `out`.

    The manifest's path, or None when the schedule's time limit came first: the same call goes on then.
    `smoke` is a small part of everything, to see that it works.
    """
    cv2.setNumThreads(1)
    schedule = schedule or schedule_of(smoke=smoke)
    out.mkdir(parents=True, exist_ok=True)
    report(f"reading the faces in {data}")
    faces = sided(corpora_faces.find(data), out / "splits.json")
    if smoke:
        faces = replace(
            faces, train=_few(faces.train), calibrate=_few(faces.calibrate), test=_few(faces.test)
        )
    report(f"{len(faces.train)} faces to train on, {len(faces.calibrate)} to watch")
    recipe = Recipe()
    task = FaceTask(
        faces.train, faces.calibrate, recipe, f"face-{preset}-{faces.digest[:12]}", schedule.device
    )
    network = presets.build("face", preset, seed=schedule.seed)
    outcome = loop.train(network, task, schedule, out, report=report)
    if not outcome.finished:
        report("the time is up; the same command goes on from here")
        return None
    training = {
        "corpora": list(faces.corpora),
        "licence": "; ".join(corpora_faces.LICENCES[corpus] for corpus in faces.corpora),
        "splits": faces.digest,
        "pictures": len(faces.train),
        "seed": schedule.seed,
        "commit": source_commit(),
        "epochs": schedule.epochs,
        "recipe": asdict(recipe) | {"frequency_in_use": FREQUENCY_IN_USE},
    }
    state = with_frequencies(outcome.state, faces.train.soft, FREQUENCY_IN_USE)
    path = export("face", preset, out, state=state, training=training)
    quantize(path, quantising_batches(faces.calibrate))
    verdict = evaluate_face.judge(manifests.read(path), out, faces)
    evaluate_face.record(out, verdict)
    evaluate_face.write_tables(verdict, out)
    report(f"wrote {path} and its networks\n{verdict.markdown()}")
    return path


def with_frequencies(
    state: Mapping[str, Tensor], soft: NDArray[np.float32], share: float
) -> dict[str, Tensor]:
    """The weights with a share of the labels' log-frequencies in the last bias."""
    often = torch.from_numpy(np.log(np.maximum(soft.mean(0), 1e-3)).astype(np.float32))
    name = "to_logits.bias"
    return {**state, name: state[name] + share * (often - often.mean())}


def quantising_batches(faces: Faces, each: int = QUANTISE_EACH, seed: int = 0) -> Iterator[Tensors]:
    """Crops of the calibrate side for INT8, as many of each label, half of them as a webcam sees them."""
    rng = np.random.default_rng(seed)
    strength = Strength()
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


def _cross_entropy(logits: Tensor, wanted: Tensor) -> Tensor:
    return -(wanted * logits.log_softmax(1)).sum(1).mean()
