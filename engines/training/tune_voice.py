"""Teaches the small voice network what Whisper's first layers say, and then what emotions sound like.

The first uses no label, so nothing is learnt there of emotions; the speakers that figures are measured on are
left out all the same. Then labelled recordings are few and their speakers fewer, so labels alone would be
learnt by heart. Every batch therefore asks three things of the same pieces: what Whisper's layers say moment
by moment, what the full voice thinks and, where there is one, what the label is, with the speaker's
statistics known to some degree.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from liveaffect.engines.model.blocks import deploy
from liveaffect.engines.model.frontend import heard_share
from liveaffect.engines.model.voice_statistics import FOREIGN, VoiceStudent, VoiceWhisper
from liveaffect.engines.recipe import Statistics
from liveaffect.engines.training import synthetic_sounds
from liveaffect.engines.training.piece_bank import Sound
from liveaffect.engines.training.scores import unweighted_recall
from liveaffect.engines.training.synthetic_sounds import heard
from liveaffect.engines.training.voice_heads import FAR, among_possible, even_chances, labels_of_corpora

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
ANYTHING, LABELLED = 8, 24
"""Pieces of a batch: of everything that sounds, and of labelled recordings."""
ELSEWHERE = 0.7
"""Share of labelled pieces that are heard in another room."""
COLD = 0.4
"""Share of labelled pieces whose speaker nobody has heard yet."""
MOST_KNOWN = 100
"""Pieces that a speaker is known by at most."""
SMOOTHING = 0.05
_NEW_SPEAKER, _NEW_PRIOR = 0.1, 0.01
"""How much one piece, or one batch, moves what is known of a speaker, or of all."""
_FIRST = 40
"""Batches that the first statistics are of."""


@dataclass(frozen=True, slots=True, eq=False)
class Sounds:
    """Everything that sounds: to learn from, and of speakers that nothing is learnt from."""

    train: Sequence[Samples]
    watched: Sequence[Samples]

    @classmethod
    def of(cls, train: Sequence[Samples], watched: Sequence[Samples], *, smoke: bool = False) -> Sounds:
        """Recordings of people, and beside those to learn from made voices and made noises."""
        made = [] if smoke else list(synthetic_sounds.made(SPOKEN, seed=1))
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
                layers = tuple(one.float() for one in self._network.layers(log_mel))
        self._last = layers
        return log_mel, torch.cat(layers, dim=2)

    def opinion(self, log_mel: Tensor) -> Tensor:
        """(n, 7): what the full network thinks of the pieces that were asked about last, from cold."""
        network = self._network
        with torch.no_grad(), torch.autocast("cpu", enabled=False):
            features = network.heard(self._last)
            logits: Tensor = network.head(network.statistics(log_mel, features))[2]
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


@dataclass(frozen=True, slots=True, eq=False)
class TunedPieces:
    """Pieces of sound; the last of them with labels."""

    samples: Tensor
    label: Tensor
    possible: Tensor
    """(labelled, 7): the labels that the recording's corpus has."""
    speaker: Tensor
    known: Tensor
    """(labelled,): by how many pieces the speaker is known."""


class Labelled:
    """Recordings with labels, drawn by corpus and label evenly."""

    def __init__(self, recordings: Sequence[Sound]) -> None:
        takes = [one.take for one in recordings if one.take is not None]
        self.sounds = [one.samples for one in recordings]
        self.label = np.array([one.label for one in recordings])
        corpus = np.array([take.corpus for take in takes])
        self.corpus = corpus
        names = sorted({take.speaker for take in takes})
        self.speaker = np.array([names.index(take.speaker) for take in takes])
        self.speakers = len(names)
        self.chance = even_chances(corpus, self.label)
        self.possible = labels_of_corpora(corpus, self.label)


class SpeakerMemory:
    """What the speakers' statistics have been of late: the network changes, and they with it."""

    def __init__(self, speakers: int, width: int) -> None:
        self.mean, self.square = torch.zeros(width), torch.ones(width)
        self.of_speaker, self.square_of = torch.zeros(speakers, width), torch.ones(speakers, width)

    def begin(self, raw: Tensor, speaker: Tensor) -> None:
        """Take over the statistics of many pieces."""
        self.mean, self.square = raw.mean(0), (raw**2).mean(0)
        z = self.scaled(raw)
        for one in torch.unique(speaker):
            self.of_speaker[one] = z[speaker == one].mean(0)
            self.square_of[one] = (z[speaker == one] ** 2).mean(0)

    def scaled(self, raw: Tensor) -> Tensor:
        """In the measure of all."""
        return (raw - self.mean) / (self.square - self.mean**2).clamp(min=1e-6).sqrt()

    def normalised(self, raw: Tensor, speaker: Tensor, known: Tensor) -> Tensor:
        """In the measure of a speaker who is known by so many pieces, as running statistics would have it."""
        live = Statistics(1, "pieces")
        share = (known / (known + live.prior_weight))[:, None]
        mean = share * self.of_speaker[speaker]
        variance = share * self.square_of[speaker] + (1 - share) - mean**2
        return (self.scaled(raw) - mean) / variance.clamp(min=live.least_variance).sqrt()

    @torch.no_grad()
    def heed(self, raw: Tensor, speaker: Tensor) -> None:
        """Remember one batch."""
        self.mean.lerp_(raw.mean(0), _NEW_PRIOR)
        self.square.lerp_((raw**2).mean(0), _NEW_PRIOR)
        z = self.scaled(raw)
        for row, one in zip(z, speaker, strict=True):
            self.of_speaker[one].lerp_(row, _NEW_SPEAKER)
            self.square_of[one].lerp_(row**2, _NEW_SPEAKER)


