"""Every fault at every kind of source, through the whole path: nothing hangs, nothing is lost uncounted.

How a source is played, and what its device does wrong, is in `realtime.testing.played` and `driven`.
"""

from __future__ import annotations

import wave
from collections.abc import Callable, Iterator
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from liveaffect.engines.recipe import SAMPLE_RATE
from liveaffect.realtime.clock import MS, SECOND
from liveaffect.realtime.frame import AudioBlock, Item
from liveaffect.realtime.replay import MediaFile
from liveaffect.realtime.supervisor import Supervisor
from liveaffect.realtime.testing.faults import (
    Drop,
    Fault,
    FaultLine,
    FaultySource,
    FormatChange,
    LateBurst,
    Repeat,
    Silence,
    Stall,
    TimeGoesBack,
    Unplug,
    scripts,
)
from liveaffect.realtime.testing.virtual_time import END_NS, PERIOD_NS, SOURCES, VOICE, Case, TickingClock

AT_S, AWAY_NS = 1, 2 * SECOND
FAULTS: dict[str, Callable[[int], list[Fault]]] = {
    "none": lambda at: [],
    "drop": lambda at: [Drop(at, 5)],
    "stall": lambda at: [Stall(at, 1300 * MS)],
    "late burst": lambda at: [LateBurst(at, 4)],
    "repeat": lambda at: [Repeat(at, 3)],
    "time goes back": lambda at: [TimeGoesBack(at, 3 * SECOND, 3)],
    "format change": lambda at: [FormatChange(at, 80, 60)],
    "silence": lambda at: [Silence(at, 75)],
    "unplugged and back": lambda at: [Unplug(at, AWAY_NS)],
    "unplugged for good": lambda at: [Unplug(at)],
}


CAMERA_GAPS = ("pictures that could not be decoded", "pictures overtaken by the next")
SOUND_GAPS = (
    "samples missing in its numbers",
    "samples while it was away",
    "samples that its clock passed over",
    "samples nobody fetched in time",
    "samples lost by the device",
)
"""The causes that leave a gap in the numbers."""


UNPLUGGED = ("unplugged and back", "unplugged for good")


