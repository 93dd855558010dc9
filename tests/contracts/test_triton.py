"""Networks on a real Triton server keep the engine contract; whatever happens to it, answers stay prompt."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from liveaffect.engines import manifest as manifests
from liveaffect.engines import parity as probe
from liveaffect.engines.build.triton_repository import BACKENDS, Serving, write_repository
from liveaffect.engines.load import load
from liveaffect.engines.protocol import EngineUnavailable
from liveaffect.engines.triton_engine import (
    TritonEngine,
    hash_parameter,
    identity,
    servers_of,
    version_of,
)
from liveaffect.realtime.testing import engines as tiny_networks
from liveaffect.realtime.testing.contracts import check_engine
from liveaffect.realtime.testing.real_triton import RealTriton, TritonMissing, free_port, make_certificate

WITHIN_S = 0.2
SLACK_S = 0.15
"""For a machine with other work: how much longer than the deadline an answer may take."""


def until(holds: Callable[[], bool], seconds: float = 30.0) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "it did not come to that"
        time.sleep(0.02)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("weights")
    for kind in ("face", "voice"):
        tiny_networks.write_tiny(folder, kind)
    return folder


def started(repository: Path, folder: Path, *arguments: str) -> RealTriton:
    try:
        server = RealTriton(repository, free_port(), folder=folder, arguments=arguments)
    except TritonMissing as why:
        pytest.skip(f"needs the real tritonserver: {why}")
    server.start()
    until(lambda: is_ready(server.port), 60.0)
    return server


def is_ready(port: int) -> bool:
    from tritonclient.grpc import InferenceServerClient
    from tritonclient.utils import InferenceServerException

    with InferenceServerClient(f"127.0.0.1:{port}") as client:
        try:
            return bool(client.is_server_ready(client_timeout=1.0))
        except InferenceServerException:
            return False


@pytest.fixture(scope="module")
def server(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealTriton]:
    folder = tmp_path_factory.mktemp("triton")
    write_repository(folder / "models", Serving(backend="python"), tiny, print)
    running = started(folder / "models", folder)
    yield running
    running.kill()


def engine_on(weights: Path, *ports: int, kind: str = "face", said: list[str] | None = None) -> TritonEngine:
    hosts = ",".join(f"127.0.0.1:{port}" for port in ports)
    report = print if said is None else said.append
    made = load(kind, choice=f"triton://{hosts}?sound=yes", weights=weights, report=report)
    assert isinstance(made, TritonEngine)
    return made


def balance(engine: TritonEngine) -> int:
    """Items that are neither answered nor lost by name."""
    ends = sum(n for end, n in engine.crops.items() if end.startswith(("answered", "lost")))
    return engine.crops["asked"] - ends


# The contract, and what is written for a server.


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["face", "voice"])
def test_an_engine_on_a_real_server_keeps_the_contract(server: RealTriton, tiny: Path, kind: str) -> None:
    wanted = manifests.read(tiny / f"{kind}.json").inputs
    check_engine(
        lambda: engine_on(tiny, server.port, kind=kind),
        lambda count: probe.for_tensors(kind, count, wanted, seed=count),
    )


@pytest.mark.slow
def test_a_server_answers_as_this_machine_does(server: RealTriton, tiny: Path) -> None:
    items = probe.inputs("face", 16)
    here, there = load("face", choice="onnx", weights=tiny), engine_on(tiny, server.port)
    for name, array in here.infer(items).items():
        np.testing.assert_allclose(there.infer(items)[name], array, atol=1e-5)
    there.close()
    assert there.crops[f"answered by 127.0.0.1:{server.port}"] == there.crops["asked"] > 0


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("kind", ["face", "voice"])
def test_a_configuration_holds_the_manifests_tensors_and_a_bounded_wait(
    tmp_path: Path, tiny: Path, kind: str, backend: str
) -> None:
    """By Triton's own schema; the parser of its text form refuses every field that is not in it."""
    from google.protobuf import text_format

    schema: Any = import_module("tritonclient.grpc.model_config_pb2")
    write_repository(tmp_path, Serving(backend=backend, delay_us=1500), tiny, print, kinds=[kind])
    config = text_format.Parse((tmp_path / kind / "config.pbtxt").read_text(), schema.ModelConfig())
    found = manifests.read(tiny / f"{kind}.json")
    types = {"uint8": "TYPE_UINT8", "float32": "TYPE_FP32"}
    for told, wanted in ((config.input, found.inputs), (config.output, found.outputs)):
        assert [(t.name, schema.DataType.Name(t.data_type), tuple(t.dims)) for t in told] == [
            (t.name, types[t.dtype], t.shape) for t in wanted
        ]
    batching = config.dynamic_batching
    assert batching.max_queue_delay_microseconds == 1500
    assert 0 < batching.default_queue_policy.max_queue_size <= 1024
    assert config.parameters[hash_parameter(found)].string_value == identity(found)
    assert (tmp_path / kind / str(version_of(found)) / "model.onnx").exists()


