"""`liveaffect bench gpu`: what a GPU does with the networks, in one run of minutes, record and page.

Every time says what it holds. *whole* is from arrays on the host to answers on the host, as a live run pays
it; *with copies* and *alone* are the device's own time for many batches that were handed in without
waiting, with and without the copies. Lengths are fixed beforehand; a p99 is given from 1,000 samples on.
Ticks are run back to back and 30 times a second, because clocks fall in between: a latency means nothing
without the clock it was measured at, so the card's own library (NVML) is asked beside it. Parts come in
order of importance and each is written when it is done, so that a run that is cut short leaves the best.
"""

from __future__ import annotations

import ctypes
import sys
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from liveaffect.bench import runs
from liveaffect.bench.measure import machine, short
from liveaffect.engines import gpu_driver, gpu_load, manifest, parity, plans, stopwatch
from liveaffect.engines.load import load, manifest_path
from liveaffect.engines.manifest import Manifest
from liveaffect.engines.protocol import Engine, EngineError, EngineUnavailable
from liveaffect.engines.scripted_engine import ScriptedFusion
from liveaffect.engines.slots import SlotEngine
from liveaffect.engines.tensorrt_engine import RunOptions, TensorRTEngine
from liveaffect.realtime.clock import MonotonicClock
from liveaffect.realtime.errors import RealtimeError
from liveaffect.realtime.networks import Networks, Row

LIBRARY = "nvml.dll" if sys.platform == "win32" else "libnvidia-ml.so.1"
_READINGS: dict[str, tuple[str, tuple[int, ...]]] = {
    "sm_mhz": ("nvmlDeviceGetClockInfo", (1,)),
    "memory_mhz": ("nvmlDeviceGetClockInfo", (2,)),
    "power_mw": ("nvmlDeviceGetPowerUsage", ()),
    "power_limit_mw": ("nvmlDeviceGetEnforcedPowerLimit", ()),
    "temperature_c": ("nvmlDeviceGetTemperature", (0,)),
    "sm_mhz_highest": ("nvmlDeviceGetMaxClockInfo", (1,)),
}
_HELD_DOWN = {
    0x2: "clocks set by an application",
    0x4: "power limit",
    0x8: "hardware slowdown",
    0x20: "temperature, by the driver",
    0x40: "temperature, by the hardware",
    0x80: "power brake",
}


class Watch:
    """Lowest and highest of everything that was read of the card with one UUID, for each part of a run."""

    def __init__(self, uuid: str = "", library: Any = None) -> None:
        self.why_not = ""
        self._device = ctypes.c_void_p()
        self._read: dict[str, list[int]] = {}
        self._held: set[str] = set()
        try:
            self._library = library or ctypes.CDLL(LIBRARY)
            status = int(self._library.nvmlInit_v2()) or int(
                self._library.nvmlDeviceGetHandleByUUID(uuid.encode(), ctypes.byref(self._device))
            )
        except (OSError, AttributeError) as err:
            self.why_not = f"clocks and power were not read: {err}"
            return
        if status:
            self.why_not = f"clocks and power were not read: NVML answers with error {status}"

    def look(self) -> None:
        """Read once. Takes a fraction of a millisecond and must not run inside a timed call."""
        if self.why_not:
            return
        for name, (function, selectors) in _READINGS.items():
            value = ctypes.c_uint(0)
            given = [ctypes.c_uint(one) for one in selectors]
            if not getattr(self._library, function)(self._device, *given, ctypes.byref(value)):
                self._read.setdefault(name, []).append(value.value)
        reasons = ctypes.c_ulonglong(0)
        self._library.nvmlDeviceGetCurrentClocksThrottleReasons(self._device, ctypes.byref(reasons))
        self._held |= {name for bit, name in _HELD_DOWN.items() if reasons.value & bit}

    def taken(self) -> dict[str, Any]:
        """What was read since it was last asked."""
        read, held = self._read, self._held
        self._read, self._held = {}, set()
        if self.why_not:
            return {"clocks": self.why_not}
        return {**{name: [min(all_), max(all_)] for name, all_ in read.items()}, "held_down_by": sorted(held)}


