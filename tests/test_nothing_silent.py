"""One bad file, name or number costs itself alone and is said in one line; the others go on."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from liveaffect import cli
from liveaffect.engines.scripted_engine import ScriptedFace, ScriptedFusion, ScriptedVoice
from liveaffect.realtime.blazeface import make_finder
from liveaffect.realtime.clock import SECOND, MonotonicClock
from liveaffect.realtime.cue import Cue
from liveaffect.realtime.errors import MissingFile, SettingsError
from liveaffect.realtime.feeds import Feed, camera_feed, file_feed, microphone_feed, told_apart
from liveaffect.realtime.live import LiveRun
from liveaffect.realtime.networks import Networks
from liveaffect.realtime.sinks import Outputs
from liveaffect.realtime.testing import media
from liveaffect.realtime.testing.devices import ScriptedSource
from liveaffect.realtime.wiring import Rings, Wiring

Capture = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def _detector() -> None:
    try:
        make_finder()
    except MissingFile as error:
        pytest.skip(f"needs the face detector's files: {error}")


def run(*arguments: str | Path) -> int:
    return cli.main([str(argument) for argument in arguments])


def in_a_process(*arguments: str | Path, **how: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "liveaffect", *map(str, arguments)]
    done = subprocess.run(command, stderr=subprocess.PIPE, text=True, check=False, timeout=60, **how)  # type: ignore[call-overload]
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr
    return done  # type: ignore[no-any-return]


# One bad file among others.


def test_analyze_goes_on_after_a_file_that_is_missing_or_damaged_and_lists_them(
    tmp_path: Path, capsys: Capture
) -> None:
    good, last = media.plain_wav(tmp_path / "a.wav", 2.0), media.plain_wav(tmp_path / "z.wav", 2.0)
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"no film")
    cues = tmp_path / "{stem}.jsonl"
    files = (good, tmp_path / "missing.mp4", broken, last)
    assert run("analyze", *files, "--cues", cues, "--engine", "scripted") == 1
    said = capsys.readouterr().err.splitlines()
    assert (tmp_path / "a.jsonl").stat().st_size
    assert (tmp_path / "z.jsonl").stat().st_size
    table = said[said.index("liveaffect: 2 of 4 failed:") + 1 :]
    assert [line.split()[0] for line in table] == [str(tmp_path / "missing.mp4"), str(broken)]
    assert "there is no file" in table[0]
    assert "no video or sound that FFmpeg can read: Invalid data" in table[1]


def test_analyze_takes_folders_and_says_what_it_passed_over(tmp_path: Path, capsys: Capture) -> None:
    media.plain_wav(tmp_path / "a.wav")
    (tmp_path / "below").mkdir()
    media.plain_wav(tmp_path / "below" / "b.wav")
    (tmp_path / "elsewhere").symlink_to(tmp_path / "below")
    for name in ("me.heic", "she.HEIC", "it.gif", "x.avif", "old.jp2", "README", ".hidden", "c.jpg", "n.txt"):
        (tmp_path / name).write_bytes(b"x")
    assert run("analyze", tmp_path, "--engine", "scripted") == 0
    said = capsys.readouterr().err
    assert "a.wav: 1.0 s" in said
    assert "b.wav: 1.0 s" in said
    assert "10 files passed over: " in said
    for words in (
        "2 HEIC (convert it to JPEG or PNG)",
        "1 GIF (convert",
        "1 AVIF (convert",
        "1 JPEG 2000 (convert",
        "1 without an ending",
        "1 hidden",
        "1 linked folders",
        "1 pictures (predict judges them)",
        "1 .txt, which is no picture, sound or film",
    ):
        assert words in said


def test_predict_goes_on_after_a_folder_that_cannot_be_read_and_one_with_nothing_in_it(
    tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Permissions do not bind root, so the system's refusal is played."""
    closed, empty = tmp_path / "closed", tmp_path / "empty"
    closed.mkdir()
    empty.mkdir()
    good = media.plain_wav(tmp_path / "good.wav")
    real = os.scandir

    def scandir(path: str) -> object:
        if Path(path) == closed:
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    assert run("predict", closed, empty, good, "--json", "--engine", "scripted") == 1
    out = capsys.readouterr()
    assert json.loads(out.out)["path"] == str(good)
    assert "liveaffect: 2 of 3 failed:" in out.err
    assert "the folder cannot be read: Permission denied" in out.err
    assert "there is nothing to work on in it" in out.err


