"""A personal profile: made in a sitting, kept as numbers, used for one person, erased without trace."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from liveaffect.calibration import av_offset
from liveaffect.calibration.baseline import Sitting, sound_of
from liveaffect.cli import main
from liveaffect.engines.protocol import Pending, Tensors
from liveaffect.engines.recipe import LABELS, SAMPLE_RATE, SpeakerStatistics
from liveaffect.realtime import profile as profiles
from liveaffect.realtime import replay, wiring
from liveaffect.realtime.clock import MonotonicClock
from liveaffect.realtime.errors import CalibrationRefused, SettingsError
from liveaffect.realtime.feeds import Feed
from liveaffect.realtime.networks import Networks
from liveaffect.realtime.profile import Baseline, Side
from liveaffect.realtime.testing.engines import AroundEngine, ConstantEngine, FailingEngine
from liveaffect.realtime.testing.people import Film, Talkers
from liveaffect.realtime.testing.virtual_time import constant_networks
from liveaffect.realtime.wiring import Tools

BOTH = {"face": "net-of-faces", "voice": "net-of-voices"}
HAPPY = LABELS.index("happy")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    return tmp_path


def sat(
    film: Film, networks: Networks | None = None, wanted: tuple[str, ...] = ("face", "voice")
) -> Baseline:
    sitting = Sitting(Tools(networks or constant_networks(), film.make_finders))
    film.open()
    sitting.all_of(film)
    return sitting.result(BOTH, wanted)


def test_a_sitting_gives_shifts_against_what_the_networks_say_and_the_statistics_of_the_voice() -> None:
    baseline = sat(Talkers(4.0))
    assert set(baseline.sides) == {"face", "voice"}
    for side in baseline.sides.values():
        assert side.shift[HAPPY] == min(side.shift) < -0.3
        assert side.shift[0] == 0.0
        assert 3.0 <= side.seconds <= 4.0
    assert baseline.sound is not None
    assert baseline.sound.seconds > 3.0


class Nan(AroundEngine):
    """Answers with no numbers."""

    def submit(self, inputs: Tensors) -> Pending:
        pending = super().submit(inputs)
        for name, values in pending.result().items():
            if name == "logits":
                values[:] = np.nan
        return pending


def broken() -> Networks:
    engines = (Nan(ConstantEngine("face", "happy")), Nan(ConstantEngine("voice", "happy")))
    return Networks(*engines, ConstantEngine("fusion", "happy"))


def failing() -> Networks:
    """Every question fails, as where an engine found that its own answers were no numbers."""
    engines = (
        FailingEngine(ConstantEngine("face", "happy"), after=0),
        FailingEngine(ConstantEngine("voice", "happy"), after=0),
    )
    return Networks(*engines, ConstantEngine("fusion", "happy"))


class Deaf(AroundEngine):
    """Hears no speech in anything."""

    def submit(self, inputs: Tensors) -> Pending:
        pending = super().submit(inputs)
        for name, values in pending.result().items():
            if name == "speech":
                values[:] = 0.0
        return pending


class Dark(Talkers):
    """Too little light."""

    def draw(self, at_s: float) -> np.ndarray:
        return np.asarray(super().draw(at_s) // 12, np.uint8)


def test_what_is_missing_is_refused_by_name() -> None:
    room = np.zeros(4 * SAMPLE_RATE, np.float32)
    with pytest.raises(CalibrationRefused, match="no face was in view"):
        sat(Film(room))
    with pytest.raises(CalibrationRefused, match="more than one face"):
        sat(Talkers(3.0, people=2))
    with pytest.raises(CalibrationRefused, match="small, dark, blurred or turned"):
        sat(Dark(3.0))
    with pytest.raises(CalibrationRefused, match="no speech was heard"):
        sat(Film(room[:3200]), wanted=("voice",))
    with pytest.raises(CalibrationRefused, match=r"only [0-9]+ readings of the face over"):
        sat(Talkers(1.0))
    with pytest.raises(CalibrationRefused, match="only 0 readings of the face"):
        sat(Talkers(3.0), failing())
    with pytest.raises(CalibrationRefused, match="no 7 finite numbers"):
        sat(Talkers(3.0), broken())


def made(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A profile made by the command's own function, with a made-up film and networks."""
    film = Talkers(4.0)
    use(monkeypatch, Tools(constant_networks(), film.make_finders))
    monkeypatch.setattr(replay, "MediaFile", lambda *_, **__: film)
    assert main(["calibrate", "baseline", "--profile", name, "--file", "film.mp4"]) == 0


def use(monkeypatch: pytest.MonkeyPatch, tools: Tools) -> None:
    """Let the command take these networks and this finder."""
    monkeypatch.setattr(wiring, "load_tools", lambda *_, **__: tools)


class Filmed:
    """A recording of devices that shows a film."""

    film = Talkers(4.0)

    def __init__(self, feeds: list[Feed], clock: MonotonicClock, seconds: float) -> None:
        self.open, self.read, self.close = self.film.open, self.film.read, self.film.close


