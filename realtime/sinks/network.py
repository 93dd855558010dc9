"""Cues to a server that may be slow, absent or restarted: `mqtt://`, `nats://`, `osc://`, `lsl`.

The run hands cues to a ring and goes on; a thread connects, sends, and connects again with growing pauses,
whether the server is away or refuses what it gets. What the ring could not hold meanwhile is counted and said
at the end. What a protocol needs is a `Link`.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import re
import ssl
import threading
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar
from urllib.parse import SplitResult, parse_qs, quote, unquote, urlsplit

import numpy as np
from numpy.typing import NDArray

from liveaffect.engines import LABELS
from liveaffect.realtime.clock import MS, SECOND, MonotonicClock, epoch_ns
from liveaffect.realtime.cue import Cue
from liveaffect.realtime.errors import MissingLibrary, SinkError
from liveaffect.realtime.frame import AudioBlock, VideoFrame
from liveaffect.realtime.ring import Ring

KEPT = 600
"""Grid points that wait for a server which keeps what it gets: a minute."""
HELD = 16
"""Grid points that wait for a server: older ones are of no use to whoever follows a person."""
PAUSES_S = (0.5, 1.0, 2.0, 5.0)
PARTING_S = 10.0
"""For what still waits at the end of a run."""
_STEADY_NS = 2 * SECOND
"""Where nothing is confirmed, a connection that held for so long is one that is wanted."""
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Alert:
    """A camera is down, or back; goes where its cues go."""

    source: str
    up: bool
    message: str
    epoch_ns: int

    def to_json(self) -> dict[str, object]:
        """The wire form."""
        return {
            "v": 1,
            "source": self.source,
            "up": self.up,
            "message": self.message,
            "epoch_ns": self.epoch_ns,
        }


class LinkLost(Exception):
    """The server is not there, or not any more; it is tried again."""


class Refused(LinkLost):
    """The server is there and does not want this; tried again, too. The message says what can be done."""


class Link(Protocol):
    """One protocol; used by one thread."""

    def connect(self) -> None:
        """Raises LinkLost."""
        ...

    def send(self, cues: Sequence[Cue]) -> None:
        """Those of one grid point. Raises LinkLost, also where they may have arrived."""
        ...

    def warn(self, alert: Alert) -> None:
        """Pass it on, or leave it. Raises LinkLost."""
        ...

    def close(self) -> None:
        """Safe at any time."""
        ...


class NetworkSink:
    """Hands cues to a link from a thread of its own."""

    wants_pictures = False
    wants_sound = False

    def __init__(self, name: str, make: Callable[[], Link], *, keeps: bool = False) -> None:
        """`keeps`: the server stores what it gets, so what it has not got yet is sent again."""
        self.name = name
        self._make = make
        self._keeps = keeps
        self._cues: Ring[tuple[Cue, ...] | Alert] = Ring(KEPT if keeps else HELD)
        self._stop = threading.Event()
        self.sent = self.missed = self.breaks = 0
        """Grid points that were sent and that were lost; how often the server was not there or refused."""
        self._cursor = 0
        self._waiting: deque[tuple[Cue, ...] | Alert] = deque()
        """What was taken from the ring and not sent yet."""
        self._said: dict[type[LinkLost], LinkLost] = {}
        """What the user was told since it last went well."""
        self._clock = MonotonicClock()
        self._until_ns: int | None = None
        self._broken: Exception | None = None
        """What ended the thread, though nothing should."""
        self._thread = threading.Thread(target=self._run, name=f"sends to {name}", daemon=True)
        self._thread.start()

    def show(self, picture: NDArray[np.uint8], frame: VideoFrame) -> None:
        """Nothing to do."""

    def tell(self, cues: Sequence[Cue]) -> None:
        """Never waits."""
        if self._cues.closed:
            raise SinkError(f"{self.name} was closed")
        if self._broken is not None:
            raise SinkError(f"{self.name} failed: {type(self._broken).__name__}: {self._broken}")
        if cues:
            self._cues.push(tuple(cues))

    def warn(self, alert: Alert) -> None:
        """As `tell`, and by the same thread."""
        if not self._cues.closed:
            self._cues.push(alert)

    def hear(self, block: AudioBlock) -> None:
        """Nothing to do."""

    def close(self) -> str | None:
        """Send what waits if the server takes it soon, and say what did not reach it."""
        self._cues.close()
        if self._until_ns is None:
            self._until_ns = self._clock.now_ns() + round(PARTING_S * SECOND)
        self._stop.set()
        self._thread.join()
        self.missed += self._cues.written - self._cursor + len(self._waiting)
        self._cursor = self._cues.written
        self._waiting.clear()
        if not self.missed:
            return None
        lost = f"{self.name}: {self.missed} grid points were lost, because"
        if self._broken is not None:
            return f"{lost} sending failed: {self._broken}"
        if refused := self._said.get(Refused):
            return f"{lost} the server did not take them: {refused}"
        return f"{lost} the server was away or slow"

    def _run(self) -> None:
        try:
            self._send_until_the_end()
        except Exception as error:  # noqa: BLE001  the one place that records why this thread ended
            self._broken = error
            _LOG.error("%s failed", self.name, exc_info=error)

    def _send_until_the_end(self) -> None:
        link, attempt, connected_ns = self._make(), 0, None
        try:
            while not self._finished():
                last = self._stop.is_set()
                try:
                    if connected_ns is None:
                        link.connect()
                        connected_ns = self._clock.now_ns()
                    if self._send_all(link) and (
                        self._keeps or self._clock.now_ns() - connected_ns >= _STEADY_NS
                    ):
                        attempt = 0
                        self._said.clear()
                except LinkLost as lost:
                    self._note_break(lost)
                    link.close()
                    link = self._make()
                    self._let_go(lost, attempt, connected=connected_ns is not None)
                    connected_ns = None
                    if last:
                        break
                    self._stop.wait(PAUSES_S[min(attempt, len(PAUSES_S) - 1)])
                    attempt += 1
        finally:
            link.close()

    def _finished(self) -> bool:
        """All is sent and nothing more comes, or there was time enough for it."""
        done = self._cues.closed and self._cursor == self._cues.written and not self._waiting
        return done or self._too_late()

    def _too_late(self) -> bool:
        return self._until_ns is not None and self._clock.now_ns() > self._until_ns

    def _send_all(self, link: Link) -> bool:
        """Wait for something and send it; what was sent leaves the queue, so only the rest is sent again.

        Returns whether anything was sent. Raises LinkLost.
        """
        if not self._waiting:
            batch = self._cues.wait_since(self._cursor, 1.0)
            self.missed += batch.missed
            self._cursor = batch.cursor
            self._waiting.extend(batch.items)
        before = self.sent
        while self._waiting and not self._too_late():
            first = self._waiting[0]
            if isinstance(first, Alert):
                link.warn(first)
            else:
                link.send(first)
            self._waiting.popleft()
            self.sent += 1
        return self.sent > before

    def _let_go(self, lost: LinkLost, attempt: int, *, connected: bool) -> None:
        """Count as lost what is not sent again."""
        if not self._keeps:
            self.missed += len(self._waiting)
            self._waiting.clear()
            return
        patient = not connected or not isinstance(lost, Refused) or attempt < len(PAUSES_S)
        if not patient and self._waiting and isinstance(self._waiting[0], Alert):
            # Cues behind an alert that is refused may be welcome.
            self._waiting.popleft()
            self.missed += 1

    def _note_break(self, lost: LinkLost) -> None:
        """Say it once for each kind, until it went well again."""
        self.breaks += 1
        if type(lost) not in self._said:
            self._said[type(lost)] = lost
            _LOG.warning("%s: %s; trying again", self.name, lost)


def sent_cue(cue: Cue) -> dict[str, object]:
    """A cue as it is sent: what the documented one says, and how long ago it was made."""
    age_ms = None if cue.epoch_ns is None else max(0, epoch_ns() - cue.epoch_ns) // MS
    return {**cue.to_json(), "sent_after_ms": age_ms}


ANSWERS_WITHIN_S = 3.0
CAMERA = "{camera}"
"""Stands in an address for the name of the camera that a cue is of."""
_STATE_EVERY_NS = SECOND
T = TypeVar("T")


def subject_of(template: str, source: str, between: str) -> str:
    """Where the cues of a source go: `{camera}` is its name, in letters that no server takes for a sign."""
    camera = re.sub(r"[^A-Za-z0-9_-]", "_", source.partition(":")[2] or source)
    return template.replace("/", between).replace("{camera}", camera)


class _ClosesWhenRefused(ssl.SSLSocket):
    """paho forgets a socket whose server it does not trust, open."""

    def do_handshake(self, block: bool = False) -> None:
        try:
            super().do_handshake(block)
        except OSError:
            self.close()
            raise


class MqttLink:
    """Every cue to `liveaffect/cues`, and to Home Assistant a sensor; or to a topic for each camera only.

    Under `cues/SITE` everything is a cue of a camera: several nodes write there, and nobody expects else.
    """

    def __init__(self, where: SplitResult, port: int) -> None:
        import paho.mqtt.client as mqtt
        from paho.mqtt.enums import CallbackAPIVersion

        self._where, self._port = where, port
        path = unquote(where.path).strip("/")
        if re.search("[+#\0]", path):
            raise SinkError(f"nothing can be sent to the topic '{path}': + and # are for who listens")
        self._template = path if CAMERA in path else ""
        self._topic = path or "liveaffect"
        self._clock = MonotonicClock()
        self._told_ns = -_STATE_EVERY_NS
        self._first_ns: int | None = None
        """When something was sent first."""
        self._confirmed = False
        self._welcomed = threading.Event()
        self._refused = ""
        self._client = mqtt.Client(CallbackAPIVersion.VERSION2, reconnect_on_failure=False)
        self._client.connect_timeout = ANSWERS_WITHIN_S
        if (trusted := _trusted_by(where)) is not None:
            trusted.sslsocket_class = _ClosesWhenRefused
            self._client.tls_set_context(trusted)
        if not self._template:
            self._client.will_set(f"{self._topic}/available", "offline", retain=True)
        self._client.on_connect = self._answered
        if where.username:
            password = None if where.password is None else unquote(where.password)
            self._client.username_pw_set(unquote(where.username), password)

    def connect(self) -> None:
        """And say that there is a sensor."""
        try:
            self._client.connect(self._where.hostname or "", self._port, keepalive=10)
        except (OSError, ValueError) as error:
            raise LinkLost(f"no MQTT server answers ({error})") from error
        self._client.loop_start()
        if not self._welcomed.wait(ANSWERS_WITHIN_S):
            raise LinkLost("the MQTT server did not let us in (no answer)")
        if self._refused:
            raise Refused(f"the MQTT server did not let us in ({self._refused}): see to user and password")
        if self._template:
            return
        self._publish(f"homeassistant/sensor/{self._topic}/config", json.dumps(self._sensor()), retain=True)
        self._publish(f"{self._topic}/available", "online", retain=True)

    def send(self, cues: Sequence[Cue]) -> None:
        """All cues, and to the sensor now and then what the largest face shows."""
        for cue in cues:
            topic = subject_of(self._template, cue.source, "/") or f"{self._topic}/cues"
            # With a topic for each camera cues are records, which the server has to confirm.
            self._publish(topic, json.dumps(sent_cue(cue)), qos=1 if self._template else 0)
        now_ns = self._clock.now_ns()
        if not self._template and now_ns - self._told_ns >= _STATE_EVERY_NS:
            self._told_ns = now_ns
            self._publish(f"{self._topic}/state", json.dumps(_state(cues)))

    def warn(self, alert: Alert) -> None:
        """The newest one of each camera stays there to be read."""
        if self._template:
            topic = subject_of(_of_alerts(self._template), alert.source, "/")
            self._publish(topic, json.dumps(alert.to_json()), retain=True, qos=1)

    def close(self) -> None:
        """Leave with a word."""
        if self._client.is_connected() and not self._template:
            with contextlib.suppress(RuntimeError):  # the server went away in between
                self._client.publish(f"{self._topic}/available", "offline", retain=True).wait_for_publish(1.0)
        self._client.disconnect()
        self._client.loop_stop()

    def _answered(self, client: Any, data: Any, flags: Any, reason: Any, properties: Any) -> None:
        self._refused = str(reason) if reason.is_failure else ""
        self._welcomed.set()

    def _publish(self, topic: str, text: str, *, retain: bool = False, qos: int = 0) -> None:
        if not self._client.is_connected():
            raise self._why_gone(topic, qos)
        if self._first_ns is None:
            self._first_ns = self._clock.now_ns()
        sent = self._client.publish(topic, text, retain=retain, qos=qos)
        if sent.rc == 0 and qos:
            with contextlib.suppress(RuntimeError):  # it was not sent, which is asked next
                sent.wait_for_publish(ANSWERS_WITHIN_S)
        if sent.rc != 0 or (qos and not sent.is_published()):
            raise self._why_gone(topic, qos)
        self._confirmed = self._confirmed or qos > 0

    def _why_gone(self, topic: str, qos: int) -> LinkLost:
        """A server that forbids a topic may say so only by ending the connection at what is sent there."""
        if self._client.is_connected():
            return LinkLost(f"the MQTT server does not confirm what is sent to {topic}")
        soon_ns = 0 if self._first_ns is None else self._first_ns + round(ANSWERS_WITHIN_S * SECOND)
        at_once = self._first_ns is not None and (qos > 0 or self._clock.now_ns() < soon_ns)
        if at_once and not self._confirmed:
            return Refused(
                f"the MQTT server lets us in and ends the connection when something is sent to {topic}: "
                "allow this user to write there, or name another topic"
            )
        return LinkLost("the MQTT server went away")

    def _sensor(self) -> dict[str, Any]:
        """As Home Assistant's MQTT discovery wants it."""
        return {
            "name": "Emotion",
            "unique_id": f"{self._topic.replace('/', '_')}_emotion",
            "state_topic": f"{self._topic}/state",
            "value_template": "{{ value_json.label }}",
            "json_attributes_topic": f"{self._topic}/state",
            "availability_topic": f"{self._topic}/available",
            "expire_after": 10,
            "icon": "mdi:emoticon-outline",
            "device": {"identifiers": [self._topic], "name": self._topic, "manufacturer": "liveaffect"},
        }


