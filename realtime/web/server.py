"""The one web server of a run, uvicorn in a thread of its own, and who may ask it for anything.

It is bound before it starts, so a port that is taken is an error at the keyboard and not a line in a log.
Programs and pages of this machine may ask, or whoever knows the token. A page from elsewhere that a browser
shows here can reach loopback too; what gives it away is the `Origin` or `Sec-Fetch-Site` that browsers add,
or, where a foreign name was made to point at this machine, the `Host`.
"""

from __future__ import annotations

import asyncio
import hmac
import ipaddress
import logging
import socket
import threading
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import resources
from typing import Any
from urllib.parse import parse_qs, urlsplit

import uvicorn
from starlette.applications import Starlette
from starlette.requests import HTTPConnection
from starlette.responses import PlainTextResponse, Response
from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from starlette.websockets import WebSocket
from uvicorn.protocols.http.h11_impl import H11Protocol

from liveaffect.realtime import web
from liveaffect.realtime.errors import SettingsError

LOOPBACK = ("127.0.0.1", "localhost", "::1")
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
    "media-src 'self' blob:; connect-src 'self'; worker-src 'self'; manifest-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": _POLICY,
    "Cache-Control": "no-store",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(self), microphone=(self), display-capture=(self), geolocation=()",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
"""On every answer: nothing foreign is loaded, nothing is kept, nobody frames the page."""
PORT = 8765
MOST_MESSAGE_BYTES = 2_000_000
MOST_CONNECTIONS = 64
PING_S = 4.0
PONG_S = 8.0
"""A browser whose tab was killed or whose machine sleeps is given up after this long without an answer."""
REQUEST_S = 5.0
"""A connection that has asked for nothing by then is closed."""
_LOG = logging.getLogger(__name__)
_TYPES = {
    "html": "text/html; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
}
logging.getLogger("uvicorn.access").disabled = True


@dataclass(frozen=True, slots=True)
class Access:
    """Who is let in."""

    host: str = "127.0.0.1"
    token: str = ""
    """Empty: everybody on this machine. Never logged."""
    open_paths: frozenset[str] = frozenset()
    """Pages and their files, which hold no data and say how a token is given."""

    def refusal(self, scope_type: str, path: str, headers: Mapping[str, str], query: str) -> str | None:
        """Why this request is turned away, or None."""
        host = headers.get("host", "")
        if not self._knows(host):
            return "this server answers to the address it was started with only, not to that name"
        origin = headers.get("origin")
        if origin is not None and _place_of(origin) != host.lower():
            return "a page of another origin may not use this server"
        from_elsewhere = headers.get("sec-fetch-site", "none") not in ("none", "same-origin")
        visits = headers.get("sec-fetch-mode") == "navigate" and headers.get("sec-fetch-dest") == "document"
        if from_elsewhere and not (visits and path in self.open_paths and scope_type == "http"):
            return "a page of another origin may not use this server"
        if self.token and path not in self.open_paths and not self._is_told(headers, query):
            return "this server wants a token: 'Authorization: Bearer TOKEN', or ?token=TOKEN"
        return None

    def _knows(self, host: str) -> bool:
        name = _name_of(host)
        if name in LOOPBACK or name == self.host.lower():
            return True
        # With a token a foreign name gains nothing, so every address of this machine may be used.
        return bool(self.token) and (_is_address(name) or name == socket.gethostname().lower())

    def _is_told(self, headers: Mapping[str, str], query: str) -> bool:
        scheme, _, given = headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer":
            given = parse_qs(query).get("token", [""])[0]
        return hmac.compare_digest(given.encode(), self.token.encode())


def _place_of(origin: str) -> str:
    """Host and port of a page; nothing for what is no address."""
    try:
        return urlsplit(origin).netloc.lower()
    except ValueError:
        return ""


class Guard:
    """Asks `Access` before an application, and adds the headers to what it answers."""

    def __init__(self, app: ASGIApp, access: Access) -> None:
        self._app = app
        self._access = access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on, or refuse with 403."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        asked = HTTPConnection(scope)
        said = self._access.refusal(scope["type"], asked.url.path, asked.headers, asked.url.query)
        if said is None:
            await self._app(scope, receive, _with_headers(send))
            return
        answer = PlainTextResponse(said + "\n", 403, headers=HEADERS)
        if scope["type"] == "websocket":
            await WebSocket(scope, receive, send).send_denial_response(answer)
        else:
            await answer(scope, receive, send)


