"""A sound server that hangs holds neither the program nor its end."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from liveaffect.realtime.blazeface import FULL_RANGE, model_path
from liveaffect.realtime.clock import SECOND, MonotonicClock
from liveaffect.realtime.devices import in_time
from liveaffect.realtime.errors import MissingFile, SourceError
from liveaffect.realtime.testing.devices import (
    VirtualMicrophone,
    virtual_microphone,
    why_no_virtual_microphone,
)

ENDS_WITHIN_S = 5.0


@pytest.fixture
def server() -> Iterator[VirtualMicrophone]:
    if (why := why_no_virtual_microphone()) is not None:
        pytest.skip(why)
    try:
        files = model_path(FULL_RANGE).parent
    except MissingFile as error:
        pytest.skip(f"needs the face detector's files: {error}")
    with virtual_microphone() as virtual:
        virtual.environment["LIVEAFFECT_FILES"] = str(files)
        yield virtual
        virtual.go_on()


def live(server: VirtualMicrophone, folder: Path) -> subprocess.Popen[str]:
    """A run that listens, once it does."""
    arguments = [
        "live",
        "--camera",
        "none",
        "--mic",
        "default",
        "--engine",
        "scripted",
        "--log-level",
        "info",
    ]
    running = subprocess.Popen(
        [sys.executable, "-m", "liveaffect", *arguments, "--sink", str(folder / "cues.jsonl")],
        env=server.environment,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert running.stderr is not None
    for line in running.stderr:
        if "is running" in line or "is stalled" in line:
            return running
    raise AssertionError("it ended before it listened")


def seconds_to_end(running: subprocess.Popen[str], how: signal.Signals) -> float:
    clock = MonotonicClock()
    running.send_signal(how)
    try:
        running.communicate(timeout=20.0)
    except subprocess.TimeoutExpired:
        running.kill()
        running.communicate()
        pytest.fail("it hangs at its end")
    return clock.now_ns() / SECOND


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("hangs_for_s", [0.2, 3.0], ids=["just now", "long enough to try again"])
def test_a_server_that_stands_still_does_not_hold_the_end(
    server: VirtualMicrophone, tmp_path: Path, how: signal.Signals, hangs_for_s: float
) -> None:
    running = live(server, tmp_path)
    server.stand_still()
    threading.Event().wait(hangs_for_s)
    assert seconds_to_end(running, how) <= ENDS_WITHIN_S


@pytest.mark.slow
def test_a_microphone_is_not_called_unplugged_after_the_program_was_stopped(
    server: VirtualMicrophone, tmp_path: Path
) -> None:
    running = live(server, tmp_path)
    tick = threading.Event()
    running.send_signal(signal.SIGSTOP)
    tick.wait(5.0)
    running.send_signal(signal.SIGCONT)
    tick.wait(3.0)
    running.send_signal(signal.SIGTERM)
    _, said = running.communicate(timeout=20.0)
    assert "samples" in said, "the time in which nobody listened is counted"
    assert "is lost" not in said
    assert "unplugged" not in said


def test_an_answer_that_does_not_come_is_given_up_and_undone_when_it_comes() -> None:
    let_go, undone = threading.Event(), threading.Event()

    def hang() -> int:
        let_go.wait(10.0)
        return 7

    try:
        with pytest.raises(SourceError, match="did not answer for"):
            in_time(hang, undo=lambda answer: undone.set() if answer == 7 else None, limit_s=0.1)
        with pytest.raises(SourceError, match="still does not answer"):
            in_time(lambda: 1)
    finally:
        let_go.set()
    assert undone.wait(5.0)
    for _ in range(100):
        if "asks the sound system" not in [thread.name for thread in threading.enumerate()]:
            break
        threading.Event().wait(0.01)
    assert in_time(lambda: 2) == 2


def test_what_the_sound_system_raises_is_raised() -> None:
    def refuse() -> int:
        raise SourceError("no such device")

    with pytest.raises(SourceError, match="no such device"):
        in_time(refuse)