class NatsLink:
    """Every cue to the subject `liveaffect.cues`, or to one for each camera.

    With a stream, JetStream stores each once: what is sent again because a confirmation was lost bears the
    same number, by which the server knows it.
    """

    def __init__(self, where: SplitResult, port: int) -> None:
        import nats
        import nats.aio.client
        import nats.errors
        import nats.js.errors

        self._nats = nats
        self._lost = (OSError, nats.errors.Error, TimeoutError)
        self._subject = unquote(where.path).strip("/").replace("/", ".") or "liveaffect.cues"
        if re.search(r"[\s*>\0]|\.\.", self._subject):
            raise SinkError(
                f"nothing can be sent to the subject '{self._subject}': * and > are for who listens"
            )
        self._stream, self._trusted = _options_of(where).get("stream", ""), _trusted_by(where)
        self._storage: Any = None
        self._url = where._replace(
            path="", query="", netloc=where.netloc if where.port else f"{where.netloc}:{port}"
        )
        self._loop = asyncio.new_event_loop()
        self._client: Any = None
        self._forbidden = ""
        """What the server said, which does not end a connection for it."""

    def connect(self) -> None:
        """Without the client's own reconnecting, which would queue."""

        async def note(error: Exception) -> None:
            if re.search("authorization|permissions", str(error), re.IGNORECASE):
                self._forbidden = str(error)

        self._client = (
            self._nats.aio.client.Client()
        )  # kept also where it is not let in, so that it is closed
        connecting = self._client.connect(
            self._url.geturl(),
            allow_reconnect=False,
            max_reconnect_attempts=1,  # without it, the first attempt alone goes on for two minutes
            reconnect_time_wait=0,
            error_cb=note,
            tls=self._trusted,
        )
        self._do(asyncio.wait_for(connecting, ANSWERS_WITHIN_S))
        if self._stream:
            self._storage = self._client.jetstream(timeout=ANSWERS_WITHIN_S)
            self._do(self._find_stream())

    def send(self, cues: Sequence[Cue]) -> None:
        """And wait until the server has them: what is not flushed would be lost without a word."""
        messages = [
            (
                subject_of(self._subject, cue.source, "."),
                sent_cue(cue),
                f"{quote(cue.source, safe='')}-{cue.epoch_ns}-{cue.track}-{cue.t_ns}",
            )
            for cue in cues
        ]
        self._do(self._send(messages))

    def warn(self, alert: Alert) -> None:
        """Beside the cues, where each camera has a subject of its own."""
        if CAMERA in self._subject:
            subject = subject_of(_of_alerts(self._subject), alert.source, ".")
            number = f"alert-{quote(alert.source, safe='')}-{alert.epoch_ns}"
            self._do(self._send([(subject, alert.to_json(), number)]))

    async def _send(self, messages: Sequence[tuple[str, dict[str, object], str]]) -> None:
        sending = []
        for subject, content, number in messages:
            payload = json.dumps(content).encode()
            if self._storage is None:
                await self._client.publish(subject, payload)
            else:
                headers = {"Nats-Msg-Id": f"{subject}-{number}"}
                sending.append(self._storage.publish(subject, payload, headers=headers))
        if self._storage is None:
            for _ in range(2):  # the client's first question may overtake what was sent before it
                await self._client.flush(timeout=ANSWERS_WITHIN_S)
            if self._forbidden:
                raise self._nats.errors.Error(self._forbidden)
        await asyncio.gather(*sending)

    async def _find_stream(self) -> None:
        """The operator's, or a plain one of ours."""
        from nats.js.errors import NotFoundError

        try:
            await self._storage.stream_info(self._stream)
        except NotFoundError:
            subjects = [one.replace(CAMERA, "*") for one in (self._subject, _of_alerts(self._subject))]
            await self._storage.add_stream(name=self._stream, subjects=sorted(set(subjects)))

    def close(self) -> None:
        """Also where nothing was ever opened."""
        if self._loop.is_closed():
            return
        if self._client is not None and not self._client.is_closed:
            with contextlib.suppress(LinkLost):  # it is closed either way
                self._do(self._client.close())
        for task in asyncio.all_tasks(self._loop):
            task.cancel()
        self._loop.run_until_complete(asyncio.sleep(0))
        self._loop.close()

    def _do(self, what: Coroutine[Any, Any, T]) -> T:
        try:
            return self._loop.run_until_complete(what)
        except self._lost as error:
            raise self._why(error) from error

    def _why(self, error: Exception) -> LinkLost:
        """Tell a server that refuses from one that is not there."""
        said = self._nats.js.errors
        if isinstance(error, said.NoStreamResponseError):
            return Refused(
                f"no stream of the NATS server stores {self._subject}: add it to the subjects of the stream "
                f"'{self._stream}', and see that JetStream is on"
            )
        if isinstance(error, said.APIError):
            do = "see to its subjects and limits, and that JetStream is on"
            if re.search("exceeded|insufficient", error.description or "", re.IGNORECASE):
                do = "make room in it, or let it discard the oldest"
            why = error.description or "JetStream does not answer"
            return Refused(f"the NATS server refuses this for the stream '{self._stream}' ({why}): {do}")
        if self._forbidden:
            return Refused(
                f"the NATS server does not permit this ({self._forbidden}): "
                "see to user, password and permissions"
            )
        return LinkLost(f"no NATS server answers ({type(error).__name__}: {error})")