def chance_known(rng: np.random.Generator, count: int) -> Tensor:
    """(count,): by how many pieces speakers are known, some of them by none."""
    known = np.exp(rng.uniform(0.0, math.log(MOST_KNOWN), count)) * (rng.random(count) >= COLD)
    return torch.from_numpy(known.astype(np.float32))


class TuneTask:
    """For `loop.train`: a `Pupil` that learned to hear now learns to judge."""

    def __init__(
        self,
        distil: DistilTask,
        train: Labelled,
        watched: Labelled,
        name: str,
    ) -> None:
        self._distil, self._train = distil, train
        self._memory: SpeakerMemory | None = None
        rng = np.random.default_rng(1)
        self._watched = watched
        self._pieces = torch.stack([distil.cut(one, rng) for one in watched.sounds])
        self.name, self.steps = name, distil.steps
        # A short batch of the distilling is a short one here.
        self._anything = min(ANYTHING, distil.batch)
        self._labelled = LABELLED * self._anything // ANYTHING

    def batches(self, epoch: int, rng: np.random.Generator) -> Iterator[TunedPieces]:
        """Pieces that were never heard like this before."""
        anything = self._distil.batches(epoch, rng)
        for _ in range(self.steps):
            yield self._batch(next(anything)[: self._anything], rng)

    def loss(self, network: nn.Module, batch: TunedPieces) -> Tensor:
        """Features, opinion and label together."""
        assert isinstance(network, Pupil)
        student, labelled = network.student, len(batch.label)
        if self._memory is None:
            self._memory = self._first_memory(student)
        log_mel, wanted = self._distil.teacher.said(batch.samples)
        features = student.trunk(log_mel)
        hearing = self._distil.compared(network.tell(features).float(), wanted, log_mel)
        raw = student.raw_statistics(log_mel, (features.float(),))
        cold = student.head(self._memory.scaled(raw))[2].float()
        opinion = self._distil.teacher.opinion(log_mel)
        agreed = functional.kl_div(cold.log_softmax(1), opinion.softmax(1), reduction="batchmean")
        told = raw[-labelled:]
        given = self._memory.normalised(told, batch.speaker, batch.known)
        right = among_possible(student.head(given)[2].float(), batch.label, batch.possible, SMOOTHING)
        self._memory.heed(told.detach(), batch.speaker)
        loss: Tensor = hearing + agreed + right
        return loss

    def figures(self, network: nn.Module) -> Mapping[str, float]:
        """Single pieces of people nothing is learnt from, cold: unweighted recall by corpus."""
        assert isinstance(network, Pupil)
        found = dict(self._distil.figures(network))
        assert self._memory is not None
        said = []
        for at in range(0, len(self._pieces), 128):
            log_mel = network.student.front(self._pieces[at : at + 128])
            raw = network.student.raw_statistics(log_mel, (network.student.trunk(log_mel),))
            said.append(network.student.head(self._memory.scaled(raw))[2])
        logits = torch.cat(said).masked_fill(~torch.from_numpy(self._watched.possible), FAR)
        called = logits.argmax(1).numpy()
        for corpus in sorted(set(self._watched.corpus.tolist())):
            rows = self._watched.corpus == corpus
            among = np.unique(self._watched.label[rows])
            truth, call = (np.searchsorted(among, x[rows]) for x in (self._watched.label, called))
            found[str(corpus)] = unweighted_recall(truth, call, len(among))
        return found

    def _batch(
        self, anything: Tensor, rng: np.random.Generator, *, elsewhere: float = ELSEWHERE
    ) -> TunedPieces:
        train = self._train
        rows = rng.choice(len(train.label), self._labelled, p=train.chance)
        pieces = []
        for row in rows:
            sound = train.sounds[row]
            if rng.random() < elsewhere:
                sound = heard(sound.astype(np.float32), rng)
            pieces.append(self._distil.cut(sound, rng))
        return TunedPieces(
            torch.cat([anything, torch.stack(pieces)]),
            torch.from_numpy(train.label[rows]),
            torch.from_numpy(train.possible[rows]),
            torch.from_numpy(train.speaker[rows]),
            chance_known(rng, len(rows)),
        )

    @torch.no_grad()
    def _first_memory(self, student: VoiceStudent) -> SpeakerMemory:
        rng = np.random.default_rng(2)
        memory = SpeakerMemory(self._train.speakers, student.width)
        raw, speakers = [], []
        nothing = torch.zeros(0, student.sound.piece)
        for _ in range(min(_FIRST, 4 * self.steps)):
            batch = self._batch(nothing, rng)
            log_mel = student.front(batch.samples)
            raw.append(student.raw_statistics(log_mel, (student.trunk(log_mel).float(),)))
            speakers.append(batch.speaker)
        memory.begin(torch.cat(raw), torch.cat(speakers))
        return memory


def with_head(network: VoiceWhisper, file: Path) -> VoiceWhisper:
    """The full network with everything behind Whisper's layers as it is shipped, by the names in its file."""
    shipped = onnx.load(str(file), load_external_data=False)
    found = {
        one.name: torch.from_numpy(onnx.numpy_helper.to_array(one).copy())
        for one in shipped.graph.initializer
        if one.data_location != onnx.TensorProto.EXTERNAL
    }
    whole = deploy(network)
    ours = {name: found[name] for name in whole.state_dict() if not name.startswith(FOREIGN)}
    whole.load_state_dict(whole.state_dict() | ours)
    return whole
