"""The parts that time networks: one cell of the table of latencies, and a full tick.

Every time says what it holds. `whole` starts with arrays on the host and ends with answers on the host, both
copies and the wait between; `alone` is the network on data that lies on the card, by the wall clock; `events`
is the same by the card's own clock; `items_per_s` comes from many calls in flight.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gpu import samples
from gpu.card import Nvml, Watch
from gpu.lanes import Lane, Opened
from gpu.lanes import Path as GpuPath
from gpu.networks import Network, Prepared
from gpu.samples import Effort

from liveaffect.engines.protocol import EngineError, Tensors

ROTATED = 4
"""Different inputs that take turns, so that no two calls in a row are given the same."""
STEP = 17
"""How far the next of them starts in the recorded items."""

Cell = dict[str, Any]


@dataclass
class Run:
    """What every part needs."""

    prepared: Prepared
    effort: Effort
    nvml: Nvml
    out: Path
    ways: list[GpuPath]
    """Usable ones, the measured one first."""
    deadline_ns: int
    is_dry: bool
    say: Callable[[str], None]
    now: samples.Now = time.perf_counter_ns

    def precisions(self, way: GpuPath) -> list[str]:
        """What is measured on this path, in order of importance."""
        return [one for one in way.precisions if one in self.effort.precisions]

    @property
    def in_time(self) -> bool:
        """Whether another cell may be started."""
        return self.now() < self.deadline_ns


def latency(run: Run, watch: Watch, network: Network, way: GpuPath, batches: Sequence[int]) -> dict[str, Any]:
    """Every precision and batch of one network on one path, as many cells as the time allows."""
    cells: list[Cell] = []
    refused: list[str] = []
    late = 0
    for precision in run.precisions(way):
        if not run.in_time:
            late += len(batches)
            continue
        try:
            opened = way.open(network, precision)
        except EngineError as err:
            refused.append(f"{precision}: {err}")
            continue
        try:
            for batch in batches:
                if not run.in_time:
                    late += 1
                    continue
                found = _cell(run, watch, network, opened, batch)
                cells.append({"network": network.name, "precision": precision, "path": way.name, **found})
                run.say(_said(cells[-1]))
        finally:
            opened.close()
    return {"cells": cells, "refused": refused, "not_reached": late}


def _cell(run: Run, watch: Watch, network: Network, opened: Opened, batch: int) -> Cell:
    engine = opened.engine
    if batch > engine.spec.max_batch:
        return {"batch": batch, "why_not": f"the plan takes {engine.spec.max_batch} at most"}
    try:
        lane = opened.lane(batch)
        inputs = _rotating(network, batch)
        whole = samples.settle(lambda: engine.infer(next(inputs)), run.effort, between=watch.look)
        alone = samples.settle(lambda: _once(lane), run.effort, between=watch.look)
        events = samples.settle_readings(lane.device_ms, run.effort, between=watch.look)
        burst = samples.settle(lambda: _many(lane, run.effort.burst), run.effort, between=watch.look)
        lane.close()
    except EngineError as err:
        return {"batch": batch, "why_not": str(err)}
    middle_ms = burst.figures["p50"] / run.effort.burst
    return {
        "batch": batch,
        **({"alone_without_graph": lane.no_graph} if lane.no_graph else {}),
        "whole": whole.to_json(),
        "alone": alone.to_json(),
        "events": events.to_json(),
        "items_per_s": float(f"{batch / middle_ms * 1000:.4g}") if middle_ms else 0.0,
        "settled": all(one.settled for one in (whole, alone, events, burst)),
    }


def _once(lane: Lane) -> None:
    lane.start()
    lane.wait()


def _many(lane: Lane, count: int) -> None:
    for _ in range(count):
        lane.start()
    lane.wait()


def _rotating(network: Network, batch: int) -> Iterator[Tensors]:
    return itertools.cycle([network.inputs(batch, number * STEP) for number in range(ROTATED)])


def _said(cell: Cell) -> str:
    name = f"{cell['network']} {cell['precision']} {cell['path']} batch {cell['batch']}"
    if "why_not" in cell:
        return f"{name}: {cell['why_not']}"
    return f"{name}: whole p50 {cell['whole']['p50']:g} ms" + ("" if cell["settled"] else ", not settled")


@dataclass
class Pair:
    """Face and voice of live use on one path, as a tick has them."""

    face: Opened
    voice: Opened

    def tick(self, crops: Tensors, pieces: Tensors) -> None:
        """Hand in both, then take both answers: one wait for two streams."""
        pending = [self.face.engine.submit(crops)]
        if len(next(iter(pieces.values()))):
            pending.append(self.voice.engine.submit(pieces))
        for one in pending:
            one.result()

    def close(self) -> None:
        """Free both."""
        self.face.close()
        self.voice.close()


def opened_pair(run: Run, way: GpuPath, precision: str) -> Pair:
    """Both networks, warm. Raises EngineError."""
    face = way.open(run.prepared.first("face"), precision)
    try:
        pair = Pair(face, way.open(run.prepared.first("voice"), precision))
    except EngineError:
        face.close()
        raise
    for one in (pair.face, pair.voice):
        one.engine.warm_up()
    return pair


def ticks(run: Run, watch: Watch, way: GpuPath) -> dict[str, Any]:
    """A tick of so many faces and one piece of sound, in every precision."""
    cells: list[Cell] = []
    refused: list[str] = []
    late = 0
    for precision in run.precisions(way):
        if not run.in_time:
            late += 1
            continue
        try:
            pair = opened_pair(run, way, precision)
        except EngineError as err:
            refused.append(f"{precision}: {err}")
            continue
        try:
            for faces in run.effort.tick_faces:
                cells.append({"precision": precision, "path": way.name, **_tick(run, watch, pair, faces)})
                run.say(f"tick {precision} {way.name} {faces} faces: p50 {cells[-1]['whole']['p50']:g} ms")
        finally:
            pair.close()
    return {"cells": cells, "refused": refused, "not_reached": late}


def _tick(run: Run, watch: Watch, pair: Pair, faces: int) -> Cell:
    crops, pieces = (
        _rotating(run.prepared.first(kind), count) for kind, count in (("face", faces), ("voice", 1))
    )
    taken = samples.settle(lambda: pair.tick(next(crops), next(pieces)), run.effort, between=watch.look)
    return {"faces": faces, "whole": taken.to_json(), "settled": taken.settled}
