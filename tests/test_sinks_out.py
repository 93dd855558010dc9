"""Cues reach real clients of each protocol; a server that is absent, slow or killed disturbs nothing."""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
import socket
import subprocess
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import jsonschema
import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families
from websockets.sync.client import connect

from liveaffect.engines import LABELS
from liveaffect.realtime.clock import MS, epoch_ns
from liveaffect.realtime.cue import Cue
from liveaffect.realtime.errors import SinkError
from liveaffect.realtime.sinks import Outputs, OwnScreen
from liveaffect.realtime.sinks.catalogue import open_sink
from liveaffect.realtime.sinks.network import HELD, Alert, LinkLost, MqttLink, NetworkSink, open_network
from liveaffect.realtime.sinks.video_file import VideoFile
from liveaffect.realtime.sinks.web import WebSink
from liveaffect.realtime.testing.contracts import check_sink
from liveaffect.realtime.testing.real_triton import make_certificate
from liveaffect.realtime.testing.scenes import background, cue, frame

SCHEMA = (Path(__file__).resolve().parent.parent / "docs" / "cue.md").read_text("utf-8")
SCHEMA = SCHEMA.split("## Schema\n\n```json\n")[1].split("```")[0]
Ready = Callable[[], bool]


def until(holds: Ready, seconds: float = 20.0) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "it did not come to that"
        time.sleep(0.01)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as found:
        port: int = found.getsockname()[1]
        return port


def answers(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 0.2):
        return True
    return False


