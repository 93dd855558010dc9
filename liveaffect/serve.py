"""`liveaffect serve`: the page for video calls, on this machine; see docs/video-calls.md."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping

from liveaffect.analyzer import Analyzer
from liveaffect.page_session import Sessions
from liveaffect.realtime.web.cue_stream import CueStream
from liveaffect.realtime.web.guard import Access
from liveaffect.realtime.web.server import WebServer
from liveaffect.settings import Settings

Say = Callable[[str], None]
MOST_PAGES = 2
PAGES = {"/": "index.html", "/overlay": "overlay.html"}


class Served:
    """The running server; a context, so that it ends with its block."""

    def __init__(self, settings: Settings, make: Callable[..., Analyzer] = Analyzer) -> None:
        from starlette.routing import WebSocketRoute

        self.stream = CueStream()
        self.sessions = Sessions(
            MOST_PAGES, lambda **wants: make(settings=settings, **wants), self.stream.tell
        )
        self.stream.figures = self._figures
        routes = [*self.stream.routes(), WebSocketRoute("/session", self.sessions.serve)]
        self.server = WebServer(routes, PAGES, Access(settings.host, settings.token), settings.port)
        self.stream.wake = self.server.call

    def __enter__(self) -> Served:
        self.server.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.server.stop()

    def _figures(self) -> Mapping[str, float]:
        ledgers = list(self.sessions.ledgers.values())
        return {
            "pages": len(ledgers),
            "page_pictures_received": sum(ledger.received for ledger in ledgers),
            "page_pictures_answered": sum(ledger.answered for ledger in ledgers),
            "page_pictures_lost": sum(
                count for ledger in ledgers for cause, count in ledger.losses.items() if "pictures" in cause
            ),
        }


def run_serve(settings: Settings, say: Say) -> int:
    """Serve until the user stops it or `--seconds` are over."""
    settings.check_profile()
    with Served(settings) as served:
        host = f"[{settings.host}]" if ":" in settings.host else settings.host
        secret = "#token=TOKEN" if settings.token else ""
        say(f"open http://{host}:{served.server.port}/{secret} in a browser; Ctrl-C ends")
        ended = threading.Event()
        waits_s = settings.seconds or None
        while not ended.wait(min(waits_s or 0.5, 0.5)):
            if served.server.failed is not None:
                say(f"liveaffect: the web server ended: {served.server.failed}")
                return 1
            if waits_s is not None and (waits_s := waits_s - 0.5) <= 0:
                break
    return 0
