"""Turns recordings into batches of pieces to learn from: augmented, replayed from cold, a few of each drawn.

Pieces overlap by half and a network costs the same for each, so a few of every recording in every epoch
teach as much as all of them at half the cost. Some recordings are heard after another of the same speaker,
because live a speaker is mostly known already.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from liveaffect.engines.recipe import LABELS, SpeakerStatistics
from liveaffect.engines.training.augment_sound import Strength, heard_elsewhere, masked
from liveaffect.engines.training.corpora_voices import Take
from liveaffect.engines.training.listen import SPEECH
from liveaffect.engines.training.replay_statistics import Picture, Pieces, Replay

NO_LABEL = -1


@dataclass(frozen=True, slots=True, eq=False)
class Recording:
    """A take whose log spectrum is known; without a take it is a sound that is no speech."""

    take: Take | None
    picture: Picture
    speech: NDArray[np.bool_]
    samples: NDArray[np.floating]

    @property
    def label(self) -> int:
        """Its place among the labels."""
        return NO_LABEL if self.take is None else LABELS.index(self.take.label)


@dataclass(frozen=True, slots=True, eq=False)
class VoiceBatch:
    """Pieces of several recordings, and which belongs to which."""

    power: Tensor
    mean: Tensor
    istd: Tensor
    speech: Tensor
    """(pieces,): how much of each is speech."""
    owner: Tensor
    """(pieces,): the recording each belongs to."""
    counts: Tensor
    """(pieces,): whether it is evidence; the others only teach what is no speech."""
    labels: Tensor
    """(recordings,), NO_LABEL for sounds that are no speech."""
    possible: Tensor | None = None
    """(recordings, 7): which labels the recording's corpus has; None: all."""

    def to(self, device: str) -> VoiceBatch:
        """The same on another device."""
        names = [field.name for field in fields(self) if getattr(self, field.name) is not None]
        moved = {name: getattr(self, name).to(device, non_blocking=True) for name in names}
        return VoiceBatch(**moved)


@dataclass(frozen=True, slots=True)
class Drawing:
    """How much of a recording goes into a batch."""

    pieces: int = 2
    """Pieces of speech of one recording, at most."""
    silent: float = 0.3
    """Share of recordings that bring a piece without speech along."""
    windows: tuple[int, ...] = (5, 10, 20, 20)
    """Pieces in a row to draw them from: one, two and four seconds of evidence."""
    warm: float = 0.3
    """Share of recordings that are heard after another one of the same speaker."""
    noises: float = 0.08
    """Sounds that are no speech, as a share of the recordings."""


def recorded(
    takes: Sequence[Take], sounds: Sequence[NDArray[np.floating]], replay: Replay
) -> list[Recording]:
    """Log spectra of takes."""
    pictures = [replay.picture(sound) for sound in sounds]
    return [
        Recording(take, picture, replay.speech_frames(picture), sound)
        for take, picture, sound in zip(takes, pictures, sounds, strict=True)
    ]


def unspoken(sounds: Sequence[NDArray[np.floating]], replay: Replay) -> list[Recording]:
    """Log spectra of sounds that are no speech."""
    pictures = [replay.picture(sound) for sound in sounds]
    return [
        Recording(None, picture, np.zeros(picture.shape[1], np.bool_), sound)
        for picture, sound in zip(pictures, sounds, strict=True)
    ]


