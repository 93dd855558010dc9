"""Cues, drawn pictures and figures of a run, for any number of readers on the network, each at its own pace.

A reader that is slow gets the newest and is told how much it missed; the run never waits for one. Nothing is
encoded that nobody asked for.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from starlette.requests import HTTPConnection, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import BaseRoute, Route, WebSocketRoute
from starlette.types import Message, Receive, Scope, Send
from starlette.websockets import WebSocket, WebSocketDisconnect

from liveaffect.realtime.clock import SECOND, Clock, MonotonicClock
from liveaffect.realtime.cue import VERSION, Cue
from liveaffect.realtime.ring import Batch, Ring

HELD = 64
"""Grid points kept for a slow reader, six seconds of them; what is older is lost to it, and counted."""
MOST_READERS = 16
SEND_S = 5.0
"""A reader that takes nothing for so long is let go."""
JPEG_QUALITY = 85
BOUNDARY = "picture"
_STALE_S = 2.0


class PromptStream(StreamingResponse):
    """A stream whose reader is let go when it takes nothing for a while; else it would stay for ever."""

    def __init__(self, chunks: AsyncGenerator[str | bytes, None], media_type: str) -> None:
        super().__init__(chunks, media_type=media_type)
        self._chunks = chunks

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Until the stream or the patience ends."""

        async def promptly(message: Message) -> None:
            async with asyncio.timeout(SEND_S):
                await send(message)

        try:
            with contextlib.suppress(TimeoutError):
                await super().__call__(scope, receive, promptly)
        finally:
            await self._chunks.aclose()


