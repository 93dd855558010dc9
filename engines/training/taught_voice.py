"""Trains several voice networks that differ by chance alone, and one that learns from what they say together.

A few speakers leave much to chance: with another seed a network is right and wrong about other recordings.
The mean of several knows more than each. One more network, told that mean for every piece it hears beside
the piece's label, keeps what the mean gains at the price of one network.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Protocol

import torch
from torch import nn

from liveaffect.engines.model import presets
from liveaffect.engines.model.heads import VoiceNetwork
from liveaffect.engines.stopwatch import wall_ns
from liveaffect.engines.training import loop
from liveaffect.engines.training.quick_norm import quicken
from liveaffect.engines.training.replay_statistics import ReadyFront, Replay
from liveaffect.engines.training.voice_batches import VoiceBatch
from liveaffect.engines.training.voice_loss import Told, opinions

TEACHERS = 3
Report = Callable[[str], None]
_log = logging.getLogger(__name__)


class VoicePupil(loop.Task[VoiceBatch], Protocol):
    """What is learnt, once from labels alone and then from teachers as well."""

    def learn_from(self, teachers: Teachers) -> None:
        """Ask them about every batch from now on."""
        ...


class Teachers:
    """Trained networks that say what they think of a batch."""

    def __init__(self, networks: Sequence[nn.Module]) -> None:
        if not networks:
            raise ValueError("nobody to learn from")
        self._networks = [network.eval().requires_grad_(False) for network in networks]
        states = [value for network in networks for value in network.state_dict().values()]
        weights = b"".join(value.float().cpu().numpy().tobytes() for value in states)
        self.digest = hashlib.sha256(weights).hexdigest()[:12]
        """Changes with any weight of any of them."""

    def said(self, batch: VoiceBatch) -> Told:
        """The mean of their probabilities, each recording's pieces pooled under each one's own weights."""
        with torch.no_grad():
            parts = [
                opinions(network(batch.power, batch.mean, batch.istd), batch) for network in self._networks
            ]
            pieces, recordings = (torch.stack(part).mean(0) for part in zip(*parts, strict=True))
        return Told(pieces, recordings)


def taught(
    preset: str,
    task: VoicePupil,
    schedule: loop.Schedule,
    folder: Path,
    *,
    teachers: int = TEACHERS,
    report: Report = _log.info,
) -> tuple[loop.TrainingOutcome, list[loop.TrainingOutcome]]:
    """Train, or go on: the network, and those it learnt from, each in a folder of its own.

    When the schedule's time limit comes first, the outcome of whichever was in training is the last there is.
    """
    start_ns = wall_ns()

    def left() -> float:
        return schedule.limit_s - (wall_ns() - start_ns) * 1e-9

    before: list[loop.TrainingOutcome] = []
    for number in range(1, teachers + 1):
        seed = teacher_seed(schedule.seed, number)
        report(f"teacher {number} of {teachers}, seed {seed}")
        plan = replace(schedule, seed=seed, limit_s=left())
        outcome = loop.train(
            ready_taught(preset, seed), task, plan, folder / f"teacher-{number}", report=report
        )
        if not outcome.finished:
            return outcome, before
        before.append(outcome)
    if before:
        task.learn_from(Teachers([outcome.network for outcome in before]))
        report("the network that learns from them")
    plan = replace(schedule, limit_s=left())
    return loop.train(ready_taught(preset, schedule.seed), task, plan, folder, report=report), before


def teacher_seed(seed: int, number: int) -> int:
    """Teachers of different pupils have different seeds."""
    return 10 * seed + number


def ready_taught(preset: str, seed: int) -> VoiceNetwork:
    """A new network that takes log spectra computed before."""
    network = presets.build("voice", preset, seed=seed)
    assert isinstance(network, VoiceNetwork)
    replaying(network)
    return network


def replaying(network: VoiceNetwork) -> Replay:
    """Let a network take log spectra that were computed before; the replay that computes them."""
    network.front = ReadyFront(network.sound)
    quicken(network)
    return Replay(network.sound)