def _with_headers(send: Send) -> Callable[[Message], Awaitable[None]]:
    async def add(message: Message) -> None:
        if message["type"] == "http.response.start":
            known = {name.lower() for name, _ in message["headers"]}
            own = [(name.lower().encode(), text.encode()) for name, text in HEADERS.items()]
            message["headers"] = [*message["headers"], *(pair for pair in own if pair[0] not in known)]
        await send(message)

    return add


def _name_of(host: str) -> str:
    """Without its port: 'localhost:8765', '[::1]:8765'."""
    try:
        return (urlsplit(f"//{host}").hostname or "").lower()
    except ValueError:
        return ""


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


class QuietAboutRequests(logging.Filter):
    """uvicorn names the path of each connection, where a token may stand, and each refusal as an error."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Only what went wrong inside."""
        return record.levelno >= logging.WARNING and "without completing" not in record.msg


logging.getLogger("uvicorn.error").addFilter(QuietAboutRequests())


class PromptRequests(H11Protocol):
    """HTTP whose first request has to come soon: silent connections would use up those there are."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Look again in a while."""
        super().connection_made(transport)
        self.loop.call_later(REQUEST_S, self._give_up_if_silent)

    def _give_up_if_silent(self) -> None:
        if self.cycle is None and not self.transport.is_closing() and self in self.connections:
            self.transport.abort()


class WebServer:
    """Serves pages and routes until `stop`. Raises SettingsError where it cannot listen."""

    def __init__(self, routes: Sequence[BaseRoute], pages: dict[str, str], access: Access, port: int) -> None:
        check_access(access)
        self._socket = _bound(access.host, port)
        self.port: int = self._socket.getsockname()[1]
        files = [*pages.items(), *((f"/page/{name}", name) for name in _names() if not name.endswith("html"))]
        access = replace(access, open_paths=frozenset(path for path, _ in files))
        app = Starlette(routes=[*routes, *(_page(path, name) for path, name in files)])
        config = uvicorn.Config(
            Guard(app, access),
            http=PromptRequests,
            ws="websockets-sansio",
            ws_max_size=MOST_MESSAGE_BYTES,
            ws_ping_interval=PING_S,
            ws_ping_timeout=PONG_S,
            ws_per_message_deflate=False,
            limit_concurrency=MOST_CONNECTIONS,
            timeout_graceful_shutdown=1,
            access_log=False,  # a token may stand in a query
            log_config=None,
            lifespan="off",
            server_header=False,
            date_header=False,
        )
        self._server = uvicorn.Server(config)
        self._failed: BaseException | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = threading.Thread(target=self._run, name="liveaffect web server", daemon=True)

    def start(self) -> None:
        """Begin to answer."""
        self._thread.start()

    def call(self, function: Any, *arguments: Any) -> None:
        """Have the server's loop call it; nothing happens before the start and after the end."""
        if (loop := self._loop) is not None:
            try:
                loop.call_soon_threadsafe(function, *arguments)
            except RuntimeError:  # closed in this very moment
                self._loop = None

    @property
    def failed(self) -> BaseException | None:
        """What ended it, if it was not `stop`."""
        return self._failed

    def stop(self) -> None:
        """End all connections and the thread. Safe to call twice."""
        self._server.should_exit = True
        if self._thread.ident is not None:
            self._thread.join()
        self._socket.close()

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        except (Exception, SystemExit) as error:  # noqa: BLE001  the one place where this thread's end is recorded
            self._failed = error
            _LOG.error("the web server ended: %s", error)

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        try:
            await self._server.serve(sockets=[self._socket])
        finally:
            self._loop = None


def check_access(access: Access) -> None:
    """Refuse to be reachable from elsewhere without a token."""
    if access.host not in LOOPBACK and not access.token:
        raise SettingsError(
            f"on {access.host} other machines may ask for pictures and cues, so it wants a secret: "
            "LIVEAFFECT_TOKEN, or --token TEXT of serve. On 127.0.0.1 only this machine is answered"
        )
    if access.token and len(access.token) < 16:
        raise SettingsError("a token that short can be guessed: take at least 16 characters")


def _bound(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family)
    except OSError as error:
        raise SettingsError(
            f"cannot listen on {host} port {port}: {error.strerror}. Another program may hold the port; "
            "choose one with --port, or in the address of the sink; 0 takes any"
        ) from error


def _names() -> list[str]:
    return sorted(entry.name for entry in resources.files(web).joinpath("page").iterdir())


def _page(path: str, name: str) -> Route:
    content = resources.files(web).joinpath("page", name).read_bytes()
    kind = _TYPES[name.rsplit(".", 1)[-1]]

    async def answer(request: object) -> Response:
        return Response(content, media_type=kind)

    return Route(path, answer, methods=["GET"])
