"""Whoever waits sees how far it is: every command that can take longer than two seconds shows a line."""

from __future__ import annotations

import argparse
import importlib.util
import io
import logging
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NoReturn

import pytest

from liveaffect import cli, progress
from liveaffect.findings import Finding, report_json, report_text
from liveaffect.progress import ProgressBar, say, working
from liveaffect.realtime.blazeface import make_finder
from liveaffect.realtime.errors import MissingFile, SettingsError
from liveaffect.realtime.testing import media

CLEARED = "\r\x1b[K"


class Terminal(io.StringIO):
    """Standard error that somebody looks at."""

    def isatty(self) -> bool:
        return True

    def shows(self, words: str) -> bool:
        """Whether the words come up within some seconds."""
        for _ in range(500):
            if words in self.getvalue():
                return True
            threading.Event().wait(0.01)
        return False


def somebody_looks(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    out = Terminal()
    monkeypatch.setattr(sys, "stderr", out)
    monkeypatch.setattr(progress, "_EVERY_S", 0.01)
    return out


def run(*arguments: str | Path) -> int:
    return cli.main([str(argument) for argument in arguments])


# What takes long in each command, and what is shown meanwhile.

TRAINING = "liveaffect.engines.training"
SHOWN: dict[str, tuple[str, str]] = {
    "demo --window no": ("liveaffect.settings.Settings.load_tools", "loading the networks"),
    "analyze a.wav": ("liveaffect.settings.Settings.load_tools", "loading the networks"),
    "predict a.wav": ("liveaffect.settings.Settings.load_tools", "loading the networks"),
    "fetch --small --to .": ("subprocess.run", "mediapipe==0.10.21 ["),
    "export face": ("liveaffect.engines.build.export_onnx.export", "writing the face network"),
    "build": ("liveaffect.engines.overview.build_forms", "building"),
    "engines list": ("liveaffect.engines.overview.load", "trying the engines"),
    "engines compare onnx torch": ("liveaffect.engines.overview.compare_named", "comparing"),
    "train face --data .": (f"{TRAINING}.train_face.train_face", "training the face network"),
    "train voice --data .": (f"{TRAINING}.train_voice.train_voice", "training the voice network"),
    "train fusion --data .": (f"{TRAINING}.train_fusion.train_fusion", "training the fusion network"),
    "evaluate --data .": (f"{TRAINING}.evaluate_face.evaluate_face", "judging the face network"),
    "calibrate int8 --data .": ("liveaffect.calibration.int8.calibrate_int8", "calibrating"),
    "calibrate confidence --data .": (
        "liveaffect.calibration.fit_confidence.calibrate_confidence",
        "calibrating",
    ),
    "calibrate av --clap --file a.wav": ("liveaffect.calibration.av_offset.measure_offset", "measuring"),
    "calibrate baseline --profile me --file a.wav": ("liveaffect.calibration.baseline.measured", "measuring"),
    "calibrate report": ("liveaffect.calibration.report.write_report", "writing the report"),
    "bench quick": ("liveaffect.bench.runs.rows_of", "measuring"),
    "bench full": ("liveaffect.bench.runs.rows_of", "measuring"),
    "bench latency": ("liveaffect.bench.runs.rows_of", "measuring"),
    "bench streams": ("liveaffect.bench.runs.stream_rows", "measuring"),
    "bench gpu": ("liveaffect.bench.gpu.run_gpu", "measuring"),
    "bench peers": ("liveaffect.bench.peers.run_peers", "measuring"),
}
SHOW_THEMSELVES = {"live", "doctor", "serve"}
"""The window or the cues of a live run, a page; a line for each section of the doctor (its own tests)."""
QUICK = {"engines clean", "profile list", "profile erase", "bench compare"}
"""They read, list or remove some files."""


@pytest.mark.parametrize("command", SHOWN)
def test_while_a_command_works_a_line_says_what_at(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    terminal = somebody_looks(monkeypatch)
    needs_torch = command.split()[0] in ("train", "evaluate", "export") or command.startswith("calibrate ")
    if needs_torch and importlib.util.find_spec("torch") is None:
        pytest.skip("needs torch")
    slow, words = SHOWN[command]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LIVEAFFECT_ENGINE", "scripted")
    media.plain_wav(Path("a.wav"))
    seen = []

    def takes_long(*_: object, **__: object) -> NoReturn:
        seen.append(terminal.shows(words))
        raise SettingsError("that was long enough")

    monkeypatch.setattr(slow, takes_long)
    assert run(*command.split()) == 1
    assert seen == [True], terminal.getvalue()
    assert terminal.getvalue().endswith(CLEARED + "liveaffect: that was long enough\n")


def test_no_command_was_forgotten() -> None:
    def names(parser: argparse.ArgumentParser, before: str = "") -> Iterator[str]:
        parts = [a for a in parser._actions if isinstance(a, argparse._SubParsersAction)]
        for part in parts:
            for name, below in part.choices.items():
                yield from names(below, f"{before}{name} ")
        if not parts:
            yield before.strip()

    shown = {name for name in names(cli._parser()) if any(line.startswith(name) for line in SHOWN)}
    assert shown | SHOW_THEMSELVES | QUICK == set(names(cli._parser()))


@pytest.mark.parametrize("report", [report_json, report_text])
def test_the_doctor_says_what_it_looks_at(
    report: Callable[..., int], monkeypatch: pytest.MonkeyPatch
) -> None:
    terminal = somebody_looks(monkeypatch)
    seen = []

    def engines() -> Iterator[Finding]:
        seen.append(terminal.getvalue())
        yield Finding("face", "ok", "works")

    assert report(io.StringIO(), [("cameras", list), ("engines", engines)]) == 0
    assert seen[0].endswith("engines [###############...............] 1 of 2 sections")
    assert terminal.getvalue().endswith(CLEARED)


# The line itself.


def test_progress_is_shown_where_somebody_sees_it_and_the_bar_ends_at_the_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    terminal = somebody_looks(monkeypatch)
    bar = ProgressBar("films/clip.mp4", 10.0)
    for step in range(97):
        bar.show(step / 10)
    say("something else")
    bar.done(9.6)
    bar.finish()
    lines = terminal.getvalue().replace("\r", "").split("\x1b[K")
    assert sum("clip.mp4 [" in line for line in lines) <= 12, "drawn once a second"
    assert lines[-1] == "clip.mp4 [" + 30 * "#" + "] 9.6 of 9.6 s\n"
    assert "something else\n" in lines


def test_predict_shows_how_many_files_are_done_and_how_far_a_film_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    terminal = somebody_looks(monkeypatch)
    _needs_the_detector()
    for name in ("a.wav", "b.wav"):
        media.plain_wav(tmp_path / name, 3.0)
    assert run("predict", tmp_path, "--json", "--engine", "scripted") == 0
    assert len(capsys.readouterr().out.splitlines()) == 2
    shown = terminal.getvalue()
    assert "b.wav [###############...............] 1 of 2 files" in shown
    assert "b.wav [##########....................] 1." in shown, "one long film would stand at 0 of 1 files"
    assert shown.endswith(CLEARED), "the line is taken away at the end"


def test_progress_is_not_shown_in_a_file(capsys: pytest.CaptureFixture[str]) -> None:
    bar = ProgressBar("clip.mp4", 2.0)
    bar.show(1.0)
    bar.done(2.0)
    bar.finish()
    with working("something"):
        threading.Event().wait(0.01)
    assert capsys.readouterr().err == ""


def test_what_is_logged_stands_on_a_line_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = somebody_looks(monkeypatch)
    bar = ProgressBar("clip.mp4", 2.0)
    bar.show(1.0)
    progress.BesideTheLine().emit(logging.makeLogRecord({"msg": "a camera is gone"}))
    bar.show(1.0)
    assert f"1.0 of 2.0 s{CLEARED}a camera is gone\n{CLEARED}clip.mp4 [" in terminal.getvalue()
    bar.clear()


def test_a_name_of_any_length_and_of_any_characters_leaves_the_line_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    terminal = somebody_looks(monkeypatch)
    bar = ProgressBar("x" * 300 + "\n\x1b[2J.mp4", 10.0)
    bar.show(1.0)
    bar.begin("a\nb\x1b[2J.mp4", 10.0)
    bar.show(1.0)
    bar.clear()
    for line in terminal.getvalue().split(CLEARED):
        assert len(line) < 80
        assert line.isprintable()
    assert "xxx... [###" in terminal.getvalue()
    assert r"a\nb\x1b[2J.mp4 [###" in terminal.getvalue()


def test_a_terminal_that_is_gone_ends_no_job(monkeypatch: pytest.MonkeyPatch) -> None:
    class Gone(Terminal):
        def write(self, text: str) -> int:
            raise OSError(5, "Input/output error")

    monkeypatch.setattr(sys, "stderr", Gone())
    bar = ProgressBar("clip.mp4", 10.0)
    bar.show(1.0)
    say("still there")
    bar.done(10.0)
    bar.finish()
    assert bar.shown


def _needs_the_detector() -> None:
    try:
        make_finder()
    except MissingFile as error:
        pytest.skip(f"needs the face detector's files: {error}")
