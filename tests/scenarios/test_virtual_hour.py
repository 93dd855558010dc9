"""Nine minutes, or a whole hour, of camera and microphone on the fake clock: nothing grows or is lost.

Everything is as in a live run except the threads, the networks (constant) and the face finder (scripted);
`FaceAnalyzer`, tracking, attribution and smoothing are the real ones. Analysis is slower than the cameras: it
looks at every ninth picture, as a slow machine does.
"""

from __future__ import annotations

import gc
import heapq
import sys
from collections.abc import Iterator, Sequence
from functools import cache

import numpy as np
import pytest
from numpy.typing import NDArray

from liveaffect.engines.protocol import Done, Pending, Tensors
from liveaffect.engines.recipe import SAMPLE_RATE
from liveaffect.realtime.acting import tone_voice
from liveaffect.realtime.clock import SECOND
from liveaffect.realtime.cue import Cue
from liveaffect.realtime.frame import AudioBlock, Item, VideoFrame
from liveaffect.realtime.networks import Networks
from liveaffect.realtime.supervisor import Numbering
from liveaffect.realtime.testing.engines import ConstantEngine
from liveaffect.realtime.testing.faults import (
    Delivery,
    Drop,
    Fault,
    LateBurst,
    Repeat,
    Silence,
    Stall,
    TimeGoesBack,
    Unplug,
    deliveries,
)
from liveaffect.realtime.testing.people import Actor, scene
from liveaffect.realtime.testing.virtual_time import FakeClock, Stepped, never
from liveaffect.realtime.window import FUSION_STEP_NS

CAMERA, MICROPHONE = "camera:0", "mic:0"
FPS = 30
SIZE = (96, 80)
BLOCK = SAMPLE_RATE // 10
LOOK_EVERY, STEP_EVERY = 9, 3
AT_DESK = Actor(24, 40, 28, who=1000)


@cache
def room(*actors: Actor) -> NDArray[np.uint8]:
    image = scene(SIZE, actors)
    image.setflags(write=False)
    return image


def people(second: int, end_s: int) -> tuple[Actor, ...]:
    """One person stays, every minute another one comes and goes; nobody in the last half minute."""
    within, minute = second % 60, second // 60
    if second >= end_s - 30:
        return ()
    return (AT_DESK, Actor(72, 40, 28, who=minute % 7)) if 10 <= within < 30 else (AT_DESK,)


