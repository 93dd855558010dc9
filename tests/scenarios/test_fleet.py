"""Two nodes, two Triton servers and a broker in network namespaces: whatever is lost, the ledger balances."""

from __future__ import annotations

import asyncio
import faulthandler
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from liveaffect.engines import manifest as manifests
from liveaffect.engines.build.triton_repository import Serving, write_repository
from liveaffect.engines.load import manifest_path
from liveaffect.engines.triton_engine import version_of
from liveaffect.realtime.sinks.network import ANSWERS_WITHIN_S
from liveaffect.realtime.testing.engines import write_tiny
from liveaffect.realtime.testing.fleet import Machines, record_sightings
from liveaffect.realtime.testing.real_triton import RealTriton, TritonMissing, make_certificate

NATS = "/usr/sbin/nats-server"
CAMERAS = 3
WORST_MS = 700
"""Of a cue: the deadline, one local pass, a grid point, and a machine of two cores that runs all of this."""
SLOW_S, LATE_S = 0.14, 0.3
"""What a slow server takes longer for every batch: much of the deadline, and more than anybody waits."""
STALLED = "the broker stalls"
MACHINES = ("n1", "n2", "s1", "s2", "b1")
LATE = """

_judge = TritonPythonModel.execute


def _late(self, requests):
    import time

    time.sleep(float(Path({path!r}).read_text()))
    return _judge(self, requests)


TritonPythonModel.execute = _late
"""
"""Goes to the end of what a server runs: it is as slow as a file says."""


def until(holds: Callable[[], bool], what: str, seconds: float = 30.0) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, f"in {seconds:.0f} s it did not come to it that {what}"
        time.sleep(0.1)


