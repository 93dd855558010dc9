"""What help says: every default, and names as they are written."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Iterator

import pytest

from liveaffect import cli
from liveaffect.settings import Settings


def commands(
    parser: argparse.ArgumentParser, name: str = ""
) -> Iterator[tuple[str, argparse.ArgumentParser]]:
    """Every command that can be given, with its parser."""
    subs = [a for a in parser._actions if isinstance(a, argparse._SubParsersAction)]
    if not subs:
        yield name, parser
    for sub in subs:
        for part, child in sub.choices.items():
            yield from commands(child, f"{name} {part}".strip())


ALL = dict(commands(cli._parser()))
SETTINGS = {field.name for field in dataclasses.fields(Settings)}


@pytest.mark.parametrize("name", ALL)
def test_every_default_is_shown(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "1000")
    parts = ALL[name].format_help().split("\n  -")
    for action in ALL[name]._actions:
        has_default = action.dest in SETTINGS or action.default not in (None, False, argparse.SUPPRESS)
        if not action.option_strings or action.required or not has_default:
            continue
        (part,) = [part for part in parts if f"-{part.split()[0].strip(',')}" in action.option_strings]
        assert "(default: " in part or "if not given" in part, part


@pytest.mark.parametrize("name", ALL)
def test_names_keep_their_case_and_a_sentence_begins_large(name: str) -> None:
    text = ALL[name].description
    assert text is not None
    assert text[0].isupper()
    for word in ("ONNX", "INT8", "TensorRT", "CPU", "GPU"):
        assert word in text or word.lower() not in text.lower()


def test_one_line_is_said_about_the_networks_and_all_with_v(capsys: pytest.CaptureFixture[str]) -> None:
    settings = Settings(engine="scripted")
    said: list[str] = []
    settings.load_tools(said.append)
    assert len(said) == 1
    assert said[0].startswith("networks: ")
    said.clear()
    dataclasses.replace(settings, verbose=True).load_tools(said.append)
    assert [line.split(":")[0] for line in said] == ["face", "voice", "fusion"]
    assert "XNNPACK" not in capsys.readouterr().err


def test_a_profile_that_is_not_there_is_refused_before_anything_is_opened(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("liveaffect.webcam.feeds_of", _never)
    monkeypatch.setattr("liveaffect.realtime.wiring.load_tools", _never)
    assert cli.main(["live", "--profile", "nobody-of-that-name"]) == 1
    assert "there is no profile 'nobody-of-that-name'" in capsys.readouterr().err
    assert cli.main(["analyze", __file__, "--profile", "nobody-of-that-name"]) == 1
    assert cli.main(["live", "--profile", "../x"]) == 1
    assert "is no name for a profile" in capsys.readouterr().err


def _never(*_: object, **__: object) -> None:
    raise AssertionError("it was opened first")
