"""A network on Triton servers: crops of all cameras meet in their batchers, by gRPC through `tritonclient`.

The servers are asked in the order in which they are named. One that refuses, stalls or answers out of
another network is named and left alone, its batch goes to the next one while there is time and to this
machine's processor otherwise, and it is tried again with growing pauses. So no answer is older than the
deadline and one local pass, whatever the servers do. What network a server has is told by its version,
which is made of the manifest's hash: a server with another one cannot answer by mistake.
"""

from __future__ import annotations

import hashlib
import ipaddress
import json
import logging
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as NotInTime
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import numpy as np

from liveaffect.engines import stopwatch
from liveaffect.engines.manifest import Manifest
from liveaffect.engines.protocol import (
    Engine,
    EngineError,
    EngineFailed,
    EngineSpec,
    EngineUnavailable,
    Pending,
    Tensors,
    check_finite,
    check_inputs,
    zeros_for,
)

SCHEME = "triton"
PORT = 8001
WITHIN_S = {"face": 0.2, "voice": 1.0}
"""An answer that comes later is of no use: a face reading fades after 0.3 s and is gone after 0.5 s."""
_OPENING_S = 2.0
_PAUSES_S = (0.5, 1.0, 2.0, 5.0)
_STEADY_S = 10.0
"""A server that was lost again so soon is left alone for longer than the time before."""
_LEAST_S = 0.02
"""With less time left than this, another server is not worth asking."""
_SLOW_SHARE, _SLOW_IN_A_ROW = 0.5, 5
"""A server that takes more than this share of the deadline, so often in a row, is left for one that is up."""
_VERSION_DIGITS = 15
HASH = "sha256 of version "
_BYTES = 64 << 20
_TYPES = {"uint8": "UINT8", "float32": "FP32"}
_OPTIONS = {"sound", "within_ms", "ca", "cert", "key"}

Report = Callable[[str], None]
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Address:
    """One server."""

    host: str
    port: int

    @property
    def loopback(self) -> bool:
        """Whether what is sent there stays on this machine."""
        try:
            return ipaddress.ip_address(self.host.strip("[]")).is_loopback
        except ValueError:
            return self.host == "localhost"

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Servers:
    """What `triton://host:8001,host2?sound=yes&ca=FILE` asks for."""

    addresses: tuple[Address, ...]
    send_sound: bool = False
    """Whether sound may leave this machine: what people say can be understood in it."""
    within_s: float | None = None
    ca: str = ""
    """Certificates that a server must show one of; empty: those that the system trusts."""
    cert: str = ""
    key: str = ""
    """What this machine shows, where servers want that."""


def names_servers(choice: str) -> bool:
    """Whether an engine's name is an address of Triton servers."""
    return choice.startswith(f"{SCHEME}://")


def servers_of(choice: str) -> Servers:
    """Raises EngineUnavailable that says how such an address is written."""
    parts = urlsplit(choice)
    options = {name: values[-1] for name, values in parse_qs(parts.query).items()}
    try:
        if unknown := sorted(set(options) - _OPTIONS):
            raise ValueError(f"unknown: {', '.join(unknown)}")
        if "@" in parts.netloc or parts.path not in ("", "/"):
            raise ValueError("neither names, passwords nor paths belong into it")
        within = options.get("within_ms")
        return Servers(
            tuple(_host_and_port(one) for one in parts.netloc.split(",")),
            options.get("sound", "no") in ("1", "yes", "true"),
            None if within is None else float(within) / 1000,
            *(options.get(name, "") for name in ("ca", "cert", "key")),
        )
    except ValueError as err:
        raise EngineUnavailable(
            f"'{choice}' names no Triton servers ({err}); it is written {SCHEME}://HOST:{PORT},HOST2:{PORT}, "
            f"and behind a ? may stand {', '.join(sorted(_OPTIONS))}"
        ) from None


def _host_and_port(text: str) -> Address:
    host, colon, port = text.rpartition(":")
    if not colon or text.endswith("]"):
        host, port = text, str(PORT)
    if not host or not port.isdecimal() or not 0 < int(port) < 65_536:
        raise ValueError(f"'{text}' is no HOST:PORT")
    return Address(host, int(port))


