"""The face detectors arrive whole or not at all, once, through the package index of the machine."""

from __future__ import annotations

import hashlib
import os
import zipfile
from functools import partial
from pathlib import Path

import pytest

from liveaffect import fetch as fetching
from liveaffect.cli import main
from liveaffect.fetch import WHEEL, WHISPER, Wheel, fetch, fetch_whisper, pip_environment
from liveaffect.realtime import blazeface as detectors
from liveaffect.realtime.blazeface import FULL_RANGE, ForeignFile, model_path
from liveaffect.realtime.errors import MissingFile

CONTENT = {"one.tflite": b"first network", "two.tflite": b"second network"}


@pytest.fixture(autouse=True)
def _small_files(monkeypatch: pytest.MonkeyPatch) -> None:
    files = tuple(
        ForeignFile(name, hashlib.sha256(content).hexdigest(), len(content))
        for name, content in CONTENT.items()
    )
    monkeypatch.setattr(fetching, "FILES", files)
    monkeypatch.setattr(fetching, "WHISPER_FILES", files)
    monkeypatch.setattr(detectors, "FILES", files)


def say_nothing(line: str) -> None:
    """Progress for nobody."""


def deliver(content: dict[str, bytes], kind: Wheel = WHEEL) -> fetching.Download:
    """A download that brings a wheel with this content."""

    def download(folder: Path, say: fetching.Progress) -> None:
        with zipfile.ZipFile(folder / "mediapipe-0.10.21-cp312-none-any.whl", "w") as wheel:
            for name, data in content.items():
                wheel.writestr(f"{kind.folder}/{name}", data)

    return download


def refuse(folder: Path, say: fetching.Progress) -> None:
    """A download that must not happen."""
    raise AssertionError("downloaded although everything was there")


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_the_files_are_taken_out_of_the_wheel_and_nothing_else_stays(tmp_path: Path) -> None:
    assert fetch(tmp_path, say_nothing, deliver(CONTENT)) == tmp_path
    assert names(tmp_path) == sorted(CONTENT)
    assert {name: (tmp_path / name).read_bytes() for name in CONTENT} == CONTENT


def test_the_second_time_nothing_is_downloaded(tmp_path: Path) -> None:
    fetch(tmp_path, say_nothing, deliver(CONTENT))
    fetch(tmp_path, say_nothing, refuse)


def test_a_damaged_file_is_brought_again(tmp_path: Path) -> None:
    fetch(tmp_path, say_nothing, deliver(CONTENT))
    (tmp_path / "one.tflite").write_bytes(b"half a netw")
    fetch(tmp_path, say_nothing, deliver(CONTENT))
    assert (tmp_path / "one.tflite").read_bytes() == CONTENT["one.tflite"]


def test_a_file_with_another_hash_is_refused_and_not_kept(tmp_path: Path) -> None:
    with pytest.raises(MissingFile, match=r"two\.tflite.*SHA-256 differs"):
        fetch(tmp_path, say_nothing, deliver({**CONTENT, "two.tflite": b"something else"}))
    assert names(tmp_path) == ["one.tflite"]


def test_a_wheel_without_the_file_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(MissingFile, match=r"lacks one\.tflite"):
        fetch(tmp_path, say_nothing, deliver({}))
    assert names(tmp_path) == []


def test_a_broken_wheel_is_refused(tmp_path: Path) -> None:
    def download(folder: Path, say: fetching.Progress) -> None:
        (folder / "mediapipe-0.10.21.whl").write_bytes(b"not a zip")

    with pytest.raises(MissingFile, match="is damaged"):
        fetch(tmp_path, say_nothing, download)


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(MissingFile, match=r"could not be written to .*file"):
        fetch(tmp_path / "file" / "below", say_nothing, deliver(CONTENT))


