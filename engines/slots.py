"""What engines on a device have in common: batches lie in slots, are handed in, and are fetched later.

A slot is one of two places for one batch size, with memory on both sides and perhaps a graph. Its inputs are
page-locked arrays that a caller may fill directly (`stage`), so that a crop is copied once; `submit` does
the copying for everybody else. While one batch is on its way the next one is laid into the other place. A
graph is never believed: two batches go through the plain way and through the graph before it is used.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from liveaffect.engines import parity
from liveaffect.engines.device_memory import DeviceError
from liveaffect.engines.protocol import (
    EngineError,
    EngineFailed,
    EngineInputError,
    EngineLost,
    EngineSpec,
    Pending,
    Tensors,
    check_finite,
    check_inputs,
)

SIZES = (1, 2, 4, 8, 16, 32, 64)
"""Batches that run as they are; one in between runs in the next larger."""
PLACES = 2
_FEW = 8
_ALIKE = 1e-3
"""How far a graph's answers may lie from the plain ones, as a share of their size: other kernels may run."""

Outputs = dict[str, NDArray[Any]]


class Slot(Protocol):
    """One place for batches of up to `size` items. May raise DeviceError and EngineFailed."""

    size: int
    place: int
    inputs: Outputs
    """Where `size` rows of each input are laid; what lies behind the batch answers nobody."""
    graphed: bool
    """Whether `enqueue` launches a graph."""

    # Hands in copies, network and copies of so many rows, and returns before it is done; `wait` waits for
    # that and nothing else; `answers` are the first rows of what came back, the caller's own.
    def enqueue(self, count: int) -> None: ...
    def wait(self) -> None: ...
    def answers(self, count: int) -> Outputs: ...

    # From here on `enqueue` launches a graph, or why that cannot be; and back to the plain way.
    def make_graph(self) -> str | None: ...
    def drop_graph(self) -> None: ...

    # Milliseconds of the device for so many full batches in a row, with copies or without them.
    def queued_ms(self, times: int, *, whole: bool) -> float: ...


class SlotEngine:
    """The engine contract over slots. Not thread-safe: one caller at a time, on whichever thread."""

    def __init__(self, spec: EngineSpec, kind: str, *, graphs: bool) -> None:
        self._spec = spec
        self._kind = kind
        self._graphs = graphs
        self._slots: dict[int, tuple[Slot, ...]] = {}
        """By size, one for each place."""
        self._sizes: list[int] = []
        """Which slot a batch of so many is for: its size, by the number of items less one."""
        self._on_the_way: list[_OnTheWay | None] = [None] * PLACES
        self._place = 0
        self._lost: str | None = None
        self._warm = self._closed = False
        self._few: parity.Batch = {}
        self.notes: list[str] = []
        """What was decided while warming up, a line each."""

    @property
    def spec(self) -> EngineSpec:
        """What goes in and what comes out."""
        return self._spec

    @property
    def slots(self) -> Mapping[int, tuple[Slot, ...]]:
        """By size, for measuring their parts."""
        return self._slots

    def submit(self, inputs: Tensors) -> Pending:
        """Hand in one batch and come back at once."""
        self._refuse_if_over()
        batch = self.stage(check_inputs(self._spec, inputs))
        for name, room in batch.inputs.items():
            np.copyto(room, inputs[name])
        return batch.submit()

    def stage(self, count: int) -> StagedBatch:
        """Room for so many items, to be filled and handed in. Nobody checks what is laid there."""
        self._refuse_if_over()
        if not 1 <= count <= self._spec.max_batch:
            raise EngineInputError(
                f"engine '{self._spec.name}' takes 1 to {self._spec.max_batch} items, got {count}"
            )
        self._place = (self._place + 1) % PLACES
        if (earlier := self._on_the_way[self._place]) is not None:
            with self._device("fetching the batch before"):
                earlier.fetch()
        return StagedBatch(self, self._slots[self._sizes[count - 1]][self._place], count)

    def infer(self, inputs: Tensors) -> Tensors:
        """`submit` and wait."""
        return self.submit(inputs).result()

    def warm_up(self) -> None:
        """Run every slot, make the graphs and check them."""
        self._refuse_if_over()
        if not self._warm:
            with self._device("warming up"):
                for slots in self._slots.values():
                    for slot in slots:
                        self._warm_up_slot(slot)
            self._warm = True
        self.infer(self._made_up(1, 0))

    def close(self) -> None:
        """Fetch what is on its way, then end everything. Safe to call twice."""
        if self._closed:
            return
        self._closed = True
        for step in (self._fetch_all, self._end):
            try:
                with self._device("ending"):
                    step()
            except EngineFailed:
                continue  # What is lost needs no end, and who waits for an answer is told so.
        self._slots = {}
        self._let_go()

    def hand_in(self, batch: StagedBatch) -> _OnTheWay:
        """What a batch does when it is submitted."""
        self._refuse_if_over()
        with self._device("handing in a batch"):
            batch.slot.enqueue(batch.count)
        one = self._on_the_way[batch.slot.place] = _OnTheWay(self, batch.slot, batch.count)
        return one

    def fetch(self, one: _OnTheWay) -> None:
        """Wait for one batch."""
        if self._lost is not None:
            raise EngineLost(self._lost)
        with self._device("waiting for an answer"):
            one.fetch()

    def fetched(self, slot: Slot) -> None:
        """The place is free again."""
        self._on_the_way[slot.place] = None

    def queued_ms(self, size: int, times: int, *, whole: bool) -> float:
        """What the device itself says so many batches of one size take, handed in without waiting."""
        self._refuse_if_over()
        with self._device("measuring"):
            return self._slots[size][0].queued_ms(times, whole=whole)

    def _use(self, slots: Mapping[int, tuple[Slot, ...]]) -> None:
        """These slots, of rising sizes, are what the engine has."""
        self._slots = dict(slots)
        most = max(self._slots)
        self._sizes = [min(size for size in self._slots if size >= count) for count in range(1, most + 1)]

    def _end(self) -> None:
        """Give back what the engine took; on a lost device as far as it goes."""

    def _let_go(self) -> None:
        """Leave the device itself, when nothing of the engine is on it any more."""

    def _active(self) -> AbstractContextManager[None]:
        """The device is this thread's inside."""
        return nullcontext()

    def _look_for_loss(self) -> None:
        """Raise DeviceError if the device is gone: after a refusal that does not say why."""

    def _warm_up_slot(self, slot: Slot) -> None:
        first, second = self._made_up(slot.size, 0), self._made_up(slot.size, 3)
        check_finite(self._spec, _ran(slot, first))
        if self._graphs and (why := _why_no_graph(slot, first, second)) is not None:
            self.notes.append(f"'{self._spec.name}' runs batches of {slot.size} plainly: {why}")

    def _made_up(self, count: int, start: int) -> parity.Batch:
        """So many of a few made-up items; to make all of them would take longer than to run them."""
        if not self._few:
            self._few = parity.for_tensors(self._kind, _FEW, self._spec.inputs)
        rows = (start + np.arange(count)) % _FEW
        return {name: array[rows] for name, array in self._few.items()}

    def _fetch_all(self) -> None:
        for one in self._on_the_way:
            if one is not None:
                one.fetch()

    def _refuse_if_over(self) -> None:
        if self._closed:
            raise EngineError(f"engine '{self._spec.name}' is closed")
        if self._lost is not None:
            raise EngineLost(self._lost)

    @contextmanager
    def _device(self, doing: str) -> Iterator[None]:
        """Inside, an error of the device means that it is lost, or before it is warm that it is no use."""
        try:
            with self._active():
                try:
                    yield
                except EngineFailed:
                    if self._warm:
                        self._look_for_loss()
                    raise
        except DeviceError as err:
            if not self._warm:
                raise EngineFailed(f"'{self._spec.name}' cannot work on this GPU: {doing}: {err}") from err
            self._lost = f"engine '{self._spec.name}' lost its GPU while {doing}: {err}"
            raise EngineLost(self._lost) from err