KINDS = ("face", "voice")
SIZES = (1, 16, 64)
TICKS = (1, 16, 64)
"""Faces of a tick; one piece of sound comes with each."""
FPS = 30
AGES_MS = (33.0, 50.0)
"""Limits of the age of a picture at p99, for which the number of streams is looked for."""
LEAST_FOR_P99 = 1_000
NS = 1_000_000_000

Say = Callable[[str], None]
Figures = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Way:
    """One way to run a network in half precision."""

    name: str
    open: Callable[[Manifest, Path], SlotEngine]


@dataclass(frozen=True, slots=True)
class Effort:
    """How much is measured."""

    calls: int = LEAST_FOR_P99
    queued: int = 200
    paced_s: float = 5.0
    trial_s: float = 1.5
    most_streams: int = 4_096
    items: int = 64
    pictures: int = 120


@dataclass
class GpuRun:
    """What every part needs."""

    folder: Path
    ways: Sequence[Way]
    effort: Effort
    deadline_ns: int
    watch: Watch
    write: Callable[[Figures], None]
    say: Say
    record: Figures = field(default_factory=dict)
    clock: MonotonicClock = field(default_factory=MonotonicClock)

    @property
    def in_time(self) -> bool:
        """Whether another part may be started."""
        return stopwatch.wall_ns() < self.deadline_ns

    def manifest(self, kind: str) -> Manifest:
        """Of one network that is measured."""
        return manifest.read(manifest_path(kind, self.folder))

    def made_up(self, kind: str, count: int, seed: int = 0) -> parity.Batch:
        """A batch for it."""
        return parity.for_tensors(kind, count, self.manifest(kind).inputs, seed=seed)

    @contextmanager
    def opened(self, way: Way, *kinds: str) -> Iterator[list[SlotEngine]]:
        """These networks, warm."""
        engines: list[SlotEngine] = []
        try:
            for kind in kinds:
                engines.append(way.open(self.manifest(kind), self.folder))
                engines[-1].warm_up()
            yield engines
        finally:
            for engine in engines:
                engine.close()

    def do(self, name: str, part: Callable[[], list[Figures]]) -> None:
        """One part: its rows, or why there are none, with the clocks of the card meanwhile."""
        parts = self.record.setdefault("parts", {})
        if not self.in_time:
            parts[name] = {"why_not": "the time given was up"}
            return
        self.say(name)
        start_ns = stopwatch.wall_ns()
        self.watch.look()
        try:
            entry: Figures = {"rows": part()}
        except EngineError as err:
            entry = {"why_not": str(err)}
        except Exception as err:  # noqa: BLE001  a part that breaks is quoted; the others go on
            entry = {"why_not": f"it broke: {err!r}", "broken": True}
        self.watch.look()
        parts[name] = {
            **entry,
            "seconds": short((stopwatch.wall_ns() - start_ns) / NS),
            "card": self.watch.taken(),
        }
        if "why_not" in entry:
            self.say(f"  {entry['why_not']}")
        self.write(self.record)


def real_ways() -> tuple[list[Way], list[str]]:
    """The ways this machine has, the most important first, and why others are not measured."""
    if why := gpu_driver.why_no_gpu():
        raise EngineUnavailable(f"there is no GPU to measure: {why}")
    ways: list[Way] = []
    missing: list[str] = []
    if why := gpu_load.why_no_tensorrt():
        missing.append(f"TensorRT: {why}")
    else:
        flavour = gpu_driver.FLAVOURS[gpu_load.find_tools().backend.flavour]
        ways += [
            Way(f"{flavour}, graph", partial(_plan_engine, graphs=True)),
            Way(f"{flavour}, no graph", partial(_plan_engine, graphs=False)),
        ]
    if why := gpu_load.why_no_torch():
        missing.append(f"torch: {why}")
    else:
        graph, eager = partial(_torch_engine, graphs=True), partial(_torch_engine, graphs=False)
        compiled = partial(_torch_engine, graphs=True, compiled="inductor", sizes=SIZES)
        ways += [Way("torch, graph", graph), Way("torch, eager", eager), Way("torch, compiled", compiled)]
    if not ways:
        raise EngineUnavailable(f"nothing runs on this GPU: {'; '.join(missing)}")
    return ways, missing


