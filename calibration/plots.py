"""Plots as SVG text, drawn by hand: no library, no script, and colours that the page around them defines.

Names of lines are classes: `before`, `other` and `quality` are quiet; `after`, `calibrate`, `test` and
`weight` are not. Every mark has a title that a pointer shows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from math import ceil

Point = tuple[float, float]
SIDE = 250
LEFT, RIGHT, TOP, BOTTOM = 58, 18, 12, 40
ROW = 24
NAMES, FIGURES = 150, 140
"""FreeSpace beside horizontal bars for their names and for their figures."""


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


@dataclass(frozen=True, slots=True)
class Axes:
    """From values to places in the picture."""

    x: Point
    y: Point
    width: int = SIDE
    height: int = SIDE

    def at(self, point: Point) -> Point:
        """Where a point lies, in pixels."""
        across = (point[0] - self.x[0]) / (self.x[1] - self.x[0])
        up = (point[1] - self.y[0]) / (self.y[1] - self.y[0])
        return LEFT + across * self.width, TOP + (1 - up) * self.height

    def frame(self, x_ticks: Mapping[float, str], y_ticks: Mapping[float, str], x: str, y: str) -> str:
        """Grid, ticks and the names of the axes."""
        bottom, middle = TOP + self.height, LEFT + self.width / 2
        parts = []
        for value, text in y_ticks.items():
            _, at = self.at((self.x[0], value))
            parts.append(
                f'<line class="grid" x1="{LEFT}" y1="{at:.1f}" x2="{LEFT + self.width}" y2="{at:.1f}"/>'
            )
            parts.append(
                f'<text class="tick" x="{LEFT - 6}" y="{at + 4:.1f}" text-anchor="end">{escape(text)}</text>'
            )
        for value, text in x_ticks.items():
            at, _ = self.at((value, self.y[0]))
            parts.append(f'<line class="axis" x1="{at:.1f}" y1="{bottom}" x2="{at:.1f}" y2="{bottom + 4}"/>')
            place = f'x="{at:.1f}" y="{bottom + 16}" text-anchor="middle"'
            parts.append(f'<text class="tick" {place}>{escape(text)}</text>')
        parts.append(f'<line class="axis" x1="{LEFT}" y1="{bottom}" x2="{LEFT + self.width}" y2="{bottom}"/>')
        parts.append(
            f'<text class="name" x="{middle}" y="{bottom + 34}" text-anchor="middle">{escape(x)}</text>'
        )
        turn = f"rotate(-90 11 {TOP + self.height / 2})"
        parts.append(
            f'<text class="name" x="11" y="{TOP + self.height / 2}" text-anchor="middle" '
            f'transform="{turn}">{escape(y)}</text>'
        )
        return "".join(parts)

    def picture(self, what: str, body: str) -> str:
        """The whole SVG."""
        return svg(LEFT + self.width + RIGHT, TOP + self.height + BOTTOM, what, body)


def svg(width: float, height: float, what: str, body: str) -> str:
    """A picture that says what it shows."""
    return (
        f'<svg role="img" viewBox="0 0 {width:g} {height:g}" width="{width:g}" height="{height:g}">'
        f"<title>{escape(what)}</title>{body}</svg>"
    )


def reliability(what: str, states: Mapping[str, Sequence[Point]]) -> str:
    """Confidence against share of right answers; `states` are before and after, of (confidence, accuracy)."""
    axes = Axes((0, 1), (0, 1))
    ticks = {share / 5: f"{share / 5:.1f}" for share in range(6)}
    (x1, y1), (x2, y2) = axes.at((0, 0)), axes.at((1, 1))
    body = axes.frame(ticks, ticks, "confidence", "right")
    body += f'<line class="ideal" x1="{x1}" y1="{y1}" x2="{x2}" y2="{y2}"/>'
    for state, points in states.items():
        body += _line(axes, points, state)
        body += _dots(axes, points, state, f"{state}: says {{0:.2f}}, right {{1:.2f}}")
    return axes.picture(what, body)


def risk_against_coverage(
    what: str, lines: Mapping[str, Sequence[Point]], promised: Mapping[str, tuple[float, float, float, float]]
) -> str:
    """Share of answers given against the share of those that is wrong.

    `promised` is per line the share answered, and what was found wrong of it with the interval's ends.
    """
    top = max(
        [y for points in lines.values() for _, y in points] + [p[3] for p in promised.values()] + [0.05]
    )
    top = ceil(top * 20) / 20
    axes = Axes((0, 1), (0, top))
    step = 0.05 if top <= 0.25 else 0.1
    body = axes.frame(
        {share / 5: f"{20 * share} %" for share in range(6)},
        {k * step: f"{100 * k * step:.0f} %" for k in range(round(top / step) + 1)},
        "answered",
        "of those wrong",
    )
    for name, points in lines.items():
        body += _line(axes, points, name)
        if name in promised:
            answered, found, low, high = promised[name]
            (x, y1), (_, y2), (_, y) = (
                axes.at((answered, low)),
                axes.at((answered, high)),
                axes.at((0, found)),
            )
            body += f'<line class="span {name}" x1="{x:.1f}" y1="{y1:.1f}" x2="{x:.1f}" y2="{y2:.1f}"/>'
            told = f"{name}: {answered:.0%} answered, {found:.1%} wrong ({low:.1%} to {high:.1%})"
            body += f'<circle class="{name}" cx="{x:.1f}" cy="{y:.1f}" r="5"><title>{told}</title></circle>'
    return axes.picture(what, body)


def bars(what: str, rows: Sequence[Bar], *, names: int = NAMES, length: int = 220) -> str:
    """Horizontal bars with their figures behind them."""
    most = max([row.value for row in rows] + [row.mark or 0.0 for row in rows]) or 1.0
    body = ""
    for number, row in enumerate(rows):
        y, long = number * ROW, max(row.value / most * length, 1.0)
        look = "after" if row.stands_out else "other"
        body += (
            f'<text class="label" x="{names - 8}" y="{y + 16}" text-anchor="end">{escape(row.name)}</text>'
        )
        body += (
            f'<path class="bar {look}" d="M{names} {y + 4}h{max(long - 3, 0):.1f}q3 0 3 3v10q0 3 -3 3'
            f'h{-max(long - 3, 0):.1f}z"><title>{escape(row.name)}: {escape(row.told)}</title></path>'
        )
        end = names + long
        if row.mark is not None:
            at = names + row.mark / most * length
            body += f'<line class="mark" x1="{at:.1f}" y1="{y + 2}" x2="{at:.1f}" y2="{y + 22}"/>'
            end = max(end, at)
        body += f'<text class="figure" x="{end + 8:.1f}" y="{y + 16}">{escape(row.told)}</text>'
    body += f'<line class="axis" x1="{names}" y1="0" x2="{names}" y2="{len(rows) * ROW}"/>'
    return svg(names + length + FIGURES, len(rows) * ROW, what, body)


def curves(what: str, levels: Sequence[str], lines: Mapping[str, Sequence[float]], x: str) -> str:
    """Lines over levels at equal distances, from good to bad."""
    axes = Axes((0, max(len(levels) - 1, 1)), (0, 1), width=210, height=130)
    ticks = {float(place): level for place, level in enumerate(levels)}
    body = axes.frame(ticks, {0.0: "0", 0.5: "0.5", 1.0: "1"}, x, "")
    for name, values in lines.items():
        points = [(float(place), value) for place, value in enumerate(values)]
        body += _line(axes, points, name)
        body += _dots(axes, points, name, f"{name} {{1:.2f}}", size=3)
    return axes.picture(what, body)


def offsets(what: str, pairs: Sequence[tuple[str, float]]) -> str:
    """How many milliseconds each sound lies behind its picture."""
    reach = max(100.0, ceil(max(abs(ms) for _, ms in pairs) / 100) * 100)
    names, length = 260, 320
    middle = names + length / 2
    body = ""
    for number, (name, ms) in enumerate(pairs):
        y, at = number * ROW + 12, middle + ms / reach * length / 2
        body += f'<text class="label" x="{names - 12}" y="{y + 4}" text-anchor="end">{escape(name)}</text>'
        body += f'<line class="span after" x1="{middle}" y1="{y}" x2="{at:.1f}" y2="{y}"/>'
        body += f'<circle class="after" cx="{at:.1f}" cy="{y}" r="5"><title>{_ms(ms)}</title></circle>'
        body += f'<text class="figure" x="{names + length + 12}" y="{y + 4}">{_ms(ms)}</text>'
    bottom = len(pairs) * ROW
    body += f'<line class="axis" x1="{middle}" y1="0" x2="{middle}" y2="{bottom}"/>'
    for ms in (-reach, 0, reach):
        at = middle + ms / reach * length / 2
        body += f'<text class="tick" x="{at}" y="{bottom + 16}" text-anchor="middle">{_ms(ms)}</text>'
    return svg(names + length + 80, bottom + 22, what, body)


def _ms(value: float) -> str:
    return f"{value:+.0f} ms" if round(value) else "0 ms"


def _line(axes: Axes, points: Sequence[Point], look: str) -> str:
    if len(points) < 2:
        return ""
    places = " ".join(f"{x:.1f},{y:.1f}" for x, y in map(axes.at, points))
    return f'<polyline class="line {look}" points="{places}"/>'


def _dots(axes: Axes, points: Sequence[Point], look: str, told: str, size: float = 4) -> str:
    return "".join(
        f'<circle class="{look}" cx="{x:.1f}" cy="{y:.1f}" r="{size:g}">'
        f"<title>{escape(told.format(*point))}</title></circle>"
        for point, (x, y) in zip(points, map(axes.at, points), strict=True)
    )