class StagedBatch:
    """Room for one batch, until it is submitted."""

    def __init__(self, engine: SlotEngine, slot: Slot, count: int) -> None:
        self.slot = slot
        self.count = count
        self.inputs: Outputs = {name: array[:count] for name, array in slot.inputs.items()}
        """To be filled, every row of it."""
        self._engine = engine

    def submit(self) -> Pending:
        """Hand it in and come back at once."""
        return self._engine.hand_in(self)


class _OnTheWay:
    """A batch that was handed in."""

    def __init__(self, engine: SlotEngine, slot: Slot, count: int) -> None:
        self._engine = engine
        self._slot = slot
        self._count = count
        self._outputs: Outputs | None = None

    def result(self) -> Tensors:
        """Wait for this batch, unless its answer was fetched already."""
        if self._outputs is None:
            self._engine.fetch(self)
        assert self._outputs is not None
        check_finite(self._engine.spec, self._outputs)
        return self._outputs

    def fetch(self) -> None:
        """Fetch the answer, because somebody wants it or the place is needed."""
        self._slot.wait()
        self._outputs = self._slot.answers(self._count)
        self._engine.fetched(self._slot)


def _ran(slot: Slot, inputs: Tensors) -> Outputs:
    for name, room in slot.inputs.items():
        np.copyto(room, inputs[name])
    slot.enqueue(slot.size)
    slot.wait()
    return slot.answers(slot.size)


def _why_no_graph(slot: Slot, first: Tensors, second: Tensors) -> str | None:
    """Use a graph if it answers as the plain way does, for two batches; else why it is not used.

    Two, because a graph that kept the inputs it was made with would be right for the first.
    """
    plain = [_ran(slot, inputs) for inputs in (first, second)]
    try:
        why = slot.make_graph()
        if why is None:
            for inputs, wanted in zip((first, second), plain, strict=True):
                if why := _differing(wanted, _ran(slot, inputs)):
                    break
    except (DeviceError, EngineFailed) as err:
        why = f"its CUDA graph cannot be made ({err})"
    if why is not None:
        slot.drop_graph()
    return why


def _differing(wanted: Outputs, given: Outputs) -> str | None:
    """The outputs that are not alike, with how far they are apart."""
    found = []
    for name, array in wanted.items():
        scale = max(float(np.abs(array).max()), 1e-6)
        off = float(np.abs(array.astype(np.float64) - given[name]).max()) / scale
        if not off <= _ALIKE:
            found.append(f"'{name}' ({off:.1e} of its size)")
    return f"its CUDA graph answers {', '.join(found)} otherwise than the plain way" if found else None
