"""Time: attention pooling whose running form equals its batch form, and the published CLS transformer.

Pooling weighs each vector by exp(score) * 2^(-age / half-life). A common factor of all weights cancels,
so the running form never has to decay anything: it keeps log-weights relative to one fixed instant.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from liveaffect.engines.model.blocks import FeedForward, SelfAttention


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


class RunningPool:
    """The same, one vector at a time and in any order: a maximum and two sums, whatever the history."""

    def __init__(self, width: int, half_life_s: float) -> None:
        self.half_life_s = half_life_s
        self._peak = -math.inf
        self._weight = 0.0
        self._sum = torch.zeros(width, dtype=torch.float64)

    def add(self, vector: Tensor, score: float, t_s: float) -> None:
        """Take in what was seen at `t_s`."""
        asked = score + t_s * math.log(2.0) / self.half_life_s
        if asked > self._peak:
            shrink = math.exp(self._peak - asked)
            self._weight *= shrink
            self._sum *= shrink
            self._peak = asked
        share = math.exp(asked - self._peak)
        self._weight += share
        self._sum += share * vector.double()

    def value(self) -> Tensor:
        """The pooled vector; zero before anything was added."""
        return (self._sum / max(self._weight, 1e-30)).float()


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