@pytest.fixture(scope="module")
def media(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a video of 25 pictures a second and a sound file, eight seconds each."""
    folder = tmp_path_factory.mktemp("media")
    with av.open(str(folder / "clip.mp4"), "w") as container:
        stream = container.add_stream("mpeg4", rate=25)
        assert isinstance(stream, av.VideoStream)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for k in range(200):
            image = np.full((48, 64, 3), 80 + k % 100, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode(None))
    with wave.open(str(folder / "voice.wav"), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(SAMPLE_RATE)
        file.writeframes((VOICE * 32767).astype("<i2").tobytes())
    return folder


def first_of(kind: str) -> int:
    """Number of the item that is made after one second."""
    return AT_S * SECOND // PERIOD_NS["picture" if kind in ("portraits", "video file", "camera") else "sound"]


def cases() -> Iterator[tuple[str, str]]:
    for fault in FAULTS:
        for kind in SOURCES:
            yield fault, kind


@pytest.fixture(params=list(cases()), ids=lambda pair: f"{pair[0]} at {pair[1]}")
def case(request: pytest.FixtureRequest, media: Path) -> tuple[str, Case]:
    fault, kind = request.param
    made = Case(kind, FAULTS[fault](first_of(kind)), media)
    made.play()
    return fault, made


def test_nothing_hangs_and_everything_is_accounted_for(case: tuple[str, Case]) -> None:
    """Monitors clean, ledger balanced, losses counted by cause, the source named, pictures back in time."""
    fault, played = case
    played.stage.check()
    check_numbers(played)
    check_sum(fault, played)
    check_what_was_said(fault, played)
    check_return(fault, played)
    if played.stage.run.rings.frames:
        check_display(played)


def test_samples_that_are_no_numbers_cost_neither_the_microphone_nor_the_network(media: Path) -> None:
    """A driver that gives NaN for a second: counted, replaced by silence, and the voice goes on."""
    played = Case("microphone", [], media)
    bad = np.full(SAMPLE_RATE // 50, np.nan, np.float32)
    played.voice = lambda k: bad if 50 <= k < 100 else VOICE[: len(bad)]
    played.play()
    played.stage.check()
    assert played.state.losses == {"samples that were not numbers": SAMPLE_RATE}
    assert played.stage.networks.failures == {"face": 0, "voice": 0, "fusion": 0}
    stretch = played.stage.run.rings.sounds[played.name].read(SAMPLE_RATE, SAMPLE_RATE)
    assert stretch is not None
    assert np.isfinite(stretch.samples).all()


def test_a_file_that_breaks_is_not_opened_again_and_says_so(media: Path) -> None:
    """Files are read once: what ends them early is an error with their name, not a loss that is retried."""
    clock = TickingClock(END_NS, 40 * MS)
    line, items = FaultLine([Unplug(30, AWAY_NS)]), list[Item]()
    supervisor = Supervisor(
        lambda: FaultySource(MediaFile(media / "clip.mp4"), line, clock), clock, items.append, live=False
    )
    supervisor.start(lambda _: clock.over.set())
    assert clock.over.wait(20.0)
    assert supervisor.stop()
    assert (supervisor.state.phase, supervisor.state.restarts, len(items)) == ("ended", 0, 30)
    assert "file:clip.mp4" in supervisor.state.message


@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(script=scripts(125, PERIOD_NS["picture"], most=5), kind=st.sampled_from(SOURCES))
def test_any_mixture_of_faults_leaves_the_ledger_balanced(
    media: Path, script: list[Fault], kind: str
) -> None:
    """Whatever comes together: no hang, clean monitors, every gap in the numbers counted."""
    played = Case(kind, script, media)
    played.play()
    played.stage.check()
    check_numbers(played)
    for moment in played.log:
        assert moment.state.phase not in ("stalled", "lost") or played.name in moment.state.message


def check_numbers(played: Case) -> None:
    """The numbers of what was published have no gap that is not counted."""
    rings, losses = played.stage.run.rings, played.state.losses
    for ring in rings.frames.values():
        newest = ring.newest()
        if newest is None:
            continue
        gaps = losses.get("pictures missing in its numbers", 0)
        assert newest.seq + 1 <= ring.written + gaps + sum(losses.get(c, 0) for c in CAMERA_GAPS)
        assert played.state.delivered == ring.written
    for sound in rings.sounds.values():
        assert sound.lost <= sum(losses.get(cause, 0) for cause in SOUND_GAPS)


def check_sum(fault: str, played: Case) -> None:
    """Delivered and lost add up to all that the device made, in pictures or in samples."""
    rings, losses = played.stage.run.rings, dict(played.state.losses)
    delivered = sum(ring.written for ring in rings.frames.values())
    delivered += sum(ring.end - ring.start - ring.lost for ring in rings.sounds.values())
    if played.world is not None:
        # A microphone's losses are samples that were never made.
        lost = sum(losses.values()) if rings.frames else 0
        assert delivered + lost == played.world.made
        return
    again = sum(count for cause, count in losses.items() if cause.endswith("came again"))
    missing = sum(count for cause, count in losses.items() if cause.endswith("missing in its numbers"))
    one = max(size_of(item) for item in played.sent)
    if fault.startswith("unplugged") or fault == "format change":
        # The item at which the device went was made and never came.
        assert 0 <= sum(map(size_of, played.sent)) - delivered <= 2 * one
        return
    dropped = 5 * one if fault == "drop" else 0
    assert again == (3 * one if fault == "repeat" else 0)
    assert missing >= dropped
    assert sum(map(size_of, played.sent)) - delivered == dropped


def size_of(item: Item) -> int:
    return len(item.samples) if isinstance(item, AudioBlock) else 1


def check_what_was_said(fault: str, played: Case) -> None:
    """What the user must know is said within a second, and says which source it is about."""
    for moment in played.log:
        if moment.state.phase in ("stalled", "lost"):
            assert played.name in moment.state.message
    said = {
        "stall": "stalled",
        "silence": "stalled",
        "unplugged and back": "lost",
        "unplugged for good": "lost",
    }
    if fault in said:
        first = next(m for m in played.log if m.state.phase not in ("opening", "running"))
        assert first.at_ns <= (AT_S + 1) * SECOND + 80 * MS
        assert played.moments(said[fault])
    elif fault != "format change":
        assert not played.moments("stalled")
        assert not played.moments("lost")


def check_return(fault: str, played: Case) -> None:
    """A device that is back delivers within two seconds; one that is not stays lost and is tried again."""
    last = played.log[-1]
    if fault == "unplugged for good":
        assert last.state.phase == "lost"
        assert last.state.restarts >= 3
        assert last.arrived == played.moments("lost")[0].arrived
        return
    back_ns = AT_S * SECOND + AWAY_NS if fault == "unplugged and back" else 4 * SECOND
    before = max(m.arrived for m in played.log if m.at_ns <= back_ns)
    after = max(m.arrived for m in played.log if m.at_ns <= back_ns + 2 * SECOND)
    assert after > before
    assert "running" in {m.state.phase for m in played.log if m.at_ns > back_ns}


def check_display(played: Case) -> None:
    """Every picture that arrived was drawn or its loss has a cause; after the last turn none is in flight."""
    (ledger,) = played.stage.run.health.ledgers.values()
    (ring,) = played.stage.run.rings.frames.values()
    assert ledger.shown + ledger.dropped.total() == ring.written
    assert ledger.shown >= 0.7 * ring.written
    assert played.stage.wiring.health.left_out["pictures not analysed"] <= 0.3 * ring.written
