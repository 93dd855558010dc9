"""Flag over environment over file over default; nonsense is refused with the name of the setting."""

from __future__ import annotations

import math
import os
from pathlib import Path

import pytest

from liveaffect.realtime.errors import SettingsError
from liveaffect.settings import Settings, misspelt, resolve


def test_the_ranking_is_flag_environment_file_default(tmp_path: Path) -> None:
    config = tmp_path / "c.toml"
    config.write_text('fps = 15\nsize = "800x600"\nthreads = 3\ncamera = ["a", "b"]\n')
    got = resolve({"fps": 60.0, "size": None}, {"LIVEAFFECT_FPS": "25", "LIVEAFFECT_SIZE": "320x240"}, config)
    assert got.fps == 60.0
    assert got.size == "320x240"
    assert got.threads == 3
    assert got.camera == ("a", "b")
    assert got.mic == Settings().mic


def test_lists_come_from_the_environment_with_commas() -> None:
    assert resolve({}, {"LIVEAFFECT_CAMERA": "0, 1"}).camera == ("0", "1")


def test_repeated_flags_become_the_same_kind_of_list_as_all_others() -> None:
    assert resolve({"camera": ["0", "1"]}, {}) == resolve({}, {"LIVEAFFECT_CAMERA": "0,1"})


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ({"size": "640"}, "WIDTHxHEIGHT"),
        ({"size": "4x4"}, "16 to 16384 pixels a side"),
        ({"size": "99999x99999"}, "16 to 16384 pixels a side"),
        ({"size": "9" * 5000 + "x480"}, "WIDTHxHEIGHT"),
        ({"seconds": math.nan}, "seconds is nan"),
        ({"seconds": math.inf}, "seconds is inf"),
        ({"fps": 0.0}, "fps is 0"),
        ({"overlay": "sometimes"}, "auto, locked, late"),
        ({"engine": "abacus"}, "one of"),
        ({"voice": "loud"}, "voice is 'loud'; it is one of auto, small, full"),
        ({"threads": 0}, "threads"),
        ({"seconds": -1.0}, "seconds"),
        ({"threads": "2"}, "threads is '2'; it wants a whole number"),
        ({"threads": 1.5}, "it wants a whole number"),
        ({"words": False}, "words is False; it wants text in quotes"),
        ({"engine": 3}, "engine is 3; it wants text in quotes"),
    ],
)
def test_nonsense_is_refused_with_what_would_make_sense(flags: dict[str, object], words: str) -> None:
    with pytest.raises(SettingsError, match=words):
        resolve(flags, {})


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("speed = 3", "sets speed"),
        ("fps = ", "not TOML"),
        ('threads = "two"', "it wants a whole number"),
        ("fps = true", "it wants a number"),
        ("a = [" * 3000, "not TOML"),
    ],
)
def test_a_config_file_is_checked_like_flags(tmp_path: Path, text: str, words: str) -> None:
    config = tmp_path / "c.toml"
    config.write_text(text)
    with pytest.raises(SettingsError, match=words):
        resolve({}, {}, config)


def test_a_config_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="cannot read the config file"):
        resolve({}, {}, tmp_path / "none.toml")


def test_an_environment_value_that_does_not_parse_names_the_variable() -> None:
    with pytest.raises(SettingsError, match="LIVEAFFECT_THREADS is 'many'"):
        resolve({}, {"LIVEAFFECT_THREADS": "many"})
    with pytest.raises(SettingsError, match="LIVEAFFECT_MIRROR"):
        resolve({}, {"LIVEAFFECT_MIRROR": "maybe"})
    assert resolve({}, {"LIVEAFFECT_MIRROR": "yes"}).mirror


def test_a_config_file_as_an_editor_of_windows_saves_it_is_read(tmp_path: Path) -> None:
    (tmp_path / "c.toml").write_bytes(b"\xef\xbb\xbffps = 25.0\n")
    assert resolve({}, {}, tmp_path / "c.toml").fps == 25.0


def test_a_config_file_of_bytes_or_without_an_end_is_refused_in_words(tmp_path: Path) -> None:
    noise = tmp_path / "noise.toml"
    noise.write_bytes(bytes(range(256)))
    with pytest.raises(SettingsError, match="is not TOML"):
        resolve({}, {}, noise)
    endless = "/dev/zero"
    if not os.path.exists(endless):
        pytest.skip("needs /dev/zero, so POSIX")
    with pytest.raises(SettingsError, match="has no end"):
        resolve({}, {}, Path(endless))


def test_a_film_adds_no_microphone_unless_one_is_asked_for(tmp_path: Path) -> None:
    film = tmp_path / "a.mp4"
    film.write_bytes(b"")
    assert resolve({}, {}).microphones == ["default"]
    assert resolve({"camera": [str(film)]}, {}).microphones == []
    assert resolve({"camera": [str(film)], "mic": ["default"]}, {}).microphones == ["default"]
    assert resolve({"camera": [str(film), "0"]}, {}).microphones == ["default"]
    assert resolve({"camera": ["none"]}, {}).microphones == ["default"]
    assert resolve({"mic": ["none"]}, {}).microphones == []


def test_a_variable_with_a_slip_in_its_name_is_named_and_a_strange_one_is_nobodys() -> None:
    given = {
        "LIVEAFFECT_CAMRA": "1",
        "LIVEAFFECT_CAMERA": "0",
        "LIVEAFFECT_CI": "1",
        "LIVEAFFECT_WHISPER": "x",
    }
    assert misspelt(given) == ["LIVEAFFECT_CAMRA is no setting and changes nothing; LIVEAFFECT_CAMERA is one"]
