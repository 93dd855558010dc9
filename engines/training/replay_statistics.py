"""What the voice network is given for each piece of a recording, worked out as it happens live.

The log spectrum of a recording is computed once, by the network's own front end. Pieces are cut from it on
the live grid, and one and the same `SpeakerStatistics` runs over them from cold: a piece is normalised with
what was heard before it, never with itself or with what comes later.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray
from torch import Tensor

from liveaffect.engines.model.frontend import SoundFront, SoundPreset
from liveaffect.engines.recipe import MEL_BANDS, STFT_FRAMES, STFT_STEP, SpeakerStatistics

Picture = NDArray[np.float32]
"""(bands, frames): natural logarithm of band power of a whole recording."""
SPEECH_DEPTH = 6.9
"""A frame this many nats (30 dB) below the loud ones of its recording is no speech."""
_GAP = 4


class ReadyFront(SoundFront):
    """The front end for pieces whose log spectrum was computed before: all but the spectrum itself."""

    def log_power(self, samples: Tensor) -> Tensor:
        return samples


@dataclass(frozen=True, slots=True, eq=False)
class Pieces:
    """The inputs of one recording's pieces, in their order."""

    power: Picture
    """(n, bands, frames)."""
    mean: NDArray[np.float32]
    """(n, 64), as the network takes it."""
    istd: NDArray[np.float32]
    speech: NDArray[np.float32]
    """(n,): how much of each piece is speech, 0..1."""


class Replay:
    """Cuts and normalises recordings for one network's front end."""

    def __init__(self, preset: SoundPreset) -> None:
        if preset.hop % preset.step:
            raise ValueError(f"a hop of {preset.hop} samples is no whole number of steps of {preset.step}")
        self.preset = preset
        self.every = preset.hop // preset.step
        """Frames between the starts of two pieces."""
        self.lead = preset.lead // preset.step
        """Frames of silence that a picture begins with, so that its first piece is a whole one."""
        self.newest = preset.newest or preset.frames
        """Frames of a piece that were in none before, at its end."""
        self._front = SoundFront(preset)
        share = self._front.share[:, :, 0].numpy()
        self._share: Picture | None = share if preset.bands != MEL_BANDS else None

    def picture(self, samples: NDArray[np.floating]) -> Picture:
        """The log spectrum of a whole recording; one shorter than a piece is filled up with silence."""
        sound = torch.from_numpy(self._whole(samples))
        with torch.inference_mode():
            found: Picture = self._front.log_power(sound[None])[0].numpy()
        return found

    def count(self, frames: int) -> int:
        """How many pieces of the live grid are complete in so many frames."""
        return 1 + (frames - self.preset.frames) // self.every

    def cut(self, picture: Picture) -> Picture:
        """(n, bands, frames): the pieces of a recording."""
        starts = np.arange(self.count(picture.shape[1])) * self.every
        return np.stack([picture[:, start : start + self.preset.frames] for start in starts])

    def samples(self, sound: NDArray[np.floating]) -> NDArray[np.float32]:
        """(n, piece): the same pieces as samples, for a network with its whole front end."""
        return sliding_window_view(self._whole(sound), self.preset.piece)[:: self.preset.hop].copy()

    def _whole(self, sound: NDArray[np.floating]) -> NDArray[np.float32]:
        """With the silence before it, and as much behind it as its first piece needs."""
        lead = self.preset.lead
        return np.pad(np.asarray(sound, np.float32), (lead, max(0, self.preset.piece - lead - len(sound))))

    def run(
        self,
        picture: Picture,
        speech: NDArray[np.floating],
        statistics: SpeakerStatistics | None = None,
    ) -> Pieces:
        """Replay a recording in a speaker's statistics, which go on from there; without any, from cold."""
        running = SpeakerStatistics.cold() if statistics is None else statistics
        power = self.cut(picture)
        sums, squares = self.sums(power)
        means, istds = np.empty((2, len(power), MEL_BANDS), np.float32)
        for i, share in enumerate(speech):
            means[i], istds[i] = running.normaliser()
            running.add(sums[i], squares[i], speech=float(share), new=self.preset.hop / STFT_STEP)
        return Pieces(power, means, istds, np.asarray(speech, np.float32))

    def sums(self, power: Picture) -> tuple[Picture, Picture]:
        """(n, 64) each: what the network reports of its pieces for the speaker's statistics."""
        power = power[:, :, -self.newest :]
        shared = power if self._share is None else np.einsum("mb,nbf->nmf", self._share, power)
        return shared.mean(2) * STFT_FRAMES, np.square(shared).mean(2) * STFT_FRAMES

    def speech(self, frames: NDArray[np.bool_]) -> NDArray[np.float32]:
        """(n,): which share of what is new in each piece is speech, from which frames are."""
        ends = np.arange(self.count(len(frames))) * self.every + self.preset.frames
        return np.array([frames[end - self.newest : end].mean() for end in ends], np.float32)

    def speech_frames(self, picture: Picture) -> NDArray[np.bool_]:
        """(frames,): which frames of a clean recording hold speech; none of the silence before it."""
        return np.pad(speech_frames(picture[:, self.lead :]), (self.lead, 0))


def speech_frames(picture: Picture) -> NDArray[np.bool_]:
    """(frames,): which frames of a clean recording of one speaker hold speech, by their loudness."""
    level = np.log(np.exp(picture).sum(0))
    heard = np.zeros(len(level), np.bool_)
    heard[level > np.percentile(level, 95) - SPEECH_DEPTH] = True
    # Gaps of a tenth of a second belong to speech: stops and breaths between two sounds.
    across = 2 * _GAP + 1
    wide = np.logical_or.reduce(sliding_window_view(np.pad(heard, _GAP), across), axis=1)
    closed: NDArray[np.bool_] = np.logical_and.reduce(
        sliding_window_view(np.pad(wide, _GAP, mode="edge"), across), axis=1
    )
    return closed
