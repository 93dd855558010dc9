"""A network on TensorRT, on an NVIDIA GPU.

`submit` only hands work to the network's own stream; `result` waits for that stream's mark and for nothing
else, so the scheduler submits faces and sound and then waits once for both. What a batch needs was made at
the start, and steady work allocates nothing. CUDA graphs are used where they answer like the plain way. A
batch between two sizes is filled up to the next where that costs less, which is measured while warming up.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from math import ceil

from liveaffect.engines import probe, stopwatch
from liveaffect.engines.device_memory import DeviceError, DeviceMemory
from liveaffect.engines.manifest import Manifest
from liveaffect.engines.protocol import (
    EngineError,
    EngineFailed,
    EngineLost,
    EngineSpec,
    Pending,
    Tensors,
    check_finite,
    check_inputs,
)
from liveaffect.engines.tensorrt_backend import Backend
from liveaffect.engines.tensorrt_lane import Lane, do_all
from liveaffect.engines.tensorrt_run import PlanRun

ROUNDS = 5


@dataclass(frozen=True, slots=True)
class RunOptions:
    """How a plan is run."""

    graphs: bool = True
    """Use CUDA graphs where they answer like the plain way."""
    measure: bool = True
    """While warming up, find out where filling up to a size pays; else it is always filled up."""
    runtime_cache: bytes = b""
    """What `runtime_cache` gave the last time, for TensorRT-RTX."""
    owns_memory: bool = False
    """Close the memory with the engine."""


class TensorRTEngine:
    """One plan. Not thread-safe: one caller."""

    def __init__(
        self,
        manifest: Manifest,
        precision: str,
        plan: bytes,
        *,
        backend: Backend,
        memory: DeviceMemory,
        options: RunOptions | None = None,
    ) -> None:
        """Open the plan. Raises EngineFileError if it does not fit, EngineFailed if the GPU refuses."""
        self.precision = precision
        """Of the plan."""
        self._options = options or RunOptions()
        self._memory = memory
        self._kind, self._recipe = manifest.kind, manifest.recipe
        self._spec = manifest.spec(
            "int8" if precision == "int8" else "fp32", f"{backend.flavour}-{precision}"
        )
        self._lost: str | None = None
        self._notes: list[str] = []
        self._waiting: dict[Lane, _Waiting] = {}
        self._flexible_below: dict[int, int] = {}
        self._warm = False
        self._run: PlanRun | None = None
        try:
            with self._device("opening the plan"):
                self._run = PlanRun(
                    plan, self._spec, backend, memory, runtime_cache=self._options.runtime_cache
                )
        except EngineError:
            self._let_go()
            raise
        self._spec = replace(self._spec, max_batch=self._run.max_batch)

    @property
    def spec(self) -> EngineSpec:
        """What goes in and what comes out."""
        return self._spec

    @property
    def notes(self) -> tuple[str, ...]:
        """What was decided while warming up, a line each."""
        return tuple(self._notes)

    @property
    def run(self) -> PlanRun:
        """The opened plan, for measuring its parts."""
        if self._run is None:
            raise EngineError(f"engine '{self._spec.name}' is closed")
        return self._run

    def submit(self, inputs: Tensors) -> Pending:
        """Hand in one batch and come back at once."""
        run = self.run
        if self._lost is not None:
            raise EngineLost(self._lost)
        count = check_inputs(self._spec, inputs)
        with self._device("handing in a batch"):
            lane = self._lane_for(run, count)
            if (earlier := self._waiting.pop(lane, None)) is not None:
                earlier.fetch()
            if lane.flexible:
                lane.shape(count)
            lane.stage(inputs, count)
            lane.enqueue()
        waiting = self._waiting[lane] = _Waiting(self, lane, count)
        return waiting

    def infer(self, inputs: Tensors) -> Tensors:
        """`submit` and wait."""
        return self.submit(inputs).result()

    def warm_up(self) -> None:
        """Run every size, make the graphs and check them, and find out where filling up pays."""
        run = self.run
        if not self._warm:
            with self._device("warming up"):
                for lane in run.lanes:
                    self._warm_up_lane(lane)
                if self._options.measure:
                    self._measure(run)
            self._warm = True
        self.infer(self._inputs(1))

    def runtime_cache(self) -> bytes:
        """What a later start can be given to be faster; empty where TensorRT has no such thing."""
        with self._device("reading its kernels"):
            return self.run.runtime_cache()

    def close(self) -> None:
        """End what waits, then contexts, engine, runtime and memory. Safe to call twice."""
        run, self._run = self._run, None
        if run is None:
            return
        for step in (self._fetch_all, run.close):
            try:
                with self._device("ending"):
                    step()
            except EngineFailed:
                continue  # What is lost needs no end, and who waits for an answer is told so.
        self._let_go()

    def fetch(self, waiting: _Waiting) -> None:
        """Wait for one batch, if it still waits."""
        if self._lost is not None:
            raise EngineLost(self._lost)
        with self._device("waiting for an answer"):
            waiting.fetch()
        self._waiting = {lane: one for lane, one in self._waiting.items() if one is not waiting}

    def _fetch_all(self) -> None:
        for waiting in self._waiting.values():
            waiting.fetch()

    def _let_go(self) -> None:
        if self._options.owns_memory:
            do_all([self._memory.close])

    def _lane_for(self, run: PlanRun, count: int) -> Lane:
        padded = run.padded(count)
        if count < self._flexible_below.get(padded.size, 0):
            return run.flexible(count)
        return padded

    def _warm_up_lane(self, lane: Lane) -> None:
        batches = self._inputs(2 * lane.size)
        first, second = probe.split(batches, (lane.size,))
        check_finite(self._spec, lane.run(first, lane.size))
        if self._options.graphs and (why := lane.try_graph(first, second)) is not None:
            self._notes.append(f"'{self._spec.name}' runs batches of {lane.size} plainly: {why}")

    def _measure(self, run: PlanRun) -> None:
        """For each profile of several batches: below which of them a batch runs better as it is."""
        for low, high in run.ranges:
            if low == high:
                continue
            few, many = self._inputs(low), self._inputs(high)
            full, exact = run.padded(high), run.flexible(low)
            calls: list[Callable[[], object]] = [
                partial(full.run, many, high),
                partial(_run_as_it_is, exact, few, low),
                partial(_run_as_it_is, exact, many, high),
            ]
            for call in calls:
                call()
            full_ns, low_ns, high_ns = stopwatch.median_ns(calls, rounds=ROUNDS, now=stopwatch.wall_ns)
            below = flexible_below((low, low_ns), (high, high_ns), full_ns)
            if below > low:
                self._flexible_below[high] = below
                self._notes.append(f"'{self._spec.name}' fills batches up to {high} from {below} on")
            else:
                run.forget_flexible(low)

    def _inputs(self, count: int) -> probe.Batch:
        return probe.inputs(self._kind, count, piece=self._recipe.piece, statistics=self._recipe.statistics)

    @contextmanager
    def _device(self, doing: str) -> Iterator[None]:
        """The device is this thread's inside; its errors mean that it is lost."""
        try:
            with self._memory.active():
                try:
                    yield
                except EngineFailed:
                    # TensorRT only says no; a device that is lost says so when it is waited for.
                    if self._warm and self._run is not None:
                        self._memory.synchronise(self._run.stream)
                    raise
        except DeviceError as err:
            if not self._warm:
                raise EngineFailed(f"'{self._spec.name}' cannot work on this GPU: {doing}: {err}") from err
            self._lost = f"engine '{self._spec.name}' lost its GPU while {doing}: {err}"
            raise EngineLost(self._lost) from err


