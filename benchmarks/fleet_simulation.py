"""How many servers does a fleet need, how old do answers get, and what does a camera cost?

    python benchmarks/fleet_simulation.py measure      1 to 64 virtual cameras on a real Triton server here
    python benchmarks/fleet_simulation.py simulate     10 to 10,000 cameras, checked against what was measured

`measure` writes benchmarks/results/fleet.json: what a node and the server use of the processor, how long a
step takes, Triton's own service times by batch size, and how a machine with other work disturbs: just before
and after each run, how late it wakes who slept and how much longer than its processor time some work takes.
`simulate` feeds a discrete-event model (SimPy) with them: nodes that look at each camera in every fifth of
their 25 turns a second, a batcher that waits 2 ms, executions and node work that share cores in turns and are
disturbed as was measured. It compares itself with the measured runs, and draws docs/fleet.png.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator
from pathlib import Path
from typing import Any

import numpy as np
import simpy

from liveaffect.engines.build.triton_repository import Serving, write_repository
from liveaffect.engines.triton_engine import WITHIN_S
from liveaffect.realtime.testing.fleet import RATE_HZ, record_sightings
from liveaffect.realtime.testing.real_triton import RealTriton, free_port

ROOT = Path(__file__).resolve().parent.parent
RESULTS, PICTURE = ROOT / "benchmarks" / "results" / "fleet.json", ROOT / "docs" / "fleet.png"
CAMERAS = {1: 4.0, 4: 2.0, 16: 1.0, 64: 1.0}
"""How many, and how much longer their run is: few cameras make few steps to judge the slowest by."""
LOOK_EVERY = 5
"""Each camera is looked at in every fifth turn, 5 times a second: with more, two cores are too few for 64."""
MOST_NODES = 4
MAX_BATCH, DELAY_S = 64, 0.002
CROP_BYTES = 64 * 64 * 3
SLICE_S = 0.004
"""A core is handed on after so long, as Linux does among equals."""
DISTURBED_S, SLEPT_S, WORKED_S = 4.0, 0.002, 0.001
"""How long is watched how a machine disturbs: by sleeping so long and working so long, again and again."""
WAKES = {"node": 2, "server": 4}
"""Who has to be woken before the work of each can begin: at a node what receives and what waits for it; at a
server what receives, what makes batches, what runs the network, and who hands the answer back."""


# Measured.


def measure(seconds: float) -> None:
    """Each number of cameras once, on a server of its own start."""
    runs = []
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        write_repository(
            folder / "models", Serving(backend="python", precision="int8"), None, print, kinds=["face"]
        )
        record_sightings(folder / "sightings.npz")
        for cameras, longer in CAMERAS.items():
            runs.append(_measured(folder, cameras, seconds * longer))
            print(json.dumps(runs[-1] | {"disturbed": ""}))
    RESULTS.write_text(json.dumps({"command": "measure", "seconds": seconds, "runs": runs}, indent=1) + "\n")


def _measured(folder: Path, cameras: int, seconds: float) -> dict[str, Any]:
    from tritonclient.grpc import InferenceServerClient

    server = RealTriton(folder / "models", free_port(), folder=folder)
    server.start()
    time.sleep(5.0)
    each = max(1, cameras // MOST_NODES)
    disturbed = disturbance()
    client = InferenceServerClient(f"127.0.0.1:{server.port}")
    before, cpu_s = _statistics(client), server.cpu_s()
    nodes = [_node(folder, server.port, number, each, seconds) for number in range(cameras // each)]
    ledgers = [json.loads(node.communicate()[0]) for node in nodes]
    after, used_s = _statistics(client), server.cpu_s() - cpu_s
    client.close()
    disturbed += disturbance()
    server.kill()
    asked = sum(ledger["crops"]["faces asked"] for ledger in ledgers)
    here = sum(ledger["crops"].get("faces answered here", 0) for ledger in ledgers)
    spent = {
        size: [now - then for now, then in zip(after[size], before.get(size, [0, 0]), strict=True)]
        for size in after
    }
    return {
        "cameras": cameras,
        "nodes": len(nodes),
        "node_cores": sum(ledger["cores"] for ledger in ledgers),
        "server_cores": used_s / seconds,
        "crops_per_s": asked / max(ledger["seconds"] for ledger in ledgers),
        "answered_here": here / asked,
        "step_p50_ms": float(np.mean([ledger["step_p50_ms"] for ledger in ledgers])),
        "step_p99_ms": float(np.mean([ledger["step_p99_ms"] for ledger in ledgers])),
        "steps": sum(ledger["steps"] for ledger in ledgers),
        "disturbed": " ".join(f"{10 * late:.0f}+{10 * longer:.0f}" for late, longer in disturbed),
        "executions_per_s": sum(n for n, _ in spent.values()) / seconds,
        "service_ms": {str(size): ns / n / 1e6 for size, (n, ns) in sorted(spent.items()) if n > 5},
    }


def _node(folder: Path, port: int, number: int, cameras: int, seconds: float) -> subprocess.Popen[str]:
    wish = {
        "name": f"n{number}",
        "cameras": cameras,
        "seconds": seconds,
        "look_every": LOOK_EVERY,
        "begin_s": 2.0 + number * 0.013,
        "sightings": str(folder / "sightings.npz"),
        "engine": f"triton://127.0.0.1:{port}",
        "written": str(folder / f"{number}.written"),
    }
    path = folder / f"{number}.json"
    path.write_text(json.dumps(wish))
    command = [sys.executable, "-m", "liveaffect.realtime.testing.fleet", str(path)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)


def disturbance() -> list[tuple[float, float]]:
    """How late this process was woken and how much longer its work took, in ms, in the order of time."""
    found = []
    end = time.monotonic() + DISTURBED_S
    while (began := time.monotonic()) < end:
        time.sleep(SLEPT_S)
        woken, worked = time.monotonic(), time.thread_time()
        while time.thread_time() - worked < WORKED_S:
            pass
        longer = time.monotonic() - woken - (time.thread_time() - worked)
        found.append((1000 * (woken - began - SLEPT_S), 1000 * longer))
    return found


def _statistics(client: Any) -> dict[int, list[int]]:
    """Executions and nanoseconds of the network, by batch size."""
    found = client.get_inference_statistics("face").model_stats[0].batch_stats
    return {each.batch_size: [each.compute_infer.count, each.compute_infer.ns] for each in found}


# Simulated.


class Model:
    """One fleet: nodes, servers with a batcher each, cores that are shared or not."""

    def __init__(self, fitted: dict[str, float], disturbed: str = "", seed: int = 0) -> None:
        """`disturbed`: as watched on a machine with other work, in tenths of ms: woken late+taken away."""
        self.fitted = fitted
        pairs = [pair.split("+") for pair in disturbed.split()]
        self._disturbed = [(int(late) / 1e4, int(longer) / 1e4) for late, longer in pairs]
        self.steps_ms: list[float] = []
        self.batches: list[int] = []
        self.late = self.crops = 0
        self.env = simpy.Environment()
        self._random = np.random.default_rng(seed)

    def run(self, cameras: int, each: int, servers: int, seconds: float, cores: int = 0) -> Model:
        """`cores` are shared by all, as on one machine; 0: nodes have their own, each server one."""
        shared = simpy.Resource(self.env, cores) if cores else None
        queues = [simpy.Store(self.env) for _ in range(servers)]
        for queue in queues:
            self.env.process(self._server(queue, shared or simpy.Resource(self.env, 1)))
        for number in range(max(1, cameras // each)):
            core = shared or simpy.Resource(self.env, 1)
            self.env.process(self._node(min(each, cameras), queues[number % servers], core, seconds))
        self.env.run(seconds + 1.0)
        return self

    def _node(
        self, cameras: int, queue: simpy.Store, core: simpy.Resource, seconds: float
    ) -> Generator[Any, Any, None]:
        """A turn 25 times a second: send, wait, fuse; a turn that is missed is left out."""
        yield self.env.timeout(float(self._random.uniform(0, 1 / RATE_HZ)))
        turn, count = self.env.now, 0
        while self.env.now < seconds:
            began, count = self.env.now, count + 1
            crops = sum((count + camera) % LOOK_EVERY == 0 for camera in range(cameras))
            turn += 1 / RATE_HZ
            if not crops:
                yield from self._work(core, self.fitted["node_fixed_s"], 0)
                yield self.env.timeout(max(0.0, turn - self.env.now))
                continue
            yield from self._work(core, self.fitted["node_send_s"] * crops + self.fitted["node_fixed_s"], 0)
            answer = self.env.event()
            queue.put((crops, answer, self.env.now + DELAY_S))
            yield answer | self.env.timeout(WITHIN_S["face"])
            self.late += 0 if answer.triggered else crops
            self.crops += crops
            yield from self._work(core, self.fitted["node_fuse_s"] * crops, WAKES["node"])
            self.steps_ms.append((self.env.now - began) * 1000)
            turn = max(turn, self.env.now)
            yield self.env.timeout(turn - self.env.now)

    def _server(self, queue: simpy.Store, core: simpy.Resource) -> Generator[Any, Any, None]:
        """Triton's batcher: what came within the delay, up to the largest batch, is one execution."""
        while True:
            waiting: list[Any] = [(yield queue.get())]
            # The first that waits sets the end: while another batch was executed, its time ran on.
            until = self.env.timeout(max(0.0, waiting[0][2] - self.env.now))
            while sum(crops for crops, *_ in waiting) < MAX_BATCH:
                more = queue.get()
                yield more | until
                if not more.triggered:
                    more.cancel()
                    break
                waiting.append(more.value)
            size = sum(crops for crops, *_ in waiting)
            self.batches.append(size)
            took_s = self.fitted["service_fixed_s"] + self.fitted["service_each_s"] * size
            yield from self._work(core, took_s, WAKES["server"])
            for _, answer, _ in waiting:
                answer.succeed()

    def _work(self, core: simpy.Resource, seconds: float, wakes: int) -> Generator[Any, Any, None]:
        """Some processor time after so many were woken, in slices, so that others come in between."""
        for _ in range(wakes):
            yield self.env.timeout(self._disturbance()[0])
        while seconds > 0:
            with core.request() as turn:
                yield turn
                part = min(SLICE_S, seconds)
                yield self.env.timeout(part + self._disturbance()[1] * part / WORKED_S)
                seconds -= part

    def _disturbance(self) -> tuple[float, float]:
        """As it was watched, over and over: bursts stay bursts."""
        if not self._disturbed:
            return 0.0, 0.0
        return self._disturbed[int(self.env.now / (SLEPT_S + WORKED_S)) % len(self._disturbed)]


