"""Who may ask this server for anything: programs and pages of this machine, or whoever knows the token.

A page from elsewhere that a browser shows here can reach loopback too. What gives it away is the `Origin` or
`Sec-Fetch-Site` that browsers add, or, where a foreign name was made to point at this machine, the `Host`.
"""

from __future__ import annotations

import hmac
import ipaddress
import socket
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from urllib.parse import parse_qs, urlsplit

from starlette.requests import HTTPConnection
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from starlette.websockets import WebSocket

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
        if origin is not None and urlsplit(origin).netloc.lower() != host.lower():
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
