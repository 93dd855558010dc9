"""INT8 is chosen by measurement, spares what is fragile, and is refused where it costs too much."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import numpy_helper

from liveaffect.calibration import int8_tables
from liveaffect.calibration.int8 import (
    Int8Options,
    Int8TooCostly,
    Limits,
    calibrate_int8,
    calibrate_network,
    fragile,
    table_of,
)
from liveaffect.calibration.int8_tables import Layer
from liveaffect.calibration.reliability import UnfitSamples
from liveaffect.calibration.samples import Exam, Samples
from liveaffect.engines import manifest as manifests
from liveaffect.engines import parity
from liveaffect.engines.build.quantize import METHODS, prepare_network
from liveaffect.engines.onnx_engine import OnnxEngine
from liveaffect.engines.protocol import EngineFileError, EngineInputError, EngineUnavailable, Tensors
from liveaffect.engines.recipe import LABELS
from liveaffect.realtime.testing import engines

DOCS = Path(__file__).resolve().parent.parent / "docs" / "results" / "int8"
GENEROUS = Limits(points=100, flips=100)


def quiet(line: str) -> None:
    """Say nothing."""


def questions(path: Path, count: int = 96) -> tuple[Samples, Exam]:
    """Made inputs; what fp32 answers is the truth."""
    found = manifests.read(path)
    inputs = parity.inputs(found.kind, count, seed=9)
    engine = OnnxEngine(found, path.parent)
    parts = parity.split(inputs, (32,))
    truth = np.concatenate([engine.infer(part)["logits"] for part in parts]).argmax(axis=1)
    batches = tuple(parity.split(parity.inputs(found.kind, 48), (16,)))
    return Samples(batches, "0" * 64, ("made up",)), Exam(inputs, truth.astype(np.int64))


def with_outliers(path: Path, factor: float = 3000.0) -> str:
    """Let one channel in front of a layer be huge and count for nothing: the same answers, another range."""
    graph = onnx.load(path.parent / "face.onnx")
    weights = {w.name: w for w in graph.graph.initializer}
    first, second = [node for node in graph.graph.node if node.op_type == "Conv"][:2]
    for node, at, by in ((first, np.s_[0], factor), (second, np.s_[:, 0], 1 / factor)):
        values = np.array(numpy_helper.to_array(weights[node.input[1]]))
        values[at] *= by
        weights[node.input[1]].CopyFrom(numpy_helper.from_array(values, node.input[1]))
    content = graph.SerializeToString()
    (path.parent / "face.onnx").write_bytes(content)
    manifests.write(manifests.record_file(manifests.read(path), "fp32", content), path)
    return str(second.name)


@pytest.fixture(params=["face", "voice"])
def path(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return engines.write_tiny(tmp_path, request.param)


def test_every_method_is_compared_and_the_least_divergence_wins(path: Path) -> None:
    outcome = calibrate_network(path, *questions(path), GENEROUS, quiet)
    assert set(outcome.methods) == set(METHODS)
    assert outcome.methods[outcome.method].divergence == min(m.divergence for m in outcome.methods.values())
    assert all(found.divergence > 0 for found in outcome.methods.values())
    assert outcome.fp32.divergence == outcome.fp32.flips == 0
    assert outcome.fp32.accuracy == 1
    assert outcome.int8.accuracy == 1 - outcome.int8.flips
    found = manifests.read(path)
    assert found.quantisation["method"] == outcome.method
    assert found.quantisation["samples_sha256"] == "0" * 64
    assert set(found.quantisation["sensitivity"]) == set(prepare_network(path).layers)
    assert manifests.load_bytes(found, path.parent, "int8") == outcome.content


def test_the_same_inputs_give_the_same_file_and_manifest(path: Path) -> None:
    calibrate_network(path, *questions(path), GENEROUS, quiet)
    before = {p.name: p.read_bytes() for p in path.parent.iterdir()}
    calibrate_network(path, *questions(path), GENEROUS, quiet)
    assert {p.name: p.read_bytes() for p in path.parent.iterdir()} == before


def test_a_layer_behind_an_outlier_is_found_and_goes_back_to_fp32(tmp_path: Path) -> None:
    path = engines.write_tiny(tmp_path, "face")
    samples, exam = questions(path)
    sound = calibrate_network(path, samples, exam, GENEROUS, quiet)
    name = with_outliers(path)
    hurt = calibrate_network(path, samples, exam, Limits(points=100, flips=100, work=0.0), quiet)
    assert hurt.excluded == ()
    assert hurt.int8.divergence > 20 * sound.int8.divergence
    worst = max(hurt.layers, key=lambda layer: layer.divergence)
    assert worst.name == name
    assert worst.harm(hurt.layers) > 0.9
    # It is two thirds of this small network's work, so both the price and what counts as fragile are raised.
    limits = Limits(points=100, flips=100, harm_to_work=1.2, work=0.7)
    healed = calibrate_network(path, samples, exam, limits, quiet)
    assert healed.excluded == (name,)
    assert manifests.read(path).quantisation["excluded"] == [name]
    assert healed.int8.divergence < hurt.int8.divergence / 10


def test_layers_also_go_back_when_the_limits_cannot_be_kept_otherwise(tmp_path: Path) -> None:
    path = engines.write_tiny(tmp_path, "face")
    name = with_outliers(path)
    outcome = calibrate_network(path, *questions(path), Limits(harm_to_work=99, work=0.7), quiet)
    assert outcome.excluded == (name,)
    assert 100 * outcome.int8.flips <= 2


def test_what_costs_too_much_is_refused_and_what_was_there_stays(tmp_path: Path) -> None:
    path = engines.write_tiny(tmp_path, "face")
    calibrate_network(path, *questions(path), GENEROUS, quiet)
    name = with_outliers(path)
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    with pytest.raises(
        Int8TooCostly, match=r"it loses .* points of accuracy .allowed 0.5.*% otherwise"
    ) as told:
        calibrate_network(path, *questions(path), Limits(), quiet)
    for word in ("face-tiny", "minmax, percentile, entropy, mse", name, "What was there stays", "--limit-"):
        assert word in str(told.value)
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before


def layer(name: str, work: float, harm: float) -> Layer:
    return Layer(name, work, harm, 0.0)


def test_the_worst_go_back_first_as_far_as_the_price_allows() -> None:
    layers = (
        layer("a", 0.1, 0.30),
        layer("b", 0.2, 0.40),
        layer("c", 0.1, 0.20),
        layer("d", 0.6, 0.1),
    )
    assert fragile(layers, Limits(work=1.0)) == ("a", "b", "c")
    assert fragile(layers, Limits(work=0.2)) == ("a", "c")
    assert fragile(layers, Limits(work=0.0)) == ()
    assert fragile(layers, Limits(work=1.0, harm_to_work=2.5)) == ("a",)
    assert fragile(layers, Limits(work=1.0, unnoticed=2.5)) == ("a", "b")


def test_a_network_is_never_left_without_a_quantised_layer() -> None:
    layers = (layer("a", 0.5, 0.5), layer("b", 0.5, 0.5))
    assert fragile(layers, Limits(work=1.0, harm_to_work=0.5)) == ()


def spoilt_shape(samples: Samples, exam: Exam) -> tuple[Samples, Exam]:
    batches = tuple({"crop": batch["crop"][:, :32]} for batch in samples.batches)
    return Samples(batches, samples.sha256, samples.conditions), exam


def other_network(samples: Samples, exam: Exam) -> tuple[Samples, Exam]:
    return Samples((parity.inputs("voice", 8),), samples.sha256, samples.conditions), exam


@pytest.mark.parametrize("spoil", [spoilt_shape, other_network])
def test_samples_of_another_network_are_refused_and_nothing_changes(
    tmp_path: Path, spoil: Callable[[Samples, Exam], tuple[Samples, Exam]]
) -> None:
    path = engines.write_tiny(tmp_path, "face")
    before = path.read_bytes()
    with pytest.raises(EngineInputError, match="these are samples of another network"):
        calibrate_network(path, *spoil(*questions(path)), GENEROUS, quiet)
    assert path.read_bytes() == before
    assert not (tmp_path / "face.int8.onnx").exists()


def test_samples_that_are_no_numbers_are_refused(tmp_path: Path) -> None:
    path = engines.write_tiny(tmp_path, "voice")
    samples, exam = questions(path)
    samples.batches[1]["samples"][3, 7] = np.nan
    with pytest.raises(EngineInputError, match=r"batch 1 .* not finite in 'samples' \(items \[3\]\)"):
        calibrate_network(path, samples, exam, GENEROUS, quiet)


def test_recordings_in_which_int8_hears_nothing_count_as_called_otherwise(tmp_path: Path) -> None:
    path = engines.write_tiny(tmp_path, "face")
    samples, exam = questions(path)
    wanted = np.concatenate(
        [
            OnnxEngine(manifests.read(path), tmp_path).infer(p)["logits"]
            for p in parity.split(dict(exam.inputs), (32,))
        ]
    )

    def deaf(answers: Tensors) -> NDArray[np.float32]:
        logits: NDArray[np.float32] = np.array(answers["logits"])
        if not np.array_equal(logits, wanted):
            logits[:24] = np.nan
        return logits

    outcome = calibrate_network(path, samples, Exam(exam.inputs, exam.truth, deaf), GENEROUS, quiet)
    assert outcome.fp32.flips == 0
    assert outcome.int8.flips >= 0.25
    assert outcome.int8.accuracy <= 0.75


def test_the_tables_are_read_as_they_were_written(path: Path, tmp_path: Path) -> None:
    outcome = calibrate_network(path, *questions(path), GENEROUS, quiet)
    kind = manifests.read(path).kind
    table = table_of(kind, outcome)
    int8_tables.write_int8(tmp_path / "tables", table)
    found = int8_tables.read_int8(tmp_path / "tables", kind)
    assert (found.method, found.items, found.model) == (table.method, table.items, table.model)
    assert list(found.forms) == ["fp32", *METHODS, "chosen"]
    assert found.forms["mse"].flips == pytest.approx(table.forms["mse"].flips, abs=1e-6)
    assert [one.name for one in found.layers] == [one.name for one in table.layers]
    text = int8_tables.markdown(found)
    assert (tmp_path / "tables" / f"{kind}.md").read_text() == text
    assert all(f"`{one.name}`" in text for one in found.layers)
    (tmp_path / "tables" / f"{kind}_methods.csv").write_text("a,b\n1,2\n")
    with pytest.raises(ValueError, match="no tables of an INT8 calibration"):
        int8_tables.read_int8(tmp_path / "tables", kind)


@pytest.mark.parametrize("path", sorted(DOCS.glob("*.md")), ids=lambda path: path.stem)
def test_the_committed_pages_follow_from_the_committed_tables(path: Path) -> None:
    assert path.read_text("utf-8") == int8_tables.markdown(int8_tables.read_int8(DOCS, path.stem))


def small_corpus(folder: Path, each: int) -> Path:
    import cv2

    rng = np.random.default_rng(0)
    for label in LABELS:
        (folder / "faces" / label).mkdir(parents=True)
        for number in range(each):
            picture = rng.integers(0, 255, (48, 48), np.uint8)
            cv2.imwrite(str(folder / "faces" / label / f"person{number}_1.png"), picture)
    return folder


def trained_on(data: Path, folder: Path) -> Path:
    """A tiny face network whose manifest says that it was trained on the train side of a corpus."""
    from liveaffect.engines.training import corpora_faces
    from liveaffect.engines.training.corpora_faces import load_split

    path = engines.write_tiny(folder, "face")
    sides = load_split(corpora_faces.find_faces(data), folder / "splits.json")
    training = {"corpora": list(sides.corpora), "splits": sides.digest}
    manifests.write(manifests.extended(manifests.read(path), training=training), path)
    return path


def test_calibrating_a_face_network_loads_no_torch() -> None:
    code = (
        "import sys, liveaffect.calibration.int8, liveaffect.calibration.samples; "
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=False).returncode == 0


def test_the_command_calibrates_a_face_network_on_the_calibrate_side(tmp_path: Path) -> None:
    data = small_corpus(tmp_path / "data", 150)
    path = trained_on(data, tmp_path / "weights")
    said: list[str] = []
    limits = {"points": 100.0, "flips": 100.0}
    calibrate_int8(Int8Options(data, ("face",), path.parent, tmp_path / "out", limits), said.append)
    found = manifests.read(path)
    assert found.has("int8")
    frozen = json.loads((path.parent / "samples.json").read_text())["samples"]["face of plain"]
    assert frozen["sha256"] == found.quantisation["samples_sha256"]
    assert found.quantisation["judged_on"] >= 32
    assert any("ms in INT8" in line and "points of accuracy" in line for line in said)
    assert int8_tables.read_int8(tmp_path / "out", "face").method == found.quantisation["method"]


def test_the_command_refuses_what_was_trained_on_other_sides_or_not_at_all(tmp_path: Path) -> None:
    data = small_corpus(tmp_path / "data", 20)
    path = trained_on(data, tmp_path / "weights")
    with pytest.raises(UnfitSamples, match=r"samples to calibrate INT8 on: .* too few"):
        calibrate_int8(Int8Options(data, ("face",), path.parent), quiet)
    training = {**manifests.read(path).training, "splits": "f" * 64}
    manifests.write(manifests.extended(manifests.read(path), training=training), path)
    with pytest.raises(EngineFileError, match="was trained on other sides of plain"):
        calibrate_int8(Int8Options(data, ("face",), path.parent), quiet)
    engines.write_tiny(path.parent, "face")
    with pytest.raises(EngineFileError, match="was never trained"):
        calibrate_int8(Int8Options(data, ("face",), path.parent), quiet)
    path.write_text("{")
    with pytest.raises(EngineFileError, match=r"the manifest .* is damaged"):
        calibrate_int8(Int8Options(data, ("face",), path.parent), quiet)
    with pytest.raises(EngineUnavailable, match="there are no weights of face in "):
        calibrate_int8(Int8Options(data, ("face",), tmp_path / "nowhere"), quiet)
