"""The server of the page lets in this machine or who knows the token, and outlives whatever it is sent."""

from __future__ import annotations

import contextlib
import http.client
import io
import json
import logging
import math
import socket
import struct
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect
from websockets.typing import Origin

from liveaffect import Analyzer, Settings
from liveaffect.realtime.blazeface import Found
from liveaffect.realtime.errors import SettingsError, SinkError
from liveaffect.realtime.sinks.web import WebSink
from liveaffect.realtime.testing.virtual_time import constant_networks
from liveaffect.realtime.web.server import MOST_MESSAGE_BYTES, Access
from liveaffect.realtime.wiring import Tools
from liveaffect.serve import (
    HEAD,
    MOST_A_SECOND,
    MOST_PAGES,
    PICTURE,
    SOUND,
    Closed,
    Served,
    decoded,
    parsed,
)

TOKEN = "a-secret-of-thirty-two-characters"
HELLO = json.dumps({"v": 1, "pictures": True, "sound": False})


def jpeg(width: int = 320, height: int = 240) -> bytes:
    out = io.BytesIO()
    Image.fromarray(np.full((height, width, 3), 90, np.uint8)).save(out, "JPEG")
    return out.getvalue()


def picture(t: float, content: bytes | None = None) -> bytes:
    return HEAD.pack(PICTURE, 0, t) + (jpeg() if content is None else content)


class Nobody:
    """Finds no face."""

    def find(self, image: NDArray[np.uint8]) -> list[Found]:
        return []


@dataclass
class Page:
    """What a test talks to."""

    served: Served

    @property
    def at(self) -> str:
        return f"127.0.0.1:{self.served.server.port}"

    @contextlib.contextmanager
    def session(self, hello: str | None = HELLO, **more: Any) -> Iterator[ClientConnection]:
        with connect(f"ws://{self.at}/session", **more) as ws:
            if hello is not None:
                ws.send(hello)
            yield ws

    def ready(self, ws: ClientConnection) -> None:
        until(lambda: message(ws)["kind"] == "ready")

    def get(self, path: str, **headers: str) -> http.client.HTTPResponse:
        """The head of the answer; what comes after it is not waited for."""
        with contextlib.closing(http.client.HTTPConnection(self.at, timeout=10)) as link:
            link.request(
                "GET", path, headers={name.replace("_", "-"): text for name, text in headers.items()}
            )
            with link.getresponse() as answer:
                return answer

    def sessions(self) -> int:
        return len(self.served.sessions.ledgers)


def message(ws: ClientConnection) -> dict[str, Any]:
    said: dict[str, Any] = json.loads(ws.recv(timeout=20))
    return said


def until(holds: Callable[[], bool], seconds: float = 20.0) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "it did not come to that"
        time.sleep(0.01)


def last_words(ws: ClientConnection) -> tuple[int, str]:
    """With what a session is closed."""
    words = ""
    with contextlib.suppress(ConnectionClosed):
        while True:
            said = message(ws)
            words = said["words"] if said["kind"] == "closed" else words
    assert ws.close_code is not None
    return ws.close_code, words


@pytest.fixture(autouse=True)
def quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    """Networks that know nothing, so that what is tested is the server."""
    tools = Tools(constant_networks(), lambda: (Nobody(), Nobody()))
    monkeypatch.setattr(Settings, "load_tools", lambda self, say, live: tools)


@pytest.fixture
def page() -> Iterator[Page]:
    """A server; whoever connected has left when it ends."""
    with Served(Settings(port=0)) as served:
        yield Page(served)
        until(lambda: not served.sessions.ledgers)


@pytest.fixture
def locked() -> Iterator[Page]:
    """With a token."""
    with Served(Settings(port=0, token=TOKEN)) as served:
        yield Page(served)


# What it is for.


def test_a_picture_gets_the_answer_that_belongs_to_it(page: Page) -> None:
    with page.session() as ws:
        page.ready(ws)
        ws.send(picture(12.25))
        until(lambda: (said := message(ws))["kind"] == "answer" and said["t"] == 12.25)


def test_what_was_received_is_answered_lost_by_cause_or_in_flight(page: Page) -> None:
    with page.session() as ws:
        page.ready(ws)
        for k in range(40):
            ws.send(picture(k / 30))
        (ledger,) = page.served.sessions.ledgers.values()
        until(lambda: ledger.received == 40 and ledger.answered + sum(ledger.losses.values()) == 40)


