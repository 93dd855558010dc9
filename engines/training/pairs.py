"""Real pairs of face and voice: takes of RAVDESS whose facial action units and whose sound are both at hand.

The films cannot be had, the action units can: 35 numbers a take, measured by others on the film whose sound
we have. They stand in for a face network's input, so that a fusion is judged on a face and a voice that
belong together. Pairs of equal label from different people would be independent by construction, and no
figure about fusion could be had from them.

Small networks over these numbers stand in for a face or a voice network. What they say about actors they were
trained on is far too certain, and a fusion that learnt from that would trust them too much; so each fold has
its own, and a fusion learns from what those say that never saw an actor.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from liveaffect.engines.protocol import VECTOR
from liveaffect.engines.recipe import CORPUS_LABELS, LABELS
from liveaffect.engines.training import splits
from liveaffect.engines.training.corpora_voices import PATTERNS, CorpusError
from liveaffect.engines.training.splits import CALIBRATE_SHARE, TEST_SHARE

PLACE = "av/au_mfcc.npz"
FOLDS = 5
_HIDDEN, _EPOCHS, _BATCH = 128, 40, 64
_FAR = 5.0
"""Standardised numbers beyond this are cut."""


@dataclass(frozen=True, slots=True, eq=False)
class Pairs:
    """Takes in the order of their names; one row each."""

    names: tuple[str, ...]
    """What film and sound have in common: 'channel-emotion-intensity-statement-repetition-actor'."""
    actors: tuple[str, ...]
    """As speakers are called elsewhere, such as 'ravdess/01'."""
    truth: NDArray[np.int64]
    face: NDArray[np.float32]
    """(n, 35): means of facial action units."""
    sound: NDArray[np.float32]
    """(n, 259): statistics of the sound, for a quick stand-in of a voice network."""

    def __len__(self) -> int:
        return len(self.names)

    @property
    def folds(self) -> NDArray[np.int64]:
        """Fold k holds out every k-th four of the actors in the order of their names."""
        order = {actor: at for at, actor in enumerate(sorted(set(self.actors)))}
        size = max(1, -(-len(order) // FOLDS))
        return np.array([order[actor] // size for actor in self.actors])

    @property
    def sides(self) -> NDArray[np.str_]:
        """The side of each take's actor, the same as for voices."""
        return np.array(
            [splits.side_of(actor, calibrate=CALIBRATE_SHARE, test=TEST_SHARE) for actor in self.actors]
        )


def read_pairs(data: Path) -> Pairs:
    """The pairs in a data folder. Raises CorpusError if the file is missing, damaged or holds other takes."""
    path = data / PLACE
    try:
        with np.load(path) as kept:
            clips, face, sound = (kept[name] for name in ("clip", "au", "mfcc"))
    except FileNotFoundError:
        raise CorpusError(f"there are no pairs of face and voice: looked for {path}") from None
    except (OSError, ValueError, KeyError) as err:
        raise CorpusError(f"the pairs {path} are damaged: {err}; copy the file again") from err
    if not len(clips) == len(face) == len(sound) or not np.isfinite(face).all():
        raise CorpusError(f"the pairs {path} are damaged: {len(clips)} names, {len(face)} faces; copy again")
    order = np.argsort(clips)
    found = [PATTERNS["ravdess"].fullmatch(str(clip)) for clip in clips[order]]
    if bad := [str(clip) for clip, match in zip(clips[order], found, strict=True) if match is None]:
        raise CorpusError(f"{path} holds takes that are not of RAVDESS, the first is '{bad[0]}'")
    matches = [match for match in found if match is not None]
    labels = [CORPUS_LABELS["ravdess"][match["label"]] for match in matches]
    return Pairs(
        names=tuple(str(clip)[3:] for clip in clips[order]),
        actors=tuple(f"ravdess/{match['speaker']}" for match in matches),
        truth=np.array([LABELS.index(str(label)) for label in labels]),
        face=face[order].astype(np.float32),
        sound=np.nan_to_num(sound[order]).astype(np.float32),
    )


class StandIn(nn.Module):
    """Numbers to logits."""

    def __init__(self, numbers: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Dropout(0.1),
            nn.Linear(numbers, _HIDDEN),
            nn.ReLU(),
            nn.Dropout(0.3),
            nn.Linear(_HIDDEN, VECTOR),
            nn.ReLU(),
            nn.Linear(VECTOR, len(LABELS)),
        )

    def forward(self, numbers: Tensor) -> Tensor:
        logits: Tensor = self.layers(numbers)
        return logits


def held_out_answers(
    numbers: NDArray[np.float32], truth: NDArray[np.int64], folds: NDArray[np.int64], *, seed: int
) -> NDArray[np.float32]:
    """(n, 7): train one stand-in per fold on the other folds' actors, and ask it about those of its own."""
    said = [stand_in_answers(numbers, truth, folds != fold, seed=seed) for fold in range(FOLDS)]
    return np.stack(said)[folds, np.arange(len(folds))]


def stand_in_answers(
    numbers: NDArray[np.float32], truth: NDArray[np.int64], train: NDArray[np.bool_], *, seed: int
) -> NDArray[np.float32]:
    """(n, 7): logits of all takes by a stand-in trained on some.

    Numbers are standardised by the takes that are trained on: nothing is known of an actor beforehand.
    """
    mean, spread = numbers[train].mean(0), numbers[train].std(0) + 1e-6
    scaled = torch.from_numpy(np.clip((numbers - mean) / spread, -_FAR, _FAR).astype(np.float32))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = StandIn(numbers.shape[1])
        _learn_stand_in(network, scaled[torch.from_numpy(train)], torch.from_numpy(truth[train]))
    with torch.inference_mode():
        found: NDArray[np.float32] = network.eval()(scaled).numpy()
    return found


def _learn_stand_in(network: StandIn, numbers: Tensor, truth: Tensor, noise: float = 0.2) -> None:
    weight = balanced_weights(truth)
    optimiser = torch.optim.AdamW(network.parameters(), lr=1e-3, weight_decay=0.05)
    steps = _EPOCHS * -(-len(truth) // _BATCH)
    plan = torch.optim.lr_scheduler.OneCycleLR(optimiser, 4e-3, total_steps=steps)
    for _ in range(_EPOCHS):
        for at in torch.randperm(len(truth)).split(_BATCH):  # type: ignore[no-untyped-call]
            blurred = numbers[at] + noise * torch.randn(len(at), numbers.shape[1])
            loss = functional.cross_entropy(network(blurred), truth[at], weight=weight, label_smoothing=0.1)
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            plan.step()


def balanced_weights(truth: Tensor) -> Tensor:
    """So that every label counts the same however often it occurs."""
    often = torch.bincount(truth, minlength=len(LABELS)).clamp(min=1)
    return len(truth) / (len(LABELS) * often)
