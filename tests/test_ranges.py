"""Each method of choosing a range does what its name says; samples of another network are refused by name."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import numpy_helper

from liveaffect.engines import manifest as manifests
from liveaffect.engines import parity
from liveaffect.engines.build import quantize
from liveaffect.engines.build.quantize import PreparedNetwork, prepare_network
from liveaffect.engines.onnx_engine import OnnxEngine
from liveaffect.engines.protocol import EngineInputError
from liveaffect.realtime.testing import engines


def counted(values: NDArray[np.float64]) -> NDArray[np.float64]:
    heights = np.abs(values) / np.abs(values).max()
    bins = np.minimum((heights * quantize.BINS).astype(int), quantize.BINS - 1)
    return np.bincount(bins, minlength=quantize.BINS).astype(np.float64)


def rounding_error(values: NDArray[np.float64], cut: float) -> float:
    step = cut / quantize.LEVELS
    return float(np.square(values - np.clip(np.rint(values / step), -127, 127) * step).mean())


def test_mse_finds_the_cut_with_the_least_error_of_rounding() -> None:
    values = np.random.default_rng(0).laplace(size=200_000)
    top = float(np.abs(values).max())
    cut = {name: share(counted(values)) * top for name, share in quantize.METHODS.items()}
    errors = {name: rounding_error(values, at) for name, at in cut.items()}
    assert min(errors, key=errors.__getitem__) == "mse"
    assert all(
        errors["mse"] <= 1.01 * rounding_error(values, share * top) for share in np.linspace(0.1, 1, 40)
    )
    assert errors["minmax"] > 1.2 * errors["mse"]


def test_an_outlier_stretches_only_the_range_that_leaves_nothing_out() -> None:
    values = np.append(np.random.default_rng(0).normal(size=100_000), 400.0)
    cut = {name: share(counted(values)) * 400 for name, share in quantize.METHODS.items()}
    assert cut["minmax"] == 400
    assert cut["percentile"] < 10
    assert cut["entropy"] < 60


def test_percentile_keeps_the_share_it_promises() -> None:
    values = np.random.default_rng(1).exponential(size=500_000)
    cut = quantize.METHODS["percentile"](counted(values)) * values.max()
    assert np.mean(values <= cut) == pytest.approx(quantize.WITHIN, abs=2e-5)


def test_the_zeros_of_a_relu_do_not_drive_the_entropy_cut_to_zero() -> None:
    values = np.maximum(np.random.default_rng(2).normal(-1, 1, 300_000), 0)
    assert quantize.METHODS["entropy"](counted(values)) > 0.4


def watched(path: Path, count: int = 32) -> tuple[PreparedNetwork, quantize.Observed]:
    prepared = prepare_network(path)
    return prepared, prepared.observe(parity.split(parity.inputs(prepared.manifest.kind, count), (8,)))


def test_the_largest_magnitudes_are_those_of_the_graph(tmp_path: Path) -> None:
    prepared, observed = watched(engines.write_tiny(tmp_path, "face"))
    engine = OnnxEngine(prepared.manifest, tmp_path)
    found = max(
        float(np.abs(engine.infer(batch)["vector"]).max())
        for batch in parity.split(parity.inputs("face", 32), (8,))
    )
    assert "vector" not in observed.largest  # Made by a product that stays fp32.
    assert found > 0
    assert all(count.sum() % observed.items == 0 for count in observed.counts.values())
    assert observed.cuts("minmax") == observed.largest


def test_what_only_a_relu_reads_gets_the_scale_of_what_comes_out_of_it(tmp_path: Path) -> None:
    prepared, observed = watched(engines.write_tiny(tmp_path, "face"))
    graph = onnx.load_from_string(prepared.quantised(observed.cuts("minmax")))
    scales = {w.name: numpy_helper.to_array(w) for w in graph.graph.initializer if w.name.endswith("_scale")}
    marks = {n.input[0]: float(scales[n.input[1]]) for n in graph.graph.node if n.op_type == "QuantizeLinear"}
    relus = [n for n in prepared.graph.graph.node if n.op_type == "Relu"]
    pairs = [(n.input[0], n.output[0]) for n in relus if n.input[0] in marks and n.output[0] in marks]
    assert pairs
    for before, after in pairs:
        assert marks[before] == marks[after]
        assert observed.largest[before] >= observed.largest[after]


def test_each_layer_has_its_share_of_the_work(tmp_path: Path) -> None:
    prepared, observed = watched(engines.write_tiny(tmp_path, "face"))
    work = prepared.work(observed)
    # 16 x 16 pixels of 32 filters over 16 channels, then 8 x 8 of 32 over 32; the first layer has few terms.
    assert list(work.values()) == pytest.approx([2 / 3, 1 / 3])


@pytest.mark.parametrize("kind", ["face", "voice"])
def test_samples_of_another_network_are_refused_by_name(tmp_path: Path, kind: str) -> None:
    prepared = prepare_network(engines.write_tiny(tmp_path, kind))
    other = {"face": "voice", "voice": "face"}[kind]
    with pytest.raises(EngineInputError, match=r"batch 0 .* these are samples of another network"):
        prepared.observe([parity.inputs(other, 4)])
    with pytest.raises(EngineInputError, match=r"'samples' as float32 \(4, 9600\); .* another network"):
        prepare_network(engines.write_tiny(tmp_path, "voice")).observe(
            [parity.inputs("voice", 4, piece=9600)]
        )


def test_samples_that_are_no_numbers_are_refused_by_name(tmp_path: Path) -> None:
    prepared = prepare_network(engines.write_tiny(tmp_path, "voice"))
    good, bad = parity.split(parity.inputs("voice", 8), (4,))
    bad["mean"] = np.array(bad["mean"])
    bad["mean"][2, 5] = np.nan
    with pytest.raises(EngineInputError, match=r"batch 1 .* not finite in 'mean' \(items \[2\]\)"):
        prepared.observe([good, bad])


def test_a_layer_that_overflows_is_named(tmp_path: Path) -> None:
    path = engines.write_tiny(tmp_path, "face")
    prepared = prepare_network(path)
    weight = prepared.graph.graph.initializer[1]
    weight.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weight) * np.float32(3e38), weight.name))
    with pytest.raises(EngineInputError, match=r"batch 0 of the calibration inputs overflows at '"):
        prepared.observe([parity.inputs("face", 2)])
    assert manifests.read(path).files.keys() == {"face.onnx"}