def _plan_engine(found: Manifest, folder: Path, *, graphs: bool) -> SlotEngine:
    tools = gpu_load.find_tools()
    gpu_load.build_plans(found, folder, tools)
    plan = plans.read_plan(plans.key_of(found, "fp16", tools.backend, tools.gpu))
    options = RunOptions(graphs=graphs, owns_memory=True)
    return TensorRTEngine(
        found, "fp16", plan, backend=tools.backend, memory=tools.open_memory(), options=options
    )


def _torch_engine(found: Manifest, folder: Path, **options: Any) -> SlotEngine:
    from liveaffect.engines import torch_engine

    if why := torch_engine.why_no_cuda():
        raise EngineUnavailable(why)
    device = torch_engine.device_of(gpu_load.find_gpu().uuid)
    return torch_engine.open_weights(
        found, folder, torch_engine.TorchOptions(device=device, precision="fp16", **options)
    )


def measure_gpu(run: GpuRun) -> Figures:
    """Everything, the most important first; the record."""
    run.record["ways"] = [way.name for way in run.ways]
    first, rest = run.ways[0], run.ways[1:]
    for way in (first, *rest):
        run.do(f"latency, {way.name}", lambda way=way: latency(run, way))  # type: ignore[misc]
        if way is first:
            run.do(f"parity, {way.name}", lambda: parity_rows(run, first))
            run.do(f"ticks, {way.name}", lambda: ticks(run, first))
            run.do(f"streams, {way.name}", lambda: streams(run, first))
    for way in rest:
        run.do(f"parity, {way.name}", lambda way=way: parity_rows(run, way))  # type: ignore[misc]
        run.do(f"ticks, {way.name}", lambda way=way: ticks(run, way))  # type: ignore[misc]
    run.record["budgets"] = budgets(run.record)
    run.write(run.record)
    return run.record


def latency(run: GpuRun, way: Way) -> list[Figures]:
    """Face and voice at every size."""
    rows = []
    for kind in KINDS:
        start_ns = stopwatch.wall_ns()
        with run.opened(way, kind) as (engine,):
            opened_s = (stopwatch.wall_ns() - start_ns) / NS
            for size in (size for size in SIZES if size <= engine.spec.max_batch):
                batches = [run.made_up(kind, size, seed) for seed in range(2)]
                row = {"network": kind, "batch": size, **cell(run, engine, batches, size)}
                rows.append({**row, "opening_s": short(opened_s), "notes": engine.notes})
                run.say(f"  {kind} {size}: {row['whole_p50_ms']} ms")
    return rows


def cell(run: GpuRun, engine: SlotEngine, batches: Sequence[parity.Batch], size: int) -> Figures:
    """One network at one size."""
    taken_ms = [_timed_ms(partial(engine.infer, batches[at % 2])) for at in range(run.effort.calls)]
    copied_ms, alone_ms = (
        engine.queued_ms(size, run.effort.queued, whole=whole) / run.effort.queued for whole in (True, False)
    )
    return {
        **percentiles("whole", taken_ms),
        "with_copies_ms": short(copied_ms),
        "alone_ms": short(alone_ms),
        "items_per_s_with_copies": short(size / copied_ms * 1000),
        "items_per_s_alone": short(size / alone_ms * 1000),
        "graph": all(slot.graphed for slot in engine.slots[size]),
    }


