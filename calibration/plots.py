"""Plots as SVG text for a page: drawn by matplotlib, in colours that the page around them defines.

So one drawing is right in a light page and in a dark one. Nothing in it points outside of itself: no font, no
link, and no definition that another drawing of the same page could take for its own.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from math import ceil
from typing import Any

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

Point = tuple[float, float]
COLOURS = {
    "#171716": "ink",
    "#55544f": "soft",
    "#e4e3de": "grid",
    "#8d8c85": "quiet",
    "#2468c2": "first",
    "#c2541d": "second",
}
"""What is drawn, and the colour of the page in its place."""
INK, SOFT, GRID, QUIET, FIRST, SECOND = COLOURS
LOOKS = {
    **dict.fromkeys(("before", "quality", "pooled"), QUIET),
    **dict.fromkeys(("after", "calibrate", "weight"), FIRST),
    "test": SECOND,
}
"""The colour of every line by its name."""
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.size": 9,
    "text.color": INK,
    "axes.labelcolor": SOFT,
    "axes.edgecolor": SOFT,
    "xtick.color": SOFT,
    "ytick.color": SOFT,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.color": GRID,
}
_PX = 1 / 72


@dataclass(frozen=True, slots=True)
class Bar:
    """One row of a bar chart."""

    name: str
    value: float
    told: str
    """The figure in words."""
    stands_out: bool = False
    mark: float | None = None
    """Something to compare with, drawn as a short line."""


def svg_of(what: str, size: Point, paint: Callable[[Axes], None]) -> str:
    """A picture of so many points that says what it shows."""
    buffer = io.StringIO()
    with rc_context({**_STYLE, "svg.hashsalt": what}):
        figure = Figure(figsize=(size[0] * _PX, size[1] * _PX), layout="constrained")
        axes = figure.subplots()
        paint(axes)
        for artist in axes.findobj():
            artist.set_clip_on(False)
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    text = re.sub(r"<metadata>.*?</metadata>", "", buffer.getvalue(), flags=re.S)
    text = re.sub(r' (version|xmlns(:\w+)?)="[^"]*"', "", text[text.index("<svg") :])
    for colour, name in COLOURS.items():
        text = text.replace(colour, f"var(--{name})")
    begin = f'<svg role="img"><title>{escape(what)}</title>'.partition(">")
    return text.replace("xlink:href", "href").replace("<svg", begin[0], 1).replace(">", f">{begin[2]}", 1)


def reliability(what: str, states: Mapping[str, Sequence[Point]]) -> str:
    """Confidence against share of right answers; `states` are before and after, of (confidence, accuracy)."""

    def paint(axes: Axes) -> None:
        axes.plot((0, 1), (0, 1), "--", color=QUIET, lw=1)
        for state, points in states.items():
            axes.plot(*zip(*points, strict=True), "o-", color=LOOKS[state], ms=4, lw=1.5)
        axes.set(xlim=(0, 1), ylim=(0, 1), xlabel="confidence", ylabel="right")
        axes.grid(axis="y")

    return svg_of(what, (240, 230), paint)


def risk_curve(
    what: str, lines: Mapping[str, Sequence[Point]], promised: Mapping[str, tuple[float, float, float, float]]
) -> str:
    """Share of answers given against the share of those that is wrong.

    `promised` is per line the share answered, and what was found wrong of it with the interval's ends.
    """
    highest = [y for points in lines.values() for _, y in points] + [one[3] for one in promised.values()]

    def paint(axes: Axes) -> None:
        for name, points in lines.items():
            axes.plot(*zip(*points, strict=True), color=LOOKS[name], lw=1.5)
        for name, (answered, found, low, high) in promised.items():
            axes.plot((answered, answered), (low, high), color=LOOKS[name], lw=1.5)
            axes.plot((answered,), (found,), "o", color=LOOKS[name], ms=6)
        axes.set(xlim=(0, 1), ylim=(0, ceil(max([*highest, 0.05]) * 20) / 20))
        axes.set(xlabel="answered", ylabel="of those wrong")
        axes.xaxis.set_major_formatter(lambda share, _: f"{share:.0%}")
        axes.yaxis.set_major_formatter(lambda share, _: f"{share:.0%}")
        axes.grid(axis="y")

    return svg_of(what, (240, 230), paint)


def bars(what: str, rows: Sequence[Bar]) -> str:
    """Horizontal bars with their figures behind them; those below zero go to the left."""

    def paint(axes: Axes) -> None:
        for place, row in enumerate(rows):
            axes.barh(place, row.value, 0.55, color=FIRST if row.stands_out else QUIET)
            if row.mark is not None:
                axes.plot((row.mark, row.mark), (place - 0.4, place + 0.4), color=INK, lw=2)
            end = max(row.value, row.mark or 0.0)
            axes.annotate(row.told, (end, place), (6, 0), textcoords="offset points", va="center")
        axes.set_yticks(range(len(rows)), [row.name for row in rows], color=INK)
        axes.invert_yaxis()
        axes.xaxis.set_visible(False)
        axes.spines["bottom"].set_visible(False)

    return svg_of(what, (520, 20 * len(rows) + 20), paint)


def quality_curves(what: str, levels: Sequence[str], lines: Mapping[str, Sequence[float]], x: str) -> str:
    """Lines over levels at equal distances, from good to bad."""

    def paint(axes: Axes) -> None:
        for name, values in lines.items():
            axes.plot(range(len(values)), values, "o-", color=LOOKS[name], ms=3, lw=1.5)
        axes.set_xticks(range(len(levels)), levels)
        axes.set(ylim=(0, 1), xlabel=x)
        axes.grid(axis="y")

    return svg_of(what, (240, 170), paint)
