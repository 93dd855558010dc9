"""Writes the tables of the results and of `docs/performance.md`, and finds out whether they are still right.

Prose is written by hand and stays; what stands between two marks is made. A mark that nobody can make, a
table that differs and a table that is nowhere in the page are all differences.
"""

from __future__ import annotations

import difflib
import json
import re
from dataclasses import dataclass
from pathlib import Path

from accuracy import face_tables, fusion_tables, voice_tables
from accuracy.face_tables import Maker

from liveaffect.engines.manifest import write_whole
from liveaffect.engines.training.scores import markdown_table

DOCS = Path(__file__).resolve().parents[2] / "docs"
PAGES = ("results.md", "results-voice.md", "performance.md")
BENCH = Path("benchmarks", "results", "bench_full.json")
"""What `liveaffect bench full` wrote."""
MARKED = re.compile(r"(?P<open><!-- made: (?P<name>[^>]+?) -->\n)(?P<text>.*?)(?P<close><!-- end -->)", re.S)


def bench_table(results: Path) -> str:
    """What a full run measured, budgets beside it, and on which machine."""
    record = json.loads((results.parent.parent / BENCH).read_text("utf-8"))
    rows = [
        (
            row["name"],
            "-" if row["value"] is None else f"{row['value']:.3g} {row['unit']}",
            "" if row["budget"] is None else f"{row['budget']:g}",
            "" if row["budget"] is None or row["value"] is None else _verdict(row["value"], row["budget"]),
            "; ".join(filter(None, [row["note"], "" if row["settled"] else "did not settle"])),
        )
        for row in record["rows"]
    ]
    here = record["machine"]
    vnni = "with VNNI" if here["vnni"] else "without VNNI"
    about = f"{here['processor']} {vnni}, {here['cores']} cores, commit {here['commit']}."
    return f"{about}\n\n{markdown_table(('what', 'measured', 'budget', '', 'remarks'), rows)}"


def _verdict(value: float, budget: float) -> str:
    return "within" if value <= budget else f"**{value / budget:.1f} times**"


MAKERS: dict[str, Maker] = {
    **face_tables.MAKERS,
    **voice_tables.MAKERS,
    **fusion_tables.MAKERS,
    "bench": bench_table,
}


@dataclass(frozen=True, slots=True)
class Difference:
    """Something that is not as it was committed."""

    what: str
    committed: str
    now: str
    allowed: str = "none"


def made(page: str, results: Path, makers: dict[str, Maker] = MAKERS) -> str:
    """The page with every table made again. Raises ValueError for a mark that nobody can make."""

    def again(found: re.Match[str]) -> str:
        name = found["name"]
        if name not in makers:
            raise ValueError(f"nobody makes '{name}'; known are {', '.join(makers)}")
        return f"{found['open']}\n{makers[name](results).strip()}\n\n{found['close']}"

    return MARKED.sub(again, page)


def write(docs: Path = DOCS) -> None:
    """Make every table of the pages again and write them."""
    for path in pages(docs):
        write_whole(path, made(path.read_text("utf-8"), docs / "results").encode())


def pages(docs: Path) -> list[Path]:
    """The pages that hold tables."""
    return [docs / name for name in PAGES if (docs / name).exists()]


def differences(docs: Path = DOCS, makers: dict[str, Maker] = MAKERS) -> list[Difference]:
    """Tables that are not what the committed answers give."""
    found, shown = [], set()
    for path in pages(docs):
        page = path.read_text("utf-8")
        try:
            now = made(page, docs / "results", makers)
        except (OSError, KeyError, ValueError, IndexError) as err:
            return [Difference(path.name, "a page of tables", f"cannot be made: {err}")]
        for old, new in zip(MARKED.finditer(page), MARKED.finditer(now), strict=True):
            shown.add(old["name"])
            if old["text"] != new["text"]:
                found.append(Difference(f"table '{old['name']}'", *_first_change(old["text"], new["text"])))
    return found + [
        Difference(f"table '{name}'", "not in the page", "made") for name in makers if name not in shown
    ]


def _first_change(old: str, new: str) -> tuple[str, str]:
    """The first line that differs, as it was and as it is now."""
    changes = list(difflib.ndiff(old.splitlines(), new.splitlines()))
    gone = next((line[2:] for line in changes if line.startswith("- ")), "")
    come = next((line[2:] for line in changes if line.startswith("+ ")), "")
    return gone, come


def as_table(found: list[Difference]) -> str:
    """For people."""
    rows = [(one.what, one.committed, one.now, one.allowed) for one in found]
    cells = [tuple(cell.replace("|", "/") for cell in row) for row in rows]
    return markdown_table(("what", "committed", "now", "allowed difference"), cells)
