"""Half precision answers like fp32, keeps all tensors, and spares the front end and what would overflow."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from liveaffect.engines import manifest as manifests
from liveaffect.engines import parity, plans, whisper
from liveaffect.engines.build.onnx_graph import folded, half_nodes, to_half
from liveaffect.engines.manifest import SHIPPED
from liveaffect.engines.onnx_engine import OnnxEngine, ort
from liveaffect.engines.protocol import EngineFileError
from liveaffect.realtime.testing import engines

HALF, FULL = TensorProto.FLOAT16, TensorProto.FLOAT


def types_of(content: bytes) -> dict[str, int]:
    """The element type of every value that a node makes."""
    graph = onnx.shape_inference.infer_shapes(onnx.load_from_string(content), strict_mode=True).graph
    values = (*graph.input, *graph.output, *graph.value_info)
    types = {value.name: value.type.tensor_type.elem_type for value in values}
    return types | {weight.name: weight.data_type for weight in graph.initializer}


def nodes_of(content: bytes, *kinds: str) -> list[onnx.NodeProto]:
    return [node for node in onnx.load_from_string(content).graph.node if node.op_type in kinds]


def compared(path: Path, folder: Path) -> parity.Report:
    """The fp32 file of a manifest against its half form, both on ONNX Runtime."""
    found = manifests.read(path)
    content = to_half(plans.source_bytes(found, path.parent, "fp16"))
    (folder / f"{found.kind}.onnx").write_bytes(content)
    half = OnnxEngine(replace(manifests.record_file(found, "fp32", content), foreign={}), folder)
    inputs = parity.for_tensors(found.kind, 64, found.inputs, seed=3)
    return parity.compare(OnnxEngine(found, path.parent), half, inputs, tolerance=parity.HALF)


@pytest.mark.parametrize("kind", ["face", "voice", "fusion"])
def test_half_precision_answers_like_fp32_and_is_not_fp32(kind: str, tmp_path: Path) -> None:
    report = compared(engines.write_tiny(tmp_path / "full", kind), tmp_path)
    assert report.alike, "\n".join(report.lines())
    worst = {one.output: one.largest for one in report.differences}
    assert worst["logits"] > 1e-6, "nothing was rounded, so nothing ran in half precision"
    if kind == "voice":
        assert worst["stat_sum"] == worst["stat_sumsq"] == 0.0


@pytest.mark.parametrize("name", ["face.json", "voice.json", "full/voice.json"])
def test_a_shipped_network_answers_like_fp32(name: str, tmp_path: Path) -> None:
    if why := whisper.why_not(manifests.read(SHIPPED / name)):
        pytest.skip(why)
    report = compared(SHIPPED / name, tmp_path)
    assert report.alike, "\n".join(report.lines())


@pytest.mark.parametrize("level", [0, 255], ids=["black", "white"])
def test_the_darkest_and_the_lightest_picture_stay_in_range(level: int, tmp_path: Path) -> None:
    found = manifests.read(SHIPPED / "face.json")
    content = to_half(manifests.load_bytes(found, SHIPPED, "fp32"))
    (tmp_path / "face.onnx").write_bytes(content)
    half = OnnxEngine(manifests.record_file(found, "fp32", content), tmp_path)
    crop = {"crop": np.full((1, 64, 64, 3), level, np.uint8)}
    wanted = OnnxEngine(found, SHIPPED).infer(crop)
    for name, array in half.infer(crop).items():
        np.testing.assert_allclose(array, wanted[name], atol=0.01 * float(np.abs(wanted[name]).max()))


def test_learnt_products_are_half_and_the_front_end_and_softmax_are_not() -> None:
    content = to_half(engines.network("voice").SerializeToString())
    types = types_of(content)
    spectrum, *rest = nodes_of(content, "Conv")
    assert not rest
    assert {types[name] for name in spectrum.input} == {FULL}
    for node in nodes_of(content, "Log", "Softmax", "ReduceSum", "ReduceMean"):
        assert types[node.input[0]] == FULL, node.name
    assert {types[name] for node in nodes_of(content, "Gemm") for name in node.input} == {HALF}
    bands, *products = nodes_of(content, "MatMul")
    assert {types[name] for name in bands.input} == {FULL}
    assert len(products) == 4
    assert {types[name] for node in products for name in node.input} == {HALF}


@pytest.mark.parametrize("kind", ["face", "voice", "fusion"])
def test_inputs_and_outputs_keep_their_types_and_the_file_is_smaller(kind: str) -> None:
    before = engines.network(kind)
    content = to_half(before.SerializeToString())
    after = onnx.load_from_string(content)
    for was, now in ((before.graph.input, after.graph.input), (before.graph.output, after.graph.output)):
        assert [(v.name, v.type.tensor_type.elem_type) for v in was] == [
            (v.name, v.type.tensor_type.elem_type) for v in now
        ]
    assert content == to_half(before.SerializeToString())


def chain(*nodes: onnx.NodeProto, **constants: NDArray[Any]) -> bytes:
    """x (n, 4) times 100 through `nodes` to y (n, 4)."""
    weights = [numpy_helper.from_array(array, name) for name, array in constants.items()]
    weights.append(numpy_helper.from_array(np.eye(4, dtype=np.float32) * 100, "learnt"))
    product = helper.make_node("MatMul", ["x", "learnt"], ["m"], name="product")
    ends = [helper.make_tensor_value_info(name, FULL, ["n", 4]) for name in "xy"]
    graph = helper.make_graph([product, *nodes], "chain", ends[:1], ends[1:], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model, full_check=True)
    content: bytes = model.SerializeToString()
    return content


def answer(content: bytes, given: float) -> NDArray[np.float32]:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    (y,) = session.run(["y"], {"x": np.full((1, 4), given, np.float32)})
    return np.asarray(y)


@pytest.mark.parametrize(
    ("nodes", "constants"),
    [
        ([helper.make_node("Mul", ["m", "m"], ["y"])], {}),
        ([helper.make_node("Pow", ["m", "c"], ["y"])], {"c": np.float32(2)}),
        ([helper.make_node("Mul", ["m", "c"], ["y"])], {"c": np.float32(1e6)}),
        ([helper.make_node("Div", ["m", "c"], ["y"])], {"c": np.float32(1e-9)}),
        ([helper.make_node("LayerNormalization", ["m", "c"], ["y"])], {"c": np.ones(4, np.float32) * 1e5}),
    ],
    ids=["square", "power", "large constant", "tiny divisor", "norm"],
)
def test_what_would_leave_the_range_of_half_precision_stays_fp32(
    nodes: list[onnx.NodeProto], constants: dict[str, Any]
) -> None:
    content = chain(*nodes, **{name: np.asarray(array) for name, array in constants.items()})
    half = to_half(content)
    assert {n.op_type for n in nodes_of(half, "MatMul", nodes[0].op_type)} == {"MatMul", nodes[0].op_type}
    np.testing.assert_allclose(answer(half, 9.9), answer(content, 9.9), rtol=2e-3, atol=1e-6)
    kept = next(n for n in onnx.load_from_string(half).graph.node if n.op_type == nodes[0].op_type)
    assert types_of(half)[kept.output[0]] == FULL


def test_an_operation_that_is_not_known_to_bear_it_stays_fp32() -> None:
    content = chain(helper.make_node("Softplus", ["m"], ["s"]), helper.make_node("Relu", ["s"], ["y"]))
    model = folded(content)
    kinds = {node.output[0]: node.op_type for node in model.graph.node}
    assert {kinds[name] for name in half_nodes(model)} == {"MatMul", "Relu"}


def test_a_graph_without_a_learnt_product_is_refused() -> None:
    model = onnx.load_from_string(chain(helper.make_node("Relu", ["m"], ["y"])))
    del model.graph.node[0]
    model.graph.node[0].input[0] = "x"
    with pytest.raises(EngineFileError, match="nothing in 'chain' can run in half precision"):
        to_half(model.SerializeToString())
