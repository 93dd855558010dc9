"""The kit for GPU machines: figures that their samples carry, parts that arrive whole or not at all."""

from __future__ import annotations

import ctypes
import importlib
import lzma
import struct
import sys
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

BENCHMARKS = Path(__file__).resolve().parent.parent / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))

card, chart, pack, report, samples, streams, unpack = (
    importlib.import_module(f"gpu.{name}")
    for name in ("card", "chart", "pack", "report", "samples", "streams", "unpack")
)


class Machine:
    """Time that only work moves."""

    def __init__(self, costs_ms: Iterator[float]) -> None:
        self.now_ns = 0
        self._costs_ms = costs_ms

    def now(self) -> int:
        return self.now_ns

    def call(self) -> None:
        self.now_ns += int(next(self._costs_ms) * 1e6)


def costs(*levels_ms: float, calls: int) -> Iterator[float]:
    """So many calls at each level, the last for ever; every hundredth takes twice as long."""
    number = 0
    while True:
        level = levels_ms[min(number // calls, len(levels_ms) - 1)]
        number += 1
        yield level * (2.0 if number % 100 == 0 else 1.0)


EFFORT = samples.Effort(window_s=1.0, warm_up_s=0.0, most_windows=6)


def test_a_steady_call_settles_in_three_windows_with_the_percentiles_it_has() -> None:
    machine = Machine(costs(1.0, calls=10_000_000))
    found = samples.settle(machine.call, EFFORT, now=machine.now)
    assert (found.settled, found.windows) == (True, 3)
    assert found.figures["p50"] == pytest.approx(1.0)
    assert found.figures["p99"] <= found.figures["worst"] == pytest.approx(2.0)


def test_a_call_that_gets_slower_at_first_is_judged_by_its_last_windows_only() -> None:
    machine = Machine(costs(1.0, 2.0, calls=2_000))
    found = samples.settle(machine.call, EFFORT, now=machine.now)
    assert found.settled
    assert found.windows > 3
    assert found.figures["p50"] == pytest.approx(2.0)


def test_a_call_that_never_settles_is_said_not_to() -> None:
    machine = Machine(level for _ in range(10**6) for level in [1.0] * 700 + [3.0] * 700)
    found = samples.settle(machine.call, EFFORT, now=machine.now)
    assert not found.settled
    assert found.windows == EFFORT.most_windows
    assert found.spread > EFFORT.agreement


@pytest.mark.parametrize(("count", "carried"), [(499, "p90"), (500, "p99"), (4_999, "p99"), (5_000, "p99.9")])
def test_a_percentile_needs_five_samples_beyond_it(count: int, carried: str) -> None:
    figures, left_out = samples.percentiles(np.arange(count, dtype=np.float64))
    order = list(samples.SHARES)
    assert [name for name in order if name in figures] == order[: order.index(carried) + 1]
    assert list(left_out) == order[order.index(carried) + 1 :]


@pytest.mark.parametrize("able", [0, 1, 2, 7, 100, 4_000])
def test_the_number_of_streams_is_found_to_a_twentieth(able: int) -> None:
    asked: list[int] = []

    def keeps_up(count: int) -> bool:
        asked.append(count)
        return count <= able

    found = streams.largest(keeps_up, 16_384, lambda: True)
    assert found <= able <= found + max(1, found // 20)
    assert len(asked) < 25


def test_the_search_ends_at_the_most_that_is_tried_and_when_the_time_is_up() -> None:
    assert streams.largest(lambda _: True, 64, lambda: True) == 64
    times = iter([True, True, True, False])
    assert streams.largest(lambda _: True, 64, lambda: next(times, False)) == 4


class Library:
    """NVML whose answers are known."""

    def __init__(self, answers: dict[str, int], failing: str = "") -> None:
        self._answers, self._failing = answers, failing
        self.asked: list[str] = []

    def __getattr__(self, name: str) -> Callable[..., int]:
        def answer(*given: Any) -> int:
            selector = f"{name}/{given[1].value}" if len(given) > 2 else name
            self.asked.append(selector)
            if given and hasattr(given[-1], "_obj") and not isinstance(given[-1]._obj, ctypes.c_void_p):
                given[-1]._obj.value = self._answers.get(selector, 0)
            return 3 if name == self._failing else 0

        return answer


def test_a_look_at_the_card_has_every_figure_in_its_unit_and_what_holds_the_clocks_down() -> None:
    library = Library(
        {
            "nvmlDeviceGetClockInfo/1": 1500,
            "nvmlDeviceGetClockInfo/2": 2600,
            "nvmlDeviceGetPowerUsage": 250_500,
            "nvmlDeviceGetEnforcedPowerLimit": 300_000,
            "nvmlDeviceGetTemperature/0": 61,
            "nvmlDeviceGetCurrentClocksThrottleReasons": 0x1 | 0x4 | 0x40,
        }
    )
    nvml = card.Nvml(library=library)
    assert nvml.read() == card.Reading(
        1500, 2600, 250.5, 300.0, 61, ("idle", "power limit", "temperature, by the hardware")
    )
    watch = card.Watch(nvml)
    watch.look()
    told = watch.to_json()
    assert told["power_w"] == [250.5, 250.5]
    assert told["held_down_by"] == ["power limit", "temperature, by the hardware"]
    assert not [name for name in library.asked if "Set" in name.removeprefix("nvmlDeviceGet")]


def test_a_card_that_does_not_tell_leaves_the_figure_empty_and_a_missing_library_says_so() -> None:
    nvml = card.Nvml(library=Library({}, failing="nvmlDeviceGetPowerUsage"))
    assert nvml.read().power_w is None
    watch = card.Watch(nvml)
    watch.look()
    assert watch.to_json()["power_w"] is None
    missing = card.Nvml(library=Library({}, failing="nvmlInit_v2"))
    assert missing.read() == card.Reading()
    assert "error 3" in missing.fixed()["why_not"]


def test_a_chart_is_a_png_that_shows_what_it_was_given() -> None:
    panel = chart.Panel("a title", "batch", "ms", {"one": [(1, 0.5), (64, 2.0)], "other": [(4, 1.0)]})
    picture = chart.draw([panel, chart.Panel("empty", "x", "y", {})])
    content = chart.png(picture)
    assert content.startswith(b"\x89PNG\r\n\x1a\n")
    columns, rows = struct.unpack(">II", content[16:24])
    assert (rows, columns) == (2 * chart.SIZE[0], chart.SIZE[1])
    start = content.index(b"IDAT")
    (length,) = struct.unpack(">I", content[start - 4 : start])
    lines = np.frombuffer(zlib.decompress(content[start + 4 : start + 4 + length]), np.uint8)
    assert np.array_equal(lines.reshape(rows, -1)[:, 1:], picture.reshape(rows, -1))
    for colour in chart.COLOURS[:2]:
        assert (picture[: chart.SIZE[0]] == colour).all(2).any()
        assert not (picture[chart.SIZE[0] :] == colour).all(2).any()


@pytest.fixture
def packed(tmp_path: Path) -> Path:
    """Two small archives in parts, with list and unpacker."""
    out, rng = tmp_path / "parts", np.random.default_rng(0)
    out.mkdir()
    entries = []
    for name, size in (("runtime", 250_000), ("networks", 1_000)):
        folder = tmp_path / name
        (folder / "deep").mkdir(parents=True)
        (folder / "deep" / "file").write_bytes(rng.bytes(size))
        (folder / "script").write_text("#!/bin/sh\n")
        (folder / "script").chmod(0o755)
        filters = pack.compressor(libraries=False, fast=True)
        entries.append(pack.pack(name, folder, out, filters, part_bytes=100_000))
    pack.write_list(entries, out)
    return out


def test_what_was_packed_is_unpacked_byte_for_byte_with_a_command_that_measures(
    packed: Path, tmp_path: Path
) -> None:
    parts = sorted(path.name for path in packed.glob("runtime.part-*"))
    assert len(parts) == 3
    assert all((packed / name).stat().st_size <= 100_000 for name in parts)
    target = tmp_path / "target"
    assert unpack.main([str(target), "--parts", str(packed)]) == 0
    for name in ("runtime", "networks"):
        assert (target / name / "deep" / "file").read_bytes() == (tmp_path / name / "deep/file").read_bytes()
        assert (target / name / "script").stat().st_mode & 0o111
    assert "benchmarks/gpu/run.py" in (target / "measure").read_text()


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (lambda part: part.write_bytes(b"x" * part.stat().st_size), "runtime.part-01 is damaged"),
        (lambda part: part.write_bytes(part.read_bytes()[:-1]), "runtime.part-01 has 99999 bytes"),
        (lambda part: part.unlink(), "runtime.part-01 is missing"),
    ],
    ids=["altered", "cut", "missing"],
)
def test_a_harmed_part_is_refused_by_name_before_anything_is_written(
    packed: Path,
    tmp_path: Path,
    harm: Callable[[Path], object],
    said: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    harm(packed / "runtime.part-01")
    target = tmp_path / "target"
    assert unpack.main([str(target), "--parts", str(packed)]) == 1
    assert said in capsys.readouterr().err
    assert not target.exists()
    assert unpack.main([str(target), "--parts", str(packed), "--only", "networks"]) == 0
    assert sorted(path.name for path in target.iterdir()) == ["measure", "networks"]


def test_an_archive_that_is_not_there_and_a_missing_list_are_named(packed: Path, tmp_path: Path) -> None:
    with pytest.raises(unpack.PartError, match="no archive wheels; there are runtime, networks"):
        unpack.check(packed, ["wheels"])
    with pytest.raises(unpack.PartError, match=r"no readable parts\.json"):
        unpack.check(tmp_path)


def test_the_same_folder_packs_to_the_same_bytes_and_libraries_pack_with_their_own_filter(
    tmp_path: Path,
) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "lib.so").write_bytes(bytes(range(256)) * 64)
    filters = pack.compressor(libraries=True, fast=False)
    assert filters[0]["id"] == lzma.FILTER_X86
    filters[1]["dict_size"] = 1 << 16
    sums = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        sums.append(pack.pack("x", tmp_path / "in", tmp_path / name, filters)["parts"][0]["sha256"])
    assert sums[0] == sums[1]


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