def test_a_version_changes_with_the_weights_and_not_with_what_was_measured(tiny: Path) -> None:
    found = manifests.read(tiny / "face.json")
    other = manifests.record_file(found, "fp32", b"other weights")
    assert version_of(manifests.extended(found, figures={"ms": 1})) == version_of(found)
    assert version_of(other) != version_of(found)
    assert 0 < version_of(found) < 2**63


def test_an_export_leaves_the_versions_that_are_there(tmp_path: Path, tiny: Path) -> None:
    other = tmp_path / "other"
    tiny_networks.write_tiny(other, "face", seed=1)
    for weights in (tiny, other):
        write_repository(tmp_path / "models", Serving(), weights, print, kinds=["face"])
    assert len([each for each in (tmp_path / "models" / "face").iterdir() if each.is_dir()]) == 2


def test_a_plan_is_built_where_it_runs_by_a_command_that_is_told(tmp_path: Path, tiny: Path) -> None:
    said: list[str] = []
    write_repository(tmp_path, Serving(backend="tensorrt"), tiny, said.append, kinds=["face"])
    assert any("trtexec --onnx=model.onnx" in line and "crop:64x64x64x3" in line for line in said)


# Addresses and certificates.


@pytest.mark.parametrize(
    "choice",
    ["triton://", "triton://a:x", "triton://a:0", "triton://me:secret@a", "triton://a/b", "triton://a?x=1"],
)
def test_an_address_that_means_nothing_is_refused_in_words(choice: str) -> None:
    with pytest.raises(EngineUnavailable, match="triton://HOST:8001"):
        servers_of(choice)


def test_several_servers_have_ports_of_their_own() -> None:
    found = servers_of("triton://localhost,10.0.0.2:9001,[::1]?within_ms=150&sound=yes")
    assert [str(each) for each in found.addresses] == ["localhost:8001", "10.0.0.2:9001", "[::1]:8001"]
    assert [each.loopback for each in found.addresses] == [True, False, True]
    assert (found.within_s, found.send_sound) == (0.15, True)


def test_sound_stays_here_unless_it_is_let_go(tiny: Path) -> None:
    engine = load("voice", choice=f"triton://127.0.0.1:{free_port()}", weights=tiny)
    assert not isinstance(engine, TritonEngine)
    engine.close()


def test_off_loopback_a_server_without_a_certificate_gets_nothing(
    monkeypatch: pytest.MonkeyPatch, tiny: Path
) -> None:
    """The connection to another machine is made with TLS, whatever the address says."""
    import tritonclient.grpc

    asked: list[dict[str, object]] = []

    class Noted(tritonclient.grpc.InferenceServerClient):  # type: ignore[misc]
        def __init__(self, url: str, **options: object) -> None:
            asked.append({"url": url, **options})
            super().__init__("127.0.0.1:9", **{**options, "ssl": False})

    monkeypatch.setattr(tritonclient.grpc, "InferenceServerClient", Noted)
    for host in ("10.0.0.2", "127.0.0.1"):
        load("face", choice=f"triton://{host}", weights=tiny).close()
    assert [each["ssl"] for each in asked] == [True, False]


@pytest.mark.slow
def test_a_server_with_the_operators_certificate_is_believed_and_another_is_not(
    tiny: Path, tmp_path: Path
) -> None:
    ours, _ = (make_certificate(tmp_path, name, "127.0.0.1") for name in ("ours", "theirs"))
    write_repository(tmp_path / "models", Serving(backend="python"), tiny, print, kinds=["face"])
    server = started_quietly(tmp_path / "models", tmp_path, *(f"{k}={v}" for k, v in ours.items()))
    try:
        choice = f"triton://127.0.0.1:{server.port}?within_ms=1000&ca={tmp_path}/"
        until(lambda: up(load("face", choice=f"{choice}ours.pem", weights=tiny)), 60.0)
        assert not up(load("face", choice=f"{choice}theirs.pem", weights=tiny))
    finally:
        server.kill()


def up(engine: object) -> bool:
    assert isinstance(engine, TritonEngine)
    engine.close()
    return not engine.standing_in


def started_quietly(repository: Path, folder: Path, *arguments: str) -> RealTriton:
    """One that is not asked whether it is ready, since that takes a certificate."""
    try:
        server = RealTriton(repository, free_port(), folder=folder, arguments=arguments)
    except TritonMissing as why:
        pytest.skip(f"needs the real tritonserver: {why}")
    server.start()
    return server


