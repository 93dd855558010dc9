"""Lets a face network learn from the one before: begin with its weights, heed what it says beside the votes.

Ten votes are a rough measure of what people see. A network that has seen all of them knows which faces are
alike, and its mean opinion over several views of a face is smoother than ten votes are.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from liveaffect.engines.model import presets
from liveaffect.engines.protocol import EngineFileError
from liveaffect.engines.training.augment_faces import grey_crops
from liveaffect.engines.training.corpora_faces import Faces
from liveaffect.engines.training.loop import read_checkpoint
from liveaffect.engines.training.placings import where_found

Crops = NDArray[np.uint8]
_CHUNK = 256


@dataclass(frozen=True, slots=True, eq=False)
class Before:
    """A network whose training is finished."""

    state: Mapping[str, Tensor]
    """Averaged weights, in training form."""
    digest: str
    """Of these weights."""
    epochs: int
    task: str
    """What it learnt, as its checkpoint calls it."""

    def told(self) -> dict[str, str | int]:
        """For the manifest of the network that comes after it."""
        return {"weights": self.digest, "epochs": self.epochs, "task": self.task}


def read_before(checkpoint: Path, preset: str) -> Before:
    """The network that a training left. Raises EngineFileError if it is damaged or of another preset."""
    found = read_checkpoint(checkpoint)
    state, network = found["averaged"], presets.build("face", preset)
    try:
        network.load_state_dict(state)
    except RuntimeError as err:
        raise EngineFileError(
            f"the weights in {checkpoint} are not those of a face network '{preset}'; "
            "name the checkpoint of a training of that preset"
        ) from err
    digest = hashlib.sha256()
    for name in sorted(state):
        digest.update(name.encode() + state[name].contiguous().cpu().numpy().tobytes())
    return Before(state, digest.hexdigest(), int(found["epoch"]), str(found["task"]))


def opinions(network: nn.Module, faces: Faces, shift: Tensor, device: str) -> NDArray[np.float32]:
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
            said = answers(network, np.concatenate(views), device)
        logits = torch.from_numpy(said).to(device) + shift
        out.append(logits.softmax(1).reshape(len(views), len(part), -1).mean(0).cpu().numpy())
    return np.concatenate(out).astype(np.float32)


def answers(network: nn.Module, crops: Crops, device: str, batch: int = 256) -> NDArray[np.float32]:
    """Logits of many crops, in the network's own precision."""
    with torch.inference_mode():
        parts = [
            network(torch.from_numpy(crops[at : at + batch]).to(device)).logits.float().cpu().numpy()
            for at in range(0, len(crops), batch)
        ]
    return np.concatenate(parts)
