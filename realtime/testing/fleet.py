"""Machines of a fleet on one machine: network namespaces with real servers, and nodes of virtual cameras.

A node replays sightings that were recorded once, at full rate, through the real scheduler, engine and sink;
only cameras and finder are left out. `python -m liveaffect.realtime.testing.fleet NODE.json` is one node. It
writes down every cue that it hands to its sink, so that what the broker stored can be held against it.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from liveaffect.engines.load import load
from liveaffect.realtime.clock import SECOND, MonotonicClock, epoch_ns, process_cpu_ns
from liveaffect.realtime.cue import Cue
from liveaffect.realtime.frame import Face, Sighting
from liveaffect.realtime.networks import Networks
from liveaffect.realtime.ring import Ring
from liveaffect.realtime.scheduler import Scheduler
from liveaffect.realtime.sinks.network import open_network, subject_of

BRIDGE, NET = "lafleet", "10.77.7"
RATE_HZ = 25
SHARES = (0, 25, 50, 75, 90, 95, 98, 99, 99.5, 100)
"""Of how late the machine let a node begin its turns: what other work beside it does to everybody."""


class Machines:
    """Namespaces joined by a bridge; a context that leaves nothing behind. Needs root."""

    def __init__(self, names: Sequence[str]) -> None:
        self.address = {name: f"{NET}.{number}" for number, name in enumerate(names, 2)}

    def __enter__(self) -> Machines:
        self._remove()
        _ip(f"link add {BRIDGE} type bridge")
        _ip(f"addr add {NET}.1/24 dev {BRIDGE}")
        _ip(f"link set {BRIDGE} up")
        for name, address in self.address.items():
            _ip(f"netns add la-{name}")
            _ip(f"link add lav-{name} type veth peer name eth0 netns la-{name}")
            _ip(f"link set lav-{name} master {BRIDGE} up")
            _ip(f"-n la-{name} addr add {address}/24 dev eth0")
            _ip(f"-n la-{name} link set eth0 up")
            _ip(f"-n la-{name} link set lo up")
        return self

    def __exit__(self, *_: object) -> None:
        self._remove()

    def prefix(self, name: str) -> list[str]:
        """What runs a command on that machine."""
        return ["ip", "netns", "exec", f"la-{name}"]

    def link(self, name: str, *, up: bool) -> None:
        """Plug its cable in or out."""
        _ip(f"link set lav-{name} {'up' if up else 'down'}")

    def _remove(self) -> None:
        links = [f"link del {one}" for one in (BRIDGE, *(f"lav-{name}" for name in self.address))]
        for words in (*links, *(f"netns del la-{name}" for name in self.address)):
            with contextlib.suppress(subprocess.CalledProcessError):
                _ip(words)


def _ip(words: str) -> None:
    subprocess.run(["ip", *words.split()], check=True, capture_output=True)


def record_sightings(path: Path) -> None:
    """Faces of the packaged portrait as the real finder sees them, for nodes to replay."""
    import cv2

    from liveaffect.realtime.blazeface import make_finder
    from liveaffect.realtime.face_analyzer import FaceAnalyzer
    from liveaffect.realtime.frame import VideoFrame
    from liveaffect.realtime.portrait import packaged_portraits

    face = cv2.imread(str(packaged_portraits()[0]), cv2.IMREAD_COLOR_RGB)
    assert face is not None
    picture = np.asarray(cv2.resize(face, (400, 480)), np.uint8)
    analyzer = FaceAnalyzer("camera:recorded", *make_finder(), ids=itertools.count(1))
    seen: list[Face] = []
    for seq in range(40):
        moved = np.full((480, 640, 3), 128, np.uint8)
        at = 100 + round(20 * np.sin(seq / 6))
        moved[:, at : at + 400] = picture
        seen.extend(analyzer.step(VideoFrame("camera:recorded", seq, seq * SECOND // RATE_HZ, moved)).faces)
    np.savez(
        path,
        crops=np.stack([f.crop for f in seen]),
        points=np.stack([f.points for f in seen]),
        boxes=np.array([f.box for f in seen]),
    )


class VirtualNode:
    """Virtual cameras, the scheduler, and the ledger of one run."""

    def __init__(self, wish: dict[str, Any]) -> None:
        self._wish = wish
        self._clock = MonotonicClock()
        self._stop = threading.Event()
        recorded = np.load(wish["sightings"])
        self._faces = list(zip(recorded["crops"], recorded["points"], recorded["boxes"], strict=True))
        weights = Path(wish["weights"]) if wish.get("weights") else None
        engine, self.said = wish["engine"], list[str]()
        self._networks = Networks(
            load("face", choice=engine, weights=weights, report=self.said.append),
            load("voice", choice="scripted"),
            load("fusion", choice="onnx"),
        )
        self._cameras = [f"camera:{wish['name']}-{number}" for number in range(wish["cameras"])]
        self._rings: dict[str, Ring[Sighting]] = {name: Ring(32) for name in self._cameras}
        self._sink = open_network(wish["sink"]) if wish.get("sink") else None
        self._written = open(wish["written"], "w", encoding="utf-8")  # noqa: SIM115  open until the end
        self._ages_ms: list[int] = []
        self._cues = self._stepped_ns = 0
        skew_ns = round(wish.get("skew_s", 0.0) * SECOND)
        self._scheduler = Scheduler(
            self._networks,
            sightings=self._rings,
            voice_analyzers=(),
            publish=self._publish,
            epoch_ns=lambda: epoch_ns() + skew_ns,
        )

    def stop(self, *_: object) -> None:
        """End in order: what was written is sent, and the ledger is told. Fit for a signal."""
        self._stop.set()

    def run(self, seconds: float) -> dict[str, Any]:
        """Replay for so long or until `stop`, and return the ledger."""
        stop = self._stop
        self._networks.warm_up()
        self._clock.wait_until(self._clock.now_ns() + round(self._wish.get("begin_s", 0.0) * SECOND), stop)
        began_ns, cpu_ns = self._clock.now_ns(), process_cpu_ns()
        steps_ms, late_ms = [], []
        every = self._wish.get("look_every", 1)
        for turn in itertools.count():
            due_ns = began_ns + turn * SECOND // RATE_HZ
            slept = self._clock.now_ns() < due_ns
            if due_ns - began_ns >= seconds * SECOND or not self._clock.wait_until(due_ns, stop):
                break
            stepped_ns = self._clock.now_ns()
            if slept:
                late_ms.append((stepped_ns - due_ns) / 1e6)
            looked = [n for n in range(len(self._cameras)) if (turn + n) % every == 0]
            for number in looked:
                camera = self._cameras[number]
                self._rings[camera].push(self._sighting(camera, number, turn, stepped_ns))
            self._stepped_ns = stepped_ns
            self._scheduler.step(stepped_ns)
            if looked:
                steps_ms.append((self._clock.now_ns() - stepped_ns) / 1e6)
        lasted_s = (self._clock.now_ns() - began_ns) / SECOND
        cpu_s = (process_cpu_ns() - cpu_ns) / SECOND
        lost = self._sink.close() if self._sink is not None else None
        self._written.close()
        ages = np.array(self._ages_ms or [0])
        return {
            "cameras": len(self._cameras),
            "seconds": lasted_s,
            "cores": cpu_s / lasted_s,
            "cues": self._cues,
            "sink": lost,
            "grid_points_sent": 0 if self._sink is None else self._sink.sent,
            "grid_points_missed": 0 if self._sink is None else self._sink.missed,
            "crops": self._networks.asked_of_servers(),
            "skipped": self._scheduler.skipped,
            "age_p50_ms": float(np.percentile(ages, 50)),
            "age_p99_ms": float(np.percentile(ages, 99)),
            "age_max_ms": float(ages.max()),
            "steps": len(steps_ms),
            "woken_late_ms": [float(np.percentile(late_ms or [0.0], share)) for share in SHARES],
            "step_p50_ms": float(np.percentile(steps_ms, 50)),
            "step_p99_ms": float(np.percentile(steps_ms, 99)),
            "said": self.said,
        }

    def close(self) -> None:
        """Free the networks."""
        self._networks.close()

    def _sighting(self, camera: str, number: int, turn: int, now_ns: int) -> Sighting:
        crop, points, box = self._faces[(turn + 7 * number) % len(self._faces)]
        left, top, width, height = map(float, box)
        face = Face(number + 1, (left, top, width, height), points, (0.0, 0.0), now_ns, 0.9, crop)
        return Sighting(camera, turn, now_ns, (640, 480), (face,))

    def _publish(self, cues: tuple[Cue, ...]) -> None:
        since_ms = (self._clock.now_ns() - self._stepped_ns) // 1_000_000
        for cue in cues:
            subject = subject_of(self._wish.get("subject", ""), cue.source, ".")
            self._written.write(f"{subject} {cue.epoch_ns} {cue.track} {cue.t}\n")
            if cue.age_ms[0] is not None:
                self._ages_ms.append(cue.age_ms[0] + since_ms)
        # A node that is killed has written down at least all that it sent.
        self._written.flush()
        self._cues += len(cues)
        if self._sink is not None:
            self._sink.tell(cues)


def run_one() -> None:
    """One node, described by a file; its ledger goes to standard output."""
    wish = json.loads(Path(sys.argv[1]).read_text("utf-8"))
    os.environ["OMP_NUM_THREADS"] = "1"
    node = VirtualNode(wish)
    signal.signal(signal.SIGTERM, node.stop)
    try:
        sys.stdout.write(json.dumps(node.run(wish["seconds"])) + "\n")
    finally:
        node.close()


if __name__ == "__main__":
    run_one()
