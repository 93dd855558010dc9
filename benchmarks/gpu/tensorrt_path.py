"""The project's own TensorRT engine as a path: plans from the cache, built where there are none.

What is timed whole is the very engine that live use runs. What is timed alone are the parts of its lanes, on
its stream, with a graph of the network alone captured here, because the engine's own holds the copies too.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gpu.first_start import Starter, Steps, run_first
from gpu.networks import Network

from liveaffect.engines import plans
from liveaffect.engines.build.plan import BuiltPlan, build_plan
from liveaffect.engines.device_memory import DeviceError, DeviceMemory
from liveaffect.engines.gpu_driver import Gpu
from liveaffect.engines.protocol import EngineFailed, Tensors
from liveaffect.engines.tensorrt_backend import Backend
from liveaffect.engines.tensorrt_engine import RunOptions, TensorRTEngine

PRECISIONS = ("fp16", "fp32", "int8", "fp32-tf32")
Builder = Callable[[Network, str, Sequence[int]], BuiltPlan]


@dataclass
class Plans:
    """Plans by network and precision, from the cache or built now, with what building took."""

    backend: Backend
    gpu: Gpu
    build: Builder
    cache: Path
    sizes: tuple[int, ...]
    built: dict[str, dict[str, Any]] = field(default_factory=dict)
    """By 'network/precision': seconds and bytes of those built in this run."""

    def get(self, network: Network, precision: str) -> bytes:
        """The plan, whole. Raises EngineError with what TensorRT said."""
        key = self._key(network, precision)
        try:
            return plans.read_plan(key, self.cache)
        except plans.PlanMissing:
            made = self.build(network, precision, self.sizes)
        plans.write_plan(key, made, self.cache)
        self.built[f"{network.name}/{precision}"] = {"seconds": made.seconds, "bytes": len(made.plan)}
        return made.plan

    def runtime_cache(self, network: Network, precision: str) -> Path:
        """Where the kernels of this plan on this card are kept."""
        return plans.runtime_cache_path(self._key(network, precision), self.gpu, self.cache)

    def _key(self, network: Network, precision: str) -> plans.PlanKey:
        return plans.key_of(network.manifest, precision, self.backend, self.gpu, self.sizes)


def builder(backend: Backend) -> Builder:
    """Builds with what is installed. Half precision was converted beforehand and is built as the file stands:
    TensorRT runs the types that it finds there."""

    def build(network: Network, precision: str, sizes: Sequence[int]) -> BuiltPlan:
        as_it_is = "fp32" if precision == "fp16" else precision
        return build_plan(network.content(precision), precision=as_it_is, backend=backend, sizes=sizes)

    return build


@dataclass
class TensorRTPath:
    """The plans of one TensorRT, with CUDA graphs or without."""

    plans: Plans
    memory: DeviceMemory
    graph: bool
    precisions: Sequence[str] = PRECISIONS
    on_step: Callable[[str], None] = lambda _: None
    """Told when the plan is there, the engine is made, and it is warm."""

    @property
    def name(self) -> str:
        """Such as 'tensorrt-rtx, CUDA graph'."""
        return f"{self.plans.backend.flavour}, {'CUDA graph' if self.graph else 'no graph'}"

    def open(self, network: Network, precision: str) -> TensorRTOpened:
        """The network, warm. Raises EngineError where this cannot be run."""
        plan = self.plans.get(network, precision)
        self.on_step("plan")
        kept = self.plans.runtime_cache(network, precision)
        compiled = kept.read_bytes() if kept.is_file() else b""
        engine = TensorRTEngine(
            network.manifest,
            precision,
            plan,
            backend=self.plans.backend,
            memory=self.memory,
            options=RunOptions(graphs=self.graph, runtime_cache=compiled),
        )
        with ExitStack() as undo:
            undo.callback(engine.close)
            self.on_step("deserialise")
            engine.warm_up()
            self.on_step("warm_up")
            if not compiled and (compiled := engine.runtime_cache()):
                kept.write_bytes(compiled)
            undo.pop_all()
        return TensorRTOpened(engine, self.memory, network, self.graph)


def starter(make: Callable[[Path, Callable[[str], None]], TensorRTPath]) -> Starter:
    """Starts a network the way live use does for the first time, step by step, with plans from a folder."""

    def start(network: Network, precision: str, cache: Path) -> dict[str, Any]:
        steps = Steps()
        way = make(cache, steps.done)
        opened = way.open(network, precision)
        try:
            return run_first(opened.engine.infer, network, steps)
        finally:
            opened.close()
            way.memory.close()

    return start


@dataclass
class TensorRTOpened:
    """One engine and the lanes that were asked for."""

    engine: TensorRTEngine
    memory: DeviceMemory
    network: Network
    graph: bool
    lanes: list[TensorRTLane] = field(default_factory=list)

    def lane(self, batch: int) -> TensorRTLane:
        """A lane that was run once. Raises EngineError where this batch cannot be run."""
        inputs = self.network.inputs(batch)
        self.engine.infer(inputs)
        try:
            lane = TensorRTLane(self.engine, self.memory, inputs, batch, graph=self.graph)
        except DeviceError as err:
            raise EngineFailed(f"'{self.engine.spec.name}' at batch {batch} failed: {err}") from err
        self.lanes.append(lane)
        return lane

    def close(self) -> None:
        """Free the lanes, then the engine. Safe to call twice."""
        while self.lanes:
            self.lanes.pop().close()
        self.engine.close()


class TensorRTLane:
    """The parts of one batch's run."""

    def __init__(
        self, engine: TensorRTEngine, memory: DeviceMemory, inputs: Tensors, batch: int, *, graph: bool
    ) -> None:
        self._memory, self._stream = memory, engine.run.stream
        self._graph: int | None = None
        self.no_graph: str | None = None
        """Why the network alone is launched without a graph on a path that has graphs."""
        with memory.active():
            self._lane = engine.run.lane(batch)
            self._events = [memory.event(), memory.event()]
            self._lane.stage(inputs, batch)
            self._lane.copy_in()
            self._lane.compute()
            memory.synchronise(self._stream)
            if graph:
                self._capture()

    def start(self) -> None:
        """The network alone, on what was last copied in."""
        with self._memory.active():
            self._hand_in()

    def wait(self) -> None:
        """Until everything that was handed in is done."""
        with self._memory.active():
            self._memory.synchronise(self._stream)

    def device_ms(self) -> float:
        """What two events around the network alone say."""
        memory, (first, last) = self._memory, self._events
        with memory.active():
            memory.record(first, self._stream)
            self._hand_in()
            memory.record(last, self._stream)
            memory.wait(last)
            return memory.elapsed_ms(first, last)

    def close(self) -> None:
        """Free what was made here."""
        with self._memory.active():
            while self._events:
                self._memory.close_event(self._events.pop())
            if self._graph is not None:
                self._memory.close_graph(self._graph)
                self._graph = None

    def _capture(self) -> None:
        """A graph of the network alone; without one it is launched plainly, and the cell says so."""
        self._memory.begin_capture(self._stream)
        try:
            self._lane.compute()
        except (DeviceError, EngineFailed) as err:
            self.no_graph = str(err)
        try:
            self._graph = self._memory.end_capture(self._stream)
        except DeviceError as err:
            self.no_graph = self.no_graph or str(err)

    def _hand_in(self) -> None:
        if self._graph is None or self.no_graph is not None:
            self._lane.compute()
        else:
            self._memory.launch(self._graph, self._stream)
