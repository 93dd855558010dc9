"""Parameters and multiply-accumulates, counted by running the module once.

The rule: one MAC is one multiplication with its addition inside a convolution, a linear layer, the products
of attention (scores and mixing), or the fixed front end. Biases, normalisation, activations, softmax,
pooling and element-wise work are not counted. Attention and front end are listed apart, because published
figures often leave them out.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from liveaffect.engines.model.blocks import SelfAttention
from liveaffect.engines.model.frontend import SoundFront


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
