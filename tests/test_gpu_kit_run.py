"""What the kit reports: budgets judged by what was measured, refusals quoted, a run that goes on."""

from __future__ import annotations

import hashlib
import importlib
import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from liveaffect.engines import manifest as manifests
from liveaffect.engines.protocol import EngineError
from liveaffect.engines.tensorrt_backend import find_backend

BENCHMARKS = Path(__file__).resolve().parent.parent / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))

NAMES = ("card", "chart", "checking", "first_start", "networks", "report", "run")
card, chart, checking, first_start, networks, report, run = (
    importlib.import_module(f"gpu.{name}") for name in NAMES
)


def record(**changes: Any) -> dict[str, Any]:
    """A record with the two parts that budgets look at."""
    whole = {"p50": 0.09, "p90": 0.1, "p99": 0.16}
    face = {
        "precision": "fp16",
        "path": "way",
        "batch": 1,
        "whole": whole,
        "settled": True,
        "events": {"p50": 1},
    }
    tick = {"precision": "fp16", "path": "way", "faces": 64, "whole": {"p50": 1.2}, "settled": False}
    parts = {
        "latency face-live, way": {"data": {"cells": [face]}},
        "ticks, way": {"data": {"cells": [tick]}},
    }
    return {"dry_run": False, "measured_path": "way", "parts": parts, **changes}


def test_budgets_are_judged_by_whole_times_of_the_measured_path() -> None:
    found = report.verdicts(record())
    assert [one["verdict"] for one in found] == ["PASS", "FAIL", "FAIL"]
    assert [one["figure_ms"] for one in found] == [0.09, 0.16, 1.2]
    assert [one["settled"] for one in found] == [True, True, False]


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"dry_run": True}, "a dry run"),
        ({"measured_path": "another"}, "not measured"),
        ({"parts": {}}, "not"),
    ],
)
def test_nothing_is_judged_that_was_not_measured(changes: dict[str, Any], why: str) -> None:
    assert all(f"not judged: {why}" in one["verdict"] for one in report.verdicts(record(**changes)))


def test_the_chart_shows_the_measured_lines_and_none_of_a_dry_run() -> None:
    found = record(networks=["face-live"])
    lit = chart.draw([chart.Panel("face-live, whole, p50", "batch", "ms", {"fp16 way": [(1.0, 0.09)]})])
    assert report.picture(found) == chart.png(lit)
    dry = chart.draw([chart.Panel("dry run, no gpu: face-live, whole, p50", "batch", "ms", {})])
    assert report.picture({**found, "dry_run": True}) == chart.png(dry)


def test_a_run_goes_on_only_with_the_same_code_card_and_networks(tmp_path: Path) -> None:
    keys = ("dry_run", "sources", "gpu", "options", "tensorrt", "networks", "effort")
    fresh = {**dict.fromkeys(keys, "same"), "dry_run": False, "parts": {}}
    assert run.resumed(fresh, tmp_path) == fresh
    (tmp_path / run.RECORD).write_text(json.dumps({**fresh, "parts": {"first use": {}}}))
    assert run.resumed(fresh, tmp_path)["parts"] == {"first use": {}}
    for key in keys[1:]:
        assert run.resumed({**fresh, key: "another"}, tmp_path)["parts"] == {}
    assert run.resumed({**fresh, "dry_run": True}, tmp_path)["parts"] == {}


def test_a_report_lies_in_a_folder_named_for_the_card_and_that_of_a_dry_run_elsewhere() -> None:
    assert run.folder_for("NVIDIA GeForce RTX 4070 (laptop)", False).name == "nvidia-geforce-rtx-4070-laptop"
    assert run.RESULTS not in run.folder_for("no GPU", True).parents


@pytest.mark.parametrize(
    ("code", "said", "refusal"),
    [
        (0, 'first start: {"refused": "no kernel for 9.0"}', "no kernel for 9.0"),
        (-11, "", "signal 11; it said: nothing"),
        (3, "one\ntwo", "exit code 3; it said: one / two"),
    ],
    ids=["refused", "crashed", "failed"],
)
def test_a_start_that_is_refused_or_takes_its_process_down_is_quoted(
    tmp_path: Path, code: int, said: str, refusal: str
) -> None:
    def execute(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        return subprocess.CompletedProcess(command, code, said, "")

    start = first_start.in_a_process(Path("run.py"), ["--networks", "n"], execute)
    with pytest.raises(EngineError, match=refusal):
        start(SimpleNamespace(name="face-live"), "fp16", tmp_path)


def test_a_start_that_hangs_is_given_up_with_what_it_said(tmp_path: Path) -> None:
    def execute(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        raise subprocess.TimeoutExpired(command, 300, stderr=b"compiling")

    start = first_start.in_a_process(Path("run.py"), [], execute)
    with pytest.raises(EngineError, match="no answer within 300 s; it said: compiling"):
        start(SimpleNamespace(name="face-live"), "fp16", tmp_path)


def test_a_first_answer_that_is_wrong_is_no_first_answer() -> None:
    vector = np.arange(1.0, 5.0)[None]
    network = SimpleNamespace(
        name="face-live", inputs=lambda _: {}, answers=lambda _: {"vector": vector.repeat(2, 0)}
    )
    told = first_start.run_first(lambda _: {"vector": vector}, network, first_start.Steps())
    assert told["cosine"] == 1.0
    with pytest.raises(EngineError, match=r"answers wrongly: cosine 0\.\d+ to ONNX Runtime"):
        first_start.run_first(lambda _: {"vector": vector[:, ::-1]}, network, first_start.Steps())


def test_the_tests_for_gpus_are_run_by_pytest_and_their_end_is_quoted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = SimpleNamespace(is_dry=False, say=str)
    watch = card.Watch(card.Nvml(library=object()))
    monkeypatch.setattr(checking, "ROOT", tmp_path)
    monkeypatch.setattr(checking, "TESTS", tmp_path / "tests")
    assert checking.run_tests(asked, watch) == {"why_not": "there is no tests"}
    (tmp_path / "tests").mkdir()
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers = gpu: needs one\n")
    body = "import pytest\n@pytest.mark.gpu\ndef test_one(): pass\ndef test_not_for_gpus(): assert 0\n"
    (tmp_path / "tests" / "test_one.py").write_text(body)
    told = checking.run_tests(asked, watch)
    assert told["passed"], told
    assert "1 passed, 1 deselected" in told["last_lines"][-1]


def test_networks_that_were_not_prepared_are_asked_for(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match=r"holds no prepared networks .*prepare\.py"):
        networks.read(tmp_path)


def test_a_file_in_half_precision_is_built_as_it_stands(tmp_path: Path) -> None:
    pytest.importorskip("tensorrt_rtx", reason="tensorrt_rtx is not installed: it builds the plan")
    pytest.importorskip("onnx", reason="onnx is not installed, and torch is useless without it here")
    found = manifests.read(manifests.SHIPPED / "face.json")
    to_half = importlib.import_module("liveaffect.engines.build.half").to_half
    half = to_half(manifests.load_bytes(found, manifests.SHIPPED, "fp32"))
    (tmp_path / networks.half_name("face")).write_bytes(half)
    network = networks.Network("face-live", tmp_path, found, hashlib.sha256(half).hexdigest())
    build = importlib.import_module("gpu.tensorrt_path").builder(find_backend())
    built = build(network, "fp16", (1, 2))
    assert len(built.plan) > len(half) / 2
    altered = networks.Network("face-live", tmp_path, found, "another sum")
    with pytest.raises(EngineError, match="missing or altered; prepare the networks again"):
        build(altered, "fp16", (1, 2))
