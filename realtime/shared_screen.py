"""The screen as a camera: `screen`, a part of it `screen:x,y,w,h`, or one window `window:NAME`; through mss.

A call shows its people on the screen whatever program it runs in. A picture is stamped before it is grabbed,
because grabbing takes some milliseconds. A window is looked for anew every second, since people move them.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import threading
from typing import Any

import numpy as np

from liveaffect.realtime.clock import SECOND, Clock
from liveaffect.realtime.errors import (
    MissingLibrary,
    SettingsError,
    SourceChanged,
    SourceError,
    SourceLost,
    SourceNotFound,
)
from liveaffect.realtime.frame import VideoFrame

Part = tuple[int, int, int, int]
"""Left, top, width and height in pixels of the whole desktop."""
_LOOKED_FOR_EVERY_NS = SECOND
_FAILED_GRABS = 10


def names_a_screen(name: str) -> bool:
    """Whether this source is a screen and not a camera."""
    return name == "screen" or name.startswith(("screen:", "window:"))


class SharedScreen:
    """A screen, a part of it, or a window, as a source of pictures. Opened and read by one thread."""

    def __init__(self, spec: str, clock: Clock, fps: float = 30.0) -> None:
        self._spec = spec
        self._clock = clock
        self._step_ns = round(SECOND / fps)
        self._part = _part_of(spec)
        self._window = spec.removeprefix("window:") if spec.startswith("window:") else ""
        self._grabber: Any = None
        self._closing = threading.Event()
        self._lock = threading.Lock()
        self._next_ns = self._looked_ns = 0
        self._seq = self._failed = 0
        self._size: tuple[int, int] | None = None

    @property
    def name(self) -> str:
        """'camera:' and what the user called it."""
        return f"camera:{self._spec}"

    def open(self) -> None:
        """Raises SourceNotFound where there is no screen or no such window."""
        if self._grabber is not None or self._closing.is_set():
            raise SourceError(f"{self.name} was opened before; a source is opened once")
        try:
            import mss
            from mss.exception import ScreenShotError
        except ImportError as error:
            raise MissingLibrary(
                f"{self.name} needs mss, of the extra 'screen': uv sync --extra screen, "
                "or pip install 'liveaffect[screen]'"
            ) from error
        try:
            self._grabber = mss.MSS()
        except (ScreenShotError, OSError) as error:
            raise SourceNotFound(f"{self.name}: no screen can be read here ({error})") from error
        if self._window:
            self._part = window_part(self._window)
        self._next_ns = self._looked_ns = self._clock.now_ns()

    def read(self, timeout_s: float) -> VideoFrame | None:
        """The screen as it is when the next picture is due. Raises SourceLost or SourceChanged."""
        if self._grabber is None or self._closing.is_set():
            raise SourceError(f"{self.name} is not open")
        if not self._clock.wait_until(self._next_ns, self._closing):
            raise SourceError(f"{self.name} was closed")
        now_ns = self._clock.now_ns()
        self._next_ns = max(self._next_ns + self._step_ns, now_ns)
        if self._window and now_ns - self._looked_ns >= _LOOKED_FOR_EVERY_NS:
            self._looked_ns, self._part = now_ns, window_part(self._window)
        with self._lock:
            if self._closing.is_set():
                raise SourceError(f"{self.name} was closed")
            image = self._grab()
        if image is None:
            return None
        size = image.shape[1], image.shape[0]
        if self._size not in (None, size):
            raise SourceChanged(f"{self.name} changed its size from {self._size} to {size}; opening it again")
        self._size = size
        frame = VideoFrame(self.name, self._seq, now_ns, image)
        self._seq += 1
        return frame

    def close(self) -> None:
        """Safe to call twice, and from another thread."""
        self._closing.set()
        with self._lock:
            if self._grabber is not None:
                self._grabber.close()

    def _grab(self) -> Any:
        from mss.exception import ScreenShotError

        whole = self._grabber.monitors[0]
        left, top, width, height = self._part or (
            whole["left"],
            whole["top"],
            whole["width"],
            whole["height"],
        )
        # What lies beyond the edge of the desktop cannot be read.
        right = min(left + width, whole["left"] + whole["width"])
        bottom = min(top + height, whole["top"] + whole["height"])
        left, top = max(left, whole["left"]), max(top, whole["top"])
        if right - left < 16 or bottom - top < 16:
            raise SourceLost(f"{self.name} lies outside the desktop of {whole['width']}x{whole['height']}")
        try:
            shot = self._grabber.grab(
                {"left": left, "top": top, "width": right - left, "height": bottom - top}
            )
        except ScreenShotError as error:
            self._failed += 1
            if self._failed >= _FAILED_GRABS:
                raise SourceLost(f"{self.name} cannot be read any more ({error})") from error
            return None
        self._failed = 0
        return np.frombuffer(shot.rgb, np.uint8).reshape(shot.height, shot.width, 3).copy()


def window_part(name: str) -> Part:
    """Where the largest visible window with this in its title is. Raises SourceNotFound or MissingLibrary."""
    if sys.platform != "linux" or shutil.which("xdotool") is None:
        raise MissingLibrary(
            f"window:{name} asks xdotool where the window is: sudo apt install xdotool, on Linux with X11. "
            "Elsewhere name a part of the screen: --camera screen:x,y,width,height"
        )
    found = _xdotool("search", "--onlyvisible", "--name", re.escape(name))
    parts = [part for number in found.split() if (part := _geometry(number)) is not None]
    if not parts:
        raise SourceNotFound(
            f"no visible window has '{name}' in its title. Name part of a title, or a part of the screen: "
            "--camera screen:x,y,width,height"
        )
    return max(parts, key=lambda part: part[2] * part[3])


def _geometry(number: str) -> Part | None:
    lines = dict(
        line.split("=", 1)
        for line in _xdotool("getwindowgeometry", "--shell", number).splitlines()
        if "=" in line
    )
    try:
        return int(lines["X"]), int(lines["Y"]), int(lines["WIDTH"]), int(lines["HEIGHT"])
    except (KeyError, ValueError):
        return None  # it was closed meanwhile


def _xdotool(*words: str) -> str:
    try:
        return subprocess.run(
            ["xdotool", *words], capture_output=True, text=True, check=False, timeout=2
        ).stdout
    except (OSError, subprocess.TimeoutExpired):
        return ""


def _part_of(spec: str) -> Part | None:
    if not spec.startswith("screen:"):
        return None
    given = re.fullmatch(r"screen:(-?\d{1,5}),(-?\d{1,5}),(\d{1,5}),(\d{1,5})", spec)
    if given is None:
        raise SettingsError(
            f"--camera {spec}: a part of the screen is screen:x,y,width,height, such as screen:0,0,1280,720"
        )
    left, top, width, height = (int(number) for number in given.groups())
    return left, top, width, height
