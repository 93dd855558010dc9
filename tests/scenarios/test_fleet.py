"""Two nodes, two Triton servers and a broker in network namespaces: whatever is lost, the ledger balances."""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from liveaffect.engines.build.triton_repository import Serving, write_repository
from liveaffect.realtime.sinks.network import ANSWERS_WITHIN_S
from liveaffect.realtime.testing.fleet import Machines, record_sightings
from liveaffect.realtime.testing.real_triton import RealTriton, TritonMissing, make_certificate

NATS = "/usr/sbin/nats-server"
CAMERAS = 3
WORST_MS = 700
"""Of a cue: the deadline, one local pass, a grid point, and a machine of two cores that runs all of this."""
STALLED = "the broker stalls"
MACHINES = ("n1", "n2", "s1", "s2", "b1")


class Fleet:
    """The machines and what runs on them."""

    def __init__(self, machines: Machines, folder: Path) -> None:
        self.machines = machines
        self.folder = folder
        self.servers: dict[str, RealTriton] = {}
        self.broker: subprocess.Popen[bytes] | None = None
        self.nodes: dict[str, list[subprocess.Popen[str]]] = {"n1": [], "n2": []}

    def start(self) -> None:
        machines, folder, at = self.machines, self.folder, self.machines.address
        secured = make_certificate(folder, "triton", at["s1"], at["s2"])
        write_repository(folder / "models", Serving(backend="python"), None, print, kinds=["face"])
        record_sightings(folder / "sightings.npz")
        for number, name in enumerate(("s1", "s2")):
            (folder / name).mkdir()
            arguments = [f"{key}={value}" for key, value in secured.items()]
            self.servers[name] = RealTriton(
                folder / "models", 8001 + number, folder=folder / name, arguments=arguments
            )
            self.servers[name].start(machines.prefix(name))
        self.start_broker()

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

    def start_node(self, name: str, seconds: float, *, skew_s: float = 0.0) -> None:
        at, run = self.machines.address, len(self.nodes[name])
        servers = [f"{at['s1']}:8001", f"{at['s2']}:8002"]
        wish = {
            "name": name,
            "cameras": CAMERAS,
            "seconds": seconds,
            "skew_s": skew_s,
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

    def written(self, name: str, run: int) -> list[str]:
        return (self.folder / f"{name}-{run}.written").read_text().splitlines()

    def end(self) -> None:
        for node in (each for runs in self.nodes.values() for each in runs):
            node.kill()
            node.wait()
            assert node.stdout is not None
            node.stdout.close()
        for server in self.servers.values():
            server.kill()
        self.kill_broker()


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
        "a node's link is cut": (lambda: machines.link("n1", up=False), lambda: machines.link("n1", up=True)),
        "the broker is killed": (fleet.kill_broker, fleet.start_broker),
        STALLED: (lambda: fleet.signal_broker(signal.SIGSTOP), lambda: fleet.signal_broker(signal.SIGCONT)),
    }


def go_through(fleet: Fleet, seed: int, seconds: float, each_s: float) -> dict[str, dict[str, Any]]:
    """Run both nodes, one an hour ahead, with all faults one after the other; the ledgers of both."""
    random_one = random.Random(seed)
    end = time.monotonic() + seconds
    fleet.start_node("n1", seconds)
    fleet.start_node("n2", 3600, skew_s=3600.0)
    time.sleep(3.0)
    waiting: list[str] = []
    while time.monotonic() + 2 * each_s < end - 3.0:
        waiting = waiting or random_one.sample(sorted(faults(fleet)), len(faults(fleet)))
        what = waiting.pop()
        begin, stop = faults(fleet)[what]
        begin()
        # What a broker has got and not confirmed is sent again after a while; then it must not count twice.
        least_s = ANSWERS_WITHIN_S + 1.0 if what == STALLED else 0.0
        time.sleep(max(least_s, each_s * random_one.uniform(0.8, 1.2)))
        stop()
        time.sleep(each_s / 2)
    # A node is lost, and another begins in its place.
    fleet.nodes["n2"][0].kill()
    fleet.nodes["n2"][0].communicate()
    fleet.start_node("n2", 5.0, skew_s=3600.0)
    runs = {"n1": fleet.nodes["n1"][0], "n2": fleet.nodes["n2"][1]}
    ledgers = {name: json.loads(run.communicate(timeout=90)[0]) for name, run in runs.items()}
    sys.stdout.write(json.dumps(ledgers, indent=1))
    return ledgers


def check(fleet: Fleet, ledgers: dict[str, dict[str, Any]]) -> None:
    """Every cue is stored once, every crop has an end, no cue was old."""
    stored = fleet.stored()
    assert len(stored) == len(set(stored)), "a cue is stored twice"
    for name, run in (("n1", 0), ("n2", 1)):
        written = fleet.written(name, run)
        assert written, f"{name} wrote nothing"
        missing = set(written) - set(stored)
        assert not missing, f"{len(missing)} of {len(written)} cues of {name} are not stored"
        assert ledgers[name]["grid_points_missed"] == 0
    lost_with_the_node = set(fleet.written("n2", 0)) - set(stored)
    everything = {
        line for name, run in (("n1", 0), ("n2", 0), ("n2", 1)) for line in fleet.written(name, run)
    }
    assert set(stored) == everything - lost_with_the_node
    assert len(lost_with_the_node) <= CAMERAS * 3, f"{len(lost_with_the_node)} cues went with the node"
    for name, ledger in ledgers.items():
        crops = ledger["crops"]
        ends = sum(n for end, n in crops.items() if end.startswith(("faces answered", "faces lost")))
        assert crops["faces asked"] == ends > 0, crops
        assert not [end for end in crops if end.startswith("faces lost")], crops
        assert ledger["age_max_ms"] <= WORST_MS, f"{name}: a cue was {ledger['age_max_ms']} ms old"


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
            time.sleep(4.0)
            yield made
        except TritonMissing as why:
            pytest.skip(f"needs the real tritonserver: {why}")
        finally:
            made.end()


@pytest.mark.slow
def test_a_fleet_loses_no_cue_and_no_crop_without_a_name_for_it(fleet: Fleet) -> None:
    ledgers = go_through(fleet, seed=19, seconds=32.0, each_s=2.0)
    check(fleet, ledgers)
    crops = ledgers["n1"]["crops"]
    assert len([end for end in crops if end.startswith("faces answered by")]) == 2, crops
    assert crops["faces answered here"] > 0, crops


@pytest.mark.fleet
@pytest.mark.parametrize("seed", range(3))
def test_a_fleet_goes_through_many_faults(fleet: Fleet, seed: int) -> None:
    minutes = float(os.environ.get("LIVEAFFECT_FLEET_MINUTES", "3"))
    check(fleet, go_through(fleet, seed, 60.0 * minutes, each_s=3.0))
