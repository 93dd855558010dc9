"""What export writes answers exactly like the module it came from, at any batch size, or is not written."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest

from liveaffect.engines import manifest as manifests
from liveaffect.engines import parity
from liveaffect.engines.onnx_engine import OnnxEngine
from liveaffect.engines.protocol import EngineFileError
from liveaffect.engines.recipe import CROP_SIZE

torch = pytest.importorskip("torch", reason="needs torch: pip install 'liveaffect[train]'")

from torch import Tensor, nn

from liveaffect.engines.build import export_onnx
from liveaffect.engines.model import presets
from liveaffect.engines.torch_engine import TorchEngine, open_weights

HUGE = ("voice", "fv2es")
"""A hundred million weights: half a minute and three gigabytes."""
NETWORKS = [
    pytest.param(kind, preset, marks=pytest.mark.slow if (kind, preset) == HUGE else ())
    for kind in manifests.KINDS
    for preset in presets.preset_names(kind)
    if preset
    != "whisper"  # It stands on a file that is not ours; tests/test_full_voice.py has one made for it.
]
LIGHT = [
    ("face", "live"),
    ("voice", "student"),
    ("voice", "amfbp"),
    ("fusion", "late"),
    ("fusion", "amfbp"),
]
EACH_BATCH_ONCE = 1 + 3 + 16


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    """Torch's threads wait for one another by spinning, which takes seconds on a busy machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def with_random_norms(kind: str, preset: str) -> nn.Module:
    """A training-form network whose BatchNorm statistics are far from their start."""
    module = presets.build(kind, preset, seed=3)
    generator = torch.Generator().manual_seed(4)
    # Untrained single convolutions hand on a sixth of the variance: behind ten of them nothing would be left.
    handed_on = 1 / 6 if preset == "live-vgg" else 1.0
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d):
            assert part.running_mean is not None
            assert part.running_var is not None
            part.running_mean.normal_(0, 0.3, generator=generator)
            part.running_var.uniform_(0.5 * handed_on, 2.0 * handed_on, generator=generator)
            with torch.no_grad():
                part.weight.uniform_(0.7, 1.4, generator=generator)
                part.bias.normal_(0, 0.2, generator=generator)
    return module


