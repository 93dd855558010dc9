"""`auto` takes the best engine that really works here and says in one line why it took nothing better."""

from __future__ import annotations

import builtins
import json
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from liveaffect.engines import load as loading
from liveaffect.engines import manifest, parity, stopwatch
from liveaffect.engines.build import quantize
from liveaffect.engines.load import load
from liveaffect.engines.protocol import EngineFileError, EngineUnavailable, Tensors
from liveaffect.realtime.testing import engines


@pytest.fixture(scope="module")
def quantised(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with all three networks, face and voice in INT8 too."""
    folder = tmp_path_factory.mktemp("weights")
    for kind in manifest.KINDS:
        path = engines.write_tiny(folder, kind)
        if kind != "fusion":
            quantize.quantize(path, parity.split(parity.inputs(kind, 16), (16,)))
    return folder


@pytest.fixture
def folder(quantised: Path, tmp_path: Path) -> Path:
    """A copy that a test may spoil."""
    return Path(shutil.copytree(quantised, tmp_path / "weights"))


def costs(monkeypatch: pytest.MonkeyPatch, fp32_ns: int, int8_ns: int) -> None:
    monkeypatch.setattr(stopwatch, "median_ns", lambda calls, rounds: [fp32_ns, int8_ns])


@pytest.mark.parametrize("kind", ["face", "voice"])
@pytest.mark.parametrize(
    ("fp32_ns", "int8_ns", "wanted"), [(700_000, 300_000, "onnx-int8"), (300_000, 700_000, "onnx")]
)
def test_auto_takes_int8_only_where_it_is_faster(
    quantised: Path, monkeypatch: pytest.MonkeyPatch, kind: str, fp32_ns: int, int8_ns: int, wanted: str
) -> None:
    costs(monkeypatch, fp32_ns, int8_ns)
    said: list[str] = []
    engine = load(kind, weights=quantised, report=said.append)
    assert engine.spec.name == f"{kind}-tiny/{wanted}"
    assert len(said) == 1
    assert "\n" not in said[0]
    for words in (engine.spec.name, "0.70 ms", "0.30 ms", "not on a GPU: "):
        assert words in said[0]
    engine.infer(parity.inputs(kind, 2))


def test_auto_measures_for_itself_on_this_machine(quantised: Path) -> None:
    said: list[str] = []
    engine = load("face", weights=quantised, report=said.append)
    assert engine.spec.name in ("face-tiny/onnx", "face-tiny/onnx-int8")
    assert "the faster here" in said[0]


def test_int8_that_answers_otherwise_than_fp32_is_not_taken(folder: Path, tmp_path: Path) -> None:
    other = engines.write_tiny(tmp_path / "other", "face", seed=1)
    content = quantize.quantize(other, [parity.inputs("face", 4)]).read_bytes()
    path = folder / "face.json"
    (folder / "face.int8.onnx").write_bytes(content)
    manifest.write(manifest.record_file(manifest.read(path), "int8", content), path)
    said: list[str] = []
    assert load("face", weights=folder, report=said.append).spec.name == "face-tiny/onnx"
    assert "not INT8: its answers differ from fp32 here (vector follows what is asked with" in said[0]


def test_without_an_int8_file_auto_says_so_and_takes_fp32(tmp_path: Path) -> None:
    engines.write_tiny(tmp_path, "voice")
    said: list[str] = []
    assert load("voice", weights=tmp_path, report=said.append).spec.name == "voice-tiny/onnx"
    assert "not INT8: there is no such file" in said[0]


@pytest.mark.parametrize("kind", manifest.KINDS)
def test_with_no_weights_installed_scripted_rules_stand_in_and_say_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setattr(loading, "SHIPPED", tmp_path)
    said: list[str] = []
    engine = load(kind, report=said.append)
    assert not engine.spec.trained
    assert engine.spec.model == "scripted"
    assert said == [f"{kind}: scripted rules stand in, because no weights are installed in {tmp_path}"]


def test_weights_that_were_asked_for_and_are_not_there_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(EngineFileError, match=r"no manifest .*face\.json"):
        load("face", weights=tmp_path)


@pytest.mark.parametrize("name", ["face.onnx", "face.int8.onnx", "face.json"])
def test_auto_never_steps_over_a_damaged_file(folder: Path, name: str) -> None:
    content = (folder / name).read_bytes()
    (folder / name).write_bytes(content[: len(content) // 2])
    with pytest.raises(EngineFileError, match=name):
        load("face", weights=folder)


def test_a_manifest_of_another_network_is_refused(folder: Path) -> None:
    with pytest.raises(EngineFileError, match=r"voice\.json describes a voice network, wanted is a face"):
        load("face", weights=folder / "voice.json")


def test_a_gpu_that_is_required_is_never_silently_replaced(quantised: Path) -> None:
    with pytest.raises(EngineUnavailable, match="cannot run on a GPU here: ") as refusal:
        load("face", weights=quantised, require_gpu=True)
    assert str(loading.why_not_on_gpu()) in str(refusal.value)


def test_asking_for_tensorrt_says_why_it_cannot_be_had(quantised: Path) -> None:
    with pytest.raises(EngineUnavailable, match="the voice network cannot run on a GPU here: "):
        load("voice", choice="tensorrt", weights=quantised)


@pytest.mark.parametrize("choice", ["auto", "tensorrt", "onnx-int8", "onnx"])
def test_fusion_always_runs_in_fp32_on_the_processor(quantised: Path, choice: str) -> None:
    engine = load("fusion", choice=choice, weights=quantised, require_gpu=choice == "tensorrt")
    assert engine.spec.name == "fusion-tiny/onnx"


@pytest.mark.parametrize(("choice", "name"), [("onnx", "onnx"), ("onnx-int8", "onnx-int8")])
def test_a_back_end_that_was_chosen_is_the_one_that_runs(quantised: Path, choice: str, name: str) -> None:
    said: list[str] = []
    engine = load("face", choice=choice, weights=quantised, report=said.append)
    assert engine.spec.name == f"face-tiny/{name}"
    assert said == [f"face: '{engine.spec.name}'"]


def test_scripted_can_be_chosen_where_weights_are(quantised: Path) -> None:
    assert load("face", choice="scripted", weights=quantised).spec.model == "scripted"


def test_an_unknown_engine_or_kind_is_refused_with_the_known_ones() -> None:
    with pytest.raises(EngineUnavailable, match="no engine 'abacus'; known are auto, tensorrt"):
        load("face", choice="abacus")
    with pytest.raises(ValueError, match="no kind of network 'smell'; known are face"):
        load("smell")


@pytest.mark.parametrize(
    ("module", "choice", "words"),
    [
        ("liveaffect.engines.onnx_engine", "onnx", "onnxruntime"),
        ("liveaffect.engines.torch_engine", "torch", r"liveaffect\[train\]"),
    ],
)
def test_a_package_that_is_missing_is_named(
    quantised: Path, monkeypatch: pytest.MonkeyPatch, module: str, choice: str, words: str
) -> None:
    real = builtins.__import__

    def without(name: str, *rest: object) -> ModuleType:
        if name == module:
            raise ModuleNotFoundError("No module named 'missing'")
        return real(name, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(EngineUnavailable, match=words):
        load("face", choice=choice, weights=quantised)


def test_the_planner_gets_the_numbers_of_the_network_that_will_run(folder: Path) -> None:
    path = folder / "voice.json"
    entry = json.loads(path.read_text())
    entry["recipe"]["hop"] = 6400
    path.write_text(json.dumps(entry))
    assert loading.recipe_numbers("voice", weights=folder).hop == 6400
    assert loading.recipe_numbers("voice", choice="scripted", weights=folder).hop == 3200


def test_costs_are_medians_taken_in_turns() -> None:
    now, order = [0], ""

    def call(name: str, taken_ns: list[int]) -> None:
        nonlocal order
        order += name
        now[0] += taken_ns.pop()

    a, b = [1, 900, 3], [20, 10, 700]
    costs_ns = stopwatch.median_ns([lambda: call("a", a), lambda: call("b", b)], rounds=3, now=lambda: now[0])
    assert (costs_ns, order) == ([3, 20], "ababab")


def test_processor_time_moves_only_while_working() -> None:
    start_ns = stopwatch.thread_cpu_ns()
    sum(range(100_000))
    assert stopwatch.thread_cpu_ns() > start_ns


def test_running_a_network_needs_neither_torch_nor_onnx(quantised: Path) -> None:
    program = (
        "import sys; from pathlib import Path\n"
        "from liveaffect.engines.load import load; from liveaffect.engines.protocol import zeros_for\n"
        "for kind in ('face', 'voice', 'fusion'):\n"
        "    engine = load(kind, weights=Path(sys.argv[1])); engine.infer(zeros_for(engine.spec))\n"
        "print([name for name in ('torch', 'onnx') if name in sys.modules])"
    )
    run = subprocess.run(
        [sys.executable, "-c", program, str(quantised)], capture_output=True, text=True, check=True
    )
    assert run.stdout.strip() == "[]"


def test_the_answers_of_auto_are_those_of_the_network(quantised: Path) -> None:
    batch: Tensors = parity.inputs("face", 3)
    auto = load("face", weights=quantised).infer(batch)
    assert auto["logits"].shape == (3, 7)
    assert (
        auto["logits"].argmax(1)
        == load("face", choice="onnx", weights=quantised).infer(batch)["logits"].argmax(1)
    ).all()
