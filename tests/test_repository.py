"""What the documents promise is there: commands, links, a reason for every dependency."""

from __future__ import annotations

import argparse
import contextlib
import io
import itertools
import re
import shlex
import subprocess
import tomllib
from itertools import chain
from pathlib import Path

import pytest

from liveaffect import cli
from liveaffect.findings import LIBRARIES, PROGRAMS

ROOT = Path(__file__).resolve().parent.parent
FENCED = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
FENCE = re.compile(r"^```bash\n(.*?)^```", re.MULTILINE | re.DOTALL)
COMMENT = re.compile(r"<!--.*?-->", re.DOTALL)
LINK = re.compile(r"\]\(([^)\s]+)\)")
FORBIDDEN = {
    "an address of a package registry": r"(?:pypi|files\.pythonhosted)\.org|deb\.debian\.org",
    "a path of one machine": r"(?<![\w.$}])/(?:work|opt/wheels|root|home/[a-z]+)/\w",
    "unfinished work": r"\b(?:TODO|FIXME|XXX)\b",
    "talk about the making": r"(?i)\b(?:chatgpt|claude|copilot|as an ai|language model|ai-generated)\b",
}


def tracked(*endings: str) -> list[Path]:
    """The files of the repository with one of these endings; all without any."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=False)
    if listed.returncode != 0:
        pytest.skip("needs a git checkout; this is an unpacked archive")
    names = listed.stdout.decode().split("\0")
    paths = [ROOT / name for name in names if name and (not endings or name.endswith(endings))]
    return [path for path in paths if path.is_file()]


def written_commands() -> list[tuple[str, list[str]]]:
    """Every `liveaffect` command in a code block of a document, with the document's name."""
    found = []
    for document in tracked(".md"):
        for block in FENCE.findall(document.read_text("utf-8")):
            for part in re.split(r"&&|\n", block):
                words = shlex.split(part, comments=True)
                if words[:2] == ["uv", "run"] and "liveaffect" in words:
                    found.append((document.name, words[words.index("liveaffect") + 1 :]))
    return found


def complaint(words: list[str], *, complete: bool = True) -> str | None:
    """What the program's own parser says against these words; None if it takes them.

    A mention in a sentence need not be `complete`: required arguments and the values of flags may be left
    out, and a placeholder such as FILE may stand for a number. Every word that is there is still judged.
    """
    parser = cli._parser()
    while known := commands_of(parser):
        if not words and not complete:
            return None
        if not words or words[0] not in known:
            return f"'{' '.join(words)}' is no command of {parser.prog}"
        parser, words = known[words[0]], words[1:]
    for action in [] if complete else parser._actions:
        action.required = False
        action.type = None
        if action.nargs in (None, "+"):
            action.nargs = "*" if action.nargs else "?"
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
            parser.parse_args(words)
    except SystemExit as end:
        return None if end.code == 0 else said.getvalue().strip().splitlines()[-1]
    return None


