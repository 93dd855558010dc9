"""A network camera of two streams, a large one and a small one, for whoever connects by TCP.

It sends one short film over and over as a real camera's encoder would, at its pace, until it is unplugged.
"""

from __future__ import annotations

import contextlib
import io
import socket
import threading
from collections.abc import Sequence

import av
import numpy as np
from numpy.typing import NDArray

RATE_HZ = 20
SIZES = ((640, 480), (320, 240))


def packets_of(pictures: Sequence[NDArray[np.uint8]]) -> list[bytes]:
    """The bytes of each picture's packets, in both sizes."""
    parts, out = [], io.BytesIO()
    with av.open(out, "w", format="mpegts") as file:
        streams = []
        for width, height in SIZES:
            stream = file.add_stream("mpeg2video", rate=RATE_HZ, width=width, height=height)
            stream.pix_fmt, stream.bit_rate, stream.gop_size = "yuv420p", 4_000_000, 5
            streams.append(stream)
        for number, picture in enumerate(pictures):
            for stream in streams:
                frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
                frame = frame.reformat(stream.width, stream.height, "yuv420p")
                frame.pts = number
                file.mux(stream.encode(frame))
            parts.append(out.getvalue())
            out.seek(0)
            out.truncate()
    return parts


class NetworkCamera:
    """Serves `url`; a context. `plug_out` and `plug_in` any number of times."""

    def __init__(self, pictures: Sequence[NDArray[np.uint8]]) -> None:
        self._film = packets_of(pictures)
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._socket.getsockname()[1]
        self.url = f"tcp://127.0.0.1:{self.port}"
        self._over = threading.Event()
        self._plugged = threading.Event()
        self._plugged.set()
        self._threads = [threading.Thread(target=self._serve)]
        self._threads[0].start()

    def __enter__(self) -> NetworkCamera:
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        with contextlib.suppress(OSError):
            socket.create_connection(("127.0.0.1", self.port), 0.5).close()
        for thread in self._threads:
            thread.join()
        self._socket.close()

    def plug_out(self) -> None:
        """Break off every connection, and take no new one."""
        self._plugged.clear()

    def plug_in(self) -> None:
        """Be there again."""
        self._plugged.set()

    def _serve(self) -> None:
        while not self._over.is_set():
            reader, _ = self._socket.accept()
            if not self._plugged.is_set() or self._over.is_set():
                reader.close()
                continue
            thread = threading.Thread(target=self._send, args=(reader,))
            self._threads.append(thread)
            thread.start()

    def _send(self, reader: socket.socket) -> None:
        with contextlib.suppress(OSError), reader:
            while True:
                for part in self._film:
                    if not self._plugged.is_set() or self._over.wait(1 / RATE_HZ):
                        return
                    reader.sendall(part)
