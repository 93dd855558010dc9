"""The window shows what was drawn, hears its keys, and says why it cannot open."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from liveaffect.commands.watch import WINDOW_KEYS
from liveaffect.realtime.drawing.panels import Measures
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
        window.WindowSink()
    monkeypatch.setenv("DISPLAY", ":4711")
    with pytest.raises(SinkError, match=":4711, and nothing answers there"):
        window.WindowSink()


def test_a_missing_library_is_named_with_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    if not sys.platform.startswith("linux"):
        pytest.skip("only X11 needs libxcb")

    def missing(name: str) -> None:
        raise OSError(f"{name}: cannot open shared object file")

    monkeypatch.setenv("DISPLAY", ":0")
    monkeypatch.setattr("liveaffect.realtime.sinks.window.ctypes.CDLL", missing)
    with pytest.raises(MissingLibrary, match="apt-get install libxcb1"):
        window.WindowSink()


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
        window.WindowSink()


ON_A_DISPLAY = """
import subprocess, sys, time
import numpy as np
from functools import partial
from pathlib import Path
from liveaffect.realtime.sinks.window import HELP_NS, WindowSink
from liveaffect.realtime.testing.scenes import load_golden
from liveaffect.realtime.testing.scenes import crowd, frame
from liveaffect.realtime.overlay import draw

view = crowd(640, 480, 1)
picture = draw(view)
shot = sys.argv[1]
window, pressed = WindowSink(), []
window.on_key = {key: lambda key=key: pressed.append(key) for key in "ml"}
run = partial(subprocess.run, check=True, capture_output=True, text=True)
for turn in range(20):
    for _ in range(8):
        window.show(picture, frame(view.frame.image, captured_ns=turn * HELP_NS))
        time.sleep(0.02)
    run(["import", "-window", "root", shot])
    if np.array_equal(load_golden(Path(shot))[:480, :640], picture):
        break
else:
    sys.exit("the screen never showed the picture")
found = run(["xdotool", "search", "--name", "liveaffect"]).stdout.split()[0]
for key in ("m", "Left", "l", "x", "Escape"):
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


IN_ITS_SHAPE = """
import subprocess, sys, time
import numpy as np
from pathlib import Path
from liveaffect.realtime.overlay import lay_out, paint
from liveaffect.realtime.sinks.window import HELP_NS, WindowSink, _display_size, opening_size
from liveaffect.realtime.testing.scenes import load_golden
from liveaffect.realtime.testing.scenes import crowd, frame

window, shot = WindowSink(), sys.argv[1]
window.on_key = {"m": lambda: None}
size = _display_size()
assert (size.width, size.height) == tuple(map(int, sys.argv[2].split("x"))), size

def screen(view, turn, wanted):
    '''The middle of what the screen shows, once it is as large as it should be.'''
    for _ in range(40):
        scale = window.text_scale("camera:0")
        picture = paint(view, lay_out(view, text_scale=scale))
        window.show(picture, frame(view.frame.image, captured_ns=turn * HELP_NS))
        time.sleep(0.02)
        if window._open["camera:0"].area == wanted and _ > 9:
            break
    assert window._open["camera:0"].area == wanted, (window._open, wanted)
    subprocess.run(["import", "-window", "root", "-quality", "11", shot], check=True, capture_output=True)
    return load_golden(Path(shot))[: wanted[1], : wanted[0]], scale

def skin(picture):
    '''Width and height of the face, whose box is square.'''
    rows, columns = np.nonzero((np.abs(picture.astype(int) - (236, 188, 152)) < 6).all(axis=-1))
    return np.ptp(columns) + 1, np.ptp(rows) + 1

for shape in ((640, 480), (1920, 1080)):
    wanted = opening_size(shape, size)
    assert abs(wanted[0] / wanted[1] - shape[0] / shape[1]) < 0.01
    assert wanted[0] <= size.width and wanted[1] <= size.height
    if 2 * shape[0] <= size.width and 2 * shape[1] <= size.height:
        assert wanted == shape, "there was room for its own size"
    first, scale = screen(crowd(*shape, 1), 0, wanted)
    wide, high = skin(first)
    assert abs(wide - high) <= 3, (shape, wide, high)
    assert abs(scale - shape[0] / wanted[0]) < 0.01
    window._open["camera:0"].help_until_ns = None
    with_help, _ = screen(crowd(*shape, 1), 0, wanted)
    without, _ = screen(crowd(*shape, 1), 2, wanted)
    lower = np.s_[wanted[1] * 2 // 3 :]
    assert not np.array_equal(with_help[lower], without[lower]), "no help was shown"
found = subprocess.run(
    ["xdotool", "search", "--name", "liveaffect"], check=True, capture_output=True, text=True
).stdout.split()[0]
subprocess.run(["xdotool", "windowsize", found, "500", "300"], check=True)
for shape in ((1920, 1080), (480, 640)):
    squeezed, scale = screen(crowd(*shape, 1), 3, (500, 300))
    wide, high = skin(squeezed)
    assert abs(wide - high) <= 3, (shape, wide, high)
    assert scale == max(shape[0] / 500, shape[1] / 300)
    if shape == (480, 640):
        assert (squeezed[:, :130] == 0).all() and (squeezed[:, -130:] == 0).all(), "no bars"
window.close()
"""


