"""The whole kit, walked on the host: no line of it meets a GPU for the first time."""

from __future__ import annotations

import ast
import contextlib
import importlib
import io
import json
import os
import re
import sys
import threading
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import CodeType, FrameType, SimpleNamespace
from typing import Any

import pytest

from liveaffect.engines import manifest as manifests
from liveaffect.engines.protocol import EngineError, EngineUnavailable

pytest.importorskip("torch", reason="torch is not installed: it exports the networks of the dry run")
pytest.importorskip("onnx", reason="onnx is not installed, and torch is useless without it here")

ROOT = Path(__file__).resolve().parent.parent
BENCHMARKS = ROOT / "benchmarks"
KIT = BENCHMARKS / "gpu"
KIT_PREFIX = f"{KIT}{os.sep}"
sys.path.insert(0, str(BENCHMARKS))
pytestmark = pytest.mark.slow
NAMES = (
    *("card", "checking", "dry", "equipment", "measuring", "networks"),
    *("prepare", "report", "run", "samples", "torch_path"),
)
kit = {name: importlib.import_module(f"gpu.{name}") for name in NAMES}

ELSEWHERE = {"pack.py", "unpack.py", "prepare.py", "chart.py", "dry.py", "lanes.py"}
"""Not part of a run, tested by themselves, the stand-ins, or without a line that runs."""
NOT_WALKED = {
    "torch_card",
    "builder",
    *("folder_for", "resumed", "_say", "source_sum"),
    *("settle_readings", "agree", "largest", "verdicts", "picture", "in_a_process", "_tail", "run_tests"),
}
"""The first two need the real thing; the others have tests of their own. What handles a failure, that is the
bodies of `except` and whatever raises, is left out as well."""


class Walked:
    """Notes every line of the kit that runs inside."""

    def __init__(self) -> None:
        self.lines: dict[str, set[int]] = {}

    def __enter__(self) -> Walked:
        sys.settrace(self._called)
        threading.settrace(self._called)
        return self

    def __exit__(self, *_: object) -> None:
        sys.settrace(None)
        threading.settrace(None)

    def _called(self, frame: FrameType, _event: str, _argument: Any) -> Any:
        name = frame.f_code.co_filename
        if not name.startswith(KIT_PREFIX):
            return None
        seen = self.lines.setdefault(name.removeprefix(KIT_PREFIX), set())

        def line(frame: FrameType, event: str, _argument: Any) -> Any:
            if event == "line":
                seen.add(frame.f_lineno)
            return line

        return line


