"""What the networks are built of, foldable convolutions, attention, pooling over time, and what they cost.

Attention pooling has a batch form here and a running one in the live path; they agree, a test says so. The
CLS transformer is the published alternative.

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


def attention_pool(vectors: Tensor, scores: Tensor, ages_s: Tensor, half_life_s: float) -> Tensor:
    """(n, items, width), (n, items), (n, items) to (n, width). An age of infinity leaves an item out.

    Without any item the result is zero, which is what fusion gets with its mask at zero.
    """
    asked = scores - ages_s * (math.log(2.0) / half_life_s)
    there = torch.isfinite(asked)
    peak = asked.masked_fill(~there, float("-inf")).amax(1, keepdim=True)
    weight = torch.exp(asked.masked_fill(~there, float("-inf")) - peak.masked_fill(torch.isinf(peak), 0.0))
    total = weight.sum(1, keepdim=True)
    return torch.einsum("ni,niw->nw", weight / total.clamp(min=1e-30), vectors)


class TransformerLayer(nn.Module):
    """Post-norm attention and feed-forward, as the published encoders have it."""

    def __init__(self, width: int, heads: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.attend = SelfAttention(width, heads)
        self.norm_mix = nn.LayerNorm(width)
        self.feed = FeedForward(width, hidden, gelu=False, dropout=dropout)
        self.norm_feed = nn.LayerNorm(width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, present: Tensor | None) -> Tensor:
        x = self.norm_mix(x + self.dropout(self.attend(x, present)))
        out: Tensor = self.norm_feed(x + self.dropout(self.feed(x)))
        return out


class ClsTransformer(nn.Module):
    """A learnt vector put before the items looks at all of them; its place is the answer.

    `positions=False` is the published form, which cannot tell an order from its reverse. With positions the
    items carry sinusoids of their age, so "how long ago" is known, not only "which place".
    """

    def __init__(
        self, *, width: int = 64, heads: int = 4, depth: int = 4, hidden: int = 2048, positions: bool = True
    ) -> None:
        super().__init__()
        self.positions = positions
        self.cls = nn.Parameter(torch.empty(1, 1, width).normal_(std=0.02))
        self.layers = nn.ModuleList(TransformerLayer(width, heads, hidden, 0.1) for _ in range(depth))

    def forward(self, vectors: Tensor, ages_s: Tensor, present: Tensor | None = None) -> Tensor:
        """(n, items, width), (n, items) and which items are there (n, items) to (n, width)."""
        if self.positions:
            vectors = vectors + age_waves(ages_s, vectors.shape[-1])
        x = torch.cat([self.cls.expand(vectors.shape[0], -1, -1), vectors], dim=1)
        if present is not None:
            present = torch.cat([torch.ones_like(present[:, :1]), present], dim=1)
        for layer in self.layers:
            x = layer(x, present)
        return x[:, 0]


def age_waves(ages_s: Tensor, width: int, *, shortest_s: float = 0.2, longest_s: float = 60.0) -> Tensor:
    """(n, items) to (n, items, width): sines and cosines with periods from `shortest_s` to `longest_s`."""
    steps = torch.linspace(0.0, 1.0, width // 2, device=ages_s.device)
    angle = ages_s[..., None] * (2 * math.pi / (shortest_s * (longest_s / shortest_s) ** steps))
    return torch.cat([angle.sin(), angle.cos()], dim=-1)
