"""One batch size of a plan, with everything it needs to run: context, memory on both sides, a mark, a graph.

All inputs lie in one block and all outputs in another, so that a full batch is two copies however many
tensors there are. A lane of a fixed size keeps its context untouched, because a CUDA graph is only valid as
long as that is so; a flexible one is given another shape whenever another batch comes. TensorRT-RTX has a
strategy of its own for graphs: a second context makes them, and the first stays plain to be compared with.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from liveaffect.engines.device_memory import DeviceError, DeviceMemory
from liveaffect.engines.protocol import EngineFailed, Tensors, TensorSpec

_ALIGNED = 256
"""TensorRT wants the addresses of tensors at multiples of this."""
_ALIKE = 1e-3
"""How far a graph's answers may lie from the plain ones, as a share of their size: other kernels may run."""
Outputs = dict[str, NDArray[Any]]
Step = Callable[[], None]


@dataclass(frozen=True, slots=True, eq=False)
class Ground:
    """What all lanes of a plan stand on."""

    memory: DeviceMemory
    stream: int
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    context: Callable[[str], Any]
    """Makes an execution context: 'plain', 'flexible' or, where TensorRT makes graphs itself, 'graph'."""
    complaint: Callable[[], str]
    """What TensorRT said last."""
    makes_graphs: bool
    """Whether TensorRT makes the graphs."""