def identity(manifest: Manifest) -> str:
    """SHA-256 of all in a manifest that changes answers: files, tensors, recipe; not what was measured."""
    parts = asdict(manifest)
    kept = {k: parts[k] for k in ("name", "kind", "preset", "files", "labels", "inputs", "outputs", "recipe")}
    return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()


def version_of(manifest: Manifest) -> int:
    """Triton's versions are integers: the first 60 bits of the hash, never 0."""
    return int(identity(manifest)[:_VERSION_DIGITS], 16) or 1


def hash_parameter(manifest: Manifest) -> str:
    """Under which name a model's configuration tells the whole hash: it is one for all versions."""
    return f"{HASH}{version_of(manifest)}"


class _Refused(Exception):
    """Why a server's answer cannot be used, in words."""


class _Server:
    """One server: the connection to it, and what is known of it. Dropped and made anew, never repaired."""

    def __init__(self, address: Address, manifest: Manifest, spec: EngineSpec, servers: Servers) -> None:
        self.name = str(address)
        self.up = False
        self.why = "not asked yet"
        self.trial: Future[Tensors] | None = None
        self.took_s = 0.0
        """How long the newest answer took."""
        self._slow_in_a_row = 0
        self._must_be_quick = False
        self._tried_ns = self._up_ns = 0
        self._attempt = 0
        self._address = address
        self._kind = manifest.kind
        self._identity, self._version = identity(manifest), str(version_of(manifest))
        self._hash_parameter = hash_parameter(manifest)
        self._spec = spec
        self._servers = servers
        self._client: Any = None

    def open(self) -> None:
        """Connect and ask which network is there; slow, for the beginning of a run."""
        from tritonclient.utils import InferenceServerException

        try:
            config = (
                self._connected()
                .get_model_config(self._kind, self._version, client_timeout=_OPENING_S)
                .config
            )
        except InferenceServerException as err:
            self.drop(_in_words(err, _OPENING_S))
            return
        found = config.parameters[self._hash_parameter].string_value
        if found != self._identity:
            self.drop(
                f"another network: its hash is {found[:12] or 'not told'}, wanted {self._identity[:12]}"
            )
            return
        self.up, self.why = True, ""

    def ask(self, inputs: Tensors, within_s: float) -> Future[Tensors]:
        """Send a batch; the future fails with _Refused."""
        from tritonclient.grpc import InferInput

        rows = []
        for tensor in self._spec.inputs:
            array = np.ascontiguousarray(inputs[tensor.name])
            row = InferInput(tensor.name, list(array.shape), _TYPES[tensor.dtype])
            row.set_data_from_numpy(array)
            rows.append(row)
        answer: Future[Tensors] = Future()
        asked_ns = stopwatch.wall_ns()

        def done(result: Any, error: Any) -> None:
            self.took_s = (stopwatch.wall_ns() - asked_ns) / 1e9
            try:
                if error is not None:
                    raise _Refused(_in_words(error, within_s))
                answer.set_result(self._taken_apart(result))
            except _Refused as why:
                answer.set_exception(why)

        self._connected().async_infer(
            self._kind,
            rows,
            done,
            model_version=self._version,
            client_timeout=within_s,
        )
        return answer

    def is_slow(self, within_s: float) -> bool:
        """To be asked once after each answer: whether they take long, though none is too late."""
        self._slow_in_a_row = self._slow_in_a_row + 1 if self.took_s > _SLOW_SHARE * within_s else 0
        return self._slow_in_a_row >= _SLOW_IN_A_ROW

    def drop(self, why: str, *, slow: bool = False) -> None:
        """Leave it alone for a while; one that was slow has to be quick to come back."""
        self._must_be_quick, self._slow_in_a_row = slow, 0
        now_ns = stopwatch.wall_ns()
        steady = self.up and now_ns - self._up_ns > _STEADY_S * 1e9
        self._attempt = 0 if steady else self._attempt + 1
        self.up, self.why, self._tried_ns = False, why, now_ns
        self.close()

    def try_again(self, within_s: float) -> bool:
        """Whether it is back. Never waits: what a trial says is looked at the next time."""
        if self.trial is None:
            pause_s = _PAUSES_S[min(self._attempt, len(_PAUSES_S) - 1)]
            if stopwatch.wall_ns() - self._tried_ns >= pause_s * 1e9:
                self.trial = self.ask(zeros_for(self._spec), within_s)
            return False
        if not self.trial.done():
            return False
        failed, self.trial = self.trial.exception(), None
        slow = failed is None and self._must_be_quick and self.took_s > _SLOW_SHARE * within_s
        if slow or failed is not None:
            self.drop(self.why if slow else str(failed), slow=slow)
            return False
        self.up, self.why, self._up_ns = True, "", stopwatch.wall_ns()
        return True

    def close(self) -> None:
        """Let the connection go, with whatever is on its way. Safe to call twice."""
        client, self._client, self.trial = self._client, None, None
        if client is not None:
            client.close()

    def _connected(self) -> Any:
        if self._client is None:
            from tritonclient.grpc import InferenceServerClient

            servers = self._servers
            self._client = InferenceServerClient(
                self.name,
                ssl=not self._address.loopback or bool(servers.ca),
                root_certificates=servers.ca or None,
                private_key=servers.key or None,
                certificate_chain=servers.cert or None,
                # A connection of its own each time: one that is dead would be handed out again otherwise.
                channel_args=[
                    ("grpc.use_local_subchannel_pool", 1),
                    ("grpc.max_send_message_length", _BYTES),
                    ("grpc.max_receive_message_length", _BYTES),
                    ("grpc.initial_reconnect_backoff_ms", 200),
                    ("grpc.max_reconnect_backoff_ms", 1000),
                ],
            )
        return self._client

    def _taken_apart(self, result: Any) -> Tensors:
        """The answer as the contract wants it: the caller's own arrays."""
        if (found := result.get_response().model_version) != self._version:
            raise _Refused(f"another network: it answered out of version {found}, wanted {self._version}")
        outputs = {}
        for tensor in self._spec.outputs:
            array = result.as_numpy(tensor.name)
            if array is None or array.dtype.name != tensor.dtype or array.shape[1:] != tensor.shape:
                raise _Refused(f"another network: it answered no {tensor}")
            outputs[tensor.name] = np.array(array)
        try:
            check_finite(self._spec, outputs)
        except EngineFailed as err:
            raise _Refused(str(err)) from err
        return outputs