def _of_alerts(template: str) -> str:
    """Alerts go beside the cues: `alerts.SITE.CAMERA` for `cues.SITE.CAMERA`."""
    return re.sub(r"^cues(?=[./])", "alerts", template)


class OscLink:
    """One message a cue, by UDP: nobody says whether it arrived."""

    def __init__(self, where: SplitResult, port: int) -> None:
        from pythonosc.udp_client import SimpleUDPClient

        self._address = where.path.rstrip("/") or "/liveaffect/cue"
        try:
            self._client: SimpleUDPClient | None = SimpleUDPClient(where.hostname or "", port)
        except OSError:
            self._client = None

    def connect(self) -> None:
        """There is nothing to connect; a name that cannot be looked up is no address."""
        if self._client is None:
            raise LinkLost("that host cannot be found")

    def send(self, cues: Sequence[Cue]) -> None:
        """Source, track (-1: nobody in view), label, confidence, t, ages in ms (-1: none), seven shares."""
        assert self._client is not None
        for cue in cues:
            track = -1 if cue.track is None else cue.track
            ages = [-1 if age is None else age for age in cue.age_ms]
            values = [cue.source, track, cue.label, float(cue.confidence), float(cue.t), *ages]
            try:
                self._client.send_message(self._address, [*values, *map(float, cue.fused)])
            except OSError as error:
                raise LinkLost(f"the network refuses ({error.strerror})") from error

    def warn(self, alert: Alert) -> None:
        """There is no message for it."""

    def close(self) -> None:
        """Let the socket go."""
        if self._client is not None:
            self._client._sock.close()