class _Block:
    """Tensors side by side, on the host and on the device."""

    def __init__(
        self, memory: DeviceMemory, tensors: Sequence[TensorSpec], rows: int, undo: list[Step]
    ) -> None:
        self.offsets: dict[str, int] = {}
        size = 0
        for tensor in tensors:
            self.offsets[tensor.name] = size
            size += -(-_bytes_of(tensor, rows) // _ALIGNED) * _ALIGNED
        self.device = memory.allocate(size)
        undo.append(lambda: memory.free(self.device))
        self.host = memory.pinned(size)
        undo.append(lambda: memory.free_pinned(self.host))
        self.host[:] = 0
        self.views: Outputs = {
            t.name: self._part(t, rows).view(t.dtype).reshape(rows, *t.shape) for t in tensors
        }

    def _part(self, tensor: TensorSpec, rows: int) -> NDArray[np.uint8]:
        start = self.offsets[tensor.name]
        return self.host[start : start + _bytes_of(tensor, rows)]

    def parts(self, tensors: Sequence[TensorSpec], rows: int) -> list[tuple[int, NDArray[Any]]]:
        """Address and host array of the first rows of each tensor."""
        return [(self.device + self.offsets[t.name], self._part(t, rows)) for t in tensors]


class Lane:
    """One size. Used inside `memory.active()`."""

    def __init__(self, ground: Ground, profile: int, size: int, *, flexible: bool = False) -> None:
        self.size = size
        """As many rows as fit."""
        self.rows = size
        """As many as it is set for."""
        self.flexible = flexible
        """Whether it can be set for fewer."""
        self.graphed = False
        """Whether `enqueue` uses a graph."""
        self._ground = ground
        self._profile = profile
        self._memory = ground.memory
        self._graph: int | None = None
        self._context: Any = None
        self._own: Any = None
        self._undo: list[Step] = []
        with ExitStack() as undo:
            undo.callback(self.close)
            self._in = _Block(self._memory, ground.inputs, size, self._undo)
            self._out = _Block(self._memory, ground.outputs, size, self._undo)
            self._done = self._memory.event()
            self._undo.append(lambda: self._memory.close_event(self._done))
            self._context = self._prepared("flexible" if flexible else "plain")
            undo.pop_all()
        self._copies = self._copies_of(size)

    def shape(self, rows: int) -> None:
        """Set a flexible lane for this many rows; nothing if it is."""
        if rows != self.rows:
            self._set_shape(self._context, rows)
            self.rows = rows
            self._copies = self._copies_of(rows)

    def stage(self, inputs: Tensors, count: int) -> None:
        """Put a batch where the device will fetch it. What lies behind it stays, and answers nobody."""
        for name, view in self._in.views.items():
            np.copyto(view[:count], inputs[name])

    def enqueue(self) -> None:
        """Hand everything in: copies there, the network, copies back, and the mark behind them."""
        if self._graph is not None:
            self._memory.launch(self._graph, self._ground.stream)
        else:
            self.copy_in()
            self._execute(self._context if self._own is None else self._own)
            self.copy_out()
        self._memory.record(self._done, self._ground.stream)

    def copy_in(self) -> None:
        """All inputs to the device."""
        for address, array in self._copies[0]:
            self._memory.copy_in(address, array, self._ground.stream)

    def compute(self) -> None:
        """The network alone, without any graph."""
        self._execute(self._context)

    def copy_out(self) -> None:
        """All outputs from the device."""
        for address, array in self._copies[1]:
            self._memory.copy_out(array, address, self._ground.stream)

    def wait(self) -> None:
        """Until the device has passed the mark of the last `enqueue`."""
        self._memory.wait(self._done)

    def answers(self, count: int) -> Outputs:
        """Copies of the first rows of what came back."""
        return {name: view[:count].copy() for name, view in self._out.views.items()}

    def run(self, inputs: Tensors, count: int) -> Outputs:
        """All of it, and wait."""
        self.stage(inputs, count)
        self.enqueue()
        self.wait()
        return self.answers(count)

    def try_graph(self, first: Tensors, second: Tensors) -> str | None:
        """Use a graph if it answers as the plain way does, for two batches; else why it is not used.

        Two, because a graph that kept the inputs it was made with would be right for the first.
        """
        plain = [self.run(inputs, self.rows) for inputs in (first, second)]
        try:
            self._make_graph()
            for inputs, wanted in zip((second, first), reversed(plain), strict=True):
                self._out.host[:] = 0xFF
                if wrong := _differing(wanted, self.run(inputs, self.rows)):
                    self._drop_graph()
                    return f"its CUDA graph answers {wrong} otherwise than the plain way"
        except (DeviceError, EngineFailed) as err:
            self._drop_graph()
            return f"its CUDA graph cannot be made ({err})"
        self.graphed = True
        return None

    def close(self) -> None:
        """Give everything back, on a lost device as far as it goes."""
        do_all([self._drop_graph])
        self._context = None
        do_all(self._undo[::-1])
        self._undo.clear()

    def _make_graph(self) -> None:
        if self._ground.makes_graphs:
            self._own = self._prepared("graph")
            self.enqueue()  # The first run makes the graph, the later ones use it.
            self.wait()
            return
        stream = self._ground.stream
        self._memory.begin_capture(stream)
        try:
            self.copy_in()
            self._execute(self._context)
            self.copy_out()
        except (DeviceError, EngineFailed):
            # The stream has to be set free all the same, and its own error says less than this one.
            do_all([lambda: self._memory.close_graph(self._memory.end_capture(stream))])
            raise
        self._graph = self._memory.end_capture(stream)

    def _drop_graph(self) -> None:
        graph, self._graph, self._own = self._graph, None, None
        if graph is not None:
            self._memory.close_graph(graph)

    def _prepared(self, kind: str) -> Any:
        """A context with profile, shapes and addresses, ready to run full batches."""
        context = self._ground.context(kind)
        if context is None or not context.set_optimization_profile_async(self._profile, self._ground.stream):
            raise EngineFailed(f"no context for batches of {self.size}: {self._ground.complaint()}")
        self._set_shape(context, self.size)
        for block, tensors in ((self._in, self._ground.inputs), (self._out, self._ground.outputs)):
            for tensor in tensors:
                if not context.set_tensor_address(tensor.name, block.device + block.offsets[tensor.name]):
                    raise EngineFailed(f"no address for '{tensor.name}': {self._ground.complaint()}")
        self._memory.synchronise(self._ground.stream)
        return context

    def _set_shape(self, context: Any, rows: int) -> None:
        for tensor in self._ground.inputs:
            if not context.set_input_shape(tensor.name, (rows, *tensor.shape)):
                raise EngineFailed(f"no batch of {rows} for '{tensor.name}': {self._ground.complaint()}")

    def _execute(self, context: Any) -> None:
        if not context.execute_async_v3(self._ground.stream):
            raise EngineFailed(f"a batch of {self.rows} was refused: {self._ground.complaint()}")

    def _copies_of(self, rows: int) -> tuple[list[tuple[int, NDArray[Any]]], list[tuple[int, NDArray[Any]]]]:
        """Whole blocks when all rows are used, else the rows of each tensor."""
        if rows == self.size:
            return [(self._in.device, self._in.host)], [(self._out.device, self._out.host)]
        return self._in.parts(self._ground.inputs, rows), self._out.parts(self._ground.outputs, rows)


def do_all(steps: Sequence[Step]) -> None:
    """Try every step: on a lost device all of them may fail, and the process goes on without it."""
    for step in steps:
        try:
            step()
        except DeviceError:
            continue


def _bytes_of(tensor: TensorSpec, rows: int) -> int:
    return rows * int(np.prod(tensor.shape)) * np.dtype(tensor.dtype).itemsize


def _differing(wanted: Outputs, given: Outputs) -> str:
    """The outputs that are not alike, with how far they are apart; empty if all are."""
    found = []
    for name, array in wanted.items():
        scale = max(float(np.abs(array).max()), 1e-6)
        off = float(np.abs(array.astype(np.float64) - given[name]).max()) / scale
        if not off <= _ALIKE:
            found.append(f"'{name}' ({off:.1e} of its size)")
    return ", ".join(found)
