"""`build` makes plans and keeps those that fit; `engines list` says which fit a run, `clean` removes them."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from liveaffect import cli
from liveaffect.engines import gpu_driver, plans, whisper
from liveaffect.engines import manifest as manifests
from liveaffect.engines import overview as engine_build
from liveaffect.engines import overview as engine_list
from liveaffect.engines.gpu_driver import Backend, Gpu, find_backend
from liveaffect.engines.load import FULL
from liveaffect.engines.manifest import SHIPPED
from liveaffect.engines.plans import BuiltPlan, PlanKey
from liveaffect.engines.protocol import EngineFileError, EngineUnavailable
from liveaffect.realtime.testing import engines

CARD = Gpu(0, "NVIDIA Made Up 4090", (8, 9), (13, 0), 24 << 30)
WHISPER = whisper.whisper_folder("tiny.en")
"""As it is before a test has a cache of its own."""
SCRIPTED = Backend(None, "tensorrt-rtx", "1.7")


@pytest.fixture
def weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for kind in ("face", "voice", "fusion"):
        engines.write_tiny(tmp_path / "weights", kind)
    return tmp_path / "weights"


@pytest.fixture
def built(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Every precision that is built, by a builder that costs nothing."""
    done: list[str] = []

    def build_plan(content: bytes, *, precision: str, **_: object) -> BuiltPlan:
        done.append(precision)
        return BuiltPlan(f"{precision} {len(done)}".encode(), (), 0.5)

    monkeypatch.setattr(plans, "build_plan", build_plan)
    use(monkeypatch, SCRIPTED)
    return done


def use(monkeypatch: pytest.MonkeyPatch, backend: Backend, *cards: Gpu) -> None:
    for module in (engine_build, engine_list):
        monkeypatch.setattr(module, "find_backend", lambda: backend)
    monkeypatch.setattr(gpu_driver, "gpus", lambda: cards)


def run(*arguments: str | Path) -> int:
    return cli.main([str(argument) for argument in arguments])


def build(weights: Path, *precisions: str) -> list[str]:
    said: list[str] = []
    engine_build.build_forms(precisions, weights, said.append)
    return said


@pytest.mark.slow
def test_a_real_tensorrt_builds_lists_and_cleans(weights: Path, capsys: pytest.CaptureFixture[str]) -> None:
    try:
        find_backend()
    except EngineUnavailable as err:
        pytest.skip(str(err))
    (weights / "voice.json").unlink()
    assert run("build", "--precision", "fp16, int8", "--weights", weights) == 0
    said = capsys.readouterr().err
    assert "fusion: stays fp32 on the CPU" in said
    assert "face fp16: building a plan for TensorRT" in said
    assert run("engines", "list", "--weights", weights) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("plan ")]
    assert [line.split()[1:3] for line in lines] == [["face", "fp16"], ["face", "int8"]]
    assert all(line.endswith("0 days old  fits") for line in lines)
    assert run("engines", "clean") == 0
    assert "removed 4 files" in capsys.readouterr().err
    assert list(engine_list.plan_lines(weights)) == []