class LslLink:
    """A stream for Lab Streaming Layer, stamped with when a cue was true, not when it is sent."""

    CHANNELS = ("track", "label", "confidence", "age_face_ms", "age_voice_ms", *LABELS)
    """`label` is its place in LABELS, -1 for 'not sure'; an age of -1 means no evidence."""

    def __init__(self) -> None:
        import pylsl  # type: ignore[import-untyped]

        self._pylsl = pylsl
        info = pylsl.StreamInfo(
            "liveaffect",
            "Emotion",
            len(self.CHANNELS),
            pylsl.IRREGULAR_RATE,
            pylsl.cf_float32,
            "liveaffect-cues",
        )
        channels = info.desc().append_child("channels")
        for name in self.CHANNELS:
            channels.append_child("channel").append_child_value("label", name)
        self._info: Any = info
        self._outlet: Any = None

    def connect(self) -> None:
        """Readers find it by themselves."""
        self._outlet = self._pylsl.StreamOutlet(self._info, max_buffered=10)

    def send(self, cues: Sequence[Cue]) -> None:
        """Never waits; without a reader nothing is kept."""
        for cue in cues:
            since_s = 0.0 if cue.epoch_ns is None else (epoch_ns() - cue.epoch_ns) / SECOND
            ages = [-1.0 if age is None else float(age) for age in cue.age_ms]
            label = LABELS.index(cue.label) if cue.label in LABELS else -1
            track = -1.0 if cue.track is None else float(cue.track)
            sample = [track, float(label), float(cue.confidence), *ages, *map(float, cue.fused)]
            self._outlet.push_sample(sample, self._pylsl.local_clock() - since_s)

    def warn(self, alert: Alert) -> None:
        """There is no channel for it."""

    def close(self) -> None:
        """The stream ends for its readers."""
        self._outlet = None


