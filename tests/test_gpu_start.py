"""Plans are built in a process of their own while the CPU works; a network moves when its plan is there."""

from __future__ import annotations

import io
import json
import sys
import threading
from pathlib import Path

import pytest

from liveaffect.engines import gpu_driver, gpu_load, manifest, parity, plans
from liveaffect.engines.fallback import FallbackEngine
from liveaffect.engines.gpu_start import NOTICE, GpuStart, build_all
from liveaffect.engines.load import load
from liveaffect.engines.protocol import Engine, EngineUnavailable
from liveaffect.engines.scripted_engine import ScriptedFace, ScriptedVoice
from liveaffect.realtime.testing import gpu as scripted_gpu
from liveaffect.realtime.testing.engines import write_tiny


@pytest.fixture
def weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Weights beside an empty cache, on a machine with a GPU that is not there."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(plans, "build_plan", scripted_gpu.build_scripted)
    monkeypatch.setattr(gpu_driver, "why_no_gpu", lambda *_, **__: None)
    monkeypatch.setattr(gpu_load, "find_tools", scripted_gpu.tools)
    for kind in ("face", "voice"):
        write_tiny(tmp_path, kind)
    return tmp_path


def told(out: io.StringIO) -> list[dict[str, str]]:
    return [json.loads(line) for line in out.getvalue().splitlines()]


def saying(*lines: dict[str, str], end: str = "") -> list[str]:
    """A process that says these lines and ends."""
    text = "".join(json.dumps(line) + "\n" for line in lines)
    return [sys.executable, "-c", f"import sys; sys.stdout.write({text!r}); sys.stdout.flush()\n{end}"]


def test_the_process_builds_tries_and_chooses(weights: Path) -> None:
    out = io.StringIO()
    build_all([weights / "face.json", weights / "voice.json"], out)
    ends = [line for line in told(out) if "say" not in line]
    assert [line["kind"] for line in ends] == ["face", "voice"]
    assert {line["ready"] for line in ends} == {"fp16"}
    assert any("face fp16: building a plan" in line.get("say", "") for line in told(out))


def test_a_network_that_cannot_be_built_does_not_keep_the_others_from_it(weights: Path) -> None:
    (weights / "face.onnx").write_bytes(b"damaged")
    out = io.StringIO()
    build_all([weights / "face.json", weights / "voice.json"], out)
    ends = [line for line in told(out) if "say" not in line]
    assert "truncated or altered" in ends[0]["failed"]
    assert "ready" in ends[1]


def test_a_network_moves_to_the_gpu_between_two_batches_once_its_plan_is_there(weights: Path) -> None:
    engine = load("face", weights=weights)
    assert isinstance(engine, FallbackEngine)
    wanted = engine.infer(parity.inputs("face", 2))
    gpu_load.build_plans(manifest.read(weights / "face.json"), weights, scripted_gpu.tools())
    said: list[str] = []
    lines = ({"kind": "face", "say": "face fp16: building"}, {"kind": "face", "ready": "fp16"})
    opened_by: list[str] = []

    def open_way(found: manifest.Manifest, folder: Path, way: str) -> Engine:
        opened_by.append(threading.current_thread().name)
        return gpu_load.open_way(found, folder, way)

    start = GpuStart(said.append, command=saying(*lines), open_way=open_way)
    start.start({weights / "face.json": engine})
    assert engine.notice == NOTICE
    join("builds plans")
    assert opened_by == ["builds plans"], "the thread that uses the engine only exchanges it"
    assert "/onnx" in engine.spec.name
    given = engine.infer(parity.inputs("face", 2))
    assert engine.spec.name == "face-tiny/tensorrt-rtx-fp16"
    assert (given["logits"].argmax(1) == wanted["logits"].argmax(1)).all()
    assert engine.notice is None
    assert said == ["face fp16: building"]
    start.stop()
    engine.close()


@pytest.mark.parametrize("line", [{"failed": "TensorRT refuses it"}, {"ready": "fp16"}])
def test_what_cannot_be_had_stays_on_the_cpu_with_the_reason(weights: Path, line: dict[str, str]) -> None:
    engine = FallbackEngine(ScriptedFace(), wants_gpu=True)
    said: list[str] = []

    def refuse(*_: object) -> Engine:
        raise EngineUnavailable("TensorRT refuses it")

    tmp_path = weights
    start = GpuStart(said.append, command=saying({"kind": "face", **line}), open_way=refuse)
    start.start({tmp_path / "face.json": engine})
    join("builds plans")
    assert said == ["face: stays on the CPU; TensorRT refuses it"]
    assert engine.notice is None


def test_a_process_that_breaks_down_is_reported_with_its_last_words(tmp_path: Path) -> None:
    engines = {
        kind: FallbackEngine(made) for kind, made in (("face", ScriptedFace()), ("voice", ScriptedVoice()))
    }
    said: list[str] = []
    command = saying({"kind": "face", "ready": "fp16"}, end="raise SystemExit('out of memory')")
    write_tiny(tmp_path, "face")
    start = GpuStart(said.append, command=command, open_way=lambda *_: ScriptedFace())
    start.start({tmp_path / f"{kind}.json": engine for kind, engine in engines.items()})
    join("builds plans")
    assert said == ["voice: stays on the CPU; building its plans ended early (out of memory)"]
    assert engines["voice"].notice is None


def test_stopping_ends_the_process_and_says_nothing(tmp_path: Path) -> None:
    said: list[str] = []
    command = [sys.executable, "-c", "import signal; print('up', flush=True); signal.pause()"]
    start = GpuStart(said.append, command=command)
    start.start({tmp_path / "face.json": FallbackEngine(ScriptedFace())})
    start.stop()
    start.stop()
    assert not said
    assert not [t for t in threading.enumerate() if t.name == "builds plans"]


def test_where_nothing_waits_nothing_is_started() -> None:
    start = GpuStart(print, command=["/no/such/program"])
    start.start({})
    start.stop()


def join(name: str) -> None:
    for thread in threading.enumerate():
        if thread.name == name:
            thread.join(20)
            assert not thread.is_alive()
