"""Voice by a small convolutional network that sees more than two seconds at once.

How something is said shows in the melody of a phrase, not in its syllables. So a piece reaches far back
behind its newest part; frequency is kept apart until one layer that spans it, and attention chooses among
the moments of the piece. A piece's score grows with what attention found in it, so a piece full of speech
outweighs the first syllable.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from liveaffect.engines.model.blocks import ConvNorm
from liveaffect.engines.model.frontend import SoundFront, SoundPreset
from liveaffect.engines.model.heads import Classifier, PooledVector, SpeechHead
from liveaffect.engines.model.voice_attending import AttendingVoice


@dataclass(frozen=True, slots=True)
class WideStage:
    """One 3x3 convolution; it strides over frequency and time."""

    width: int
    stride: tuple[int, int] = (1, 1)


@dataclass(frozen=True, slots=True)
class WidePreset:
    """A network for wide pieces as a table."""

    name: str
    sound: SoundPreset
    stem: WideStage
    """Its kernel is 5x5."""
    stages: tuple[WideStage, ...]
    moments: int
    """Width of what is known of each moment."""
    reach: int = 5
    """Moments that the last convolution over time sees."""
    dropout: float = 0.3


class MomentAttention(nn.Module):
    """(n, moments, width) to the weighted mean of the moments and the log of the sum of their weights."""

    def __init__(self, width: int, hidden: int = 64) -> None:
        super().__init__()
        self.look = nn.Linear(width, hidden)
        self.weigh = nn.Linear(hidden, 1, bias=False)
        self.trust = nn.Parameter(torch.tensor(1.5))
        """How much more a piece counts for what attention found in it."""

    def forward(self, moments: Tensor) -> tuple[Tensor, Tensor]:
        asked = self.weigh(self.look(moments).tanh())
        attended = (asked.softmax(1) * moments).sum(1)
        return attended, self.trust * asked.logsumexp(1)


class VoiceWide(AttendingVoice):
    """Samples and speaker statistics in; vector, score, logits, speech and the newest part's sums out."""

    def __init__(self, preset: WidePreset) -> None:
        super().__init__(preset.name, preset.sound)
        self.preset = preset
        self.front = SoundFront(preset.sound)
        self.stages, height = _wide_convolutions(preset)
        last = preset.stages[-1].width
        self.across = ConvNorm(nn.Conv2d(last, preset.moments, (height, 1), bias=False))
        reach = preset.reach
        self.along = ConvNorm(
            nn.Conv2d(preset.moments, preset.moments, (1, reach), padding=(0, reach // 2), bias=False)
        )
        self.drop = nn.Dropout(preset.dropout / 2)
        self.attention = MomentAttention(preset.moments)
        self.to_vector = PooledVector(preset.moments, preset.dropout)
        self.to_logits = Classifier()
        self.to_speech = SpeechHead()

    def attend(self, picture: Tensor) -> tuple[Tensor, Tensor]:
        attended, score = self.attention(self.cells(picture))
        return attended, score

    def cells(self, picture: Tensor) -> Tensor:
        """(n, moments, width): what attention chooses from."""
        seen = self.drop(self.across(self.stages(picture[:, None])))
        seen = seen + self.along(seen)
        return torch.flatten(seen, 2).transpose(1, 2)


def _wide_convolutions(preset: WidePreset) -> tuple[nn.Sequential, int]:
    """The layers up to the one that spans frequency, and the height they leave."""
    height, channels, kernel = preset.sound.bands, 1, 5
    layers: list[nn.Module] = []
    for stage in (preset.stem, *preset.stages):
        conv = nn.Conv2d(channels, stage.width, kernel, stage.stride, padding=kernel // 2, bias=False)
        layers.append(ConvNorm(conv))
        height, channels, kernel = -(-height // stage.stride[0]), stage.width, 3
    return nn.Sequential(*layers), height