def lines_of(path: Path) -> dict[str, set[int]]:
    """The lines inside functions that can run, by the name of the function, without those for failures."""
    source = path.read_text("utf-8")
    failing: set[int] = set()
    for node in ast.walk(ast.parse(source)):
        words = ast.unparse(node) if isinstance(node, ast.Expr) else ""
        is_failing = isinstance(node, ast.ExceptHandler | ast.Raise) or words.startswith("parser.error")
        if is_failing and isinstance(node, ast.stmt | ast.ExceptHandler):
            failing |= set(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    found: dict[str, set[int]] = {}

    def look(code: CodeType) -> None:
        for inner in (one for one in code.co_consts if isinstance(one, CodeType)):
            if inner.co_flags & 0x2:  # a function, not the body of a class
                body = {line for _, _, line in inner.co_lines() if line and line > inner.co_firstlineno}
                found.setdefault(inner.co_qualname, set()).update(body - failing)
            look(inner)

    look(compile(source, str(path), "exec"))
    return found


def missed_by(walked: Walked) -> list[str]:
    return [
        f"{path.name}:{line} ({function})"
        for path in sorted(KIT.glob("*.py"))
        if path.name not in ELSEWHERE
        for function, lines in lines_of(path).items()
        if not NOT_WALKED & set(function.split("."))
        for line in sorted(lines - walked.lines.get(path.name, set()))
    ]


def cut_short(networks: Path) -> None:
    """Time that is up in the middle of a part leaves what was done and counts the rest."""
    machine = kit["dry"].machine("works")
    found = kit["equipment"].look(machine)
    (way, _) = kit["equipment"].tensorrt_ways(machine, found, kit["samples"].DRY)
    prepared = kit["networks"].read(networks)
    for looks, cells, not_reached in ((0, 0, 6), (2, 1, 5)):
        clock = partial(next, iter([0] * looks), 2)
        run = kit["measuring"].Run(
            prepared, kit["samples"].DRY, found.nvml, networks, [way], 1, True, str, clock
        )
        watch = kit["card"].Watch(found.nvml)
        told = kit["measuring"].latency(run, watch, prepared.first("face"), way, (1, 3, 9))
        assert (len(told["cells"]), told["not_reached"]) == (cells, not_reached)
        page = kit["report"].part_lines({"status": "done", "data": told})
        assert f"{not_reached} rows were not reached in the time given" in page
        assert kit["measuring"].ticks(run, watch, way) == {"cells": [], "refused": [], "not_reached": 2}
        told = kit["checking"].parity_of(run, watch, prepared.first("face"), way)
        assert (told["rows"], told["not_reached"]) == ([], 2)
    found.close()
    mute = kit["card"].Nvml(library=SimpleNamespace(nvmlInit_v2=lambda: 3))
    assert mute.why_not == "clocks and power were not read: NVML answers with error 3"


def done_before(record: dict[str, Any]) -> None:
    """What is done is not done again."""
    run = SimpleNamespace(say=str, in_time=True)
    session = kit["run"].Session(run, None, None, None, record)
    session.do("first use", None)


def weights_without_onnx(networks: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Random weights are made again as they were exported; trained ones cannot be."""
    network = kit["networks"].read(networks).first("voice")
    wanted = kit["torch_path"].weights_of(network).state_dict()

    def no_onnx(*_: object) -> None:
        raise EngineUnavailable("no onnx")

    monkeypatch.setattr(kit["torch_path"], "open_weights", no_onnx)
    found = kit["torch_path"].weights_of(network).state_dict()
    assert all((found[name] == array).all() for name, array in wanted.items() if not array.isnan().any())
    trained = replace(network, manifest=manifests.extended(network.manifest, training={"seed": 0}))
    with pytest.raises(EngineError, match="cannot run the trained weights of voice-live-fcn: no onnx"):
        kit["torch_path"].weights_of(trained)


def check_a_run_that_works(record: dict[str, Any], page: str) -> None:
    assert {part["status"] for part in record["parts"].values()} == {"done"}
    assert record["measured_path"] == "tensorrt-rtx, CUDA graph"
    rows = [row for part in record["parts"].values() for row in part["data"].get("rows", [])]
    assert len(rows) > 5
    assert all(row["alike"] for row in rows)
    starts = record["parts"]["first use"]["data"]["starts"]
    assert [start["which"] for start in starts] == ["first ever", "first cached"] * 2
    assert "not settled" in page


def check_a_run_that_is_refused(record: dict[str, Any], page: str) -> None:
    assert record["measured_path"] is None
    assert "scripted refusal of face-live in fp16" in page
    assert "No module named 'torch'" in page
    assert "clocks and power were not read" in page
    assert list(record["parts"]) == ["first use"]


def check_a_run_that_limps(record: dict[str, Any], page: str) -> None:
    assert "scripted refusal of voice-live-fcn in int8" in page
    assert "alone and events without a graph (cuStreamEndCapture failed with a scripted error)" in page
    assert {part["status"] for part in record["parts"].values()} == {"done"}


def check_a_run_without_anything(record: dict[str, Any], page: str) -> None:
    assert "TensorRT is not measured: there is no TensorRT: a scripted lack" in page
    assert record["parts"] == {}


def test_dry_runs_walk_every_line_and_leave_no_figure_that_could_be_taken_for_a_gpus(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    networks = tmp_path / "networks"
    kit["prepare"].prepare(networks, kit["dry"].NETWORKS, 64.0, items=kit["dry"].ITEMS, shipped=False)
    checks = {
        "works": check_a_run_that_works,
        "refuses": check_a_run_that_is_refused,
        "limps": check_a_run_that_limps,
        "bare": check_a_run_without_anything,
    }
    with Walked() as walked, contextlib.redirect_stdout(io.StringIO()) as said:
        for mood in checks:
            words = ["--dry-run", mood, "--networks", str(networks), "--out", str(tmp_path / mood)]
            assert kit["run"].main(words) == 0, said.getvalue()
        late = ["--dry-run", "--networks", str(networks), "--out", str(tmp_path / "late"), "--minutes", "0"]
        assert kit["run"].main(late) == 0
        cut_short(networks)
        done_before(json.loads((tmp_path / "works" / "report.json").read_text("utf-8")))
        weights_without_onnx(networks, monkeypatch)
    assert all(line.startswith("dry run, no GPU: ") for line in said.getvalue().splitlines())
    for mood, check in checks.items():
        record = json.loads((tmp_path / mood / "report.json").read_text("utf-8"))
        page = (tmp_path / mood / "report.md").read_text("utf-8")
        assert page.startswith("# DRY RUN: no GPU was used")
        assert not re.search(r"\d\.\d+ ms", page.partition("## first use")[2].partition("## How to read")[0])
        assert all(one["verdict"] == "not judged: a dry run" for one in record["budgets"])
        check(record, page)
    parts = json.loads((tmp_path / "late" / "report.json").read_text("utf-8"))["parts"]
    assert {part["status"] for part in parts.values()} == {"not run"}
    missed = missed_by(walked)
    assert missed == [], "\n".join(missed)


def test_a_dry_run_never_writes_among_the_results(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    results = BENCHMARKS / "results" / "some-gpu"
    with pytest.raises(SystemExit, match="2"):
        kit["run"].main(["--dry-run", "--networks", str(tmp_path), "--out", str(results)])
    assert "its report may not lie under" in capsys.readouterr().err
    assert not results.exists()