def _in_words(error: Any, within_s: float) -> str:
    """What gRPC says, for a person."""
    status, text = str(error.status()), error.message()
    if "DEADLINE_EXCEEDED" in status:
        return f"no answer within {within_s * 1000:.0f} ms"
    if "unknown model" in text or "NOT_FOUND" in status:
        return f"another network, or none ({text.strip().splitlines()[0]})"
    if "connect" in text or "CANCELLED" in status:
        return "it cannot be reached"
    return f"it failed ({text.strip().splitlines()[0][:200]})"


class TritonEngine:
    """Engine on servers, with one of this machine behind them. One caller; owns no thread."""

    def __init__(
        self, manifest: Manifest, servers: Servers, local: Engine, *, report: Report = _log.info
    ) -> None:
        """Ask every server which network it has. `local` is closed with this one."""
        _refuse_without_files(servers)
        self.notice: str | None = None
        self.crops: Counter[str] = Counter()
        """What became of every item: asked = answered by each + answered here + lost; and what went wrong."""
        self._remote = manifest.spec("fp32", SCHEME)
        self._within_s = servers.within_s or WITHIN_S[manifest.kind]
        self._local = local
        self._report = report
        self._servers = [_Server(each, manifest, self._remote, servers) for each in servers.addresses]
        with ThreadPoolExecutor(len(self._servers)) as pool:
            list(pool.map(_Server.open, self._servers))
        for server in self._servers:
            if not server.up:
                report(f"{self._remote.name}: {server.name}: {server.why}")
        self._closed = False
        self._tell()

    @property
    def spec(self) -> EngineSpec:
        """Of the network, wherever it runs."""
        return self._remote

    @property
    def standing_in(self) -> bool:
        """Whether this machine's processor does the servers' work, so that less should be asked of it."""
        return not any(server.up for server in self._servers)

    @property
    def answers_within_s(self) -> float:
        """How long an answer may take; what would be too old by then is not worth asking."""
        return self._within_s

    def submit(self, inputs: Tensors) -> Pending:
        """Send one batch to the first server that works, or judge it here."""
        if self._closed:
            raise EngineError(f"engine '{self._remote.name}' is closed")
        rows = check_inputs(self._remote, inputs)
        self.crops["asked"] += rows
        for server in self._servers:
            if not server.up and server.try_again(self._within_s):
                self._report(f"{server.name} is back")
        self._tell()
        return _OnItsWay(self, inputs, rows)

    def infer(self, inputs: Tensors) -> Tensors:
        """`submit` and wait."""
        return self.submit(inputs).result()

    def warm_up(self) -> None:
        """Of this machine's engine; servers warm up by themselves when they load a network."""
        self._local.warm_up()

    def close(self) -> None:
        """End connections and the local engine. Safe to call twice."""
        self._closed = True
        for server in self._servers:
            server.close()
        self._local.close()

    def send(self, inputs: Tensors, within_s: float) -> tuple[_Server, Future[Tensors]] | None:
        """To the first server that is up; None where there is none or no time."""
        if within_s < _LEAST_S:
            return None
        server = next((one for one in self._servers if one.up), None)
        return None if server is None else (server, server.ask(inputs, within_s))

    def answered(self, server: _Server, rows: int) -> None:
        """A server answered in time; one that is always slow is left if another one is up."""
        self.crops[f"answered by {server.name}"] += rows
        if server.is_slow(self._within_s) and any(one.up for one in self._servers if one is not server):
            self._leave(server, f"its answers take {server.took_s * 1000:.0f} ms", slow=True)

    def lost(self, server: _Server, why: str, rows: int) -> None:
        """A server did not answer as it should."""
        self.crops[f"asked again: {why}"] += rows
        if server.up:
            self._leave(server, why)

    def _leave(self, server: _Server, why: str, *, slow: bool = False) -> None:
        self._report(f"{server.name} is left alone for a while: {why}")
        server.drop(why, slow=slow)
        self._tell()

    def judge_here(self, inputs: Tensors, rows: int) -> Tensors:
        """The local engine's answer."""
        try:
            outputs = self._local.infer(inputs)
        except EngineError:
            self.crops["lost: this machine's engine failed"] += rows
            raise
        self.crops["answered here"] += rows
        return outputs

    def _tell(self) -> None:
        """Keep the user's line true: which server is not used, and why."""
        away = [f"{server.name}: {server.why}" for server in self._servers if not server.up]
        here = ["judged here, less often"] if self.standing_in else []
        self.notice = f"{self._remote.name}: {'; '.join(away + here)}" if away else None


