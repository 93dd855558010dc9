"""The picture in a window on this machine, in its own shape whatever the shape of the window.

Window systems want the main thread, and the one inside OpenCV ends the whole program where it finds no
display. So the display is tried first, with the library that OpenCV needs for it in any case. OpenCV would
also squeeze the picture into the window and leave out rows of text, so it is handed one that fits exactly.
"""

from __future__ import annotations

import ctypes
import os
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from liveaffect.realtime.clock import SECOND
from liveaffect.realtime.cue import Cue
from liveaffect.realtime.drawing.canvas import FULL, paste
from liveaffect.realtime.drawing.panels import Measures
from liveaffect.realtime.drawing.signs import help_panel
from liveaffect.realtime.errors import MissingLibrary, SinkError
from liveaffect.realtime.frame import AudioBlock, VideoFrame
from liveaffect.realtime.sinks import OwnScreen

TITLE = "liveaffect"
KEYS = {
    "q": "quit",
    "f": "full screen",
    "m": "mirror",
    "l": "wait for results or not",
    "h": "keys",
}
"""Every key that can do something, and what. Esc leaves the full screen, else it quits."""
_ESCAPE = "\x1b"
_X_ESCAPE = 0xFF1B
HELP_NS = 6 * SECOND
"""So long the keys are shown at first, and after any key that does nothing."""
_FADE_NS = SECOND
_FADE_STEPS = 8
_ON_SCREEN = 0.95, 0.88
"""Shares of the screen's width and height that a new window may take beside title bars and the like."""
_PLAIN_DPI = 96
_OTHERWISE_PX = 1280, 720
"""Taken for the screen where nobody says how large it is."""
_held: dict[str, int] = {}
"""A connection to each display that was found. Not given up again: a server without any other client starts
anew when its last one leaves, and the window would open in the middle of that."""
_NO_DISPLAY = (
    "there is no display to open a window on (DISPLAY is {display}). "
    "Run it in a desktop session, or write a file instead."
)


@dataclass(frozen=True, slots=True)
class DisplaySize:
    """How large the screen is to Qt, which counts several pixels as one where the screen is dense."""

    width: int
    height: int
    density: int = 1
    """How many pixels across Qt counts as one."""


@dataclass(slots=True)
class _Open:
    """One window, and what it last showed."""

    name: str
    picture: tuple[int, int] = (0, 0)
    """Size of the pictures for which it got its size."""
    given: tuple[int, int] = (0, 0)
    """The size that it got then. If it has another, the user wants it so."""
    area: tuple[int, int] = (0, 0)
    """The size that it has."""
    full: bool = False
    help_until_ns: int | None = None


