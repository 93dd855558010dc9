"""Every network keeps the engine contract, and the parts of the published ones do what the papers say."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("torch", reason="networks are built with torch: pip install liveaffect[train]")

import torch
from torch import Tensor, nn

from liveaffect.engines import manifest as manifests
from liveaffect.engines import parity
from liveaffect.engines.model import presets
from liveaffect.engines.model.blocks import DropPath, SelfAttention, attention_pool, deploy
from liveaffect.engines.model.frontend import SoundPreset
from liveaffect.engines.model.heads import Network
from liveaffect.engines.model.voice_spectrogram import (
    FcnPreset,
    Level,
    LocalNorm,
    NestLevel,
    NestPreset,
    StemConv,
    VoiceFcn,
    VoiceNest,
)

torch.set_num_threads(1)  # tensors are small; a second thread only waits

EVERY = [(kind, preset) for kind in manifests.KINDS for preset in presets.preset_names(kind)]
SHIPPED = [("face", "live"), ("voice", "student"), ("fusion", "late-masked")]
NEST = NestPreset(
    name="small",
    sound=SoundPreset(),
    stem=(StemConv(32, (2, 2)), StemConv(64, (2, 1))),
    block=4,
    levels=(Level(64, 2, 2), Level(128, 4, 2), Level(192, 6, 2)),
)
"""The published hierarchy over a whole picture, a few hundred times smaller."""


def inputs(network: Network, count: int) -> tuple[Tensor, ...]:
    batch = parity.for_tensors(network.kind, count, network.inputs, seed=6)
    return tuple(torch.from_numpy(batch[spec.name]) for spec in network.inputs)


@pytest.mark.parametrize(("kind", "preset"), EVERY)
@pytest.mark.parametrize("count", [1, 3])
def test_a_network_takes_and_gives_the_tensors_of_its_spec(kind: str, preset: str, count: int) -> None:
    """On the meta device: shapes only."""
    with torch.device("meta"):
        network = presets.build(kind, preset)
    network = network.to("meta").eval()
    outputs = network(*(one.to("meta") for one in inputs(network, count)))
    assert outputs._fields == tuple(spec.name for spec in network.outputs)
    for spec, tensor in zip(network.outputs, outputs, strict=True):
        assert tensor.shape == (count, *spec.shape), spec.name
        assert tensor.dtype == getattr(torch, spec.dtype), spec.name
    shapes = {spec.name: spec.shape[0] for spec in network.inputs}
    own = {"piece": shapes["samples"], "width": shapes["mean"]} if kind == "voice" else {}
    assert (network.inputs, network.outputs) == manifests.tensors(kind, **own)


@pytest.mark.parametrize(
    ("preset", "piece", "hop"),
    [("fv2es", 6_600, 6_400), ("amfbp", 31_680, 5_120)],
)
def test_a_voice_network_says_which_pieces_it_wants(preset: str, piece: int, hop: int) -> None:
    with torch.device("meta"):
        network = presets.build("voice", preset)
    assert network.recipe() == {"sample_rate": 16_000, "piece": piece, "hop": hop}
    assert network.inputs[0].shape == (piece,)


@pytest.mark.parametrize(("kind", "preset"), SHIPPED)
def test_an_item_is_judged_alike_alone_and_in_a_batch(kind: str, preset: str) -> None:
    network = deploy(presets.build(kind, preset))
    given = inputs(network, 3)
    with torch.no_grad():
        together, alone = network(*given), network(*(one[1:2] for one in given))
    for a, b in zip(together, alone, strict=True):
        torch.testing.assert_close(a[1:2], b, rtol=1e-4, atol=1e-4)


def test_the_same_seed_gives_the_same_network_and_leaves_the_dice_alone() -> None:
    torch.manual_seed(9)
    before = torch.get_rng_state()
    first, again, other = (presets.build("face", "live", seed=seed) for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), again.parameters(), strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(first.parameters(), other.parameters(), strict=True))


def test_an_unknown_preset_is_refused_with_the_ones_there_are() -> None:
    with pytest.raises(
        ValueError, match="no network 'face big'; there are: face live, face wide, face live-vgg, face fv2es"
    ):
        presets.build("face", "big")


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"block": 8}, "the last level must be one block of 8, is 4"),
        ({"levels": (Level(32, 2, 1), Level(64, 2, 1), Level(96, 2, 1))}, "as wide as the first level"),
        ({"stem": NEST.stem[1:]}, "square map, not 32x32|last level"),
        ({"levels": (Level(64, 3, 1),)}, "cannot be split over 3 heads"),
    ],
)
def test_a_voice_table_that_does_not_fit_together_is_refused(
    change: dict[str, object], complaint: str
) -> None:
    with pytest.raises(ValueError, match=complaint):
        VoiceNest(replace(NEST, **change))  # type: ignore[arg-type]


def test_attention_stays_inside_its_block_until_blocks_are_merged() -> None:
    """Changing one corner of a map changes that block's output and no other."""
    level = VoiceNest(NEST).eval().trunk.levels[0]
    assert isinstance(level, NestLevel)
    torch.manual_seed(2)
    picture = torch.randn(1, 64, 16, 16)
    other = picture.clone()
    other[:, :, :2, :2] = torch.randn(1, 64, 2, 2)
    with torch.no_grad():
        changed = (level(other) - level(picture)).abs().amax(1)[0] > 1e-6
    assert changed[:4, :4].all()
    assert not changed[4:].any()
    assert not changed[:, 4:].any()


