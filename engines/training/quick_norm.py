"""The local normalisation of the convolutional voice network with its gradient written out, for training.

Same numbers, a third of the time: left to autograd, pooling over channels and a fractional power cost more
than all the convolutions. Use and export keep the plain form, which every run-time knows.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from liveaffect.engines.model.voice_fcn import LocalNorm


class _Normalise(torch.autograd.Function):
    """y = x * d**-0.75 with d = kappa + alpha * sum of squares of the neighbours."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, neighbours: int, kappa: float, alpha: float) -> Tensor:
        wide = x.float()
        root = _around(wide * wide, neighbours).mul_(alpha).add_(kappa).rsqrt_()
        scale = root * root.sqrt()
        ctx.save_for_backward(wide, scale, root)
        ctx.neighbours, ctx.alpha = neighbours, alpha
        return (wide * scale).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        wide, scale, root = ctx.saved_tensors
        given = gradients[0].float()
        shared = _around(given * wide * scale * root * root, ctx.neighbours)
        found = given * scale - 1.5 * ctx.alpha * wide * shared
        return found.to(gradients[0].dtype), None, None, None


class QuickLocalNorm(LocalNorm):
    """`LocalNorm`, faster to train."""

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = _Normalise.apply(  # type: ignore[no-untyped-call]
            x, self.neighbours, self.kappa, self.alpha
        )
        return out


def quicken(network: nn.Module) -> None:
    """Put the quick form in the place of the plain one, and kernels into the order processors like."""
    for parent in list(network.modules()):
        for name, child in parent.named_children():
            if type(child) is LocalNorm:
                quick = QuickLocalNorm(neighbours=child.neighbours, kappa=child.kappa, alpha=child.alpha)
                setattr(parent, name, quick)
    for kernel in network.parameters():
        if kernel.ndim == 4:
            kernel.data = kernel.data.contiguous(memory_format=torch.channels_last)


def _around(x: Tensor, neighbours: int) -> Tensor:
    """The sum over neighbouring channels."""
    half, count = neighbours // 2, x.shape[1]
    padded = functional.pad(x, (0, 0, 0, 0, half, half))
    total = padded[:, :count].clone()
    for shift in range(1, neighbours):
        total += padded[:, shift : shift + count]
    return total
