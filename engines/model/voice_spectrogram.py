"""The two published kinds of voice networks over a spectrogram: fully convolutional, and nested attention.

`VoiceFcn` has only convolutions and pools, so a piece may have any length the preset declares. A piece's
score is the log of its cells' summed weights and its vector is affine in the attended cell, hence pooling
pieces over time equals attending over all cells of all pieces at once: the network streams without
approximation.

`VoiceNest` attends inside blocks of the spectrogram, then merges them, level by level; its sizes are a
table. `fv2es` folds 128 bands into four sub-band channels and flattens 33.6 M parameters' worth; a smaller
table may keep the picture as it is, start with two small convolutions and average at the end.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from liveaffect.engines.model.blocks import (
    ConvNorm,
    DropPath,
    FeedForward,
    NormLinear,
    SelfAttention,
    init_transformer,
)
from liveaffect.engines.model.frontend import SoundFront, SoundPreset
from liveaffect.engines.model.heads import (
    AskedWeight,
    Classifier,
    FlattenedVector,
    PooledVector,
    SpeechHead,
    VoiceAnswer,
    VoiceNetwork,
)
from liveaffect.engines.protocol import VECTOR

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


@dataclass(frozen=True, slots=True)
class Level:
    """One level of the hierarchy."""

    width: int
    heads: int
    depth: int


@dataclass(frozen=True, slots=True)
class StemConv:
    """One 3x3 convolution of the patch embedding."""

    width: int
    stride: tuple[int, int] = (1, 1)


@dataclass(frozen=True, slots=True)
class NestPreset:
    """A nested transformer as a table."""

    name: str
    sound: SoundPreset
    stem: tuple[StemConv, ...]
    block: int
    """Side of the square inside which tokens attend to each other."""
    levels: tuple[Level, ...]
    sub_bands: int = 1
    """The picture's bands are cut into this many and stacked as channels."""
    drop_path: float = 0.1
    """Share of residual branches left out in the last layer; earlier ones in proportion."""
    gelu: bool = True
    flatten: int | None = None
    dropout: float = 0.2
    attends: bool = True
    """False puts a convolution of nearly as many numbers in the place of attention, and leaves the rest."""


class BlockConv(nn.Module):
    """A 3x3 convolution inside each block, in two groups: what attention is compared with."""

    def __init__(self, width: int, block: int) -> None:
        super().__init__()
        self.block = block
        self.mix = nn.Conv2d(width, width, 3, padding=1, groups=2)

    def forward(self, x: Tensor) -> Tensor:
        tokens, width = x.shape[1:]
        grid = x.transpose(1, 2).reshape(-1, width, self.block, self.block)
        out: Tensor = self.mix(grid).reshape(-1, width, tokens).transpose(1, 2)
        return out


class NestLayer(nn.Module):
    """Pre-norm attention, or the convolution compared with it, and feed-forward inside one block."""

    def __init__(self, level: Level, preset: NestPreset, drop_path: float) -> None:
        super().__init__()
        self.norm_mix = nn.LayerNorm(level.width, eps=1e-6)
        self.attend: nn.Module
        if preset.attends:
            self.attend = SelfAttention(level.width, level.heads)
        else:
            self.attend = BlockConv(level.width, preset.block)
        self.norm_feed = nn.LayerNorm(level.width, eps=1e-6)
        self.feed = FeedForward(level.width, 4 * level.width, gelu=preset.gelu)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.drop_path(self.attend(self.norm_mix(x)))
        out: Tensor = x + self.drop_path(self.feed(self.norm_feed(x)))
        return out


class NestLevel(nn.Module):
    """Cut a map into blocks, add positions, attend inside each block, put the map together again."""

    def __init__(self, level: Level, side: int, block: int, layers: list[NestLayer]) -> None:
        super().__init__()
        self.across, self.block, self.width = side // block, block, level.width
        self.position = nn.Parameter(torch.zeros(1, self.across**2, block**2, level.width))
        nn.init.trunc_normal_(self.position, std=0.02)
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        grid, block, width = self.across, self.block, self.width
        x = x.reshape(-1, width, grid, block, grid, block).permute(0, 2, 4, 3, 5, 1)
        x = x.reshape(-1, grid**2, block**2, width) + self.position
        x = self.layers(x.reshape(-1, block**2, width))
        x = x.reshape(-1, grid, grid, block, block, width).permute(0, 5, 1, 3, 2, 4)
        return x.reshape(-1, width, grid * block, grid * block)


