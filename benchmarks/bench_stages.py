"""What do the small stages cost: capture and hand-over, pooling and fusion, the start of the program?

    uv run python benchmarks/bench_stages.py [--write]

Capture is the real supervisor, camera and microphone classes with a device that costs nothing behind
them: reading, colour order, resampling 48 kHz stereo to 16 kHz, numbering, rings. Pooling and fusion is
everything between the networks' vectors and the cue of one person with full memories. Processor time of
the whole process over the pictures that came.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import threading

import numpy as np
from harness import Result, measure, print_record
from numpy.typing import NDArray

from liveaffect.engines.recipe import HOP, LABELS, SAMPLE_RATE
from liveaffect.engines.scripted_engine import ScriptedFace, ScriptedFusion, ScriptedVoice
from liveaffect.realtime.camera import Camera, CaptureFormat
from liveaffect.realtime.clock import MS, SECOND, MonotonicClock, cpu_ns, process_cpu_ns
from liveaffect.realtime.crop import Quality
from liveaffect.realtime.estimate import Circumstances, Confidence, Labeller
from liveaffect.realtime.expression import Evidence
from liveaffect.realtime.microphone import Microphone
from liveaffect.realtime.networks import Networks, fuse
from liveaffect.realtime.people import Moment, Person, make_cue
from liveaffect.realtime.signs import Clarity
from liveaffect.realtime.sound_device import BLOCK_S
from liveaffect.realtime.supervisor import Supervisor
from liveaffect.realtime.testing.devices import FakeCamera, FakeCapture, FakeSound
from liveaffect.realtime.wiring import Rings

WARM_UP_S, SECONDS = 2.0, 8.0
FPS = 30.0


class Still(FakeCapture):
    """A capture whose picture was made beforehand, so that the fake device costs nothing."""

    picture = np.full((480, 640, 3), 100, np.uint8)

    def retrieve(self) -> tuple[bool, NDArray[np.uint8]]:
        """Always the same picture."""
        return True, self.picture


def capture() -> None:
    """A 640x480 camera at 30 pictures a second and a 48 kHz stereo microphone."""
    clock = MonotonicClock()
    device, sound = FakeCamera((640, 480), period_s=1 / FPS), FakeSound(48_000, 2)
    camera = CaptureFormat((640, 480), FPS), lambda target: Still(device)
    rings = Rings.plain(["camera:0"], ["mic:default"])
    supervisors = [
        Supervisor(lambda: Camera("0", clock, camera[0], capture=camera[1], devices=list), clock, rings.take),
        Supervisor(lambda: Microphone("default", clock, sound), clock, rings.take),
    ]
    for supervisor in supervisors:
        supervisor.start()
    stop, tick = threading.Event(), BLOCK_S
    speech = np.random.default_rng(0).normal(0, 0.1, (round(48_000 * tick), 2)).astype(np.float32)
    start_ns = clock.now_ns()
    began_ns = pictures = 0
    for i in range(round((WARM_UP_S + SECONDS) / tick)):
        if sound.active:
            sound.hear(speech)
        clock.wait_until(start_ns + round((i + 1) * tick * SECOND), stop)
        if not began_ns and i * tick >= WARM_UP_S:
            began_ns, pictures = process_cpu_ns() - cpu_ns(), rings.frames["camera:0"].written
    # This thread plays the microphone; its time is not the path's.
    spent_ms = (process_cpu_ns() - cpu_ns() - began_ns) / MS
    pictures, samples = rings.frames["camera:0"].written - pictures, rings.sounds["mic:default"].end
    for supervisor in supervisors:
        supervisor.stop()
    print_record(
        Result(
            "stages/capture/640x480 and 48 kHz stereo",
            {"cpu_a_picture_ms": spent_ms / pictures, "pictures": pictures, "sound_s": samples / SAMPLE_RATE},
            judged=("cpu_a_picture_ms",),
            budget_ms=1.0,
        )
    )


def pooling_and_fusion() -> None:
    """One person with two seconds of looks and four of speech."""
    rng = np.random.default_rng(0)
    networks = Networks(ScriptedFace(), ScriptedVoice(), ScriptedFusion())
    confidence = Confidence()
    person = Person("camera:0", 1, Labeller(), size=(640, 480), box=(100, 100, 90, 90))
    # Neither is perfect, so the fusion is asked with and without each: three rows, the dearest case.
    person.quality, person.clarity = Quality(0.8, None), Clarity(0.8, None)
    state = {"now_ns": 0, "pictures": 0}

    def evidence(at_ns: int) -> Evidence:
        vector, logits = rng.normal(size=64), rng.normal(size=len(LABELS))
        return Evidence(at_ns, vector.astype(np.float32), logits.astype(np.float32), float(rng.normal()))

    ready = [evidence(0) for _ in range(64)]

    def point() -> None:
        for _ in range(3):
            state["now_ns"] += SECOND // 30
            one = ready[state["pictures"] % 64]
            person.face.add(Evidence(state["now_ns"], one.vector, one.logits, one.score), SECOND // 30)
            if state["pictures"] % 6 == 0:
                voice_ns = HOP * SECOND // SAMPLE_RATE
                person.voice.add(Evidence(state["now_ns"], one.vector, one.logits, one.score), voice_ns)
            state["pictures"] += 1
        known = person.estimate(state["now_ns"], Circumstances())
        (fused,) = fuse([known], networks.fuse)
        make_cue(person, person.labeller.label(fused), Moment(0, "bench", None, confidence))

    for _ in range(100):
        point()
    measure("stages/pooling and fusion/a grid point", point, budget_ms=0.3).print_json()


def start() -> None:
    """Processor time and wall time of the command up to its help, in a process of its own."""
    clock, times = MonotonicClock(), []
    for _ in range(7):
        began_ns = clock.now_ns()
        subprocess.run([sys.executable, "-m", "liveaffect", "--help"], check=True, capture_output=True)
        times.append((clock.now_ns() - began_ns) / MS)
    print_record(
        Result("stages/start/help", {"wall_p50_ms": statistics.median(times)}, judged=("wall_p50_ms",))
    )


if __name__ == "__main__":
    pooling_and_fusion()
    capture()
    start()
