"""`--sink ws://127.0.0.1:8765`: cues, the overlay for OBS and figures, for whoever connects."""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import urlsplit

import numpy as np
from numpy.typing import NDArray

from liveaffect.realtime.cue import Cue
from liveaffect.realtime.errors import MissingLibrary, SettingsError, SinkError
from liveaffect.realtime.frame import AudioBlock, VideoFrame

OVERLAY_PAGES = {"/overlay": "overlay.html"}


class WebSink:
    """A server with `/cues`, `/overlay`, `/picture`, `/metrics` and `/healthz`; see docs/video-calls.md."""

    wants_sound = False

    def __init__(self, address: str, *, token: str = "") -> None:
        try:
            from liveaffect.realtime.web.cue_stream import CueStream
            from liveaffect.realtime.web.server import PORT, Access, WebServer
        except ImportError as error:
            raise MissingLibrary(
                f"{address} needs {error.name}, of the extra 'web': uv sync --extra web, "
                "or pip install 'liveaffect[web]'"
            ) from error
        try:
            where = urlsplit(address)
            port = PORT if where.port is None else where.port
            self._stream = CueStream()
            access = Access(where.hostname or "127.0.0.1", token)
            self._server = WebServer(self._stream.routes(), OVERLAY_PAGES, access, port)
        except (SettingsError, ValueError) as error:
            raise SinkError(f"{address}: {error}") from error
        self._stream.wake = self._server.call
        self._closed = False
        self._server.start()

    @property
    def port(self) -> int:
        """Where it listens; a port of 0 takes any."""
        return self._server.port

    @property
    def wants_pictures(self) -> bool:
        """Only while somebody looks."""
        return self._stream.pictures_wanted

    def show(self, picture: NDArray[np.uint8], frame: VideoFrame) -> None:
        """Offer it to whoever looks; encoding is the server's business."""
        self._check()
        self._stream.show(picture)

    def tell(self, cues: Sequence[Cue]) -> None:
        """Offer them to whoever reads."""
        self._check()
        self._stream.tell(cues)

    def hear(self, block: AudioBlock) -> None:
        """Nothing to do."""

    def close(self) -> str | None:
        """End all connections. Safe to call twice."""
        self._closed = True
        self._server.stop()
        return None

    def _check(self) -> None:
        if self._closed or self._server.failed is not None:
            raise SinkError(
                f"the web server on port {self.port} has ended: {self._server.failed or 'closed'}"
            )