class Batches:
    """Draws from recordings. What comes depends on nothing but the generator handed in."""

    def __init__(
        self,
        recordings: Sequence[Recording],
        noises: Sequence[Recording],
        replay: Replay,
        strength: Strength,
        drawing: Drawing | None = None,
    ) -> None:
        self.recordings = recordings
        self._noises = noises
        self._pictures = [noise.picture for noise in noises]
        self._replay = replay
        self._strength = strength
        self._drawing = drawing or Drawing()
        self._of_speaker: dict[str, list[int]] = {}
        for index, recording in enumerate(recordings):
            if recording.take is not None:
                self._of_speaker.setdefault(recording.take.speaker, []).append(index)

    def steps(self, size: int) -> int:
        """Batches that `order` gives."""
        return -(-len(self.recordings) // (size - self._noises_in(size)))

    def _noises_in(self, size: int) -> int:
        return round(self._drawing.noises * size) if self._noises else 0

    def order(self, rng: np.random.Generator, size: int) -> list[list[int]]:
        """Every recording once, in batches; numbers from the end of the list on are sounds without speech.

        Corpora are as often as their square root of size, so that a large one does not drown a small one.
        """
        corpora = [recording.take.corpus for recording in self.recordings if recording.take is not None]
        sizes = {corpus: corpora.count(corpus) for corpus in dict.fromkeys(corpora)}
        chance = np.array([sizes[corpus] ** -0.5 for corpus in corpora])
        if len(sizes) == 1:
            drawn = rng.permutation(len(corpora))
        else:
            drawn = rng.choice(len(corpora), len(corpora), p=chance / chance.sum())
        extra = self._noises_in(size)
        step = size - extra
        total = len(self.recordings)
        return [
            [
                *map(int, drawn[i : i + step]),
                *map(int, total + rng.integers(0, max(len(self._noises), 1), extra)),
            ]
            for i in range(0, len(drawn), step)
        ]

    def make(self, indices: Sequence[int], rng: np.random.Generator) -> VoiceBatch:
        """Augment, replay, and draw pieces of these recordings."""
        total = len(self.recordings)
        chosen = [self.recordings[i] if i < total else self._noises[i - total] for i in indices]
        drawn = [self._pieces(recording, rng) for recording in chosen]
        power, mean, istd, speech = (
            np.concatenate([getattr(pieces, name) for pieces in drawn])
            for name in ("power", "mean", "istd", "speech")
        )
        masked(power, mean, rng)
        owner = np.repeat(np.arange(len(drawn)), [len(pieces.power) for pieces in drawn])
        labels = np.array([recording.label for recording in chosen])
        counts = (speech >= SPEECH) & (labels[owner] != NO_LABEL)
        return VoiceBatch(*(torch.from_numpy(x) for x in (power, mean, istd, speech, owner, counts, labels)))

    def _pieces(self, recording: Recording, rng: np.random.Generator) -> Pieces:
        statistics = SpeakerStatistics.cold()
        room = int(rng.integers(2**31))
        if recording.take is not None and rng.random() < self._drawing.warm:
            earlier = self.recordings[rng.choice(self._of_speaker[recording.take.speaker])]
            self._replayed(earlier, room, statistics)
        pieces = self._replayed(recording, room, statistics)
        spoken = np.flatnonzero(pieces.speech >= SPEECH)
        silent = np.flatnonzero(pieces.speech < SPEECH)
        if len(spoken):
            long = int(rng.choice(self._drawing.windows))
            start = int(rng.integers(0, max(1, len(spoken) - long + 1)))
            spoken = spoken[start : start + long]
        most = self._drawing.pieces
        quiet = int(rng.random() < self._drawing.silent) if len(spoken) else most
        keep = [
            *rng.choice(spoken, min(len(spoken), most), replace=False),
            *rng.choice(silent, min(len(silent), quiet), replace=False),
        ]
        at = np.sort(np.array(keep, int))
        return Pieces(pieces.power[at], pieces.mean[at], pieces.istd[at], pieces.speech[at])

    def _replayed(self, recording: Recording, room: int, statistics: SpeakerStatistics) -> Pieces:
        """Heard in a room that is the same for the same number, in statistics that go on from here."""
        picture, speech = heard_elsewhere(
            recording.picture, recording.speech, self._pictures, np.random.default_rng(room), self._strength
        )
        if (missing := self._replay.preset.frames - picture.shape[1]) > 0:
            # A quicker pace made it shorter than a piece.
            picture = np.pad(picture, ((0, 0), (0, missing)), mode="edge")
            speech = np.pad(speech, (0, missing))
        return self._replay.run(picture, self._replay.speech(speech), statistics)
