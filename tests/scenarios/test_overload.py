"""A machine that cannot keep up, networks, outputs and sources that fail: the display goes on and says why.

Analysis runs in the test's thread on virtual time; while it waits for a slow network the camera goes on
delivering and the display goes on drawing, as their threads do.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from liveaffect.engines.recipe import HOP, SAMPLE_RATE
from liveaffect.realtime.acting import tone_voice
from liveaffect.realtime.clock import MS, SECOND
from liveaffect.realtime.cue import Cue
from liveaffect.realtime.errors import SinkError, SourceNotFound
from liveaffect.realtime.frame import AudioBlock, Source, VideoFrame
from liveaffect.realtime.health import FACES_HALVED, VOICES_HALVED, WORDS_FINISHED, WORDS_RARER
from liveaffect.realtime.networks import Networks
from liveaffect.realtime.scheduler import Snapshot
from liveaffect.realtime.testing.devices import ScriptedSource
from liveaffect.realtime.testing.engines import (
    ConstantEngine,
    CountingEngine,
    FailingEngine,
    SlowEngine,
)
from liveaffect.realtime.testing.people import Actor, scene
from liveaffect.realtime.testing.virtual_time import Stepped, TickingClock, never
from liveaffect.realtime.voice_analyzer import SHED
from liveaffect.realtime.wiring import SpokenChoice
from liveaffect.realtime.words import WordTools

CAMERA, MICROPHONE = "camera:0", "mic:0"
PERIOD_NS = 40 * MS
BLOCK = SAMPLE_RATE // 25
ACTOR = Actor(48, 40, 32, who=1)
VOICE = tone_voice(2.0)[:SAMPLE_RATE].reshape(-1, BLOCK)


class Collected:
    """A sink that keeps what it is given, and fails when it is told to."""

    wants_pictures = True
    wants_sound = False

    def __init__(self) -> None:
        self.seqs: list[int] = []
        self.cues: list[Cue] = []
        self.broken = False
        self.closed = 0

    def show(self, picture: NDArray[np.uint8], frame: VideoFrame) -> None:
        if self.broken:
            raise SinkError("the disk is full: out.mp4 was closed")
        self.seqs.append(frame.seq)

    def tell(self, cues: Sequence[Cue]) -> None:
        self.cues.extend(cues)

    def hear(self, block: AudioBlock) -> None:
        raise AssertionError("it does not want sound")

    def close(self) -> None:
        self.closed += 1


class Desk:
    """One person who speaks into camera and microphone, for as long as the test wants."""

    def __init__(
        self, *sinks: Collected, networks: Networks | None = None, end_ns: int = 120 * SECOND
    ) -> None:
        self.clock = TickingClock(end_ns, PERIOD_NS)
        self.stage = Stepped(
            self.clock,
            {CAMERA: never(CAMERA)},
            {MICROPHONE: never(MICROPHONE)},
            networks=networks,
            actors=lambda _: [ACTOR],
            sinks=sinks,
        )
        self.snapshots: list[Snapshot] = []
        self.clock.tick = self._tick
        self._image = scene((96, 80), [ACTOR])
        self._seq = 0

    def slow(self, kind: str) -> SlowEngine:
        """Put a slow engine around one of the networks; it begins fast."""
        asked = getattr(self.stage.networks, f"_{kind}")
        asked.engine = SlowEngine(asked.engine, self.clock, 0)
        assert isinstance(asked.engine, SlowEngine)
        return asked.engine

    def work(self, until_ns: int) -> None:
        """Look and think as fast as the networks let it, at most once a picture."""
        while self.clock.now_ns() < until_ns:
            began_ns = self.clock.now_ns()
            self.stage.look(CAMERA)
            self.snapshots.append(self.stage.think())
            self.clock.wait_until(max(began_ns + PERIOD_NS, self.clock.now_ns()), self.clock.over)

    def notices(self) -> list[str]:
        """What the board said, each once, in order."""
        return list(dict.fromkeys(text for snapshot in self.snapshots for text in snapshot.notices))

    def _tick(self) -> None:
        now_ns = self.clock.now_ns()
        self.stage.deliver(VideoFrame(CAMERA, self._seq, now_ns, self._image))
        samples = VOICE[self._seq % len(VOICE)]
        self.stage.deliver(AudioBlock(MICROPHONE, self._seq * BLOCK, now_ns - PERIOD_NS, samples))
        self._seq += 1
        self.stage.turn()


@pytest.mark.parametrize("delay_ms", [130, 170, 700])
def test_relief_comes_in_its_order_and_goes_again_while_every_picture_is_drawn(delay_ms: int) -> None:
    """However slow the network: doubled hop, then halved cadence; afterwards all of it back."""
    desk = Desk()
    network = desk.slow("face")
    desk.work(2 * SECOND)
    assert desk.notices() == []
    network.delay_ns = delay_ms * MS
    desk.work(20 * SECOND)
    assert desk.notices() == [
        f"too much for this machine: {level}" for level in (VOICES_HALVED, FACES_HALVED)
    ]
    network.delay_ns = 0
    desk.snapshots.clear()
    desk.work(45 * SECOND)
    assert desk.notices() == [
        f"too much for this machine: {level}" for level in (FACES_HALVED, VOICES_HALVED)
    ]
    assert desk.snapshots[-1].notices == ()
    ledger = desk.stage.run.health.ledger(CAMERA)
    desk.stage.check()
    assert ledger.shown == ledger.captured == desk.clock.now_ns() // PERIOD_NS


def no_whisper() -> WordTools:
    raise AssertionError("nobody loads it here: what counts is what the scheduler asks of it")


def test_words_are_the_first_to_be_left_out_and_the_last_to_come_back() -> None:
    desk = Desk()
    desk.stage.wiring.hear_words(SpokenChoice(no_whisper, transcript=False))
    hearing = desk.stage.wiring.hearing
    assert hearing is not None
    network = desk.slow("face")
    network.delay_ns = 170 * MS
    desk.work(20 * SECOND)
    levels = (WORDS_RARER, WORDS_FINISHED, VOICES_HALVED, FACES_HALVED)
    assert desk.notices() == [f"too much for this machine: {level}" for level in levels]
    assert (hearing.rarer, hearing.finished_only) == (True, True)
    network.delay_ns = 0
    desk.work(70 * SECOND)
    assert (hearing.rarer, hearing.finished_only) == (False, False)
    assert desk.snapshots[-1].notices == ()


def test_under_overload_the_newest_picture_is_looked_at_and_the_rest_is_counted() -> None:
    desk = Desk()
    desk.slow("face").delay_ns = 170 * MS
    desk.work(10 * SECOND)
    looked_at = desk.stage.monitors.seen[f"sightings of {CAMERA}"]
    left_out = desk.stage.wiring.health.left_out["pictures not analysed"]
    in_flight = desk.stage.run.rings.frames[CAMERA].written - desk.stage.run.analysis._cursors[CAMERA]
    assert looked_at + left_out + in_flight == desk.stage.run.rings.frames[CAMERA].written
    assert left_out > looked_at
    assert max(b.at_ns - desk.snapshots[i - 1].at_ns for i, b in enumerate(desk.snapshots) if i) <= 260 * MS


def test_halved_cadence_and_doubled_hop_really_save_work() -> None:
    """Under full relief the face network sees every second look, the voice network every second piece."""
    face, voice = (
        CountingEngine(ConstantEngine("face", "sad")),
        CountingEngine(ConstantEngine("voice", "sad")),
    )
    desk = Desk(networks=Networks(face, voice, ConstantEngine("fusion", "sad")))
    desk.work(5 * SECOND)
    calm = len(face.batches), len(voice.batches)
    desk.stage.wiring.scheduler.shedder.level = 2
    desk.stage.wiring.scheduler.shedder._last_late_ns = desk.clock.now_ns() + 10 * SECOND
    desk.work(10 * SECOND)
    busy = len(face.batches) - calm[0], len(voice.batches) - calm[1]
    assert busy[0] == pytest.approx(calm[0] / 2, rel=0.1)
    assert busy[1] == pytest.approx(calm[1] / 2, rel=0.1)
    left_out = desk.stage.wiring.scheduler.lost_sound()[SHED]
    assert busy[1] + left_out == 5 * SAMPLE_RATE // HOP
    assert f"; {left_out} {SHED}" in desk.stage.run.report()


@pytest.mark.parametrize("kind", ["face", "voice", "fusion"])
def test_a_network_that_fails_in_the_middle_is_named_and_the_others_go_on(kind: str) -> None:
    sink = Collected()
    desk = Desk(sink)
    desk.work(4 * SECOND)
    asked = getattr(desk.stage.networks, f"_{kind}")
    asked.engine = FailingEngine(asked.engine)
    desk.work(12 * SECOND)
    last = desk.snapshots[-1]
    assert any(text.startswith(f"{kind} network failed") for text in last.notices)
    assert last.cues[0].track == 1
    assert (last.cues[0].face is None) == (kind == "face")
    assert any(cue.voice for cue in last.cues) == (kind != "voice")
    assert sink.seqs == list(range(desk.clock.now_ns() // PERIOD_NS))
    desk.stage.check()


def test_an_output_that_fails_is_closed_and_said_once_and_the_others_go_on() -> None:
    broken, good = Collected(), Collected()
    desk = Desk(broken, good)
    desk.work(2 * SECOND)
    broken.broken = True
    desk.work(4 * SECOND)
    assert desk.stage.outputs.failures == ["the disk is full: out.mp4 was closed"]
    assert (broken.closed, good.closed) == (1, 0)
    assert good.seqs == list(range(4 * SECOND // PERIOD_NS))
    assert len(good.cues) > len(broken.cues) > 0
    desk.stage.outputs.close()
    assert (broken.closed, good.closed) == (1, 1)


def test_without_any_output_the_path_runs_and_the_ledger_balances() -> None:
    desk = Desk()
    desk.work(3 * SECOND)
    desk.stage.check()
    assert desk.snapshots[-1].cues
    ledger = desk.stage.run.health.ledger(CAMERA)
    assert ledger.shown == ledger.captured > 0


def test_with_all_sources_unplugged_cues_end_and_the_display_still_draws() -> None:
    """Old evidence vanishes instead of sticking; the standing picture is drawn again with the reason."""
    sink = Collected()
    desk = Desk(sink)
    desk.work(3 * SECOND)
    desk.clock.tick = desk.stage.turn
    drawn = len(sink.seqs)
    desk.snapshots.clear()
    desk.work(9 * SECOND)
    ended_ns = next(snapshot.at_ns for snapshot in desk.snapshots if not snapshot.cues)
    assert ended_ns <= 3 * SECOND + 2100 * MS
    assert all(not snapshot.cues for snapshot in desk.snapshots if snapshot.at_ns >= ended_ns)
    again = sink.seqs[drawn:]
    assert len(again) >= 10
    assert set(again) == {3 * SECOND // PERIOD_NS - 1}
    desk.stage.check()


def test_sources_that_come_and_go_together_leave_nothing_behind() -> None:
    """Camera and microphone are away for 4 s: afterwards one new person, none of the old."""
    desk = Desk()
    desk.work(3 * SECOND)
    pause = desk.clock.tick
    desk.clock.tick = desk.stage.turn
    desk.work(8 * SECOND)
    desk.clock.tick = pause
    desk._seq += 5 * SECOND // PERIOD_NS
    desk.work(14 * SECOND)
    (cue,) = [cue for cue in desk.snapshots[-1].cues if cue.track is not None]
    assert cue.face is not None
    assert list(desk.stage.wiring.scheduler._people) == [cue.track]
    desk.stage.check()


def test_a_person_whose_end_nobody_read_is_forgotten_all_the_same() -> None:
    """A step that stands for seconds misses sightings, and with them the end of a track."""
    desk = Desk()
    desk.work(3 * SECOND)
    people = desk.stage.wiring.scheduler._people
    assert list(people) == [1]
    ring = desk.stage.wiring.rings.sightings[CAMERA]
    newest = ring.newest()
    assert newest is not None
    desk.clock.tick = lambda: None
    for k in range(1, 2 + ring.capacity):
        at_ns = newest.captured_ns + k * PERIOD_NS
        ended = (1,) if k == 1 else ()
        ring.push(replace(newest, seq=newest.seq + k, captured_ns=at_ns, faces=(), ended=ended))
    desk.clock.wait_until(5 * SECOND, desk.clock.over)
    desk.stage.think()
    assert list(people) == [1], "its end was overwritten, which is what this test is about"
    desk.clock.wait_until(14 * SECOND, desk.clock.over)
    desk.stage.think()
    assert people == {}


def test_a_run_whose_only_source_never_was_there_is_refused_with_its_list() -> None:
    clock = TickingClock(SECOND, PERIOD_NS)

    def make() -> Source:
        return ScriptedSource(clock, [(0, SourceNotFound("there is no camera 9. Cameras: none"))], "camera:9")

    stage = Stepped(clock, {"camera:9": make})
    with pytest.raises(SourceNotFound, match="there is no camera 9"):
        stage.run.run(seconds=0.5)
