"""A node watches cameras by name: cues by camera, alerts, figures; no password and no picture gets out."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families

from liveaffect.node import expanded, refuse_open_secrets, sink_names
from liveaffect.realtime.clock import MS, SECOND, epoch_ns
from liveaffect.realtime.errors import SettingsError
from liveaffect.realtime.sinks import network
from liveaffect.realtime.sinks.network import Alert, NetworkSink, open_network, subject_of
from liveaffect.realtime.stream import StreamCapture, decoders, substream
from liveaffect.realtime.testing.media import NetworkCamera
from liveaffect.realtime.testing.real_triton import free_port
from liveaffect.realtime.testing.scenes import cue
from liveaffect.settings import Settings, resolve

NATS, MOSQUITTO = "/usr/sbin/nats-server", "/usr/sbin/mosquitto"
SECRET = "zirkel-7Q"


def until(holds: Callable[[], bool], seconds: float = 30.0) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "it did not come to that"
        time.sleep(0.05)


# Addresses, secrets, outputs.


def test_a_secret_comes_from_a_file_or_the_environment_and_is_fit_for_an_address(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "hall").write_text("a/b@c\n")
    monkeypatch.setenv("LOBBY", "d:e")
    assert expanded(f"rtsp://me:${{file:{tmp_path}/hall}}@h/s") == "rtsp://me:a%2Fb%40c@h/s"
    assert expanded("rtsp://me:${LOBBY}@h/s") == "rtsp://me:d%3Ae@h/s"


@pytest.mark.parametrize("missing", ["${file:/no/such/file}", "${NO_SUCH_VARIABLE}"])
def test_a_secret_that_is_missing_is_named(missing: str) -> None:
    with pytest.raises(SettingsError, match=r"NO_SUCH_VARIABLE|/no/such/file"):
        expanded(f"rtsp://me:{missing}@h/s")


@pytest.mark.parametrize("address", [f"hall=rtsp://me:{SECRET}@h/s", f"nats://me:{SECRET}@h"])
def test_a_password_in_the_settings_is_refused_and_not_repeated(address: str) -> None:
    with pytest.raises(SettingsError) as refused:
        refuse_open_secrets((address,))
    assert SECRET not in str(refused.value)
    refuse_open_secrets(("hall=rtsp://me:${HALL}@h/s", "rtsp://h/s", "0"))


def test_cues_get_a_subject_for_each_site_and_camera() -> None:
    names = sink_names(
        Settings(site="louvre", sink=("nats://h:4222", "mqtt://h", "nats://h/own.x", "a.jsonl"))
    )
    assert names == [
        "nats://h:4222/cues.louvre.{camera}?stream=cues-louvre",
        "mqtt://h/cues/louvre/{camera}",
        "nats://h/own.x",
        "a.jsonl",
    ]
    assert subject_of("cues.louvre.{camera}", "camera:Hall 1/*", ".") == "cues.louvre.Hall_1__"


@pytest.mark.parametrize("name", ["a.mp4", "window", "ws://127.0.0.1:0", "a.png", "camera"])
def test_an_output_that_shows_pictures_is_refused(name: str) -> None:
    with pytest.raises(SettingsError, match=r"pictures never leave a node, and .* shows them"):
        sink_names(Settings(site="louvre", sink=(name,)))


def test_the_settings_in_the_document_are_taken_as_they_stand(tmp_path: Path) -> None:
    page = (Path(__file__).resolve().parent.parent / "docs" / "fleet.md").read_text("utf-8")
    (tmp_path / "node.toml").write_text(page.split("```toml\n")[1].split("```")[0])
    settings = resolve({}, {}, tmp_path / "node.toml")
    refuse_open_secrets((*settings.camera, *settings.sink))
    assert sink_names(settings) == [
        "nats://node:${file:/run/secrets/nats}@10.0.0.10:4222/cues.louvre.{camera}?stream=cues-louvre"
    ]
    assert settings.engine_choice.endswith("10.0.0.12:8001?ca=%2Fetc%2Fliveaffect%2Ftriton.pem")


# The camera.


@pytest.mark.parametrize(
    ("sizes", "least", "taken"),
    [
        ([(1920, 1080), (640, 480), (320, 240)], (640, 480), 1),
        ([(1920, 1080), (320, 240)], (640, 480), 0),
        ([(320, 240), (352, 288)], (640, 480), 1),
        ([(640, 480)], (640, 480), 0),
    ],
)
def test_the_smallest_stream_that_is_large_enough_is_read(
    sizes: list[tuple[int, int]], least: tuple[int, int], taken: int
) -> None:
    assert substream(sizes, least) == taken


def test_hardware_is_tried_where_there_is_some_and_software_always_last() -> None:
    assert decoders("software") == [None]
    assert decoders("auto")[-1] is None
    wanted = ["cuda", None] if Path("/dev/nvidia0").exists() else [None]
    assert decoders("cuda") == wanted


@pytest.mark.slow
def test_a_stream_gives_pictures_of_the_size_that_was_asked_for_until_it_breaks_off() -> None:
    with NetworkCamera(pictures()) as camera:
        capture = StreamCapture(camera.url, "camera:hall", (320, 200))
        assert capture.isOpened()
        assert capture.grab()
        good, image = capture.retrieve()
        assert good
        assert image.shape == (240, 320, 3)
        camera.plug_out()
        until(lambda: not capture.grab())
        assert not capture.isOpened()


def test_a_stream_that_is_stored_squeezed_comes_out_as_it_is_shown(tmp_path: Path) -> None:
    path = tmp_path / "squeezed.ts"
    with av.open(str(path), "w") as out:
        video = out.add_stream("mpeg2video", rate=25)
        video.width, video.height, video.pix_fmt = 720, 576, "yuv420p"
        video.codec_context.sample_aspect_ratio = Fraction(64, 45)
        for number in range(5):
            frame = av.VideoFrame.from_ndarray(np.zeros((576, 720, 3), np.uint8), format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, 25)
            out.mux(video.encode(frame))
        out.mux(video.encode(None))
    capture = StreamCapture(str(path), "camera:hall", (320, 200), "software")
    assert capture.grab()
    good, image = capture.retrieve()
    assert good
    assert image.shape == (576, 1024, 3)
    assert capture.grab()
    capture.release()
    assert capture.retrieve() == (False, None)


def test_an_address_that_does_not_answer_is_not_repeated(caplog: pytest.LogCaptureFixture) -> None:
    capture = StreamCapture(f"rtsp://me:{SECRET}@127.0.0.1:1/s", "camera:hall", (640, 480))
    assert not capture.isOpened()
    assert "camera:hall cannot be read" in caplog.text
    assert SECRET not in caplog.text


def pictures() -> list[np.ndarray[Any, np.dtype[np.uint8]]]:
    rng = np.random.default_rng(0)
    base = rng.integers(0, 255, (60, 80, 3), np.uint8).repeat(8, axis=0).repeat(8, axis=1)
    return [np.roll(base, 8 * n, axis=1) for n in range(10)]


# Cues that are kept until the server has them.


@contextmanager
def nats_server(port: int, store: Path, *more: str) -> Iterator[subprocess.Popen[bytes]]:
    if not Path(NATS).exists():
        pytest.skip("needs the package nats-server, which .ci/run installs")
    command = [NATS, "-a", "127.0.0.1", "-p", str(port), "-js", "-sd", str(store), *more]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as run:
        try:
            yield run
        finally:
            run.kill()


def stored(port: int, stream: str) -> list[tuple[str, dict[str, Any]]]:
    """All that is in a stream, in order."""
    import nats

    async def read() -> list[tuple[str, dict[str, Any]]]:
        client = await nats.connect(f"nats://127.0.0.1:{port}")
        js = client.jetstream()
        last = (await js.stream_info(stream)).state.last_seq
        found = [await js.get_msg(stream, seq) for seq in range(1, last + 1)]
        await client.close()
        return [(m.subject or "", json.loads(m.data or b"{}")) for m in found]

    return asyncio.run(read())


def tell(sink: NetworkSink, first: int, last: int) -> None:
    """Cues of two cameras at these numbers of the grid."""
    for number in range(first, last + 1):
        base = cue("happy", t_ns=number * 100 * MS)
        sink.tell([replace(base, epoch_ns=epoch_ns(), source=f"camera:{name}") for name in ("a", "b")])
        time.sleep(0.02)


@pytest.mark.slow
def test_a_broker_that_is_killed_and_comes_back_has_every_cue_once(tmp_path: Path) -> None:
    port = free_port()
    sink = open_network(f"nats://127.0.0.1:{port}/cues.louvre.{{camera}}?stream=cues")
    with nats_server(port, tmp_path):
        tell(sink, 1, 20)
        until(lambda: sink.sent > 10)
        tell(sink, 21, 40)
    tell(sink, 41, 60)
    with nats_server(port, tmp_path):
        tell(sink, 61, 80)
        until(lambda: sink.sent == 80)
        assert sink.close() is None
        times = [(subject, one["t"]) for subject, one in stored(port, "cues")]
    wanted = {(f"cues.louvre.{name}", round(n * 0.1, 6)) for n in range(1, 81) for name in ("a", "b")}
    assert len(times) == len(set(times)) == 2 * 80
    assert set(times) == wanted


def listens(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 0.2):
        return True
    return False


def operate(port: int, **stream: Any) -> None:
    """The operator makes a stream, or changes it."""
    import nats
    from nats.js.api import DiscardPolicy
    from nats.js.errors import NotFoundError

    async def go() -> None:
        client = await nats.connect(f"nats://127.0.0.1:{port}")
        js = client.jetstream()
        try:
            await js.update_stream(**stream, discard=DiscardPolicy.NEW)
        except NotFoundError:
            await js.add_stream(**stream, discard=DiscardPolicy.NEW)
        await client.close()

    until(lambda: listens(port))
    asyncio.run(go())


@pytest.mark.slow
def test_a_full_stream_is_asked_with_pauses_and_gets_everything_once_there_is_room(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    port = free_port()
    with nats_server(port, tmp_path):
        operate(port, name="cues", subjects=["cues.>"], max_msgs=4)
        sink = open_network(f"nats://127.0.0.1:{port}/cues.louvre.{{camera}}?stream=cues")
        tell(sink, 1, 20)
        until(lambda: sink.breaks == 3)
        assert sink.sent == 2
        (warning,) = caplog.messages
        assert "no NATS server" not in warning
        assert "the stream 'cues' (maximum messages exceeded): make room in it" in warning
        operate(port, name="cues", subjects=["cues.>"], max_msgs=1000)
        until(lambda: sink.sent == 20)
        assert sink.close() is None
        assert sink.breaks <= 5
        assert len({(subject, one["t"]) for subject, one in stored(port, "cues")}) == 2 * 20


def test_a_run_ends_although_its_subject_is_in_no_stream_and_says_what_to_do(tmp_path: Path) -> None:
    port = free_port()
    with nats_server(port, tmp_path):
        operate(port, name="cues", subjects=["elsewhere.>"])
        sink = open_network(f"nats://127.0.0.1:{port}/cues.louvre.{{camera}}?stream=cues")
        tell(sink, 1, 5)
        until(lambda: sink.breaks > 0)
        before_ns = epoch_ns()
        closing = sink.close() or ""
        assert epoch_ns() - before_ns < 10 * SECOND
        assert "5 grid points were lost, because the server did not take them" in closing
        assert "add it to the subjects of the stream 'cues'" in closing


def test_an_alert_that_no_stream_takes_does_not_hold_up_the_cues_behind_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(network, "PAUSES_S", (0.05, 0.05))
    port = free_port()
    with nats_server(port, tmp_path):
        operate(port, name="cues", subjects=["cues.>"])
        sink = open_network(f"nats://127.0.0.1:{port}/cues.louvre.{{camera}}?stream=cues")
        sink.warn(Alert("camera:a", False, "no pictures", epoch_ns()))
        tell(sink, 1, 5)
        until(lambda: sink.sent == 5)
        assert "1 grid points were lost" in (sink.close() or "")
        assert len(stored(port, "cues")) == 2 * 5


def test_what_a_nats_user_may_not_send_is_said(tmp_path: Path) -> None:
    port = free_port()
    user = f'{{user: me, password: "{SECRET}", permissions: {{publish: "other.>"}}}}'
    (tmp_path / "conf").write_text(f"authorization {{ users = [{user}] }}\n")
    with nats_server(port, tmp_path, "-c", str(tmp_path / "conf")):
        until(lambda: listens(port))
        for password, why in ((SECRET, "permissions violation"), ("wrong", "authorization")):
            sink = open_network(f"nats://me:{password}@127.0.0.1:{port}/cues.louvre.{{camera}}")
            tell(sink, 1, 2)
            until(lambda sink=sink: bool(sink._said.get(network.Refused)))  # type: ignore[misc]
            closing = (sink.close() or "").lower()
            assert "2 grid points were lost" in closing
            assert why in closing
            assert password not in closing


def test_what_two_microphones_hear_at_one_moment_is_stored_twice(tmp_path: Path) -> None:
    port = free_port()
    with nats_server(port, tmp_path):
        sink = open_network(f"nats://127.0.0.1:{port}/cues.all?stream=cues")
        heard = replace(cue("sad", track=None), epoch_ns=epoch_ns())
        sink.tell([replace(heard, source=f"mic:{name}") for name in ("a", "b")])
        until(lambda: sink.sent == 1)
        assert sink.close() is None
        assert [one["source"] for _, one in stored(port, "cues")] == ["mic:a", "mic:b"]


@pytest.mark.slow
def test_an_mqtt_broker_that_ends_the_connection_at_what_is_sent_is_asked_with_pauses(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    port = free_port()
    with mosquitto(port, tmp_path, "max_packet_size 100\n"):
        sink = open_network(f"mqtt://127.0.0.1:{port}/cues/louvre/{{camera}}")
        tell(sink, 1, 3)
        until(lambda: bool(sink._said.get(network.Refused)))
        time.sleep(2.0)
        assert sink.breaks <= 5
        closing = sink.close() or ""
    assert "3 grid points were lost" in closing
    assert "ends the connection when something is sent to cues/louvre/a: allow this user" in closing
    assert len([said for said in caplog.messages if "ends the connection" in said]) == 1


def test_what_waits_at_the_end_is_sent_for_a_bounded_time(monkeypatch: pytest.MonkeyPatch) -> None:
    class Slow:
        """Confirms three times a second."""

        def connect(self) -> None:
            """At once."""

        def send(self, cues: object) -> None:
            time.sleep(0.3)

        def warn(self, alert: object) -> None:
            """Nothing."""

        def close(self) -> None:
            """Nothing."""

    monkeypatch.setattr(network, "PARTING_S", 1.0)
    sink = NetworkSink("slow", Slow, keeps=True)
    for number in range(100):
        sink.tell([cue("happy", t_ns=number * 100 * MS)])
    assert "grid points were lost" in (sink.close() or "")
    assert 2 <= sink.sent <= 6
    assert sink.sent + sink.missed == 100


@contextmanager
def mosquitto(port: int, folder: Path, more: str = "") -> Iterator[subprocess.Popen[bytes]]:
    """One that keeps what it has taken on, whatever happens to it."""
    if not Path(MOSQUITTO).exists():
        pytest.skip("needs the package mosquitto, which .ci/run installs")
    folder.mkdir(exist_ok=True)
    (folder / "conf").write_text(
        f"listener {port} 127.0.0.1\nallow_anonymous true\nuser root\npersistence true\n"
        f"persistence_location {folder}/\nautosave_on_changes true\nautosave_interval 1\n{more}"
    )
    with subprocess.Popen([MOSQUITTO, "-c", str(folder / "conf")], stderr=subprocess.DEVNULL) as run:
        try:
            yield run
        finally:
            run.kill()


@contextmanager
def subscriber(port: int, name: str, *topics: str) -> Iterator[list[tuple[str, dict[str, Any]]]]:
    """What a client of an MQTT server hears for whom the server keeps what it missed; first, that it may."""
    import paho.mqtt.client as mqtt
    from paho.mqtt.enums import CallbackAPIVersion

    heard: list[tuple[str, dict[str, Any]]] = []
    client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id=name, clean_session=False)
    client.reconnect_delay_set(1, 1)

    def welcomed(*_: object) -> None:
        client.subscribe([(topic, 1) for topic in topics])

    client.on_connect = welcomed
    client.on_subscribe = lambda *_: heard.append(("subscribed", {}))
    client.on_message = lambda _, __, message: heard.append((message.topic, json.loads(message.payload)))
    client.connect_async("127.0.0.1", port)
    client.loop_start()
    try:
        yield heard
    finally:
        client.disconnect()
        client.loop_stop()


@pytest.mark.slow
def test_an_mqtt_broker_that_is_killed_gets_every_cue_and_alert_by_camera(tmp_path: Path) -> None:
    port = free_port()
    with subscriber(port, "records", "cues/louvre/+", "alerts/louvre/+") as heard:
        sink = open_network(f"mqtt://127.0.0.1:{port}/cues/louvre/{{camera}}")
        with mosquitto(port, tmp_path):
            until(lambda: bool(heard))
            tell(sink, 1, 20)
            until(lambda: sink.sent > 10)
        tell(sink, 21, 40)
        sink.warn(Alert("camera:a", False, "no pictures", epoch_ns()))
        with mosquitto(port, tmp_path):
            tell(sink, 41, 60)
            until(lambda: sink.sent == 60 + 1)
            assert sink.close() is None
            wanted = {(f"cues/louvre/{name}", round(n * 0.1, 6)) for n in range(1, 61) for name in "ab"}
            until(lambda: wanted == {(topic, one["t"]) for topic, one in heard if topic[:4] == "cues"})
            with subscriber(port, "a latecomer", "alerts/#") as found:
                until(lambda: len(found) == 2)
    for got in (heard, found):
        alerts = {(topic, one["up"]) for topic, one in got if topic.startswith("alerts")}
        assert alerts == {("alerts/louvre/a", False)}
    assert sink.breaks > 0


# The whole command.


@pytest.mark.slow
def test_a_node_sends_cues_by_camera_and_says_which_camera_is_down(tmp_path: Path) -> None:
    broker, second, status = free_port(), free_port(), free_port()
    (tmp_path / "secret").write_text(SECRET)
    with (
        NetworkCamera(faces()) as hall,
        NetworkCamera(faces()) as lobby,
        nats_server(broker, tmp_path / "js"),
        mosquitto(second, tmp_path / "mqtt"),
        subscriber(second, "records", "cues/#", "alerts/#") as heard,
    ):
        settings = tmp_path / "node.toml"
        hall.plug_out()
        lobby.plug_out()
        hidden = f"?password=${{file:{tmp_path}/secret}}"
        settings.write_text(
            f'site = "louvre"\nport = {status}\nsize = "320x240"\nengine = "onnx"\nvoice = "small"\n'
            f'camera = ["hall={hall.url}{hidden}", "lobby={lobby.url}{hidden}"]\n'
            f'sink = ["nats://127.0.0.1:{broker}", "mqtt://127.0.0.1:{second}"]\n'
        )
        with subprocess.Popen(
            [sys.executable, "-m", "liveaffect", "live", "--config", str(settings), "--log-level", "info"],
            stderr=subprocess.PIPE,
            env=os.environ,
        ) as node:
            try:
                # The cameras are not there yet, as after a power cut; the node waits for them.
                until(lambda: len(health(status)[1].get("down", ())) == 2, 60.0)
                hall.plug_in()
                lobby.plug_in()
                until(lambda: health(status)[0] == 200, 60.0)
                until(lambda: figure(status, "liveaffect_camera_pictures", "camera:hall") > 20)
                lobby.plug_out()
                until(lambda: health(status)[0] == 503)
                assert list(health(status)[1]["down"]) == ["camera:lobby"]
                assert figure(status, "liveaffect_camera_up", "camera:lobby") == 0
                lobby.plug_in()
                until(lambda: health(status)[0] == 200)
            finally:
                node.send_signal(signal.SIGINT)
                said = node.communicate(timeout=30)[1].decode()
        assert SECRET not in said
        messages = stored(broker, "cues-louvre")
        until(lambda: len(heard) >= len(messages))
    for by, got in ((".", messages), ("/", heard)):
        alerts = [(one["source"], one["up"]) for where, one in got if where == f"alerts{by}louvre{by}lobby"]
        assert alerts == 2 * [("camera:lobby", False), ("camera:lobby", True)]
        cues = [one for where, one in got if where == f"cues{by}louvre{by}hall"]
        assert cues, said
        assert {one["source"] for one in cues} == {"camera:hall"}


def faces() -> list[np.ndarray[Any, np.dtype[np.uint8]]]:
    """A face that is found at half the size."""
    import cv2

    from liveaffect.realtime.portrait import packaged_portraits

    face = cv2.imread(str(packaged_portraits()[0]), cv2.IMREAD_COLOR_RGB)
    assert face is not None
    height = 480
    width = face.shape[1] * height // face.shape[0]
    picture = np.full((480, 640, 3), 128, np.uint8)
    small = cv2.resize(face, (min(width, 640), height))
    picture[:, 60 : 60 + small.shape[1]] = small[:, : 640 - 60]
    return [np.roll(picture, n % 5, axis=1) for n in range(10)]


def health(port: int) -> tuple[int, dict[str, Any]]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz", timeout=5) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)
    except OSError:
        return 0, {}


def figure(port: int, name: str, camera: str) -> float:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
        families = text_string_to_metric_families(answer.read().decode())
    samples = [s for family in families for s in family.samples if s.labels.get("camera") == camera]
    return next(s.value for s in samples if s.name.removesuffix("_total") == name)