class _Waiting:
    """A batch on its way."""

    def __init__(self, engine: TensorRTEngine, lane: Lane, count: int) -> None:
        self._engine = engine
        self._lane = lane
        self._count = count
        self._outputs: Tensors | None = None

    def result(self) -> Tensors:
        """Wait for the mark behind this batch, unless the answer was fetched already."""
        if self._outputs is None:
            self._engine.fetch(self)
        assert self._outputs is not None
        check_finite(self._engine.spec, self._outputs)
        return self._outputs

    def fetch(self) -> None:
        """Fetch the answer, because somebody wants it or the lane is needed for the next batch."""
        self._lane.wait()
        self._outputs = self._lane.answers(self._count)


def _run_as_it_is(lane: Lane, inputs: Tensors, count: int) -> None:
    lane.shape(count)
    lane.run(inputs, count)


def flexible_below(low: tuple[int, int], high: tuple[int, int], full_ns: int) -> int:
    """From which batch on filling up to the largest, for `full_ns`, costs no more than running it as it is.

    `low` and `high` are the smallest and the largest batch of a profile, each with what it costs as it is;
    what lies between grows in proportion. The smallest batch: filling up always pays. The largest: never.
    """
    (few, few_ns), (many, many_ns) = low, high
    if full_ns <= few_ns:
        return few
    if full_ns >= many_ns:
        return many
    return few + ceil((full_ns - few_ns) * (many - few) / (many_ns - few_ns))
