"""A run as a table for the terminal, and as one self-contained page with a table and plots."""

from __future__ import annotations

import base64
import html
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from liveaffect.engines.manifest import write_whole

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