@contextmanager
def server(program: str, *arguments: str, port: int) -> Iterator[None]:
    """A real one, for as long as the block lasts."""
    path = shutil.which(program, path="/usr/sbin:/usr/bin:/usr/local/bin:/bin")
    if path is None:
        pytest.skip(f"needs the package {program}, which .ci/run installs")
    with subprocess.Popen([path, *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as run:
        try:
            until(lambda: answers(port))
            yield
        finally:
            run.kill()


@contextmanager
def told(sink: NetworkSink | WebSink) -> Iterator[NetworkSink | WebSink]:
    """A sink that is told a cue every 10 ms, as a run would."""
    over = threading.Event()

    def tell() -> None:
        t_ns = 0
        while not over.wait(0.01):
            t_ns += 100 * MS
            sink.tell([replace(cue("happy", t_ns=t_ns), epoch_ns=epoch_ns())])

    teller = threading.Thread(target=tell)
    teller.start()
    try:
        yield sink
    finally:
        over.set()
        teller.join()
        sink.close()


@pytest.mark.parametrize(
    "name", ["ws://127.0.0.1:0", "mqtt://127.0.0.1:9", "nats://127.0.0.1:9", "osc://127.0.0.1", "lsl"]
)
def test_every_output_keeps_the_contract_also_where_nobody_answers(name: str) -> None:
    check_sink(lambda: open_sink(name))


@pytest.mark.parametrize(
    "name", ["mqtt://", "nats://:x", "osc://127.0.0.1:99999999", "ftp://127.0.0.1", "ws://10.0.0.1:0"]
)
def test_an_address_that_means_nothing_is_refused_in_words(name: str) -> None:
    with pytest.raises(SinkError, match=name.partition(":")[0]):
        open_sink(name)


# Our own server.


@pytest.fixture
def web() -> Iterator[WebSink]:
    with told(WebSink("ws://127.0.0.1:0")) as sink:
        assert isinstance(sink, WebSink)
        yield sink


def test_a_websocket_reads_the_documented_cue(web: WebSink) -> None:
    with connect(f"ws://127.0.0.1:{web.port}/cues") as ws:
        for _ in range(3):
            jsonschema.validate(json.loads(ws.recv(timeout=10)), json.loads(SCHEMA))


def test_server_sent_events_carry_the_same(web: WebSink) -> None:
    with urllib.request.urlopen(f"http://127.0.0.1:{web.port}/cues?v=1", timeout=10) as answer:
        assert answer.headers["Content-Type"].startswith("text/event-stream")
        lines = (line.decode().rstrip() for line in answer)
        until(lambda: next(lines) == "event: cue")
        jsonschema.validate(json.loads(next(lines).removeprefix("data: ")), json.loads(SCHEMA))


def test_another_version_is_refused(web: WebSink) -> None:
    with pytest.raises(urllib.error.HTTPError, match="400"):
        urllib.request.urlopen(f"http://127.0.0.1:{web.port}/cues?v=2", timeout=10)


def test_metrics_are_read_by_prometheus_and_health_by_anybody(web: WebSink) -> None:
    until(lambda: web._stream._counts["cues"] > 3)
    with urllib.request.urlopen(f"http://127.0.0.1:{web.port}/metrics", timeout=10) as answer:
        families = {f.name: f for f in text_string_to_metric_families(answer.read().decode())}
    assert families["liveaffect_cues"].samples[0].value > 3
    assert families["liveaffect_labels"].samples[0].labels == {"label": "happy"}
    assert 0 <= families["liveaffect_cue_age_seconds"].samples[0].value < 10
    with urllib.request.urlopen(f"http://127.0.0.1:{web.port}/healthz", timeout=10) as answer:
        assert json.load(answer)["ok"] is True


@pytest.mark.slow
def test_a_reader_that_stands_still_gets_the_newest_and_delays_nobody(web: WebSink) -> None:
    """And is let go after a while, so that its place is free again."""
    with socket.create_connection(("127.0.0.1", web.port)) as slow:
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        slow.sendall(f"GET /cues HTTP/1.1\r\nHost: 127.0.0.1:{web.port}\r\n\r\n".encode())
        until(lambda: web._stream._readers == 1)
        crowd = [cue("sad", t_ns=0)] * 100

        def told() -> bool:
            web._stream.tell(crowd)
            return web._stream._cues.written > 300

        until(told)
        with connect(f"ws://127.0.0.1:{web.port}/cues") as quick:
            assert json.loads(quick.recv(timeout=10))["v"] == 1
            until(lambda: told() and web._stream._readers == 1, 30.0)
    until(lambda: web._stream._readers == 0)


def test_pictures_are_made_and_marked_only_while_somebody_looks() -> None:
    sink = WebSink("ws://127.0.0.1:0")
    outputs, quiet = Outputs([sink], notice=True), Outputs([sink])
    try:
        assert not outputs.want_pictures
        assert not outputs.disclose
        with urllib.request.urlopen(f"http://127.0.0.1:{sink.port}/picture", timeout=10) as answer:
            until(lambda: outputs.want_pictures)
            assert outputs.disclose
            assert not quiet.disclose, "left out where the user says so"
            picture = background(320, 240)
            outputs.show(picture, frame(picture))
            outputs.show(picture, frame(picture))
            assert answer.readline().strip() == b"--picture"
            answer.readline()
            jpeg = answer.read(int(answer.readline().split()[1]) + 2)[2:]
        import cv2

        seen = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR_RGB)
        assert seen is not None
        assert np.abs(seen.astype(int) - picture).mean() < 3
        until(lambda: not outputs.disclose)
    finally:
        outputs.close()


def test_the_window_of_whoever_started_it_needs_no_mark_until_a_recording_runs(tmp_path: Path) -> None:
    class Window(OwnScreen, VideoFile):
        """Takes pictures, and needs no display."""

    window, recording = Window(str(tmp_path / "window.mp4")), open_sink(str(tmp_path / "recording.mp4"))
    assert not Outputs([window], notice=True).disclose
    both = Outputs([window, recording], notice=True)
    assert both.disclose
    both.close()


# MQTT, by mosquitto and paho.


@contextmanager
def listening(port: int, *topics: str) -> Iterator[dict[str, list[Any]]]:
    """What a client hears of these topics."""
    import paho.mqtt.client as mqtt
    from paho.mqtt.enums import CallbackAPIVersion

    heard: dict[str, list[Any]] = {}
    client = mqtt.Client(CallbackAPIVersion.VERSION2)

    def welcomed(*_: object) -> None:
        client.subscribe([(topic, 0) for topic in topics])

    client.on_connect = welcomed
    client.on_message = lambda _, __, message: heard.setdefault(message.topic, []).append(message.payload)
    client.connect("127.0.0.1", port)
    client.loop_start()
    try:
        yield heard
    finally:
        client.disconnect()
        client.loop_stop()


def test_mqtt_carries_cues_and_a_sensor_that_home_assistant_finds_by_itself() -> None:
    port = free_port()
    with server("mosquitto", "-p", str(port), port=port), listening(port, "#") as heard:
        with told(open_network(f"mqtt://127.0.0.1:{port}")):
            until(lambda: {"liveaffect/cues", "liveaffect/state"} <= heard.keys())
            sent = json.loads(heard["liveaffect/cues"][0])
            assert 0 <= sent.pop("sent_after_ms") < 10_000
            jsonschema.validate(sent, json.loads(SCHEMA))
            sensor = json.loads(heard["homeassistant/sensor/liveaffect/config"][0])
            assert sensor["state_topic"] in heard
            assert json.loads(heard[sensor["state_topic"]][0])["label"] == "happy"
            assert heard[sensor["availability_topic"]] == [b"online"]
        until(lambda: heard["liveaffect/available"][-1] == b"offline")


def test_mqtt_is_encrypted_where_certificates_are_named(tmp_path: Path) -> None:
    make_certificate(tmp_path, "mine", "127.0.0.1")
    make_certificate(tmp_path, "other", "127.0.0.1")
    port = free_port()
    (tmp_path / "conf").write_text(
        f"listener {port} 127.0.0.1\nallow_anonymous true\nuser root\n"
        f"certfile {tmp_path}/mine.pem\nkeyfile {tmp_path}/mine.key\n"
    )
    with server("mosquitto", "-c", str(tmp_path / "conf"), port=port):
        with told(open_network(f"mqtt://127.0.0.1:{port}?ca={tmp_path}/mine.pem")) as sink:
            assert isinstance(sink, NetworkSink)
            until(lambda: sink.sent > 3)
        assert sink.breaks == 0
        with told(open_network(f"mqtt://127.0.0.1:{port}?ca={tmp_path}/other.pem")) as wrong:
            assert isinstance(wrong, NetworkSink)
            until(lambda: wrong.breaks > 0)
        assert wrong.sent == 0


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("nats://127.0.0.1?ca=/nowhere.pem", "'/nowhere.pem' cannot be read"),
        ("mqtt://127.0.0.1?ca=/etc/hostname", "'/etc/hostname' cannot be read"),
        ("mqtt://127.0.0.1/a/+", "+ and # are for who listens"),
        ("mqtt://127.0.0.1/cues/{camera}/%23", "+ and # are for who listens"),
        ("nats://127.0.0.1/cues/>", "* and > are for who listens"),
        ("mqtt://me:secret@127.0.0.1?tls=1", "knows no '?tls=': behind '?' there may be ca"),
        ("nats://127.0.0.1?strem=foo", "there may be ca and stream"),
        ("osc://127.0.0.1?b=c", "nothing may stand behind '?'"),
        ("mqtt://127.0.0.1/a#b", "written %23"),
    ],
)
def test_an_address_that_could_never_work_is_refused_at_once(address: str, words: str) -> None:
    with pytest.raises(SinkError) as refused:
        open_network(address)
    assert words in str(refused.value)
    assert "secret" not in str(refused.value)