class ChannelNorm(nn.LayerNorm):
    """LayerNorm over the channels of a map."""

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class NestTrunk(nn.Module):
    """Picture to the last map, normalised: everything before the vector."""

    def __init__(self, preset: NestPreset) -> None:
        super().__init__()
        self.preset = preset
        if preset.stem[-1].width != preset.levels[0].width:
            raise ValueError(f"{preset.name}: the embedding must be as wide as the first level")
        side = self._stem()
        total = sum(level.depth for level in preset.levels)
        done, width = 0, preset.stem[-1].width
        parts: list[nn.Module] = []
        for index, level in enumerate(preset.levels):
            if index:
                parts.append(_merge(width, level.width))
                side //= 2
            rates = [preset.drop_path * (done + i) / max(total - 1, 1) for i in range(level.depth)]
            layers = [NestLayer(level, preset, rate) for rate in rates]
            parts.append(NestLevel(level, side, preset.block, layers))
            done, width = done + level.depth, level.width
        if side != preset.block:
            raise ValueError(f"{preset.name}: the last level must be one block of {preset.block}, is {side}")
        self.levels = nn.Sequential(*parts)
        self.norm = ChannelNorm(width, eps=1e-6)
        init_transformer(self)
        if len(preset.stem) > 1:
            self._begin_narrow()

    def _begin_narrow(self) -> None:
        """Weights by the width of what they look at: those of 0.02 hide the input behind the positions."""
        for part in self.modules():
            if isinstance(part, nn.Linear | nn.Conv2d):
                nn.init.xavier_uniform_(part.weight)

    def _stem(self) -> int:
        """Build the patch embedding; the side of its square map. One convolution is as published."""
        preset = self.preset
        height, length = preset.sound.bands // preset.sub_bands, preset.sound.frames
        channels, layers, published = preset.sub_bands, list[nn.Module](), len(preset.stem) == 1
        for conv in preset.stem:
            made = nn.Conv2d(channels, conv.width, 3, conv.stride, padding=1, bias=published)
            layers.append(made if published else ConvNorm(made))
            channels = conv.width
            height, length = -(-height // conv.stride[0]), -(-length // conv.stride[1])
        if height != length:
            raise ValueError(f"{preset.name}: the embedding must give a square map, not {height}x{length}")
        self.stem = nn.Sequential(*layers)
        return height

    def forward(self, picture: Tensor) -> Tensor:
        sub_bands, sound = self.preset.sub_bands, self.preset.sound
        x = picture.reshape(-1, sub_bands, sound.bands // sub_bands, sound.frames)
        out: Tensor = self.norm(self.levels(self.stem(x)))
        return out


def _merge(inputs: int, outputs: int) -> nn.Sequential:
    """Halve the map and let neighbouring blocks see each other."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, padding=1), ChannelNorm(outputs, eps=1e-6), nn.MaxPool2d(3, 2, 1)
    )


class VoiceNest(VoiceNetwork):
    """Samples and speaker statistics in; vector, score, logits, speech and the piece's sums out."""

    def __init__(self, preset: NestPreset) -> None:
        super().__init__(preset.name, preset.sound)
        self.preset = preset
        self.front = SoundFront(preset.sound)
        self.trunk = NestTrunk(preset)
        width = preset.levels[-1].width
        self.to_vector: nn.Module
        if preset.flatten is None:
            self.to_vector = NormLinear(width, VECTOR, preset.dropout)
        else:
            self.to_vector = FlattenedVector(width * preset.block**2, preset.flatten)
        self.to_score = AskedWeight()
        self.to_logits = Classifier()
        self.to_speech = SpeechHead()

    def forward(self, samples: Tensor, mean: Tensor, istd: Tensor) -> VoiceAnswer:
        sound = self.front(samples, mean, istd)
        features = self.trunk(sound.picture)
        if self.preset.flatten is None:
            features = features.mean((2, 3))
        vector = self.to_vector(features)
        return VoiceAnswer(
            vector=vector,
            score=self.to_score(vector),
            logits=self.to_logits(vector),
            speech=self.to_speech(vector, sound.mean(), sound.spread()),
            stat_sum=sound.stat_sum,
            stat_sumsq=sound.stat_sumsq,
        )
