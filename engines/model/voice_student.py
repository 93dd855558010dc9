"""A small voice network that is always there: it learns what Whisper's layers say and holds nothing of them.

Convolutions over Whisper's log-mel, depth by depth and then across, see 0.7 s to either side of a moment. It
learns the features of the first layers of Whisper's encoder moment by moment, from everything that speaks; no
label is needed for that, and so a few hours of sound teach what a few thousand labelled clips cannot.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from liveaffect.engines.model.blocks import ConvNorm
from liveaffect.engines.model.voice_statistics import HeadPreset, StatisticsVoice
from liveaffect.engines.model.whisper_front import BANDS, WhisperSound


@dataclass(frozen=True, slots=True)
class StudentPreset:
    """A student as a table."""

    name: str
    sound: WhisperSound
    stem: int
    """Width at 10 ms."""
    width: int
    """Width at 20 ms, of every block and of the features."""
    dilations: tuple[int, ...]
    """One block each."""
    reach: int = 9
    """Moments that a block's depth-wise kernel sees, apart by its dilation."""
    grow: int = 3
    head: HeadPreset = field(default_factory=lambda: HeadPreset(hidden=128))


class StudentBlock(nn.Module):
    """Along time channel by channel, then across channels, added to what was there."""

    def __init__(self, width: int, grow: int, reach: int, dilation: int) -> None:
        super().__init__()
        along = nn.Conv2d(
            width,
            width,
            (1, reach),
            padding=(0, dilation * (reach // 2)),
            dilation=(1, dilation),
            groups=width,
            bias=False,
        )
        self.along = ConvNorm(along, relu=False)
        self.wide = nn.Conv2d(width, grow * width, 1)
        self.narrow = nn.Conv2d(grow * width, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = x + self.narrow(torch.relu(self.wide(self.along(x))))
        return out


class StudentTrunk(nn.Module):
    """(n, 80, frames) of log-mel to (n, moments, width)."""

    def __init__(self, preset: StudentPreset) -> None:
        super().__init__()
        stem, width = preset.stem, preset.width
        self.stem = nn.Sequential(
            ConvNorm(nn.Conv2d(BANDS, stem, (1, 5), padding=(0, 2), bias=False)),
            # As Whisper's second convolution: moment t sees frames 2t - 1 to 2t + 1.
            ConvNorm(nn.Conv2d(stem, width, (1, 3), (1, 2), padding=(0, 1), bias=False)),
        )
        self.blocks = nn.Sequential(
            *(StudentBlock(width, preset.grow, preset.reach, dilation) for dilation in preset.dilations)
        )

    def forward(self, log_mel: Tensor) -> Tensor:
        found: Tensor = self.blocks(self.stem(log_mel[:, :, None]))
        return found[:, :, 0].transpose(1, 2)


class VoiceStudent(StatisticsVoice):
    """The voice network whose features are learnt from Whisper's."""

    def __init__(self, preset: StudentPreset) -> None:
        super().__init__(preset.name, preset.sound, (preset.width,), preset.head)
        self.preset = preset
        self.trunk = StudentTrunk(preset)

    def features(self, log_mel: Tensor) -> tuple[Tensor, ...]:
        return (self.trunk(log_mel),)