def test_a_link_that_fails_in_a_way_nobody_foresaw_is_an_output_that_failed() -> None:
    class Torn:
        def connect(self) -> None: ...

        def send(self, cues: Sequence[Cue]) -> None:
            raise RuntimeError("torn")

        def warn(self, alert: Alert) -> None: ...

        def close(self) -> None: ...

    sink = NetworkSink("torn://here", Torn)
    outputs = Outputs([sink])

    def failed() -> bool:
        outputs.tell([cue("happy")])
        return bool(outputs.failures)

    until(failed)
    assert outputs.failures == ["torn://here failed: RuntimeError: torn"]
    assert sink.missed >= 1


def test_an_mqtt_server_that_dies_and_comes_back_is_found_again() -> None:
    port = free_port()
    with told(open_network(f"mqtt://127.0.0.1:{port}")) as sink:
        assert isinstance(sink, NetworkSink)
        until(lambda: sink.breaks > 0)
        with server("mosquitto", "-p", str(port), port=port):
            until(lambda: sink.sent > 3)
        before, broken = sink.sent, sink.breaks
        until(lambda: sink.breaks > broken)
        with server("mosquitto", "-p", str(port), port=port):
            until(lambda: sink.sent > before + 3)
    assert sink.missed > 0
    assert "were lost" in (sink.close() or "")


def test_a_server_that_goes_between_the_question_and_the_word_of_parting_is_left_all_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    link = MqttLink(urlsplit("mqtt://127.0.0.1"), free_port())
    with monkeypatch.context() as before:
        before.setattr(link._client, "is_connected", lambda: True)
        link.close()
    with pytest.raises(LinkLost):
        link.send([cue("happy")])


# NATS, by nats-server and nats-py.


def test_nats_carries_cues_and_survives_its_server() -> None:
    port = free_port()

    async def next_message() -> bytes:
        import nats

        client = await nats.connect(f"nats://127.0.0.1:{port}")
        subscription = await client.subscribe("liveaffect.cues")
        message = await subscription.next_msg(timeout=20)
        await client.close()
        return message.data

    with told(open_network(f"nats://127.0.0.1:{port}")) as sink:
        assert isinstance(sink, NetworkSink)
        until(lambda: sink.breaks > 0)
        with server("nats-server", "-a", "127.0.0.1", "-p", str(port), port=port):
            sent = json.loads(asyncio.run(next_message()))
        assert sent.pop("sent_after_ms") >= 0
        jsonschema.validate(sent, json.loads(SCHEMA))
        before, broken = sink.sent, sink.breaks
        until(lambda: sink.breaks > broken)
        with server("nats-server", "-a", "127.0.0.1", "-p", str(port), port=port):
            until(lambda: sink.sent > before + 3)


# OSC, by python-osc's server; LSL, by its inlet.