def pictures(end_s: int) -> Iterator[Item]:
    for seq in range(end_s * FPS):
        yield VideoFrame(CAMERA, seq, seq * SECOND // FPS, room(*people(seq // FPS, end_s)))


def sound(end_s: int) -> Iterator[Item]:
    """Forty seconds of every minute somebody speaks."""
    voice = tone_voice(40.0).reshape(-1, BLOCK)
    silence = np.zeros(BLOCK, np.float32)
    for k in range(end_s * SAMPLE_RATE // BLOCK):
        within = k % (60 * SAMPLE_RATE // BLOCK)
        spoken = within < len(voice) and k * BLOCK < (end_s - 60) * SAMPLE_RATE
        at_ns = k * BLOCK * SECOND // SAMPLE_RATE
        yield AudioBlock(MICROPHONE, k * BLOCK, at_ns, voice[within] if spoken else silence)


def faults(items_a_minute: int, end_s: int) -> list[Fault]:
    """One fault of every kind, each at its own minute, and a dropped item every ten minutes."""
    at = [(k + 1) * items_a_minute + items_a_minute // 3 for k in range(7)]
    return [
        Drop(at[0], 5),
        Stall(at[1], 2 * SECOND),
        LateBurst(at[2], 4),
        Repeat(at[3], 3),
        TimeGoesBack(at[4], 5 * SECOND, 3),
        Silence(at[5], 3),
        Unplug(at[6], 4 * SECOND),
        *(Drop(minute * items_a_minute) for minute in range(2, end_s // 60, 10)),
    ]


class Gateway:
    """What a supervisor does to one stream: numbers that go on, losses that are counted."""

    def __init__(self, items: Iterator[Item], script: Sequence[Fault], order: int) -> None:
        self.numbering = Numbering()
        self.sent = self.passed = 0
        self._items, self._script, self._order = items, script, order

    def __iter__(self) -> Iterator[tuple[int, int, Gateway, Delivery]]:
        for delivery in deliveries(self._items, self._script):
            yield delivery.at_ns, self._order, self, delivery

    def take(self, delivery: Delivery) -> Item | None:
        if delivery.item is None:
            self.numbering.reopened()
            return None
        item = delivery.item
        self.sent += 1
        passed = self.numbering.renumber(item)
        self.passed += passed is not None
        return passed


class Counted:
    """A sink that counts and keeps nothing."""

    wants_pictures = False
    wants_sound = True

    def __init__(self) -> None:
        self.points = self.samples = 0
        self.newest_ns = -1
        self.tracks: set[int] = set()

    def show(self, picture: NDArray[np.uint8], frame: VideoFrame) -> None: ...

    def tell(self, cues: Sequence[Cue]) -> None:
        assert {cue.t_ns for cue in cues} == {cues[0].t_ns}
        assert cues[0].t_ns > self.newest_ns
        assert cues[0].t_ns % FUSION_STEP_NS == 0
        self.newest_ns = cues[0].t_ns
        self.points += 1
        self.tracks.update(cue.track for cue in cues if cue.track is not None)

    def hear(self, block: AudioBlock) -> None:
        self.samples += len(block.samples)

    def close(self) -> None: ...


class Voice(ConstantEngine):
    """Says that what is loud is speech, and that whoever speaks is happy."""

    def submit(self, inputs: Tensors) -> Pending:
        answer = dict(super().submit(inputs).result())
        loud = np.square(inputs["samples"]).mean(axis=1, keepdims=True) > 1e-6
        return Done({**answer, "speech": loud.astype(np.float32)})


class Watch:
    """So many minutes, played once."""

    def __init__(self, end_s: int) -> None:
        self.clock = FakeClock()
        self.sink = Counted()
        self.stage = Stepped(
            self.clock,
            {CAMERA: never(CAMERA)},
            {MICROPHONE: never(MICROPHONE)},
            networks=Networks(
                ConstantEngine("face", "sad"), Voice("voice", "happy"), ConstantEngine("fusion", "happy")
            ),
            actors=self._actors,
            sinks=[self.sink],
        )
        self.blocks: list[int] = []
        """Allocated blocks of memory at the end of every minute."""
        self.empty = 0
        """Grid points at which there was nobody to say anything about."""
        self.camera = Gateway(pictures(end_s), faults(60 * FPS, end_s), 0)
        self.microphone = Gateway(sound(end_s), faults(600, end_s), 1)
        there = [people(second, end_s) for second in range(end_s)]
        self._actors_in = {id(room(*actors)): actors for actors in there}
        self.last_point = -1
        """The last grid point that time reached."""

    def play(self) -> None:
        for at_ns, _, gateway, delivery in heapq.merge(self.camera, self.microphone):
            self.clock.advance_to(max(at_ns, self.clock.now_ns()))
            item = gateway.take(delivery)
            if item is not None:
                self.stage.deliver(item)
            if isinstance(item, VideoFrame):
                self._analyse(self.camera.passed)
                self.stage.turn()
        self.stage.turn()

    def _analyse(self, picture: int) -> None:
        if picture % (60 * FPS) == 0:
            gc.collect()
            self.blocks.append(sys.getallocatedblocks())
        if (picture + 150 * FPS) % (300 * FPS) < FPS // 2:
            return  # every five minutes the machine is busy with something else for half a second
        if picture % LOOK_EVERY == 0:
            self.stage.look(CAMERA)
        if picture % STEP_EVERY == 0:
            snapshot = self.stage.think()
            point = snapshot.at_ns // FUSION_STEP_NS
            self.empty += point > self.last_point and not snapshot.cues
            self.last_point = point

    def _actors(self, frame: VideoFrame) -> Sequence[Actor]:
        # A picture that a fault has blackened shows nobody.
        return self._actors_in.get(id(frame.image), ())


@pytest.mark.slow
@pytest.mark.parametrize("minutes", [9, pytest.param(60, marks=pytest.mark.soak)])
def test_a_long_run_balances_and_nothing_grows(minutes: int) -> None:
    """Ledger, cue count, ring sizes, memory and per-person state after so long with faults all over."""
    end_s = 60 * minutes
    assert max(fault.first for fault in faults(60 * FPS, end_s)) < end_s * FPS
    watch = Watch(end_s)
    watch.play()
    stage, run = watch.stage, watch.stage.run
    stage.check()

    scheduler, sink = stage.wiring.scheduler, watch.sink
    points = watch.last_point + 1
    assert points >= end_s * SECOND // FUSION_STEP_NS
    assert scheduler.skipped["grid points"] >= 5
    assert sink.points == points - scheduler.skipped["grid points"] - watch.empty
    assert points - sink.points < 45 * SECOND // FUSION_STEP_NS, "but for the empty end"
    assert len(sink.tracks) > minutes

    ledger = run.health.ledger(CAMERA)
    assert ledger.captured == watch.camera.passed == ledger.shown + ledger.dropped.total()
    assert ledger.shown > 0.999 * end_s * FPS - 4 * FPS
    again = watch.camera.numbering.losses(gaps=True)["pictures that came again"]
    assert watch.camera.sent - watch.camera.passed == again == 3
    assert sink.samples == watch.microphone.passed * BLOCK
    assert run.rings.sounds[MICROPHONE].lost >= sum(
        watch.microphone.numbering.losses(gaps=True)[cause]
        for cause in ("samples missing in its numbers", "samples while it was away")
    )

    assert scheduler._people == {}
    assert scheduler._nobody == {}, "the last voice was a minute ago"
    (voice_analyzer,) = stage.wiring.voice_analyzers
    assert list(voice_analyzer._statistics) == [None]
    assert not voice_analyzer._waiting

    third = watch.blocks[len(watch.blocks) // 3 : -1]
    grown = np.median(third[-2:]) - np.median(third[:2])
    assert abs(grown) < 300, f"{grown:.0f} more blocks of memory in two thirds of the time: {third}"
