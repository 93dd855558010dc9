"""What every kind of device memory must do: one suite for a real GPU, a stand-in driver and the host.

`check_memory` opens a fresh device with `make` and raises AssertionError that names the broken promise.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from liveaffect.engines.device_memory import DeviceError, DeviceMemory

Make = Callable[[], DeviceMemory]
_SIZE = 4096
_FAR_TOO_MUCH = 1 << 50


@dataclass(slots=True, eq=False)
class _Desk:
    """What one copy there and back needs."""

    there: NDArray[np.uint8]
    back: NDArray[np.uint8]
    device: int
    stream: int
    event: int


def check_memory(make: Make) -> None:
    """The whole contract."""
    memory = make()
    try:
        with memory.active():
            check_copies(memory)
            check_streams_stand_apart(memory)
            check_graphs(memory)
            check_limits(memory)
        check_another_thread(memory)
    finally:
        memory.close()
    memory.close()
    again = make()
    with again.active():
        check_copies(again)
    again.close()


def check_copies(memory: DeviceMemory) -> None:
    """What goes there comes back, whole or in part, and nothing is made for it."""
    with _desk(memory) as desk:
        made = memory.allocations
        for size in (_SIZE, 1, _SIZE // 3):
            desk.there[:] = np.random.default_rng(size).integers(0, 256, _SIZE, np.uint8)
            desk.back[:] = 0
            memory.copy_in(desk.device, desk.there[:size], desk.stream)
            memory.copy_out(desk.back[:size], desk.device, desk.stream)
            memory.record(desk.event, desk.stream)
            memory.wait(desk.event)
            _require(
                memory, np.array_equal(desk.back[:size], desk.there[:size]), f"{size} bytes came back wrong"
            )
            _require(memory, not desk.back[size:].any(), f"a copy of {size} bytes wrote beyond them")
        memory.copy_out(desk.back[:16], desk.device + 32, desk.stream)
        memory.synchronise(desk.stream)
        _require(memory, memory.allocations == made, "copying made something new")
    _require(memory, memory.allocations > 0, "nothing was counted")


def check_streams_stand_apart(memory: DeviceMemory) -> None:
    """Two streams carry their own work, whichever is waited for first; time between marks runs forwards."""
    with _desk(memory) as one, _desk(memory) as two:
        memory.wait(one.event)  # A mark that nobody recorded holds nobody up.
        one.there[:], two.there[:] = 1, 2
        for desk in (one, two):
            memory.copy_in(desk.device, desk.there, desk.stream)
            memory.copy_out(desk.back, desk.device, desk.stream)
            memory.record(desk.event, desk.stream)
        for desk in (two, one):
            memory.wait(desk.event)
        _require(memory, bool((one.back == 1).all() and (two.back == 2).all()), "streams mixed up their work")
        memory.record(two.event, one.stream)
        memory.wait(two.event)
        _require(memory, memory.elapsed_ms(one.event, two.event) >= 0, "time between two marks is negative")


def check_graphs(memory: DeviceMemory) -> None:
    """Work that is noted down is not done, and each launch does it with what lies there then."""
    with _desk(memory) as desk:
        desk.back[:] = 0
        desk.there[:] = 3
        memory.begin_capture(desk.stream)
        memory.copy_in(desk.device, desk.there, desk.stream)
        memory.copy_out(desk.back, desk.device, desk.stream)
        graph = memory.end_capture(desk.stream)
        memory.synchronise(desk.stream)
        _require(memory, not desk.back.any(), "what was captured was done at once")
        made = memory.allocations
        for value in (5, 9):
            desk.there[:] = value
            memory.launch(graph, desk.stream)
            memory.record(desk.event, desk.stream)
            memory.wait(desk.event)
            _require(memory, bool((desk.back == value).all()), "a graph used what lay there before")
        _require(memory, memory.allocations == made, "launching made something new")
        memory.close_graph(graph)


def check_limits(memory: DeviceMemory) -> None:
    """Memory that is taken is missing from what is free; more than there is is an error, and work goes on."""
    before = memory.free_bytes()
    address = memory.allocate(64 << 20)
    during = memory.free_bytes()
    memory.free(address)
    _require(memory, during < before, f"{before} bytes were free, and {during} beside 64 MiB")
    try:
        memory.allocate(_FAR_TOO_MUCH)
    except DeviceError as err:
        _require(memory, "memory" in str(err).lower(), f"does not say that memory ran out: {err}")
    else:
        raise AssertionError(f"'{memory.name}' gave {_FAR_TOO_MUCH} bytes")
    check_copies(memory)


def check_another_thread(memory: DeviceMemory) -> None:
    """Whoever makes the device active may work on it; a thread that ends takes nothing with it."""
    failed: list[BaseException] = []

    def work() -> None:
        try:
            with memory.active(), memory.active():
                check_copies(memory)
        except BaseException as err:  # noqa: BLE001  the thread that started this one raises it
            failed.append(err)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    if failed:
        raise failed[0]
    with memory.active():
        check_copies(memory)


@contextmanager
def _desk(memory: DeviceMemory) -> Iterator[_Desk]:
    desk = _Desk(
        memory.pinned(_SIZE), memory.pinned(_SIZE), memory.allocate(_SIZE), memory.stream(), memory.event()
    )
    desk.there[:] = 0
    try:
        yield desk
    finally:
        memory.synchronise(desk.stream)
        memory.close_event(desk.event)
        memory.close_stream(desk.stream)
        memory.free(desk.device)
        memory.free_pinned(desk.there)
        memory.free_pinned(desk.back)


def _require(memory: DeviceMemory, holds: bool, otherwise: str) -> None:
    if not holds:
        raise AssertionError(f"device memory '{memory.name}': {otherwise}")
