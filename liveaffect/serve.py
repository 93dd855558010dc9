"""`liveaffect serve`: pictures and sound of a page in, answers out, over one WebSocket a page.

A session has an `Analyzer` of its own, so two pages share nothing. What comes too fast is overtaken by newer
pictures, what the page does not take is replaced by the newest answer, and whoever breaks the rules below is
told so and closed. Nothing that comes in is kept. docs/video-calls.md is for the person at the page.

The page speaks first, one JSON object: {"v":1,"pictures":true,"sound":true}. Then binary messages: one byte
of kind (1: a JPEG, 2: PCM, mono int16), three of nothing, a uint32 (number of the picture, or samples a
second), a float64 (when it was captured, in seconds of the page), all little endian, then the content.
"""

from __future__ import annotations

import asyncio
import dataclasses
import io
import json
import math
import struct
import threading
from collections import Counter, deque
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from liveaffect.analyzer import Analyzer, PictureAnswer
from liveaffect.engines.protocol import EngineError
from liveaffect.realtime.clock import SECOND, MonotonicClock
from liveaffect.realtime.cue import Cue
from liveaffect.realtime.errors import InputRefused, RealtimeError
from liveaffect.realtime.web.cue_stream import CueStream
from liveaffect.realtime.web.server import Access, WebServer
from liveaffect.settings import Settings

VERSION = 1
HEAD = struct.Struct("<B3xId")
PICTURE, SOUND = 1, 2
HELLO_S = 5.0
IDLE_S = 15.0
"""A page that sends nothing for so long has stopped without saying so."""
SEND_S = 5.0
AHEAD_S = 5.0
"""Times of a page run no further ahead of ours; an hour at once would be analysed for minutes."""
MOST_SIDE_PX = 2560
MOST_SOUND_BYTES = 64_000
MOST_A_SECOND = {PICTURE: 90, SOUND: 250}
CUES_HELD = 64
HEALTH_S = 1.0
BAD, FAST, FULL, SLOW, FAILED = 4400, 4408, 4429, 4410, 4500
"""Codes with which a session is closed; the text beside them is for the person at the page."""

MakeAnalyzer = Callable[..., Analyzer]
Say = Callable[[str], None]
MOST_PAGES = 2
PAGES = {"/": "index.html", "/overlay": "overlay.html"}


class Closed(Exception):
    """The session ends, with a code and words for the page."""

    def __init__(self, code: int, words: str) -> None:
        super().__init__(words)
        self.code = code


@dataclasses.dataclass(slots=True)
class PageLedger:
    """What became of the pictures of one session: received = analysed + lost + in flight."""

    received: int = 0
    answered: int = 0
    samples: int = 0
    answers_replaced: int = 0
    """Answers that a newer one overtook, because the page was slow."""
    cues_lost: int = 0
    losses: Mapping[str, int] = dataclasses.field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """For the page and for `/metrics`."""
        return {
            "received": self.received,
            "answered": self.answered,
            "samples": self.samples,
            "answers_replaced": self.answers_replaced,
            "cues_lost": self.cues_lost,
            "losses": dict(self.losses),
        }


class Outbox:
    """What waits for the page: the newest answer, some grid points, the health. One event loop."""

    def __init__(self, ledger: PageLedger) -> None:
        self._ledger = ledger
        self._answer: str | None = None
        self._cues: deque[str] = deque()
        self._words: deque[str] = deque(maxlen=4)
        self._fresh = asyncio.Event()

    def put_answer(self, text: str) -> None:
        """Replaces the one that was not fetched."""
        self._ledger.answered += 1
        self._ledger.answers_replaced += self._answer is not None
        self._answer = text
        self._fresh.set()

    def put_cues(self, text: str) -> None:
        """The oldest goes when too many wait."""
        if len(self._cues) >= CUES_HELD:
            self._cues.popleft()
            self._ledger.cues_lost += 1
        self._cues.append(text)
        self._fresh.set()

    def put(self, message: Mapping[str, Any]) -> None:
        """Anything else."""
        self._words.append(json.dumps(message))
        self._fresh.set()

    async def send_all(self, ws: WebSocket) -> None:
        """Until cancelled; raises Closed when the page takes nothing."""
        while True:
            await self._fresh.wait()
            self._fresh.clear()
            answer, self._answer = self._answer, None
            waiting = [*self._words, *self._cues, *([] if answer is None else [answer])]
            self._words.clear()
            self._cues.clear()
            for text in waiting:
                try:
                    # Not wait_for, which in Python 3.11 can swallow the cancellation of this task.
                    async with asyncio.timeout(SEND_S):
                        await ws.send_text(text)
                except TimeoutError:
                    raise Closed(SLOW, "the page took no answer for five seconds") from None


