"""INT8 keeps the front end exact, answers like fp32, is the same file every time, and TensorRT takes it."""

from __future__ import annotations

import importlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from liveaffect.engines import manifest as manifests
from liveaffect.engines import parity
from liveaffect.engines.build import quantize as quantising
from liveaffect.engines.build.onnx_graph import folded
from liveaffect.engines.build.quantize import METHODS, prepare_network, quantize
from liveaffect.engines.onnx_engine import OnnxEngine
from liveaffect.engines.protocol import EngineFileError
from liveaffect.realtime.testing import engines


def calibration(kind: str, count: int = 32) -> list[parity.Batch]:
    return parity.split(parity.inputs(kind, count), (8,))


@pytest.fixture(params=["face", "voice"])
def path(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return engines.write_tiny(tmp_path, request.param)


@pytest.fixture(scope="module", params=["face", "voice"])
def live(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The manifest of a live preset with random weights, in fp32 and INT8."""
    torch = pytest.importorskip("torch", reason="exports a live preset and needs torch for it")
    from liveaffect.engines.build import export_onnx

    torch.set_num_threads(1)  # More of them spin while they wait for one another.
    preset = {"face": "live", "voice": "student"}[request.param]
    made = export_onnx.export(request.param, preset, tmp_path_factory.mktemp("live"))
    quantize(made, calibration_of(made, 16))
    return made


def calibration_of(path: Path, count: int) -> list[parity.Batch]:
    found = manifests.read(path)
    return parity.split(parity.for_tensors(found.kind, count, found.inputs), (8,))


def both(path: Path) -> tuple[OnnxEngine, OnnxEngine]:
    found = manifests.read(path)
    return OnnxEngine(found, path.parent), OnnxEngine(found, path.parent, "int8")


def graph_of(path: Path) -> onnx.ModelProto:
    return onnx.load(path.parent / manifests.file_name(manifests.read(path).kind, "int8"))


@pytest.mark.parametrize("method", list(METHODS))
def test_every_method_answers_like_fp32(path: Path, method: str) -> None:
    kind = manifests.read(path).kind
    quantize(path, calibration(kind), method=method)
    report = parity.compare(*both(path), parity.inputs(kind, 64, seed=9), tolerance=parity.QUANTISED)
    assert report.alike, "\n".join(report.lines())


def test_a_live_preset_answers_like_fp32(live: Path) -> None:
    fp32, int8 = both(live)
    found = manifests.read(live)
    inputs = parity.for_tensors(found.kind, 64, found.inputs, seed=9)
    report = parity.compare(fp32, int8, inputs, tolerance=parity.QUANTISED)
    assert report.alike, "\n".join(report.lines())
    assert {one.output for one in report.differences} == {tensor.name for tensor in fp32.spec.outputs}


def test_statistics_of_features_are_behind_layers_that_are_quantised(live: Path) -> None:
    """Sums of log-mel belong to the front end; those of learnt features must not keep all layers in fp32."""
    found = manifests.read(live)
    assert found.quantisation["quantised"]["Conv"] == {"face": 9, "voice": 12}[found.kind]


def test_the_front_end_is_exact_to_the_bit(tmp_path: Path) -> None:
    path = engines.write_tiny(tmp_path, "voice")
    quantize(path, calibration("voice"))
    batch = parity.inputs("voice", 8, seed=2)
    wanted, given = (engine.infer(batch) for engine in both(path))
    for name in ("stat_sum", "stat_sumsq"):
        np.testing.assert_array_equal(wanted[name], given[name])


def fed_by_q(graph: onnx.ModelProto, node: onnx.NodeProto) -> list[bool]:
    makers = {name: made.op_type for made in graph.graph.node for name in made.output}
    return [makers.get(name) == "DequantizeLinear" for name in node.input[:2]]


def test_only_products_with_a_weight_behind_the_logarithm_are_quantised(tmp_path: Path) -> None:
    path = engines.write_tiny(tmp_path, "voice")
    quantize(path, calibration("voice"))
    graph = graph_of(path)
    products = [node for node in graph.graph.node if node.op_type in quantising.OP_TYPES]
    kinds = Counter((node.op_type, all(fed_by_q(graph, node))) for node in products)
    # One spectrum, one band mixing, two products of attention and four small heads stay as they are.
    assert kinds == {("Conv", False): 1, ("MatMul", False): 3, ("MatMul", True): 2, ("Gemm", False): 4}
    assert not any(any(fed_by_q(graph, node)) for node in products if not all(fed_by_q(graph, node)))


def test_a_weight_that_is_transposed_in_the_graph_counts_as_a_weight(tmp_path: Path) -> None:
    graph = engines.network("voice")
    product = next(n for n in graph.graph.node if n.op_type == "MatMul" and n.input[1].startswith("weight"))
    weight = next(w for w in graph.graph.initializer if w.name == product.input[1])
    turned = numpy_helper.from_array(np.ascontiguousarray(numpy_helper.to_array(weight).T), weight.name)
    weight.CopyFrom(turned)
    at = list(graph.graph.node).index(product)
    product.input[1] = "turned"
    turn = onnx.helper.make_node("Transpose", [weight.name], ["turned"], name="turn", perm=[1, 0])
    graph.graph.node.insert(at, turn)
    assert product.name not in quantising.quantisable(graph)
    assert product.name in quantising.quantisable(folded(graph.SerializeToString()))


def test_bands_mixed_again_after_the_logarithm_still_belong_to_the_front_end(tmp_path: Path) -> None:
    graph = engines.network("voice")
    total = next(n for n in graph.graph.node if n.output[0] == "stat_sum")
    mixing = numpy_helper.from_array(np.eye(64, dtype=np.float32), "more_mixing")
    graph.graph.initializer.append(mixing)
    again = onnx.helper.make_node("MatMul", ["more_mixing", total.input[0]], ["mixed"], name="mix_again")
    graph.graph.node.insert(list(graph.graph.node).index(total), again)
    total.input[0] = "mixed"
    assert "mix_again" not in quantising.quantisable(graph)


def test_the_file_holds_what_both_run_times_take(live: Path) -> None:
    graph = graph_of(live)
    constants = {w.name: numpy_helper.to_array(w) for w in graph.graph.initializer}
    marks = [n for n in graph.graph.node if n.op_type in ("QuantizeLinear", "DequantizeLinear")]
    assert marks
    for node in marks:
        zero = constants[node.input[2]]
        assert zero.dtype == np.int8
        assert not zero.any()
    weights = [n for n in marks if n.op_type == "DequantizeLinear" and n.input[0] in constants]
    assert all(constants[n.input[0]].dtype == np.int8 for n in weights)
    assert any(constants[n.input[1]].size > 1 for n in weights), "no weight is quantised per channel"


@pytest.mark.parametrize("method", ["minmax", "entropy"])
def test_the_same_inputs_give_the_same_bytes(path: Path, method: str) -> None:
    kind = manifests.read(path).kind
    first = quantize(path, calibration(kind), method=method).read_bytes()
    before = path.read_text()
    assert quantize(path, calibration(kind), method=method).read_bytes() == first
    assert path.read_text() == before


def test_the_manifest_records_how_and_from_what(path: Path) -> None:
    before = manifests.read(path)
    quantize(path, iter(calibration(before.kind)), method="percentile")
    found = manifests.read(path)
    record = found.quantisation
    assert (record["method"], record["items"], record["excluded"]) == ("percentile", 32, [])
    assert record["from"] == before.files[f"{before.kind}.onnx"] == found.files[f"{before.kind}.onnx"]
    other = quantize(path, calibration(before.kind, 24)).read_bytes()
    assert manifests.read(path).quantisation["inputs_sha256"] != record["inputs_sha256"]
    assert manifests.load_bytes(manifests.read(path), path.parent, "int8") == other


def test_layers_left_out_stay_in_fp32(path: Path) -> None:
    kind = manifests.read(path).kind
    names = quantising.quantisable(folded((path.parent / f"{kind}.onnx").read_bytes()))
    quantize(path, calibration(kind), exclude=names[:1])
    graph = graph_of(path)
    products = [n for n in graph.graph.node if n.op_type in quantising.OP_TYPES]
    assert {n.name for n in products if all(fed_by_q(graph, n))} == set(names[1:]) != set()
    assert manifests.read(path).quantisation["excluded"] == names[:1]


def test_a_quantised_file_takes_any_batch(path: Path) -> None:
    kind = manifests.read(path).kind
    quantize(path, calibration(kind))
    _, int8 = both(path)
    for size in (1, 3, 16, 64):
        assert int8.infer(parity.inputs(kind, size))["vector"].shape == (size, 64)


def test_what_cannot_be_quantised_is_refused_with_the_reason(path: Path, tmp_path: Path) -> None:
    kind = manifests.read(path).kind
    batches = calibration(kind)
    names = quantising.quantisable(engines.network(kind))
    with pytest.raises(
        ValueError, match="no calibration method 'guess'; known are minmax, percentile, entropy"
    ):
        quantize(path, batches, method="guess")
    with pytest.raises(ValueError, match="no quantisable node nowhere; it has "):
        quantize(path, batches, exclude=["nowhere"])
    with pytest.raises(ValueError, match="nothing is left of "):
        quantize(path, batches, exclude=names)
    with pytest.raises(ValueError, match="at least one batch of calibration inputs, got none"):
        quantize(path, [])
    with pytest.raises(ValueError, match="a fusion network is not quantised; face and voice networks are"):
        quantize(engines.write_tiny(tmp_path, "fusion"), [])
    (path.parent / f"{kind}.onnx").write_bytes(b"")
    with pytest.raises(EngineFileError, match="truncated or altered"):
        quantize(path, batches)
    assert not (path.parent / f"{kind}.int8.onnx").exists()
    assert set(manifests.read(path).files) == {f"{kind}.onnx"}


def test_nothing_is_printed(path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    quantize(path, calibration(manifests.read(path).kind), method="entropy")
    assert capfd.readouterr() == ("", "")


@pytest.fixture(scope="module")
def tensorrt() -> Iterator[Any]:
    for name in ("tensorrt", "tensorrt_rtx"):
        try:
            yield importlib.import_module(name)
        except ImportError:
            continue
        return
    pytest.skip("neither tensorrt nor tensorrt_rtx is installed: pip install 'liveaffect[rtx]'")


def test_tensorrt_parses_and_builds_the_very_same_file(live: Path, tensorrt: Any) -> None:
    found = manifests.read(live)
    logger = tensorrt.Logger(tensorrt.Logger.ERROR)
    builder = tensorrt.Builder(logger)
    network = builder.create_network(1 << int(tensorrt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = tensorrt.OnnxParser(network, logger)
    parsed = parser.parse(manifests.load_bytes(found, live.parent, "int8"))
    assert parsed, [parser.get_error(i).desc() for i in range(parser.num_errors)]
    profile = builder.create_optimization_profile()
    for tensor in found.inputs:
        profile.set_shape(tensor.name, *((size, *tensor.shape) for size in (1, 4, 64)))
    config = builder.create_builder_config()
    config.add_optimization_profile(profile)
    plan = builder.build_serialized_network(network, config)
    assert plan is not None
    assert plan.nbytes > 10_000


def test_tensorrt_parses_a_file_with_layers_put_back_to_fp32(live: Path, tensorrt: Any) -> None:
    prepared = prepare_network(live)
    observed = prepared.observe(calibration_of(live, 8))
    content = prepared.quantised(observed.cuts("mse"), prepared.layers[:1])
    logger = tensorrt.Logger(tensorrt.Logger.ERROR)
    builder = tensorrt.Builder(logger)
    network = builder.create_network(1 << int(tensorrt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = tensorrt.OnnxParser(network, logger)
    assert parser.parse(content), [parser.get_error(i).desc() for i in range(parser.num_errors)]
