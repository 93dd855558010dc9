"""Trains a voice network on acted speech so that it knows people it never heard, from their first second on.

What it learns from is what it will be given live: pieces on the live grid, normalised by running statistics
that start cold, pooled under its own weights. What it is judged by is the live procedure itself, with the
network deciding what is speech.
"""

from __future__ import annotations

import hashlib
import logging
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from liveaffect.engines.build.export_onnx import export
from liveaffect.engines.build.quantize import quantize
from liveaffect.engines.model.heads import VoiceNetwork
from liveaffect.engines.protocol import Tensors
from liveaffect.engines.recipe import LABELS
from liveaffect.engines.training import loop, sound_store, splits, synthetic_sounds
from liveaffect.engines.training.augment_sound import Strength
from liveaffect.engines.training.corpora_voices import LICENCES
from liveaffect.engines.training.listen import Heard, asking, listen
from liveaffect.engines.training.replay_statistics import Replay
from liveaffect.engines.training.ship import source_commit
from liveaffect.engines.training.sided_voices import RecordedVoices, few, found_in, recalls, sided, voices
from liveaffect.engines.training.taught_voice import TEACHERS, Teachers, ready_taught, taught
from liveaffect.engines.training.voice_batches import Batches, Drawing, Recording, VoiceBatch, unspoken
from liveaffect.engines.training.voice_loss import class_weights, loss
from liveaffect.engines.training.voice_windows import WideBatches, Windows

NOISES_EACH = 12
"""Made sounds without speech, of every kind."""
WATCH_EVERY = 5
"""Epochs between two looks at people who are not trained on."""
QUANTISE_EACH = 8
"""Recordings of each label that INT8 is calibrated on."""
EPOCHS, SMOKE_EPOCHS = 12, 2
"""Of every teacher and of the network that learns from them."""
SMOKE_TEACHERS = 1
RATE, AVERAGE = 2e-3, 0.995
WARM_UP = 0.1
"""Share of the steps in which the rate rises. When it is up after a few dozen, wide networks start badly."""
Report = Callable[[str], None]
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Recipe:
    """What is special about learning voices."""

    batch: int = 24
    strength: Strength = field(default_factory=Strength)
    drawing: Drawing = field(default_factory=Drawing)


@dataclass(frozen=True, slots=True)
class WideRecipe:
    """The same for networks whose pieces hold their own past."""

    batch: int = 64
    """Pieces, not recordings."""
    windows: Windows = field(default_factory=Windows)


def recipe_for(replay: Replay) -> Recipe | WideRecipe:
    """The one that fits a network's pieces."""
    return Recipe() if replay.preset.newest is None else WideRecipe()


class VoiceTask:
    """For `loop.train`: batches of pieces whose recordings have labels."""

    def __init__(
        self,
        train: Sequence[Recording],
        watched: Sequence[Recording],
        replay: Replay,
        recipe: Recipe | WideRecipe,
        name: str,
    ) -> None:
        sounds = [s for kind in synthetic_sounds.bank(NOISES_EACH, seed=1).values() for s in kind]
        noises = unspoken(sounds, replay)
        self._batches: Batches | WideBatches
        if isinstance(recipe, WideRecipe):
            self._batches = WideBatches(train, noises, replay, recipe.windows)
            self._weights = torch.ones(len(LABELS))  # Rare labels are drawn more often instead.
        else:
            self._batches = Batches(train, noises, replay, recipe.strength, recipe.drawing)
            self._weights = class_weights([recording.label for recording in train])
        self._watched, self._replay, self._recipe = watched, replay, recipe
        self._epoch = 0
        self._teachers: Teachers | None = None
        self.name = f"{name}/{hashlib.sha256(repr(recipe).encode()).hexdigest()[:12]}"
        self.steps = self._batches.steps(recipe.batch)

    def batches(self, epoch: int, rng: np.random.Generator) -> Iterator[VoiceBatch]:
        """Every recording once, never heard twice in the same room."""
        self._epoch = epoch
        for indices in self._batches.order(rng, self._recipe.batch):
            yield self._batches.make(indices, rng)

    def learn_from(self, teachers: Teachers) -> None:
        """Ask them about every batch from now on."""
        self._teachers = teachers
        self.name = f"{self.name}/{teachers.digest}"

    def loss(self, network: nn.Module, batch: VoiceBatch) -> Tensor:
        """Whole recordings, single pieces, and what is speech."""
        batch = batch.to(str(next(network.parameters()).device))
        told = self._teachers.said(batch) if self._teachers else None
        return loss(
            network(batch.power, batch.mean, batch.istd), batch, self._weights.to(batch.power.device), told
        )

    def figures(self, network: nn.Module) -> Mapping[str, float]:
        """Recall on people not trained on, heard as live; every few epochs, because it takes a while."""
        if not self._watched or (self._epoch + 1) % WATCH_EVERY:
            return {}
        assert isinstance(network, VoiceNetwork)
        return recalls(self._watched, heard_from_cold(network, self._watched, self._replay))


