"""Outputs write what they were given, whole or not at all, and say which file failed and what to do."""

from __future__ import annotations

import csv
import json
import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest

from engines.recipe import LABELS, SAMPLE_RATE
from realtime.clock import MS, SECOND
from realtime.cue import NOT_SURE, Cue
from realtime.drawing.chart import time_text
from realtime.drawing.paint import label_colour
from realtime.errors import MissingLibrary, SinkError
from realtime.frame import AudioBlock
from realtime.sinks import contact_sheet, timeline, window
from realtime.sinks.catalogue import open_sink
from realtime.sinks.contact_sheet import ContactSheet, Tile, chosen
from realtime.sinks.csv_file import COLUMNS, CsvFile
from realtime.sinks.jsonl import JsonLines
from realtime.sinks.timeline import Timeline
from realtime.sinks.video_file import VideoFile
from realtime.testing.golden import load
from realtime.testing.scenes import background, cue, frame

FILES = ["cues.jsonl", "table.csv", "out.mp4", "run.sheet.png", "run.png"]


def feed(path: Path, *, pictures: int = 5) -> None:
    """A short run into the output that the name means."""
    sink = open_sink(str(path))
    noise = np.random.default_rng(1).integers(0, 255, (120, 160, 3), np.uint8)
    try:
        for step in range(pictures):
            sink.show(noise, frame(noise, step))
            sink.tell([cue("happy", t_ns=step * 100 * MS)])
    finally:
        sink.close()


# What every file has in common.


@pytest.mark.parametrize("name", FILES)
def test_a_folder_that_does_not_exist_is_refused_at_once_with_the_path_and_what_to_do(
    tmp_path: Path, name: str
) -> None:
    path = tmp_path / "missing" / name
    with pytest.raises(SinkError, match="create it first") as caught:
        open_sink(str(path))
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("name", FILES)
def test_a_folder_in_the_place_of_the_file_is_refused_at_once(tmp_path: Path, name: str) -> None:
    (tmp_path / name).mkdir()
    with pytest.raises(SinkError, match="name a file in it"):
        open_sink(str(tmp_path / name))


@contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """Every write beyond so many bytes fails, as on a disk that is full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("name", FILES)
def test_a_disk_that_fills_up_is_said_with_the_path_and_leaves_nothing_half_done(
    tmp_path: Path, name: str
) -> None:
    path = tmp_path / name
    with pytest.raises(SinkError, match="name another place") as caught, files_of_at_most(600):
        feed(path, pictures=40)
    assert str(path) in str(caught.value)
    if path.suffix not in (".jsonl", ".csv"):
        assert not list(tmp_path.iterdir()), "a broken file was left"


@pytest.mark.parametrize("name", ["/dev/full"])
def test_a_full_device_is_called_full(name: str) -> None:
    if not os.path.exists(name):
        pytest.skip(f"needs {name}")
    lines = JsonLines(name)
    with pytest.raises(SinkError, match="/dev/full: the disk is full"):
        lines.tell([cue("happy")])
    lines.close()
    with pytest.raises(SinkError, match="/dev/full: the disk is full"):
        CsvFile(name)


@pytest.mark.parametrize("name", ["out.mp4", "run.sheet.png", "run.png"])
def test_a_file_that_was_there_stays_until_the_new_one_is_complete(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(b"old")
    open_sink(str(path)).close()
    assert path.read_bytes() == b"old", "nothing came, so nothing is replaced"
    feed(path)
    assert path.read_bytes() != b"old"
    assert [p.name for p in tmp_path.iterdir()] == [name]


def test_a_name_that_means_nothing_is_refused_with_what_there_is() -> None:
    with pytest.raises(SinkError, match=r"'out\.gif'.*window.*\.jsonl.*\.csv.*\.mp4.*\.sheet\.png.*\.png"):
        open_sink("out.gif")


# JSON lines and the table.


def some_cues() -> list[Cue]:
    return [
        replace(cue(label, t_ns=step * 100 * MS, track=step), reason='dark, "odd"\nreason' if step else None)
        for step, label in enumerate([*LABELS, NOT_SURE])
    ]


def test_a_line_can_be_read_as_soon_as_the_cue_was_told(tmp_path: Path) -> None:
    lines = JsonLines(str(tmp_path / "cues.jsonl"))
    for count, said in enumerate(some_cues(), start=1):
        lines.tell([said])
        read = (tmp_path / "cues.jsonl").read_text().splitlines()
        assert [json.loads(text)["track"] for text in read] == list(range(count))
    lines.close()


@pytest.mark.parametrize("name", ["cues.jsonl", "table.csv"])
def test_two_runs_over_the_same_cues_give_the_same_bytes(tmp_path: Path, name: str) -> None:
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        sink = open_sink(str(tmp_path / folder / name))
        sink.tell(some_cues()[:3])
        sink.tell(some_cues()[3:])
        sink.close()
    assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_standard_output_stays_open_for_others(capfd: pytest.CaptureFixture[str]) -> None:
    lines = JsonLines("-")
    lines.tell([cue("sad")])
    lines.close()
    os.write(1, b"after\n")
    first, second = capfd.readouterr().out.splitlines()
    assert json.loads(first)["label"] == "sad"
    assert second == "after"


def test_a_reader_that_went_away_is_said_instead_of_ending_the_program() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    lines = JsonLines(f"/dev/fd/{writing}") if sys.platform.startswith("linux") else None
    if lines is None:
        pytest.skip("needs /dev/fd")
    with pytest.raises(SinkError, match="program that read it has ended"):
        lines.tell([cue("happy")])
    lines.close()
    os.close(writing)


def test_the_table_survives_quotes_and_line_breaks_and_has_a_heading(tmp_path: Path) -> None:
    table = CsvFile(str(tmp_path / "table.csv"))
    table.tell(some_cues())
    table.close()
    with open(tmp_path / "table.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert tuple(rows[0]) == COLUMNS
    assert [row["label"] for row in rows] == [*LABELS, NOT_SURE]
    assert rows[1]["reason"] == 'dark, "odd"\nreason'
    assert rows[0]["reason"] == rows[0]["voice_happy"] == ""
    assert sum(float(rows[2][f"fused_{label}"]) for label in LABELS) == pytest.approx(1, abs=1e-6)


# The video.


def tone(first: int, count: int, captured_ns: int) -> AudioBlock:
    """A click of full loudness in every second, else silence; by absolute sample number."""
    samples = np.where(np.arange(first, first + count) % SAMPLE_RATE < 160, 0.9, 0.0).astype(np.float32)
    return AudioBlock("default", first, captured_ns, samples)


def shade(level: int, width: int = 64, height: int = 48) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    return np.full((height, width, 3), level, np.uint8)


def decoded(path: Path) -> tuple[list[float], list[int], np.ndarray[tuple[int], np.dtype[np.float32]], float]:
    """Times and mean levels of the pictures; the sound, and when it begins."""
    times, levels, sound, begin = [], [], [np.zeros(0, np.float32)], -1.0
    with av.open(str(path)) as file:
        for item in file.decode(*file.streams.video, *file.streams.audio):
            if isinstance(item, av.VideoFrame):
                times.append(float(item.time or 0.0))
                levels.append(round(float(item.to_ndarray(format="gray").mean())))
            elif isinstance(item, av.AudioFrame):
                begin = float(item.time or 0.0) if begin < 0 else begin
                sound.append(item.to_ndarray()[0])
    return times, levels, np.concatenate(sound), begin


def test_pictures_keep_the_uneven_times_at_which_they_were_captured(tmp_path: Path) -> None:
    stamps = [5 * SECOND + ms * MS for ms in (0, 33, 70, 71, 200, 1000, 1040)]
    video = VideoFile(str(tmp_path / "out.mp4"))
    for seq, stamp in enumerate(stamps):
        video.show(shade(30 * seq), frame(shade(30 * seq), seq, captured_ns=stamp))
    video.close()
    times, levels, sound, _ = decoded(tmp_path / "out.mp4")
    assert times == pytest.approx([(stamp - stamps[0]) / SECOND for stamp in stamps], abs=1e-4)
    assert levels == pytest.approx([30 * seq for seq in range(7)], abs=16)
    assert np.all(np.diff(levels) > 0)
    assert not len(sound)


def test_sound_stays_with_the_picture_across_a_late_start_a_gap_and_an_overlap(tmp_path: Path) -> None:
    """Pictures flash and sound clicks at every full second of the run; the file must agree."""
    video = VideoFile(str(tmp_path / "out.mp4"))
    block = SAMPLE_RATE // 25
    begin_ns = 400 * MS
    for step in range(125):
        t_ns = step * 40 * MS
        if t_ns >= begin_ns:
            level = 250 if step % 25 == 0 else 5
            video.show(shade(level), frame(shade(level), step, captured_ns=t_ns))
        if not 60 <= step < 70:  # lost sound
            video.hear(tone(step * block, block, t_ns))
        if step == 80:  # the same sound once more
            video.hear(tone(step * block, block, t_ns))
    video.close()
    times, levels, sound, first = decoded(tmp_path / "out.mp4")
    flashes = [t + 0.4 for t, level in zip(times, levels, strict=True) if level > 128]
    loud = np.flatnonzero(np.abs(sound) > 0.4) / SAMPLE_RATE + first + 0.4
    clicks = [float(part[0]) for part in np.split(loud, np.flatnonzero(np.diff(loud) > 0.5) + 1)]
    assert flashes == pytest.approx([1, 2, 3, 4], abs=0.001)
    assert clicks == pytest.approx([1, 2, 3, 4], abs=0.03)


def test_a_microphone_that_starts_seconds_late_is_still_recorded(tmp_path: Path) -> None:
    video = VideoFile(str(tmp_path / "out.mp4"))
    for step in range(50):
        video.show(shade(99), frame(shade(99), step, captured_ns=step * 80 * MS))
        if step >= 30:
            video.hear(tone(0, 1280, step * 80 * MS))
    video.close()
    _, _, sound, first = decoded(tmp_path / "out.mp4")
    loud = np.flatnonzero(np.abs(sound) > 0.4)
    assert first + loud[0] / SAMPLE_RATE == pytest.approx(2.4, abs=0.03)


def test_an_odd_size_is_filled_up_and_a_change_of_size_is_scaled(tmp_path: Path) -> None:
    video = VideoFile(str(tmp_path / "out.mp4"))
    for seq, size in enumerate([(63, 47), (63, 47), (128, 96)]):
        video.show(shade(120, *size), frame(shade(120, *size), seq))
    video.close()
    with av.open(str(tmp_path / "out.mp4")) as file:
        assert [(f.width, f.height) for f in file.decode(video=0)] == [(64, 48)] * 3
        assert file.streams.video[0].codec_context.pix_fmt == "yuv420p"


def test_every_camera_gets_a_file_of_its_own(tmp_path: Path) -> None:
    video = VideoFile(str(tmp_path / "out.mp4"))
    for seq in range(4):
        video.show(shade(9), frame(shade(9), seq, source="camera:0"))
        video.show(shade(200), frame(shade(200), seq, source="camera:1"))
    video.close()
    assert {path.name for path in tmp_path.iterdir()} == {"out.mp4", "out-camera_1.mp4"}
    assert min(decoded(tmp_path / "out-camera_1.mp4")[1]) > 150


# The contact sheet.


@pytest.mark.parametrize("pictures", [1, 3, 16, 40, 1000, 5000])
def test_the_sheet_is_evenly_spaced_from_first_to_last_whatever_the_length(
    tmp_path: Path, pictures: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    sheets: list[list[int]] = []
    real = contact_sheet.sheet

    def note(tiles: Sequence[Tile]) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
        sheets.append([t for t, _, _ in tiles])
        return real(tiles)

    monkeypatch.setattr(contact_sheet, "sheet", note)
    out = ContactSheet(str(tmp_path / "run.sheet.png"))
    small = shade(50, 16, 12)
    for seq in range(pictures):
        out.show(small, frame(small, seq))
    held = len(out._kept)
    out.close()
    assert held < 4 * contact_sheet.PICTURES + 1
    (times,) = sheets
    assert len(times) == min(pictures, contact_sheet.PICTURES)
    assert times[0] == 0
    end = (pictures - 1) * SECOND // 30
    assert times[-1] >= end * 0.93
    even = np.diff(times)
    if pictures > 100:
        assert even.max() <= 1.45 * even.mean()
    assert load(tmp_path / "run.sheet.png").shape[2] == 3


def test_a_large_picture_is_kept_small(tmp_path: Path) -> None:
    out = ContactSheet(str(tmp_path / "run.sheet.png"))
    large = background(1920, 1080)
    out.show(large, frame(large))
    assert out._kept[0][2].shape == (225, 400, 3)
    out.close()


def test_chosen_keeps_the_first_and_the_last() -> None:
    tiles = [(t, "camera:0", shade(0)) for t in range(50)]
    picked = [t for t, _, _ in chosen(tiles, 16)]
    assert picked[0] == 0
    assert picked[-1] == 49
    assert len(set(picked)) == 16


# The timeline.


def drawn(path: Path, cues: list[Cue]) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    out = Timeline(str(path))
    for said in cues:
        out.tell([said])
    out.close()
    return load(path)


def test_the_timeline_shows_each_label_for_as_long_as_it_held(tmp_path: Path) -> None:
    labels = ["happy"] * 50 + ["sad"] * 25 + [NOT_SURE] * 25
    picture = drawn(
        tmp_path / "run.png",
        [cue(label, confidence=1.0, t_ns=step * 100 * MS) for step, label in enumerate(labels)],
    )
    row = picture[60, 190:-24]
    share = {label: float((row == label_colour(label)).all(axis=-1).mean()) for label in set(labels)}
    assert share == pytest.approx({"happy": 0.5, "sad": 0.25, NOT_SURE: 0.25}, abs=0.02)


def test_where_a_person_was_away_the_timeline_has_a_hole(tmp_path: Path) -> None:
    steps = [*range(30), *range(60, 100)]
    picture = drawn(tmp_path / "run.png", [cue("happy", confidence=1.0, t_ns=s * 100 * MS) for s in steps])
    lit = (picture[60, 190:-24] == label_colour("happy")).all(axis=-1)
    assert 0.68 < lit.mean() < 0.76
    assert not lit[len(lit) * 40 // 100 : len(lit) * 58 // 100].any()


def test_a_long_run_with_many_people_stays_small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timeline, "_ENTRIES", 64)
    monkeypatch.setattr(timeline, "_TRACKS", 12)
    out = Timeline(str(tmp_path / "run.png"))
    for step in range(1000):
        out.tell(
            [
                cue("happy", track=1, t_ns=step * 100 * MS),
                cue("sad", track=2 + step // 20, t_ns=step * 100 * MS),
            ]
        )
    assert len(out._kept) <= 12
    assert all(len(kept.entries) < 64 for kept in out._kept.values())
    lane = out._kept["camera:0", 1]
    assert lane.seen == 1000
    assert len(set(np.diff([entry.t_ns for entry in lane.entries]))) == 1, "old and new count alike"
    out.close()
    height = load(tmp_path / "run.png").shape[0]
    assert height < 2000, "at most eight lanes are drawn"


def test_times_on_the_axis_read_as_people_write_them() -> None:
    assert time_text(1_500 * MS, 0.5) == "1.5 s"
    assert time_text(90 * SECOND, 10) == "90 s"
    assert time_text(150 * SECOND, 30) == "2:30"
    assert time_text(3 * 3600 * SECOND + 61 * SECOND, 600) == "3:01:01"


# The window.


def test_without_a_display_the_window_says_so_instead_of_ending_the_program(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if not sys.platform.startswith("linux"):
        pytest.skip("only X11 can be without a display")
    monkeypatch.delenv("DISPLAY", raising=False)
    assert not window.display_is_there()
    with pytest.raises(SinkError, match="DISPLAY is not set"):
        window.Window()
    monkeypatch.setenv("DISPLAY", ":4711")
    with pytest.raises(SinkError, match=":4711, and nothing answers there"):
        window.Window()


def test_a_missing_library_is_named_with_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    if not sys.platform.startswith("linux"):
        pytest.skip("only X11 needs libxcb")

    def missing(name: str) -> None:
        raise OSError(f"{name}: cannot open shared object file")

    monkeypatch.setenv("DISPLAY", ":0")
    monkeypatch.setattr("realtime.sinks.window.ctypes.CDLL", missing)
    with pytest.raises(MissingLibrary, match="apt-get install libxcb1"):
        window.Window()


ON_A_DISPLAY = """
import subprocess, sys, time
import numpy as np
from functools import partial
from pathlib import Path
from realtime.sinks.window import Window
from realtime.testing.golden import load
from realtime.testing.scenes import crowd
from realtime.overlay import draw