def fitted_to(runs: list[dict[str, Any]]) -> dict[str, float]:
    """Service time by batch, and a node's work by crop, from what was measured."""
    points = [(int(size), ms / 1000) for run in runs for size, ms in run["service_ms"].items()]
    sizes, times = np.array(points).T
    each, fixed = np.polyfit(sizes, times, 1, w=1 / times)
    turns = [run["nodes"] * RATE_HZ for run in runs]
    work = np.array([run["node_cores"] / n for run, n in zip(runs, turns, strict=True)])
    crops = np.array([run["crops_per_s"] / n for run, n in zip(runs, turns, strict=True)])
    by_crop, by_turn = np.polyfit(crops, work, 1)
    return {
        "service_each_s": max(float(each), 1e-5),
        "service_fixed_s": max(float(fixed), 1e-4),
        "node_send_s": max(float(by_crop), 0.0) * 0.3,
        "node_fuse_s": max(float(by_crop), 0.0) * 0.7,
        "node_fixed_s": max(float(by_turn), 1e-4),
    }


def simulate() -> None:
    """Check against the runs, then all sizes; writes into the same file."""
    found = json.loads(RESULTS.read_text())
    runs = found["runs"]
    fitted = fitted_to(runs)
    checked = []
    print("cameras  crops/s real sim   p50 ms real sim   p99 ms real sim   batch real sim")
    for run in runs:
        each, seconds = run["cameras"] // run["nodes"], 100.0
        model = Model(fitted, run["disturbed"]).run(run["cameras"], each, 1, seconds, cores=2)
        row = {
            "cameras": run["cameras"],
            "crops_per_s": [run["crops_per_s"], model.crops / seconds],
            "p50_ms": [run["step_p50_ms"], float(np.percentile(model.steps_ms, 50))],
            "p99_ms": [run["step_p99_ms"], float(np.percentile(model.steps_ms, 99))],
            "batch": [run["crops_per_s"] / run["executions_per_s"], float(np.mean(model.batches))],
        }
        checked.append(row)
        pairs = [value for value in row.values() if isinstance(value, list)]
        print(run["cameras"], *(f"{real:.1f} {simulated:.1f}" for real, simulated in pairs), sep="   ")
    found |= {
        "fitted": fitted,
        "checked": checked,
        "fleets": [_fleet(fitted, n) for n in (10, 100, 1000, 10_000)],
    }
    for fleet in found["fleets"]:
        print(fleet)
    RESULTS.write_text(json.dumps(found, indent=1) + "\n")
    draw(runs, found["fleets"])