def test_without_an_index_one_sentence_says_what_failed_and_what_to_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in list(os.environ):
        if name.startswith(("PIP_", "UV_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    with pytest.raises(MissingFile, match="could not be downloaded") as caught:
        fetch(tmp_path, say_nothing)
    assert "liveaffect fetch" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert names(tmp_path) == []


def test_progress_names_what_was_brought(tmp_path: Path) -> None:
    lines: list[str] = []
    fetch(tmp_path, lines.append, deliver(CONTENT))
    assert any("one.tflite" in line for line in lines)
    lines.clear()
    fetch(tmp_path, lines.append, refuse)
    assert lines == [f"face detectors: already in {tmp_path}"]


def test_an_explicit_folder_goes_before_the_environment_before_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("LIVEAFFECT_FILES", str(tmp_path / "mine"))
    for folder in ("flag", "mine", "cache/liveaffect"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / FULL_RANGE).write_bytes(b"x")
    assert model_path(FULL_RANGE, tmp_path / "flag").parent == tmp_path / "flag"
    assert model_path(FULL_RANGE, tmp_path / "flag" / FULL_RANGE).parent == tmp_path / "flag"
    assert model_path(FULL_RANGE).parent == tmp_path / "mine"
    monkeypatch.delenv("LIVEAFFECT_FILES")
    assert model_path(FULL_RANGE).parent == tmp_path / "cache" / "liveaffect"


def test_an_absent_file_names_the_command_that_brings_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(MissingFile, match=r"is not there; bring it with: liveaffect fetch"):
        model_path(FULL_RANGE)


def test_a_damaged_file_in_the_cache_is_refused_and_one_the_user_chose_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    cache = tmp_path / "liveaffect"
    cache.mkdir()
    (cache / "one.tflite").write_bytes(b"half")
    with pytest.raises(MissingFile, match="is damaged"):
        model_path("one.tflite")
    monkeypatch.setenv("XDG_CACHE_HOME", "/elsewhere")
    assert model_path("one.tflite", cache).is_file()


def test_the_index_settings_of_uv_are_handed_to_pip() -> None:
    given = {
        "UV_DEFAULT_INDEX": "mirror=https://index.example/simple?a=b",
        "UV_INDEX": "https://one.example/s two=https://two.example/s",
        "UV_INSECURE_HOST": "index.example",
    }
    out = pip_environment(given)
    assert out["PIP_INDEX_URL"] == "https://index.example/simple?a=b"
    assert out["PIP_EXTRA_INDEX_URL"] == "https://one.example/s https://two.example/s"
    assert out["PIP_TRUSTED_HOST"] == "index.example"


def test_the_settings_of_pip_itself_go_first() -> None:
    given = {"UV_INDEX_URL": "https://uv.example/simple?x=1", "PIP_INDEX_URL": "https://pip.example/simple"}
    assert pip_environment(given)["PIP_INDEX_URL"] == "https://pip.example/simple"
    del given["PIP_INDEX_URL"]
    assert pip_environment(given)["PIP_INDEX_URL"] == "https://uv.example/simple?x=1"


def test_whisper_comes_in_the_same_way_into_a_folder_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("LIVEAFFECT_WHISPER", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    lines: list[str] = []
    folder = fetch_whisper(progress=lines.append, download=deliver(CONTENT, WHISPER))
    assert folder == tmp_path / "liveaffect" / "whisper-tiny.en"
    assert names(folder) == sorted(CONTENT)
    assert all(line.startswith("files of Whisper tiny.en") for line in lines)
    fetch_whisper(progress=say_nothing, download=refuse)


def test_without_whisper_fetch_succeeds_and_says_what_serves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def nothing() -> Path:
        raise MissingFile("the index is out of reach")

    monkeypatch.setattr(fetching, "fetch", lambda to: tmp_path)
    monkeypatch.setattr(fetching, "fetch_whisper", nothing)
    assert main(["fetch"]) == 0
    assert "the small voice network is used: the index is out of reach" in capsys.readouterr().err
    monkeypatch.setattr(fetching, "fetch_whisper", lambda: pytest.fail("Whisper was not wanted"))
    assert main(["fetch", "--small"]) == 0


def test_whisper_base_is_joined_of_its_two_packages_and_refused_if_it_is_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LIVEAFFECT_WHISPER", str(tmp_path / "whisper"))
    content = {"model.bin": b"first half, second half", "config.json": b"{}"}
    files = tuple(
        ForeignFile(name, hashlib.sha256(data).hexdigest(), len(data)) for name, data in content.items()
    )
    monkeypatch.setattr(fetching, "BASE_FILES", files)
    monkeypatch.setattr(fetching, "find_spec", lambda name: None)

    def download(folder: Path, say: fetching.Progress, *, second: bytes = b" second half") -> None:
        with zipfile.ZipFile(folder / "a-1.whl", "w") as wheel:
            wheel.writestr("part_one/data/model.bin.part1", b"first half,")
            wheel.writestr("part_one/data/config.json", b"{}")
        with zipfile.ZipFile(folder / "b-1.whl", "w") as wheel:
            wheel.writestr("part_two/data/model.bin.part2", second)

    with pytest.raises(MissingFile, match=r"model\.bin of Whisper base is not the file"):
        fetching.fetch_words("base", print, partial(download, second=b"something else"))
    assert not list((tmp_path / "whisper").iterdir())
    folder = fetching.fetch_words("base", print, download)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == content


def test_a_folder_without_whisper_is_refused_with_the_command_that_brings_one(tmp_path: Path) -> None:
    with pytest.raises(MissingFile, match="liveaffect fetch --words base"):
        fetching.fetch_words(str(tmp_path))