def test_the_full_voice_is_built_where_whisper_is_and_named_where_it_is_not(
    weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    try:
        find_backend()
    except EngineUnavailable as err:
        pytest.skip(str(err))
    (weights / FULL).symlink_to(SHIPPED / FULL)
    for kind in ("face", "voice"):
        (weights / f"{kind}.json").unlink()
    assert "full voice: no plan: Whisper tiny.en is not in" in build(weights, "fp16")[1]
    monkeypatch.setenv(whisper.FOLDER_VARIABLE, str(WHISPER))
    if missing := whisper.why_not(manifests.read(SHIPPED / FULL / "voice.json")):
        pytest.skip(missing)
    said = build(weights, "fp16")
    assert "voice fp16: building a plan for TensorRT" in said[-2]
    (line,) = (line for line in engine_list.plan_lines(weights) if line.startswith("plan "))
    assert line.endswith("0 days old  fits")


def test_plans_that_fit_are_kept_and_new_weights_are_built_anew(weights: Path, built: list[str]) -> None:
    said = build(weights, "fp32", "fp16")
    assert built == ["fp32", "fp16", "fp32", "fp16"]
    assert said[0].startswith("fusion: stays fp32 on the CPU")
    assert said[1] == "plans for every supported GPU, because there is none here"
    again = build(weights, "fp32", "fp16")
    assert len(built) == 4
    assert sum("is there and fits" in line for line in again) == 4
    engines.write_tiny(weights, "face", seed=1)
    build(weights, "fp32", "fp16")
    assert built[4:] == ["fp32", "fp16"]


def test_an_int8_file_is_kept_if_it_is_whole_and_made_anew_if_not(weights: Path, built: list[str]) -> None:
    said = build(weights, "int8")
    assert sum("calibrated on made-up inputs" in line for line in said) == 2
    assert manifests.read(weights / "face.json").quantisation["inputs"] == "made up"
    assert built == ["int8", "int8"]
    path = weights / "face.int8.onnx"
    before = path.read_bytes()
    assert f"face: {path} is there and whole" in build(weights, "int8")
    path.write_bytes(before[:-9])
    said = build(weights, "int8")
    assert any("face: made anew, because" in line and "truncated" in line for line in said)
    assert path.read_bytes() == before
    assert built == ["int8", "int8"]


def test_a_damaged_int8_file_of_the_package_is_not_replaced_by_a_worse_one(
    weights: Path, built: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    build(weights, "int8")
    monkeypatch.setattr(manifests, "SHIPPED", weights)
    path = weights / "face.int8.onnx"
    path.write_bytes(b"damaged")
    with pytest.raises(EngineFileError, match="git checkout"):
        build(weights, "int8")
    assert path.read_bytes() == b"damaged"


def test_what_tensorrt_refuses_is_said_after_all_else_was_built(
    weights: Path, monkeypatch: pytest.MonkeyPatch, built: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    def refuses(content: bytes, *, precision: str, **_: object) -> BuiltPlan:
        if precision == "fp32":
            raise EngineFileError("FP32 GEMM is not supported")
        return BuiltPlan(b"plan", (), 0.0)

    monkeypatch.setattr(plans, "build_plan", refuses)
    assert run("build", "--precision", "fp32,fp16", "--weights", weights) == 1
    said = capsys.readouterr().err
    assert "face fp32: NOT built: FP32 GEMM is not supported" in said
    assert "2 of 4 plans could not be built, see above" in said
    assert {plan.key.precision for plan in plans.listed() if plan.key} == {"fp16"}


@pytest.mark.parametrize(
    ("precision", "words"),
    [
        ("fp16", "there is no TensorRT: "),
        ("fp32,int8", "pip install 'liveaffect[rtx]'"),
        ("int3", "no precision 'int3'; known are fp32, fp32-tf32, fp16, int8"),
    ],
)
def test_what_cannot_be_built_is_refused_in_words(
    weights: Path,
    precision: str,
    words: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(gpu_driver, "TENSORRT_MODULES", ())
    assert run("build", "--precision", precision, "--weights", weights) == 1
    assert words in capsys.readouterr().err


def test_without_tensorrt_int8_files_are_still_made(weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_driver, "TENSORRT_MODULES", ())
    said = build(weights, "int8")
    assert said[-1].startswith("no plans: there is no TensorRT")
    assert manifests.read(weights / "face.json").has("int8")


def test_tensorrt_proper_builds_nothing_without_a_working_driver(
    weights: Path, built: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    use(monkeypatch, Backend(None, "tensorrt", "10.16"))
    monkeypatch.setattr(gpu_driver, "why_no_gpu", lambda flavour: f"the driver is too old for {flavour}")
    with pytest.raises(
        EngineUnavailable, match=r"TensorRT 10\.16 builds plans only on .*too old for tensorrt"
    ):
        build(weights, "fp16")
    monkeypatch.setattr(gpu_driver, "why_no_gpu", lambda flavour: None)
    use(monkeypatch, Backend(None, "tensorrt", "10.16"), CARD)
    assert build(weights, "fp16")[1] == f"plans for {CARD.name}"
    assert {plan.key.gpu for plan in plans.listed() if plan.key} == {CARD.name}


def stored(key: PlanKey) -> Path:
    return plans.write_plan(key, BuiltPlan(b"plan", (), 0.0))


def states(weights: Path) -> list[str]:
    return [line.partition(" old  ")[2] for line in engine_list.plan_lines(weights)][1:]


@pytest.mark.parametrize(
    ("changes", "state"),
    [
        ({}, "fits"),
        ({"version": "1.6"}, "not taken: it is for tensorrt-rtx 1.6, installed is TensorRT-RTX 1.7"),
        ({"format": plans.FORMAT + 1}, "not taken: it was built by another liveaffect (format "),
        ({"gpu": "NVIDIA Else", "capability": "7.5"}, "not taken: it is for NVIDIA Else, which is not here"),
        ({"gpu": CARD.name, "capability": CARD.sm}, "fits"),
        ({"onnx": "0" * 64}, "not taken: it is not of the weights in "),
    ],
)
def test_the_list_says_which_plans_a_run_would_take(
    weights: Path, built: list[str], monkeypatch: pytest.MonkeyPatch, changes: dict[str, str], state: str
) -> None:
    use(monkeypatch, SCRIPTED, CARD)
    key = plans.key_of(manifests.read(weights / "face.json"), "fp16", SCRIPTED)
    stored(replace(key, **changes))  # type: ignore[arg-type]
    (found,) = states(weights)
    assert found.startswith(state)


def test_the_list_names_damage(weights: Path, built: list[str]) -> None:
    key = plans.key_of(manifests.read(weights / "face.json"), "fp16", SCRIPTED)
    path = stored(key)
    path.write_bytes(b"pla")
    assert f"not taken: the plan {path} is truncated" in states(weights)[0]
    path.with_suffix(".json").write_text("{}")
    assert states(weights) == ["not taken: its description is missing or damaged"]


def test_the_list_tells_size_and_age(weights: Path, built: list[str]) -> None:
    path = stored(plans.key_of(manifests.read(weights / "face.json"), "fp16", SCRIPTED))
    path.write_bytes(b"x" * 2_500_000)
    days_ago = path.stat().st_mtime - 3 * 86_400 - 100
    os.utime(path, (days_ago, days_ago))
    assert "face    fp16          2.5 MB  3 days old" in list(engine_list.plan_lines(weights))[1]