@pytest.mark.parametrize("preset", ["nest", "nest-conv"])
def test_what_differs_between_pieces_is_most_of_what_the_narrow_nest_makes_its_vectors_of(
    preset: str,
) -> None:
    """A mean behind a LayerNorm is nearly the same for every piece, and a head learns slowly to see more."""
    network = presets.build("voice", preset, seed=0).train()
    assert isinstance(network, VoiceNest)
    seen: list[Tensor] = []
    linear = next(part for part in network.to_vector.modules() if isinstance(part, nn.Linear))
    linear.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    samples = 0.1 * torch.randn(6, network.sound.piece)
    flat = torch.zeros(6, 64)
    with torch.no_grad():
        network(samples, flat, flat + 1)
        network(samples[:1], flat[:1], flat[:1] + 1)
    assert seen[0].std(0).mean() > 0.8 * seen[0].std()
    assert seen[1].isfinite().all()


def test_stochastic_depth_grows_with_the_layers_as_published() -> None:
    with torch.device("meta"):
        network = presets.build("voice", "fv2es")
    shares = [part.share for part in network.modules() if isinstance(part, DropPath)]
    np.testing.assert_allclose(shares, np.linspace(0, 0.5, 24))


def test_drop_path_leaves_out_whole_items_and_keeps_the_mean() -> None:
    torch.manual_seed(1)
    drop = DropPath(0.25).train()
    kept = drop(torch.ones(4000, 2, 3))
    assert kept.unique().tolist() == pytest.approx([0.0, 4 / 3])
    assert (kept.amax((1, 2)) == kept.amin((1, 2))).all()
    assert kept.mean().item() == pytest.approx(1.0, abs=0.03)
    assert torch.equal(drop.eval()(kept), kept)


def test_attention_is_torchs_attention() -> None:
    torch.manual_seed(1)
    ours, theirs = SelfAttention(16, 4), nn.MultiheadAttention(16, 4, batch_first=True)
    assert theirs.in_proj_weight is not None
    with torch.no_grad():
        ours.mix.weight.copy_(theirs.in_proj_weight)
        ours.mix.bias.copy_(theirs.in_proj_bias)
        ours.out.load_state_dict(theirs.out_proj.state_dict())
        x, present = torch.randn(2, 5, 16), torch.tensor([[True] * 5, [True, True, False, True, False]])
        want = theirs(x, x, x, key_padding_mask=~present)[0]
        torch.testing.assert_close(ours(x, present), want, rtol=1e-4, atol=1e-5)


def test_local_normalisation_is_alexnets_formula() -> None:
    x = 30 * torch.randn(2, 7, 3, 2)
    want = torch.empty_like(x)
    for channel in range(7):
        around = x[:, max(0, channel - 2) : channel + 3]
        want[:, channel] = x[:, channel] / (2 + 1e-4 * (around**2).sum(1)) ** 0.75
    torch.testing.assert_close(LocalNorm()(x), want, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("frames", "columns"), [(67, 1), (200, 5), (300, 8), (500, 14), (1000, 30)])
def test_the_published_convolutions_give_their_published_grid(frames: int, columns: int) -> None:
    with torch.device("meta"):
        network = presets.build("voice", "amfbp")
    grid = network.get_submodule("fcn").to("meta")(torch.zeros(1, 1, 200, frames, device="meta"))
    assert grid.shape == (1, 256, 5, columns)


def small_fcn(attend: str) -> VoiceFcn:
    torch.manual_seed(3)
    preset: FcnPreset = replace(presets.VOICE_AMFBP, widths=(8, 8, 8, 8, 8), attend=attend)
    return VoiceFcn(preset).eval()


def test_attention_chooses_among_cells_or_among_columns() -> None:
    picture = torch.randn(2, 200, 195)
    grid, columns = small_fcn("grid").cells(picture), small_fcn("time").cells(picture)
    assert grid.shape == (2, 25, 8)
    torch.testing.assert_close(columns, grid.reshape(2, 5, 5, 8).mean(1))
    with pytest.raises(ValueError, match="over 'grid' or 'time', not 'both'"):
        small_fcn("both")


def test_pooling_pieces_equals_attending_over_all_their_cells_at_once() -> None:
    network = small_fcn("grid")
    nn.init.normal_(network.attention.weigh.weight, std=5.0)
    cells = torch.randn(4, 9, 8)
    with torch.no_grad():
        attended, score = network.attention(cells)
        whole, _ = network.attention(cells.reshape(1, 36, 8))
        vectors = network.to_vector(attended)
        pooled = attention_pool(vectors[None], score.T, torch.zeros(1, 4), 8.0)
        torch.testing.assert_close(pooled, network.to_vector(whole), rtol=1e-4, atol=1e-5)
    assert score.std() > 0.1
    assert (pooled - vectors.mean(0)).abs().max() > 1e-3


def test_speech_is_a_probability_that_hears_loudness() -> None:
    network = presets.build("voice", "student").eval()
    samples, mean, istd = inputs(network, 2)
    with torch.no_grad():
        loud, quiet = (network(gain * samples, mean, istd).speech for gain in (1.0, 0.01))
    assert ((loud > 0) & (loud < 1)).all()
    assert not torch.allclose(loud, quiet)