@pytest.fixture(autouse=True)
def _narrower_voice_of_fv2es(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its kind of layers, a quarter as wide and a third as deep: the file is exact or not for both alike."""
    whole = presets.VOICE_FV2ES
    levels = tuple(
        replace(level, width=level.width // 4, heads=level.heads // 4, depth=min(level.depth, 6))
        for level in whole.levels
    )
    small = replace(whole, stem=(replace(whole.stem[0], width=32),), levels=levels, flatten=256)
    monkeypatch.setattr(presets, "VOICE_FV2ES", small)


@pytest.mark.parametrize(("kind", "preset"), NETWORKS)
def test_onnx_runtime_answers_like_the_unfolded_module_at_batch_1_3_and_16(
    tmp_path: Path, kind: str, preset: str
) -> None:
    module = with_random_norms(kind, preset)
    path = export_onnx.export(kind, preset, tmp_path, state=module.state_dict())
    found = manifests.read(path)
    reference = TorchEngine(module, found.spec("fp32", "torch"), found.kind)
    count = 64 if (kind, preset) in LIGHT else EACH_BATCH_ONCE
    inputs = parity.for_tensors(kind, count, found.inputs, seed=1)
    report = parity.compare(reference, OnnxEngine(found, tmp_path), inputs, tolerance=parity.EXACT)
    assert report.alike, "\n".join(report.lines())
    assert report.items == count
    assert max(one.largest for one in report.differences) <= 1e-4


@pytest.mark.parametrize(("kind", "preset"), LIGHT)
def test_the_reference_finds_its_weights_in_the_exported_file(tmp_path: Path, kind: str, preset: str) -> None:
    module = with_random_norms(kind, preset)
    found = manifests.read(export_onnx.export(kind, preset, tmp_path, state=module.state_dict()))
    again = open_weights(found, tmp_path)
    one = TorchEngine(presets.deploy(module), again.spec, found.kind)
    batch = parity.for_tensors(kind, 3, found.inputs)
    wanted, given = one.infer(batch), again.infer(batch)
    for name, array in wanted.items():
        np.testing.assert_array_equal(given[name], array)


def test_weights_of_another_preset_are_not_taken_for_the_reference(tmp_path: Path) -> None:
    path = export_onnx.export("face", "live", tmp_path)
    found = replace(manifests.read(path), preset="fv2es")
    with pytest.raises(EngineFileError, match=r"face\.onnx does not hold the weights of preset 'fv2es'"):
        open_weights(found, tmp_path)


def test_names_batch_axis_and_shapes_are_those_of_the_protocol(tmp_path: Path) -> None:
    path = export_onnx.export("voice", "student", tmp_path)
    found = manifests.read(path)
    graph = onnx.load(tmp_path / "voice.onnx")
    assert [opset.version for opset in graph.opset_import] == [export_onnx.OPSET]
    for values, wanted in ((graph.graph.input, found.inputs), (graph.graph.output, found.outputs)):
        dims = {v.name: [d.dim_param or d.dim_value for d in v.type.tensor_type.shape.dim] for v in values}
        assert dims == {tensor.name: ["n", *tensor.shape] for tensor in wanted}


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(tmp_path: Path) -> None:
    sums = [
        manifests.read(export_onnx.export("face", "live", tmp_path / name, seed=seed)).files["face.onnx"]
        for name, seed in (("a", 1), ("b", 1), ("c", 2))
    ]
    assert sums[0] == sums[1] != sums[2]


def test_random_weights_count_as_untrained_and_a_training_record_makes_them_trained(tmp_path: Path) -> None:
    path = export_onnx.export("face", "live", tmp_path)
    assert not manifests.read(path).spec("fp32", "onnx").trained
    export_onnx.export("face", "live", tmp_path, training={"corpora": ["made up"]})
    assert manifests.read(path).training == {"corpora": ["made up"]}
    assert manifests.read(path).spec("fp32", "onnx").trained


def test_a_training_form_is_refused_and_nothing_is_written(tmp_path: Path) -> None:
    module = presets.build("face", "live")
    for form in (module.train(), module.eval()):
        with pytest.raises(ValueError, match=r"training form.*BatchNorm.*deploy\(module\)"):
            export_onnx.write_network(form, manifests.describe("face", "live"), tmp_path)
    folded = presets.deploy(module)
    folded.train()
    with pytest.raises(ValueError, match=r"training form \(it is training\)"):
        export_onnx.write_network(folded, manifests.describe("face", "live"), tmp_path)
    assert list(tmp_path.iterdir()) == []


class Flat(nn.Module):
    """The smallest face network: a mean and one product."""

    def __init__(self, forward: Callable[[Tensor], Tensor] | None = None) -> None:
        super().__init__()
        self.last = nn.Linear(3, 64 + 1 + 7)
        self.look = forward or (lambda crop: crop.float().mean((1, 2)) / 255)

    def forward(self, crop: Tensor) -> tuple[Tensor, ...]:
        out: tuple[Tensor, ...] = self.last(self.look(crop)).split([64, 1, 7], dim=1)
        return out


def test_a_module_that_bakes_a_batch_size_in_is_refused_and_nothing_is_written(tmp_path: Path) -> None:
    def by_size(crop: Tensor) -> Tensor:
        light = crop.float().mean((1, 2)) / 255
        return light * 2 if bool((light > 0.5).any()) else light

    with pytest.raises(ValueError, match=r"'face-flat' cannot be exported for every batch: .*trace"):
        export_onnx.write_network(Flat(by_size).eval(), manifests.describe("face", "flat"), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_network_with_outputs_of_another_size_is_refused_and_nothing_is_written(tmp_path: Path) -> None:
    class Wide(Flat):
        def forward(self, crop: Tensor) -> tuple[Tensor, ...]:
            vector, score, logits = super().forward(crop)
            return torch.cat([vector, vector], 1), score, logits

    with pytest.raises(
        EngineFileError, match=r"'vector' of 'face-flat' has \[128\] numbers an item, wanted are \[64\]"
    ):
        export_onnx.write_network(Wide().eval(), manifests.describe("face", "flat"), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_answers_that_are_views_of_one_another_become_the_callers_own(tmp_path: Path) -> None:
    path = export_onnx.write_network(Flat().eval(), manifests.describe("face", "flat"), tmp_path)
    engine = TorchEngine(Flat(), manifests.read(path).spec("fp32", "torch"), "face")
    answer = engine.infer({"crop": np.zeros((2, CROP_SIZE, CROP_SIZE, 3), np.uint8)})
    kept = answer["logits"].copy()
    answer["vector"][:] = 7
    np.testing.assert_array_equal(answer["logits"], kept)
