"""A network on TensorRT or TensorRT-RTX, on an NVIDIA GPU: an opened plan, its slots, and the engine.

The plan is opened on whichever thread builds it and used on another: the context is the device's primary
one, which every thread may make its own. Everything a batch needs is made at the start; steady work
allocates nothing.

All slots of a place share one block of memory for inputs and one for outputs on either side, laid out
tightly for each size, so a batch is two copies; all contexts share one scratch buffer, because a stream
runs one batch after the other. Each slot keeps a context of its own, untouched after its graph was
captured: a graph is valid only as long. TensorRT and TensorRT-RTX are captured alike, copies included; RTX
is asked first whether it can be.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from liveaffect.engines.device_memory import DeviceError, DeviceMemory
from liveaffect.engines.gpu_driver import Backend
from liveaffect.engines.manifest import Manifest
from liveaffect.engines.plans import listener
from liveaffect.engines.protocol import EngineError, EngineFailed, EngineFileError, EngineSpec, TensorSpec
from liveaffect.engines.slots import PLACES, SIZES, Outputs, SlotEngine

_ALIGNED = 256
"""TensorRT wants the addresses of tensors at multiples of this."""


class PlanRun:
    """One plan on one stream of one device. Used inside `memory.active()`."""

    def __init__(
        self, plan: bytes, spec: EngineSpec, backend: Backend, memory: DeviceMemory, runtime_cache: bytes
    ) -> None:
        """Open it. Raises EngineFileError if TensorRT refuses it or it is of another network."""
        self.slots: dict[int, tuple[PlanSlot, ...]] = {}
        self.stream = 0
        self.memory = memory
        self.spec = spec
        self._backend = backend
        self._undo: list[Callable[[], None]] = []
        self._said = listener(backend.module)
        self._runtime: Any = backend.module.Runtime(self._said)
        self._engine: Any = self._runtime.deserialize_cuda_engine(plan)
        self._cache: Any = None
        with ExitStack() as undo:
            undo.callback(self.close)
            self._open(runtime_cache)
            undo.pop_all()

    def _open(self, runtime_cache: bytes) -> None:
        if self._engine is None:
            raise EngineFileError(
                f"{self._backend} cannot open the plan of '{self.spec.name}': {self.complaint()}; "
                "remove it with 'liveaffect engines clean'"
            )
        self._check("inputs", self._backend.module.TensorIOMode.INPUT, self.spec.inputs)
        self._check("outputs", self._backend.module.TensorIOMode.OUTPUT, self.spec.outputs)
        self.stream = self._made(self.memory.stream(), self.memory.close_stream)
        if self._backend.is_rtx:
            self._cache = self._engine.create_runtime_config().create_runtime_cache()
            # A cache of another driver or card is refused, and then everything is made anew.
            _ = runtime_cache and self._cache.deserialize(runtime_cache)
        ranges = self._profiles()
        most = max(high for _low, high in ranges)
        blocks = [
            (self._block(self.spec.inputs, most), self._block(self.spec.outputs, most)) for _ in range(PLACES)
        ]
        contexts = {
            (size, place): self._context(profile, size)
            for profile, (low, high) in enumerate(ranges)
            for size in sorted({size for size in SIZES if low <= size <= high} | {high})
            for place in range(PLACES)
        }
        needed = [context.update_device_memory_size_for_shapes() for context in contexts.values()]
        scratch_size = max(*needed, self._engine.device_memory_size_v2, _ALIGNED)
        scratch = self._made(self.memory.allocate(scratch_size), self.memory.free)
        for (size, place), context in contexts.items():
            context.set_device_memory(scratch, scratch_size)
            slot = PlanSlot(self, context, size, place, blocks[place])
            self.slots[size] = (*self.slots.get(size, ()), slot)
        self.memory.synchronise(self.stream)

    @property
    def max_batch(self) -> int:
        """The largest batch that fits a profile."""
        return max(self.slots)

    def complaint(self) -> str:
        """What TensorRT said last."""
        words: str = self._said.complaint()
        return words

    def runtime_cache(self) -> bytes:
        """The kernels TensorRT-RTX has made so far, for the next start; nothing from others."""
        return b"" if self._cache is None else bytes(self._cache.serialize())

    def can_be_captured(self, context: Any) -> bool:
        """Whether TensorRT lets this context be noted down; only RTX, which makes kernels late, has a say."""
        return not self._backend.is_rtx or bool(context.is_stream_capturable(self.stream))

    def close(self) -> None:
        """End graphs, contexts, memory, stream, engine and runtime. Safe twice, and on a lost device."""
        for slots in self.slots.values():
            for slot in slots:
                slot.end()
        self.slots = {}
        do_all(self._undo[::-1])
        self._undo.clear()
        self._cache = self._engine = self._runtime = None

    def _made(self, handle: int, give_back: Callable[[int], None]) -> int:
        self._undo.append(lambda: give_back(handle))
        return handle

    def _block(self, tensors: Sequence[TensorSpec], rows: int) -> tuple[int, NDArray[np.uint8]]:
        """Memory on the device and on the host for so many rows of these tensors."""
        size = sum(_room_of(tensor, rows) for tensor in tensors)
        device = self._made(self.memory.allocate(size), self.memory.free)
        host = self.memory.pinned(size)
        self._undo.append(lambda: self.memory.free_pinned(host))
        host[:] = 0
        return device, host

    def _check(self, what: str, mode: Any, wanted: tuple[TensorSpec, ...]) -> None:
        """The plan itself must say what the manifest says."""
        engine, trt = self._engine, self._backend.module
        names = [engine.get_tensor_name(at) for at in range(engine.num_io_tensors)]
        found = {
            name: TensorSpec(
                name,
                np.dtype(trt.nptype(engine.get_tensor_dtype(name))).name,
                tuple(engine.get_tensor_shape(name))[1:],
            )
            for name in names
            if engine.get_tensor_mode(name) == mode
        }
        if found != {tensor.name: tensor for tensor in wanted}:
            raise EngineFileError(
                f"the plan of '{self.spec.name}' is of another network: its {what} are "
                f"{', '.join(map(str, found.values()))}; wanted {', '.join(map(str, wanted))}"
            )

    def _profiles(self) -> list[tuple[int, int]]:
        """The smallest and the largest batch of each."""
        name = self.spec.inputs[0].name
        shapes = [
            self._engine.get_tensor_profile_shape(name, at)
            for at in range(self._engine.num_optimization_profiles)
        ]
        return [(int(low[0]), int(high[0])) for low, _best, high in shapes]

    def _context(self, profile: int, size: int) -> Any:
        """A context set for batches of this size, whose scratch memory is ours; kernels are made now."""
        trt = self._backend.module
        if self._backend.is_rtx:
            config = self._engine.create_runtime_config()
            config.set_runtime_cache(self._cache)
            config.set_execution_context_allocation_strategy(
                trt.ExecutionContextAllocationStrategy.USER_MANAGED
            )
            config.cuda_graph_strategy = trt.CudaGraphStrategy.DISABLED
            config.dynamic_shapes_kernel_specialization_strategy = (
                trt.DynamicShapesKernelSpecializationStrategy.EAGER
            )
            context = self._engine.create_execution_context(config)
        else:
            strategy = trt.ExecutionContextAllocationStrategy.USER_MANAGED
            context = self._engine.create_execution_context(strategy)
        if context is None or not context.set_optimization_profile_async(profile, self.stream):
            raise EngineFailed(f"no context for batches of {size}: {self.complaint()}")
        for tensor in self.spec.inputs:
            if not context.set_input_shape(tensor.name, (size, *tensor.shape)):
                raise EngineFailed(f"no batch of {size} for '{tensor.name}': {self.complaint()}")
        return context


class PlanSlot:
    """One place for one size."""

    def __init__(
        self,
        run: PlanRun,
        context: Any,
        size: int,
        place: int,
        blocks: tuple[tuple[int, NDArray[np.uint8]], tuple[int, NDArray[np.uint8]]],
    ) -> None:
        self.size, self.place, self.graphed = size, place, False
        self._run, self._memory = run, run.memory
        self._context: Any = context
        self._graph: int | None = None
        self._done: int | None = self._memory.event()
        self.inputs: Outputs = {}
        self._outputs: Outputs = {}
        self._there = self._laid_out(blocks[0], run.spec.inputs, self.inputs)
        self._back = self._laid_out(blocks[1], run.spec.outputs, self._outputs)

    def enqueue(self, count: int) -> None:
        """Copies there, the network, copies back, and the mark behind them; or all of it as a graph."""
        if self._graph is not None:
            self._memory.launch(self._graph, self._run.stream)
        else:
            self.copy_in(count)
            self.compute()
            self.copy_out(count)
        assert self._done is not None
        self._memory.record(self._done, self._run.stream)

    def copy_in(self, count: int) -> None:
        """So many rows to the device; a full batch is one copy."""
        for address, array in self._parts(self._there, self.inputs, count):
            self._memory.copy_in(address, array, self._run.stream)

    def compute(self) -> None:
        """The network alone."""
        if not self._context.execute_async_v3(self._run.stream):
            raise EngineFailed(f"a batch of {self.size} was refused: {self._run.complaint()}")

    def copy_out(self, count: int) -> None:
        """So many rows from the device."""
        for address, array in self._parts(self._back, self._outputs, count):
            self._memory.copy_out(array, address, self._run.stream)

    def wait(self) -> None:
        """Until the device has passed the mark of the last `enqueue`."""
        assert self._done is not None
        self._memory.wait(self._done)

    def answers(self, count: int) -> Outputs:
        """Copies of the first rows of what came back."""
        return {name: view[:count].copy() for name, view in self._outputs.items()}

    def queued_ms(self, times: int, *, whole: bool) -> float:
        """Milliseconds of the device for so many full batches in a row, with copies or without them."""
        marks = self._memory.event(), self._memory.event()
        self._memory.record(marks[0], self._run.stream)
        for _ in range(times):
            if whole:
                self.enqueue(self.size)
            else:
                self.compute()
        self._memory.record(marks[1], self._run.stream)
        self._memory.wait(marks[1])
        taken_ms = self._memory.elapsed_ms(*marks)
        for mark in marks:
            self._memory.close_event(mark)
        return taken_ms

    def make_graph(self) -> str | None:
        """Capture copies, network and copies; or why that cannot be."""
        if not self._run.can_be_captured(self._context):
            return "TensorRT-RTX says that it cannot be captured"
        stream = self._run.stream
        self._memory.begin_capture(stream)
        try:
            self.copy_in(self.size)
            self.compute()
            self.copy_out(self.size)
        except (DeviceError, EngineFailed):
            # The stream has to be set free all the same, and its own error says less than this one.
            do_all([lambda: self._memory.close_graph(self._memory.end_capture(stream))])
            raise
        self._graph = self._memory.end_capture(stream)
        self.graphed = True
        return None

    def drop_graph(self) -> None:
        """Back to the plain way."""
        graph, self._graph, self.graphed = self._graph, None, False
        if graph is not None:
            self._memory.close_graph(graph)

    def end(self) -> None:
        """Give back graph, context and mark."""
        do_all([self.drop_graph])
        self._context = None
        done, self._done = self._done, None
        if done is not None:
            do_all([lambda: self._memory.close_event(done)])

    def _laid_out(
        self, block: tuple[int, NDArray[np.uint8]], tensors: Sequence[TensorSpec], views: Outputs
    ) -> tuple[int, NDArray[np.uint8], dict[str, int]]:
        """Tensors side by side at the start of a block: the bytes used, and where each begins."""
        device, host = block
        offsets: dict[str, int] = {}
        end = 0
        for tensor in tensors:
            offsets[tensor.name] = end
            view = host[end : end + _bytes_of(tensor, self.size)].view(tensor.dtype)
            views[tensor.name] = view.reshape(self.size, *tensor.shape)
            if not self._context.set_tensor_address(tensor.name, device + end):
                raise EngineFailed(f"no address for '{tensor.name}': {self._run.complaint()}")
            end += _room_of(tensor, self.size)
        return device, host[:end], offsets

    def _parts(
        self, laid: tuple[int, NDArray[np.uint8], dict[str, int]], views: Outputs, count: int
    ) -> list[tuple[int, NDArray[Any]]]:
        device, host, offsets = laid
        if count == self.size:
            return [(device, host)]
        return [(device + offsets[name], view[:count]) for name, view in views.items()]


def do_all(steps: Sequence[Callable[[], object]]) -> None:
    """Try every step: on a lost device all of them may fail, and the process goes on without it."""
    for step in steps:
        try:
            step()
        except DeviceError:
            continue


def _bytes_of(tensor: TensorSpec, rows: int) -> int:
    return rows * int(np.prod(tensor.shape)) * np.dtype(tensor.dtype).itemsize


def _room_of(tensor: TensorSpec, rows: int) -> int:
    return -(-_bytes_of(tensor, rows) // _ALIGNED) * _ALIGNED


@dataclass(frozen=True, slots=True)
class RunOptions:
    """How a plan is run."""

    graphs: bool = True
    """Use CUDA graphs where they answer like the plain way."""
    runtime_cache: bytes = b""
    """What `runtime_cache` gave the last time, for TensorRT-RTX."""
    owns_memory: bool = False
    """Close the memory with the engine."""


class TensorRTEngine(SlotEngine):
    """One plan."""

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
        self._options = options or RunOptions()
        spec = manifest.spec("int8" if precision == "int8" else "fp32", f"{backend.flavour}-{precision}")
        super().__init__(spec, manifest.kind, graphs=self._options.graphs)
        self.precision = precision
        """Of the plan."""
        self._memory = memory
        self._run: PlanRun | None = None
        try:
            with self._device("opening the plan"):
                self._run = PlanRun(plan, spec, backend, memory, self._options.runtime_cache)
        except EngineError:
            self._let_go()
            raise
        self._use(self._run.slots)
        self._spec = replace(spec, max_batch=self._run.max_batch)

    @property
    def run(self) -> PlanRun:
        """The opened plan, for measuring its parts."""
        self._refuse_if_over()
        assert self._run is not None
        return self._run

    def runtime_cache(self) -> bytes:
        """What a later start can be given to be faster; empty where TensorRT has no such thing."""
        with self._device("reading its kernels"):
            return self.run.runtime_cache()

    def _active(self) -> AbstractContextManager[None]:
        return self._memory.active()

    def _look_for_loss(self) -> None:
        """TensorRT only says no; a device that is lost says so when it is waited for."""
        if self._run is not None:
            self._memory.synchronise(self._run.stream)

    def _end(self) -> None:
        run, self._run = self._run, None
        if run is not None:
            run.close()

    def _let_go(self) -> None:
        if self._options.owns_memory:
            do_all([self._memory.close])
