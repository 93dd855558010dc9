"""Teaches the small voice network what Whisper's first layers say, moment by moment and over time.

No label is used and so nothing is learnt of what emotions sound like: that comes later. The speakers that
figures are measured on are left out all the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from liveaffect.engines.model.frontend import heard_share
from liveaffect.engines.model.voice_statistics import VoiceStudent, VoiceWhisper
from liveaffect.engines.training import spoken_sounds, synthetic_sounds
from liveaffect.engines.training.augment_samples import heard

BATCH, STEPS = 16, 100
WATCHED = 96
"""Pieces of speakers that nothing is learnt from, to see how far the student is."""
SPOKEN, NOISES_EACH = 240, 6
MIXED, LEADING = 0.15, 0.3
"""Shares of pieces with a second sound in them, and of those that begin before the voice does."""
OVER_TIME = 3.0
"""How much mean and deviation over time count against single moments."""
_EVERYWHERE = 0.2
"""Weight of moments that are hardly heard."""

Samples = NDArray[np.floating]


@dataclass(frozen=True, slots=True, eq=False)
class Sounds:
    """Everything that sounds: to learn from, and of speakers that nothing is learnt from."""

    train: Sequence[Samples]
    watched: Sequence[Samples]

    @classmethod
    def of(cls, train: Sequence[Samples], watched: Sequence[Samples], *, smoke: bool = False) -> Sounds:
        """Recordings of people, and beside those to learn from made voices and made noises."""
        made = [] if smoke else list(spoken_sounds.made(SPOKEN, seed=1))
        noises = synthetic_sounds.bank(1 if smoke else NOISES_EACH, seed=1)
        return cls([*train, *made, *(one for kind in noises.values() for one in kind)], watched)


class Pupil(nn.Module):
    """The student, and what turns its features into the teacher's while it learns."""

    def __init__(self, student: VoiceStudent, told: int) -> None:
        super().__init__()
        self.student = student
        self.tell = nn.Linear(student.preset.width, told)

    def forward(self, log_mel: Tensor) -> Tensor:
        told: Tensor = self.tell(self.student.trunk(log_mel))
        return told


class Teacher:
    """Whisper's layers, their features in the measure of their own mean and deviation over speech."""

    def __init__(self, network: VoiceWhisper, sample: Tensor) -> None:
        self._network = network.eval()
        self._last: tuple[Tensor, ...] = ()
        features = self._raw(sample)[1]
        self.width = features.shape[2]
        self._mean, self._std = features.mean((0, 1)), features.std((0, 1)) + 1e-3

    def said(self, samples: Tensor) -> tuple[Tensor, Tensor]:
        """Log-mel of the pieces, and (n, moments, width)."""
        log_mel, features = self._raw(samples)
        return log_mel, (features - self._mean) / self._std

    def _raw(self, samples: Tensor) -> tuple[Tensor, Tensor]:
        with torch.no_grad():
            with torch.autocast("cpu", enabled=False):
                log_mel = self._network.front(samples)
            with torch.autocast("cpu", torch.bfloat16):
                features = tuple(one.float() for one in self._network.features(log_mel))
        self._last = features
        return log_mel, torch.cat(features, dim=2)

    def opinion(self, log_mel: Tensor) -> Tensor:
        """(n, 7): what the full network thinks of the pieces that were asked about last, from cold."""
        network = self._network
        with torch.no_grad(), torch.autocast("cpu", enabled=False):
            logits: Tensor = network.head(network.statistics(log_mel, self._last))[2]
        return logits


