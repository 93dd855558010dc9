"""Turns recordings into batches of wide pieces: any stretch of a recording, heard in another room each time.

A wide piece holds its own past, so what the live path would know of a speaker by then can be worked out from
the piece itself. That makes every stretch of every recording a lesson, not only those on the live grid, and
lets a whole batch be cut, warped and normalised at once.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from liveaffect.engines.recipe import (
    LABELS,
    LOG_FLOOR,
    MEL_BANDS,
    PRIOR_MEAN,
    PRIOR_VARIANCE,
    SpeakerStatistics,
)
from liveaffect.engines.training import rooms
from liveaffect.engines.training.listen import SPEECH
from liveaffect.engines.training.replay_statistics import Replay
from liveaffect.engines.training.voice_batches import NO_LABEL, Recording, VoiceBatch

SILENT = float(np.log(LOG_FLOOR))
_PRIOR = SpeakerStatistics.cold().weight
_PAUSE = 8
"""Frames left before the first sound of a recording when another one is put in front of it."""


@dataclass(frozen=True, slots=True)
class Windows:
    """How pieces are drawn."""

    each: int = 2
    """Pieces of one recording in a batch."""
    least: int = 40
    """Frames behind the first sound before which no piece ends: less says nothing."""
    late: float = 0.5
    """Share that ends where the recording does: its last words are in it."""
    stray: float = 0.12
    """Share that ends anywhere, in silence too."""
    joined: float = 0.2
    """Share that has another recording of the same speaker and label in its past."""
    warm: float = 0.3
    """Share whose speaker was heard before."""
    noises: float = 0.08
    """Sounds that are no speech, as a share of the recordings."""
    pace: float = 0.10
    room: rooms.Rooms = field(default_factory=rooms.Rooms)
    masked: float = 0.5
    """Share with a stripe of bands and one of time taken away."""


@dataclass(frozen=True, slots=True, eq=False)
class _Known:
    """All recordings one behind the other, without the silence before them."""

    frames: Tensor
    """(all frames, bands)."""
    speech: Tensor
    start: NDArray[np.int64]
    length: NDArray[np.int64]
    first: NDArray[np.int64]
    """The first frame of speech of each, and the one behind the last."""
    last: NDArray[np.int64]
    mean: Tensor
    """(recordings, bands): of its speech."""
    square: Tensor


class WideBatches:
    """Draws from recordings. What comes depends on nothing but the generator handed in."""

    def __init__(
        self,
        recordings: Sequence[Recording],
        noises: Sequence[Recording],
        replay: Replay,
        windows: Windows | None = None,
    ) -> None:
        self.recordings = recordings
        self._windows = windows or Windows()
        self._replay = replay
        everything = [*recordings, *noises]
        self._known = _known(everything, replay)
        self._labels = np.array([one.label for one in everything])
        self._noises = len(noises)
        takes = [one.take for one in recordings if one.take is not None]
        corpora = [take.corpus for take in takes]
        have = {(take.corpus, take.label) for take in takes}
        possible = [[(corpus, label) in have for label in LABELS] for corpus in corpora]
        self._possible = torch.tensor(possible + [[True] * len(LABELS)] * len(noises))
        self._chance = _draw_chances(corpora, [take.label for take in takes])
        self._of_speaker = _indices_by_name([take.speaker for take in takes])
        self._alike = _indices_by_name([f"{take.speaker} {take.label}" for take in takes])
        self._speaker = [take.speaker for take in takes]
        self._kind = [f"{take.speaker} {take.label}" for take in takes]
        self._grain = rooms.grain(np.random.default_rng(7))

    def steps(self, size: int) -> int:
        """Batches that `order` gives: as many pieces as there are recordings."""
        return -(-len(self.recordings) // self._of_batch(size)[0])

    def _of_batch(self, size: int) -> tuple[int, int]:
        noises = round(self._windows.noises * size) if self._noises else 0
        return (size - noises) // self._windows.each, noises

    def order(self, rng: np.random.Generator, size: int) -> list[list[int]]:
        """Recordings for `steps` batches of `size` pieces; rare labels and small corpora come more often."""
        total, (spoken, noises) = len(self.recordings), self._of_batch(size)
        return [
            [
                *map(int, rng.choice(total, spoken, p=self._chance)),
                *map(int, total + rng.integers(0, max(self._noises, 1), noises)),
            ]
            for _ in range(self.steps(size))
        ]

    def make(self, indices: Sequence[int], rng: np.random.Generator) -> VoiceBatch:
        """Cut pieces of these recordings, each in a room of its own, in the statistics it would have live."""
        chosen, windows = np.array(indices), self._windows
        spoken = chosen < len(self.recordings)
        owner = np.repeat(np.arange(len(chosen)), np.where(spoken, windows.each, 1))
        picture, speech = self._cut(chosen[owner], spoken[owner], rng)
        room = rooms.drawn(len(owner), windows.room, rng)
        power = rooms.heard_in_rooms(picture, speech, room, self._grain, rng)
        mean, istd = self._statistics(chosen[owner], power, speech, room, rng)
        _mask(power, mean, rng.random(len(owner)) < windows.masked, rng)
        newest = speech[:, -self._replay.newest :].float().mean(1)
        labels = torch.from_numpy(self._labels[chosen])
        counts = (newest >= SPEECH) & (labels[owner] != NO_LABEL)
        return VoiceBatch(
            power, mean, istd, newest, torch.from_numpy(owner), counts, labels, self._possible[chosen]
        )

    def _cut(
        self, at: NDArray[np.int64], spoken: NDArray[np.bool_], rng: np.random.Generator
    ) -> tuple[Tensor, Tensor]:
        """(n, bands, frames) and (n, frames): stretches at some pace, and which frames are speech."""
        known, windows, count = self._known, self._windows, len(at)
        first, last, length = known.first[at], known.last[at], known.length[at]
        low = np.minimum(first + windows.least, last)
        high = np.minimum(last + self._replay.newest // 2, length)
        end = low + rng.random(count) * (high - low)
        late = rng.random(count) < windows.late
        end = np.where(late, np.maximum(low, high - rng.random(count) * self._replay.newest), end)
        stray = (rng.random(count) < windows.stray) | ~spoken
        end = np.where(stray, self._replay.newest / 2 + rng.random(count) * (length - 16.0), end)
        pace = 1 + windows.pace * rng.uniform(-1, 1, count)
        back = np.arange(self._replay.preset.frames)[::-1]
        place = np.minimum(end - 1, length - 1)[:, None] - back * pace[:, None]
        below = np.floor(place).astype(np.int64)
        index = np.clip(below, 0, length[:, None] - 1) + known.start[at][:, None]
        there = below >= 0
        for row in np.flatnonzero(spoken & (rng.random(count) < windows.joined)):
            other = int(rng.choice(self._alike[self._kind[at[row]]]))
            behind = below[row] - (first[row] - _PAUSE)
            past = behind + known.last[other] + _PAUSE // 2
            mine = (behind < 0) & (past >= 0)
            index[row, mine] = known.start[other] + np.minimum(past[mine], known.length[other] - 1)
            there[row] = (behind >= 0) | (past >= 0)
        places, is_there = torch.from_numpy(index), torch.from_numpy(there)
        share = torch.from_numpy((place - below).astype(np.float32))[..., None]
        flat = places.reshape(-1)
        after = (flat + 1).clamp(max=len(known.frames) - 1)
        shape = (count, len(back), MEL_BANDS)
        one, two = known.frames[flat].reshape(shape), known.frames[after].reshape(shape)
        picture = torch.where(is_there[..., None], torch.lerp(one, two, share), SILENT)
        speech = known.speech[flat].reshape(shape[:2]) & is_there
        return picture.transpose(1, 2), speech

    def _statistics(
        self,
        at: NDArray[np.int64],
        power: Tensor,
        speech: Tensor,
        room: rooms.Drawn,
        rng: np.random.Generator,
    ) -> tuple[Tensor, Tensor]:
        """What is known of the speaker from the piece's past, or from another recording as well."""
        count, new = len(at), self._replay.newest
        weight = torch.full((count, 1), _PRIOR)
        prior_mean = torch.tensor(PRIOR_MEAN, dtype=torch.float32)
        prior_square = torch.tensor(PRIOR_VARIANCE, dtype=torch.float32) + prior_mean**2
        total, total_sq = (weight * part for part in (prior_mean, prior_square))
        for row in np.flatnonzero((at < len(self.recordings)) & (rng.random(count) < self._windows.warm)):
            other = int(rng.choice(self._of_speaker[self._speaker[at[row]]]))
            frames = float(self._known.last[other] - self._known.first[other])
            warp = room.warp[row]
            mean = warp @ self._known.mean[other]
            variance = warp @ (self._known.square[other] - self._known.mean[other] ** 2)
            mean = (mean + room.gain[row]).clamp(min=SILENT)
            weight[row] += frames
            total[row] += frames * mean
            total_sq[row] += frames * (variance + mean**2)
        # As live: each earlier part counts by how much of it is speech.
        rest = power.shape[2] % new
        parts = power[:, :, rest:-new].reshape(count, MEL_BANDS, -1, new)
        part_weight = speech[:, rest:-new].float().reshape(count, 1, -1, new).sum(3)
        weight = weight + part_weight.sum(2)
        total = total + (parts.mean(3) * part_weight).sum(2)
        total_sq = total_sq + ((parts * parts).mean(3) * part_weight).sum(2)
        mean = total / weight
        return mean, (total_sq / weight - mean**2).clamp(min=0.25).rsqrt()


