"""Folding is exact, happens to a copy, and the two forms can never be taken for each other."""

from __future__ import annotations

import itertools

import pytest

pytest.importorskip("torch", reason="networks are built with torch: pip install liveaffect[train]")

import torch
from torch import Tensor, nn

from liveaffect.engines import parity
from liveaffect.engines.model import presets
from liveaffect.engines.model.blocks import ConvNorm, RepVggBlock, deploy, fold_kernel
from liveaffect.engines.model.heads import Network

torch.set_num_threads(1)  # tensors are small; a second thread only waits

FOLDABLE = [
    ("face", "live"),
    ("face", "wide"),
    ("face", "live-vgg"),
    ("face", "fv2es"),
    ("voice", "nest"),
    ("voice", "nest-conv"),
    ("voice", "student"),
]


def randomise(module: nn.Module) -> None:
    """BatchNorm statistics as different from the initial ones as training could make them."""
    for norm in module.modules():
        if isinstance(norm, nn.BatchNorm2d | nn.BatchNorm1d):
            assert norm.running_mean is not None
            assert norm.running_var is not None
            norm.running_mean.normal_(0, 0.5)
            norm.running_var.uniform_(0.2, 3.0)
            nn.init.uniform_(norm.weight, -1.5, 1.5)
            nn.init.normal_(norm.bias)


def relative(got: Tensor, want: Tensor) -> float:
    return float((got - want).abs().max() / want.abs().max())


def inputs(network: Network) -> tuple[Tensor, ...]:
    batch = parity.for_tensors(network.kind, 2, network.inputs, seed=3)
    return tuple(torch.from_numpy(batch[spec.name]) for spec in network.inputs)


BLOCKS = [
    (inputs, outputs, stride, groups)
    for (inputs, outputs), stride, groups in itertools.product(((8, 8), (8, 16), (16, 8)), (1, 2), (1, 2, 4))
]


@pytest.mark.parametrize(("width_in", "width_out", "stride", "groups"), BLOCKS)
def test_a_folded_block_gives_the_same_answer(
    width_in: int, width_out: int, stride: int, groups: int
) -> None:
    torch.manual_seed(hash((width_in, width_out, stride, groups)) % 1000)
    net = nn.Sequential(RepVggBlock(width_in, width_out, stride=stride, groups=groups))
    randomise(net)
    has_identity = any(name.startswith("0.identity") for name, _ in net.named_parameters())
    assert has_identity == (width_in == width_out and stride == 1)
    x = torch.randn(2, width_in, 9, 9)
    with torch.no_grad():
        assert relative(deploy(net)(x), net.eval()(x)) <= 1e-5


def test_every_preset_with_something_to_fold_is_tested_here() -> None:
    """Without the hundred million weights of voice `fv2es`, whose modules are those of voice `live`."""
    found = [
        (kind, preset)
        for kind in ("face", "voice", "fusion")
        for preset in presets.preset_names(kind)
        if (kind, preset) != ("voice", "fv2es")
        and any(isinstance(part, nn.BatchNorm2d) for part in presets.build(kind, preset).modules())
    ]
    assert found == FOLDABLE


@pytest.mark.parametrize(("kind", "preset"), FOLDABLE)
def test_a_folded_network_gives_the_same_answer(kind: str, preset: str) -> None:
    network = presets.build(kind, preset)
    torch.manual_seed(5)
    randomise(network)
    given = inputs(network)
    with torch.no_grad():
        want, got = network.eval()(*given), deploy(network)(*given)
    for spec, a, b in zip(network.outputs, got, want, strict=True):
        assert relative(a, b) <= 1e-5, spec.name


@pytest.mark.parametrize(
    ("kind", "preset"),
    [("voice", "amfbp"), *(("fusion", name) for name in presets.preset_names("fusion"))],
)
def test_networks_without_branches_are_copied_as_they_are(kind: str, preset: str) -> None:
    network = presets.build(kind, preset)
    assert not any(isinstance(part, RepVggBlock | ConvNorm) for part in network.modules())
    given = inputs(network)
    with torch.no_grad():
        want, got = network.eval()(*given), deploy(network.train())(*given)
    assert all(torch.equal(a, b) for a, b in zip(got, want, strict=True))


@pytest.mark.parametrize(("kind", "preset"), FOLDABLE)
def test_nothing_is_left_to_fold_and_nothing_to_train(kind: str, preset: str) -> None:
    folded = deploy(presets.build(kind, preset))
    assert not any(
        isinstance(part, RepVggBlock | nn.BatchNorm2d | nn.BatchNorm1d) for part in folded.modules()
    )
    assert not folded.training
    assert not any(p.requires_grad for p in folded.parameters())


@pytest.mark.parametrize(("kind", "preset"), FOLDABLE)
def test_neither_form_loads_as_the_other(kind: str, preset: str) -> None:
    network = presets.build(kind, preset)
    folded = deploy(network)
    shared = network.state_dict().keys() & folded.state_dict().keys()
    folds = [f"{name}." for name, part in network.named_modules() if isinstance(part, RepVggBlock | ConvNorm)]
    assert not [name for name in shared if name.startswith(tuple(folds))]
    with pytest.raises(RuntimeError, match="Unexpected key"):
        network.load_state_dict(folded.state_dict())
    with pytest.raises(RuntimeError, match="Unexpected key"):
        folded.load_state_dict(network.state_dict())


def test_a_batchnorm_without_running_statistics_is_refused() -> None:
    with pytest.raises(ValueError, match="running statistics"):
        fold_kernel(torch.ones(2, 2, 1, 1), None, nn.BatchNorm2d(2, track_running_stats=False))
