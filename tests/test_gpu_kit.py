"""What the kit for GPU machines measures with: figures that their samples carry, clocks, a chart."""

from __future__ import annotations

import ctypes
import importlib
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

card, chart, samples, streams = (
    importlib.import_module(f"gpu.{name}") for name in ("card", "chart", "samples", "streams")
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