view = crowd(640, 480, 1)
picture = draw(view)
shot = sys.argv[1]
window, pressed = Window(), []
window.on_key = {key: lambda key=key: pressed.append(key) for key in "ml"}
run = partial(subprocess.run, check=True, capture_output=True, text=True)
for _ in range(20):
    for _ in range(8):
        window.show(picture, view.frame)
        time.sleep(0.02)
    run(["import", "-window", "root", shot])
    if np.array_equal(load(Path(shot))[:480, :640], picture):
        break
else:
    sys.exit("the screen never showed the picture")
found = run(["xdotool", "search", "--name", "liveaffect"]).stdout.split()[0]
for key in ("m", "l", "x", "Escape"):
    assert not window.wants_stop, pressed
    run(["xdotool", "key", "--window", found, key])
    for _ in range(4):
        window.show(picture, view.frame)
        time.sleep(0.01)
assert pressed == ["m", "l"], pressed
assert window.wants_stop
window.close()
window.close()
"""


@pytest.mark.slow
def test_the_window_shows_exactly_the_picture_and_hears_its_keys(tmp_path: Path) -> None:
    for program, package in (("xvfb-run", "xvfb"), ("import", "imagemagick"), ("xdotool", "xdotool")):
        if shutil.which(program) is None:
            pytest.skip(f"needs {program}: apt-get install {package}")
    shot = tmp_path / "shot.png"
    done = subprocess.run(
        ["xvfb-run", "-a", "-s", "-screen 0 800x600x24", sys.executable, "-c", ON_A_DISPLAY, str(shot)],
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert done.returncode == 0, done.stderr