def _fleet(fitted: dict[str, float], cameras: int) -> dict[str, Any]:
    """The fewest servers of one core with which fewer than one crop in a hundred is late."""
    each = 10
    needed_s = cameras * RATE_HZ / LOOK_EVERY * fitted["service_each_s"]
    servers = max(1, int(needed_s * 0.9))
    seconds = 10.0 if cameras < 5000 else 3.0
    while True:
        model = Model(fitted).run(cameras, each, servers, seconds)
        late = model.late / max(1, model.crops)
        if late < 0.01 and float(np.percentile(model.steps_ms, 99)) < 1000 * WITHIN_S["face"]:
            break
        servers = max(servers + 1, int(servers * 1.15))
    return {
        "cameras": cameras,
        "nodes": cameras // each,
        "servers": servers,
        "p50_ms": round(float(np.percentile(model.steps_ms, 50)), 1),
        "p99_ms": round(float(np.percentile(model.steps_ms, 99)), 1),
        "batch": round(float(np.mean(model.batches)), 1),
        "late": round(late, 4),
        "crops_gbit_per_s": round(cameras * RATE_HZ / LOOK_EVERY * CROP_BYTES * 8 / 1e9, 3),
    }


def draw(runs: list[dict[str, Any]], fleets: list[dict[str, Any]]) -> None:
    """Cost a camera, measured, and how many servers a fleet needs."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(8, 3.2), layout="constrained")
    cameras = [run["cameras"] for run in runs]
    for name, label in (("node_cores", "nodes"), ("server_cores", "server")):
        left.plot(cameras, [1000 * run[name] / run["cameras"] for run in runs], "o-", label=label)
    left.set(
        xscale="log", xlabel="cameras, measured", ylabel="thousandths of a core a camera", ylim=(0, None)
    )
    left.set_xticks(cameras, [str(n) for n in cameras])
    left.legend()
    right.plot([f["cameras"] for f in fleets], [f["servers"] for f in fleets], "o-")
    right.set(xscale="log", yscale="log", xlabel="cameras, simulated", ylabel="cores of servers")
    figure.savefig(PICTURE, dpi=90)


def main() -> None:
    """Measure or simulate."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=("measure", "simulate"))
    parser.add_argument("--seconds", type=float, default=20.0, help="of each measured run")
    given = parser.parse_args()
    if given.what == "measure":
        measure(given.seconds)
    else:
        simulate()


if __name__ == "__main__":
    main()
