"""Teaches the full voice's listener: a small network over the moments of Whisper's layers.

Mean and deviation over a piece know nothing of the order in it. The listener is taught by labels, single
pieces in statistics of their speaker that begin cold, and then stands still: prior and head are fitted behind
it and the layers together, as they are for a voice without one.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from liveaffect.engines.model.voice_statistics import (
    Listener,
    StatisticsHead,
    VoiceWhisper,
    over_time,
)
from liveaffect.engines.training import loop
from liveaffect.engines.training.piece_bank import NOTHING, Moments, PieceBank
from liveaffect.engines.training.scores import unweighted_recall
from liveaffect.engines.training.tune_voice import SMOOTHING, SpeakerMemory, chance_known
from liveaffect.engines.training.voice_heads import FAR, among_possible, even_chances, labels_of_corpora

EPOCHS, STEPS, BATCH = 15, 100, 64
RATE, WARM_UP, AVERAGE = 1.5e-3, 0.15, 0.995
UNHEARD = 0.15
"""Share of the layers' features that are left out of a piece."""
_FIRST, _AT_ONCE = 40, 128
"""Batches that the first statistics are of, and pieces that are asked about together."""
_WATCHED = 512


class Learner(nn.Module):
    """A listener, and a head on its statistics and those of the layers, which ends with the training."""

    def __init__(self, network: VoiceWhisper, width: int) -> None:
        super().__init__()
        preset = network.preset
        self.listener = Listener(width, preset.listener)
        self.head = StatisticsHead(2 * (preset.listener.width + width), network.head_preset)

    def statistics(self, moments: Tensor, share: Tensor) -> Tensor:
        """(n, width): of what it hears, and of the layers themselves."""
        return over_time((self.listener(moments).float(), moments), share)


@dataclass(frozen=True, slots=True)
class Lesson:
    """Pieces of one batch, and what is known of them."""

    moments: Tensor
    share: Tensor
    label: Tensor
    possible: Tensor
    speaker: Tensor
    known: Tensor
    """(n,): by how many pieces the speaker is known."""


