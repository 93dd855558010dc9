"""Voice by a fully convolutional network with one-dimensional attention over what it saw.

Only convolutions and pools, so a piece may have any length the preset declares. A piece's score is the
log of its cells' summed weights and its vector is affine in the attended cell, hence pooling pieces over
time equals attending over all cells of all pieces at once: the network streams without approximation.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from liveaffect.engines.model.frontend import SoundFront, SoundPreset
from liveaffect.engines.model.heads import Classifier, PooledVector, SpeechHead, VoiceAnswer, VoiceNetwork

SOFTENING = 0.3
"""Scores are scaled by this before the exponential: flatter weights."""


@dataclass(frozen=True, slots=True)
class FcnPreset:
    """A fully convolutional network as a table."""

    name: str
    sound: SoundPreset
    widths: tuple[int, int, int, int, int]
    attend: str = "grid"
    """'grid': every cell of frequency and time has its weight; 'time': every column, frequency averaged."""
    dropout: float = 0.3


class LocalNorm(nn.Module):
    """Local response normalisation over neighbouring channels, with AlexNet's constants.

    x / (2 + 1e-4 * sum of squares of 5 neighbours) ** 0.75. torch's own divides the 1e-4 by 5 and exports
    as a pool over five dimensions, which run-times handle badly.
    """

    def __init__(self, *, neighbours: int = 5, kappa: float = 2.0, alpha: float = 1e-4) -> None:
        super().__init__()
        self.neighbours, self.kappa, self.alpha = neighbours, kappa, alpha

    def forward(self, x: Tensor) -> Tensor:
        channels, height, width = x.shape[1:]
        square = (x * x).reshape(-1, 1, channels, height * width)
        mean = functional.avg_pool2d(square, (self.neighbours, 1), 1, (self.neighbours // 2, 0))
        around = mean.reshape(-1, channels, height, width) * float(self.neighbours)
        return x * (self.kappa + self.alpha * around).pow(-0.75)


class CellAttention(nn.Module):
    """(n, cells, width) to the weighted mean of the cells and the log of the sum of their weights."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.look = nn.Linear(width, width)
        self.weigh = nn.Linear(width, 1, bias=False)

    def forward(self, cells: Tensor) -> tuple[Tensor, Tensor]:
        asked = SOFTENING * self.weigh(self.look(cells).tanh())
        attended = (asked.softmax(1) * cells).sum(1)
        return attended, asked.logsumexp(1)


class VoiceFcn(VoiceNetwork):
    """Samples and speaker statistics in; vector, score, logits, speech and the piece's sums out."""

    def __init__(self, preset: FcnPreset) -> None:
        super().__init__(preset.name, preset.sound)
        self.preset = preset
        self.front = SoundFront(preset.sound)
        self.fcn = _convolutions(preset)
        self.attention = CellAttention(preset.widths[-1])
        self.to_vector = PooledVector(preset.widths[-1], preset.dropout)
        self.to_logits = Classifier()
        self.to_speech = SpeechHead()

    def forward(self, samples: Tensor, mean: Tensor, istd: Tensor) -> VoiceAnswer:
        sound = self.front(samples, mean, istd)
        attended, score = self.attention(self.cells(sound.picture))
        vector = self.to_vector(attended)
        return VoiceAnswer(
            vector=vector,
            score=score,
            logits=self.to_logits(vector),
            speech=self.to_speech(vector, sound.mean(), sound.spread()),
            stat_sum=sound.stat_sum,
            stat_sumsq=sound.stat_sumsq,
        )

    def cells(self, picture: Tensor) -> Tensor:
        """(n, cells, width): what attention chooses from."""
        grid = self.fcn(picture[:, None])
        if self.preset.attend == "time":
            grid = grid.mean(2, keepdim=True)
        return torch.flatten(grid, 2).transpose(1, 2)


def _convolutions(preset: FcnPreset) -> nn.Sequential:
    one, two, three, four, five = preset.widths
    if preset.attend not in ("grid", "time"):
        raise ValueError(f"{preset.name}: attention is over 'grid' or 'time', not {preset.attend!r}")
    return nn.Sequential(
        nn.Conv2d(1, one, 11, 4),
        nn.ReLU(),
        LocalNorm(),
        nn.MaxPool2d(3, 2),
        nn.Conv2d(one, two, 5, padding=2),
        nn.ReLU(),
        LocalNorm(),
        nn.MaxPool2d(3, 2),
        nn.Conv2d(two, three, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(three, four, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(four, five, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(3, 2),
    )
