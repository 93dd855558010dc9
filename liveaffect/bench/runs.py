"""What `bench quick`, `full`, `latency` and `streams` measure, and how a run is shown and kept."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from liveaffect.bench import page
from liveaffect.bench.measure import FORMAT, Row, machine
from liveaffect.settings import Settings

Say = Callable[[str], None]
RECORD, PAGE = "bench.json", "bench.html"
BLOCKS = {"quick": (24, 0.1), "full": (60, 0.3)}


def rows_of(what: str, settings: Settings, say: Say) -> list[Row]:
    """The rows of one kind of run."""
    from liveaffect.bench.stages import stage_rows
    from liveaffect.bench.whole import FULL, QUICK, response_rows, whole_rows

    rows: list[Row] = []
    if what in BLOCKS:
        blocks, block_s = BLOCKS[what]
        rows += stage_rows(settings, blocks=blocks, block_s=block_s, say=say)
    rows += whole_rows(QUICK if what == "quick" else FULL, settings, say)
    rows += response_rows(settings, say, scenes=1 if what == "quick" else 4)
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


def report(what: str, rows: Sequence[Row], out: Path | None) -> str:
    """The table for the terminal; with a folder, record and page as well."""
    cells = [_cells(row) for row in rows]
    here = machine()
    vnni = "VNNI" if here["vnni"] else "no VNNI"
    about = f"{here['processor']}, {here['cores']} cores, {vnni}, load {here['load']}"
    if out is not None:
        shown = [row.to_json() for row in rows]
        record = {"format": FORMAT, "what": what, "machine": here, "rows": shown}
        page.write_record(out / RECORD, record)
        page.write_page(out / PAGE, f"liveaffect bench {what}", _parts(rows, cells, here))
    wrote = f"\nwrote {out / RECORD} and {out / PAGE}" if out else ""
    return f"{page.as_text(cells)}\n\n{about}{wrote}"


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


def _parts(rows: Sequence[Row], cells: page.Cells, here: dict[str, Any]) -> list[tuple[str, str]]:
    parts = [("Figures", page.as_html(cells))]
    for unit, what in (("ms", "milliseconds"), ("%", "share of a core, %"), ("s", "seconds")):
        one_unit = {
            row.name: (row.value, row.budget) for row in rows if row.unit == unit and math.isfinite(row.value)
        }
        if one_unit:
            parts.append((what.capitalize(), page.budget_bars(one_unit, x=what)))
    for row in rows:
        if row.figures:
            more = [{"": name, "is": float(value)} for name, value in row.figures.items()]
            parts.append((f"More of: {row.name}", page.as_html(more)))
    about = [{"": name, "is": str(value)} for name, value in here.items()]
    return [*parts, ("Machine", page.as_html(about))]
