"""A microphone that stamps its sound late: with the measured offset a run is as if it did not."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from liveaffect import doctor as examination
from liveaffect import webcam
from liveaffect.calibration import av_offset as recording
from liveaffect.calibration.av_offset import LiveRecording
from liveaffect.cli import main
from liveaffect.realtime import blazeface
from liveaffect.realtime.clock import MS, MonotonicClock
from liveaffect.realtime.cue import Cue
from liveaffect.realtime.device_pairs import Pair, store_pair, stored_offset_ns
from liveaffect.realtime.errors import EndOfStream, SourceError, SourceNotFound
from liveaffect.realtime.feeds import Feed
from liveaffect.realtime.frame import AudioBlock, Restamped, Source, VideoFrame
from liveaffect.realtime.lockstep import LockStep
from liveaffect.realtime.sinks import Outputs
from liveaffect.realtime.testing.devices import ScriptedSource, picture, tone
from liveaffect.realtime.testing.people import Talkers
from liveaffect.realtime.testing.virtual_time import constant_networks
from liveaffect.realtime.wiring import Rings, Wiring
from liveaffect.settings import Settings

SECONDS = 6.0


def speakers(late_ns: int, stored_ns: int) -> list[tuple[int, bool]]:
    """Who is said to speak at every grid point, of two who both move their mouths."""
    film = Talkers(SECONDS, people=2, seed=4, late_ns=late_ns)
    film.open()
    found: list[Cue] = []
    rings = Rings.plain([film.name], [film.name])
    wiring = Wiring(rings, constant_networks(), film.make_finders, found.extend)
    LockStep(wiring, None, Outputs([])).run(Restamped(film, stored_ns))
    return [(cue.track or 0, cue.speaking) for cue in found]


@cache
def in_step() -> list[tuple[int, bool]]:
    return speakers(0, 0)


def right(said: list[tuple[int, bool]]) -> tuple[int, int]:
    """How often the one who speaks is named, and how often the other."""
    first = min(track for track, _ in said)
    return sum(s for track, s in said if track == first), sum(s for track, s in said if track != first)


@pytest.mark.parametrize("late_ms", [200, -200])
def test_the_stored_offset_makes_a_late_microphone_name_the_same_talker(late_ms: int) -> None:
    plain = right(in_step())
    assert plain[0] >= 35
    assert plain[1] <= 3
    bent = right(speakers(late_ms * MS, 0))
    assert bent[0] <= plain[0] / 3, "the fault would not show"
    mended = right(speakers(late_ms * MS, late_ms * MS))
    # Sound that comes in late is heard late, so the beginnings and ends of speech stay a little behind.
    assert mended[0] >= 0.8 * plain[0]
    assert mended[1] <= 3


def test_only_sound_is_restamped_and_everything_else_is_handed_on() -> None:
    film = Talkers(1.0, late_ns=120 * MS)
    source, plain = Restamped(film, 120 * MS), Talkers(1.0)
    source.open()
    plain.open()
    stamps: dict[type, list[int]] = {VideoFrame: [], AudioBlock: []}
    wanted: dict[type, list[int]] = {VideoFrame: [], AudioBlock: []}
    for one, into in ((source, stamps), (plain, wanted)):
        with contextlib.suppress(EndOfStream):
            while (item := one.read(0.0)) is not None:
                into[type(item)].append(item.captured_ns)
    assert stamps == wanted
    assert (source.name, dict(source.losses)) == (film.name, {})
    source.close()


def test_live_takes_the_offset_of_the_two_devices_and_a_named_one_before_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    asked = Settings(camera=("rtsp://cam/1",), mic=("some mic",))

    def microphone_of(settings: Settings) -> Source:
        return webcam.feeds_of(settings, MonotonicClock())[-1].make()

    assert not isinstance(microphone_of(asked), Restamped)
    store_pair(Pair("rtsp://cam/1", "some mic", 90 * MS, "clap", 1.0))
    assert isinstance(microphone_of(asked), Restamped)
    assert not isinstance(microphone_of(replace(asked, mic=("other mic",))), Restamped)
    none = replace(asked, av_offset="0")
    assert not isinstance(microphone_of(none), Restamped)
    alone = replace(asked, camera=("none",))
    assert not isinstance(microphone_of(alone), Restamped)


def test_the_doctor_shows_what_is_stored_and_how_to_mend_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    assert [f.state for f in examination.sound_and_picture()] == ["absent"]
    path = store_pair(Pair("HD Cam", "Desk Mic", 90 * MS, "clap", 1.0))
    (found,) = examination.sound_and_picture()
    assert found.state == "ok"
    assert "HD Cam with Desk Mic: +90 ms" in found.detail
    path.write_text("{")
    (found,) = examination.sound_and_picture()
    assert (found.state, found.cure) == ("broken", "liveaffect calibrate av --erase all")


def feed(
    name: str, script: list[tuple[int, VideoFrame | AudioBlock | Exception]], clock: MonotonicClock
) -> Feed:
    sound = name.startswith("mic")
    return Feed(name, lambda: ScriptedSource(clock, script, name), not sound, sound, live=True)


def everything(recording: LiveRecording) -> list[VideoFrame | AudioBlock]:
    seen: list[VideoFrame | AudioBlock] = []
    with contextlib.suppress(EndOfStream):
        while True:
            item = recording.read(0.1)
            seen += [] if item is None else [item]
    return seen


def test_a_recording_begins_when_both_deliver_and_ends_after_its_time() -> None:
    clock = MonotonicClock()
    pictures = [(k * 10 * MS, picture(k, k * 10 * MS, source="camera:a")) for k in range(200)]
    sounds = [(k * 10 * MS, tone(k * 160, 160, k * 10 * MS, source="mic:a")) for k in range(30, 200)]
    recording = LiveRecording(
        [feed("camera:a", [*pictures], clock), feed("mic:a", [*sounds], clock)], clock, 0.3
    )
    recording.open()
    seen = everything(recording)
    recording.close()
    kinds = {type(item) for item in seen}
    assert kinds == {VideoFrame, AudioBlock}
    assert seen[0].captured_ns >= 200 * MS, "what one device gave before the other was there is no pair"
    assert all(np.diff([i.captured_ns for i in seen if isinstance(i, VideoFrame)]) > 0)


def test_a_recording_says_which_device_never_came() -> None:
    clock = MonotonicClock()
    gone = SourceNotFound("no microphone matches 'x'")
    feeds = [feed("camera:a", [(0, picture(0, 0))], clock), feed("mic:x", [(0, gone)], clock)]
    feeds[1] = Feed("mic:x", feeds[1].make, False, True, live=False)
    recording = LiveRecording(feeds, clock, 1.0)
    recording.open()
    with pytest.raises(SourceError, match="no microphone matches"):
        everything(recording)
    recording.close()


class Filmed:
    """A recording of devices that shows a film."""

    film = Talkers(11.0, late_ns=150 * MS)

    def __init__(self, feeds: list[Feed], clock: MonotonicClock, seconds: float) -> None:
        # What is stored already must not bend the new measurement.
        assert not any(isinstance(feed.make(), Restamped) for feed in feeds)
        self.open, self.read, self.close = self.film.open, self.film.read, self.film.close


def test_two_devices_are_measured_kept_by_name_and_found_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.setattr(recording, "LiveRecording", Filmed)
    monkeypatch.setattr(blazeface, "make_finder", lambda _: Filmed.film.make_finders())
    store_pair(Pair("rtsp://cam/1", "some mic", 400 * MS, "clap", 1.0))
    assert main(["calibrate", "av", "--camera", "rtsp://cam/1", "--mic", "some mic"]) == 0
    said = capsys.readouterr()
    assert "kept for rtsp://cam/1 with some mic" in said.out
    assert "speak, with your face in view" in said.err
    assert abs(stored_offset_ns("rtsp://cam/1", "some mic") - 150 * MS) <= 40 * MS
    assert main(["calibrate", "av", "--list"]) == 0
    assert "rtsp://cam/1 with some mic: +1" in capsys.readouterr().out
    assert main(["calibrate", "av", "--camera", "rtsp://cam/1", "--mic", "some mic", "--erase", "pair"]) == 0
    assert stored_offset_ns("rtsp://cam/1", "some mic") == 0


def test_a_pair_is_one_camera_and_one_microphone(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["calibrate", "av", "--camera", "0", "--mic", "none"]) == 1
    assert "one camera and one microphone" in capsys.readouterr().err
