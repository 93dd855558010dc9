"""How far sound lies behind the picture: by claps, by a mouth, refused when weak, kept by name."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import av as pyav
import numpy as np
import pytest
from numpy.typing import NDArray

from liveaffect.calibration.av_offset import (
    Offset,
    OffsetRefused,
    Watching,
    by_claps,
    by_mouth,
    clap_onsets,
    contacts,
    measure_offset,
    offset_in_words,
)
from liveaffect.cli import main
from liveaffect.commands.calibrate import opened
from liveaffect.engines.recipe import SAMPLE_RATE
from liveaffect.realtime.blazeface import make_finder
from liveaffect.realtime.clock import MS, SECOND
from liveaffect.realtime.device_pairs import (
    Pair,
    camera_name,
    erase_pair,
    load_pairs,
    store_pair,
    stored_offset_ns,
)
from liveaffect.realtime.devices import Device
from liveaffect.realtime.errors import CalibrationRefused, MissingFile
from liveaffect.realtime.replay import MediaFile
from liveaffect.realtime.testing.people import SIZE, Film, Hands, Talkers, claps, face, jaw, voice
from liveaffect.settings import Settings, resolve

CLAPS_S = [0.9, 1.87, 3.11, 3.98, 5.04, 6.33]


def measured(film: Film, *, clap: bool = False) -> Offset:
    film.open()
    return measure_offset(film, film.make_finders(), clap=clap)


@pytest.mark.parametrize(("late_ms", "fps"), [(-300, 30.0), (-110, 15.0), (0, 25.0), (45, 15.0), (300, 25.0)])
def test_claps_give_the_offset_within_half_a_frame(late_ms: int, fps: float) -> None:
    offset = measured(Hands(CLAPS_S, 7.5, fps=fps, late_ns=late_ms * MS), clap=True)
    assert abs(offset.ns / MS - late_ms) <= 500 / fps
    assert offset.method == "clap"
    assert offset.claps >= 5


class Busy(Hands):
    """Somebody who talks and bobs beside the hands, motion blur, and an echo from the wall."""

    def __init__(self, late_ns: int) -> None:
        super().__init__(CLAPS_S, 7.5, late_ns=late_ns)
        echo = np.concatenate([np.zeros(720, np.float32), 0.4 * self._sound[:-720]])
        self._sound = self._sound + echo + 0.4 * voice(jaw(7.5, 1))

    def draw(self, at_s: float) -> NDArray[np.uint8]:
        shots = []
        for moment in (at_s, at_s - 0.004, at_s - 0.008, at_s - 0.012):
            picture = super().draw(moment)
            top = round(50 + 10 * np.sin(8 * moment))
            picture[top : top + 60, 55:115] = face(3, 0.0)[:60, :60]
            shots.append(picture)
        return np.asarray(np.mean(shots, axis=0), np.uint8)


def test_claps_are_found_beside_talk_an_echo_and_a_head_that_moves() -> None:
    offset = measured(Busy(-90 * MS), clap=True)
    assert abs(offset.ns / MS + 90) <= 500 / 30


@pytest.mark.parametrize("late_ms", [-300, 300])
def test_a_made_up_talker_gives_it_within_forty_milliseconds(late_ms: int) -> None:
    offset = measured(Talkers(11.0, late_ns=late_ms * MS))
    assert abs(offset.ns / MS - late_ms) <= 40
    assert offset.confidence >= 0.5


def remuxed(clip: Path, late_ms: int, to: Path) -> Path:
    """The same packets; either sound or pictures start later, because a file begins at 0."""
    with pyav.open(str(clip)) as source, pyav.open(str(to), "w") as target:
        streams = {
            s.index: target.add_stream_from_template(s)
            for s in (*source.streams.video, *source.streams.audio)
        }
        for packet in source.demux():
            if packet.dts is None or packet.pts is None:
                continue
            moved = max(late_ms, 0) if packet.stream.type == "audio" else max(-late_ms, 0)
            ticks = round(moved / 1000 / packet.time_base)
            packet.pts += ticks
            packet.dts += ticks
            packet.stream = streams[packet.stream.index]
            target.mux(packet)
    return to


@pytest.mark.slow
def test_real_talkers_give_it_within_forty_milliseconds(shared_data: Path, tmp_path: Path) -> None:
    late_ms = -300
    clip = remuxed(shared_data / "clips" / "demo_grid_10speakers.mp4", late_ms, tmp_path / "shifted.mp4")
    try:
        with opened(MediaFile(clip)) as film:
            offset = measure_offset(film, make_finder(), clap=False)
    except MissingFile as error:
        pytest.skip(f"needs the face finder beside the shared clips: {error}")
    assert abs(offset.ns / MS - late_ms) <= 40


def noise(seconds: float) -> np.ndarray:
    return np.asarray(
        np.random.default_rng(0).standard_normal(round(seconds * SAMPLE_RATE)) * 0.05, np.float32
    )


def test_noise_alone_is_refused_by_name() -> None:
    class Noisy(Talkers):
        def __init__(self) -> None:
            super().__init__(8.0)
            self._sound = noise(8.0)

    with pytest.raises(CalibrationRefused, match="s of speech are needed"):
        measured(Noisy())
    with pytest.raises(CalibrationRefused, match="0 claps were heard"):
        measured(Film(noise(6.0)), clap=True)


def test_a_voice_that_is_not_that_of_the_mouth_is_refused() -> None:
    class Dubbed(Talkers):
        def __init__(self, seed: int) -> None:
            super().__init__(11.0, seed=seed)
            self._sound = voice(jaw(11.0, 1000 + seed))

    with pytest.raises(CalibrationRefused, match="no better than by chance"):
        measured(Dubbed(0))


def test_a_still_mouth_no_face_no_picture_and_no_sound_are_refused_by_name() -> None:
    speech = voice(jaw(8.0, 0))
    with pytest.raises(CalibrationRefused, match="no face was in view"):
        measured(Film(speech))

    class Still(Talkers):
        def __init__(self) -> None:
            super().__init__(8.0)
            self._jaws = [np.zeros(8 * SAMPLE_RATE)]

    with pytest.raises(CalibrationRefused, match="the mouth did not move"):
        measured(Still())
    with pytest.raises(CalibrationRefused, match="hands were seen to meet 0 times"):
        measured(Film(claps(CLAPS_S, 7.5)), clap=True)
    with pytest.raises(CalibrationRefused, match="there was no sound"):
        measured(Film(np.zeros(300, np.float32)))


def test_numbers_that_are_none_are_refused_by_name() -> None:
    times = np.arange(200, dtype=np.int64) * 40 * MS
    good, bad = np.ones(200), np.full(200, np.nan)
    with pytest.raises(OffsetRefused, match="mouth motion are not finite"):
        by_mouth(times, times + 40 * MS, bad, times, good)
    with pytest.raises(OffsetRefused, match="loudness are not finite"):
        by_mouth(times, times + 40 * MS, good, times, bad)
    with pytest.raises(OffsetRefused, match="sound are not finite"):
        clap_onsets(0, bad)
    with pytest.raises(OffsetRefused, match="motion are not finite"):
        contacts(times, bad[:-1])


def test_claps_as_even_as_a_clock_do_not_tell_one_offset_from_the_next() -> None:
    every = np.arange(0, 10 * SECOND, 300 * MS, dtype=np.int64)
    with pytest.raises(OffsetRefused, match="not evenly"):
        by_claps(every + 50 * MS, every, np.ones(len(every)), 33 * MS)
    uneven = np.cumsum(np.random.default_rng(0).integers(600, 1400, 8)).astype(np.int64) * MS
    assert by_claps(uneven + 50 * MS, uneven, np.ones(8), 33 * MS).ns == 50 * MS


def test_a_sound_that_swells_or_lasts_is_no_clap() -> None:
    rng = np.random.default_rng(0)
    hiss, room = rng.standard_normal(SAMPLE_RATE) * 0.3, rng.standard_normal(SAMPLE_RATE) * 5e-4
    t = np.arange(SAMPLE_RATE) / SAMPLE_RATE
    shapes = {
        "clap": np.where(t < 0.5, 0.0, np.exp(-(t - 0.5) / 0.006)),
        "swell": np.exp(-0.5 * np.square((t - 0.5) / 0.012)),
        "lasting": np.where(t < 0.5, 0.0, 1.0),
    }
    heard = {name: len(clap_onsets(0, hiss * shape + room)) for name, shape in shapes.items()}
    assert heard == {"clap": 1, "swell": 0, "lasting": 0}


def test_hands_that_meet_elsewhere_and_doors_that_slam_do_not_move_the_median() -> None:
    rng = np.random.default_rng(1)
    met = np.cumsum(rng.integers(700, 1500, 8)).astype(np.int64) * MS
    seen = np.sort(np.concatenate([met, rng.integers(0, 9000, 5) * MS]))
    heard = np.sort(
        np.concatenate([met + 130 * MS + rng.integers(-5, 6, 8) * MS, rng.integers(0, 9000, 2) * MS])
    )
    assert by_claps(heard, seen, np.ones(len(seen)), 33 * MS).ns == pytest.approx(130 * MS, abs=6 * MS)


def test_nothing_is_kept_of_pictures_while_it_watches() -> None:
    film = Talkers(2.0)
    film.open()
    traces = Watching(film.make_finders()).all_of(film)
    lists = (traces.begin_ns, traces.end_ns, traces.opening_px, traces.seen_ns, traces.changed, traces.nats)
    assert all(isinstance(value, int | float) for values in lists for value in values)
    assert SIZE[0] * SIZE[1] > max(len(values) for values in lists)


@pytest.fixture
def settings_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    return tmp_path / "liveaffect"


CAM = Pair("HD Cam", "Desk Mic", 120 * MS, "mouth", 0.8)


def test_pairs_are_kept_by_name_replaced_listed_and_erased(settings_folder: Path) -> None:
    other = Pair("HD Cam", "Headset", -40 * MS, "clap", 1.0)
    assert load_pairs() == []
    store_pair(CAM)
    store_pair(other)
    store_pair(Pair("HD Cam", "Desk Mic", 90 * MS, "clap", 0.9))
    assert {p.offset_ns for p in load_pairs()} == {-40 * MS, 90 * MS}
    assert stored_offset_ns("HD Cam", "Headset") == -40 * MS
    assert stored_offset_ns("HD Cam", "none such") == 0
    assert erase_pair("HD Cam", "Headset") == 1
    assert erase_pair("HD Cam", "Headset") == 0
    assert erase_pair("HD Cam", "Desk Mic") == 1
    assert list(settings_folder.iterdir()) == []


DAMAGED: list[tuple[str, str]] = [
    ("{", "is damaged"),
    ("[]", "is damaged"),
    ('{"format": 2, "pairs": []}', "has format 2"),
    ('{"format": 1}', "is damaged"),
    (json.dumps({"format": 1, "pairs": [{"camera": "a", "microphone": "b"}]}), "is damaged"),
    (
        '{"format":1,"pairs":[{"camera":"a","microphone":"b","offset_ns":9e9,"method":"m","confidence":1}]}',
        "sense",
    ),
    (
        '{"format":1,"pairs":[{"camera":"a","microphone":"b","offset_ns":1,"method":"m","confidence":NaN}]}',
        "sense",
    ),
]


@pytest.mark.parametrize(("text", "says"), DAMAGED)
def test_a_damaged_or_newer_file_is_refused_with_what_mends_it(
    text: str, says: str, settings_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings_folder.mkdir()
    (settings_folder / "av-offsets.json").write_text(text)
    with pytest.raises(CalibrationRefused, match=says) as refusal:
        load_pairs()
    assert "liveaffect calibrate av --erase all" in str(refusal.value)
    assert main(["calibrate", "av", "--list"]) == 1
    assert main(["calibrate", "av", "--erase", "all"]) == 0
    assert main(["calibrate", "av", "--list"]) == 0
    assert "no pair" in capsys.readouterr().out


def test_a_camera_goes_by_its_name_not_by_its_number() -> None:
    devices: Callable[[], list[Device]] = lambda: [Device(2, "HD Cam", "/dev/video2")]  # noqa: E731
    assert [camera_name(spec, devices) for spec in ("2", "hd", "/dev/video2", "0", "rtsp://x/y")] == [
        "HD Cam", "HD Cam", "HD Cam", "0", "rtsp://x/y",
    ]  # fmt: skip


def test_the_offset_may_be_named_and_a_senseless_one_is_refused() -> None:
    assert Settings().av_offset_ns is None
    assert resolve({"av_offset": "-80"}, {}).av_offset_ns == -80 * MS
    for bad in ("soon", "1001", "nan", "inf"):
        with pytest.raises(Exception, match="av_offset is"):
            Settings(av_offset=bad)


def test_a_file_is_measured_from_the_command_line_and_a_clip_without_sound_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "silent.mp4"
    with pyav.open(str(path), "w") as target:
        stream = target.add_stream("mpeg4", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for _ in range(5):
            target.mux(stream.encode(pyav.VideoFrame.from_ndarray(np.zeros((48, 64, 3), np.uint8))))
        target.mux(stream.encode())
    assert main(["calibrate", "av", "--clap", "--file", str(path)]) == 1
    assert "there was no sound" in capsys.readouterr().err


def test_the_answer_is_in_words() -> None:
    assert "120 ms later" in offset_in_words(Offset(120 * MS, "mouth", 20 * MS, 0.7))
    assert "40 ms earlier than the picture (6 claps" in offset_in_words(
        Offset(-40 * MS, "clap", 3 * MS, 1.0, 6)
    )