def test_two_pages_share_nothing_and_a_third_is_told(page: Page) -> None:
    with page.session() as one, page.session() as two:
        page.ready(one)
        page.ready(two)
        one.send(picture(3.0))
        until(lambda: message(one)["kind"] == "answer")
        two.send(picture(1.0))  # would go back in time, if they shared anything
        until(lambda: (said := message(two))["kind"] == "answer" and said["t"] == 1.0)
        with page.session(None) as three:
            code, words = last_words(three)
        assert code == 4429
        assert str(MOST_PAGES) in words
        one.send(picture(4.0))
        until(lambda: (said := message(one))["kind"] == "answer" and said["t"] == 4.0)


def test_a_page_that_is_killed_frees_its_place_within_seconds_and_the_other_goes_on(page: Page) -> None:
    with page.session() as other:
        page.ready(other)
        with page.session() as ws:
            page.ready(ws)
            ws.socket.shutdown(socket.SHUT_RDWR)
            until(lambda: page.sessions() == 1, 6.0)
        other.send(picture(1.0))
        until(lambda: message(other)["kind"] == "answer")


def test_sound_alone_is_analysed_too(page: Page) -> None:
    with page.session(json.dumps({"v": 1, "pictures": False, "sound": True})) as ws:
        page.ready(ws)
        for k in range(20):
            ws.send(HEAD.pack(SOUND, 48_000, k / 50) + bytes(2 * 960))
        (ledger,) = page.served.sessions.ledgers.values()
        until(lambda: ledger.samples == 20 * 960)


# One attack for each line of defence.


def test_a_foreign_name_that_points_here_is_turned_away(page: Page) -> None:
    for path in ("/", "/cues", "/metrics", "/picture", "/healthz"):
        assert page.get(path, Host="evil.example:8765").status == 403, path
    assert page.get("/", Host=f"localhost:{page.served.server.port}").status == 200


@pytest.mark.parametrize("path", ["/session", "/cues"])
def test_a_page_of_another_origin_cannot_connect(page: Page, path: str) -> None:
    for origin in ("https://evil.example", "http://127.0.0.1:1", "null"):
        with pytest.raises(InvalidStatus) as refused, connect(f"ws://{page.at}{path}", origin=Origin(origin)):
            pass
        assert refused.value.response.status_code == 403


def test_an_origin_that_is_no_address_is_one_of_another(page: Page) -> None:
    assert page.get("/cues", Origin="http://[").status == 403


def test_another_page_can_load_neither_pictures_nor_cues_as_if_they_were_its_own(page: Page) -> None:
    for path in ("/picture", "/cues", "/metrics", "/page/page.js"):
        assert page.get(path, Sec_Fetch_Site="cross-site", Sec_Fetch_Mode="no-cors").status == 403, path
        assert page.get(path, Sec_Fetch_Site="same-site", Sec_Fetch_Mode="cors").status == 403, path
    visit = {"Sec_Fetch_Site": "cross-site", "Sec_Fetch_Mode": "navigate", "Sec_Fetch_Dest": "document"}
    assert page.get("/", **visit).status == 200
    assert page.get("/metrics", **visit).status == 403


def test_nothing_foreign_may_be_loaded_and_nobody_may_frame_it(page: Page) -> None:
    for path in ("/", "/overlay", "/page/page.js", "/healthz", "/nothing"):
        answer = page.get(path)
        policy = answer.headers["Content-Security-Policy"]
        assert {"default-src 'none'", "frame-ancestors 'none'"} <= set(policy.split("; ")), path
        assert not [word for word in ("unsafe", "http:", "*") if word in policy]
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert answer.headers["Cache-Control"] == "no-store"


def test_only_its_own_files_are_served(page: Page) -> None:
    for path in (
        "/page/../server.py",
        "/page/%2e%2e/server.py",
        "/page//etc/passwd",
        "/page/",
        "/page/guard.py",
    ):
        assert page.get(path).status == 404, path


def test_other_machines_are_served_with_a_token_only() -> None:
    with pytest.raises(SettingsError, match="--token"):
        Served(Settings(port=0, host="0.0.0.0"))
    with pytest.raises(SettingsError, match="at least 16"):
        Served(Settings(port=0, host="0.0.0.0", token="short"))