class Sessions:
    """Those there are; a page too many is told so. One event loop."""

    def __init__(
        self, most: int, make: MakeAnalyzer, publish: Callable[[tuple[Cue, ...]], None] = lambda cues: None
    ) -> None:
        self._most = most
        self._make = make
        self._publish = publish
        self._clock = MonotonicClock()
        self._numbers = 0
        self.ledgers: dict[int, PageLedger] = {}
        """Of the sessions that run, by number."""

    async def serve(self, ws: WebSocket) -> None:
        """One session from its first word to its end."""
        await ws.accept()
        try:
            if len(self.ledgers) >= self._most:
                raise Closed(
                    FULL, f"{self._most} pages are analysed already, which is all. Close one of them"
                )
            self._numbers += 1
            number, ledger = self._numbers, PageLedger()
            self.ledgers[number] = ledger
            try:
                await self._run(ws, f"page:{number}", ledger)
            finally:
                del self.ledgers[number]
        except Closed as end:
            await _close(ws, end.code, str(end))
        except InputRefused as refused:
            await _close(ws, BAD, str(refused))
        except (RealtimeError, EngineError) as failure:
            await _close(ws, FAILED, str(failure))
        except (WebSocketDisconnect, RuntimeError):
            pass  # it left, perhaps while it was being answered

    async def _run(self, ws: WebSocket, name: str, ledger: PageLedger) -> None:
        wants = await _hello(ws)
        loop, outbox = asyncio.get_running_loop(), Outbox(ledger)
        outbox.put({"kind": "loading", "v": VERSION})
        analyzer = await _loaded(lambda: self._make(**wants))

        def answered(answer: PictureAnswer) -> None:
            # The page may be gone, and with it the loop.
            if not loop.is_closed():
                loop.call_soon_threadsafe(outbox.put_answer, _answer_text(answer, name))

        analyzer.on_picture = answered
        working = [
            asyncio.create_task(outbox.send_all(ws)),
            asyncio.create_task(self._receive(ws, analyzer, ledger)),
            asyncio.create_task(self._hand_on(analyzer, outbox, name, ledger)),
        ]
        try:
            outbox.put({"kind": "ready", "v": VERSION, "name": name, "engine": analyzer.engine})
            done, _ = await asyncio.wait(working, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            for task in working:
                task.cancel()
            await asyncio.gather(*working, return_exceptions=True)
            await asyncio.to_thread(analyzer.close)

    async def _receive(self, ws: WebSocket, analyzer: Analyzer, ledger: PageLedger) -> None:
        """Take what comes until the page leaves; backpressure is that of the connection."""
        counts: Counter[int] = Counter()
        second, zero_s = 0, math.nan
        while True:
            try:
                async with asyncio.timeout(IDLE_S):
                    message = await ws.receive()
            except TimeoutError:
                raise Closed(SLOW, f"nothing came from the page for {IDLE_S:.0f} seconds") from None
            if message["type"] == "websocket.disconnect":
                return
            kind, number, t, content = parsed(message.get("bytes"))
            now_s = self._clock.now_ns() / SECOND
            zero_s = now_s - t if math.isnan(zero_s) else zero_s
            if t > now_s - zero_s + AHEAD_S:
                raise Closed(SLOW, f"a time {t - now_s + zero_s:.0f} s ahead of what has passed")
            if int(now_s) != second:
                second, counts = int(now_s), Counter()
            counts[kind] += 1
            if counts[kind] > MOST_A_SECOND[kind]:
                raise Closed(FAST, f"more than {MOST_A_SECOND[kind]} messages of one kind in a second")
            if kind == PICTURE:
                ledger.received += 1
                await asyncio.to_thread(_push_picture, analyzer, content, t)
            else:
                ledger.samples += len(content) // 2
                analyzer.push_sound(np.frombuffer(content, "<i2"), t, number)

    async def _hand_on(self, analyzer: Analyzer, outbox: Outbox, name: str, ledger: PageLedger) -> None:
        """Cues of the grid to the page and to `/cues`, and once a second how the session is doing."""
        said_ns = 0
        while True:
            await asyncio.sleep(0.05)
            cues = tuple(_named(cue, name) for cue in analyzer.cues())
            if cues:
                outbox.put_cues(json.dumps({"kind": "cues", "cues": [cue.to_json() for cue in cues]}))
                self._publish(cues)
            if self._clock.now_ns() - said_ns >= HEALTH_S * SECOND:
                said_ns = self._clock.now_ns()
                ledger.losses = analyzer.losses
                outbox.put({"kind": "health", **ledger.to_json()})


def parsed(message: bytes | None) -> tuple[int, int, float, bytes]:
    """Kind, number, time and content of a binary message. Raises Closed."""
    if message is None:
        raise Closed(BAD, "after the first message, pictures and sound are expected, which are binary")
    if len(message) < HEAD.size:
        raise Closed(BAD, f"a message of {len(message)} bytes is shorter than its head")
    kind, number, t = HEAD.unpack_from(message)
    content = message[HEAD.size :]
    if kind not in MOST_A_SECOND:
        raise Closed(BAD, f"a message of kind {kind}; there are pictures ({PICTURE}) and sound ({SOUND})")
    if kind == SOUND and (len(content) % 2 or len(content) > MOST_SOUND_BYTES):
        raise Closed(
            BAD, f"{len(content)} bytes of sound; it is int16, at most {MOST_SOUND_BYTES} bytes at once"
        )
    return kind, number, t, content


def decoded(jpeg: bytes) -> NDArray[np.uint8]:
    """The picture in RGB. Raises Closed for anything that is not a whole JPEG of a sensible size."""
    try:
        with Image.open(io.BytesIO(jpeg), formats=["JPEG"]) as image:
            if max(image.size) > MOST_SIDE_PX:  # asked of the head, before anything is unpacked
                raise Closed(BAD, f"a picture of {image.width}x{image.height}; at most {MOST_SIDE_PX} a side")
            return np.asarray(image.convert("RGB"))
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise Closed(BAD, f"a picture that is no JPEG: {error}") from error


def _push_picture(analyzer: Analyzer, jpeg: bytes, t: float) -> None:
    analyzer.push_frame(decoded(jpeg), t)


async def _hello(ws: WebSocket) -> dict[str, bool]:
    try:
        async with asyncio.timeout(HELLO_S):
            first = await ws.receive()
    except TimeoutError:
        raise Closed(SLOW, f"the page said nothing within {HELLO_S:.0f} seconds") from None
    if first["type"] == "websocket.disconnect":
        raise WebSocketDisconnect
    try:
        said = json.loads(first.get("text") or "")
        version, pictures, sound = said["v"], said["pictures"], said["sound"]
    except (ValueError, KeyError, TypeError, RecursionError):
        raise Closed(BAD, 'the first message is {"v":1,"pictures":true,"sound":true}') from None
    if version != VERSION:
        raise Closed(BAD, f"this page speaks version {version!r:.20}, the program {VERSION}: reload the page")
    if not (isinstance(pictures, bool) and isinstance(sound, bool) and (pictures or sound)):
        raise Closed(BAD, "pictures and sound are true or false, and one of them is true")
    return {"pictures": pictures, "sound": sound}


async def _loaded(make: Callable[[], Analyzer]) -> Analyzer:
    """In a thread, because loading takes a second; closed again if the page leaves meanwhile."""
    making = asyncio.ensure_future(asyncio.to_thread(make))

    def close(made: asyncio.Future[Analyzer]) -> None:
        if made.exception() is None:
            made.result().close()

    try:
        return await asyncio.shield(making)
    except asyncio.CancelledError:
        making.add_done_callback(close)
        raise


def _named(cue: Cue, name: str) -> Cue:
    return dataclasses.replace(cue, source=name)


def _answer_text(answer: PictureAnswer, name: str) -> str:
    faces = [
        {
            "track": face.track,
            "box": [round(side, 1) for side in face.box],
            "velocity": [round(part, 1) for part in face.velocity],
        }
        for face in answer.faces
    ]
    cues = [_named(cue, name).to_json() for cue in answer.cues]
    said = {"kind": "answer", "t": round(answer.t, 6), "size": answer.size, "faces": faces, "cues": cues}
    return json.dumps({**said, "level": round(answer.level, 3)}, separators=(",", ":"))


async def _close(ws: WebSocket, code: int, words: str) -> None:
    """Say why, then close; a page that does not listen is left to the server."""
    try:
        text = json.dumps({"kind": "closed", "v": VERSION, "code": code, "words": words})
        async with asyncio.timeout(1.0):
            await ws.send_text(text)
            await ws.close(code)
    except (WebSocketDisconnect, RuntimeError, TimeoutError):
        pass


class Served:
    """The running server; a context, so that it ends with its block."""

    def __init__(self, settings: Settings, make: Callable[..., Analyzer] = Analyzer) -> None:
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