def test_damaged_pictures_of_a_film_are_counted_where_its_result_is_said(
    tmp_path: Path, capsys: Capture
) -> None:
    clip = media.film(tmp_path / "clip.avi", "mjpeg", "pcm_s16le")
    content = clip.read_bytes()
    clip.write_bytes(content[: len(content) * 3 // 5])
    assert run("analyze", clip, "--engine", "scripted") == 0
    assert "bytes that its head promises and it does not hold" in capsys.readouterr().err
    assert run("predict", clip, "--engine", "scripted") == 0
    assert "bytes that its head promises and it does not hold" in capsys.readouterr().err


def test_an_output_that_got_nothing_says_so(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    blink = media.film(tmp_path / "blink.mp4", "mpeg4", None)
    sound = media.plain_wav(tmp_path / "sound.wav", 0.2)
    flags: list[str | Path] = [
        "--cues",
        tmp_path / "c.jsonl",
        "--csv",
        tmp_path / "t.csv",
        "--plot",
        tmp_path / "p.png",
    ]
    assert run("analyze", blink, *flags, "--engine", "scripted") == 0
    pictures: list[str | Path] = ["--overlay", tmp_path / "o.mp4", "--sheet", tmp_path / "s.png"]
    assert run("analyze", sound, *pictures, "--engine", "scripted") == 0
    said = [record.getMessage() for record in caplog.records]
    for name, words in (
        ("c.jsonl", "no cue to write"),
        ("t.csv", "no cue to write, only the heading"),
        ("p.png", "no cue to draw"),
        ("o.mp4", "no picture to write"),
        ("s.png", "no picture to draw"),
    ):
        assert any(name in line and words in line for line in said), (name, said)


# Two sources of one name.


def test_two_films_of_one_name_are_told_apart_in_what_is_written_of_both(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "other").mkdir()
    films = [media.film(tmp_path / at / "k.mp4", None, "aac", seconds=1) for at in (".", "other")]
    assert run("analyze", *films, "--cues", "-", "--engine", "scripted") == 0
    sources = [json.loads(line)["source"] for line in capfd.readouterr().out.splitlines()]
    assert list(dict.fromkeys(sources)) == ["file:k.mp4", "file:k.mp4#2"]


@pytest.mark.slow
@pytest.mark.parametrize("again", ["the same file", "another of that name"])
def test_two_films_of_one_name_are_two_sources(tmp_path: Path, again: str) -> None:
    first = media.film(tmp_path / "k.mp4", None, "aac", seconds=4)
    second = first
    if again != "the same file":
        (tmp_path / "other").mkdir()
        second = media.film(tmp_path / "other" / "k.mp4", None, "aac", seconds=4)
    cues = tmp_path / "cues.jsonl"
    done = in_a_process(
        *("live", "--camera", first, "--camera", second, "--sink", cues, "--engine", "scripted")
    )
    assert done.returncode == 0, done.stderr
    sources = {json.loads(line)["source"] for line in cues.read_text().splitlines()}
    assert sources == {"file:k.mp4", "file:k.mp4#2"}


def test_a_device_that_is_named_twice_is_refused() -> None:
    clock = MonotonicClock()
    with pytest.raises(SettingsError, match="camera:0 is named twice"):
        told_apart([camera_feed("0", clock), camera_feed("0", clock)])


# A film as camera.


def _wiring(rings: Rings, publish: Callable[[tuple[Cue, ...]], None]) -> Wiring:
    networks = Networks(ScriptedFace(), ScriptedVoice(), ScriptedFusion())
    return Wiring(rings, networks, make_finder, publish)


def test_a_film_waits_for_the_networks_and_ends_the_run_although_a_microphone_could_go_on(
    tmp_path: Path,
) -> None:
    clock = MonotonicClock()
    clip = media.film(tmp_path / "k.mp4", "mpeg4", None)
    delivered: list[int] = []

    def slow(rings: Rings, publish: Callable[[tuple[Cue, ...]], None]) -> Wiring:
        threading.Event().wait(0.7)
        delivered.append(rings.frames["file:k.mp4"].written)
        return _wiring(rings, publish)

    endless = Feed("mic:0", lambda: ScriptedSource(clock, []), pictures=False, sound=True, live=True)
    live = LiveRun([file_feed(clip, clock), endless], slow, Outputs([]), clock)
    began_ns = clock.now_ns()
    live.run(seconds=20)
    live.check_ledger()
    assert delivered == [0], "pictures went by before there was anybody to look at them"
    ledger = live.health.ledgers["file:k.mp4"]
    assert ledger.captured == 16
    assert clock.now_ns() - began_ns < 10 * SECOND


def test_a_live_run_ends_when_its_last_output_has_failed(tmp_path: Path) -> None:
    film = media.write_media(tmp_path) / "talk.mp4"
    reading, writing = os.pipe()
    os.close(reading)
    done = in_a_process("live", "--camera", film, "--sink", "-", "--engine", "scripted", stdout=writing)
    os.close(writing)
    assert done.returncode == 1
    assert "cannot write standard output: the program that read it has ended" in done.stderr
    captured = int(done.stderr.partition(" pictures captured")[0].split()[-1])
    assert captured < media.FILM_FPS * media.FILM_SECONDS, "it went on, although nobody got anything"


def test_the_analysis_of_a_film_ends_when_its_last_output_has_failed(tmp_path: Path) -> None:
    film = media.write_media(tmp_path) / "talk.mp4"
    reading, writing = os.pipe()
    os.close(reading)
    done = in_a_process("analyze", film, "--cues", "-", "--engine", "scripted", stdout=writing)
    os.close(writing)
    assert done.returncode == 1
    assert "cannot write standard output: the program that read it has ended" in done.stderr
    seen = int(done.stderr.partition(" picture")[0].split()[-1])
    assert 0 < seen < media.FILM_FPS * media.FILM_SECONDS, "it went on, although nobody got anything"


def test_a_sound_ends_the_run_although_a_camera_was_never_there(tmp_path: Path) -> None:
    clock = MonotonicClock()
    feeds = [camera_feed("97", clock), file_feed(media.plain_wav(tmp_path / "a.wav"), clock)]
    live = LiveRun(feeds, _wiring, Outputs([]), clock)
    began_ns = clock.now_ns()
    live.run(seconds=20)
    assert clock.now_ns() - began_ns < 15 * SECOND


# Names and numbers that make no sense.


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: camera_feed("missing.mp4", MonotonicClock()), "there is no file 'missing.mp4'"),
        (lambda: camera_feed("films/missing.MKV", MonotonicClock()), "there is no file"),
        (lambda: camera_feed("/nowhere/film", MonotonicClock()), "there is no file '/nowhere/film'"),
        (lambda: microphone_feed("missing.wav", MonotonicClock()), "there is no file 'missing.wav'"),
    ],
)
def test_a_film_that_is_not_there_is_called_a_file_not_a_camera(make: Callable[[], Feed], words: str) -> None:
    with pytest.raises(Exception, match=words):
        make()


