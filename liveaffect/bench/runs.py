"""What the runs of `liveaffect bench` measure, how one is shown and kept, and whether it got slower.

A run is a table for the terminal, a record, and one self-contained page with a table and plots. Two runs
are compared figure by figure, each by its ratio to the yardstick beside it. The blocks of both say how much
a figure moves by itself. Worse is what lies beyond that and beyond six in a hundred; between two runs of
one commit nothing does. What moves too much for a tenth to be seen, and runs on different processors, are
shown and not judged.
"""

from __future__ import annotations

import base64
import html
import io
import json
import math
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from liveaffect.bench.measure import FORMAT, Row, machine
from liveaffect.engines.manifest import write_whole
from liveaffect.realtime.errors import InputRefused
from liveaffect.settings import Settings

Cells = Sequence[Mapping[str, Any]]
NO_PLOTS = "<p>No plots: matplotlib is not installed here. The record holds every figure.</p>"
_STYLE = """body{font:15px/1.5 sans-serif;max-width:70em;margin:2em auto;padding:0 1em;color:#222}
table{border-collapse:collapse;margin:1em 0}
td,th{padding:.2em .8em;border-bottom:1px solid #ddd;text-align:left}
td.n{text-align:right;font-variant-numeric:tabular-nums}.FAIL,.over,.worse{color:#b00020;font-weight:bold}
.PASS,.within,.better{color:#1b6e3c}img{max-width:100%}"""


def as_text(rows: Cells) -> str:
    """Columns under one another, numbers to the right."""
    if not rows:
        return ""
    names = list(dict.fromkeys(name for row in rows for name in row))
    lines = [names, *([_said(row.get(name)) for name in names] for row in rows)]
    widths = [max(len(line[at]) for line in lines) for at in range(len(names))]
    numbers = [all(isinstance(row.get(name), int | float | None) for row in rows) for name in names]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if right else cell.ljust(width)
            for cell, width, right in zip(line, widths, numbers, strict=True)
        ).rstrip()
        for line in lines
    )


def as_html(rows: Cells) -> str:
    """The same as a table of a page."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    head = "".join(f"<th>{html.escape(name)}</th>" for name in names)
    body = "".join(f"<tr>{''.join(_cell(row.get(name)) for name in names)}</tr>" for row in rows)
    return f"<table><tr>{head}</tr>{body}</table>"


def write_page(path: Path, title: str, parts: Sequence[tuple[str, str]]) -> None:
    """One file that needs no other: headings with what stands below them, already HTML."""
    body = "".join(f"<h2>{html.escape(name)}</h2>{part}" for name, part in parts)
    text = (
        f"<!doctype html><html lang=en><meta charset=utf-8><title>{html.escape(title)}</title>"
        f"<style>{_STYLE}</style><h1>{html.escape(title)}</h1>{body}</html>\n"
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, text.encode())


def write_record(path: Path, record: Mapping[str, Any]) -> None:
    """The JSON beside it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, (json.dumps(record, indent=1) + "\n").encode())


def plot(series: Mapping[str, Sequence[tuple[float, float]]], *, x: str, y: str, log: bool = False) -> str:
    """Lines through points, one for each name, as a picture inside the page; without matplotlib, words."""
    if (figure := _empty_figure(4)) is None:
        return NO_PLOTS
    axes = figure.subplots()
    for name, points in series.items():
        axes.plot([at for at, _ in points], [value for _, value in points], marker="o", label=name)
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    if log:
        axes.set_xscale("log", base=2)
        axes.set_yscale("log")
    axes.grid(alpha=0.3)
    axes.legend()
    return _inline(figure)


def budget_bars(values: Mapping[str, tuple[float, float | None]], *, x: str) -> str:
    """A bar for each name, with a mark where its budget lies."""
    if (figure := _empty_figure(0.5 + 0.35 * len(values))) is None:
        return NO_PLOTS
    axes = figure.subplots()
    names = list(values)[::-1]
    axes.barh(names, [values[name][0] for name in names], color="#4a7ab5")
    for at, name in enumerate(names):
        if (most := values[name][1]) is not None:
            axes.plot([most, most], [at - 0.4, at + 0.4], color="#b00020")
    if max(shown := [value for value, _ in values.values()]) > 20 * max(min(shown), 1e-9):
        axes.set_xscale("log")
    axes.set_xlabel(f"{x}; red: the budget")
    return _inline(figure)


