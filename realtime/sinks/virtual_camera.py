"""The drawn picture as a camera of its own, for programs that take no other input: `--sink camera`.

The newest picture only: the driver may wait for its reader, so a thread of its own feeds it. The first
picture decides the size, because programs take the size of a camera for given; others are fitted into it.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from liveaffect.realtime.cue import Cue
from liveaffect.realtime.errors import MissingLibrary, SinkError
from liveaffect.realtime.frame import AudioBlock, VideoFrame
from liveaffect.realtime.ring import Ring
from liveaffect.realtime.sinks import OneSize

FPS = 30.0
NO_DRIVER = {
    "linux": "there is no virtual camera to write to; its driver is v4l2loopback: sudo apt install "
    "v4l2loopback-dkms && sudo modprobe v4l2loopback exclusive_caps=1 card_label=liveaffect",
    "win32": "there is no virtual camera to write to: install OBS Studio, which brings one",
    "darwin": "there is no virtual camera to write to: install OBS Studio, start its virtual camera once",
}


class VirtualCamera(OneSize):
    """Writes to the first free virtual camera."""

    wants_pictures = True
    wants_sound = False

    def __init__(self) -> None:
        try:
            import pyvirtualcam  # type: ignore[import-untyped]
        except ImportError as error:
            raise MissingLibrary(
                "--sink camera needs pyvirtualcam, of the extra 'screen': uv sync --extra screen, "
                "or pip install 'liveaffect[screen]'"
            ) from error
        self._make = pyvirtualcam.Camera
        # At once, so that a driver that is missing is said before anything else starts.
        self._open((640, 480)).close()
        self._pictures: Ring[NDArray[np.uint8]] = Ring(1)
        self._failed: SinkError | None = None
        self._thread = threading.Thread(target=self._run, name="feeds the virtual camera", daemon=True)
        self._thread.start()

    def show(self, picture: NDArray[np.uint8], frame: VideoFrame) -> None:
        """Take the place of the picture that waits."""
        if self._failed is not None:
            raise self._failed
        if self._pictures.closed:
            raise SinkError("the virtual camera was closed")
        self._pictures.push(picture)

    def tell(self, cues: Sequence[Cue]) -> None:
        """Nothing to do."""

    def hear(self, block: AudioBlock) -> None:
        """Nothing to do."""

    def close(self) -> str | None:
        """Let the camera go. Safe to call twice."""
        self._pictures.close()
        self._thread.join()
        return None

    def _open(self, size: tuple[int, int]) -> Any:
        try:
            return self._make(width=size[0], height=size[1], fps=FPS)
        except (RuntimeError, ValueError) as error:
            raise SinkError(
                f"{NO_DRIVER.get(sys.platform, 'there is no virtual camera')} ({error})"
            ) from error

    def _run(self) -> None:
        camera: Any = None
        cursor = 0
        try:
            while True:
                batch = self._pictures.wait_since(cursor, 1.0)
                cursor = batch.cursor
                for picture in batch.items:
                    if camera is None:
                        camera = self._open((picture.shape[1] // 2 * 2, picture.shape[0] // 2 * 2))
                    camera.send(fitted(picture, (camera.width, camera.height)))
                if self._pictures.closed and not batch.items:
                    return
        except SinkError as error:
            self._failed = error
        except Exception as error:  # noqa: BLE001  a driver may raise anything, and it is said at the next picture
            self._failed = SinkError(f"the virtual camera failed: {error}")
        finally:
            if camera is not None:
                camera.close()


def fitted(picture: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """In this size, whole, with black beside it where the shapes differ."""
    import cv2

    height, width = picture.shape[:2]
    if (width, height) == size:
        return np.ascontiguousarray(picture)
    scale = min(size[0] / width, size[1] / height)
    inner = max(1, round(width * scale)), max(1, round(height * scale))
    out = np.zeros((size[1], size[0], 3), np.uint8)
    left, top = (size[0] - inner[0]) // 2, (size[1] - inner[1]) // 2
    out[top : top + inner[1], left : left + inner[0]] = cv2.resize(
        picture, inner, interpolation=cv2.INTER_AREA
    )
    return out
