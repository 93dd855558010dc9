"""What programs call: loaded when asked for, the same answers as the commands, and nothing left behind."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import threading
import wave
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

import liveaffect
from liveaffect.cli import main
from liveaffect.realtime.errors import RealtimeError, SettingsError, SinkError, SourceNotFound
from liveaffect.realtime.frame import AudioBlock, VideoFrame
from liveaffect.realtime.replay import load_picture
from liveaffect.realtime.sinks.files import line
from liveaffect.realtime.testing.media import FILM_FPS, FILM_SECONDS, write_media

SCRIPTED = liveaffect.Settings(engine="scripted")
LOOK_ROUND = """
import logging, os, signal, sys, threading, warnings

def state():
    return (
        dict(os.environ), [signal.getsignal(s) for s in signal.valid_signals()], threading.enumerate(),
        logging.root.handlers[:], logging.root.level, sys.excepthook, list(sys.path), warnings.filters[:],
    )

before = state()
import liveaffect
assert liveaffect.LABELS[0] == "neutral"
assert state() == before
large = {"numpy", "cv2", "onnxruntime", "av", "mediapipe", "ai_edge_litert", "sounddevice", "torch"}
print(*sorted(large & {name.split(".")[0] for name in sys.modules}))
"""


@pytest.fixture(scope="module")
def media(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_media(tmp_path_factory.mktemp("media"))


class Own:
    """A sink that counts; it fails on the picture of that number."""

    wants_pictures = True
    wants_sound = True

    def __init__(self, fails_at: int = -1) -> None:
        self.pictures = self.cues = self.samples = 0
        self.closed = False
        self._fails_at = fails_at

    def show(self, picture: NDArray[np.uint8], frame: VideoFrame) -> None:
        if self.pictures == self._fails_at:
            raise SinkError("the wall fell down")
        self.pictures += 1

    def tell(self, cues: Sequence[liveaffect.Cue]) -> None:
        self.cues += len(cues)

    def hear(self, block: AudioBlock) -> None:
        self.samples += len(block.samples)

    def close(self) -> None:
        self.closed = True


def test_importing_loads_nothing_large_and_changes_nothing_in_the_process() -> None:
    ran = subprocess.run(
        [sys.executable, "-c", LOOK_ROUND],
        # A clean one: what this process has changed already must not hide that the import changes it.
        env={name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.split() == []


def test_every_public_name_is_there_is_listed_and_no_other() -> None:
    assert sorted(liveaffect.__all__, key=lambda name: (name.lower(), name)) == sorted(
        set(liveaffect.__all__), key=lambda name: (name.lower(), name)
    )
    for name in liveaffect.__all__:
        assert getattr(liveaffect, name) is not None
    assert set(liveaffect.__all__) <= set(dir(liveaffect))
    with pytest.raises(AttributeError, match="no attribute 'predicts'"):
        _ = liveaffect.predicts  # type: ignore[attr-defined]


def test_every_error_of_the_api_is_one_of_two_kinds() -> None:
    errors = [getattr(liveaffect, name) for name in liveaffect.__all__]
    for error in [e for e in errors if isinstance(e, type) and issubclass(e, Exception)]:
        assert issubclass(error, (RealtimeError, liveaffect.EngineError))
    assert issubclass(liveaffect.InputRefused, ValueError)


def test_a_picture_is_judged_alike_as_a_file_as_an_array_and_in_the_order_of_opencv(media: Path) -> None:
    image = load_picture(media / "portrait.jpg")
    file = liveaffect.predict(media / "portrait.jpg")
    array, turned = liveaffect.predict(image), liveaffect.predict(image[:, :, ::-1], bgr=True)
    assert (file.kind, len(file.faces), file.path) == ("picture", 1, str(media / "portrait.jpg"))
    assert (array.path, array.faces, array.fused) == (None, file.faces, file.fused)
    assert turned == array
    left, top, width, height = file.faces[0].box
    face = np.ascontiguousarray(image[top : top + height, left : left + width])
    assert liveaffect.predict(face, cropped=True).faces[0].box == (0, 0, width, height)


def test_sound_is_judged_alike_as_a_file_and_as_an_array(media: Path) -> None:
    file = liveaffect.predict(media / "voice.wav", settings=SCRIPTED)
    with wave.open(str(media / "voice.wav")) as recording:
        samples = np.frombuffer(recording.readframes(recording.getnframes()), np.int16)
    array = liveaffect.predict(samples, rate=16_000, settings=SCRIPTED)
    assert (array.kind, array.faces) == ("sound", ())
    assert (array.voice, array.fused, array.label) == (file.voice, file.fused, file.label)
    assert array.voice is not None


@pytest.mark.parametrize(
    ("what", "rate", "says"),
    [
        (np.zeros((48, 64), np.uint8), None, "Grey pictures"),
        (np.zeros(100, np.float32), None, "Sound comes with its rate"),
        (np.zeros((100, 2), np.int16), None, "Sound comes with its rate"),
        (np.zeros((100, 0), np.float32), 16_000, "this has .100, 0."),
        (np.zeros(0, np.float32), 16_000, "not a single sample"),
        (np.zeros(100, np.float32), 0, "rate is 0"),
        (np.full(100, np.nan, np.float32), 16_000, "not finite"),
    ],
)
def test_arrays_that_are_neither_picture_nor_sound_are_refused_with_the_way_out(
    what: NDArray[np.generic], rate: int | None, says: str
) -> None:
    with pytest.raises(liveaffect.InputRefused, match=says):
        liveaffect.predict(what, rate=rate, settings=SCRIPTED)


def test_settings_and_files_of_another_kind_are_refused_by_what_they_are(media: Path) -> None:
    wrong: Any = {"engine": "scripted"}
    for call in (
        lambda: liveaffect.predict(media / "portrait.jpg", settings=wrong),
        lambda: liveaffect.analyze(media / "talk.mp4", settings=wrong),
        lambda: liveaffect.watch(str(media / "talk.mp4"), None, settings=wrong),
        lambda: liveaffect.Analyzer(settings=wrong),
    ):
        with pytest.raises(SettingsError, match=r"settings are a Settings.* this is a dict"):
            call()
    nothing: Any = None
    with pytest.raises(liveaffect.InputRefused, match="named by a string or a Path, and this is a NoneType"):
        liveaffect.analyze(nothing)


def test_analyze_gives_the_cues_of_the_command_byte_for_byte(media: Path, tmp_path: Path) -> None:
    out = tmp_path / "cues.jsonl"
    assert main(["analyze", str(media / "talk.mp4"), "--cues", str(out), "--engine", "scripted"]) == 0
    cues = liveaffect.analyze(media / "talk.mp4", settings=SCRIPTED)
    assert "".join(line(cue) for cue in cues) == out.read_text()
    assert out.read_text().count("\n") > 10


def test_a_file_is_read_no_further_than_its_cues_are_asked_for(media: Path) -> None:
    sink = Own()
    cues = liveaffect.analyze(media / "talk.mp4", sinks=[sink], settings=SCRIPTED)
    assert sink.pictures == 0
    first = next(cues)
    assert first.t < 0.5
    assert sink.pictures < FILM_FPS * FILM_SECONDS / 2
    rest = list(cues)
    assert (sink.pictures, sink.cues, sink.closed) == (FILM_FPS * FILM_SECONDS, 1 + len(rest), True)
    assert sink.samples == pytest.approx(16_000 * FILM_SECONDS, abs=2_000)
    assert list(cues) == []


def leave_the_block(cues: liveaffect.Cues) -> None:
    with cues:
        next(cues)


def fail_in_the_block(cues: liveaffect.Cues) -> None:
    with contextlib.suppress(ZeroDivisionError), cues:
        next(cues)
        raise ZeroDivisionError


def close_twice(cues: liveaffect.Cues) -> None:
    next(cues)
    cues.close()
    cues.close()


def never_begin(cues: liveaffect.Cues) -> None:
    cues.close()


def forget(cues: liveaffect.Cues) -> None:
    next(cues)


@pytest.mark.parametrize("leave", [leave_the_block, fail_in_the_block, close_twice, never_begin, forget])
@pytest.mark.parametrize("live", [False, True], ids=["analyze", "watch"])
def test_whoever_leaves_early_leaves_nothing_open(
    live: bool, leave: Callable[[liveaffect.Cues], None], media: Path
) -> None:
    before, sink = set(threading.enumerate()), Own()

    def begin() -> liveaffect.Cues:
        film = media / "talk.mp4"
        if live:
            return liveaffect.watch(str(film), mic=None, sinks=[sink], settings=SCRIPTED)
        return liveaffect.analyze(film, sinks=[sink], settings=SCRIPTED)

    held = [begin()]
    leave(held[0])
    if leave is forget:
        held.clear()
    assert sink.closed
    assert set(threading.enumerate()) <= before


def test_a_live_film_gives_cues_to_its_end(media: Path) -> None:
    with liveaffect.watch(str(media / "talk.mp4"), mic=None, settings=SCRIPTED) as cues:
        found = list(cues)
    assert {cue.source for cue in found} == {"file:talk.mp4"}
    assert all(cue.epoch_ns for cue in found)
    assert found[-1].t - found[0].t > FILM_SECONDS / 2


def test_what_is_not_there_is_said_at_once(media: Path) -> None:
    with pytest.raises(SourceNotFound, match=r"none\.mp4"):
        liveaffect.analyze("none.mp4")
    with pytest.raises(SettingsError, match="is a picture"):
        liveaffect.analyze(media / "portrait.jpg")
    with pytest.raises(SettingsError, match="nothing to watch"):
        liveaffect.watch(None, None)
    with (
        pytest.raises(SourceNotFound, match="no-such-camera"),
        liveaffect.watch("no-such-camera", None) as cues,
    ):
        next(cues)


@pytest.mark.parametrize("live", [False, True], ids=["analyze", "watch"])
def test_an_own_output_that_fails_is_an_error_where_the_next_cue_was_wanted(live: bool, media: Path) -> None:
    sink, film = Own(fails_at=5), str(media / "talk.mp4")
    begin = liveaffect.watch(film, None, sinks=[sink], settings=SCRIPTED) if live else None
    with (
        begin or liveaffect.analyze(film, sinks=[sink], settings=SCRIPTED) as cues,
        pytest.raises(SinkError, match="the wall fell down"),
    ):
        list(cues)
    assert sink.closed


@pytest.mark.parametrize("live", [False, True], ids=["analyze", "watch"])
def test_another_thread_ends_it_while_nobody_is_in_view(live: bool, tmp_path: Path) -> None:
    """A button that says stop: the loop waits for a cue that may never come."""
    empty = tmp_path / "empty.mp4"
    writer = cv2.VideoWriter(str(empty), cv2.VideoWriter.fourcc(*"mp4v"), 25, (128, 96))
    for _ in range(20 * 25):
        writer.write(np.zeros((96, 128, 3), np.uint8))
    writer.release()
    sink, told = Own(), list[liveaffect.Cue]()
    cues = (
        liveaffect.watch(str(empty), None, sinks=[sink], settings=SCRIPTED)
        if live
        else liveaffect.analyze(empty, sinks=[sink], settings=SCRIPTED)
    )
    waiter = threading.Thread(target=lambda: told.extend(cues))
    waiter.start()
    while not sink.pictures:
        threading.Event().wait(0.02)
    cues.close()
    assert sink.closed
    waiter.join(5)
    assert not waiter.is_alive()
    assert sink.pictures < 20 * 25
    assert told == []
    cues.close()


def test_an_output_may_end_what_it_is_told_about(media: Path) -> None:
    class Ends(Own):
        def show(self, picture: NDArray[np.uint8], frame: VideoFrame) -> None:
            super().show(picture, frame)
            cues.close()

    sink = Ends()
    cues = liveaffect.analyze(media / "talk.mp4", sinks=[sink], settings=SCRIPTED)
    assert list(cues) == []
    assert sink.closed
    assert sink.pictures == 1


def test_a_film_that_is_named_as_a_microphone_is_heard_and_not_looked_at(media: Path) -> None:
    with liveaffect.watch(None, str(media / "talk.mp4"), settings=SCRIPTED) as cues:
        assert {cue.box for cue in cues} == {None}


def test_a_loop_that_lets_cues_wait_too_long_is_told_how_many_it_missed(
    media: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("liveaffect.realtime.live.CUES", 3)
    with liveaffect.watch(str(media / "talk.mp4"), None, settings=SCRIPTED) as cues:
        first = next(cues)
        threading.Event().wait(1.5)
        rest = list(cues)
    gap = rest[-1].t - first.t
    fetched = len({cue.t for cue in rest})
    assert cues.losses["grid points whose cues nobody fetched"] >= 10 * gap - fetched - 1 > 3


def test_what_is_damaged_in_a_file_is_counted(media: Path, tmp_path: Path) -> None:
    film = bytearray((media / "talk.mp4").read_bytes())
    film[20_000:40_000:500] = bytes(40)
    (tmp_path / "hurt.mp4").write_bytes(film)
    with liveaffect.analyze(tmp_path / "hurt.mp4", settings=SCRIPTED) as cues:
        assert cues.losses == {}
        list(cues)
    assert sum(cues.losses.values()) > 0
