"""From training form to deployment form: many branches become one convolution, exactly, in a copy.

Folding in place would detach the branches from the optimiser and freeze the network after its first
validation, so there is no way here to fold a module that somebody still trains.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from liveaffect.engines.model.blocks import ConvNorm, FoldedConv, RepVggBlock

M = TypeVar("M", bound=nn.Module)


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