class _OnItsWay:
    """A batch that is asked again until somebody answers."""

    def __init__(self, engine: TritonEngine, inputs: Tensors, rows: int) -> None:
        self._engine = engine
        self._inputs = inputs
        self._rows = rows
        self._until_ns = stopwatch.wall_ns() + round(engine.answers_within_s * 1e9)
        self._sent = engine.send(inputs, engine.answers_within_s)
        self._outputs: Tensors | None = None

    def result(self) -> Tensors:
        """Whoever answers first in time, else this machine."""
        while self._outputs is None:
            if self._sent is None:
                self._outputs = self._engine.judge_here(self._inputs, self._rows)
                break
            server, answer = self._sent
            try:
                # gRPC keeps the deadline; the second is for the case that it does not.
                self._outputs = answer.result(self._engine.answers_within_s + 1.0)
                self._engine.answered(server, self._rows)
            except (_Refused, NotInTime) as why:
                self._engine.lost(server, str(why) or "it hangs", self._rows)
                left_s = (self._until_ns - stopwatch.wall_ns()) / 1e9
                self._sent = self._engine.send(self._inputs, left_s)
        return self._outputs


def _refuse_without_files(servers: Servers) -> None:
    """Certificates that are not there fail here, in words, and not inside gRPC."""
    try:
        import tritonclient.grpc  # noqa: F401
    except ImportError as err:
        raise EngineUnavailable(
            f"{SCHEME}:// needs '{err.name}', of the extra 'fleet': uv sync --extra fleet, "
            "or pip install 'liveaffect[fleet]'"
        ) from err
    for path in filter(None, (servers.ca, servers.cert, servers.key)):
        if not Path(path).is_file():
            raise EngineUnavailable(f"the certificate or key {path} for Triton servers is not there")
    if bool(servers.cert) != bool(servers.key):
        raise EngineUnavailable("a certificate for Triton servers needs its key, and a key its certificate")