def _options_of(where: SplitResult) -> dict[str, str]:
    """What stands behind the question mark of an address."""
    return {name: values[-1] for name, values in parse_qs(where.query, keep_blank_values=True).items()}


def _trusted_by(where: SplitResult) -> ssl.SSLContext | None:
    """With `ca`, the connection is encrypted and the server's certificate must be one of that file."""
    if "ca" not in (options := _options_of(where)):
        return None
    try:
        return ssl.create_default_context(cafile=options["ca"])
    except OSError as error:  # ssl.SSLError is one
        raise SinkError(
            f"the certificates of '{options['ca']}' cannot be read ({error.strerror or error}); "
            "ca names a file of PEM that the server's certificate is signed by"
        ) from error


def _state(cues: Sequence[Cue]) -> dict[str, Any]:
    """What a house wants to know: one label, and how many people."""
    people = [cue for cue in cues if cue.track is not None]
    largest = max(people or cues, key=lambda cue: 0 if cue.box is None else cue.box[2] * cue.box[3])
    return {
        "label": largest.label,
        "confidence": round(largest.confidence, 3),
        "people": len(people),
        "speaking": largest.speaking,
        "source": largest.source,
        "age_face_ms": largest.age_ms[0],
        "age_voice_ms": largest.age_ms[1],
        "t": largest.t,
    }


