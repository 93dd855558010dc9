"""One tick asks every network once, keeps people apart, forgets what has expired, counts what it skips."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from liveaffect.engines.recipe import HOP, LABELS, PIECE, SAMPLE_RATE, Statistics
from liveaffect.engines.scripted_engine import ScriptedFace, ScriptedFusion, ScriptedVoice
from liveaffect.realtime.clock import MS, SECOND
from liveaffect.realtime.cue import Cue
from liveaffect.realtime.estimate import Confidence
from liveaffect.realtime.frame import AudioBlock, Face, Sighting
from liveaffect.realtime.health import VOICE_SMALL
from liveaffect.realtime.networks import LighterVoice, Networks
from liveaffect.realtime.ring import AudioRing, Ring
from liveaffect.realtime.scheduler import Scheduler, Snapshot
from liveaffect.realtime.testing.engines import ConstantEngine, CountingEngine, FailingEngine, SchooledEngine
from liveaffect.realtime.voice_analyzer import VoiceAnalyzer
from liveaffect.realtime.window import PieceGrid

CAMERA, MICROPHONE = "camera:test", "mic:test"
POINTS = np.array([[80, 90], [120, 90], [100, 110], [100, 130], [60, 95], [140, 95]], np.float32)


def face(
    track: int, brightness: int = 128, box: tuple[float, float, float, float] = (50, 50, 100, 100)
) -> Face:
    rng = np.random.default_rng(track)
    crop = np.clip(rng.normal(brightness, 30, (64, 64, 3)), 0, 255).astype(np.uint8)
    return Face(track, box, POINTS, (0.0, 0.0), 0, 0.9, crop)


class Bench:
    """A scheduler with rings in the hand of the test."""

    def __init__(self, networks: Networks | None = None, *, cameras: tuple[str, ...] = (CAMERA,)) -> None:
        self.face = CountingEngine(ScriptedFace())
        self.voice = CountingEngine(ScriptedVoice())
        self.networks = networks or Networks(self.face, self.voice, ScriptedFusion())
        self.sightings: dict[str, Ring[Sighting]] = {name: Ring(8) for name in cameras}
        self.sound = AudioRing(10 * SAMPLE_RATE)
        self.published: list[tuple[Cue, ...]] = []
        self.voice_analyzer = VoiceAnalyzer(MICROPHONE, self.sound, PieceGrid(PIECE, HOP))
        self.scheduler = Scheduler(
            self.networks,
            sightings=self.sightings,
            voice_analyzers=[self.voice_analyzer],
            publish=self.published.append,
        )
        self._seq = 0
        self._sample = 0

    def see(self, at_ns: int, *faces: Face, ended: tuple[int, ...] = (), camera: str = CAMERA) -> None:
        self.sightings[camera].push(Sighting(camera, self._seq, at_ns, (640, 480), faces, ended=ended))
        self._seq += 1

    def hear(self, seconds: float, loudness: float = 0.2) -> None:
        t = (self._sample + np.arange(round(seconds * SAMPLE_RATE))) / SAMPLE_RATE
        syllables = np.clip(np.sin(2 * np.pi * 4 * t), 0, None)
        tone = sum(np.sin(2 * np.pi * 180 * k * t) / k for k in range(1, 9))
        samples = (loudness * syllables * tone).astype(np.float32)
        self.sound.push(AudioBlock(MICROPHONE, self._sample, self._sample * SECOND // SAMPLE_RATE, samples))
        self._sample += len(samples)


def test_all_faces_of_all_cameras_go_to_the_network_in_one_batch() -> None:
    bench = Bench(cameras=("a", "b"))
    bench.see(0, face(1), face(2), camera="a")
    bench.see(0, face(3), camera="b")
    bench.scheduler.step(10 * MS)
    assert bench.face.batches == [3]


def test_a_crop_passes_the_network_once_however_often_is_stepped() -> None:
    bench = Bench()
    bench.see(0, face(1))
    for now_ms in range(10, 400, 10):
        bench.scheduler.step(now_ms * MS)
    assert bench.face.batches == [1]


def test_a_piece_of_sound_passes_the_network_once() -> None:
    bench = Bench()
    for i in range(40):
        bench.hear(0.05)
        bench.scheduler.step((i + 1) * 50 * MS)
    pieces = (2 * SAMPLE_RATE - PIECE) // HOP + 1
    assert sum(bench.voice.batches) == pieces


def test_cues_lie_on_the_grid_and_carry_what_was_skipped() -> None:
    bench = Bench()
    for at_ms in (0, 40, 80, 120, 520):
        bench.see(at_ms * MS, face(1))
        bench.scheduler.step(at_ms * MS)
    times = [(cues[0].t_ns // MS, cues[0].skipped) for cues in bench.published]
    assert times == [(0, 0), (100, 0), (500, 3)]
    assert bench.scheduler.skipped["grid points"] == 3


def test_only_the_newest_of_several_waiting_looks_is_analysed_and_the_rest_is_counted() -> None:
    bench = Bench()
    for at_ms in (0, 33, 66):
        bench.see(at_ms * MS, face(1))
    bench.scheduler.step(70 * MS)
    assert bench.face.batches == [1]
    assert bench.scheduler.skipped["looks"] == 2


def test_two_people_keep_their_own_answers() -> None:
    bench = Bench()
    snapshot = Snapshot(0)
    for i in range(10):
        bench.see(i * 33 * MS, face(1, 60), face(2, 210, (300, 50, 100, 100)))
        snapshot = bench.scheduler.step(i * 33 * MS)
    dark, bright = snapshot.cues
    assert (dark.track, bright.track) == (1, 2)
    assert dark.face is not None
    assert bright.face is not None
    assert not np.allclose(dark.face, bright.face, atol=0.01)
    assert dark.box == (50, 50, 100, 100)
    assert bright.box == (300, 50, 100, 100)


def test_state_dies_with_its_track() -> None:
    bench = Bench()
    for i in range(30):
        bench.see(i * 33 * MS, face(1))
        bench.scheduler.step(i * 33 * MS)
    bench.see(SECOND, face(2, 220), ended=(1,))
    snapshot = bench.scheduler.step(SECOND)
    (cue,) = snapshot.cues
    assert cue.track == 2
    assert cue.label == "not sure"


def test_a_face_reading_expires_after_half_a_second() -> None:
    bench = Bench()
    bench.see(0, face(1))
    assert bench.scheduler.step(100 * MS).cues[0].face is not None
    assert bench.scheduler.step(400 * MS).cues[0].age_ms[0] == 400
    assert bench.scheduler.step(500 * MS).cues == ()


def test_a_voice_without_any_face_is_a_cue_without_a_track() -> None:
    bench = Bench(cameras=())
    snapshot = Snapshot(0)
    for i in range(60):
        bench.hear(0.05)
        snapshot = bench.scheduler.step((i + 1) * 50 * MS)
    (cue,) = snapshot.cues
    assert cue.track is None
    assert cue.box is None
    assert cue.face is None
    assert cue.voice is not None
    assert cue.source == MICROPHONE
    quiet = [bench.scheduler.step((3000 + ms) * MS) for ms in range(100, 2700, 100)]
    assert quiet[0].cues
    assert quiet[-1].cues == ()


def test_silence_is_no_evidence() -> None:
    bench = Bench(cameras=())
    snapshot = Snapshot(0)
    for i in range(60):
        bench.hear(0.05, loudness=0.0)
        snapshot = bench.scheduler.step((i + 1) * 50 * MS)
    assert snapshot.cues == ()
    assert bench.published == []


@pytest.mark.parametrize("kind", ["face", "voice", "fusion"])
def test_a_network_that_dies_is_named_and_the_rest_goes_on(kind: str) -> None:
    engines: dict[str, Any] = {
        "face": ConstantEngine("face", "happy"),
        "voice": ConstantEngine("voice", "happy"),
        "fusion": ConstantEngine("fusion", "happy"),
    }
    engines[kind] = FailingEngine(engines[kind], after=0)
    bench = Bench(Networks(**engines))
    snapshot = Snapshot(0)
    for i in range(60):
        bench.hear(0.033)
        bench.see(i * 33 * MS, face(1))
        snapshot = bench.scheduler.step(i * 33 * MS)
    assert any(notice.startswith(f"{kind} network failed") for notice in snapshot.notices)
    (cue,) = [c for c in snapshot.cues if c.track == 1]
    if kind == "fusion":
        assert cue.label == "not sure"
    if kind == "voice":
        assert cue.label == "happy"


def test_every_distribution_sums_to_one_and_weights_belong_to_present_modalities() -> None:
    bench = Bench()
    for i in range(90):
        bench.hear(0.033)
        bench.see(i * 33 * MS, face(1, 40 + i))
        bench.scheduler.step(i * 33 * MS)
    assert len(bench.published) >= 29
    for cues in bench.published:
        for cue in cues:
            for scores in (cue.raw, cue.fused, cue.face, cue.voice):
                assert scores is None or sum(scores) == pytest.approx(1, abs=1e-6)
            assert cue.weights[2] == 0
            assert cue.face is not None or cue.weights[0] == 0
            assert cue.label in (*LABELS, "not sure")


def test_a_voice_without_a_trained_network_is_not_judged_beside_a_trained_face() -> None:
    voice_engine = CountingEngine(ScriptedVoice())
    bench = Bench(Networks(SchooledEngine(ScriptedFace()), voice_engine, ScriptedFusion()))
    snapshot = Snapshot(0)
    for i in range(60):
        bench.hear(0.033)
        bench.see(i * 33 * MS, face(1))
        snapshot = bench.scheduler.step(i * 33 * MS)
    assert voice_engine.calls == 0
    assert [cue.voice for cue in snapshot.cues] == [None]
    assert snapshot.cues[0].face is not None


def test_a_late_machine_hears_with_the_lighter_voice_until_it_is_calm_and_knows_nobody_then() -> None:
    """The lighter network keeps other statistics of a speaker, so each begins with its own."""
    bench = Bench()
    asked: list[int] = []

    class Light(ScriptedVoice):
        def submit(self, inputs: Any) -> Any:
            if not asked:  # Statistics of pieces begin at zero, those of frames at a quiet room's spectrum.
                assert not inputs["mean"].any()
            asked.append(len(inputs["mean"]))
            return super().submit(inputs)

    light = LighterVoice(Light(), ScriptedFusion(), Confidence(), Statistics(64, "pieces"))
    bench.networks.keep_ready(light)
    bench.scheduler = Scheduler(
        bench.networks, sightings={}, voice_analyzers=[bench.voice_analyzer], publish=bench.published.append
    )
    asked.clear()
    now_ns = SECOND
    for late in [True] * 12 + [False] * 200:
        now_ns += (300 if late else 100) * MS  # Three grid points at once are two skipped.
        bench.hear(0.3 if late else 0.1)
        said = bench.scheduler.step(now_ns)
        if late and asked:
            assert (
                f"too much for this machine: {VOICE_SMALL}" in said.notices
                or bench.scheduler.shedder.level > 1
            )
    assert asked, "the lighter voice was never asked"
    assert bench.scheduler.shedder.level == 0
    before = bench.voice.calls
    bench.hear(1.0)
    bench.scheduler.step(now_ns + SECOND)
    assert bench.voice.calls > before
