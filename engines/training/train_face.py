"""Trains a face network on soft votes, with rare expressions seen more often than they occur.

How rare expressions are weighed is one decision in two halves: they are drawn more often, and the rest of
what they lack is added to the logits during training. The weight a face asks for in pooling is learnt from
bags of faces, behind a barrier, so that it never changes what the network sees in a single face.

A training may have guides beside the corpora: the live finder, which says where it would cut each face out,
and networks before, out of a checkpoint or a shipped file. It may begin with the weights of one, and heed
their mean opinion beside the votes, which are ten people's and therefore a rough measure.
"""

from __future__ import annotations

import hashlib
import logging
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from liveaffect.engines import manifest as manifests
from liveaffect.engines.build.export_onnx import export
from liveaffect.engines.build.quantize import quantize
from liveaffect.engines.model import presets
from liveaffect.engines.model.blocks import unfold
from liveaffect.engines.model.heads import Network
from liveaffect.engines.model.presets import deploy
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
    where_found,
)
from liveaffect.engines.training.corpora_faces import Faces, FaceSplit, load_split
from liveaffect.engines.training.loop import read_checkpoint, source_commit
from liveaffect.engines.training.scores import two_figures

BAG = 4
SHARES = (0.0, 0.1, 0.2, 0.3)
"""Of the labels' log-frequencies, which of them may be added to the logits in use."""
MOST_THROUGH = 0.5
"""Largest share that another face has in a mixed one."""
_CHUNK = 256

Crops = NDArray[np.uint8]
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
class FaceRecipe:
    """What is special about learning faces."""

    batch: int = 128
    rarity: float = 0.3
    """A label that is n times rarer is drawn n**rarity times as often as it occurs."""
    adjustment: float = 0.4
    """Share of the remaining log-frequencies that training adds to the logits, and use does not."""
    mixed: float = 0.5
    """Share of faces that another one shines through; without, faces are learnt by heart."""
    live: float = 0.0
    """Share of faces that are placed as the live finder places them."""
    teacher: float = 0.0
    """Share that the opinion of networks before has in what is to be said; the votes have the rest."""
    strength: FaceChanges = field(default_factory=FaceChanges)


