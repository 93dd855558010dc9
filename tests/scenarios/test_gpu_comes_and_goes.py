"""A live run begins on the CPU, moves to the GPU when that is ready, and loses it; everybody stays judged."""

from __future__ import annotations

from pathlib import Path

from liveaffect.engines.fallback import LOST, FallbackEngine
from liveaffect.engines.gpu_start import NOTICE
from liveaffect.engines.load import load
from liveaffect.engines.protocol import Engine
from liveaffect.engines.scripted_engine import ScriptedFace, ScriptedFusion, ScriptedVoice
from liveaffect.engines.tensorrt_engine import RunOptions, TensorRTEngine
from liveaffect.realtime.clock import MS
from liveaffect.realtime.frame import VideoFrame
from liveaffect.realtime.networks import Networks
from liveaffect.realtime.scheduler import Snapshot
from liveaffect.realtime.testing import engines
from liveaffect.realtime.testing import gpu as scripted_gpu
from liveaffect.realtime.testing.gpu import LosableMemory
from liveaffect.realtime.testing.people import Actor, scene
from liveaffect.realtime.testing.virtual_time import FakeClock, Stepped, never

CAMERA = "camera:test"
PEOPLE = (Actor(200, 200, 120, who=1), Actor(440, 200, 120, who=2))
FRAME_NS = 33 * MS


class Run:
    """Two people before a camera, the face network behind an engine that can be exchanged."""

    def __init__(self, weights: Path, first: Engine | None = None) -> None:
        engines.write_tiny(weights, "face")
        self.card = LosableMemory()
        self.plan = scripted_gpu.plan_of(weights, "face")
        first = first or load("face", choice="onnx", weights=weights)
        self.engine = FallbackEngine(first, wants_gpu=True)
        self.clock = FakeClock()
        self.stage = Stepped(
            self.clock,
            {CAMERA: never(CAMERA)},
            networks=Networks(self.engine, ScriptedVoice(), ScriptedFusion()),
            actors=lambda _: PEOPLE,
        )
        self._image = scene((640, 480), PEOPLE)
        self._seq = 0

    def open_gpu(self) -> TensorRTEngine:
        engine = TensorRTEngine(
            self.plan[0],
            "fp16",
            self.plan[1],
            backend=scripted_gpu.tools().backend,
            memory=self.card,
            options=RunOptions(owns_memory=True),
        )
        engine.warm_up()
        return engine

    def step(self, times: int = 1) -> Snapshot:
        snapshot = Snapshot(at_ns=self.clock.now_ns())
        for _ in range(times):
            self.stage.deliver(VideoFrame(CAMERA, self._seq, self.clock.now_ns(), self._image.copy()))
            self._seq += 1
            self.stage.look(CAMERA)
            snapshot = self.stage.think()
            self.stage.turn()
            self.clock.advance(FRAME_NS)
        return snapshot


def judged(snapshot: Snapshot) -> int:
    """How many people have a fresh reading of their face."""
    return sum(cue.face is not None and (cue.age_ms[0] or 0) < 200 for cue in snapshot.cues)


def test_the_networks_move_and_fall_back_between_two_steps_and_nobody_is_left_unjudged(
    tmp_path: Path,
) -> None:
    run = Run(tmp_path)
    run.engine.notice = NOTICE
    snapshot = run.step(10)
    assert judged(snapshot) == len(PEOPLE)
    assert NOTICE in snapshot.notices
    assert run.engine.spec.name == "face-tiny/onnx"

    run.engine.offer(run.open_gpu())
    for _ in range(10):
        snapshot = run.step()
        assert judged(snapshot) == len(PEOPLE)
        assert not {NOTICE, LOST} & set(snapshot.notices)
    assert run.engine.spec.name == "face-tiny/tensorrt-rtx-fp16"

    run.card.lost = True
    for _ in range(10):
        snapshot = run.step()
        assert judged(snapshot) == len(PEOPLE)
        assert snapshot.notices.count(LOST) == 1
    assert run.engine.spec.name == "face-tiny/onnx"
    assert run.stage.networks.failures["face"] == 0
    run.stage.networks.close()


def test_cues_name_the_networks_that_answered(tmp_path: Path) -> None:
    run = Run(tmp_path, ScriptedFace())
    before = {cue.model for cue in run.step(10).cues}
    run.engine.offer(run.open_gpu())
    after = {cue.model for cue in run.step(10).cues}
    assert len(before) == len(after) == 1
    assert before != after
    run.stage.networks.close()