def test_without_the_token_there_is_nothing_but_the_empty_page(locked: Page) -> None:
    for path in ("/cues", "/metrics", "/picture", "/healthz", "/metrics?token=", f"/metrics?token={TOKEN}x"):
        assert locked.get(path).status == 403, path
    assert locked.get("/").status == 200
    with pytest.raises(InvalidStatus), connect(f"ws://{locked.at}/session"):
        pass
    with connect(f"ws://{locked.at}/session?token={TOKEN}") as ws:
        ws.send(HELLO)
        locked.ready(ws)
    assert locked.get("/metrics", Authorization=f"Bearer {TOKEN}").status == 200


def test_a_token_is_compared_in_constant_time(locked: Page, monkeypatch: pytest.MonkeyPatch) -> None:
    compared = []

    def note(given: bytes, wanted: bytes) -> bool:
        compared.append((given, wanted))
        return given == wanted

    monkeypatch.setattr("hmac.compare_digest", note)
    assert locked.get("/metrics?token=wrong").status == 403
    assert compared == [(b"wrong", TOKEN.encode())]


def test_a_token_is_never_logged(locked: Page, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        locked.get(f"/metrics?token={TOKEN}")
        locked.get(f"/nothing?token={TOKEN}")
        with pytest.raises(InvalidStatus), connect(f"ws://{locked.at}/session?token={TOKEN}x"):
            pass
    # The test's own client logs what it sends; the server must not.
    assert not [r for r in caplog.records if TOKEN in r.getMessage() and "client" not in r.name]
    assert TOKEN not in repr(Settings(token=TOKEN))


def test_a_message_that_is_too_large_ends_the_session(page: Page) -> None:
    with page.session() as ws:
        page.ready(ws)
        # In parts, the last of them one too many: where much is still unread, the system cuts the line.
        whole = picture(0.0, bytes(MOST_MESSAGE_BYTES))
        ws.send([whole[:-1_000], whole[-1_000:]])
        assert last_words(ws)[0] == 1009
    until(lambda: page.sessions() == 0)


def test_a_small_file_that_would_unpack_to_a_huge_picture_is_not_unpacked(page: Page) -> None:
    bomb = bytearray(jpeg())
    at = bomb.index(b"\xff\xc0") + 5
    bomb[at : at + 4] = struct.pack(">HH", 5_000, 5_000)
    with page.session() as ws:
        page.ready(ws)
        ws.send(picture(0.0, bytes(bomb)))
        code, words = last_words(ws)
    assert code == 4400
    assert "5000x5000" in words


def test_a_flood_is_cut_off(page: Page, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(MOST_A_SECOND, SOUND, 5)
    with page.session(json.dumps({"v": 1, "pictures": False, "sound": True})) as ws:
        page.ready(ws)
        with contextlib.suppress(ConnectionClosed):
            for k in range(200):
                ws.send(HEAD.pack(SOUND, 16_000, k / 100) + bytes(320))
        assert last_words(ws)[0] == 4408


def test_who_says_nothing_is_let_go(page: Page, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("liveaffect.serve.HELLO_S", 0.2)
    monkeypatch.setattr("liveaffect.serve.IDLE_S", 0.2)
    with page.session(None) as ws:
        assert last_words(ws)[0] == 4410
    with page.session() as ws:
        assert last_words(ws)[0] == 4410


@pytest.mark.slow
def test_a_peer_that_answers_no_ping_is_given_up_within_seconds(page: Page) -> None:
    link = socket.create_connection(("127.0.0.1", page.served.server.port))
    ask = f"GET /session HTTP/1.1\r\nHost: {page.at}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    link.sendall(
        (ask + "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n").encode()
    )
    hello = bytes([0x81, 0x80 | len(HELLO), 0, 0, 0, 0]) + HELLO.encode()
    link.sendall(hello)
    until(lambda: page.sessions() == 1)
    until(lambda: page.sessions() == 0, 25.0)
    link.close()


def test_silent_connections_do_not_use_up_the_server(page: Page, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("liveaffect.realtime.web.server.REQUEST_S", 0.3)
    links = [socket.create_connection(("127.0.0.1", page.served.server.port)) for _ in range(80)]
    time.sleep(0.5)
    until(lambda: page.get("/healthz").status == 200, 5.0)
    for link in links:
        link.close()


MESSAGES = st.one_of(
    st.binary(max_size=64),
    st.builds(HEAD.pack, st.integers(0, 255), st.integers(0, 2**32 - 1), st.floats()),
    st.builds(lambda t, junk: HEAD.pack(PICTURE, 0, t) + junk, st.floats(), st.binary(max_size=64)),
    st.builds(lambda r, junk: HEAD.pack(SOUND, r, 0.0) + junk, st.integers(0, 10**9), st.binary(max_size=64)),
    st.integers(2, 600).map(lambda cut: picture(0.0, jpeg()[:cut])),
    st.text(max_size=40),
)


HELLOS = st.one_of(st.just(HELLO), st.text(max_size=40), st.just("[" * 5000))


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(hello=HELLOS, sent=st.lists(MESSAGES, max_size=4))
def test_no_message_is_a_crash(page: Page, hello: str, sent: list[bytes | str]) -> None:
    """Whatever is sent, it ends with a word of ours; nothing fails inside and nothing is left over."""
    with page.session(hello) as ws:
        with contextlib.suppress(ConnectionClosed):
            for each in sent:
                ws.send(each)
            ws.send("this is not binary, and ends it")
        code, words = last_words(ws)
    assert code in (4400, 4410), words
    assert words
    until(lambda: page.sessions() == 0)


@given(st.binary(max_size=200))
def test_bytes_that_are_no_message_are_refused_in_words(content: bytes) -> None:
    with contextlib.suppress(Closed):
        kind, _, t, rest = parsed(content)
        assert kind in (PICTURE, SOUND), t
        with pytest.raises(Closed, match="no JPEG"):
            decoded(rest)


def test_a_time_far_ahead_is_not_analysed_up_to(page: Page) -> None:
    with page.session() as ws:
        page.ready(ws)
        ws.send(picture(0.0))
        ws.send(picture(3_000.0))
        code, words = last_words(ws)
    assert (code, "ahead" in words) == (4410, True)
    until(lambda: page.sessions() == 0, 5.0)


def test_times_that_are_none_are_refused(page: Page) -> None:
    for t in (math.nan, math.inf, -1e300):
        with page.session() as ws:
            page.ready(ws)
            ws.send(picture(t))
            assert last_words(ws)[0] == 4400


def test_networks_that_cannot_be_loaded_are_said_on_the_page() -> None:
    def broken(**wants: Any) -> Analyzer:
        raise SettingsError("there is no such engine here")

    with Served(Settings(port=0), broken) as served, Page(served).session() as ws:
        code, words = last_words(ws)
    assert (code, words) == (4500, "there is no such engine here")


def test_a_port_that_is_taken_is_an_error_with_a_way_out(page: Page) -> None:
    with pytest.raises(SettingsError, match="choose one with --port"):
        Served(Settings(port=page.served.server.port))


def test_a_sink_whose_port_is_taken_names_the_sink_and_where_its_port_is_chosen(page: Page) -> None:
    address = f"ws://127.0.0.1:{page.served.server.port}"
    with pytest.raises(SinkError, match=f"{address}: cannot listen .*in the address of the sink"):
        WebSink(address)


def test_no_file_is_written_by_a_session(page: Page, tmp_path_factory: pytest.TempPathFactory) -> None:
    opened: list[str] = []

    def audit(event: str, arguments: tuple[Any, ...]) -> None:
        if watching and event == "open" and isinstance(arguments[1], str) and set(arguments[1]) & set("wax+"):
            opened.append(str(arguments[0]))

    watching = True
    sys.addaudithook(audit)
    with page.session() as ws:
        page.ready(ws)
        for k in range(5):
            ws.send(picture(k / 10))
        until(lambda: message(ws)["kind"] == "answer")
    watching = False
    assert opened == []


def test_access_knows_whom_it_answers() -> None:
    local, remote = Access(), Access("0.0.0.0", TOKEN)
    told = {"host": "192.168.1.7:8765", "authorization": f"Bearer {TOKEN}"}
    assert local.refusal("http", "/cues", {"host": "[::1]:8765"}, "") is None
    assert local.refusal("http", "/cues", {"host": "192.168.1.7:8765"}, "") is not None
    assert local.refusal("http", "/cues", {}, "") is not None
    assert remote.refusal("http", "/cues", told, "") is None
    assert remote.refusal("http", "/cues", {**told, "host": "evil.example"}, "") is not None
    assert replace(remote, open_paths=frozenset("/")).refusal("http", "/", {"host": "10.0.0.1"}, "") is None
