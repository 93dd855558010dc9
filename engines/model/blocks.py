"""What the networks are built of, foldable convolutions and self-attention, and what a network costs.

The cost is counted by running the module once. One MAC is one multiplication with its addition inside a
convolution, a linear layer, the products of attention (scores and mixing), or the fixed front end. Biases,
normalisation, activations, softmax, pooling and element-wise work are not counted. Attention and front end
are listed apart, because published figures often leave them out.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from liveaffect.engines.model.frontend import SoundFront


class ConvNorm(nn.Module):
    """Convolution, BatchNorm, optional ReLU."""

    def __init__(self, conv: nn.Conv2d, *, relu: bool = True) -> None:
        super().__init__()
        self.conv = conv
        self.norm = nn.BatchNorm2d(conv.out_channels)
        self.relu = relu

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.norm(self.conv(x))
        return out.relu() if self.relu else out


class RepVggBlock(nn.Module):
    """3x3, 1x1 and, where shapes allow, identity, each with its own BatchNorm, summed, then ReLU.

    Nothing inside the branches is non-linear: that alone makes folding them into one 3x3 exact.
    """

    def __init__(self, inputs: int, outputs: int, *, stride: int = 1, groups: int = 1) -> None:
        super().__init__()
        self.dense = ConvNorm(
            nn.Conv2d(inputs, outputs, 3, stride, padding=1, groups=groups, bias=False), relu=False
        )
        self.point = ConvNorm(nn.Conv2d(inputs, outputs, 1, stride, groups=groups, bias=False), relu=False)
        same_shape = inputs == outputs and stride == 1
        self.identity = nn.BatchNorm2d(inputs) if same_shape else None

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.dense(x) + self.point(x)
        if self.identity is not None:
            out = out + self.identity(x)
        return out.relu()


class FoldedConv(nn.Module):
    """What a ConvNorm or a RepVggBlock becomes: one convolution with bias, optional ReLU."""

    def __init__(self, folded: nn.Conv2d, *, relu: bool) -> None:
        super().__init__()
        self.folded = folded
        self.relu = relu

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.folded(x)
        return out.relu() if self.relu else out


class SelfAttention(nn.Module):
    """Multi-head attention of (n, tokens, width) on itself; `present` (n, tokens) masks absent keys."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        if width % heads:
            raise ValueError(f"a width of {width} cannot be split over {heads} heads")
        self.heads = heads
        self.width = width
        self.mix = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor, present: Tensor | None = None) -> Tensor:
        tokens, each = x.shape[1], self.width // self.heads
        query, key, value = (
            self.mix(x).reshape(-1, tokens, 3, self.heads, each).permute(2, 0, 3, 1, 4).unbind(0)
        )
        scores = (query * each**-0.5) @ key.transpose(-2, -1)
        if present is not None:
            scores = scores.masked_fill(~present[:, None, None, :], float("-inf"))
        mixed = scores.softmax(-1) @ value
        out: Tensor = self.out(mixed.transpose(1, 2).reshape(-1, tokens, self.width))
        return out

    def products(self, x: Tensor) -> int:
        """Multiply-accumulates of scores and mixing; the linear layers are counted by themselves."""
        return 2 * x.shape[0] * x.shape[1] ** 2 * self.width


class FeedForward(nn.Sequential):
    """Two linear layers with a non-linearity between them."""

    def __init__(self, width: int, hidden: int, *, gelu: bool, dropout: float = 0.0) -> None:
        super().__init__(
            nn.Linear(width, hidden),
            nn.GELU() if gelu else nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(hidden, width),
        )


class DropPath(nn.Module):
    """In training, leaves a residual branch out for a random share of the batch."""

    def __init__(self, share: float) -> None:
        super().__init__()
        self.share = share

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.share == 0.0:
            return x
        keep = 1.0 - self.share
        drawn = torch.rand(x.shape[0], *(1,) * (x.ndim - 1), device=x.device) < keep
        return x * drawn / keep


def init_transformer(module: nn.Module) -> None:
    """Truncated normal 0.02 for every linear and convolution weight, zero biases."""
    for part in module.modules():
        if isinstance(part, nn.Linear | nn.Conv2d):
            nn.init.trunc_normal_(part.weight, std=0.02)
            if part.bias is not None:
                nn.init.zeros_(part.bias)


@dataclass(slots=True)
class Macs:
    """Multiply-accumulates of one forward pass."""

    layers: int = 0
    """Convolutions and linear layers."""
    attention: int = 0
    """Scores and mixing."""
    front: int = 0
    """Spectrum and mel bands."""

    @property
    def total(self) -> int:
        """All of them."""
        return self.layers + self.attention + self.front


def parameters(module: nn.Module) -> int:
    """Learnt numbers; fixed buffers and running statistics are not among them."""
    return sum(p.numel() for p in module.parameters())


def macs(module: nn.Module, *inputs: Tensor) -> Macs:
    """What one forward pass of `inputs` multiplies. Works on the meta device, without memory or time."""
    counted = Macs()
    hooks = [part.register_forward_hook(partial(_count_layer, counted)) for part in module.modules()]
    was_training = module.training
    try:
        with torch.no_grad():
            module.eval()(*inputs)
    finally:
        module.train(was_training)
        for hook in hooks:
            hook.remove()
    return counted


def _count_layer(counted: Macs, part: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
    if isinstance(part, nn.Conv2d):
        per_output = part.in_channels // part.groups * math.prod(part.kernel_size)
        counted.layers += output.numel() * per_output
    elif isinstance(part, nn.Linear):
        counted.layers += output.numel() * part.in_features
    elif isinstance(part, SelfAttention):
        counted.attention += part.products(inputs[0])
    elif isinstance(part, SoundFront):
        counted.front += part.products(inputs[0])