class ListenTask:
    """For `loop.train`: labels of the chosen recordings; of all others those watched."""

    def __init__(self, bank: PieceBank, chosen: NDArray[np.bool_], seed: int = 0, steps: int = STEPS) -> None:
        assert bank.moments is not None
        self.name, self.seed, self.steps = f"listen-{seed}-{int(chosen.sum())}", seed, steps
        self.bank, self.moments = bank, bank.moments
        self._memory: SpeakerMemory | None = None
        owner = bank.owner[bank.moments.piece]
        rows = np.arange(len(bank.label))
        self._first, self._end = (np.searchsorted(owner, rows, side=side) for side in ("left", "right"))
        labelled = (bank.label != NOTHING) & (self._end > self._first)
        self._rows = np.flatnonzero(chosen & labelled)
        self._chance = even_chances(bank.corpus[self._rows], bank.label[self._rows])
        self._possible = torch.from_numpy(labels_of_corpora(bank.corpus, bank.label))
        self._label = torch.from_numpy(bank.label)
        # Another room is another speaker, as far as statistics go.
        place = np.array([f"{who} {copy}" for who, copy in zip(bank.speaker, bank.copy, strict=True)])
        self._speakers, number = np.unique(place, return_inverse=True)
        self._speaker = torch.from_numpy(number)
        others = np.flatnonzero(~chosen & labelled & (bank.copy == 0))
        self._watched = np.random.default_rng(1).permutation(others)[:_WATCHED]

    def batches(self, epoch: int, rng: np.random.Generator) -> Iterator[Lesson]:
        """Labels and corpora drawn evenly, a piece of each recording."""
        del epoch
        for _ in range(self.steps):
            yield self._drawn(rng, BATCH)

    def _drawn(self, rng: np.random.Generator, count: int) -> Lesson:
        rows = rng.choice(self._rows, count, p=self._chance)
        moments, share = self.moments.of(rng.integers(self._first[rows], self._end[rows]))
        left = torch.from_numpy(rng.random((count, 1, moments.shape[2])) >= UNHEARD)
        return Lesson(
            moments * left / (1 - UNHEARD),
            share,
            self._label[rows],
            self._possible[rows],
            self._speaker[rows],
            chance_known(rng, count),
        )

    def loss(self, network: nn.Module, batch: Lesson) -> Tensor:
        """Single pieces, among the labels that the corpus has."""
        assert isinstance(network, Learner)
        if self._memory is None:
            self._memory = self._first_memory(network)
        raw = network.statistics(batch.moments, batch.share)
        given = self._memory.normalised(raw, batch.speaker, batch.known)
        logits = network.head(given)[2].float()
        self._memory.heed(raw.detach(), batch.speaker)
        return among_possible(logits, batch.label, batch.possible, SMOOTHING)

    def figures(self, network: nn.Module) -> Mapping[str, float]:
        """Single pieces of people nothing is learnt from, cold: unweighted recall by corpus."""
        assert isinstance(network, Learner)
        assert self._memory is not None
        found = {}
        for corpus in sorted(set(self.bank.corpus[self._watched].tolist())):
            rows = self._watched[self.bank.corpus[self._watched] == corpus]
            moments, share = self.moments.of((self._first[rows] + self._end[rows]) // 2)
            logits = network.head(self._memory.scaled(network.statistics(moments, share)))[2]
            called = logits.masked_fill(~self._possible[rows], FAR).argmax(1).numpy()
            among = np.flatnonzero(self._possible[rows[0]].numpy())
            truth, call = (np.searchsorted(among, x) for x in (self.bank.label[rows], called))
            found[str(corpus)] = unweighted_recall(truth, call, len(among))
        return found

    @torch.no_grad()
    def _first_memory(self, network: Learner) -> SpeakerMemory:
        rng = np.random.default_rng(2)
        first = [self._drawn(rng, BATCH) for _ in range(min(_FIRST, self.steps))]
        raw = torch.cat([network.statistics(one.moments, one.share) for one in first])
        memory = SpeakerMemory(len(self._speakers), raw.shape[1])
        memory.begin(raw, torch.cat([one.speaker for one in first]))
        return memory


def usual_schedule(seed: int = 0, limit_s: float = math.inf) -> loop.Schedule:
    """As the full voice's listener learns."""
    return loop.Schedule(
        EPOCHS,
        rate=RATE,
        warm_up=WARM_UP,
        average=AVERAGE,
        seed=seed,
        threads=torch.get_num_threads(),
        limit_s=limit_s,
    )


def teach(
    network: VoiceWhisper, task: ListenTask, folder: Path, schedule: loop.Schedule, *, report: loop.Report
) -> PieceBank | None:
    """Teach the network's listener, or go on in `folder`.

    The task's bank with its statistics before those of the layers; None when the time was up first.
    """
    moments = task.moments
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(task.seed)
        learner = Learner(network, moments.parts[0].shape[2])
    taught = loop.train(learner, task, schedule, folder, report=report)
    if not taught.finished:
        return None
    averaged = taught.network
    assert isinstance(averaged, Learner)
    network.listener.load_state_dict(averaged.listener.state_dict())
    _take_measure(network.listener.enter, *moments.measure)
    return listened(task.bank, averaged.listener, moments)


@torch.no_grad()
def _take_measure(enter: nn.Linear, mean: NDArray[np.float32], deviation: NDArray[np.float32]) -> None:
    """What it learnt of moments in the measure of speech, for moments as the layers have them."""
    enter.weight.div_(torch.from_numpy(deviation))
    enter.bias.sub_(enter.weight @ torch.from_numpy(mean))


def listened(bank: PieceBank, listener: Listener, moments: Moments) -> PieceBank:
    """The bank with a listener's statistics before those of the layers; zero where a piece does not count."""
    width = 2 * listener.enter.out_features
    statistics = np.zeros((len(bank.owner), width + bank.statistics.shape[1]), np.float16)
    statistics[:, width:] = bank.statistics
    for at in range(0, len(moments.piece), _AT_ONCE):
        rows = np.arange(at, min(at + _AT_ONCE, len(moments.piece)))
        given, share = moments.of(rows)
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
            heard = listener(given).float()
        statistics[moments.piece[rows], :width] = over_time((heard,), share).numpy()
    return replace(bank, statistics=statistics)
