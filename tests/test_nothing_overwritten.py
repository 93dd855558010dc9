"""No output destroys an input, another output or somebody's file, and a flag means what it says."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from liveaffect import cli
from liveaffect.realtime.errors import SinkError
from liveaffect.realtime.sinks.catalogue import by_flag, open_sink, refuse_overwriting
from liveaffect.realtime.sinks.files import part_of
from liveaffect.realtime.testing.media import film, plain_wav


def run(*arguments: str | Path) -> int:
    return cli.main([str(argument) for argument in arguments])


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    return film(tmp_path / "clip.mp4", "mpeg4", "aac")


def _itself(clip: Path) -> Path:
    return clip


def _link(clip: Path) -> Path:
    link = clip.with_name("link.mp4")
    link.symlink_to(clip)
    return link


def _second_name(clip: Path) -> Path:
    other = clip.with_name("other.mp4")
    os.link(clip, other)
    return other


def _other_spelling(clip: Path) -> Path:
    return clip.parent / ".." / clip.parent.name / clip.name


@pytest.mark.parametrize("name", ["meeting.jsonl", "meeting.csv"])
def test_a_start_that_fails_leaves_the_recording_of_yesterday(
    clip: Path, name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(clip.parent)
    monkeypatch.delenv("DISPLAY", raising=False)
    kept, flag = clip.parent / name, "--cues" if name.endswith("jsonl") else "--csv"
    assert run("analyze", clip, flag, name, "--engine", "scripted") == 0
    before = kept.read_bytes()
    assert len(before) > 1000
    for fails in (
        ("live", "--camera", "no such camera", "--mic", "none", "--sink", name),
        ("live", "--camera", clip, "--sink", name, "--sink", "a.srt"),
        ("live", "--camera", clip, "--sink", name, "--sink", "window"),
        ("analyze", clip, flag, name, "--overlay", "/proc/x.mp4"),
    ):
        assert run(*fails, "--engine", "scripted") == 1
        assert kept.read_bytes() == before, fails
    assert run("analyze", clip, flag, name, "--engine", "scripted") == 0
    assert kept.read_bytes() == before
    capsys.readouterr()


@pytest.mark.parametrize("spelling", [_itself, _link, _second_name, _other_spelling])
def test_an_overlay_over_its_own_film_is_refused_and_the_film_stays(
    clip: Path, spelling: Callable[[Path], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    before = clip.read_bytes()
    assert run("analyze", clip, "--overlay", spelling(clip), "--engine", "scripted") == 1
    assert "would overwrite" in capsys.readouterr().err
    assert clip.read_bytes() == before


def test_a_recording_over_the_film_that_is_the_camera_is_refused(
    clip: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = clip.read_bytes()
    assert run("live", "--camera", clip, "--sink", clip, "--engine", "scripted") == 1
    assert "would overwrite" in capsys.readouterr().err
    assert clip.read_bytes() == before


def test_the_part_of_a_killed_run_can_be_analysed_into_the_name_it_was_meant_for_only_elsewhere(
    clip: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    part = clip.rename(part_of(clip))
    assert run("analyze", part, "--overlay", clip, "--engine", "scripted") == 1
    assert "would overwrite" in capsys.readouterr().err
    assert part.stat().st_size > 0


@pytest.mark.parametrize(
    "flags", [("--plot", "one.png", "--sheet", "one.png"), ("--cues", "-", "--csv", "-")]
)
def test_one_output_for_two_purposes_is_refused(
    clip: Path, flags: tuple[str, ...], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(clip.parent)
    assert run("analyze", clip, *flags, "--engine", "scripted") == 1
    assert "one and the same output" in capsys.readouterr().err
    for sinks in (("a.jsonl", "./a.jsonl"), ("window", "window")):
        assert run("live", "--camera", clip, "--sink", sinks[0], "--sink", sinks[1]) == 1
        assert "one and the same output" in capsys.readouterr().err
    assert [path.name for path in clip.parent.iterdir()] == ["clip.mp4"], "something was opened already"


def test_two_files_whose_stem_makes_one_output_are_refused(
    clip: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sound = plain_wav(clip.with_name("clip.wav"))
    out = clip.parent / "{stem}.jsonl"
    assert run("analyze", clip, sound, "--cues", out, "--engine", "scripted") == 1
    said = capsys.readouterr().err
    assert "would both be written to" in said
    assert str(clip) in said
    assert str(sound) in said
    assert not (clip.parent / "clip.jsonl").exists()


@pytest.mark.parametrize("name", ["cues.jsonl", "table.csv"])
def test_a_file_that_holds_something_else_is_not_overwritten_with_cues(tmp_path: Path, name: str) -> None:
    notes = tmp_path / name
    notes.write_text("my notes of ten years")
    with pytest.raises(SinkError, match="holds something else than cues"):
        open_sink(str(notes))
    assert notes.read_text() == "my notes of ten years"
    notes.unlink()
    for _ in range(2):
        open_sink(str(notes)).close()  # our own are written anew, also empty ones


@pytest.mark.parametrize(
    ("flag", "name"),
    [
        ("--cues", "out.csv"),
        ("--cues", "out.mp4"),
        ("--csv", "out.jsonl"),
        ("--overlay", "out.png"),
        ("--overlay", "out.avi"),
        ("--overlay", "-"),
        ("--plot", "out.sheet.png"),
        ("--plot", "out.jpg"),
        ("--sheet", "out.jpg"),
        ("--sheet", "out.mkv"),
    ],
)
def test_an_ending_that_contradicts_its_flag_is_refused(
    clip: Path, flag: str, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    out = name if name == "-" else clip.parent / name
    assert run("analyze", clip, flag, out, "--engine", "scripted") == 1
    assert "give it such an ending, or another flag" in capsys.readouterr().err
    assert [path.name for path in clip.parent.iterdir()] == ["clip.mp4"]


def test_the_flag_decides_where_the_ending_says_nothing(tmp_path: Path) -> None:
    for kind, name in (
        ("cues", "a.txt"),
        ("table", "b"),
        ("video", "c.part1"),
        ("timeline", "d"),
        ("sheet", "e"),
    ):
        by_flag(kind, str(tmp_path / name)).open().close()  # type: ignore[arg-type]
    assert (tmp_path / "a.txt").read_text() == ""
    assert (tmp_path / "b").read_text().startswith("t,source,track")


def test_a_pipe_is_no_place_for_a_file_that_is_renamed(tmp_path: Path) -> None:
    """Above all /dev/null: as root it would be replaced by a picture."""
    pipe = tmp_path / "pipe.png"
    os.mkfifo(pipe)
    with pytest.raises(SinkError, match="a device or a pipe"):
        open_sink(str(pipe))
    assert pipe.is_fifo()


def test_what_takes_everything_may_be_named_twice(tmp_path: Path) -> None:
    refuse_overwriting([os.devnull, os.devnull], [tmp_path])


def test_cues_of_several_files_go_to_standard_output_one_after_the_other(
    clip: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    sound = plain_wav(clip.with_name("tone.wav"), 3.0)
    assert run("analyze", sound, clip, "--cues", "-", "--engine", "scripted") == 0
    sources = [json.loads(line)["source"] for line in capfd.readouterr().out.splitlines()]
    assert sources == sorted(sources, reverse=True)
    assert "file:tone.wav" in sources