def _empty_figure(height: float) -> Any:
    """An empty one; None on a machine without matplotlib, such as one with a card and little else."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return None
    return Figure(figsize=(8, height), layout="constrained")


def _inline(figure: Any) -> str:
    kept = io.BytesIO()
    figure.savefig(kept, format="png", dpi=110)
    return f'<img alt="plot" src="data:image/png;base64,{base64.b64encode(kept.getvalue()).decode()}">'


def _cell(value: Any) -> str:
    said = html.escape(_said(value))
    kind = "n" if isinstance(value, int | float) and not isinstance(value, bool) else said.split(" ")[0]
    return f'<td class="{kind}">{said}</td>'


def _said(value: Any) -> str:
    if value is None or value == "":
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value))
    return str(value)


LEAST = 0.06
"""What is always allowed: a yardstick is not the thing itself."""
BLIND = 0.10
"""With more noise than this, nothing of what is looked for could be seen."""
SIGMAS = 3.5
"""A normal scatter lies beyond so many of its standard errors once in two thousand comparisons."""
MINIMUM_BLOCKS = 4


@dataclass(frozen=True, slots=True)
class Verdict:
    """One figure of two runs."""

    name: str
    change: float
    """How much more it costs now, as a share."""
    noise: float
    """What may be chance."""
    word: str
    """'worse', 'better', 'same', 'too restless to judge', 'not judged', 'new' or 'gone'."""

    @property
    def line(self) -> str:
        """For a person."""
        if self.word in ("new", "gone", "not judged"):
            return f"{self.name}: {self.word}"
        return f"{self.name}: {self.change:+.1%} (noise {self.noise:.1%})  {self.word}"


def judge_runs(before: dict[str, Any], after: dict[str, Any]) -> list[Verdict]:
    """Every figure of either run."""
    same_machine = before["machine"]["processor"] == after["machine"]["processor"]
    old = {row["name"]: row for row in before["rows"]}
    out = []
    for row in after["rows"]:
        if row["name"] not in old:
            out.append(Verdict(row["name"], 0.0, 0.0, "new"))
        else:
            out.append(_verdict_of(old[row["name"]], row, judged=same_machine))
    now = {row["name"] for row in after["rows"]}
    return out + [Verdict(name, 0.0, 0.0, "gone") for name in old if name not in now]


def _verdict_of(old: dict[str, Any], new: dict[str, Any], *, judged: bool) -> Verdict:
    blocks = [np.log(np.array(row["relative"], float)) for row in (old, new)]
    if not judged or min(map(len, blocks)) < MINIMUM_BLOCKS:
        return Verdict(new["name"], 0.0, 0.0, "not judged")
    change = float(np.median(blocks[1]) - np.median(blocks[0]))
    noise = SIGMAS * float(np.sqrt(sum(_error(one) ** 2 for one in blocks)))
    allowed = max(LEAST, noise)
    word = "worse" if change > allowed else "better" if change < -allowed else "same"
    if word == "same" and allowed > BLIND:
        word = "too restless to judge"
    return Verdict(new["name"], float(np.expm1(change)), allowed, word)


def _error(values: np.ndarray) -> float:
    """The standard error of a median, out of the spread of the middle half, which strays do not move."""
    low, high = np.percentile(values, [25, 75])
    return float(1.2533 * (high - low) / 1.349 / np.sqrt(len(values)))


def read_run(path: Path) -> dict[str, Any]:
    """The record of one run, given its file or its folder."""
    file = path / "bench.json" if path.is_dir() else path
    try:
        found: dict[str, Any] = json.loads(file.read_text("utf-8"))
        if found["format"] != 1 or not isinstance(found["rows"], list):
            raise ValueError("it is of another format")
    except (OSError, ValueError, KeyError, TypeError) as err:
        raise InputRefused(f"{file} is no record of 'liveaffect bench': {err}") from err
    return found


Say = Callable[[str], None]
RECORD, PAGE = "bench.json", "bench.html"
BLOCKS = {"quick": (24, 0.1), "full": (60, 0.3)}


def rows_of(what: str, settings: Settings, data: Path | None, say: Say) -> list[Row]:
    """The rows of one kind of run; `data` holds acted voices."""
    from liveaffect.bench.sounds import sound_rows
    from liveaffect.bench.stages import stage_rows
    from liveaffect.bench.whole import FULL, QUICK, response_rows, whole_rows

    rows: list[Row] = []
    if what in BLOCKS:
        blocks, block_s = BLOCKS[what]
        rows += stage_rows(settings, blocks=blocks, block_s=block_s, say=say)
    rows += whole_rows(QUICK if what == "quick" else FULL, settings, say)
    rows += response_rows(settings, say, scenes=1 if what == "quick" else 4)
    if what != "quick":
        rows += sound_rows(settings, data, say)
    if what == "full":
        rows += stream_rows((1, 2, 4, 8, 16), 20.0, settings, say)
    return rows


def stream_rows(cameras: Sequence[int], seconds: float, settings: Settings, say: Say) -> list[Row]:
    """One row for each number of cameras."""
    from liveaffect.bench.cameras import camera_row

    rows = []
    for count in cameras:
        say(f"{count} cameras")
        rows.append(camera_row(count, seconds, settings))
    return rows


def refuse_what_fails_later(out: Path | None, data: Path | None) -> None:
    """Before minutes of measuring: a folder that cannot be written to, voices that are not there."""
    if data is not None:
        from liveaffect.engines.training import corpora_voices

        corpora_voices.find(data)
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=out):
            pass


def report(what: str, rows: Sequence[Row], out: Path | None) -> str:
    """The table for the terminal; with a folder, record and page as well."""
    cells = [_cells(row) for row in rows]
    here = machine()
    vnni = "VNNI" if here["vnni"] else "no VNNI"
    about = f"{here['processor']}, {here['cores']} cores, {vnni}, load {here['load']}"
    if out is not None:
        shown = [row.to_json() for row in rows]
        record = {"format": FORMAT, "what": what, "machine": here, "rows": shown}
        write_record(out / RECORD, record)
        write_page(out / PAGE, f"liveaffect bench {what}", _parts(rows, cells, here))
    wrote = f"\nwrote {out / RECORD} and {out / PAGE}" if out else ""
    return f"{as_text(cells)}\n\n{about}{wrote}"


def _cells(row: Row) -> dict[str, Any]:
    over = row.budget is not None and not row.value <= row.budget
    verdict = "" if row.budget is None else "over" if over else "within"
    notes = [row.note, "" if row.settled else "did not settle"]
    value = row.value if math.isfinite(row.value) else None
    return {
        "what": row.name,
        "value": value,
        "unit": row.unit,
        "budget": row.budget,
        "": verdict,
        "note": "; ".join(filter(None, notes)),
    }


def _parts(rows: Sequence[Row], cells: Cells, here: dict[str, Any]) -> list[tuple[str, str]]:
    parts = [("Figures", as_html(cells))]
    for unit, what in (("ms", "milliseconds"), ("%", "share of a core, %"), ("s", "seconds")):
        one_unit = {
            row.name: (row.value, row.budget) for row in rows if row.unit == unit and math.isfinite(row.value)
        }
        if one_unit:
            parts.append((what.capitalize(), budget_bars(one_unit, x=what)))
    for row in rows:
        if row.figures:
            more = [{"": name, "is": float(value)} for name, value in row.figures.items()]
            parts.append((f"More of: {row.name}", as_html(more)))
    about = [{"": name, "is": str(value)} for name, value in here.items()]
    return [*parts, ("Machine", as_html(about))]
