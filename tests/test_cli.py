"""The commands do what their help says, and refuse in words what makes no sense."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

import av
import jsonschema
import numpy as np
import pytest

from liveaffect import cli
from liveaffect.realtime.acting import tone_voice, write_wav
from liveaffect.realtime.blazeface import FULL_RANGE, model_path
from liveaffect.realtime.errors import MissingFile


@pytest.fixture
def _detector() -> None:
    try:
        model_path(FULL_RANGE)
    except MissingFile as error:
        pytest.skip(f"needs the face detector's files: {error}")


def run(*arguments: str | Path) -> int:
    return cli.main([str(argument) for argument in arguments])


def grey_film(path: Path, width: int, height: int) -> Path:
    """A second of nothing."""
    with av.open(str(path), "w") as file:
        stream = file.add_stream("mpeg4", rate=10, width=width, height=height)
        for _ in range(10):
            picture = av.VideoFrame.from_ndarray(np.full((height, width, 3), 90, np.uint8), format="bgr24")
            file.mux(stream.encode(picture))
        file.mux(stream.encode())
    return path


def lines(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def schema() -> dict[str, object]:
    text = (Path(__file__).parent.parent / "docs" / "cue.md").read_text()
    found: dict[str, object] = json.loads(text.split("```json")[1].split("```")[0])
    return found


@pytest.mark.usefixtures("_detector")
@pytest.mark.slow
def test_the_demo_without_a_display_leaves_a_video_a_sheet_and_valid_cues(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("demo", "--seconds", "3", "--out", tmp_path, "--window", "no", "--engine", "scripted") == 0
    cues = lines(tmp_path / "demo.jsonl")
    for cue in cues:
        jsonschema.validate(cue, schema())
    assert {cue["track"] for cue in cues} >= {1}
    with av.open(str(tmp_path / "demo.mp4")) as video:
        assert len(list(video.decode(video=0))) == 90
        assert video.streams.audio
    assert (tmp_path / "demo.sheet.png").stat().st_size > 10_000
    assert "2 people" in capsys.readouterr().err


@pytest.mark.usefixtures("_detector")
def test_sound_alone_is_analysed_and_predicted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sound = tmp_path / "voice.wav"
    write_wav(sound, tone_voice(3.0))
    assert run("analyze", sound, "--cues", tmp_path / "c.jsonl", "--engine", "scripted") == 0
    cues = lines(tmp_path / "c.jsonl")
    assert cues
    assert {(cue["track"], cue["frame"], cue["face"]) for cue in map(_hashable, cues)} == {(None, None, None)}
    capsys.readouterr()
    assert run("predict", sound, "--json", "--engine", "scripted") == 0
    line = json.loads(capsys.readouterr().out)
    assert line["kind"] == "sound"
    assert sum(line["voice"].values()) == pytest.approx(1, abs=1e-6)
    assert line["faces"] == []


@pytest.mark.usefixtures("_detector")
def test_a_film_with_overlay_says_that_emotions_are_analysed_unless_told_not_to(tmp_path: Path) -> None:
    """Its lower right corner, where the mark stands, differs from the grey of the film only with it."""
    clip = grey_film(tmp_path / "clip.mp4", 640, 480)
    inked = []
    for flags in ((), ("--notice", "no")):
        out = tmp_path / f"out{len(flags)}.mp4"
        assert run("analyze", clip, "--overlay", out, "--engine", "scripted", *flags) == 0
        with av.open(str(out)) as video:
            corner = [picture.to_ndarray(format="gray")[-24:, -190:] for picture in video.decode(video=0)][-1]
        inked.append(float((np.abs(corner.astype(int) - 90) > 30).mean()))
    assert inked[0] > 0.3
    assert inked[1] < 0.01


def _hashable(cue: dict[str, object]) -> dict[str, object]:
    return {key: value for key, value in cue.items() if not isinstance(value, dict | list)}


@pytest.mark.usefixtures("_detector")
def test_a_picture_without_a_face_says_so_and_a_folder_gives_a_line_per_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import cv2

    for name in ("a.png", "b.jpg"):
        cv2.imwrite(str(tmp_path / name), np.full((240, 320, 3), 90, np.uint8))
    assert run("predict", tmp_path, "--json", "--engine", "scripted") == 0
    found = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [Path(line["path"]).name for line in found] == ["a.png", "b.jpg"]
    assert {line["reason"] for line in found} == {"no face found"}
    assert {line["label"] for line in found} == {"not sure"}


@pytest.mark.usefixtures("_detector")
def test_a_cropped_picture_is_judged_without_a_search(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import cv2

    cv2.imwrite(str(tmp_path / "crop.png"), np.random.default_rng(1).integers(0, 255, (48, 48), np.uint8))
    assert run("predict", tmp_path / "crop.png", "--cropped", "--json", "--engine", "scripted") == 0
    line = json.loads(capsys.readouterr().out)
    assert line["faces"][0]["box"] == [0, 0, 48, 48]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["predict", "none.jpg"], "there is no file none.jpg"),
        (["analyze", "none.mp4"], "there is no file 'none.mp4'"),
        (["analyze", "a.mp4", "b.mp4", "--cues", "c.jsonl"], "put {stem} into the name"),
        (["live", "--camera", "none", "--mic", "none"], "nothing to watch"),
        (["live", "--size", "big"], "WIDTHxHEIGHT"),
        (["live", "--camera", "screen:1,2"], "screen:x,y,width,height"),
        (["live", "--camera", "none", "--sink", "out.doc"], "no output is called 'out.doc'"),
        (
            ["live", "--camera", "no such camera", "--mic", "none", "--sink", "c.jsonl"],
            "Cameras on this machine",
        ),
        (["demo", "--config", "none.toml"], "cannot read the config file"),
        (["live", "--camera", "me.jpg", "--sink", "c.jsonl"], "liveaffect predict me.jpg"),
        (["bench", "latency", "--data", "nowhere"], "there is no data folder nowhere"),
        (["bench", "quick", "--out", "me.jpg"], "cannot use me.jpg"),
        (["demo", "--window", "yes"], "--window no"),
        (["live", "--site", "x", "--camera", "a=rtsp://[::1", "--sink", "nats://h"], "is no address"),
    ],
)
@pytest.mark.usefixtures("_detector")
def test_what_makes_no_sense_is_refused_in_words(
    arguments: Sequence[str],
    words: str,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("me.jpg").write_bytes(b"a picture")
    monkeypatch.delenv("DISPLAY", raising=False)
    assert run(*arguments) == 1
    assert words in capsys.readouterr().err


def test_a_network_that_nobody_knows_is_not_exported(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("torch")
    assert run("export", "face", "--preset", "vast", "--out", tmp_path) == 1
    assert "no face network is called 'vast'; there are" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["bench", "streams", "--cameras", "abc"], "1 or more is wanted, not 'abc'"),
        (["bench", "streams", "--cameras", "4,0"], "1 or more is wanted, not '0'"),
        (["bench", "streams", "--seconds", "0"], "1 or more is wanted, not '0'"),
        (["engines", "compare", "onnx", "onnx-int8", "--items", "-5"], "not '-5'"),
        (["export", "--triton", "m", "--delay-ms", "nan"], "from 0 to 1000 is wanted, not 'nan'"),
        (["export", "--triton", "m", "--delay-ms", "1e300"], "from 0 to 1000 is wanted, not '1e300'"),
    ],
)
def test_a_number_that_makes_no_sense_is_refused_where_it_stands(
    arguments: Sequence[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        run(*arguments)
    assert ended.value.code == 2
    assert words in capsys.readouterr().err


def test_a_film_behind_words_is_not_taken_for_a_whisper(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    film = tmp_path / "talk.mp4"
    film.write_bytes(b"a film")
    for more in ((), (film,)):
        with pytest.raises(SystemExit):
            run("analyze", "--words", film, *more)
        assert "put --words behind the files" in capsys.readouterr().err


@pytest.mark.usefixtures("_detector")
def test_a_contact_sheet_is_one_whatever_its_name_and_a_full_disk_is_exit_1(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    clip = grey_film(tmp_path / "clip.mp4", 160, 120)
    assert run("analyze", clip, "--sheet", tmp_path / "{stem}.png", "--engine", "scripted") == 0
    assert (tmp_path / "clip.png").stat().st_size > 1000
    capsys.readouterr()
    if not Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full")
    full = tmp_path / "full.jsonl"
    full.symlink_to("/dev/full")
    write_wav(tmp_path / "b.wav", tone_voice(1.5))
    assert run("analyze", tmp_path / "b.wav", "--cues", full, "--engine", "scripted") == 1


@pytest.mark.usefixtures("_detector")
def test_every_command_takes_settings_from_the_environment_and_a_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LIVEAFFECT_WEIGHTS", str(tmp_path))
    assert run("build") == 1
    assert f"no weights in {tmp_path}" in capsys.readouterr().err
    monkeypatch.setenv("LIVEAFFECT_LOG_LEVEL", "loud")
    assert run("engines", "list") == 1
    assert "log_level is 'loud'" in capsys.readouterr().err


@pytest.mark.usefixtures("_detector")
def test_a_damaged_file_does_not_keep_the_others_from_being_predicted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.jpg").write_bytes(b"this is no picture")
    write_wav(tmp_path / "b.wav", tone_voice(1.5))
    assert run("predict", tmp_path, "--json", "--engine", "scripted") == 1
    out = capsys.readouterr()
    assert "a.jpg" in out.err
    assert json.loads(out.out)["path"].endswith("b.wav")


@pytest.mark.slow
def test_help_comes_without_loading_anything_heavy() -> None:
    code = (
        "import sys, liveaffect.cli as c\n"
        "try: c.main(['--help'])\n"
        "except SystemExit: pass\n"
        "heavy = {'cv2', 'mediapipe', 'onnxruntime', 'av', 'sounddevice', 'torch'} & set(sys.modules)\n"
        "sys.exit(f'loaded {heavy}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "analyze" in done.stdout


def test_being_ended_from_outside_is_like_ctrl_c(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("liveaffect.webcam.run_live", lambda *_: os.kill(os.getpid(), signal.SIGTERM))
    before = signal.getsignal(signal.SIGTERM)
    try:
        assert run("live") == 130
    finally:
        signal.signal(signal.SIGTERM, before)
    assert "stopped" in capsys.readouterr().err


def test_a_second_request_to_end_that_comes_while_the_first_is_taken_does_not_swallow_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    start, sent = threading.Thread.start, [signal.SIGTERM]

    def interrupted(thread: threading.Thread) -> None:
        if sent:  # as `timeout` and service managers do: to the process, and to its group
            os.kill(os.getpid(), sent.pop())
        start(thread)

    def ended(*_: object) -> None:
        monkeypatch.setattr("threading.Thread.start", interrupted)
        os.kill(os.getpid(), signal.SIGTERM)
        threading.Event().wait(1.0)

    monkeypatch.setattr("liveaffect.webcam.run_live", ended)
    assert run("live") == cli.ENDED
    assert not sent


def test_training_without_data_or_torch_is_refused_in_words(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run("train", "face", "--data", tmp_path / "none") == 1
    assert "there is no folder" in capsys.readouterr().err
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert run("evaluate", "--data", tmp_path) == 1
    assert "need torch" in capsys.readouterr().err
