"""A camera whose driver hangs is replaced, and what hangs never piles up."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from liveaffect.realtime.camera import Camera
from liveaffect.realtime.clock import MS, SECOND
from liveaffect.realtime.frame import Item, VideoFrame
from liveaffect.realtime.supervisor import Patience, Supervisor
from liveaffect.realtime.testing.devices import FakeCamera
from liveaffect.realtime.testing.virtual_time import FakeClock


def wait_for(condition: Callable[[], bool], timeout_s: float = 10.0) -> None:
    """Real time, for threads that no fake clock drives."""
    tick = threading.Event()
    for _ in range(round(timeout_s / 0.005)):
        if condition():
            return
        tick.wait(0.005)
    raise AssertionError("it did not happen in time")


def delivered_to(items: list[Item], count: int) -> None:
    wait_for(lambda: len(items) >= count)


def move_until(clock: FakeClock, condition: Callable[[], bool]) -> None:
    """Move the clock while real threads, which it does not drive, do their part."""

    def moved() -> bool:
        clock.advance(100 * MS)
        return condition()

    wait_for(moved)


@pytest.mark.slow
def test_twenty_hanging_cameras_leave_only_a_few_threads() -> None:
    clock, device, items = FakeClock(), FakeCamera(), list[Item]()
    before = threading.active_count()
    supervisor = Supervisor(
        lambda: Camera("0", clock, capture=device, devices=list),
        clock,
        items.append,
        patience=Patience(pause_s=0.01, longest_pause_s=0.01, close_s=0.02),
    )
    supervisor.start()
    most = 0
    for number in range(20):
        delivered_to(items, len(items) + 1)
        wait_for(lambda: supervisor.hanging == 0)
        device.become("hang")
        move_until(clock, lambda: supervisor.hanging == 1)
        most = max(most, threading.active_count() - before)
        device.become("frames")
        move_until(clock, lambda number=number: supervisor.state.restarts > number)  # type: ignore[misc]
    assert supervisor.stop()
    wait_for(lambda: device.in_use == 0)
    assert supervisor.state.restarts >= 20
    assert most <= 6
    assert [f.seq for f in items if isinstance(f, VideoFrame)] == sorted(
        {f.seq for f in items if isinstance(f, VideoFrame)}
    )


@pytest.mark.slow
def test_no_more_attempts_are_made_while_four_earlier_ones_hang() -> None:
    clock, device = FakeClock(), FakeCamera()
    supervisor = Supervisor(
        lambda: Camera("0", clock, capture=device, devices=list),
        clock,
        lambda item: None,
        patience=Patience(close_s=0.02),
    )
    device.become("hang")
    supervisor.start()
    move_until(clock, lambda: supervisor.hanging == 4)
    opened = device.opened
    for _ in range(20):
        clock.advance(10 * SECOND)
        threading.Event().wait(0.005)
    assert opened == device.opened == 4
    wait_for(lambda: "still hang" in supervisor.state.message)
    device.become("frames")
    wait_for(lambda: supervisor.hanging == 0)
    move_until(clock, lambda: supervisor.state.phase == "running")
    assert supervisor.stop()
    wait_for(lambda: device.in_use == 0)
