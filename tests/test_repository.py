"""What the documents promise is there: commands, links, a reason for every dependency."""

from __future__ import annotations

import re
import shlex
import subprocess
import tomllib
from itertools import chain
from pathlib import Path

import pytest

from liveaffect import cli
from liveaffect.libraries import LIBRARIES, PROGRAMS

ROOT = Path(__file__).resolve().parent.parent
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


def accepts(words: list[str]) -> bool:
    """Whether the command line knows this command and all its flags."""
    try:
        cli._parser().parse_args(words)
    except SystemExit as end:
        return end.code == 0
    return True


def test_every_command_in_the_documents_is_one_the_program_accepts() -> None:
    commands = written_commands()
    assert len(commands) > 5
    assert [c for c in commands if not accepts(c[1])] == []


def test_every_command_of_the_program_is_in_the_readme(capsys: pytest.CaptureFixture[str]) -> None:
    assert accepts(["--help"])
    names = set(re.findall(r"^ {4}([a-z]+)\b", capsys.readouterr().out, re.MULTILINE))
    assert {"demo", "live", "analyze", "predict", "fetch", "doctor"} <= names
    readme = (ROOT / "README.md").read_text("utf-8")
    assert {name for name in names if f"| `liveaffect {name}" not in readme} == set()


def test_every_command_in_the_readme_table_exists() -> None:
    for words in re.findall(
        r"^\| `liveaffect ([a-z ]+)", (ROOT / "README.md").read_text("utf-8"), re.MULTILINE
    ):
        command = words.split()
        assert accepts([*command, "--help"]) or accepts([command[0], "--help"]), words


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
    """Weights may be; together they stay below 16 MB."""
    sizes = {path: path.stat().st_size for path in tracked()}
    weights = sum(size for path, size in sizes.items() if "weights" in path.parts)
    assert weights <= 16_000_000
    large = [path.name for path, size in sizes.items() if size > 2_000_000 and "weights" not in path.parts]
    assert large == []