class FaceTask:
    """For `loop.train`: batches of crops with soft labels."""

    def __init__(
        self,
        train: Faces,
        watched: Faces,
        recipe: FaceRecipe,
        name: str,
        device: str = "cpu",
        *,
        teachers: Sequence[nn.Module] = (),
    ) -> None:
        self._train, self._recipe, self._device = train, recipe, device
        self._watched = _watched_crops(watched)
        self._live = [None] * len(train) if train.placing is None else where_found(train.placing)
        self._chance = drawing_chances(train.soft, recipe.rarity)
        drawn = self._chance @ train.soft
        self._prior = torch.from_numpy(np.log(np.maximum(drawn, 1e-4)).astype(np.float32)).to(device)
        self._wanted: NDArray[np.float32] = train.soft
        if teachers:
            shift = recipe.adjustment * self._prior
            said = np.mean([teacher_opinions(one, train, shift, device) for one in teachers], axis=0)
            self._wanted = np.asarray(train.soft + recipe.teacher * (said - train.soft), np.float32)
        self.name = f"{name}/{hashlib.sha256(repr(recipe).encode()).hexdigest()[:12]}"
        self.steps = max(len(train) // recipe.batch, 1)

    def batches(self, epoch: int, rng: np.random.Generator) -> Iterator[tuple[Tensor, Tensor]]:
        """Crops, none like any before, and what to say about them."""
        recipe, faces = self._recipe, self._train
        for _ in range(self.steps):
            at = rng.choice(len(faces), size=recipe.batch, p=self._chance)
            live = rng.random(recipe.batch) < recipe.live
            where = [self._live[i] if as_live else None for i, as_live in zip(at, live, strict=True)]
            grey = np.stack(
                [
                    seen(faces.pictures[i], rng, recipe.strength, placing)
                    for i, placing in zip(at, where, strict=True)
                ]
            )
            crops, wanted = tinted(grey, rng, recipe.strength), self._wanted[at]
            crops, wanted = _blended(crops, wanted, recipe.mixed, rng)
            yield torch.from_numpy(crops).to(self._device), torch.from_numpy(wanted).to(self._device)

    def loss(self, network: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        """Cross entropy with what is to be said, of single faces and of bags."""
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
        """On the calibrate side, as people's majority has it; 'live' is as the live finder places faces."""
        out: dict[str, float] = {}
        network = deploy(network)
        for how, (crops, truth) in self._watched.items():
            said = torch_answers(network, crops, self._device).argmax(1)
            out[f"{how}accuracy"], out[f"{how}recall"] = two_figures(truth, said)
        return out

    def best_share(self, network: nn.Module, frequencies: NDArray[np.float32]) -> float:
        """The share of the labels' log-frequencies to be added in use: most often right, rare labels too.

        By accuracy plus unweighted recall on the calibrate side, the mean over both ways to place a face.
        """
        worth = dict.fromkeys(SHARES, 0.0)
        network = deploy(network)
        for crops, truth in self._watched.values():
            logits = torch_answers(network, crops, self._device)
            for share in SHARES:
                said = (logits + share * frequencies).argmax(1)
                worth[share] += sum(two_figures(truth, said))
        return max(worth, key=lambda share: worth[share])


def log_frequencies(soft: NDArray[np.float32]) -> NDArray[np.float32]:
    """Of the labels as they occur, their mean taken off."""
    often = np.log(np.maximum(soft.mean(0), 1e-3)).astype(np.float32)
    return np.asarray(often - often.mean(), np.float32)


def drawing_chances(soft: NDArray[np.float32], rarity: float) -> NDArray[np.float64]:
    """How likely each picture is drawn."""
    often = np.bincount(soft.argmax(1), minlength=soft.shape[1]).astype(np.float64)
    chance = np.maximum(often, 1.0)[soft.argmax(1)] ** -rarity
    return np.asarray(chance / chance.sum(), np.float64)


def _watched_crops(faces: Faces) -> dict[str, tuple[NDArray[np.uint8], NDArray[np.int64]]]:
    """Crops and labels, as the corpus and as the live finder places them."""
    known = faces.take(np.flatnonzero(faces.label >= 0))
    out = {"": (grey_crops(known.pictures), known.label)}
    if known.placing is not None:
        live = where_found(known.placing)
        at = np.array([i for i, one in enumerate(live) if one is not None])
        out["live_"] = (grey_crops(known.pictures[at], [live[i] for i in at]), known.label[at])
    return out


def _blended(
    crops: NDArray[np.uint8], wanted: NDArray[np.float32], share: float, rng: np.random.Generator
) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Some faces with another of the batch shining through, and what is to be said mixed likewise."""
    count = len(crops)
    other = rng.permutation(count)
    through = rng.uniform(0.0, MOST_THROUGH, count) * (rng.random(count) < share)
    weight = through.astype(np.float32)[:, None]
    blended = crops + weight[..., None, None] * (crops[other].astype(np.float32) - crops)
    return np.asarray(blended, np.uint8), np.asarray(wanted + weight * (wanted[other] - wanted), np.float32)


def _cross_entropy(logits: Tensor, wanted: Tensor) -> Tensor:
    return -(wanted * logits.log_softmax(1)).sum(1).mean()


@dataclass(frozen=True, slots=True, eq=False)
class Before:
    """A network whose training is finished."""

    preset: str
    state: Mapping[str, Tensor]
    """Averaged weights in training form, or those of the deployed form."""
    digest: str
    """Of these weights."""
    epochs: int
    task: str
    """What it learnt, as its checkpoint calls it; the network's name where only the shipped file is left."""
    folded: bool = False

    def told(self) -> dict[str, str | int]:
        """For the manifest of the network that comes after it."""
        return {"weights": self.digest, "epochs": self.epochs, "task": self.task}

    def begun(self, crops: Crops, seed: int = 0) -> Network:
        """A network in training form with these weights; `crops` are a few hundred as in training."""
        network = presets.build("face", self.preset, seed=seed)
        if self.folded:
            unfold(network, self.state, torch.from_numpy(crops))
        else:
            network.load_state_dict(dict(self.state))
        return network


def read_before(path: Path) -> Before:
    """The network that a training left: its checkpoint, or the manifest beside what was made of it.

    Raises EngineFileError if it is damaged or no face network.
    """
    if path.suffix == ".json":
        return _read_deployed(path)
    found = read_checkpoint(path)
    state, task = found["averaged"], str(found["task"])
    mine = [name for name in presets.preset_names("face") if task.startswith(f"face-{name}-")]
    if not mine:
        raise EngineFileError(f"the checkpoint {path} is of '{task}'; name one of a training of faces")
    preset = max(mine, key=len)
    try:
        presets.build("face", preset).load_state_dict(state)
    except RuntimeError as err:
        raise EngineFileError(f"the weights in {path} are not those of a face network '{preset}'") from err
    digest = hashlib.sha256()
    for name in sorted(state):
        digest.update(name.encode() + state[name].contiguous().cpu().numpy().tobytes())
    return Before(preset, state, digest.hexdigest(), int(found["epoch"]), task)


def _read_deployed(path: Path) -> Before:
    found = manifests.read(path)
    if found.kind != "face" or not found.preset:
        raise EngineFileError(f"{path} describes '{found.name}', not a face network of a preset")
    graph = onnx.load_from_string(manifests.load_bytes(found, path.parent, "fp32")).graph
    state = {one.name: torch.from_numpy(onnx.numpy_helper.to_array(one).copy()) for one in graph.initializer}
    epochs = int(found.training.get("epochs", 0))
    digest = found.files[manifests.file_name("face", "fp32")]
    return Before(found.preset, state, digest, epochs, found.name, folded=True)


def teacher_opinions(network: nn.Module, faces: Faces, shift: Tensor, device: str) -> NDArray[np.float32]:
    """(n, 7) mean probabilities over views: by the corpus and, where it is known, as live; each mirrored too.

    `shift` is what was added to the logits while the network learnt.
    """
    out = []
    for at in range(0, len(faces), _CHUNK):
        part = faces.take(np.arange(at, min(at + _CHUNK, len(faces))))
        views = [grey_crops(part.pictures)]
        if part.placing is not None:
            views.append(grey_crops(part.pictures, where_found(part.placing)))
        views += [np.ascontiguousarray(view[:, :, ::-1]) for view in views]
        with torch.autocast(torch.device(device).type, torch.bfloat16):
            said = torch_answers(network, np.concatenate(views), device)
        logits = torch.from_numpy(said).to(device) + shift
        out.append(logits.softmax(1).reshape(len(views), len(part), -1).mean(0).cpu().numpy())
    return np.concatenate(out).astype(np.float32)


def torch_answers(
    network: nn.Module, crops: NDArray[np.uint8], device: str, batch: int = 256
) -> NDArray[np.float32]:
    """Logits of many crops, in the network's own precision."""
    with torch.inference_mode():
        parts = [
            network(torch.from_numpy(crops[at : at + batch]).to(device)).logits.float().cpu().numpy()
            for at in range(0, len(crops), batch)
        ]
    return np.concatenate(parts)


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
