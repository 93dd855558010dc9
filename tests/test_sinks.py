"""Outputs write what they were given, whole or not at all, and say which file failed and what to do."""

from __future__ import annotations

import csv
import json
import os
import resource
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from liveaffect.engines.recipe import LABELS
from liveaffect.realtime.clock import MS, SECOND
from liveaffect.realtime.cue import NOT_SURE, Cue
from liveaffect.realtime.drawing.canvas import label_colour
from liveaffect.realtime.errors import SinkError
from liveaffect.realtime.sinks import files, timeline
from liveaffect.realtime.sinks.catalogue import open_sink
from liveaffect.realtime.sinks.files import COLUMNS, CsvFile, JsonLines
from liveaffect.realtime.sinks.timeline import ContactSheet, Tile, Timeline, chosen, time_text
from liveaffect.realtime.testing.scenes import background, cue, frame, load_golden

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


@contextmanager
def standard_output_that_never_waits() -> Iterator[int]:
    """A pipe as Node and asyncio make it; gives the end to read."""
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    before = os.dup(1)
    os.dup2(writing, 1)
    os.close(writing)
    try:
        yield reading
    finally:
        os.dup2(before, 1)
        os.close(before)
        os.close(reading)


def test_a_reader_that_pauses_gets_every_line_once_and_whole() -> None:
    got: list[bytes] = []
    with standard_output_that_never_waits() as reading:

        def read() -> None:
            time.sleep(0.5)
            while chunk := os.read(reading, 5_000):
                got.append(chunk)

        lines = JsonLines("-")
        reader = threading.Thread(target=read)
        reader.start()
        try:
            for step in range(60):
                lines.tell([cue("happy", track=track, t_ns=step * 100 * MS) for track in range(8)])
            assert len(got) > 1, "nothing had to wait"
        finally:
            lines.close()
            os.close(1)  # the reader's end of it
            reader.join()
    read_back = [json.loads(text) for text in b"".join(got).splitlines()]
    assert [(one["t"], one["track"]) for one in read_back] == [
        (round(step * 0.1, 6), track) for step in range(60) for track in range(8)
    ]


def test_a_reader_that_never_reads_is_given_up_with_whole_lines_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "READS_WITHIN_S", 0.3)
    crowd = [cue("happy", track=track) for track in range(500)]
    with standard_output_that_never_waits() as reading:
        lines = JsonLines("-")
        with pytest.raises(SinkError, match="standard output: the program that reads it has taken nothing"):
            lines.tell(crowd)
        lines.close()
        text = os.read(reading, 1_000_000)
    assert len(text) > 50_000
    assert all(json.loads(one)["v"] == 1 for one in text.splitlines())
    assert text.endswith(b"\n")


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


# The contact sheet.