def ticks(run: GpuRun, way: Way) -> list[Figures]:
    """All faces and a piece of sound handed in, then both answers taken: at once, and at the live pace."""
    rows = []
    with run.opened(way, *KINDS) as (face, voice):
        networks = Networks(face, voice, ScriptedFusion())
        for count in (count for count in TICKS if count <= face.spec.max_batch):
            crops, pieces = _rows(run.made_up("face", count)), _rows(run.made_up("voice", 1))
            ask = partial(networks.ask, crops, pieces)
            at_once = [_timed_ms(ask) for _ in range(run.effort.calls)]
            cpu_ns = stopwatch.thread_cpu_ns()
            for _ in range(run.effort.queued):
                ask()
            cpu_ms = (stopwatch.thread_cpu_ns() - cpu_ns) / 1e6 / run.effort.queued
            rows.append(
                {
                    "faces": count,
                    **percentiles("whole", at_once),
                    **percentiles(f"at_{FPS}_a_second", _paced(run, ask)),
                    "processor_ms": short(cpu_ms),
                }
            )
            run.say(f"  {count} faces: {rows[-1]['whole_p50_ms']} ms")
    return rows


def _paced(run: GpuRun, call: Callable[[], object]) -> list[float]:
    """Times of a call that comes at the live pace, as the card's clocks then are."""
    stop, taken_ms = threading.Event(), []
    due_ns = run.clock.now_ns()
    for _ in range(round(run.effort.paced_s * FPS)):
        due_ns += NS // FPS
        run.clock.wait_until(due_ns, stop)
        taken_ms.append(_timed_ms(call))
    return taken_ms


def streams(run: GpuRun, way: Way) -> list[Figures]:
    """The largest number of streams, each with a face 30 times a second and its sound, for each limit of age.

    On the card alone; and what capture and finding faces leave of it, because the processor saturates first.
    """
    rows: list[Figures] = []
    with run.opened(way, *KINDS) as (face, voice):
        most = face.spec.max_batch, voice.spec.max_batch
        networks = Networks(face, voice, ScriptedFusion())
        pool = _rows(run.made_up("face", most[0])), _rows(run.made_up("voice", most[1]))
        for limit_ms in AGES_MS:
            trials: dict[int, Figures] = {}

            def keeps_up(count: int, limit_ms: float = limit_ms, trials: dict[int, Figures] = trials) -> bool:
                trials[count] = _trial(run, networks, pool, count)
                return bool(trials[count]["age_p99_ms"] <= limit_ms)

            found = largest(keeps_up, run.effort.most_streams, lambda: run.in_time)
            rows.append({"age_p99_limit_ms": limit_ms, "streams": found, "trials": list(trials.values())})
            run.say(f"  {found} streams at {limit_ms:g} ms")
    finding = _finding_cost(run.effort.pictures)
    return [{**row, **finding, **_with_the_processor(row["streams"], finding)} for row in rows]


