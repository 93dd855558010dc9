"""What the documents of the API show is what it does: docstrings, docs/api.md and the README are run."""

from __future__ import annotations

import doctest
import re
import shutil
from pathlib import Path

import pytest

from liveaffect import analyzer, api
from liveaffect.realtime.testing.media import write_media

ROOT = Path(__file__).resolve().parent.parent
BLOCK = re.compile(r"^<!-- run in CI from the wheel -->\n```python\n(.*?)^```", re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def media(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_media(tmp_path_factory.mktemp("media"))


@pytest.mark.parametrize("module", [api, analyzer])
def test_the_examples_in_docstrings_give_what_they_say(
    module: object, media: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(media)
    outcome = doctest.testmod(module)  # type: ignore[arg-type]
    assert outcome.attempted > 2
    assert outcome.failed == 0


def test_the_page_about_the_api_gives_what_it_says(media: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(media)
    outcome = doctest.testfile(str(ROOT / "docs" / "api.md"), module_relative=False)
    assert outcome.attempted > 10
    assert outcome.failed == 0


def test_the_page_names_everything_that_is_public_but_single_errors() -> None:
    import liveaffect

    page = (ROOT / "docs" / "api.md").read_text("utf-8")
    unnamed = {name for name in liveaffect.__all__ if not re.search(rf"\b{name}\b", page)}
    assert unnamed <= {"SourceChanged", "Cues", "PredictedFace"}


def test_the_readme_shows_the_api_in_three_lines_that_run(
    media: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "demo").mkdir()
    shutil.copy(media / "talk.mp4", tmp_path / "demo" / "demo.mp4")
    monkeypatch.chdir(tmp_path)
    (block,) = BLOCK.findall((ROOT / "README.md").read_text("utf-8"))
    assert len([line for line in block.splitlines() if line]) == 3
    exec(compile(block, "README.md", "exec"), {})
    assert re.match(r"0\.\d 1 \w+", capsys.readouterr().out)