class DistilTask:
    """For `loop.train`: pieces of anything that sounds."""

    def __init__(
        self, sounds: Sounds, teacher: VoiceWhisper, *, steps: int = STEPS, batch: int = BATCH
    ) -> None:
        self._train, self._piece = sounds.train, teacher.sound.piece
        self._chance = _chances(sounds.train)
        rng = np.random.default_rng(0)
        self._watched = torch.stack([self.cut(one, rng) for one in _some(sounds.watched, rng)])
        self.teacher = Teacher(teacher, self._watched)
        self.told = self.teacher.width
        self.name = f"distil-{teacher.preset.whisper}-{teacher.preset.layers}-{len(sounds.train)}"
        self.steps, self.batch = steps, batch

    def batches(self, epoch: int, rng: np.random.Generator) -> Iterator[Tensor]:
        """Pieces that were never heard like this before."""
        del epoch
        for _ in range(self.steps):
            chosen = rng.choice(len(self._train), self.batch, p=self._chance)
            yield torch.stack([self._elsewhere(self._train[i], rng) for i in chosen])

    def loss(self, network: nn.Module, batch: Tensor) -> Tensor:
        """How far the student is from the teacher in single moments, in their mean and in their deviation."""
        log_mel, wanted = self.teacher.said(batch)
        return self.compared(network(log_mel).float(), wanted, log_mel)

    def compared(self, told: Tensor, wanted: Tensor, log_mel: Tensor) -> Tensor:
        """The same of features that are told already."""
        share = heard_share(log_mel)[:, :, None]
        weight = (1 - _EVERYWHERE) * share + _EVERYWHERE / share.shape[1]
        moments: Tensor = ((told - wanted) ** 2 * weight).sum(1).mean()
        return moments + OVER_TIME * _over_time(told, wanted, share)

    def figures(self, network: nn.Module) -> Mapping[str, float]:
        """The shares of the teacher's variance that the student explains on other speakers."""
        log_mel, wanted = self.teacher.said(self._watched)
        told = network(log_mel).float()
        share = heard_share(log_mel)[:, :, None]
        mean, mean_told = (wanted * share).sum(1), (told * share).sum(1)
        return {
            "moments": float(1 - ((told - wanted) ** 2 * share).sum(1).mean() / _spread(wanted, share)),
            "means": float(1 - ((mean - mean_told) ** 2).mean() / mean.var(0).mean()),
        }

    def _elsewhere(self, samples: Samples, rng: np.random.Generator) -> Tensor:
        sound = samples.astype(np.float32)
        start = int(rng.integers(0, max(1, len(sound) - 2 * self._piece)))
        sound = sound[start : start + 2 * self._piece]
        if rng.random() < MIXED:
            other = self._train[rng.choice(len(self._train), p=self._chance)].astype(np.float32)
            length = min(len(sound), len(other))
            mixed = sound[:length] + other[:length] * np.float32(rng.uniform(0.05, 0.7))
            sound = np.asarray(mixed, np.float32)
        return self.cut(heard(sound, rng), rng)

    def cut(self, samples: Samples, rng: np.random.Generator) -> Tensor:
        """A piece of a sound, some of them beginning in the silence before it."""
        lead = int(rng.uniform(0.0, 0.75) * self._piece) if rng.random() < LEADING else 0
        sound = np.pad(samples.astype(np.float32), (lead, max(0, self._piece - lead - len(samples))))
        start = 0 if lead else int(rng.integers(0, len(sound) - self._piece + 1))
        piece = sound[start : start + self._piece]
        hiss = rng.normal(size=len(piece)) * 10 ** rng.uniform(-5.5, -3.5)
        return torch.from_numpy((piece + hiss).astype(np.float32))


def _over_time(told: Tensor, wanted: Tensor, share: Tensor) -> Tensor:
    mean, mean_told = (wanted * share).sum(1), (told * share).sum(1)
    spread = (((wanted - mean[:, None]) ** 2 * share).sum(1) + 1e-3).sqrt()
    spread_told = (((told - mean_told[:, None]) ** 2 * share).sum(1) + 1e-3).sqrt()
    return ((mean - mean_told) ** 2).mean() + ((spread - spread_told) ** 2).mean()


def _spread(wanted: Tensor, share: Tensor) -> Tensor:
    mean = (wanted * share).sum(1).mean(0)
    return ((wanted - mean) ** 2 * share).sum(1).mean()


def _chances(sounds: Sequence[Samples]) -> NDArray[np.float64]:
    """A sound is drawn as often as it is long."""
    length = np.array([len(sound) for sound in sounds], np.float64)
    return np.asarray(length / length.sum())


def _some(sounds: Sequence[Samples], rng: np.random.Generator) -> list[Samples]:
    return [sounds[i] for i in rng.choice(len(sounds), WATCHED, replace=len(sounds) < WATCHED)]