ON_A_DENSE_SCREEN = """
import subprocess, sys, time
import numpy as np
from pathlib import Path
from liveaffect.realtime.sinks.window import HELP_NS, WindowSink, display_is_there
from liveaffect.realtime.testing.scenes import load_golden
from liveaffect.realtime.testing.scenes import frame

assert display_is_there()  # which holds a connection, or the server would forget what it is told next
subprocess.run(["xrdb", "-merge"], input=b"Xft.dpi: 192", check=True)
window, fine = WindowSink(), np.zeros((960, 1280, 3), np.uint8)
fine[:, ::2] = 255
small = np.zeros((480, 640, 3), np.uint8)
for turn in range(20):
    for _ in range(8):
        if turn == 0:
            window.show(small, frame(small))  # 640x480 as Qt counts, 1280x960 on the screen
            window._open["camera:0"].picture = (1280, 960)  # so that it stays so large
        else:
            window.show(fine, frame(fine, captured_ns=turn * HELP_NS))
        time.sleep(0.02)
    subprocess.run(["import", "-window", "root", sys.argv[1]], check=True, capture_output=True)
    if np.array_equal(load_golden(Path(sys.argv[1]))[:960, :1280], fine):
        break
else:
    sys.exit(f"lines of one pixel are not shown as they are: {window._screen} {window._open}")
"""


WHO_TAKES_EVENTS = """
import sys
from ctypes import CDLL, c_char_p, c_int, c_long, c_ulong, c_void_p
from pathlib import Path
from liveaffect.realtime.sinks.window import WindowSink

window = WindowSink()
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


def on_a_display(*program: str, size: str = "800x600") -> None:
    """Run a program on a screen of its own; skips where that cannot be had."""
    for name, package in (("xvfb-run", "xvfb"), ("import", "imagemagick"), ("xdotool", "xdotool")):
        if shutil.which(name) is None:
            pytest.skip(f"needs {name}: apt-get install {package}")
    done = subprocess.run(
        ["xvfb-run", "-a", "-s", f"-screen 0 {size}x24", sys.executable, "-c", *program],
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
@pytest.mark.parametrize("size", ["640x480", "1280x720", "1920x1080", "3840x2160"])
def test_the_window_follows_the_shape_of_the_picture_and_shows_its_keys(tmp_path: Path, size: str) -> None:
    on_a_display(IN_ITS_SHAPE, str(tmp_path / "shot.png"), size, size=size)


def test_text_grows_where_the_picture_is_shown_smaller_than_it_is() -> None:
    usual, halved = Measures.of(1280, 720), Measures.of(1280, 720, 2.0)
    assert halved.cap == 14 > usual.cap
    assert Measures.of(1280, 720, 0.5) == usual


@pytest.mark.slow
def test_on_a_dense_screen_the_window_is_filled_to_the_last_pixel(tmp_path: Path) -> None:
    if shutil.which("xrdb") is None:
        pytest.skip("needs xrdb: apt-get install x11-xserver-utils")
    on_a_display(ON_A_DENSE_SCREEN, str(tmp_path / "shot.png"), size="1920x1200")


def test_the_help_of_the_commands_names_every_key_of_the_window() -> None:
    assert all(f"{key} {what}" in WINDOW_KEYS for key, what in window.KEYS.items())


AFTER_READING_FILES = """
import sys
import {module}
import av
from liveaffect.realtime.sinks.window import WindowSink
from liveaffect.realtime.testing.scenes import crowd

window, view = WindowSink(), crowd(640, 480, 1)
for _ in range(3):
    window.show(view.frame.image, view.frame)
window.close()
"""


@pytest.mark.slow
@pytest.mark.parametrize("module", ["realtime.decode", "realtime.stream", "realtime.sinks.video_file"])
def test_a_window_opens_whatever_reads_or_writes_files_beside_it(module: str) -> None:
    on_a_display(AFTER_READING_FILES.format(module=f"liveaffect.{module}"))


@pytest.mark.slow
def test_what_qt_tells_xlib_about_its_events_reaches_the_xlib_of_this_machine() -> None:
    on_a_display(WHO_TAKES_EVENTS)