class WindowSink(OwnScreen):
    """One window for each camera. Must be made and called on the main thread."""

    wants_pictures = True
    wants_sound = False

    def __init__(self, title: str = TITLE) -> None:
        if threading.current_thread() is not threading.main_thread():
            raise SinkError("a window can only be opened on the main thread; this is a fault of the program")
        if (why := _no_display()) is not None:
            raise why
        _leave_events_to_qt()
        os.environ.setdefault(
            "QT_LOGGING_RULES", "*.warning=false"
        )  # Qt complains about fonts it does not need
        self._cv2 = _highgui()
        self._screen = _display_size()
        self._title = title
        self._open: dict[str, _Open] = {}
        """By source."""
        self._closed = False
        self.wants_stop = False
        """The user pressed q or Esc or closed the window."""
        self.on_key: Mapping[str, Callable[[], None]] = MappingProxyType({})
        """What to do when one of `KEYS` is pressed that the window itself knows nothing about."""

    def show(self, picture: NDArray[np.uint8], frame: VideoFrame) -> None:
        """Show it, and see to the keys that were pressed."""
        if self._closed:
            raise SinkError("the window was closed already")
        cv2 = self._cv2
        try:
            shown = self._open.get(frame.source) or self._new(frame.source)
            self._follow(shown, (picture.shape[1], picture.shape[0]))
            fitting = self._fitting(picture, shown.area)  # in real pixels, so that text stays sharp
            self._draw_help(fitting, shown, frame.captured_ns)
            cv2.imshow(shown.name, cv2.cvtColor(fitting, cv2.COLOR_RGB2BGR))
            # Not pollKey(): with Qt it never paints the window.
            self._press(cv2.waitKeyEx(1), shown)
            if cv2.getWindowProperty(shown.name, cv2.WND_PROP_VISIBLE) < 1:
                self.wants_stop = True
        except cv2.error as error:
            raise SinkError(f"the window cannot show pictures: {error}") from error

    def text_scale(self, source: str) -> float:
        """How much larger than usual text must be drawn on the pictures of a source to be read here.

        1 where pictures are shown in their size, 2 where they are shown in half of it.
        """
        shown = self._open.get(source)
        if shown is None or 0 in (*shown.picture, *shown.area):
            return 1.0
        (width, height), (area_width, area_height) = shown.picture, shown.area
        return 1 / min(area_width / width, area_height / height)

    def tell(self, cues: Sequence[Cue]) -> None:
        """Nothing to do: what cues say is drawn on the pictures."""

    def hear(self, block: AudioBlock) -> None:
        """Nothing to do."""

    def close(self) -> None:
        """Close all windows; safe to call twice."""
        if self._closed:
            return
        self._closed = True
        for shown in self._open.values():
            # A window that the user has closed is gone already.
            if self._cv2.getWindowProperty(shown.name, self._cv2.WND_PROP_VISIBLE) >= 1:
                self._cv2.destroyWindow(shown.name)
        self._open.clear()
        self._cv2.waitKey(1)

    def _new(self, source: str) -> _Open:
        name = f"{self._title} {source}" if self._open else self._title
        cv2 = self._cv2
        cv2.namedWindow(name, cv2.WINDOW_NORMAL | cv2.WINDOW_FREERATIO | cv2.WINDOW_GUI_NORMAL)
        shown = self._open[source] = _Open(name)
        return shown

    def _follow(self, shown: _Open, size: tuple[int, int]) -> None:
        """Take note of the window's size; pictures of a new size change it, unless the user did."""
        _, _, width, height = self._cv2.getWindowImageRect(shown.name)
        shown.area = (width, height) if min(width, height) > 0 else size
        if size == shown.picture:
            return
        untouched = shown.given in ((0, 0), shown.area) and not shown.full
        shown.picture = size
        if untouched:
            shown.given = shown.area = opening_size(size, self._screen)
            self._cv2.resizeWindow(shown.name, *shown.given)

    def _fitting(self, picture: NDArray[np.uint8], area: tuple[int, int]) -> NDArray[np.uint8]:
        """The picture as large as the window allows, between black bars where the shapes differ."""
        height, width = picture.shape[:2]
        area = area[0] * self._screen.density, area[1] * self._screen.density
        if area == (width, height):
            return picture.copy()
        scale = min(area[0] / width, area[1] / height)
        size = max(1, round(width * scale)), max(1, round(height * scale))
        how = self._cv2.INTER_AREA if scale < 1 else self._cv2.INTER_LINEAR
        out = np.zeros((area[1], area[0], 3), np.uint8)
        left, top = (area[0] - size[0]) // 2, (area[1] - size[1]) // 2
        self._cv2.resize(
            picture, size, dst=out[top : top + size[1], left : left + size[0]], interpolation=how
        )
        return out

    def _draw_help(self, picture: NDArray[np.uint8], shown: _Open, now_ns: int) -> None:
        """What the keys do, near the lower edge; it fades on the clock of the pictures."""
        if shown.help_until_ns is None:
            shown.help_until_ns = now_ns + HELP_NS
        left_ns = min(shown.help_until_ns - now_ns, _FADE_NS)
        if left_ns <= 0:
            return
        height, width = picture.shape[:2]
        known = {*KEYS} - {"m", "l"} | {*self.on_key}
        text = " · ".join(f"{key} {what}" for key, what in KEYS.items() if key in known)
        m = Measures.of(width, height, self._screen.density)
        opacity = FULL * -(-left_ns * _FADE_STEPS // _FADE_NS) // _FADE_STEPS
        sprite = help_panel(text, width - 2 * m.gap, m, opacity)
        # Above what stands at the lower edge of pictures: health and timeline.
        paste(picture, sprite, (width - sprite.size[0]) // 2, height - sprite.size[1] - 5 * m.line)

    def _press(self, code: int, shown: _Open) -> None:
        # Others than letters have codes of their own; the last byte of that of an arrow is a letter's.
        if code != _X_ESCAPE and not 0 <= code < 256:
            return
        key = chr(code & 0xFF).lower()
        if key == "q" or (key == _ESCAPE and not shown.full):
            self.wants_stop = True
        elif key in ("f", _ESCAPE):
            self._set_full(shown, not shown.full)
        elif key in self.on_key:
            self.on_key[key]()
        elif key.isprintable():
            shown.help_until_ns = None

    def _set_full(self, shown: _Open, full: bool) -> None:
        shown.full = full
        wanted = self._cv2.WINDOW_FULLSCREEN if full else self._cv2.WINDOW_NORMAL
        self._cv2.setWindowProperty(shown.name, self._cv2.WND_PROP_FULLSCREEN, wanted)


def opening_size(picture: tuple[int, int], screen: DisplaySize) -> tuple[int, int]:
    """Of a new window: the picture's own where the screen has room for it, else the largest in its shape."""
    width, height = picture
    room = _ON_SCREEN[0] * screen.width / width, _ON_SCREEN[1] * screen.height / height
    scale = min(1.0, *room)
    return max(1, round(width * scale)), max(1, round(height * scale))


def display_is_there() -> bool:
    """Whether a window could be opened here."""
    return _no_display() is None


def _no_display() -> SinkError | MissingLibrary | None:
    """Why no window can be opened; None if one can, and always on systems other than X11."""
    if not sys.platform.startswith("linux"):
        return None
    display = os.environ.get("DISPLAY")
    if not display:
        return SinkError(_NO_DISPLAY.format(display="not set"))
    try:
        xcb = ctypes.CDLL("libxcb.so.1")
    except OSError:
        return MissingLibrary("a window needs the system library libxcb.so.1: apt-get install libxcb1")
    xcb.xcb_connect.restype = ctypes.c_void_p
    xcb.xcb_connect.argtypes = [ctypes.c_char_p, ctypes.c_void_p]
    xcb.xcb_connection_has_error.argtypes = [ctypes.c_void_p]
    xcb.xcb_disconnect.argtypes = [ctypes.c_void_p]
    held = _held.get(display)
    if held is not None and not xcb.xcb_connection_has_error(held):
        return None
    _held.pop(display, None)
    connection = xcb.xcb_connect(None, None)
    if xcb.xcb_connection_has_error(connection):
        xcb.xcb_disconnect(connection)
        return SinkError(_NO_DISPLAY.format(display=f"{display}, and nothing answers there"))
    _held[display] = connection
    return None


def _display_size() -> DisplaySize:
    """What the window system says about the screen."""
    if sys.platform == "win32":
        ask = ctypes.windll.user32.GetSystemMetrics
        return DisplaySize(ask(0), ask(1))
    if not sys.platform.startswith("linux"):
        return DisplaySize(*_OTHERWISE_PX)
    xlib = ctypes.CDLL("libX11.so.6")
    xlib.XOpenDisplay.argtypes, xlib.XOpenDisplay.restype = [ctypes.c_char_p], ctypes.c_void_p
    xlib.XDisplayWidth.argtypes = xlib.XDisplayHeight.argtypes = [ctypes.c_void_p, ctypes.c_int]
    xlib.XGetDefault.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_char_p]
    xlib.XGetDefault.restype = ctypes.c_char_p
    xlib.XCloseDisplay.argtypes = [ctypes.c_void_p]
    display = xlib.XOpenDisplay(None)
    if not display:
        return DisplaySize(*_OTHERWISE_PX)
    try:
        dpi = float(xlib.XGetDefault(display, b"Xft", b"dpi") or _PLAIN_DPI)
        density = max(1, int(dpi / _PLAIN_DPI + 0.5))  # as Qt reckons it
        width, height = xlib.XDisplayWidth(display, 0), xlib.XDisplayHeight(display, 0)
        return DisplaySize(width // density, height // density, density)
    except ValueError:  # a resource that is no number
        return DisplaySize(*_OTHERWISE_PX)
    finally:
        xlib.XCloseDisplay(display)


def _leave_events_to_qt() -> None:
    """Load the system's libX11-xcb for all, before Qt loads the one of its wheel.

    Qt reads events in a thread of its own, and tells Xlib through that library to leave them alone. The copy
    in the wheel was built for an older libX11 and puts the word where the present one does not look. What
    Xlib finds before that thread does is then thrown away: keys, and the news that the window can be seen,
    without which it stays black.
    """
    if not sys.platform.startswith("linux"):
        return
    try:
        ctypes.CDLL("libX11-xcb.so.1", ctypes.RTLD_GLOBAL)
    except OSError as error:
        raise MissingLibrary(
            "a window needs the system library libX11-xcb.so.1: apt-get install libx11-xcb1"
        ) from error


def _highgui() -> Any:
    """OpenCV, if it was built with windows."""
    try:
        import cv2
    except ImportError as error:
        raise MissingLibrary(
            f"a window needs OpenCV, which cannot be loaded ({error}): "
            "apt-get install libgl1 libglib2.0-0 libxcb1"
        ) from error
    if not hasattr(cv2, "namedWindow") or "GUI:                           NONE" in cv2.getBuildInformation():
        raise MissingLibrary(
            "this OpenCV was built without windows (a headless wheel): install opencv-contrib-python instead"
        )
    return cv2