def open_network(name: str) -> NetworkSink:
    """The sink that a name with a scheme means. Raises SinkError or MissingLibrary."""
    if name == "lsl":
        return NetworkSink(name, _with_library(name, LslLink))
    try:
        where = urlsplit(name)
        port, host = where.port, where.hostname
    except ValueError as error:
        raise SinkError(f"'{name}' is no address: {error}") from error
    if not host:
        raise SinkError(f"'{name}' names no server; such as {where.scheme}://127.0.0.1")
    options = _options_of(where)
    kinds: dict[str, tuple[Callable[[SplitResult, int], Link], int, tuple[str, ...]]] = {
        "mqtt": (MqttLink, 8883 if "ca" in options else 1883, ("ca",)),
        "nats": (NatsLink, 4222, ("ca", "stream")),
        "osc": (OscLink, 9000, ()),
    }
    kind, usual_port, known = kinds[where.scheme]
    unknown = sorted(options.keys() - set(known))
    if where.fragment or unknown:
        what = f"#{where.fragment}" if where.fragment else f"?{unknown[0]}="
        may = f"behind '?' there may be {' and '.join(known)}" if known else "nothing may stand behind '?'"
        raise SinkError(f"{where.scheme}://{host} knows no '{what}': {may}; a # in a name is written %23")
    shown = f"{where.scheme}://{host}:{port or usual_port}{where.path}"  # without a password
    keeps = where.scheme != "osc" and (CAMERA in unquote(where.path) or "stream" in options)
    return NetworkSink(shown, _with_library(shown, lambda: kind(where, port or usual_port)), keeps=keeps)


def _with_library(name: str, make: Callable[[], Link]) -> Callable[[], Link]:
    """Refuse at once where the package is missing."""
    try:
        make().close()
    except ImportError as error:
        raise MissingLibrary(
            f"{name} needs the package that holds '{error.name}', of the extra 'outputs': "
            "uv sync --extra outputs, or pip install 'liveaffect[outputs]'"
        ) from error
    return make