class Fleet:
    """The machines and what runs on them."""

    def __init__(self, machines: Machines, folder: Path) -> None:
        self.machines = machines
        self.folder = folder
        self.servers: dict[str, RealTriton] = {}
        self.started_again: Counter[str] = Counter()
        """Servers that ended by themselves after a fault."""
        self.broker: subprocess.Popen[bytes] | None = None
        self.nodes: dict[str, list[subprocess.Popen[str]]] = {"n1": [], "n2": []}

    def start(self) -> None:
        machines, folder, at = self.machines, self.folder, self.machines.address
        arguments = ["--model-control-mode=poll", "--repository-poll-secs=1"]
        secured = make_certificate(folder, "triton", at["s1"], at["s2"])
        arguments += [f"{key}={value}" for key, value in secured.items()]
        record_sightings(folder / "sightings.npz")
        for number, name in enumerate(("s1", "s2")):
            (folder / name).mkdir()
            self.make_slow(0.0, name)
            self.export(name, None, LATE.format(path=str(folder / name / "late_s")))
            self.servers[name] = RealTriton(
                folder / name / "models", 8001 + number, folder=folder / name, arguments=arguments
            )
            self.servers[name].start(machines.prefix(name))
        self.start_broker()
        for name in self.servers:
            until(lambda name=name: self.serves(name, None), f"{name} is ready", 60.0)  # type: ignore[misc]

    def export(self, name: str, weights: Path | None, addition: str = "") -> None:
        """What the command writes for a server, beside what is there."""
        models = self.folder / name / "models"
        write_repository(models, Serving(backend="python"), weights, print, kinds=["face"])
        with open(models / "face" / version(weights) / "model.py", "a", encoding="utf-8") as model:
            model.write(addition)

    def serves(self, name: str, weights: Path | None) -> bool:
        """Whether a server has this network ready."""
        from tritonclient.grpc import InferenceServerClient
        from tritonclient.utils import InferenceServerException

        address = f"{self.machines.address[name]}:{self.servers[name].port}"
        ca, own = str(self.folder / "triton.pem"), [("grpc.use_local_subchannel_pool", 1)]
        with InferenceServerClient(address, ssl=True, root_certificates=ca, channel_args=own) as client:
            try:
                return bool(client.is_model_ready("face", version(weights), client_timeout=1.0))
            except InferenceServerException:
                return False

    def make_slow(self, seconds: float, *names: str) -> None:
        """From now on these servers take so much longer for every batch."""
        for name in names:
            manifests.write_whole(self.folder / name / "late_s", str(seconds).encode())

    def supervise(self) -> None:
        """What systemd does with a server that ended by itself."""
        for name, server in self.servers.items():
            if server.ended:
                server.kill()
                server.start(self.machines.prefix(name))
                self.started_again[name] += 1

    def start_broker(self) -> None:
        command = [NATS, "-a", "0.0.0.0", "-p", "4222", "-js", "-sd", str(self.folder / "stored")]
        self.broker = subprocess.Popen(
            [*self.machines.prefix("b1"), *command], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )

    def signal_broker(self, number: int) -> None:
        assert self.broker is not None
        self.broker.send_signal(number)

    def kill_broker(self) -> None:
        if self.broker is not None:
            self.broker.kill()
            self.broker.wait()

    def start_node(
        self, name: str, seconds: float, *, skew_s: float = 0.0, weights: Path | None = None
    ) -> None:
        at, run = self.machines.address, len(self.nodes[name])
        servers = [f"{at['s1']}:8001", f"{at['s2']}:8002"]
        wish = {
            "name": name,
            "cameras": CAMERAS,
            "seconds": seconds,
            "skew_s": skew_s,
            "weights": str(weights or ""),
            "sightings": str(self.folder / "sightings.npz"),
            "engine": f"triton://{','.join(servers if name == 'n1' else servers[::-1])}"
            f"?ca={self.folder / 'triton.pem'}",
            "sink": f"nats://{at['b1']}:4222/cues.site.{{camera}}?stream=cues",
            "subject": "cues.site.{camera}",
            "written": str(self.folder / f"{name}-{run}.written"),
        }
        path = self.folder / f"{name}-{run}.json"
        path.write_text(json.dumps(wish))
        command = [sys.executable, "-m", "liveaffect.realtime.testing.fleet", str(path)]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        self.nodes[name].append(
            subprocess.Popen(
                [*self.machines.prefix(name), *command], stdout=subprocess.PIPE, text=True, env=environment
            )
        )

    def stop_node(self, name: str) -> dict[str, Any]:
        """End it in order; its ledger."""
        self.nodes[name][-1].terminate()
        ledger: dict[str, Any] = json.loads(self.nodes[name][-1].communicate(timeout=30)[0])
        return ledger

    def stored(self) -> list[str]:
        """Every cue that the broker has, in the words in which nodes write theirs down."""
        import nats

        async def read() -> list[str]:
            client = await nats.connect(f"nats://{self.machines.address['b1']}:4222")
            subscription = await client.jetstream().subscribe("cues.>", ordered_consumer=True)
            total = (await client.jetstream().stream_info("cues")).state.messages
            found = [await subscription.next_msg(5) for _ in range(total)]
            await client.close()
            cues = [(m.subject, json.loads(m.data)) for m in found]
            return [f"{subject} {c['epoch_ns']} {c['track']} {c['t']}" for subject, c in cues]

        return asyncio.run(read())

    def written(self, run: str) -> list[str]:
        """Every cue that this run of a node made, `n1-0` for the first of n1."""
        return (self.folder / f"{run}.written").read_text().splitlines()

    def end(self) -> None:
        for node in (each for runs in self.nodes.values() for each in runs):
            node.kill()
            node.wait()
            assert node.stdout is not None
            node.stdout.close()
        for server in self.servers.values():
            server.kill()
        self.kill_broker()


def version(weights: Path | None) -> str:
    return str(version_of(manifests.read(manifest_path("face", weights))))


def faults(fleet: Fleet) -> dict[str, tuple[Callable[[], None], Callable[[], None]]]:
    """Each fault, and how it ends."""
    servers, machines = fleet.servers, fleet.machines

    return {
        "a server is killed": (servers["s1"].kill, lambda: servers["s1"].start(machines.prefix("s1"))),
        "a server stalls": (
            lambda: servers["s2"].send(signal.SIGSTOP),
            lambda: servers["s2"].send(signal.SIGCONT),
        ),
        "a server's link is cut": (
            lambda: machines.link("s1", up=False),
            lambda: machines.link("s1", up=True),
        ),
        "a server is slow": (lambda: fleet.make_slow(LATE_S, "s1"), lambda: fleet.make_slow(0.0, "s1")),
        "all servers are slow": (
            lambda: fleet.make_slow(LATE_S, "s1", "s2"),
            lambda: fleet.make_slow(0.0, "s1", "s2"),
        ),
        "a node's link is cut": (lambda: machines.link("n1", up=False), lambda: machines.link("n1", up=True)),
        "the broker is killed": (fleet.kill_broker, fleet.start_broker),
        STALLED: (lambda: fleet.signal_broker(signal.SIGSTOP), lambda: fleet.signal_broker(signal.SIGCONT)),
    }


