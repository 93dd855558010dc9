"""The ONNX Runtime engine opens only the network it was promised and answers only with finite numbers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from liveaffect.engines import manifest as manifests
from liveaffect.engines import parity
from liveaffect.engines.onnx_engine import OnnxEngine, session_options
from liveaffect.engines.protocol import EngineFailed, EngineFileError, EngineInputError, zeros_for
from liveaffect.realtime.testing import engines

TASKS = Path("/proc/self/task")
Change = Callable[[onnx.ModelProto], object]


def opened(folder: Path, kind: str = "face", *, threads: int = 1) -> OnnxEngine:
    path = engines.write_tiny(folder, kind)
    return OnnxEngine(manifests.read(path), folder, threads=threads)


def with_graph(folder: Path, graph: onnx.ModelProto, kind: str = "face") -> OnnxEngine:
    """An engine on a file whose sum is right and whose graph may be anything."""
    content = graph.SerializeToString()
    manifest = manifests.record_file(manifests.describe(kind, "tiny"), "fp32", content)
    (folder / f"{kind}.onnx").write_bytes(content)
    return OnnxEngine(manifest, folder)


def test_the_engine_names_network_and_back_end(tmp_path: Path) -> None:
    engine = opened(tmp_path)
    assert engine.spec.name == "face-tiny/onnx"
    assert not engine.spec.trained


def test_the_answer_follows_the_crop(tmp_path: Path) -> None:
    engine = opened(tmp_path)
    first = engine.infer(parity.inputs("face", 2, seed=1))["vector"]
    assert np.abs(first[0] - first[1]).max() > 1e-3


def rename_input(graph: onnx.ModelProto) -> None:
    graph.graph.input[0].name = graph.graph.node[0].input[0] = "picture"


def fix_batch(graph: onnx.ModelProto) -> None:
    for value in (*graph.graph.input, *graph.graph.output):
        value.type.tensor_type.shape.dim[0].ClearField("dim_param")
        value.type.tensor_type.shape.dim[0].dim_value = 1


def drop_score(graph: onnx.ModelProto) -> None:
    del graph.graph.output[1]


def add_output(graph: onnx.ModelProto) -> None:
    graph.graph.node.append(helper.make_node("Identity", ["vector"], ["mood"], name="more"))
    graph.graph.output.append(helper.make_tensor_value_info("mood", TensorProto.FLOAT, ["n", 64]))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (rename_input, r"of another network: among its inputs is wanted crop \(n, 64, 64, 3\) uint8"),
        (drop_score, r"among its outputs is wanted score \(n, 1\) float32, found nothing"),
        (add_output, "has the further outputs mood"),
        (fix_batch, "batches of 1 only: 'crop' has a fixed batch axis"),
    ],
)
def test_a_graph_that_is_not_what_its_manifest_says_is_refused(
    tmp_path: Path, change: Change, words: str
) -> None:
    graph = engines.network("face")
    change(graph)
    with pytest.raises(EngineFileError, match=words) as refusal:
        with_graph(tmp_path, graph)
    assert "copy it again" in str(refusal.value)
    assert "export" not in str(refusal.value), "that would write random weights over it"


def test_a_file_that_is_no_network_is_refused_by_name(tmp_path: Path) -> None:
    content = b"this is no network"
    manifest = manifests.record_file(manifests.describe("face", "tiny"), "fp32", content)
    (tmp_path / "face.onnx").write_bytes(content)
    with pytest.raises(EngineFileError, match=r"ONNX Runtime .* cannot open .*face\.onnx"):
        OnnxEngine(manifest, tmp_path)


def test_an_answer_that_is_not_finite_is_an_error_that_names_output_and_item(tmp_path: Path) -> None:
    graph = engines.network("fusion")
    # The logarithm of the mask is fine for present modalities and minus infinity for absent ones.
    weights = next(node for node in graph.graph.node if node.output[0] == "weights")
    weights.output[0] = "open"
    graph.graph.node.append(helper.make_node("Log", ["mask"], ["weights"], name="log"))
    engine = with_graph(tmp_path, graph, "fusion")
    batch = zeros_for(engine.spec, 3)
    batch["mask"][:] = 1
    engine.infer(batch)
    batch["mask"][1, 0] = 0
    with pytest.raises(EngineFailed, match=r"fusion-tiny/onnx.*'weights'.*items \[1\]"):
        engine.infer(batch)


def test_a_failure_inside_the_runtime_is_an_engine_failure(tmp_path: Path) -> None:
    graph = engines.network("face")
    graph.graph.initializer.append(numpy_helper.from_array(np.array([99]), "far"))
    score = next(node for node in graph.graph.node if node.output[0] == "score")
    score.output[0] = "fine"
    graph.graph.node.append(helper.make_node("Gather", ["vector", "far"], ["score"], name="bad", axis=1))
    with pytest.raises(EngineFailed, match=r"'face-tiny/onnx' failed: .*Gather"):
        with_graph(tmp_path, graph).warm_up()


def test_an_array_that_is_not_contiguous_gives_the_same_answer(tmp_path: Path) -> None:
    engine = opened(tmp_path)
    crop = parity.inputs("face", 4)["crop"]
    wide = np.zeros((8, 64, 128, 3), np.uint8)
    wide[::2, :, ::2] = crop
    strided = engine.infer({"crop": wide[::2, :, ::2]})
    np.testing.assert_array_equal(strided["logits"], engine.infer({"crop": crop})["logits"])


def test_an_engine_on_two_threads_gives_the_same_answers(tmp_path: Path) -> None:
    batch = parity.inputs("voice", 3)
    one, two = opened(tmp_path, "voice"), opened(tmp_path, "voice", threads=2)
    np.testing.assert_allclose(one.infer(batch)["logits"], two.infer(batch)["logits"], atol=1e-5)


@pytest.mark.skipif(not TASKS.is_dir(), reason="counts native threads in /proc, which only Linux has")
def test_an_engine_on_one_thread_starts_none_and_one_on_two_takes_its_own_along(tmp_path: Path) -> None:
    # By their numbers: a thread of an earlier test may end while these are counted.
    before = {task.name for task in TASKS.iterdir()}
    one = opened(tmp_path)
    one.warm_up()
    assert {task.name for task in TASKS.iterdir()} <= before
    two = opened(tmp_path, threads=2)
    two.warm_up()
    assert len({task.name for task in TASKS.iterdir()} - before) == 1
    two.close()
    assert {task.name for task in TASKS.iterdir()} <= before


def test_waiting_threads_do_not_spin() -> None:
    options = session_options(2)
    assert options.get_session_config_entry("session.intra_op.allow_spinning") == "0"
    assert options.intra_op_num_threads == 2


def test_no_threads_at_all_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="at least one thread, got 0"):
        opened(tmp_path, threads=0)


def test_a_wrong_crop_is_refused_with_what_was_wanted_and_given(tmp_path: Path) -> None:
    engine = opened(tmp_path)
    with pytest.raises(
        EngineInputError, match=r"wants crop \(n, 64, 64, 3\) uint8, got \(1, 3, 64, 64\) uint8"
    ):
        engine.submit({"crop": np.zeros((1, 3, 64, 64), np.uint8)})