def _known(recordings: Sequence[Recording], replay: Replay) -> _Known:
    pictures = [one.picture[:, replay.lead :].T for one in recordings]
    speech = [one.speech[replay.lead :] for one in recordings]
    length = np.array([len(one) for one in speech])
    spoken = [one if one.any() else np.ones_like(one) for one in speech]
    means = [picture[heard].mean(0) for picture, heard in zip(pictures, spoken, strict=True)]
    squares = [np.square(picture[heard]).mean(0) for picture, heard in zip(pictures, spoken, strict=True)]
    return _Known(
        frames=torch.from_numpy(np.concatenate(pictures)),
        speech=torch.from_numpy(np.concatenate(speech)),
        start=np.cumsum(length) - length,
        length=length,
        first=np.array([int(one.argmax()) for one in spoken]),
        last=np.array([len(one) - int(one[::-1].argmax()) for one in spoken]),
        mean=torch.from_numpy(np.stack(means)),
        square=torch.from_numpy(np.stack(squares)),
    )


def _draw_chances(corpora: Sequence[str], labels: Sequence[str]) -> NDArray[np.float64]:
    """One over the root of how large its corpus is and how often its label comes there."""
    cells = list(zip(corpora, labels, strict=True))
    of_corpus, of_cell = Counter(corpora), Counter(cells)
    chance = np.array([(of_corpus[cell[0]] * of_cell[cell]) ** -0.5 for cell in cells])
    return np.asarray(chance / chance.sum())


def _indices_by_name(names: Sequence[str]) -> dict[str, list[int]]:
    found: dict[str, list[int]] = {}
    for index, name in enumerate(names):
        found.setdefault(name, []).append(index)
    return found


def _mask(power: Tensor, mean: Tensor, chosen: NDArray[np.bool_], rng: np.random.Generator) -> None:
    """In place: a stripe of bands becomes the speaker's mean, a stripe of time silence."""
    bands, frames = power.shape[1:]
    for row in np.flatnonzero(chosen):
        wide, long = int(rng.integers(0, bands // 6)), int(rng.integers(0, frames // 6))
        low, start = int(rng.integers(0, bands - wide)), int(rng.integers(0, frames - long))
        power[row, low : low + wide] = mean[row, low : low + wide, None]
        power[row, :, start : start + long] = SILENT