def go_through(fleet: Fleet, seed: int, seconds: float, each_s: float) -> dict[str, dict[str, Any]]:
    """Both nodes, one an hour ahead, with all faults one after the other; the ledger of each run's end."""
    random_one = random.Random(seed)
    end = time.monotonic() + seconds
    fleet.start_node("n1", seconds)
    fleet.start_node("n2", 3600, skew_s=3600.0)
    time.sleep(3.0)
    waiting: list[str] = []
    went_through: Counter[str] = Counter()
    while time.monotonic() + 2 * each_s < end - 3.0:
        waiting = waiting or random_one.sample(sorted(faults(fleet)), len(faults(fleet)))
        what = waiting.pop()
        begin, stop = faults(fleet)[what]
        begin()
        # What a broker has got and not confirmed is sent again after a while; then it must not count twice.
        least_s = ANSWERS_WITHIN_S + 1.0 if what == STALLED else 0.0
        time.sleep(max(least_s, each_s * random_one.uniform(0.8, 1.2)))
        stop()
        fleet.supervise()
        went_through[what] += 1
        time.sleep(each_s / 2)
    # A node is lost, and another begins in its place.
    fleet.nodes["n2"][0].kill()
    fleet.nodes["n2"][0].communicate()
    fleet.start_node("n2", 5.0, skew_s=3600.0)
    runs = {"n1-0": fleet.nodes["n1"][0], "n2-1": fleet.nodes["n2"][1]}
    ledgers = {name: json.loads(run.communicate(timeout=90)[0]) for name, run in runs.items()}
    told = {"seed": seed, "faults": went_through, "started again": fleet.started_again, "runs": ledgers}
    sys.stdout.write(json.dumps(told, indent=1))
    if wanted := os.environ.get("LIVEAFFECT_FLEET_RESULTS"):
        with open(wanted, "a", encoding="utf-8") as results:
            results.write(json.dumps({**told, "stored": len(fleet.stored())}) + "\n")
    return ledgers


def check(fleet: Fleet, ledgers: dict[str, dict[str, Any]], killed: str = "") -> None:
    """Every cue is stored once, but for the last ones of a node that was killed; none was old."""
    stored = fleet.stored()
    assert len(stored) == len(set(stored)), "a cue is stored twice"
    everything = set[str]()
    for run, ledger in ledgers.items():
        written = fleet.written(run)
        everything |= set(written)
        assert written, f"{run} wrote nothing"
        missing = set(written) - set(stored)
        assert not missing, f"{len(missing)} of {len(written)} cues of {run} are not stored"
        assert ledger["grid_points_missed"] == 0
        crops = ledger["crops"]
        ends = sum(n for end, n in crops.items() if end.startswith(("faces answered", "faces lost")))
        assert crops["faces asked"] == ends > 0, crops
        assert not [end for end in crops if end.startswith("faces lost")], crops
        assert ledger["age_max_ms"] <= WORST_MS, f"{run}: a cue was {ledger['age_max_ms']} ms old"
    written = fleet.written(killed) if killed else []
    lost_with_the_node = set(written) - set(stored)
    assert set(stored) == (everything | set(written)) - lost_with_the_node
    assert len(lost_with_the_node) <= CAMERAS * 3, f"{len(lost_with_the_node)} cues went with the node"


@pytest.fixture
def fleet(tmp_path: Path) -> Any:
    if os.geteuid() != 0:
        pytest.skip("namespaces need root, which is beyond this hardware's user")
    if not Path(NATS).exists():
        pytest.skip("needs the package nats-server, which .ci/run installs")
    with Machines(MACHINES) as machines:
        made = Fleet(machines, tmp_path)
        try:
            made.start()
            yield made
        except TritonMissing as why:
            pytest.skip(f"needs the real tritonserver: {why}")
        finally:
            made.end()


@pytest.mark.slow
def test_who_wants_the_machines_of_a_fleet_waits_for_those_who_have_them() -> None:
    if os.geteuid() != 0:
        pytest.skip("namespaces need root, which is beyond this hardware's user")
    had = threading.Event()

    def want() -> None:
        with Machines(("n1",)):
            had.set()

    with Machines(("n1",)):
        other = threading.Thread(target=want)
        other.start()
        assert not had.wait(1.0)
    other.join(300.0)  # others may be before it
    assert had.is_set()