@pytest.mark.parametrize(("camera", "mic"), [("rtsp://cam/1", "none"), ("rtsp://cam/1", "some mic")])
def test_devices_give_what_was_asked_of_them(
    camera: str, mic: str, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    use(monkeypatch, Tools(constant_networks(), Filmed.film.make_finders))
    monkeypatch.setattr(av_offset, "LiveRecording", Filmed)
    assert main(["calibrate", "baseline", "--profile", "ann", "--camera", camera, "--mic", mic]) == 0
    assert "neutral face" in capsys.readouterr().err
    expected = {"face"} if mic == "none" else {"face", "voice"}
    assert set(profiles.load_profile("ann").sides) == expected


def test_what_cannot_be_a_name_is_refused_before_anybody_is_measured(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(wiring, "load_tools", lambda *_, **__: pytest.fail("the networks were loaded"))
    assert main(["calibrate", "baseline", "--profile", "../ann", "--file", "film.mp4"]) == 1
    assert "'../ann' is no name for a profile" in capsys.readouterr().err


def test_without_any_device_nobody_can_be_measured(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["calibrate", "baseline", "--profile", "ann", "--camera", "none", "--mic", "none"]) == 1
    assert "nobody can be measured" in capsys.readouterr().err


def test_a_silent_film_is_refused_until_its_sound_is_left_out(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[dict[str, bool]] = []

    def opened(_: Path, **wanted: bool) -> Film:
        asked.append(wanted)
        film.has_audio = wanted["audio"]
        return film

    film = Talkers(4.0)
    voice = Deaf(ConstantEngine("voice", "sad"))
    quiet = Networks(ConstantEngine("face", "happy"), voice, ConstantEngine("fusion", "sad"))
    use(monkeypatch, Tools(quiet, film.make_finders))
    monkeypatch.setattr(replay, "MediaFile", opened)
    command = ["calibrate", "baseline", "--profile", "ann", "--file", "film.mp4"]
    assert main(command) == 1
    assert "or leave the voice out: --mic none" in capsys.readouterr().err
    assert main([*command, "--mic", "none"]) == 0
    assert set(profiles.load_profile("ann").sides) == {"face"}
    assert asked == [{"video": True, "audio": True}, {"video": True, "audio": False}]


def leaves(content: Any) -> list[Any]:
    if isinstance(content, dict):
        return list(itertools.chain.from_iterable(map(leaves, content.values())))
    if isinstance(content, list):
        return list(itertools.chain.from_iterable(map(leaves, content)))
    return [content]


def test_a_profile_is_numbers_only_and_small(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    made("ann", monkeypatch)
    assert "profile 'ann' is kept" in capsys.readouterr().out
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert [path.name for path in files] == ["ann.json"]
    assert files[0].stat().st_size < 4000
    assert files[0].stat().st_mode & 0o077 == 0
    values = leaves(json.loads(files[0].read_text()))
    texts = {value for value in values if isinstance(value, str)}
    assert texts == {"untrained"}, "beside numbers only the names of the networks"
    assert all(isinstance(value, int | float | str) for value in values)
    assert len(values) < 160


def test_erasing_leaves_no_byte_of_it(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    made("zacharias", monkeypatch)
    made("other", monkeypatch)
    path = profiles.profiles_folder() / "zacharias.json"
    content = json.loads(path.read_text())
    content["sound"]["mean"] = [-123.4567] * 64
    path.write_text(json.dumps(content))
    again = path.open("rb")
    assert main(["profile", "list"]) == 0
    assert "zacharias: face 3." in capsys.readouterr().out
    assert main(["profile", "erase", "zacharias"]) == 0
    assert main(["profile", "list"]) == 0
    assert "zacharias" not in capsys.readouterr().out
    everything = [p for p in folder.rglob("*") if p.is_file()]
    assert everything
    for file in everything:
        assert "zacharias" not in str(file.relative_to(folder))
        assert b"zacharias" not in file.read_bytes()
        assert b"123.4567" not in file.read_bytes()
    assert set(again.read()) == {0}, "what was freed was overwritten first"
    again.close()
    assert main(["profile", "erase", "other"]) == 0
    assert [p for p in folder.rglob("*") if p.is_file()] == []
    assert main(["profile", "erase", "other"]) == 1
    assert "no profile 'other'" in capsys.readouterr().err


def test_one_that_is_absent_damaged_newer_or_of_another_network_is_refused_with_what_to_do(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    networks = constant_networks()
    assert profiles.profile_of("", networks, None) is None
    with pytest.raises(CalibrationRefused, match="Make it: liveaffect calibrate baseline --profile ann"):
        profiles.profile_of("ann", networks, None)
    made("ann", monkeypatch)
    profile = profiles.profile_of("ann", networks, None)
    assert profile is not None
    assert profile.face is not None
    assert profile.face[HAPPY] < -1.0
    path = profiles.profiles_folder() / "ann.json"
    good = path.read_text()
    for text, says in (
        ("{", "profile 'ann'.*not used"),
        (good.replace('"format": 1', '"format": 2'), "has format 2"),
        (good.replace("untrained", "a1b2c3d4e5f6"), "another face network"),
        ("\x00" * 40, "not used"),
    ):
        path.write_text(text)
        with pytest.raises(CalibrationRefused, match=says) as refusal:
            profiles.profile_of("ann", networks, None)
        assert "liveaffect profile erase ann" in str(refusal.value)
    assert main(["profile", "list"]) == 0
    assert "not used" in capsys.readouterr().out
    assert main(["profile", "erase", "ann"]) == 0


@pytest.mark.parametrize("name", ["", "../ann", "a/b", ".hidden", "a" * 41, "ann\n", "-x", "ä"])
def test_a_name_that_is_no_name_is_refused(name: str, folder: Path) -> None:
    side = Side("n", (0.0,) * 7, 5.0)
    with pytest.raises(SettingsError):
        profiles.save_profile(name, Baseline({"face": side}))
    assert list(folder.iterdir()) == []


def test_a_new_one_takes_the_place_of_the_old(folder: Path) -> None:
    for seconds in (3.0, 6.0):
        sound = sound_of(SpeakerStatistics.cold())
        profiles.save_profile("ann", Baseline({"face": Side("n", (0.0,) * 7, seconds)}, sound))
    assert profiles.load_profile("ann").sides["face"].seconds == 6.0
    assert profiles.profile_names() == ["ann"]