def test_osc_is_understood() -> None:
    from pythonosc.dispatcher import Dispatcher
    from pythonosc.osc_server import ThreadingOSCUDPServer

    heard: list[tuple[Any, ...]] = []
    dispatcher = Dispatcher()
    dispatcher.map("/liveaffect/cue", lambda _, *values: heard.append(values))
    with ThreadingOSCUDPServer(("127.0.0.1", 0), dispatcher) as receiver:
        thread = threading.Thread(target=receiver.serve_forever)
        thread.start()
        with told(open_network(f"osc://127.0.0.1:{receiver.server_address[1]}")):
            until(lambda: len(heard) > 2)
        receiver.shutdown()
        thread.join()
    _, track, label, confidence, *_, surprised = heard[0]
    assert (track, label) == (1, "happy")
    assert 0 < confidence <= 1
    assert 0 <= surprised <= 1


def test_lsl_stamps_samples_with_when_they_were_true() -> None:
    import pylsl  # type: ignore[import-untyped]

    sink = open_network("lsl")
    try:
        (found, *_) = pylsl.resolve_byprop("source_id", "liveaffect-cues", timeout=10)
        inlet = pylsl.StreamInlet(found)
        inlet.open_stream(timeout=10)
        made_ns = epoch_ns() - 500 * MS
        sink.tell([replace(cue("sad"), epoch_ns=made_ns)])
        sample, stamp = inlet.pull_sample(timeout=10)
        assert sample is not None
        assert sample[1] == LABELS.index("sad")
        assert 0.45 < pylsl.local_clock() - stamp < 5
        inlet.close_stream()
    finally:
        sink.close()


def test_what_waits_for_a_server_is_bounded_and_the_newest() -> None:
    sink = open_network("mqtt://127.0.0.1:9")
    for k in range(10 * HELD):
        sink.tell([cue("happy", t_ns=k)])
    assert len(sink._cues.read_since(0).items) == HELD
    assert f"{10 * HELD} grid points were lost" in (sink.close() or "")


# The virtual camera, through its real library; a kernel driver is what a stand-in takes the place of.


class Device:
    """What a driver would get."""

    frames: list[Any] = []  # noqa: RUF012  one for all, because the library makes the object
    sizes: list[tuple[int, int]] = []  # noqa: RUF012
    gate = threading.Event()

    def __init__(self, *, width: int, height: int, fps: float, fourcc: int, device: str | None) -> None:
        self.shape = (height, width, 3)
        self.sizes.append((width, height))

    def close(self) -> None:
        """Nothing."""

    def send(self, picture: Any) -> None:
        """Waits as a driver may, for its reader."""
        assert self.gate.wait(20)
        self.frames.append(picture.reshape(self.shape).copy())

    def device(self) -> str:
        return "stand-in"

    def native_fourcc(self) -> None:
        return None


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> type[Device]:
    import pyvirtualcam.camera  # type: ignore[import-untyped]

    monkeypatch.setattr(pyvirtualcam.camera, "BACKENDS", {"stand-in": Device})
    Device.frames.clear()
    Device.sizes.clear()
    Device.gate.set()
    return Device


def test_a_virtual_camera_keeps_the_contract(device: type[Device]) -> None:
    check_sink(lambda: open_sink("camera"))


def test_a_virtual_camera_shows_the_newest_picture_and_never_waits_for_its_reader(
    device: type[Device],
) -> None:
    device.gate.clear()
    sink = open_sink("camera")
    pictures = [np.full((48, 64, 3), level, np.uint8) for level in range(100)]
    for seq, picture in enumerate(pictures):
        sink.show(picture, frame(picture, seq))
    device.gate.set()
    until(lambda: bool(device.frames) and device.frames[-1][0, 0, 0] == 99)
    sink.close()
    assert len(device.frames) <= 3
    assert device.sizes[-1] == (64, 48)


def test_a_picture_of_another_shape_is_fitted_whole(device: type[Device]) -> None:
    sink = open_sink("camera")
    for picture in (np.full((48, 64, 3), 50, np.uint8), np.full((100, 50, 3), 200, np.uint8)):
        count = len(device.frames)
        sink.show(picture, frame(picture))
        until(lambda count=count: len(device.frames) > count)  # type: ignore[misc]
    sink.close()
    assert device.frames[-1].shape == (48, 64, 3)
    assert device.frames[-1][24, 32].tolist() == [200, 200, 200]
    assert device.frames[-1][24, 2].tolist() == [0, 0, 0]


def test_a_missing_driver_is_said_with_the_command() -> None:
    if list(Path("/dev").glob("video*")):
        pytest.skip("needs a machine without a camera: this hardware may have the driver")
    with pytest.raises(SinkError, match="v4l2loopback"):
        open_sink("camera")
