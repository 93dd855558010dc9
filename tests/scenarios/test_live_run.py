"""Short live runs with their real threads: picture first, then faces; everything stops and adds up."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from liveaffect.engines.scripted_engine import ScriptedFace, ScriptedFusion, ScriptedVoice
from liveaffect.realtime import analysis as analysis
from liveaffect.realtime.acting import tone_voice, write_wav
from liveaffect.realtime.blazeface import Found, make_finder
from liveaffect.realtime.camera import Camera, Capture, CaptureFormat
from liveaffect.realtime.clock import MS, SECOND, MonotonicClock
from liveaffect.realtime.cue import Cue
from liveaffect.realtime.drawing.canvas import View
from liveaffect.realtime.errors import MissingFile, MissingLibrary, SourceError, SourceNotFound
from liveaffect.realtime.feeds import Feed
from liveaffect.realtime.frame import AudioBlock, Source, VideoFrame
from liveaffect.realtime.health import losses_in_words
from liveaffect.realtime.live import LiveRun
from liveaffect.realtime.networks import Networks
from liveaffect.realtime.portrait import Portraits, packaged_portraits
from liveaffect.realtime.replay import MediaFile, Paced, load_picture
from liveaffect.realtime.scheduler import Snapshot
from liveaffect.realtime.screen import NO_CAMERA, RunStatus, Screen
from liveaffect.realtime.sinks import Outputs
from liveaffect.realtime.sinks.video_file import VideoFile
from liveaffect.realtime.testing.devices import FakeCamera
from liveaffect.realtime.testing.people import ScriptedFinder
from liveaffect.realtime.testing.virtual_time import Monitors, constant_networks
from liveaffect.realtime.wiring import Rings, Wiring

SIZE = (320, 240)
WIDE = (1280, 720)
Publish = Callable[[tuple[Cue, ...]], None]


class Collected:
    """A sink that remembers when it got what."""

    wants_pictures = wants_sound = True

    def __init__(self, clock: MonotonicClock) -> None:
        self._clock = clock
        self.drawn_ns: list[int] = []
        self.cues: list[tuple[int, Cue]] = []
        self.samples = 0
        self.closed = False
        self.on_show: Callable[[], None] = lambda: None

    def show(self, picture: NDArray[np.uint8], frame: VideoFrame) -> None:
        self.drawn_ns.append(self._clock.now_ns())
        self.on_show()

    def tell(self, cues: Sequence[Cue]) -> None:
        self.cues += [(self._clock.now_ns(), cue) for cue in cues]

    def hear(self, block: AudioBlock) -> None:
        self.samples += len(block.samples)

    def close(self) -> None:
        self.closed = True


class Noted(Screen):
    """A screen that remembers its views."""

    def __init__(self, source: str) -> None:
        super().__init__(source, "starting")
        self.views: list[View] = []

    def compose(
        self, frame: VideoFrame, sighting: object, snapshot: Snapshot | None, around: RunStatus
    ) -> View:
        view = super().compose(frame, sighting, snapshot, around)  # type: ignore[arg-type]
        self.views.append(view)
        return view


class Show:
    """Portraits, a voice made of tones, and whatever analysis the test wants."""

    def __init__(self, folder: Path, make_wiring: Callable[[Rings, Publish], Wiring]) -> None:
        pictures = packaged_portraits()
        if not pictures:
            pytest.skip("no installed package carries a portrait")
        face = load_picture(pictures[0])
        write_wav(folder / "voice.wav", tone_voice(2.0))
        self.clock = MonotonicClock()
        self.sink = Collected(self.clock)
        self.monitors = Monitors()

        def camera() -> Source:
            return Paced(Portraits([face], SIZE), self.clock)

        def microphone() -> Source:
            return Paced(MediaFile(folder / "voice.wav", loop=True), self.clock)

        feeds = [
            Feed(camera().name, camera, pictures=True, sound=False, live=True),
            Feed(microphone().name, microphone, pictures=False, sound=True, live=True),
        ]
        self.run = LiveRun(feeds, make_wiring, Outputs([self.sink]), self.clock)
        self.run.watch(self.monitors.at)
        self.camera = feeds[0].name
        self.screen = Noted(self.camera)
        self.run.screens[self.camera] = self.screen

    def check_the_end(self) -> None:
        """Nothing is left: threads, open outputs, pictures without an account."""
        self.run.check_ledger()
        self.monitors.check()
        assert self.sink.closed
        assert not [t.name for t in threading.enumerate() if t.name.startswith(OURS)]
        assert all(supervisor.state.phase == "ended" for supervisor in self.run.supervisors)


OURS = ("source ", "looking at ", "scheduler", "closing ", "watchdog")


def networks() -> Networks:
    return Networks(ScriptedFace(), ScriptedVoice(), ScriptedFusion())


def real(rings: Rings, publish: Publish) -> Wiring:
    return Wiring(rings, networks(), make_finder, publish)


def faceless(rings: Rings, publish: Publish) -> Wiring:
    return Wiring(rings, networks(), lambda: (ScriptedFinder(), ScriptedFinder()), publish)


@pytest.mark.slow
def test_pictures_come_at_once_and_say_starting_until_faces_are_there(tmp_path: Path) -> None:
    """Pictures before anything is loaded, faces after it, the ledger balanced; how fast is for benchmarks."""

    def after_the_first_picture(rings: Rings, publish: Publish) -> Wiring:
        tick = threading.Event()
        while not show.sink.drawn_ns:
            tick.wait(0.01)
        return real(rings, publish)

    show = Show(tmp_path, after_the_first_picture)
    try:
        show.run.run(seconds=4)
    except MissingFile as error:
        pytest.skip(f"needs the face detector's files: {error}")
    show.check_the_end()
    assert "starting" in show.screen.views[0].notices
    assert "starting" not in show.screen.views[-1].notices
    first_face_ns = next(at_ns for at_ns, cue in show.sink.cues if cue.face is not None)
    assert first_face_ns >= show.sink.drawn_ns[0]
    assert any(view.marks for view in show.screen.views)
    assert any(cue.voice is not None for _, cue in show.sink.cues)
    ledger = show.run.health.ledger(show.camera)
    assert ledger.shown > 0
    assert show.sink.samples >= 2 * 16_000
    report = show.run.report()
    assert f"{ledger.captured} pictures captured, {ledger.shown} drawn" in report
    costs = {cost.name: cost for cost in show.run.analysis.costs()}
    assert set(costs) == {f"look {show.camera}", "step"}
    assert all(cost.calls > 20 and 0 < cost.busy_ms <= cost.worst_ms for cost in costs.values())


@pytest.mark.slow
def test_ctrl_c_in_the_middle_of_a_turn_ends_everything_at_once(tmp_path: Path) -> None:
    show = Show(tmp_path, faceless)

    def interrupt() -> None:
        if len(show.sink.drawn_ns) == 12:
            raise KeyboardInterrupt

    show.sink.on_show = interrupt
    with pytest.raises(KeyboardInterrupt):
        show.run.run(seconds=5)
    assert show.clock.now_ns() - show.sink.drawn_ns[-1] <= 3 * SECOND
    show.check_the_end()


def test_analysis_that_cannot_load_ends_the_run_with_its_message(tmp_path: Path) -> None:
    def broken(rings: Rings, publish: Publish) -> Wiring:
        raise MissingFile("the face detector is not there; run: liveaffect fetch")

    show = Show(tmp_path, broken)
    with pytest.raises(MissingFile, match="run: liveaffect fetch"):
        show.run.run(seconds=5)
    assert show.clock.now_ns() <= 4 * SECOND
    show.check_the_end()


@pytest.mark.slow
def test_looking_that_dies_later_is_said_on_the_picture_and_the_picture_goes_on(tmp_path: Path) -> None:
    class Broken(ScriptedFinder):
        def find(self, image: NDArray[np.uint8]) -> list[Found]:
            raise RuntimeError("the detector gave up")

    show = Show(
        tmp_path, lambda rings, publish: Wiring(rings, networks(), lambda: (Broken(), Broken()), publish)
    )
    show.run.run(seconds=1.5)
    show.check_the_end()
    said = "looking at portrait:1 failed (the detector gave up) and is started again"
    assert said in show.screen.views[-1].notices
    ledger = show.run.health.ledger(show.camera)
    assert ledger.shown >= 10


class Speechless:
    """A microphone whose library is missing."""

    name = "mic:default"

    def open(self) -> None:
        raise MissingLibrary("install it: apt-get install libportaudio2")

    def read(self, timeout_s: float) -> None:
        raise AssertionError("it was never opened")

    def close(self) -> None: ...


def test_a_run_whose_only_source_cannot_work_ends_with_the_reason() -> None:
    feed = Feed("mic:default", Speechless, pictures=False, sound=True, live=True)
    run = LiveRun([feed], faceless, Outputs([]), MonotonicClock())
    with pytest.raises(SourceNotFound, match="libportaudio2"):
        run.run(seconds=3)


@pytest.mark.slow
def test_without_a_camera_the_voice_is_drawn_on_an_empty_picture(tmp_path: Path) -> None:
    """A window that opens and can be closed, a panel for the voice, and no picture in the ledger."""
    write_wav(tmp_path / "voice.wav", tone_voice(2.0))
    clock = MonotonicClock()
    sink = Collected(clock)

    def microphone() -> Source:
        return Paced(MediaFile(tmp_path / "voice.wav"), clock)

    feed = Feed(microphone().name, microphone, pictures=False, sound=True, live=False)
    run = LiveRun([feed], faceless, Outputs([sink]), clock)
    screen = Noted(NO_CAMERA)
    run.screens[NO_CAMERA] = screen
    run.run(seconds=2.0)
    assert 10 <= len(sink.drawn_ns) <= 21
    assert screen.views[-1].nobody is not None
    assert max(view.voice_level for view in screen.views) > 0.3
    assert not screen.views[-1].marks
    run.check_ledger()
    assert run.report().startswith("0 pictures captured, 0 drawn")


class Slow:
    """A camera that takes its time to open, or is never there."""

    def __init__(self, opens_after_s: float, *, there: bool = True) -> None:
        self._device = FakeCamera(WIDE, period_s=1 / 30)
        self._opens_after_s = opens_after_s
        self._there = there

    def __call__(self, target: int | str) -> Capture:
        time.sleep(self._opens_after_s)
        if not self._there:
            raise SourceError("the camera is broken")
        return self._device(target)


def recorded(path: Path, device: Slow) -> tuple[int, int]:
    clock = MonotonicClock()

    def camera() -> Camera:
        return Camera("0", clock, CaptureFormat(WIDE), capture=device)

    feed = Feed(camera().name, camera, pictures=True, sound=False, live=True)
    finders = ScriptedFinder(), ScriptedFinder()
    outputs = Outputs([VideoFile(str(path), sound=False)])
    run = LiveRun([feed], lambda r, p: Wiring(r, constant_networks(), lambda: finders, p), outputs, clock)
    run.patient = True
    run.run(seconds=2.0)
    assert outputs.failures == []
    with av.open(str(path)) as file:
        return file.streams.video[0].width, file.streams.video[0].height


@pytest.mark.parametrize("opens_after_s", [0.0, 1.0])
def test_a_recording_has_the_size_of_its_camera_however_late_that_opens(
    tmp_path: Path, opens_after_s: float
) -> None:
    assert recorded(tmp_path / "out.mp4", Slow(opens_after_s)) == WIDE


def test_of_a_camera_that_fails_a_recording_says_so(tmp_path: Path) -> None:
    assert recorded(tmp_path / "out.mp4", Slow(0.0, there=False)) == (640, 480)


def test_the_report_names_what_was_lost_and_nothing_else() -> None:
    assert losses_in_words({"samples that came again": 0}, {}) == ""
    assert losses_in_words({"samples that came again": 3}, {"cues late": 1}) == (
        "; 3 samples that came again; 1 cue late"
    )


@pytest.mark.slow
def test_stopping_while_everything_still_loads_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who closes the window at once does not wait for the networks; they are freed when they come."""
    monkeypatch.setattr(analysis, "JOIN_S", 0.1)
    begin, closed = threading.Event(), threading.Event()

    class Closing(Networks):
        def close(self) -> None:
            super().close()
            closed.set()

    def slow(rings: Rings, publish: Publish) -> Wiring:
        begin.wait(1.8)
        made = Closing(ScriptedFace(), ScriptedVoice(), ScriptedFusion())
        return Wiring(rings, made, lambda: (ScriptedFinder(), ScriptedFinder()), publish)

    show = Show(tmp_path, slow)
    show.run.run(seconds=0.2)
    assert show.clock.now_ns() <= 1500 * MS
    assert not closed.is_set()
    assert closed.wait(3.0)
    for thread in threading.enumerate():
        if thread.name == "scheduler":
            thread.join(1.0)
    show.check_the_end()


def test_a_process_does_not_end_in_the_middle_of_loading() -> None:
    """It did, and the library that was loading called it a crash."""
    code = """
import threading
from liveaffect.realtime import analysis
from liveaffect.realtime.clock import MonotonicClock
analysis.JOIN_S, begun = 0.05, threading.Event()
def load():
    begun.set()
    threading.Event().wait(0.7)
    print("loaded", flush=True)
    raise RuntimeError("nobody needs it any more")
run = analysis.Analysis(load, MonotonicClock())
run.start()
begun.wait(10.0)
run.stop()
print("stopped", flush=True)
"""
    ran = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60
    )
    assert ran.stdout.split() == ["stopped", "loaded"], ran.stderr