@pytest.mark.slow
def test_a_fleet_loses_no_cue_and_no_crop_without_a_name_for_it(fleet: Fleet) -> None:
    ledgers = go_through(fleet, seed=19, seconds=38.0, each_s=2.0)
    check(fleet, ledgers, "n2-0")
    crops = ledgers["n1-0"]["crops"]
    assert len([end for end in crops if end.startswith("faces answered by")]) == 2, crops
    assert crops["faces answered here"] > 0, crops


@pytest.mark.slow
def test_a_server_that_is_always_late_is_named_and_left_until_it_is_quick_again(fleet: Fleet) -> None:
    fleet.start_node("n1", 3600)
    time.sleep(4.0)
    for late_s, slow, seconds in (
        (SLOW_S, ["s1"], 3.0),
        (0.0, [], 4.0),
        (LATE_S, ["s1"], 4.0),
        (LATE_S, ["s1", "s2"], 4.0),
        (0.0, [], 8.0),
    ):
        fleet.make_slow(0.0, "s1", "s2")
        fleet.make_slow(late_s, *slow)
        time.sleep(seconds)
    ledger = fleet.stop_node("n1")
    check(fleet, {"n1-0": ledger})
    late, back = " is left alone for a while: no answer within 200 ms", " is back"
    for name in ("s1", "s2"):
        server = f"{fleet.machines.address[name]}:{fleet.servers[name].port}"
        said = [line.removeprefix(server) for line in ledger["said"] if line.startswith(server)]
        if name == "s1":
            assert any(re.match(" is left alone for a while: its answers take", line) for line in said), (
                ledger
            )
        # Beside other tests a quick server is late now and then, too, and is left and taken again once more.
        assert back in said[said.index(late) :], ledger
        assert ledger["crops"][f"faces answered by {server}"] > CAMERAS * 10, ledger
    assert ledger["crops"]["faces answered here"] > CAMERAS * 10, ledger
    # A late server is asked again, and each time its lateness costs one batch the deadline, no more.
    assert ledger["age_p99_ms"] < 400, ledger


@pytest.mark.slow
def test_a_network_is_exchanged_in_the_whole_fleet_with_no_cue_lost_or_doubled(
    fleet: Fleet, tmp_path: Path
) -> None:
    newer = tmp_path / "newer"
    write_tiny(newer, "face", seed=3)
    nodes, ledgers = ("n1", "n2"), {}
    for name in nodes:
        fleet.start_node(name, 3600)
    time.sleep(4.0)
    for name in fleet.servers:
        fleet.export(name, newer)
        until(lambda name=name: fleet.serves(name, newer), f"{name} has the new network")  # type: ignore[misc]
        assert fleet.serves(name, None), f"{name} has the old network no more, which nodes still ask for"
    for name in nodes:
        ledgers[f"{name}-0"] = fleet.stop_node(name)
        fleet.start_node(name, 3600, weights=newer)
        time.sleep(4.0)
    for name in fleet.servers:
        shutil.rmtree(fleet.folder / name / "models" / "face" / version(None))
        until(lambda name=name: not fleet.serves(name, None), f"{name} has let the old one go")  # type: ignore[misc]
    time.sleep(2.0)
    for name in nodes:
        ledgers[f"{name}-1"] = fleet.stop_node(name)
    sys.stdout.write(json.dumps(ledgers, indent=1))
    check(fleet, ledgers)
    for run, ledger in ledgers.items():
        assert "another network" not in json.dumps(ledger), ledger
        # Two cores that load networks beside other tests are late for many a batch, which is judged here.
        by_servers = sum(n for end, n in ledger["crops"].items() if end.startswith("faces answered by"))
        assert by_servers >= 0.2 * ledger["crops"]["faces asked"], f"{run}: {ledger['crops']}"


@pytest.mark.fleet
@pytest.mark.parametrize("seed", range(3))
def test_a_fleet_goes_through_many_faults(fleet: Fleet, seed: int) -> None:
    faulthandler.cancel_dump_traceback_later()  # pytest's, which takes what is long for what hangs
    minutes = float(os.environ.get("LIVEAFFECT_FLEET_MINUTES", "3"))
    check(fleet, go_through(fleet, seed, 60.0 * minutes, each_s=3.0), "n2-0")
