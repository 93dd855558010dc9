"""What learning faces is: which are drawn how often, where they are placed, what is to be said about them.

How rare expressions are weighed is one decision in two halves: they are drawn more often, and the rest of
what they lack is added to the logits during training. The weight a face asks for in pooling is learnt from
bags of faces, behind a barrier, so that it never changes what the network sees in a single face.

A network may begin with the weights of the one before, out of a checkpoint or out of the file that is
shipped, and heed it and larger networks beside the votes: ten votes are a rough measure of what people see,
and the mean opinion of networks over several views of a face is smoother.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from liveaffect.engines import manifest as manifests
from liveaffect.engines.model import presets
from liveaffect.engines.model.heads import Network
from liveaffect.engines.model.presets import deploy
from liveaffect.engines.model.reparam import unfold
from liveaffect.engines.protocol import EngineFileError
from liveaffect.engines.training.augment_faces import FaceChanges, grey_crops, seen, tinted, where_found
from liveaffect.engines.training.corpora_faces import Faces
from liveaffect.engines.training.loop import read_checkpoint
from liveaffect.engines.training.scores import two_figures

BAG = 4
SHARES = (0.0, 0.1, 0.2, 0.3)
"""Of the labels' log-frequencies, which of them may be added to the logits in use."""
MOST_THROUGH = 0.5
"""Largest share that another face has in a mixed one."""
_CHUNK = 256

Crops = NDArray[np.uint8]


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
