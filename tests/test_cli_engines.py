"""Networks in a folder are built, listed, compared and run through the whole path."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest

from liveaffect import cli
from liveaffect.engines import gpu_driver
from liveaffect.engines import manifest as manifests
from liveaffect.engines.load import FULL
from liveaffect.realtime.acting import tone_voice, write_wav
from liveaffect.realtime.testing import engines


@pytest.fixture(autouse=True)
def _no_tensorrt(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Plans have their own tests; here is a machine without TensorRT."""
    monkeypatch.setattr(gpu_driver, "TENSORRT_MODULES", ())
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    folder = tmp_path / "weights"
    folder.mkdir()
    for kind in ("face", "voice", "fusion"):
        engines.write_tiny(folder, kind)
    return folder


def run(*arguments: str | Path) -> int:
    return cli.main([str(argument) for argument in arguments])


def test_building_int8_makes_the_files_and_auto_may_take_them(
    weights: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("build", "--precision", "int8", "--weights", weights) == 0
    assert (weights / "face.int8.onnx").is_file()
    assert (weights / "voice.int8.onnx").is_file()
    capsys.readouterr()
    assert run("engines", "list", "--weights", weights) == 0
    table = capsys.readouterr().out.splitlines()
    works = {tuple(line.split()[:3]) for line in table}
    assert ("face", "onnx-int8", "yes") in works
    assert ("voice", "onnx", "yes") in works
    assert ("face", "tensorrt", "no") in works


def test_the_list_says_why_an_engine_is_not_there(weights: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("engines", "list", "--weights", weights) == 0
    int8 = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("face    onnx-int8"))
    assert "without an INT8 file" in int8


def test_the_list_is_of_the_voice_that_a_run_would_take(
    weights: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("engines", "list", "--voice", "full", "--weights", weights) == 1
    assert "there is no full voice network" in capsys.readouterr().err
    (weights / FULL).mkdir()
    for kind in ("voice", "fusion"):
        engines.write_tiny(weights / FULL, kind)
    for small in weights.glob("voice.*"):
        small.unlink()
    assert run("engines", "list", "--voice", "full", "--weights", weights) == 0
    works = {tuple(line.split()[:3]) for line in capsys.readouterr().out.splitlines()}
    assert ("voice", "onnx", "yes") in works


@pytest.mark.parametrize("name", ["face.onnx", "voice.json", "fusion.onnx", "face.int8.onnx"])
def test_the_command_that_mends_a_network_is_one_that_there_is(tmp_path: Path, name: str) -> None:
    advice = re.search(r"'liveaffect (.*)'", manifests.mend(tmp_path / name))
    assert advice is not None
    assert callable(cli._parser().parse_args(shlex.split(advice[1])).command)


def test_an_engine_is_alike_itself(weights: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("engines", "compare", "onnx", "onnx", "--kind", "face", "--weights", weights) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "alike"


def test_a_server_can_be_compared_with(capsys: pytest.CaptureFixture[str]) -> None:
    """Where it does not answer, what stands in for it is named."""
    run("engines", "compare", "onnx", "triton://127.0.0.1:1", "--items", "4")
    assert "'face-live/triton" in capsys.readouterr().out


def test_networks_of_a_folder_run_through_analyze_and_predict(
    weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sound = tmp_path / "voice.wav"
    write_wav(sound, tone_voice(2.0))
    assert run("analyze", sound, "--weights", weights, "--cues", tmp_path / "c.jsonl") == 0
    capsys.readouterr()
    assert run("predict", sound, "--json", "--weights", weights) == 0
    line = json.loads(capsys.readouterr().out)
    assert line["kind"] == "sound"
    for text in (tmp_path / "c.jsonl").read_text().splitlines():
        assert json.loads(text)["model"] != "scripted"


def test_a_damaged_network_is_refused_by_name_with_what_mends_it(
    weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = weights / "face.onnx"
    path.write_bytes(path.read_bytes()[:-10])
    write_wav(tmp_path / "voice.wav", tone_voice(1.0))
    assert run("analyze", tmp_path / "voice.wav", "--weights", weights) == 1
    said = capsys.readouterr().err
    assert "face.onnx" in said
