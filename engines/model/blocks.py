"""What the networks are built of: convolutions and how they are folded, attention, pooling over time.

Attention pooling has a batch form here and a running one in the live path; they agree, a test says so. The
CLS transformer is the published alternative.

Deployment has one convolution where training had many branches, exactly, in a copy: folding in place would
detach the branches from the optimiser and freeze the network after its first validation, so there is no way
here to fold a module that somebody still trains.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional

M = TypeVar("M", bound=nn.Module)


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


class NormLinear(nn.Module):
    """Features, each standardised over the batch, to a linear layer; for use it is folded into that alone.

    Where features are the mean of a map behind a LayerNorm, nine tenths of them are alike for every item:
    without this a head learns for long to see what differs.
    """

    def __init__(self, inputs: int, outputs: int, dropout: float) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(inputs)
        self.dropout = nn.Dropout(dropout)
        self.linear = nn.Linear(inputs, outputs)

    def forward(self, features: Tensor) -> Tensor:
        norm = self.norm
        if self.training and len(features) == 1:
            # One item alone has no spread: it is measured by those before it.
            told = (norm.running_mean, norm.running_var, norm.weight, norm.bias)
            known = functional.batch_norm(features, *told, eps=norm.eps)
        else:
            known = norm(features)
        out: Tensor = self.linear(self.dropout(known))
        return out


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


def deploy(module: M, *, stem: bool = True) -> M:
    """A copy in evaluation mode, without gradients, with everything inside folded.

    `stem=False` leaves the BatchNorm of convolutions outside RepVGG blocks where it is.
    """
    folded = copy.deepcopy(module).eval()
    _fold_children(folded, stem=stem)
    return folded.requires_grad_(False)


def _fold_children(parent: nn.Module, *, stem: bool) -> None:
    for name, child in parent.named_children():
        if isinstance(child, RepVggBlock) or (stem and isinstance(child, ConvNorm)):
            setattr(parent, name, _folded(child))
        elif isinstance(child, NormLinear):
            setattr(parent, name, _folded_linear(child))
        else:
            _fold_children(child, stem=stem)


def unfold(module: nn.Module, folded: Mapping[str, Tensor], inputs: Tensor) -> None:
    """Give a module in training form, in place, the weights of its deployed form, so that training can go on.

    One branch holds everything, the others begin at nothing. BatchNorm in training looks at its batch, so
    it needs what `inputs`, a few hundred items as in training, look like inside to undo it.
    """
    own = {name: value for name, value in folded.items() if ".folded." not in name}
    missing = set(module.load_state_dict(own, strict=False).unexpected_keys)
    blocks = {name: part for name, part in module.named_modules() if f"{name}.folded.weight" in folded}
    missing |= {name for name in folded if ".folded." in name and name.partition(".folded.")[0] not in blocks}
    if missing:
        raise ValueError(f"the weights belong to another network: it has no {sorted(missing)[0]}")

    def adopt(name: str, block: nn.Module, x: Tensor) -> None:
        one = block.dense if isinstance(block, RepVggBlock) else block
        assert isinstance(one, ConvNorm)
        one.conv.weight.copy_(folded[f"{name}.folded.weight"])
        out = one.conv(x).double()
        middle, spread = out.mean((0, 2, 3)), out.var((0, 2, 3), correction=0)
        _restate(one.norm, middle, spread, folded[f"{name}.folded.bias"])
        if isinstance(block, RepVggBlock):
            for norm in (block.point.norm, block.identity):
                if norm is not None:
                    nn.init.zeros_(norm.weight)
                    nn.init.zeros_(norm.bias)

    def hook(name: str) -> Any:
        return blocks[name].register_forward_pre_hook(lambda block, given: adopt(name, block, given[0]))

    hooks, training = [hook(name) for name in blocks], module.training
    with torch.no_grad():
        module.eval()(inputs)
    for one in hooks:
        one.remove()
    module.train(training)


def _restate(norm: nn.BatchNorm2d, middle: Tensor, spread: Tensor, bias: Tensor) -> None:
    """A BatchNorm that adds a bias and nothing else to what has this mean and variance."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    norm.running_mean.copy_(middle)
    norm.running_var.copy_(spread)
    norm.weight.copy_((spread + norm.eps).sqrt())
    norm.bias.copy_(bias.double() + middle)


def _folded(block: RepVggBlock | ConvNorm) -> FoldedConv:
    if isinstance(block, ConvNorm):
        weight, bias = fold_conv(block.conv, block.norm)
        return FoldedConv(_conv_like(block.conv, weight, bias), relu=block.relu)
    conv = block.dense.conv
    weight, bias = fold_conv(conv, block.dense.norm)
    point_weight, point_bias = fold_conv(block.point.conv, block.point.norm)
    weight, bias = weight + functional.pad(point_weight, [1, 1, 1, 1]), bias + point_bias
    if block.identity is not None:
        same_weight, same_bias = fold_kernel(_identity_kernel(conv), None, block.identity)
        weight, bias = weight + same_weight, bias + same_bias
    return FoldedConv(_conv_like(conv, weight, bias), relu=True)


def _folded_linear(block: NormLinear) -> nn.Linear:
    norm, folded = block.norm, copy.deepcopy(block.linear)
    assert norm.running_mean is not None
    assert norm.running_var is not None
    with torch.no_grad():
        weight = block.linear.weight.double()
        gain = norm.weight.double() / torch.sqrt(norm.running_var.double() + norm.eps)
        folded.weight.copy_(weight * gain)
        start = norm.bias.double() - norm.running_mean.double() * gain
        folded.bias.copy_(block.linear.bias.double() + weight @ start)
    return folded


def fold_conv(conv: nn.Conv2d, norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """Kernel and bias, float64, of a convolution followed by BatchNorm with its running statistics."""
    return fold_kernel(conv.weight, conv.bias, norm)


def fold_kernel(kernel: Tensor, bias: Tensor | None, norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """The same for a bare kernel. Raises ValueError if the BatchNorm keeps no running statistics."""
    if norm.running_mean is None or norm.running_var is None:
        raise ValueError("a BatchNorm without running statistics depends on its batch and cannot be folded")
    with torch.no_grad():
        # float64, because branches of very different scale are added up before rounding back.
        gain = norm.weight.double() / torch.sqrt(norm.running_var.double() + norm.eps)
        start = -norm.running_mean.double() if bias is None else bias.double() - norm.running_mean.double()
        return kernel.double() * gain[:, None, None, None], norm.bias.double() + start * gain


def _identity_kernel(conv: nn.Conv2d) -> Tensor:
    """A 3x3 kernel that passes every channel through, within the convolution's groups."""
    kernel = torch.zeros_like(conv.weight)
    channel = torch.arange(conv.out_channels)
    kernel[channel, channel % (conv.in_channels // conv.groups), 1, 1] = 1.0
    return kernel


def _conv_like(conv: nn.Conv2d, weight: Tensor, bias: Tensor) -> nn.Conv2d:
    folded = copy.deepcopy(conv)
    folded.weight = nn.Parameter(weight.to(conv.weight.dtype))
    folded.bias = nn.Parameter(bias.to(conv.weight.dtype))
    return folded
