"""The picture in a window on this machine. q or Esc ends the run; other keys go to who asked for them.

Window systems want the main thread, and the one inside OpenCV ends the whole program where it finds no
display. So the display is tried first, with the library that OpenCV needs for it in any case.
"""

from __future__ import annotations

import ctypes
import os
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from liveaffect.realtime.cue import Cue
from liveaffect.realtime.errors import MissingLibrary, SinkError
from liveaffect.realtime.frame import AudioBlock, VideoFrame

TITLE = "liveaffect"
_QUIT = frozenset({"q", "\x1b"})
_held: dict[str, int] = {}
"""A connection to each display that was found. Not given up again: a server without any other client starts
anew when its last one leaves, and the window would open in the middle of that."""
_NO_DISPLAY = (
    "there is no display to open a window on (DISPLAY is {display}). "
    "Run it in a desktop session, or write a file instead."
)


class Window:
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
        self._title = title
        self._open: dict[str, str] = {}
        """Window name by source."""
        self._closed = False
        self.wants_stop = False
        """The user pressed q or Esc or closed the window."""
        self.on_key: Mapping[str, Callable[[], None]] = MappingProxyType({})
        """What to do when a key is pressed, such as 'm' or 'l'."""

    def show(self, picture: NDArray[np.uint8], frame: VideoFrame) -> None:
        """Show it, and see to the keys that were pressed."""
        if self._closed:
            raise SinkError("the window was closed already")
        try:
            name = self._open.get(frame.source) or self._new(frame)
            self._cv2.imshow(name, self._cv2.cvtColor(picture, self._cv2.COLOR_RGB2BGR))
            # Not pollKey(): with Qt it never paints the window.
            self._press(self._cv2.waitKey(1))
            if self._cv2.getWindowProperty(name, self._cv2.WND_PROP_VISIBLE) < 1:
                self.wants_stop = True
        except self._cv2.error as error:
            raise SinkError(f"the window cannot show pictures: {error}") from error

    def tell(self, cues: Sequence[Cue]) -> None:
        """Nothing to do: what cues say is drawn on the pictures."""

    def hear(self, block: AudioBlock) -> None:
        """Nothing to do."""

    def close(self) -> None:
        """Close all windows; safe to call twice."""
        if self._closed:
            return
        self._closed = True
        for name in self._open.values():
            # A window that the user has closed is gone already.
            if self._cv2.getWindowProperty(name, self._cv2.WND_PROP_VISIBLE) >= 1:
                self._cv2.destroyWindow(name)
        self._open.clear()
        self._cv2.waitKey(1)

    def _new(self, frame: VideoFrame) -> str:
        name = f"{self._title} {frame.source}" if self._open else self._title
        flags = self._cv2.WINDOW_NORMAL | self._cv2.WINDOW_KEEPRATIO | self._cv2.WINDOW_GUI_NORMAL
        self._cv2.namedWindow(name, flags)
        width, height = frame.size
        shrink = max(1.0, width / 1280, height / 720)
        self._cv2.resizeWindow(name, round(width / shrink), round(height / shrink))
        self._open[frame.source] = name
        return name

    def _press(self, code: int) -> None:
        if code < 0:
            return
        key = chr(code & 0xFF).lower()
        if key in _QUIT:
            self.wants_stop = True
        elif key in self.on_key:
            self.on_key[key]()


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
