"""The kit, run as a whole on stand-ins: every lack is named, and no figure passes for that of a GPU."""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import re
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from liveaffect.engines import manifest as manifests
from liveaffect.engines.protocol import EngineError, EngineUnavailable

pytest.importorskip("torch", reason="torch is not installed: it exports the networks of the dry run")
pytest.importorskip("onnx", reason="onnx is not installed, and torch is useless without it here")

ROOT = Path(__file__).resolve().parent.parent
BENCHMARKS = ROOT / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))
pytestmark = pytest.mark.slow
NAMES = (
    *("card", "checking", "dry", "equipment", "measuring", "networks"),
    *("prepare", "report", "run", "samples", "torch_path"),
)
kit = {name: importlib.import_module(f"gpu.{name}") for name in NAMES}


@pytest.fixture(scope="module")
def networks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A face and a voice network, prepared once."""
    folder = tmp_path_factory.mktemp("networks")
    kit["prepare"].prepare(folder, kit["dry"].NETWORKS, 64.0, items=kit["dry"].ITEMS, shipped=False)
    return folder


@pytest.fixture
def _least_effort(monkeypatch: pytest.MonkeyPatch) -> None:
    """No trial that lasts; the process for the tests of a GPU has a test of its own."""
    least = replace(kit["samples"].DRY, trial_s=0.01, most_streams=2)
    monkeypatch.setattr(kit["samples"], "DRY", least)
    monkeypatch.setattr(kit["checking"], "run_tests", lambda *_: {"why_not": "tried elsewhere"})


def run(networks: Path, out: Path, *words: str) -> tuple[dict[str, Any], str]:
    """A dry run's record and page; every line that it prints and every page says that no GPU was used."""
    with contextlib.redirect_stdout(io.StringIO()) as said:
        assert kit["run"].main(["--dry-run", *words, "--networks", str(networks), "--out", str(out)]) == 0
    assert all(line.startswith("dry run, no GPU: ") for line in said.getvalue().splitlines())
    record = json.loads((out / "report.json").read_text("utf-8"))
    page = (out / "report.md").read_text("utf-8")
    assert page.startswith("# DRY RUN: no GPU was used")
    assert not re.search(r"\d\.\d+ ms", page.partition("## first use")[2].partition("## How to read")[0])
    assert all(one["verdict"] == "not judged: a dry run" for one in record["budgets"])
    return record, page


def test_time_that_is_up_in_the_middle_leaves_what_was_done_and_counts_the_rest(networks: Path) -> None:
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


def test_random_weights_are_made_again_as_they_were_exported_and_trained_ones_cannot_be(
    networks: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = kit["networks"].read(networks).first("voice")
    wanted = kit["torch_path"].weights_of(network).state_dict()

    def no_onnx(*_: object) -> None:
        raise EngineUnavailable("no onnx")

    monkeypatch.setattr(kit["torch_path"], "open_weights", no_onnx)
    found = kit["torch_path"].weights_of(network).state_dict()
    assert all((found[name] == array).all() for name, array in wanted.items() if not array.isnan().any())
    trained = replace(network, manifest=manifests.extended(network.manifest, training={"seed": 0}))
    with pytest.raises(EngineError, match="cannot run the trained weights of voice-student: no onnx"):
        kit["torch_path"].weights_of(trained)


@pytest.mark.usefixtures("_least_effort")
def test_a_card_that_works_is_measured_in_every_part(networks: Path, tmp_path: Path) -> None:
    record, page = run(networks, tmp_path, "works")
    assert {part["status"] for part in record["parts"].values()} == {"done"}
    assert record["measured_path"] == "tensorrt-rtx, CUDA graph"
    rows = [row for part in record["parts"].values() for row in part["data"].get("rows", [])]
    assert len(rows) > 5
    assert all(row["alike"] for row in rows)
    starts = record["parts"]["first use"]["data"]["starts"]
    assert [start["which"] for start in starts] == ["first ever", "first cached"] * 2
    assert "not settled" in page


def test_a_card_that_is_refused_leaves_a_page_with_every_reason(networks: Path, tmp_path: Path) -> None:
    record, page = run(networks, tmp_path, "refuses")
    assert record["measured_path"] is None
    assert "scripted refusal of face-live in fp16" in page
    assert "No module named 'torch'" in page
    assert "clocks and power were not read" in page
    assert list(record["parts"]) == ["first use"]


@pytest.mark.usefixtures("_least_effort")
def test_a_card_without_graphs_and_without_int8_is_measured_as_far_as_it_goes(
    networks: Path, tmp_path: Path
) -> None:
    record, page = run(networks, tmp_path, "limps")
    assert "scripted refusal of voice-student in int8" in page
    assert "alone and events without a graph (cuStreamEndCapture failed with a scripted error)" in page
    assert {part["status"] for part in record["parts"].values()} == {"done"}


def test_a_run_without_time_marks_every_part_as_not_run(networks: Path, tmp_path: Path) -> None:
    record, _ = run(networks, tmp_path, "works", "--minutes", "0")
    assert {part["status"] for part in record["parts"].values()} == {"not run"}


def test_a_machine_without_tensorrt_and_torch_says_so(networks: Path, tmp_path: Path) -> None:
    record, page = run(networks, tmp_path, "bare")
    assert "TensorRT is not measured: there is no TensorRT: a scripted lack" in page
    assert record["parts"] == {}


def test_a_dry_run_never_writes_among_the_results(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    results = BENCHMARKS / "results" / "some-gpu"
    with pytest.raises(SystemExit, match="2"):
        kit["run"].main(["--dry-run", "--networks", str(tmp_path), "--out", str(results)])
    assert "its report may not lie under" in capsys.readouterr().err
    assert not results.exists()