def commands_of(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    """The words that may follow it, each with what parses the rest."""
    groups = (a for a in parser._actions if isinstance(a, argparse._SubParsersAction))
    return dict(chain.from_iterable(group.choices.items() for group in groups))


def test_every_command_in_the_documents_is_one_the_program_accepts() -> None:
    commands = written_commands()
    assert len(commands) > 5
    assert [(page, said) for page, words in commands if (said := complaint(words)) is not None] == []


def test_every_command_of_the_program_is_in_the_readme() -> None:
    names = commands_of(cli._parser()).keys()
    assert {"demo", "live", "analyze", "predict", "fetch", "doctor"} <= names
    readme = (ROOT / "README.md").read_text("utf-8")
    assert {name for name in names if f"| `liveaffect {name}" not in readme} == set()


def mentions() -> list[tuple[str, list[str]]]:
    """Every command and flag that a sentence or a table names, each with the command it belongs to."""
    found = []
    known = commands_of(cli._parser())
    for page in (ROOT / "README.md", *(ROOT / "docs").glob("*.md")):
        for line in FENCED.sub("", page.read_text("utf-8")).splitlines():
            command: list[str] = []
            for span in re.findall(r"`([^`]+)`", line):
                words = span.replace("...", "").replace("\\|", " ").split()
                if words[:2] == ["uv", "run"]:
                    words = words[2:]
                if words[:1] == ["liveaffect"]:
                    words = words[1:]
                    command = list(itertools.takewhile(lambda word: re.fullmatch("[a-z0-9]+", word), words))
                    found.append((page.name, words))
                elif command and words[:1] and words[0] in known:
                    found.append((page.name, words))
                elif command and line.startswith("| `liveaffect") and words[:1] and words[0].startswith("--"):
                    found.append((page.name, [*command, *words]))
    return found


def test_every_command_and_flag_that_a_sentence_names_exists() -> None:
    """Not only the first word: a second command, a choice or a flag that is gone is found, too."""
    assert len(mentions()) > 40
    wrong = [(page, said) for page, words in mentions() if (said := complaint(words, complete=False))]
    assert wrong == []


@pytest.mark.parametrize(
    "words",
    ["engines bogus", "train nobody", "live --camra 0", "profile", "calibrate reports", "build now", "dem"],
)
def test_a_word_that_the_program_does_not_know_is_found_wherever_it_stands(words: str) -> None:
    assert complaint(words.split()) is not None


def test_the_readme_has_commands_that_run_in_ci_and_none_of_them_needs_a_camera() -> None:
    readme = (ROOT / "README.md").read_text("utf-8")
    marked = re.findall(r"^<!-- run in CI -->\n```bash\n(.*?)^```", readme, re.MULTILINE | re.DOTALL)
    assert marked
    assert not any("liveaffect live" in block for block in marked)


def test_every_link_in_the_documents_leads_somewhere() -> None:
    dead = []
    for document in tracked(".md"):
        for target in LINK.findall(COMMENT.sub("", document.read_text("utf-8"))):
            if not re.match(r"[a-z]+:", target) and not (document.parent / target.partition("#")[0]).exists():
                dead.append((document.name, target))
    assert dead == []


def test_every_file_and_every_name_on_the_page_of_the_architecture_is_there() -> None:
    """A page that is true when it is written is not true for long by itself."""
    page = (ROOT / "docs" / "architecture.md").read_text("utf-8")
    paths = set(re.findall(r"[\w/]+\.py\b", page)) - {"realtime/NAME.py"}
    assert len(paths) > 30
    assert [p for p in paths if not (ROOT / p).is_file() and not (ROOT / "realtime" / p).is_file()] == []
    code = "".join(path.read_text("utf-8") for path in tracked(".py") if path.parts[-2] != "tests")
    named = set(re.findall(r"`(?:\w+\.)?(\w+)`", page)) | set(re.findall(r"\|([A-Z]\w+)[|:,]", page))
    assert [name for name in named if not re.search(rf"\b{name}\b", code)] == []


def test_every_dependency_has_a_line_that_says_what_it_is_for_and_no_line_is_left_over() -> None:
    text = (ROOT / "docs" / "dependencies.md").read_text("utf-8")
    described = set()
    for row in re.findall(r"^\| (`.*) \|$", text, re.MULTILINE):
        cells = row.split(" | ")
        assert any(len(cell.split()) >= 3 for cell in cells), f"no sentence: {row}"
        described |= {name for cell in cells[:2] for name in re.findall(r"`([^`]+)`", cell)}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    extras = project["project"]["optional-dependencies"]
    wanted = [
        *project["project"]["dependencies"],
        *project["dependency-groups"]["dev"],
        *chain.from_iterable(extras.values()),
    ]
    declared = {re.split(r"[<>=!~\[; ]", line, maxsplit=1)[0] for line in wanted}
    system = {needed.package for needed in (*LIBRARIES, *PROGRAMS)}
    assert declared | system | set(extras) <= described
    mentioned_beside = {"python3-venv"}
    assert {n for n in described if " " not in n} - declared - system - set(extras) <= mentioned_beside


def test_every_decision_is_in_the_index_once() -> None:
    folder = ROOT / "docs" / "decisions"
    index = (folder / "README.md").read_text("utf-8")
    pages = sorted(path.name for path in folder.glob("[0-9]*.md"))
    assert len(pages) >= 4
    assert [page for page in pages if index.count(f"]({page})") != 1] == []


@pytest.mark.parametrize("what", FORBIDDEN)
def test_no_file_holds_what_belongs_to_nobody_else(what: str) -> None:
    pattern = re.compile(FORBIDDEN[what])
    text_files = tracked(
        ".py", ".md", ".toml", ".html", ".js", ".css", ".yml", "bootstrap", ".ci/run", "bare-debian"
    )
    found = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()}"
        for path in text_files
        if path != Path(__file__)
        for number, line in enumerate(path.read_text("utf-8").splitlines(), 1)
        if pattern.search(line)
    ]
    assert found == []


def test_nothing_large_is_in_the_repository() -> None:
    """Weights may be, a checkpoint worth keeping with them; together they stay below 24 MB."""
    sizes = {path: path.stat().st_size for path in tracked()}
    weights = sum(size for path, size in sizes.items() if "weights" in path.parts)
    assert weights <= 24_000_000
    large = [path.name for path, size in sizes.items() if size > 2_000_000 and "weights" not in path.parts]
    assert large == []


def test_ci_runs_no_long_form_that_the_plain_command_leaves_out() -> None:
    options = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["pytest"]["ini_options"]
    left_out = set(re.findall(r"not (\w+)", " ".join(options["addopts"])))
    expressions = re.findall(r'-m "([^"]+)"', (ROOT / ".ci" / "run").read_text("utf-8"))
    assert left_out
    assert expressions
    for expression in expressions:
        assert left_out <= set(re.findall(r"not (\w+)", expression)), expression
