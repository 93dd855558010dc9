"""The published networks have the sizes that were read off the published code, ours keep their budget.

Counting runs on torch's meta device: shapes only, so even a hundred million parameters cost nothing.
"""

from __future__ import annotations

import pytest

pytest.importorskip("torch", reason="networks are built with torch: pip install liveaffect[train]")

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from liveaffect.engines.model import presets
from liveaffect.engines.model.blocks import ClsTransformer
from liveaffect.engines.model.heads import Network

MILLION = 1_000_000


def parameters(module: nn.Module) -> int:
    """Learnt numbers; fixed buffers and running statistics are not among them."""
    return sum(p.numel() for p in module.parameters())


def macs(module: nn.Module, *inputs: Tensor) -> float:
    """Multiplications with their addition in one forward pass, of which torch counts two each."""
    with FlopCounterMode(display=False) as counted, torch.no_grad():
        module.eval()(*inputs)
    return int(counted.get_total_flops()) / 2


def meta(kind: str, preset: str) -> Network:
    with torch.device("meta"):
        network = presets.build(kind, preset)
    return network.to("meta")


def meta_inputs(network: Network) -> tuple[Tensor, ...]:
    return tuple(
        torch.zeros(1, *spec.shape, dtype=getattr(torch, spec.dtype), device="meta")
        for spec in network.inputs
    )


def part(network: nn.Module, name: str) -> nn.Module:
    return network.get_submodule(name)


def test_the_published_face_network_has_its_published_size_in_each_form() -> None:
    face = meta("face", "fv2es")
    assert parameters(part(face, "cnn")) == 1_811_584
    assert parameters(part(presets.deploy(face, stem=False), "cnn")) == 1_628_032
    assert parameters(part(presets.deploy(face), "cnn")) == 1_627_904
    assert parameters(part(face, "to_vector")) == 4_785_216


def test_the_published_voice_networks_have_their_published_sizes() -> None:
    nest, fcn = meta("voice", "fv2es"), meta("voice", "amfbp")
    assert parameters(part(nest, "trunk")) / MILLION == pytest.approx(66.74, abs=0.005)
    assert parameters(part(nest, "to_vector")) == 33_621_056
    assert parameters(part(fcn, "fcn")) == 3_723_968


@pytest.mark.parametrize("positions", [False, True])
def test_the_temporal_encoder_has_its_published_size_with_positions_or_without(positions: bool) -> None:
    assert parameters(ClsTransformer(positions=positions)) == 1_124_672


def test_folding_saves_a_tenth_of_the_face_networks_work() -> None:
    """201.1 and 181.2 million a face; theirs counts a little besides, hence one per cent."""
    face = meta("face", "fv2es")
    picture = torch.zeros(1, 3, 48, 48, device="meta")
    trained, deployed = (part(form, "cnn") for form in (face, presets.deploy(face)))
    assert macs(trained, picture) / MILLION == pytest.approx(201.1, rel=0.01)
    assert macs(deployed, picture) / MILLION == pytest.approx(181.2, rel=0.01)


def test_the_published_voice_network_costs_what_was_measured_for_a_piece() -> None:
    nest = meta("voice", "fv2es")
    counted = macs(part(nest, "trunk"), torch.zeros(1, 128, 32, device="meta"))
    assert counted / 1e9 == pytest.approx(5.59, rel=0.01)


def test_the_live_face_network_keeps_its_budget() -> None:
    face = presets.deploy(meta("face", "live"))
    assert parameters(face) < 1.4 * MILLION
    assert macs(face, *meta_inputs(face)) < 100 * MILLION


def test_the_small_voice_keeps_its_budget() -> None:
    voice = presets.deploy(meta("voice", "student"))
    assert parameters(voice) < 2.5 * MILLION
    assert macs(voice, *meta_inputs(voice)) < 200 * MILLION


@pytest.mark.parametrize("preset", presets.preset_names("fusion"))
def test_fusion_costs_next_to_nothing(preset: str) -> None:
    fusion = meta("fusion", preset)
    assert parameters(fusion) < 0.1 * MILLION
    assert macs(fusion, *meta_inputs(fusion)) < 0.2 * MILLION