class CueStream:
    """Told by one thread, read by many connections of one server."""

    def __init__(self, clock: Clock | None = None) -> None:
        self._clock = clock or MonotonicClock()
        self._cues: Ring[tuple[Cue, ...]] = Ring(HELD)
        self._picture: tuple[int, NDArray[np.uint8]] = (0, np.zeros((0, 0, 3), np.uint8))
        self._wanted = 0
        """How many want pictures."""
        self._readers = 0
        self._counts: Counter[str] = Counter()
        self._labels: Counter[str] = Counter()
        self._told_ns: int | None = None
        self._evidence_ms: tuple[int | None, int | None] = (None, None)
        self._changed: set[asyncio.Event] = set()
        self.wake: Callable[[Callable[[], None]], None] = lambda call: None
        """Has the server's loop call something; set by whoever starts the server."""
        self.figures: Callable[[], Mapping[str, float]] = dict
        """Further figures for `/metrics`, by name."""

    @property
    def pictures_wanted(self) -> bool:
        """Whether anybody looks."""
        return self._wanted > 0

    def tell(self, cues: Sequence[Cue]) -> None:
        """The cues of one grid point."""
        if not cues:
            return
        self._cues.push(tuple(cues))
        self._counts["cues"] += len(cues)
        self._labels.update(cue.label for cue in cues)
        self._told_ns, self._evidence_ms = self._clock.now_ns(), cues[0].age_ms
        self.wake(self._notify)

    def show(self, picture: NDArray[np.uint8]) -> None:
        """A drawn picture; the one before it is forgotten."""
        self._picture = (self._picture[0] + 1, picture)
        self._counts["pictures"] += 1
        self.wake(self._notify)

    def routes(self) -> list[BaseRoute]:
        """What is served."""
        return [
            WebSocketRoute("/cues", self._cues_by_websocket),
            Route("/cues", self._cues_as_events),
            Route("/picture", self._pictures),
            Route("/metrics", self._metrics),
            Route("/healthz", self._health),
        ]

    def _notify(self) -> None:
        for event in self._changed:
            event.set()

    async def _cues_by_websocket(self, ws: WebSocket) -> None:
        """One cue a message, as docs/cue.md describes it; what a reader missed is counted on `/metrics`."""
        if said := self._refusal(ws):
            await ws.send_denial_response(PlainTextResponse(said, 400))
            return
        await ws.accept()
        reading = asyncio.create_task(_until_it_leaves(ws))
        try:
            async with aclosing(self._batches(lambda: reading.done())) as batches:
                async for batch in batches:
                    for cue in (cue for cues in batch.items for cue in cues):
                        async with asyncio.timeout(SEND_S):
                            await ws.send_text(_line(cue))
        except (WebSocketDisconnect, TimeoutError, RuntimeError):
            pass  # it left, or takes nothing
        finally:
            reading.cancel()

    async def _cues_as_events(self, request: Request) -> Response:
        """Server-sent events: `cue` with one cue, `lost` with how many grid points this reader missed."""
        if said := self._refusal(request):
            return PlainTextResponse(said, 400)

        async def events() -> AsyncGenerator[str | bytes, None]:
            yield "retry: 1000\n\n"
            async with aclosing(self._batches(lambda: False)) as batches:
                async for batch in batches:
                    if batch.missed:
                        yield f'event: lost\ndata: {{"v":{VERSION},"grid_points":{batch.missed}}}\n\n'
                    if not batch.items:
                        yield ": nothing new\n\n"  # a reader that left is noticed by writing to it
                    for cues in batch.items:
                        yield "".join(f"event: cue\ndata: {_line(cue)}\n\n" for cue in cues)

        return PromptStream(events(), media_type="text/event-stream")

    async def _pictures(self, request: Request) -> Response:
        """The drawn picture as multipart JPEG, which an <img> shows; newest only."""
        if self._readers >= MOST_READERS:
            return PlainTextResponse(f"{MOST_READERS} readers are being served already", 503)

        async def parts() -> AsyncGenerator[str | bytes, None]:
            sent = 0
            self._wanted += 1
            try:
                async with aclosing(self._turns()) as turns:
                    async for _ in turns:
                        number, picture = self._picture
                        if number != sent and picture.size:
                            jpeg = await asyncio.to_thread(_encoded, picture)
                            head = f"--{BOUNDARY}\r\nContent-Type: image/jpeg\r\nContent-Length: {len(jpeg)}"
                            yield head.encode() + b"\r\n\r\n" + jpeg + b"\r\n"
                            sent = number
            finally:
                self._wanted -= 1

        return PromptStream(parts(), media_type=f"multipart/x-mixed-replace; boundary={BOUNDARY}")

    async def _metrics(self, request: Request) -> Response:
        """For Prometheus."""
        counts = self._counts
        lines = [
            *_metric("cues_total", "counter", "Cues that were published.", counts["cues"]),
            *_metric("pictures_total", "counter", "Drawn pictures offered to readers.", counts["pictures"]),
            *_metric("readers", "gauge", "Connections that read cues or pictures now.", self._readers),
            *_metric("missed_total", "counter", "Grid points lost to slow readers.", counts["missed"]),
        ]
        if (age_s := self._age_s()) is not None:
            lines += _metric("cue_age_seconds", "gauge", "How long ago the newest cue came.", age_s)
        for kind, ms in zip(("face", "voice"), self._evidence_ms, strict=True):
            if ms is not None:
                text = f"Age of the {kind} reading in the newest cue."
                lines += _metric(f"{kind}_age_seconds", "gauge", text, ms / 1000)
        name = "liveaffect_labels_total"
        lines += [f"# HELP {name} Cues by label.", f"# TYPE {name} counter"]
        lines += [f'{name}{{label="{label}"}} {count}' for label, count in sorted(self._labels.items())]
        for name, figure in sorted(self.figures().items()):
            lines += _metric(name, "gauge", name.replace("_", " ").capitalize() + ".", figure)
        return Response("\n".join(lines) + "\n", media_type="text/plain; version=0.0.4; charset=utf-8")

    async def _health(self, request: Request) -> Response:
        """200 while it runs; whether cues come is said beside it, because an empty room is no fault."""
        age_s = self._age_s()
        fresh = age_s is not None and age_s < _STALE_S
        return JSONResponse({"v": VERSION, "ok": True, "cues_come": fresh, "newest_cue_age_s": age_s})

    def _refusal(self, asked: HTTPConnection) -> str | None:
        if asked.query_params.get("v", str(VERSION)) != str(VERSION):
            return f"cues have version {VERSION} here (docs/cue.md)\n"
        if self._readers >= MOST_READERS:
            return f"{MOST_READERS} readers are being served already\n"
        return None

    async def _batches(self, is_over: Callable[[], bool]) -> AsyncGenerator[Batch[tuple[Cue, ...]], None]:
        """What is told from now on; an empty batch every second in which nothing is."""
        cursor = self._cues.written
        async with aclosing(self._turns()) as turns:
            async for _ in turns:
                batch = self._cues.read_since(cursor)
                cursor = batch.cursor
                self._counts["missed"] += batch.missed
                if is_over():
                    return
                yield batch

    async def _turns(self) -> AsyncGenerator[None, None]:
        """Whenever something is new, and every second."""
        event = asyncio.Event()
        self._changed.add(event)
        self._readers += 1
        try:
            while True:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(1.0):
                        await event.wait()
                event.clear()
                yield
        finally:
            self._readers -= 1
            self._changed.discard(event)

    def _age_s(self) -> float | None:
        told_ns = self._told_ns
        return None if told_ns is None else round((self._clock.now_ns() - told_ns) / SECOND, 3)


async def _until_it_leaves(ws: WebSocket) -> None:
    """A reader says nothing; whatever it says is passed over."""
    while (await ws.receive())["type"] != "websocket.disconnect":
        pass


def _line(cue: Cue) -> str:
    return json.dumps(cue.to_json(), separators=(",", ":"), allow_nan=False)


def _encoded(picture: NDArray[np.uint8]) -> bytes:
    out = io.BytesIO()
    Image.fromarray(picture).save(out, "JPEG", quality=JPEG_QUALITY)
    return out.getvalue()


def _metric(name: str, kind: str, text: str, figure: float) -> list[str]:
    full = f"liveaffect_{name}"
    return [f"# HELP {full} {text}", f"# TYPE {full} {kind}", f"{full} {figure:g}"]
