"""What stands on a screen is a camera like any other: at its place, at its time, and named when it goes."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

from liveaffect.realtime.clock import MonotonicClock
from liveaffect.realtime.errors import SettingsError, SourceChanged, SourceLost, SourceNotFound
from liveaffect.realtime.feeds import camera_feed
from liveaffect.realtime.frame import VideoFrame
from liveaffect.realtime.portrait import read_stamp, write_stamp
from liveaffect.realtime.shared_screen import SharedScreen, window_part
from liveaffect.realtime.testing.contracts import check_source
from liveaffect.realtime.testing.devices import virtual_screen
from liveaffect.realtime.testing.scenes import background
from liveaffect.realtime.testing.virtual_time import FakeClock

PROGRAMS = ("Xvfb", "xdotool", "display")
pytestmark = pytest.mark.skipif(
    any(shutil.which(name) is None for name in PROGRAMS), reason="needs a display: Xvfb, xdotool, ImageMagick"
)
NUMBER = 4711
Show = Callable[[str, int, int], subprocess.Popen[bytes]]


@pytest.fixture
def desktop(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A screen of 800x600 that only this test sees."""
    with virtual_screen(800, 600) as name:
        monkeypatch.setenv("DISPLAY", name)
        yield name


@pytest.fixture
def show(desktop: str, tmp_path: Path) -> Iterator[Show]:
    """Puts up a window with a picture that carries its number."""
    shown: list[subprocess.Popen[bytes]] = []

    def put_up(title: str, x: int, y: int) -> subprocess.Popen[bytes]:
        picture = background(480, 240).copy()
        write_stamp(picture, NUMBER, 0)
        path = tmp_path / f"{title}.png"
        cv2.imwrite(str(path), picture[:, :, ::-1])
        run = subprocess.Popen(
            ["display", "-title", title, "-geometry", f"+{x}+{y}", "-borderwidth", "0", str(path)]
        )
        shown.append(run)
        end = time.monotonic() + 20
        while not _is_there(title):
            assert time.monotonic() < end, "the window did not come"
            time.sleep(0.05)
        return run

    yield put_up
    for run in shown:
        run.kill()
        run.wait()


def _is_there(title: str) -> bool:
    try:
        window_part(title)
    except SourceNotFound:
        return False
    return True


def picture_of(source: SharedScreen, number: int = NUMBER) -> VideoFrame:
    """The first picture that carries the number."""
    for _ in range(100):
        frame = source.read(1.0)
        if frame is not None and (stamp := read_stamp(frame.image)) is not None and stamp[0] == number:
            return frame
    raise AssertionError("the picture with the number was not seen")


def read_until_it_ends(source: SharedScreen) -> None:
    for _ in range(200):
        source.read(1.0)


def test_a_screen_keeps_the_contract_of_sources(desktop: str) -> None:
    check_source(
        lambda: SharedScreen("screen:0,0,160,120", MonotonicClock(), fps=60.0),
        kinds=frozenset({"video"}),
        live=True,
    )


def test_the_whole_screen_is_read_in_colour(desktop: str) -> None:
    subprocess.run(["xsetroot", "-solid", "#ff8000"], check=True)
    source = SharedScreen("screen", MonotonicClock())
    source.open()
    frame = source.read(1.0)
    source.close()
    assert frame is not None
    assert frame.size == (800, 600)
    assert frame.image[300, 400].tolist() == [255, 128, 0]


def test_a_window_is_found_by_its_title_and_followed_when_it_moves(show: Show) -> None:
    show("Call with nine", 100, 80)
    source = SharedScreen("window:with nine", MonotonicClock())
    source.open()
    assert picture_of(source).size == (480, 240)
    subprocess.run(["xdotool", "search", "--name", "Call with nine", "windowmove", "300", "300"], check=True)
    until = time.monotonic() + 20
    while window_part("Call with nine")[:2] == (100, 80):
        assert time.monotonic() < until
    assert picture_of(source).size == (480, 240)
    source.close()


def test_a_part_of_the_screen_is_that_part(show: Show) -> None:
    show("Part", 200, 150)
    left, top, width, height = window_part("Part")
    source = SharedScreen(f"screen:{left},{top},{width},{height}", MonotonicClock())
    source.open()
    picture_of(source)
    source.close()


def test_a_window_that_is_closed_is_said(show: Show) -> None:
    run = show("Short call", 50, 50)
    source = SharedScreen("window:Short call", MonotonicClock())
    source.open()
    picture_of(source)
    run.kill()
    run.wait()
    with pytest.raises(SourceNotFound, match="Short call"):
        read_until_it_ends(source)
    source.close()


def test_pictures_are_no_more_than_asked_for(desktop: str) -> None:
    clock = MonotonicClock()
    source = SharedScreen("screen:0,0,64,64", clock, fps=20.0)
    source.open()
    stamps = [frame.captured_ns for _ in range(6) if (frame := source.read(1.0)) is not None]
    source.close()
    assert np.diff(stamps).min() > 20_000_000
    assert (stamps[-1] - stamps[0]) / 5e6 > 45


def test_names_that_mean_nothing_are_refused() -> None:
    for name in ("screen:1,2", "screen:a,b,c,d", "screen:0;0;1;1"):
        with pytest.raises(SettingsError, match="screen:x,y,width,height"):
            SharedScreen(name, FakeClock())
    assert camera_feed("window:Call", FakeClock()).name == "camera:window:Call"


def test_what_lies_outside_is_lost_and_no_screen_is_not_found(
    desktop: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = SharedScreen("screen:5000,0,100,100", MonotonicClock())
    source.open()
    with pytest.raises(SourceLost, match="outside the desktop of 800x600"):
        source.read(1.0)
    source.close()
    monkeypatch.setenv("DISPLAY", ":987")
    with pytest.raises(SourceNotFound, match="no screen"):
        SharedScreen("screen", MonotonicClock()).open()


def test_a_window_of_another_size_is_opened_anew(show: Show) -> None:
    show("Resized", 20, 20)
    source = SharedScreen("window:Resized", MonotonicClock())
    source.open()
    picture_of(source)
    subprocess.run(["xdotool", "search", "--name", "Resized", "windowsize", "320", "200"], check=True)
    with pytest.raises(SourceChanged, match="320, 200"):
        read_until_it_ends(source)
    source.close()