def test_what_a_library_mutters_about_an_address_stays_unsaid() -> None:
    program = (
        "import os; from liveaffect.cli import LIBRARIES; os.environ.update(LIBRARIES); import cv2; "
        "cv2.VideoCapture('http://127.0.0.1:9/x', cv2.CAP_FFMPEG)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stderr == ""


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["demo", "--out", "a.wav", "--window", "no"], "that is a file; name a folder"),
        (["demo", "--out", "a.wav/below", "--window", "no"], "a part of its path is a file"),
        (["demo", "--seconds", "nan"], "seconds is nan"),
        (["live", "--seconds", "inf"], "seconds is inf"),
        (["live", "--size", "99999x99999"], "16 to 16384 pixels a side"),
        (["live", "--fps", "nan"], "fps is nan"),
        (["analyze", "a.wav", "--config", "noise.toml"], "is not TOML"),
        (["analyze", "a.wav", "--config", "/dev/zero"], "has no end"),
        (["analyze", "x" * 300 + ".wav"], "File name too long"),
        (["predict", "x" * 300 + ".jpg"], "File name too long"),
        (["analyze", "a.wav", "--cues", "y" * 300 + ".jsonl"], "the name is longer than this system allows"),
        (["analyze", "a.wav", "--plot", "y" * 300 + ".png"], "the name is longer than this system allows"),
        (["analyze", "a.wav", "--cues", ""], "that names no file"),
        (["live", "--camera", "a.wav", "--sink", ""], "no output is called ''"),
        (["predict", "bomb.png"], "more than 100 million pixels"),
        (["predict", "pipe.wav"], "is a device or a pipe; name a file"),
        (["analyze", "/dev/zero"], "is a device or a pipe; name a file"),
    ],
)
def test_what_makes_no_sense_is_one_line(
    arguments: list[str],
    words: str,
    tmp_path: Path,
    capsys: Capture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    media.plain_wav(Path("a.wav"))
    Path("noise.toml").write_bytes(bytes(range(256)))
    os.mkfifo("pipe.wav")
    Path("bomb.png").write_bytes(media.damaged_png(40_000, 40_000, rows=1))
    code = run(*arguments, "--engine", "scripted")
    said = capsys.readouterr().err
    assert code == 1
    assert len([line for line in said.splitlines() if words in line]) == 1, said
    assert "[Errno" not in said


def test_export_without_torch_is_one_line(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert run("export", "face") == 1
    assert "export needs torch and onnx: uv sync" in capsys.readouterr().err


def test_a_name_that_standard_output_cannot_print_is_printed_escaped(tmp_path: Path) -> None:
    name = os.fsdecode(bytes(tmp_path) + b"/b\xff\xfe\xc3\xa4.wav")
    media.plain_wav(Path(name))
    for coding in ("utf-8", "ascii"):
        surroundings = {**os.environ, "PYTHONIOENCODING": coding}
        done = in_a_process("predict", name, "--engine", "scripted", stdout=subprocess.PIPE, env=surroundings)
        assert done.returncode == 0, done.stderr
        assert "wav: not sure" in done.stdout


def test_a_name_that_would_move_the_cursor_is_written_out(tmp_path: Path, capsys: Capture) -> None:
    """A line of the table stays one line, and no terminal is cleared by a file that was sent."""
    good, bad = tmp_path / "a\x1b[2J\n.wav", tmp_path / "b\x1b[2J\n.wav"
    media.plain_wav(good)
    bad.write_bytes(b"no sound")
    for command in ("analyze", "predict"):
        assert run(command, good, bad, "--engine", "scripted") == 1
        out = capsys.readouterr()
        assert "\x1b" not in out.out + out.err
        assert r"a\x1b[2J\n.wav: " in out.out + out.err
        table = out.err.splitlines()
        assert len(table[table.index("liveaffect: 1 of 2 failed:") :]) == 2


def test_a_full_standard_output_and_a_reader_that_left_are_one_line_or_none(tmp_path: Path) -> None:
    sound = media.plain_wav(tmp_path / "a.wav")
    if not os.path.exists("/dev/full"):
        pytest.skip("needs /dev/full, so POSIX")
    with open("/dev/full", "w") as full:
        done = in_a_process("predict", sound, "--json", "--engine", "scripted", stdout=full)
    assert done.returncode == 1
    assert "cannot write standard output: No space left on device" in done.stderr
    reading, writing = os.pipe()
    os.close(reading)
    done = in_a_process("predict", sound, "--json", "--engine", "scripted", stdout=writing)
    os.close(writing)
    assert done.returncode == 0, done.stderr


def test_closed_streams_end_no_run(tmp_path: Path) -> None:
    sound, cues = media.plain_wav(tmp_path / "a.wav", 3.0), tmp_path / "c.jsonl"
    command = f"{sys.executable} -m liveaffect analyze {sound} --cues {cues} --engine scripted >&- 2>&-"
    assert subprocess.run(["sh", "-c", command], check=False, timeout=60).returncode == 0
    assert cues.stat().st_size


INTERRUPTED = """
import os, signal, sys
loading = sys.argv.pop(1)
class CtrlC:
    def find_spec(self, name, path=None, target=None):
        if name == loading:
            sys.meta_path.remove(self)
            os.kill(os.getpid(), signal.SIGINT)
sys.meta_path.insert(0, CtrlC())
from liveaffect.__main__ import main
raise SystemExit(main())
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    "loading", ["liveaffect.cli", "argparse", "numpy", "cv2", "liveaffect.realtime.wiring", "onnxruntime"]
)
def test_ctrl_c_while_the_program_loads_leaves_no_traceback(tmp_path: Path, loading: str) -> None:
    """At the moment at which a certain module is asked for, so that no moment has to be hit."""
    sound = media.plain_wav(tmp_path / "a.wav")
    done = subprocess.run(
        [sys.executable, "-c", INTERRUPTED, loading, "predict", str(sound)],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr
    assert done.returncode in (-signal.SIGINT, 130), done.stderr
    assert done.stdout == ""


def test_ctrl_c_that_a_library_takes_for_a_failure_to_load_it_is_still_ctrl_c(
    tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def loads(*_: object, **__: object) -> None:
        try:
            os.kill(os.getpid(), signal.SIGINT)
        except KeyboardInterrupt:
            raise ImportError("initialization failed") from None

    monkeypatch.setattr("liveaffect.settings.Settings.load_tools", loads)
    # A shell that starts tests in the background has them ignore Ctrl-C, and commands leave it so.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        assert run("predict", media.plain_wav(tmp_path / "a.wav")) == 130
    finally:
        signal.signal(signal.SIGINT, before)
    assert capsys.readouterr().err == "stopped\n"


@pytest.mark.parametrize("command", ["analyze", "predict"])
def test_an_empty_name_does_not_mean_the_present_folder(command: str, capsys: Capture) -> None:
    with pytest.raises(SystemExit):
        cli.main([command, ""])
    assert "an empty name names no file" in capsys.readouterr().err


# State.


def test_samples_of_one_file_do_not_reach_the_next(tmp_path: Path, capsys: Capture) -> None:
    """Once a file of absurd samples had been analysed, those after it had no voice."""
    loud = np.full(48_000, 1e20, np.float32)
    (tmp_path / "a.wav").write_bytes(media.float_wav(loud))
    media.plain_wav(tmp_path / "b.wav", 3.0)
    assert run("predict", tmp_path, "--json", "--engine", "scripted") == 0
    out = capsys.readouterr()
    absurd, plain = (json.loads(line) for line in out.out.splitlines())
    assert plain["voice"] is not None
    assert absurd["voice"] is None or sum(absurd["voice"].values()) == pytest.approx(1)
    assert "48000 samples that were absurdly loud" in out.err
