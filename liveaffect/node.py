"""A node: one machine with many cameras and no screen, `liveaffect live --config node.toml` with a `site`.

Cues go to a server by camera, `cues.SITE.CAMERA`; what is down is an alert beside them, a figure on
`/metrics` and a 503 of `/healthz`. Pictures never leave: outputs that would show one are refused, nothing is
drawn. Passwords stand in files or in the environment, `${file:/run/secrets/hall}` or `${HALL}`, and are put
in where an address is opened; everything that is said about a camera says its name.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

from liveaffect.realtime.clock import SECOND, Clock, epoch_ns
from liveaffect.realtime.errors import MissingLibrary, SettingsError
from liveaffect.realtime.live import LiveRun
from liveaffect.realtime.sinks.catalogue import STDOUT, by_ending
from liveaffect.realtime.sinks.network import CAMERA, Alert

if TYPE_CHECKING:
    from liveaffect.realtime.sinks import Outputs
    from liveaffect.realtime.web.server import WebServer
    from liveaffect.settings import Settings

DOWN_NS = 3 * SECOND
"""A camera is down when it has not delivered for so long; a short break is nobody's business."""
LOOK_NS = SECOND
RECORDS = ("cues", "table")
"""Kinds of files that hold no pictures."""
_SECRET = re.compile(r"\$\{(file:)?([^}]+)\}")
_MASK = "SECRET"
_LOG = logging.getLogger(__name__)


def expanded(address: str) -> str:
    """An address with its secrets put in, fit for an URL. Raises SettingsError without showing any."""

    def secret(found: re.Match[str]) -> str:
        in_file, name = found.groups()
        try:
            text = Path(name).read_text("utf-8").strip() if in_file else os.environ[name]
        except (OSError, KeyError, UnicodeDecodeError) as error:
            where = f"the file {name} cannot be read" if in_file else f"{name} is not set"
            raise SettingsError(f"the secret of '{address}' is missing: {where}") from error
        return quote(text, safe="")

    return _SECRET.sub(secret, address)


def refuse_open_secrets(addresses: tuple[str, ...]) -> None:
    """A password in a configuration file is read by whoever reads that."""
    for address in addresses:
        masked = _SECRET.sub(_MASK, address)
        try:
            password = urlsplit(masked[masked.find("=") + 1 :] if "=" in masked else masked).password
        except ValueError as error:
            raise SettingsError(f"'{masked.rpartition('@')[2]}' is no address: {error}") from error
        if password not in (None, "", _MASK):
            name = address.partition("=")[0] if "=" in address else address.rpartition("@")[2]
            raise SettingsError(
                f"{name}: a password stands in the settings. Put it into a file that only this user reads, "
                "and write ${file:PATH} in its place, or ${NAME} for a variable of the environment"
            )


def sink_names(settings: Settings) -> list[str]:
    """The outputs, with the subject of this site where a server is named without one."""
    names = []
    for name in settings.sink:
        scheme, separator, rest = name.partition("://")
        if scheme in ("nats", "mqtt") and separator:
            address, question, query = rest.partition("?")
            if "/" not in _SECRET.sub("", address).rstrip("/"):
                between = "." if scheme == "nats" else "/"
                address = f"{address.rstrip('/')}/{between.join(('cues', settings.site, CAMERA))}"
                if scheme == "nats" and "stream=" not in query:
                    query = "&".join(filter(None, (query, f"stream=cues-{settings.site}")))
                    question = "?"
            name = f"{scheme}://{address}{question}{query}"
        elif scheme != "osc" and name != STDOUT and _shows(name):
            raise SettingsError(
                f"pictures never leave a node, and '{name}' shows them; a node sends cues to nats:// or "
                "mqtt://, or writes them to a .jsonl or .csv file"
            )
        names.append(name)
    if not names:
        raise SettingsError("a node needs an output for its cues, such as sink = ['nats://10.0.0.9']")
    return names


def _shows(sink: str) -> bool:
    """Whether an output is one of pictures."""
    return sink in ("window", "camera") or sink.startswith("ws:") or by_ending(sink).kind not in RECORDS


@dataclass(frozen=True, slots=True)
class CameraState:
    """How one camera is doing."""

    up: bool
    message: str
    pictures: int
    lost: int
    restarts: int