@pytest.mark.parametrize("pictures", [1, 3, 16, 40, 1000, 5000])
def test_the_sheet_is_evenly_spaced_from_first_to_last_whatever_the_length(
    tmp_path: Path, pictures: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    sheets: list[list[int]] = []
    real = timeline.sheet

    def note(tiles: Sequence[Tile]) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
        sheets.append([t for t, _, _ in tiles])
        return real(tiles)

    monkeypatch.setattr(timeline, "sheet", note)
    out = ContactSheet(str(tmp_path / "run.sheet.png"))
    small = np.full((12, 16, 3), 50, np.uint8)
    for seq in range(pictures):
        out.show(small, frame(small, seq))
    held = len(out._kept)
    out.close()
    assert held < 4 * timeline.PICTURES + 1
    (times,) = sheets
    assert len(times) == min(pictures, timeline.PICTURES)
    assert times[0] == 0
    end = (pictures - 1) * SECOND // 30
    assert times[-1] >= end * 0.93
    even = np.diff(times)
    if pictures > 100:
        assert even.max() <= 1.45 * even.mean()
    assert load_golden(tmp_path / "run.sheet.png").shape[2] == 3


def test_a_large_picture_is_kept_small(tmp_path: Path) -> None:
    out = ContactSheet(str(tmp_path / "run.sheet.png"))
    large = background(1920, 1080)
    out.show(large, frame(large))
    assert out._kept[0][2].shape == (225, 400, 3)
    out.close()


def test_chosen_keeps_the_first_and_the_last() -> None:
    tiles = [(t, "camera:0", np.zeros((48, 64, 3), np.uint8)) for t in range(50)]
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
    return load_golden(path)


def test_the_timeline_shows_each_label_for_as_long_as_it_held(tmp_path: Path) -> None:
    labels = ["happy"] * 50 + ["sad"] * 25 + [NOT_SURE] * 25
    picture = drawn(
        tmp_path / "run.png",
        [cue(label, confidence=1.0, t_ns=step * 100 * MS) for step, label in enumerate(labels)],
    )
    row = picture[90, 191:-31]
    share = {label: float((row == label_colour(label)).all(axis=-1).mean()) for label in set(labels)}
    assert share == pytest.approx({"happy": 0.5, "sad": 0.25, NOT_SURE: 0.25}, abs=0.02)


def test_where_a_person_was_away_the_timeline_has_a_hole(tmp_path: Path) -> None:
    steps = [*range(30), *range(60, 100)]
    picture = drawn(tmp_path / "run.png", [cue("happy", confidence=1.0, t_ns=s * 100 * MS) for s in steps])
    lit = (picture[90, 191:-31] == label_colour("happy")).all(axis=-1)
    assert 0.68 < lit.mean() < 0.76
    assert not lit[len(lit) * 40 // 100 : len(lit) * 58 // 100].any()


def test_a_long_run_with_many_people_stays_small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timeline, "_POINTS", 64)
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
    assert all(len(kept.points) < 64 for kept in out._kept.values())
    lane = out._kept["camera:0", 1]
    assert lane.seen == 1000
    assert len(set(np.diff([point.t_ns for point in lane.points]))) == 1, "old and new count alike"
    out.close()
    height = load_golden(tmp_path / "run.png").shape[0]
    assert height < 2000, "at most eight lanes are drawn"


def test_who_comes_after_many_others_is_drawn_and_everybody_is_counted_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawings: list[tuple[list[str], int]] = []
    real = timeline.timeline_figure

    def note(people: Sequence[timeline.PersonOverTime], left_out: int = 0) -> object:
        drawings.append(([person.name for person in people], left_out))
        return real(people, left_out)

    monkeypatch.setattr(timeline, "timeline_figure", note)
    passing = [cue("sad", track=1 + step // 20, t_ns=step * 100 * MS) for step in range(70 * 20)]
    staying = [cue("happy", track=999, t_ns=(1400 + step) * 100 * MS) for step in range(600)]
    drawn(tmp_path / "run.png", passing + staying)
    ((names, left_out),) = drawings
    assert "person 999" in names
    assert len(names) + left_out == 71


def test_who_is_in_view_with_many_others_keeps_their_points(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(timeline, "_TRACKS", 12)
    monkeypatch.setattr(timeline, "_COUNTED", 100)
    out = Timeline(str(tmp_path / "run.png"))
    for step in range(200):
        crowd = [cue("happy", track=track, t_ns=step * 100 * MS) for track in range(20)]
        out.tell([*crowd, cue("sad", track=100 + step, t_ns=step * 100 * MS)])
    assert [who[1] for who in out._kept] == list(range(12))
    assert all(len(kept.points) == 200 for kept in out._kept.values())
    assert len(out._presence) <= 100
    assert len(out._presence) + out._forgotten == 220
    out.close()


def test_times_on_the_axis_read_as_people_write_them() -> None:
    assert time_text(1.5, 0.5) == "1.5 s"
    assert time_text(90, 10) == "90 s"
    assert time_text(150, 30) == "2:30"
    assert time_text(3 * 3600 + 61, 600) == "3:01:01"