def heard_from_cold(network: VoiceNetwork, recordings: Sequence[Recording], replay: Replay) -> list[Heard]:
    """Each recording from cold, by a network in the form `replaying` gave it."""
    return listen(asking(network), [replay.cut(one.picture) for one in recordings], replay.preset.hop)


def voice_schedule(
    *,
    smoke: bool = False,
    seed: int = 0,
    epochs: int | None = None,
    limit_s: float = math.inf,
    threads: int = 0,
) -> loop.Schedule:
    """How long and where to train: on a GPU if there is one."""
    return loop.Schedule(
        epochs=epochs or (SMOKE_EPOCHS if smoke else EPOCHS),
        rate=RATE,
        warm_up=WARM_UP,
        average=AVERAGE,
        seed=seed,
        device=loop.best_device(),
        limit_s=limit_s,
        threads=threads,
    )


def train_voice(
    data: Path,
    out: Path,
    *,
    preset: str = "live-wide",
    smoke: bool = False,
    schedule: loop.Schedule | None = None,
    report: Report = _log.info,
) -> Path | None:
    """Train on the corpora in `data`, or go on; then write network and manifest into `out`.

    The manifest's path, or None when the schedule's time limit came first: the same call goes on then.
    `smoke` is a small part of everything, to see that it works.
    """
    schedule = schedule or voice_schedule(smoke=smoke)
    out.mkdir(parents=True, exist_ok=True)
    replay = Replay(ready_taught(preset, schedule.seed).sound)
    report(f"reading the voices in {data}")
    takes = found_in(data)
    sides = sided(takes, out / splits.FROZEN.name)
    if smoke:
        takes = {corpus: few(these, sides[0]) for corpus, these in takes.items()}
    found = voices(takes, sides, replay, sound_store.default_folder(), report)
    train, watched = found.sides["train"], found.sides["calibrate"]
    report(f"{len(train)} recordings to train on, {len(watched)} to watch")
    recipe = recipe_for(replay)
    task = VoiceTask(train, watched, replay, recipe, f"voice-{preset}-{found.digest[:12]}")
    teachers = SMOKE_TEACHERS if smoke else TEACHERS
    outcome, before = taught(preset, task, schedule, out, teachers=teachers, report=report)
    if not outcome.finished:
        report("the time is up; the same command goes on from here")
        return None
    training = {
        **described_voice(found, train),
        "seed": schedule.seed,
        "commit": source_commit(),
        "epochs": schedule.epochs,
        "recipe": asdict(recipe),
        "teachers": len(before),
    }
    path = export("voice", preset, out, state=outcome.state, training=training)
    assert isinstance(outcome.network, VoiceNetwork)
    quantize(path, voice_batches(outcome.network, watched or train, replay))
    report(f"wrote {path} and its networks")
    return path


def described_voice(found: RecordedVoices, train: Sequence[Recording]) -> dict[str, Any]:
    """What the manifest says of the voices behind the weights."""
    return {
        "corpora": list(found.corpora),
        "licence": "; ".join(dict.fromkeys(LICENCES[corpus] for corpus in found.corpora)),
        "splits": found.digest,
        "recordings": len(train),
        "speakers": sorted({one.take.speaker for one in train if one.take}),
    }


def voice_batches(
    network: VoiceNetwork, recordings: Sequence[Recording], replay: Replay, seed: int = 0
) -> Iterator[Tensors]:
    """Pieces for INT8 as they come live: real voices in their running statistics, label by label."""
    rng = np.random.default_rng(seed)
    for label in range(len(LABELS)):
        at = [i for i, one in enumerate(recordings) if one.label == label]
        if not at:
            continue
        chosen = [recordings[i] for i in rng.choice(at, min(len(at), QUANTISE_EACH), replace=False)]
        for one, answer in zip(chosen, heard_from_cold(network, chosen, replay), strict=True):
            yield {"samples": replay.samples(one.samples), "mean": answer.mean, "istd": answer.istd}