def largest(keeps_up: Callable[[int], bool], most: int, in_time: Callable[[], bool]) -> int:
    """Doubling, then halving the gap to a tenth: the largest number that kept up, 0 if none did."""
    good, bad = 0, 1
    while bad <= most and in_time() and keeps_up(bad):
        good, bad = bad, bad * 2
    while bad - good > max(1, good // 10) and bad <= most and in_time():
        middle = (good + bad) // 2
        good, bad = (middle, bad) if keeps_up(middle) else (good, middle)
    return good


def _trial(run: GpuRun, networks: Networks, pool: tuple[list[Row], list[Row]], count: int) -> Figures:
    """So many streams, out of step with one another, for a while; ages are from arrival to answer."""
    recipe = run.manifest("voice").recipe
    rng = np.random.default_rng(count)
    pictures = _arrivals(rng, count, 1 / FPS, run.effort.trial_s)
    sounds = _arrivals(rng, count, recipe.hop / recipe.sample_rate, run.effort.trial_s)
    ages: list[Any] = []
    seen = heard = 0
    start_ns = stopwatch.wall_ns()
    while seen < len(pictures):
        at_ns = stopwatch.wall_ns() - start_ns
        if pictures[seen] > at_ns:
            continue
        until = min(int(np.searchsorted(pictures, at_ns, "right")), seen + len(pool[0]))
        heard_until = min(int(np.searchsorted(sounds, at_ns, "right")), heard + len(pool[1]))
        networks.ask(pool[0][: until - seen], pool[1][: heard_until - heard])
        ages.append(stopwatch.wall_ns() - start_ns - pictures[seen:until])
        seen, heard = until, heard_until
    taken_ms = np.concatenate(ages) / 1e6
    p50, p99 = np.percentile(taken_ms, [50, 99])
    return {"streams": count, "age_p50_ms": short(p50), "age_p99_ms": short(p99), "pictures": len(taken_ms)}


def _arrivals(rng: np.random.Generator, count: int, every_s: float, for_s: float) -> Any:
    """When everything arrives, in nanoseconds from the start, sorted."""
    first_s = rng.uniform(0, every_s, (count, 1))
    at_s = first_s + every_s * np.arange(max(1, int(for_s / every_s)))
    return np.sort((at_s * NS).astype(np.int64).ravel())


def _finding_cost(pictures: int) -> Figures:
    """What the processor needs to find and follow a face in one picture."""
    try:
        from liveaffect.bench.stages import finding_ms

        return {"finding_a_picture_ms": short(finding_ms(pictures=pictures))}
    except (RealtimeError, ImportError) as err:
        return {"finding": f"not measured: {err}"}


def _with_the_processor(on_card: int, finding: Figures) -> Figures:
    """How many streams are left when finding counts, on all cores: the processor saturates first."""
    if "finding_a_picture_ms" not in finding:
        return {}
    by_cpu = int(stopwatch.cores() * 1000 / (FPS * finding["finding_a_picture_ms"]))
    ends_first = "the processor" if by_cpu < on_card else "the card"
    return {"streams_with_finding": min(on_card, by_cpu), "ends_first": ends_first}


def parity_rows(run: GpuRun, way: Way) -> list[Figures]:
    """How far the answers lie from those of ONNX Runtime in fp32 on the processor."""
    rows = []
    for kind in KINDS:
        reference: Engine = load(kind, choice="onnx", weights=run.folder)
        try:
            with run.opened(way, kind) as (engine,):
                report = parity.compare(
                    reference,
                    engine,
                    run.made_up(kind, run.effort.items),
                    tolerance=gpu_load.tolerance_of("fp16"),
                )
        finally:
            reference.close()
        for one in report.differences:
            row = {"network": kind, "output": one.output, "largest": float(one.largest)}
            rows.append({**row, "cosine": float(one.cosine), "alike": report.alike})
    return rows


BUDGETS = (
    ("face, batch 1, whole p50", "latency", {"network": "face", "batch": 1}, "whole_p50_ms", 0.10),
    ("face, batch 1, whole p99", "latency", {"network": "face", "batch": 1}, "whole_p99_ms", 0.15),
    ("tick of 64 faces and sound, p50", "ticks", {"faces": 64}, "whole_p50_ms", 1.0),
)


def budgets(record: Figures) -> list[Figures]:
    """The budgets, judged on the first way."""
    out = []
    for what, part, wanted, figure, most in BUDGETS:
        entry = record["parts"].get(f"{part}, {record['ways'][0]}", {})
        rows = [row for row in entry.get("rows", ()) if all(row[key] == wanted[key] for key in wanted)]
        value = rows[0].get(figure) if rows else None
        verdict = "not measured" if value is None else "PASS" if value <= most else "FAIL"
        out.append({"budget": what, "most_ms": most, "measured_ms": value, "verdict": verdict})
    return out


def percentiles(name: str, taken_ms: Sequence[float]) -> Figures:
    """p50 and p90, and p99 where at least 1,000 samples carry it."""
    shares = (50, 90, 99) if len(taken_ms) >= LEAST_FOR_P99 else (50, 90)
    return {f"{name}_p{share}_ms": short(np.percentile(taken_ms, share)) for share in shares}


def _timed_ms(call: Callable[[], object]) -> float:
    start_ns = stopwatch.wall_ns()
    call()
    return (stopwatch.wall_ns() - start_ns) / 1e6


def _rows(batch: parity.Batch) -> list[Row]:
    count = len(next(iter(batch.values())))
    return [{name: array[at] for name, array in batch.items()} for at in range(count)]


RECORD, PAGE = "gpu.json", "gpu.html"


def run_gpu(networks: Path, minutes: float, out: Path, *, say: Say, effort: Effort | None = None) -> int:
    """Measure and write; 1 if a part broke. Raises EngineUnavailable where there is nothing to measure."""
    ways, missing = real_ways()
    card = gpu_load.find_gpu() if gpu_driver.why_no_gpu() is None else None
    record: Figures = {
        "machine": machine(),
        "networks": str(networks),
        "gpu": {"name": card.name, "capability": card.sm, "uuid": card.uuid} if card else {},
        "not_measured": missing,
    }
    run = GpuRun(
        folder=networks,
        ways=ways,
        effort=effort or Effort(),
        deadline_ns=stopwatch.wall_ns() + round(minutes * 60e9),
        watch=Watch(card.uuid if card else ""),
        write=lambda found: runs.write_record(out / RECORD, found),
        say=say,
        record=record,
    )
    try:
        found = measure_gpu(run)
    finally:
        _write_page(record, out)
    say(f"\n{runs.as_text(found.get('budgets', ()))}\n\nwrote {out / RECORD} and {out / PAGE}")
    return int(any(part.get("broken") for part in found["parts"].values()))


def _write_page(record: Figures, out: Path) -> None:
    """The page of what there is; a run that was cut off has had less."""
    about = [{**record["gpu"], "networks": record["networks"]}], [record["machine"]]
    parts = [("Machine", "".join(map(runs.as_html, about)))]
    if "budgets" in record:
        parts.append(("Budgets", runs.as_html(record["budgets"])))
    if record["not_measured"]:
        parts.append(("Not measured", runs.as_html([{"why": why} for why in record["not_measured"]])))
    if points := _curves(record, "latency"):
        parts.append(("Whole time, p50", runs.plot(points, x="batch", y="milliseconds", log=True)))
    if ages := _curves(record, "streams"):
        parts.append(("Age of a picture, p99", runs.plot(ages, x="streams", y="milliseconds", log=True)))
    for name, part in record.get("parts", {}).items():
        rows = [{key: value for key, value in row.items() if key != "trials"} for row in part.get("rows", ())]
        said = runs.as_html([{"why not": part["why_not"]}]) if "why_not" in part else runs.as_html(rows)
        clocks = runs.as_html([{"seconds": part.get("seconds"), **part.get("card", {})}])
        parts.append((name, said + clocks))
    runs.write_page(out / PAGE, f"A GPU: {record['gpu'].get('name', 'none')}", parts)


def _curves(record: Figures, kind: str) -> dict[str, list[tuple[float, float]]]:
    """For a plot: the whole time at each batch, or the age at each number of streams that was tried."""
    out: dict[str, dict[float, float]] = defaultdict(dict)
    for name, part in record.get("parts", {}).items():
        for row in part.get("rows", ()) if name.startswith(kind) else ():
            if kind == "latency":
                out[f"{row['network']}, {name}"][row["batch"]] = row["whole_p50_ms"]
            else:
                out[name] |= {one["streams"]: one["age_p99_ms"] for one in row["trials"]}
    return {name: sorted(points.items()) for name, points in out.items() if points}
