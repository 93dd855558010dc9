"""The window shows what was drawn, hears its keys, and says why it cannot open."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from liveaffect.realtime.errors import MissingLibrary, SinkError
from liveaffect.realtime.sinks import window

# The window.


def test_without_a_display_the_window_says_so_instead_of_ending_the_program(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if not sys.platform.startswith("linux"):
        pytest.skip("only X11 can be without a display")
    monkeypatch.delenv("DISPLAY", raising=False)
    assert not window.display_is_there()
    with pytest.raises(SinkError, match="DISPLAY is not set"):
        window.Window()
    monkeypatch.setenv("DISPLAY", ":4711")
    with pytest.raises(SinkError, match=":4711, and nothing answers there"):
        window.Window()


def test_a_missing_library_is_named_with_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    if not sys.platform.startswith("linux"):
        pytest.skip("only X11 needs libxcb")

    def missing(name: str) -> None:
        raise OSError(f"{name}: cannot open shared object file")

    monkeypatch.setenv("DISPLAY", ":0")
    monkeypatch.setattr("liveaffect.realtime.sinks.window.ctypes.CDLL", missing)
    with pytest.raises(MissingLibrary, match="apt-get install libxcb1"):
        window.Window()


def test_without_the_library_that_leaves_events_to_the_window_none_is_opened(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if not sys.platform.startswith("linux"):
        pytest.skip("only X11 needs libX11-xcb")
    monkeypatch.setattr("liveaffect.realtime.sinks.window._no_display", lambda: None)

    def missing(name: str, mode: int) -> None:
        raise OSError(f"{name}: cannot open shared object file")

    monkeypatch.setattr("liveaffect.realtime.sinks.window.ctypes.CDLL", missing)
    with pytest.raises(MissingLibrary, match="apt-get install libx11-xcb1"):
        window.Window()


ON_A_DISPLAY = """
import subprocess, sys, time
import numpy as np
from functools import partial
from pathlib import Path
from liveaffect.realtime.sinks.window import Window
from liveaffect.realtime.testing.golden import load
from liveaffect.realtime.testing.scenes import crowd
from liveaffect.realtime.overlay import draw

view = crowd(640, 480, 1)
picture = draw(view)
shot = sys.argv[1]
window, pressed = Window(), []
window.on_key = {key: lambda key=key: pressed.append(key) for key in "ml"}
run = partial(subprocess.run, check=True, capture_output=True, text=True)
for _ in range(20):
    for _ in range(8):
        window.show(picture, view.frame)
        time.sleep(0.02)
    run(["import", "-window", "root", shot])
    if np.array_equal(load(Path(shot))[:480, :640], picture):
        break
else:
    sys.exit("the screen never showed the picture")
found = run(["xdotool", "search", "--name", "liveaffect"]).stdout.split()[0]
for key in ("m", "l", "x", "Escape"):
    assert not window.wants_stop, pressed
    run(["xdotool", "key", "--window", found, key])
    for _ in range(4):
        window.show(picture, view.frame)
        time.sleep(0.01)
assert pressed == ["m", "l"], pressed
assert window.wants_stop
window.close()
window.close()
"""


WHO_TAKES_EVENTS = """
import sys
from ctypes import CDLL, c_char_p, c_int, c_long, c_ulong, c_void_p
from pathlib import Path
from liveaffect.realtime.sinks.window import Window

window = Window()
everybody = CDLL(None)
if not hasattr(everybody, "XSetEventQueueOwner"):
    # What Qt then gets: the copy in the wheel, if it has one.
    import cv2
    site = Path(cv2.__file__).parent.parent
    copies = [*site.glob("opencv*.libs/libX11-xcb*"), "libX11-xcb.so.1"]
    everybody = CDLL(str(copies[0]))
xlib = CDLL("libX11.so.6")
xlib.XOpenDisplay.argtypes, xlib.XOpenDisplay.restype = [c_char_p], c_void_p
xlib.XDefaultRootWindow.argtypes, xlib.XDefaultRootWindow.restype = [c_void_p], c_ulong
xlib.XSelectInput.argtypes = [c_void_p, c_ulong, c_long]
xlib.XStoreName.argtypes = [c_void_p, c_ulong, c_char_p]
xlib.XSync.argtypes = xlib.XEventsQueued.argtypes = [c_void_p, c_int]
everybody.XSetEventQueueOwner.argtypes = [c_void_p, c_int]
display = xlib.XOpenDisplay(None)
root = xlib.XDefaultRootWindow(display)
everybody.XSetEventQueueOwner(display, 1)
xlib.XSelectInput(display, root, 1 << 22)
xlib.XStoreName(display, root, b"a change that is told as an event")
xlib.XSync(display, 0)
if taken := xlib.XEventsQueued(display, 1):
    sys.exit(f"Xlib took {taken} events that it was told to leave")
window.close()
"""


def on_a_display(*program: str) -> None:
    """Run a program on a screen of its own; skips where that cannot be had."""
    for name, package in (("xvfb-run", "xvfb"), ("import", "imagemagick"), ("xdotool", "xdotool")):
        if shutil.which(name) is None:
            pytest.skip(f"needs {name}: apt-get install {package}")
    done = subprocess.run(
        ["xvfb-run", "-a", "-s", "-screen 0 800x600x24", sys.executable, "-c", *program],
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_the_window_shows_exactly_the_picture_and_hears_its_keys(tmp_path: Path) -> None:
    on_a_display(ON_A_DISPLAY, str(tmp_path / "shot.png"))


@pytest.mark.slow
def test_what_qt_tells_xlib_about_its_events_reaches_the_xlib_of_this_machine() -> None:
    on_a_display(WHO_TAKES_EVENTS)
