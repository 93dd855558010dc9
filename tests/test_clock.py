"""Threads on the fake clock wake at exactly the time they asked for; the other clocks never go back."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from liveaffect.realtime.clock import MS, Clock, MediaClock, MonotonicClock
from liveaffect.realtime.testing.virtual_time import FakeClock

PERIODS_NS = (10 * MS, 33_333_333, 100 * MS)


@contextmanager
def running(stop: threading.Event, *bodies: Callable[[], None]) -> Iterator[None]:
    threads = [threading.Thread(target=body) for body in bodies]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join(5)
    assert not any(thread.is_alive() for thread in threads)


def ticker(clock: Clock, stop: threading.Event, period_ns: int, seen: list[int]) -> Callable[[], None]:
    def tick() -> None:
        due_ns = period_ns
        while clock.wait_until(due_ns, stop):
            seen.append(clock.now_ns())
            due_ns += period_ns

    return tick


def test_several_threads_tick_at_exactly_their_times() -> None:
    clock, stop = FakeClock(), threading.Event()
    seen: list[list[int]] = [[] for _ in PERIODS_NS]
    bodies = [ticker(clock, stop, p, s) for p, s in zip(PERIODS_NS, seen, strict=True)]
    with running(stop, *bodies):
        clock.run_until(1_000 * MS, sleepers=len(PERIODS_NS))
        for period_ns, times in zip(PERIODS_NS, seen, strict=True):
            assert times == [period_ns * k for k in range(1, 1_000 * MS // period_ns + 1)]


def test_ticks_are_exact_while_other_threads_burn_the_processor() -> None:
    clock, stop = FakeClock(), threading.Event()
    seen: list[int] = []

    def burn() -> None:
        while not stop.is_set():
            sum(range(200))

    with running(stop, ticker(clock, stop, 10 * MS, seen), burn, burn):
        for _ in range(30):
            clock.wait_for_sleepers(1)
            clock.advance(10 * MS)
        clock.wait_for_sleepers(1)
        assert seen == [10 * MS * k for k in range(1, 31)]


def test_a_thread_that_is_due_but_not_yet_awake_is_no_sleeper() -> None:
    clock, stop = FakeClock(), threading.Event()
    gate = threading.Event()

    def body() -> None:
        clock.wait_until(5, stop)
        gate.wait(5)
        clock.wait_until(50, stop)

    with running(stop, body):
        clock.wait_for_sleepers(1)
        clock.advance(5)
        with pytest.raises(AssertionError, match="expected 1 sleeping threads at 5 ns, saw 0"):
            clock.wait_for_sleepers(1, give_up_s=0.05)
        gate.set()
        clock.wait_for_sleepers(1)


def test_stop_wakes_a_sleeper_and_says_so() -> None:
    clock, stop = FakeClock(), threading.Event()
    answers: list[bool] = []
    with running(stop, lambda: answers.append(clock.wait_until(1_000 * MS, stop))):
        clock.wait_for_sleepers(1)
    assert answers == [False]
    assert clock.now_ns() == 0
    clock.wait_for_sleepers(0)


@pytest.mark.parametrize("clock", [FakeClock(100), MonotonicClock(), MediaClock()])
def test_waiting_for_the_past_returns_at_once_on_every_clock(clock: Clock) -> None:
    stop = threading.Event()
    assert clock.wait_until(0, stop)
    stop.set()
    assert not clock.wait_until(0, stop)


def test_a_test_that_moves_the_fake_clock_back_is_told() -> None:
    clock = FakeClock(100)
    with pytest.raises(ValueError, match="it is 100 ns, asked for 99 ns"):
        clock.advance_to(99)


def test_the_monotonic_clock_sleeps_until_the_deadline_and_not_much_less() -> None:
    clock = MonotonicClock()
    deadline_ns = clock.now_ns() + 5 * MS
    assert clock.wait_until(deadline_ns, threading.Event())
    assert clock.now_ns() >= deadline_ns


def test_a_driver_stamp_lands_on_the_scale_of_the_run() -> None:
    clock = MonotonicClock()
    later_ns = clock.from_monotonic_ns(-clock.from_monotonic_ns(0) + 7)
    assert later_ns == 7


def test_media_time_is_moved_by_waiting_and_never_goes_back() -> None:
    clock = MediaClock()
    assert clock.wait_until(40 * MS, threading.Event())
    assert clock.now_ns() == 40 * MS
    clock.advance_to(10 * MS)
    assert clock.now_ns() == 40 * MS
