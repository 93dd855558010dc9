"""The face network: RepVGG blocks from raw crop to vector. A crop passes once; time is pooled outside.

`fv2es` is the published layout (48 pixels, max-pools, flatten). `live` strides instead of pooling and
averages at the end: the published flatten layer alone has five times the parameters of all of `live`.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from liveaffect.engines.model.blocks import ConvNorm, RepVggBlock
from liveaffect.engines.model.frontend import CropFront
from liveaffect.engines.model.heads import (
    Answer,
    AskedWeight,
    Classifier,
    FlattenedVector,
    Network,
    PooledVector,
)
from liveaffect.engines.protocol import FACE_INPUTS, FACE_OUTPUTS


@dataclass(frozen=True, slots=True)
class FaceStage:
    """One RepVGG block."""

    width: int
    stride: int = 1
    pool: bool = False
    """A 2x2 max-pool follows."""


@dataclass(frozen=True, slots=True)
class FacePreset:
    """A face network as a table."""

    name: str
    size: int
    mean: tuple[float, ...]
    """One value makes the picture grey first, three keep RGB; in steps of 0 to 255."""
    std: tuple[float, ...]
    stages: tuple[FaceStage, ...]
    stem: int | None = None
    """Width of a 5x5 convolution with pool before the blocks, as published."""
    flatten: int | None = None
    """Width of the published hidden layer on the flattened map; None averages the map."""
    dropout: float = 0.2
    plain: bool = False
    """One 3x3 convolution a block in training too, as in VGG, to see what the branches bring."""


class FaceNet(Network):
    """Crops in, vector, score and logits out."""

    def __init__(self, preset: FacePreset) -> None:
        super().__init__("face", preset.name, FACE_INPUTS, FACE_OUTPUTS)
        self.preset = preset
        self.front = CropFront(preset.size, preset.mean, preset.std)
        self.cnn, width, side = _face_convolutions(preset)
        self.to_vector: nn.Module
        if preset.flatten is None:
            self.to_vector = PooledVector(width, preset.dropout)
        else:
            self.to_vector = FlattenedVector(width * side * side, preset.flatten)
        self.to_score = AskedWeight()
        self.to_logits = Classifier()

    def forward(self, crop: Tensor) -> Answer:
        features = self.cnn(self.front(crop))
        if self.preset.flatten is None:
            features = features.mean((2, 3))
        vector = self.to_vector(features)
        return Answer(vector, self.to_score(vector), self.to_logits(vector))


def _face_convolutions(preset: FacePreset) -> tuple[nn.Sequential, int, int]:
    """The stack, its last width and the side of its last map."""
    layers: list[nn.Module] = []
    width, side = len(preset.mean), preset.size
    if preset.stem is not None:
        layers += [ConvNorm(nn.Conv2d(width, preset.stem, 5, padding=2)), nn.MaxPool2d(2)]
        width, side = preset.stem, side // 2
    for stage in preset.stages:
        layers.append(_block(width, stage, plain=preset.plain))
        width, side = stage.width, -(-side // stage.stride)
        if stage.pool:
            layers.append(nn.MaxPool2d(2))
            side //= 2
    return nn.Sequential(*layers), width, side


def _block(width: int, stage: FaceStage, *, plain: bool) -> nn.Module:
    if plain:
        return ConvNorm(nn.Conv2d(width, stage.width, 3, stage.stride, padding=1, bias=False))
    return RepVggBlock(width, stage.width, stride=stage.stride)