# What happens to servers.


def test_without_any_server_faces_are_judged_here_and_that_is_said(tiny: Path) -> None:
    said: list[str] = []
    engine = engine_on(tiny, free_port(), said=said)
    assert engine.infer(probe.inputs("face", 3))["logits"].shape == (3, 7)
    assert engine.standing_in
    assert engine.notice is not None
    assert "cannot be reached" in engine.notice
    assert any("cannot be reached" in line for line in said)
    assert engine.crops["answered here"] == 3
    engine.close()


@pytest.mark.slow
def test_a_killed_server_costs_no_item_and_is_used_again_when_it_is_back(tiny: Path, tmp_path: Path) -> None:
    write_repository(tmp_path / "models", Serving(backend="python"), tiny, print, kinds=["face"])
    server = started(tmp_path / "models", tmp_path)
    engine = engine_on(tiny, server.port)
    items = probe.inputs("face", 2)
    try:
        assert asked(engine, items, 5) < WITHIN_S + SLACK_S
        server.kill()
        assert asked(engine, items, 20) < WITHIN_S + SLACK_S
        assert engine.standing_in
        server.start()
        until(lambda: asked(engine, items, 1) > 0 and not engine.standing_in)
        assert engine.notice is None
        assert balance(engine) == 0
        assert engine.crops["lost"] == 0
    finally:
        engine.close()
        server.kill()


@pytest.mark.slow
def test_a_server_that_stalls_is_left_for_the_next_one(
    server: RealTriton, tiny: Path, tmp_path: Path
) -> None:
    write_repository(tmp_path / "models", Serving(backend="python"), tiny, print, kinds=["face"])
    stalling = started(tmp_path / "models", tmp_path)
    said: list[str] = []
    engine = engine_on(tiny, stalling.port, server.port, said=said)
    items = probe.inputs("face", 2)
    try:
        asked(engine, items, 3)
        stalling.send(signal.SIGSTOP)
        assert asked(engine, items, 10) < WITHIN_S + SLACK_S
        assert any(f"{stalling.port} is left alone" in line and "no answer within" in line for line in said)
        assert engine.crops[f"answered by 127.0.0.1:{server.port}"] >= 18
        assert not engine.standing_in
        stalling.send(signal.SIGCONT)
        until(lambda: asked(engine, items, 1) > 0 and engine.notice is None)
        assert balance(engine) == 0
    finally:
        engine.close()
        stalling.kill()


@pytest.mark.slow
def test_a_server_with_another_network_is_named_and_never_believed(
    server: RealTriton, tmp_path: Path
) -> None:
    tiny_networks.write_tiny(tmp_path, "face", seed=7)
    engine = engine_on(tmp_path, server.port)
    assert engine.notice is not None
    assert "another network" in engine.notice
    engine.infer(probe.inputs("face", 2))
    assert engine.crops["answered here"] == 2
    engine.close()


@pytest.mark.slow
def test_a_network_is_exchanged_on_a_server_without_losing_an_answer(tiny: Path, tmp_path: Path) -> None:
    """The old version goes on while the new one is loaded; then nodes with the new one are served."""
    repository, newer = tmp_path / "models", tmp_path / "newer"
    write_repository(repository, Serving(backend="python"), tiny, print, kinds=["face"])
    server = started(repository, tmp_path, "--model-control-mode=poll", "--repository-poll-secs=1")
    engine = engine_on(tiny, server.port)
    items = probe.inputs("face", 2)
    tiny_networks.write_tiny(newer, "face", seed=3)
    try:
        write_repository(repository, Serving(backend="python"), newer, print, kinds=["face"])
        until(lambda: asked(engine, items, 1) > 0 and up(engine_on(newer, server.port)))
        before = engine.crops[f"answered by 127.0.0.1:{server.port}"]
        until(
            lambda: (
                asked(engine, items, 5) > 0 and engine.crops[f"answered by 127.0.0.1:{server.port}"] > before
            )
        )
        # On a busy machine a server that loads a network is late for a batch, which is judged here.
        ends = sum(n for end, n in engine.crops.items() if end.startswith("answered"))
        assert engine.crops["asked"] == ends
        assert up(engine_on(tiny, server.port)), "a node with the old network that starts now is refused"
    finally:
        engine.close()
        server.kill()


def asked(engine: TritonEngine, items: probe.Batch, times: int) -> float:
    """The longest that an answer took, in seconds."""
    worst = 0.0
    for _ in range(times):
        began = time.monotonic()
        engine.infer(items)
        worst = max(worst, time.monotonic() - began)
        time.sleep(0.05)
    return worst