class Node:
    """Looks after the cameras of a run from its main thread; read by the server of `/metrics`."""

    def __init__(self, site: str, clock: Clock, tell: Callable[[Alert], None]) -> None:
        self.site = site
        self.cameras: Mapping[str, CameraState] = {}
        self.run: LiveRun | None = None
        self.outputs: Outputs | None = None
        self._clock = clock
        self._tell = tell
        self._looked_ns = -LOOK_NS

    def look(self) -> None:
        """Once a second: who is down, who is back."""
        now_ns = self._clock.now_ns()
        if self.run is None or now_ns - self._looked_ns < LOOK_NS:
            return
        self._looked_ns = now_ns
        before, self.cameras = self.cameras, {s.name: self._state(s, now_ns) for s in self._states(self.run)}
        for name, state in self.cameras.items():
            was_up = before[name].up if name in before else True
            if state.up != was_up:
                _LOG.warning("%s is %s", name, "back" if state.up else f"down: {state.message}")
                self._tell(Alert(name, state.up, state.message, epoch_ns()))

    def _states(self, run: LiveRun) -> list[Any]:
        return [
            supervisor.state for supervisor in run.supervisors if supervisor.state.name in run.rings.frames
        ]

    def _state(self, state: Any, now_ns: int) -> CameraState:
        up = state.phase == "running" or (now_ns - state.since_ns < DOWN_NS and self._was_up(state.name))
        message = "" if up else state.message or state.phase
        return CameraState(up, message, state.delivered, state.lost, state.restarts)

    def _was_up(self, name: str) -> bool:
        return name not in self.cameras or self.cameras[name].up

    def health(self) -> tuple[bool, dict[str, Any]]:
        """Whether all is well, and what is not."""
        down = {name: state.message for name, state in self.cameras.items() if not state.up}
        wiring = None if self.run is None else self.run.analysis.wiring
        networks = () if wiring is None else (*wiring.networks.failing.values(), *wiring.networks.notices)
        ready = wiring is not None
        failed = [] if self.outputs is None else self.outputs.failures
        body = {"v": 1, "site": self.site, "ready": ready, "cameras": len(self.cameras), "down": down}
        body |= {"networks": list(networks), "outputs": list(failed)}
        return ready and not down and not failed, body

    def collect(self) -> list[Any]:
        """For Prometheus; called by its library."""
        from prometheus_client.core import CounterMetricFamily as Counts
        from prometheus_client.core import GaugeMetricFamily as Gauge

        up = Gauge("liveaffect_camera_up", "Whether a camera delivers.", labels=["camera"])
        pictures = Counts("liveaffect_camera_pictures", "Pictures that came.", labels=["camera"])
        lost = Counts("liveaffect_camera_lost", "Pictures known to be lost.", labels=["camera"])
        restarts = Counts("liveaffect_camera_restarts", "Times it was opened again.", labels=["camera"])
        for name, state in self.cameras.items():
            for metric, value in ((up, state.up), (pictures, state.pictures), (lost, state.lost)):
                metric.add_metric([name], value)
            restarts.add_metric([name], state.restarts)
        return [up, pictures, lost, restarts, *self._of_the_analysis()]

    def _of_the_analysis(self) -> list[Any]:
        from prometheus_client.core import CounterMetricFamily as Counts
        from prometheus_client.core import GaugeMetricFamily as Gauge

        if self.run is None or (wiring := self.run.analysis.wiring) is None:
            return []
        items = Counts("liveaffect_items", "What servers were asked, and what came of it.", labels=["end"])
        for end, count in wiring.networks.asked_of_servers().items():
            items.add_metric([end], count)
        left_out = Counts("liveaffect_left_out", "What was not analysed, by cause.", labels=["cause"])
        causes = {f"skipped {cause}": n for cause, n in wiring.scheduler.skipped.items()}
        for cause, count in {**causes, **wiring.health.left_out}.items():
            left_out.add_metric([cause], count)
        standing_in = Gauge("liveaffect_standing_in", "Whether faces are judged here, for lost servers.")
        standing_in.add_metric([], wiring.networks.standing_in)
        level = Gauge("liveaffect_shed_level", "How much is left out because the machine is late.")
        level.add_metric([], wiring.scheduler.shedder.level)
        return [items, left_out, standing_in, level]


def status_server(node: Node, settings: Settings) -> WebServer:
    """`/metrics` and `/healthz`, and nothing else that holds data. Not started yet."""
    try:
        from prometheus_client import CollectorRegistry, generate_latest
        from starlette.requests import Request
        from starlette.responses import JSONResponse, Response
        from starlette.routing import Route

        from liveaffect.realtime.web.server import Access, WebServer
    except ModuleNotFoundError as error:
        raise MissingLibrary(
            f"a node needs {error.name}, of the extra 'fleet': uv sync --extra fleet, "
            "or pip install 'liveaffect[fleet]'"
        ) from error

    registry = CollectorRegistry()
    registry.register(node)

    async def metrics(request: Request) -> Response:
        return Response(generate_latest(registry), media_type="text/plain; version=0.0.4; charset=utf-8")

    async def healthz(request: Request) -> Response:
        well, body = node.health()
        return JSONResponse(body, 200 if well else 503)

    routes = [Route("/metrics", metrics), Route("/healthz", healthz)]
    return WebServer(routes, {}, Access(settings.host, settings.token), settings.port)
