"""`liveaffect calibrate report`: what other commands measured to make scores mean something, on one page.

The page needs nothing but itself: no script, no font, no link, and no definition that one plot could take
for another's; plots take their colours from the page, so one drawing is right in a light page and in a dark
one. What is missing is a sentence that names the command which makes it, and a table that cannot be read is
named, never left out in silence.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from math import ceil
from pathlib import Path
from typing import Any

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from liveaffect.calibration.int8_tables import CHOSEN, FP32, read_int8
from liveaffect.engines import manifest as manifests
from liveaffect.engines.load import manifest_path
from liveaffect.engines.manifest import write_whole
from liveaffect.engines.protocol import EngineFileError
from liveaffect.realtime.clock import MS
from liveaffect.realtime.device_pairs import load_pairs
from liveaffect.realtime.errors import CalibrationRefused

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


RESULTS = Path("docs") / "results"
CONFIDENCE = "liveaffect calibrate confidence --data DIR --out docs/results/confidence"
INT8 = "liveaffect calibrate int8 --data DIR --out docs/results/int8"
OFFSET = "liveaffect calibrate av"
SIDES = {"calibrate": "calibrate side", "test": "test side", "pooled": "all people"}
KINDS = ("face", "voice")
LONGEST_NAME = 34
STYLE = """
:root{--page:#fbfbf9;--ink:#171716;--soft:#55544f;--grid:#e4e3de;--quiet:#8d8c85;
--first:#2468c2;--second:#c2541d;--card:#ffffff;--warn:#8a5a00}
@media (prefers-color-scheme:dark){:root{--page:#161615;--ink:#f3f2ee;--soft:#b9b8b0;--grid:#2e2e2b;
--quiet:#85847d;--first:#5b9bec;--second:#ec8a52;--card:#1e1e1c;--warn:#e3b04b}}
:root{color-scheme:light dark}
body{margin:0;background:var(--page);color:var(--ink);font:16px/1.5 system-ui,sans-serif}
main{max-width:1020px;margin:0 auto;padding:24px 20px 60px}
h1{font-size:26px;margin:8px 0}h2{font-size:19px;margin:40px 0 4px}
p{max-width:72ch;margin:6px 0 12px;color:var(--soft)}
code{font:13px ui-monospace,monospace;color:var(--ink);overflow-wrap:anywhere}
.figures{display:flex;flex-wrap:wrap;gap:16px}
figure{margin:0;padding:14px;background:var(--card);border:1px solid var(--grid);border-radius:8px;
box-sizing:border-box;max-width:100%}
.figures figure{flex:0 1 340px}
figure.wide{margin:12px 0;width:fit-content}
h3{font-size:15px;font-weight:600;margin:0 0 8px}
figcaption{font-size:13px;color:var(--soft);margin-top:6px}
svg{display:block;max-width:100%;height:auto}
.legend{display:flex;flex-wrap:wrap;gap:4px 20px;margin:8px 0 12px;font-size:14px;color:var(--soft)}
.legend span{display:inline-flex;align-items:center;gap:7px}
.wide-table{overflow-x:auto;margin:12px 0}
table{border-collapse:collapse;font-size:14px;font-variant-numeric:tabular-nums}
th,td{padding:5px 14px 5px 0;text-align:left;border-bottom:1px solid var(--grid);white-space:nowrap}
th{font-weight:600;color:var(--soft)}
.missing{color:var(--warn);border-left:3px solid var(--warn);padding-left:12px}
summary{cursor:pointer;color:var(--soft);margin:12px 0 4px}
"""

Row = dict[str, str]


@dataclass(frozen=True, slots=True)
class ListedNetwork:
    """One network at hand."""

    name: str
    sums: str
    """The first digits of its files."""


@dataclass(frozen=True, slots=True)
class OffsetOfPair:
    """One camera with one microphone."""

    name: str
    offset_ms: float
    how: str


@dataclass(frozen=True, slots=True)
class ReportInputs:
    """What the page is made of."""

    results: Path
    """The folder with the folders `confidence` and `int8`."""
    networks: Sequence[ListedNetwork]
    pairs: Sequence[OffsetOfPair]


def write_report(out: Path, results: Path, weights: Path | None, say: Callable[[str], None]) -> None:
    """Write the page. What is damaged is said and shown as missing."""
    out.parent.mkdir(parents=True, exist_ok=True)
    networks = []
    for kind in manifests.KINDS:
        path = manifest_path(kind, weights)
        if not path.exists():
            continue
        try:
            found = manifests.read(path)
        except EngineFileError as err:
            say(f"left out: {err}")
            continue
        sums = ", ".join(f"{name} {digest[:12]}" for name, digest in found.files.items())
        networks.append(ListedNetwork(found.name, sums))
    try:
        pairs = [
            OffsetOfPair(
                f"{pair.camera} with {pair.microphone}",
                pair.offset_ns / MS,
                f"{pair.method}, confidence {pair.confidence:.2f}",
            )
            for pair in load_pairs()
        ]
    except CalibrationRefused as err:
        say(f"left out: {err}")
        pairs = []
    if not pairs and not (results.is_dir() and any(results.iterdir())):
        raise CalibrationRefused(
            f"there is nothing to report: no tables in {results}, and no offset was measured. Measure first "
            "(liveaffect calibrate confidence, int8, av), or name the folder: --results DIR"
        )
    write_whole(out, report_page(ReportInputs(results, networks, pairs)).encode())
    say(f"written: {out}")


def report_page(sources: ReportInputs) -> str:
    """The whole page."""
    parts = (_reliability, _risk_part, _temperatures, _int8_parts, _offsets, _quality)
    return html_page("Calibration", _networks_told(sources.networks), [part(sources) for part in parts])


def _networks_told(networks: Sequence[ListedNetwork]) -> str:
    if not networks:
        return "<p>No networks were found.</p>"
    told = ", ".join(f"{escape(one.name)} (<code>{escape(one.sums)}</code>)" for one in networks)
    return f"<p>Networks at hand: {told}.</p>"


def _kept_rows(sources: ReportInputs, name: str, *wanted: str) -> list[Row]:
    """A table of confidence. Raises FileNotFoundError, or ValueError for what is no such table."""
    path = sources.results / "confidence" / name
    rows = list(csv.DictReader(io.StringIO(path.read_text("utf-8"))))
    if lacking := [head for head in wanted if not rows or head not in rows[0]]:
        raise ValueError(f"the table {path} has no {', '.join(lacking)}")
    return rows


def _part(title: str, lead: str, make: Callable[[], str], command: str) -> str:
    """A section, or the sentence that stands for what it lacks."""
    try:
        return html_section(title, lead, make())
    except FileNotFoundError:
        return html_section(
            title, lead, sentence_for_missing(f"Nothing was measured yet. This is made by: {command}")
        )
    except (ValueError, UnicodeDecodeError, OSError) as err:
        return html_section(
            title, lead, sentence_for_missing(f"It cannot be shown: {err}. It is made anew by: {command}")
        )


def _answers_of(rows: Sequence[Row]) -> list[str]:
    return list(dict.fromkeys(row["answers"] for row in rows))


def _sides_in(rows: Sequence[Row], answers: str) -> list[str]:
    return list(dict.fromkeys(row["side"] for row in rows if row["answers"] == answers))


def _reliability(sources: ReportInputs) -> str:
    def make() -> str:
        rows = _kept_rows(
            sources, "diagram.csv", "answers", "side", "level", "state", "confidence", "accuracy"
        )
        summary = _kept_rows(
            sources, "summary.csv", "answers", "side", "level", "state", "error", "perfect", "excess"
        )
        parts = []
        for answers in _answers_of(rows):
            for side in _sides_in(rows, answers):
                mine = [r for r in rows if (r["answers"], r["side"], r["level"]) == (answers, side, "cues")]
                states = {
                    state: [
                        (float(r["confidence"]), float(r["accuracy"])) for r in mine if r["state"] == state
                    ]
                    for state in ("before", "after")
                }
                what = f"{answers}, {SIDES.get(side, side)}"
                told = [
                    r for r in summary if (r["answers"], r["side"], r["level"]) == (answers, side, "cues")
                ]
                parts.append(html_figure(what, reliability(what, states), _excess(told)))
        heads = ("answers", "side", "level", "state", "items", "accuracy", "error", "perfect", "excess")
        cells = [[row.get(head, "") for head in heads] for row in summary]
        return (
            html_legend({"before": "before, temperature one", "after": "after"}, ideal="as it should be")
            + f'<div class="figures">{"".join(parts)}</div>'
            + html_details("All figures", html_table(heads, cells))
        )

    lead = (
        "Of all moments at which the overlay says 0.9, nine of ten should be right. Each point stands for a "
        "fifteenth of all cues; nobody on the calibrate side is judged by a temperature fitted on them. Even "
        "a perfect model shows a calibration error, because a bin holds few people; what lies beyond that is "
        "the excess."
    )
    return _part("Is a confidence a frequency?", lead, make, CONFIDENCE)


def _excess(rows: Sequence[Row]) -> str:
    found = {row["state"]: row for row in rows}
    if not {"before", "after"} <= found.keys():
        return ""
    before, after = found["before"], found["after"]
    return (
        f"calibration error {float(before['error']):.3f} before, {float(after['error']):.3f} after; of a "
        f"perfect model {float(after['perfect']):.3f}; excess {float(before['excess']):+.3f} before, "
        f"{float(after['excess']):+.3f} after"
    )


def _risk_part(sources: ReportInputs) -> str:
    def make() -> str:
        rows = _kept_rows(sources, "risk.csv", "answers", "side", "coverage", "risk")
        kept = _kept_rows(
            sources, "promises.csv", "answers", "side", "answered", "promised_risk", "risk_high"
        )
        parts = []
        for answers in _answers_of(rows):
            sides = _sides_in(rows, answers)
            lines = {
                side: [
                    (float(r["coverage"]), float(r["risk"]))
                    for r in rows
                    if (r["answers"], r["side"]) == (answers, side)
                ]
                for side in sides
            }
            mine = [row for row in kept if row["answers"] == answers]
            found = {
                r["side"]: (
                    float(r["answered"]),
                    float(r["risk"]),
                    float(r["risk_low"]),
                    float(r["risk_high"]),
                )
                for r in mine
            }
            told = "; ".join(
                f"{r['side']} side: promised {float(r['promised_risk']):.1%} wrong, "
                f"found {float(r['risk']):.1%} of {float(r['answered']):.0%}"
                for r in mine
            )
            parts.append(html_figure(answers, risk_curve(answers, lines, found), told))
        return html_legend(SIDES) + f'<div class="figures">{"".join(parts)}</div>'

    lead = (
        "Whoever answers only when sure is wrong less often. The dot is what the threshold for the surest "
        "80 % gave, its line the interval that holds in 95 of 100 cases."
    )
    return _part("What does it cost to answer more often?", lead, make, CONFIDENCE)


def _temperatures(sources: ReportInputs) -> str:
    def make() -> str:
        rows = _kept_rows(sources, "summary.csv", "answers", "side", "level", "state", "temperature")
        after = {r["answers"]: float(r["temperature"]) for r in rows if r["state"] == "after"}
        kept = {row["answers"]: row for row in _kept_rows(sources, "promises.csv", "answers", "threshold")}
        drawn = [Bar(name, found, f"{found:.2f}", True, 1.0) for name, found in after.items()]
        cells = [
            [name, f"{found:.3f}", kept[name]["threshold"] if name in kept else "-"]
            for name, found in after.items()
        ]
        return bars("temperatures", drawn) + html_table(("answers", "temperature", "label from"), cells)

    lead = (
        "Scores are divided by the temperature. Above one they were too sure of themselves, below one not "
        "sure enough; the short line is one. Which label wins never changes."
    )
    return _part("Temperatures", lead, make, CONFIDENCE)


def _int8_parts(sources: ReportInputs) -> str:
    lead = (
        "Divergence is how far the answers move from fp32, in nats. Then each layer is quantised alone; one "
        "that does much more harm than its share of the work (the short line) goes back to fp32."
    )
    parts = []
    for kind in KINDS:
        folder = sources.results / "int8"

        command = f"{INT8} --kind {kind}"

        def make(kind: str = kind, folder: Path = folder, command: str = command) -> str:
            shown = _int8_forms(folder, kind) + _int8_layers(folder, kind)
            model = read_int8(folder, kind).model.rpartition(" ")[2]
            if any(model in one.sums for one in sources.networks):
                return shown
            told = f"These are figures of the network {model}, which is not at hand. New ones are made by: "
            return sentence_for_missing(told + command) + shown

        parts.append(_part(f"INT8, {kind}", lead if kind == KINDS[0] else "", make, command))
    return "".join(parts)


def _offsets(sources: ReportInputs) -> str:
    def make() -> str:
        if not sources.pairs:
            raise FileNotFoundError
        drawn = bars(
            "offsets", [Bar(p.name, p.offset_ms, f"{p.offset_ms:+.0f} ms", True) for p in sources.pairs]
        )
        return drawn + html_table(
            ("devices", "offset", "how"), [[p.name, f"{p.offset_ms:+.0f} ms", p.how] for p in sources.pairs]
        )

    lead = (
        "How much later a sound is stamped than its picture was, on this machine, for each pair of devices."
    )
    return _part("Sound and picture", lead, make, OFFSET)


def _quality(sources: ReportInputs) -> str:
    def make() -> str:
        rows = _kept_rows(
            sources, "quality_curves.csv", "evidence", "spoilt_by", "level", "quality", "weight"
        )
        parts = []
        for evidence, spoilt in dict.fromkeys((row["evidence"], row["spoilt_by"]) for row in rows):
            mine = [row for row in rows if (row["evidence"], row["spoilt_by"]) == (evidence, spoilt)]
            lines = {name: [float(row[name]) for row in mine] for name in ("quality", "weight")}
            levels = [f"{float(row['level']):g}" for row in mine]
            what = f"{evidence}: {spoilt}"
            parts.append(html_figure(what, quality_curves(what, levels, lines, spoilt)))
        names = {"weight": "weight in the joint answer", "quality": "quality"}
        return html_legend(names) + f'<div class="figures">{"".join(parts)}</div>'

    lead = "The worse the evidence, the less it weighs beside good evidence of the other sort."
    return _part("Bad evidence weighs less", lead, make, CONFIDENCE)


def _int8_forms(folder: Path, kind: str) -> str:
    """Every method and what was chosen in the end, as bars and as a table."""
    found = read_int8(folder, kind)
    shares = [
        Bar(form, verdict.divergence, f"{verdict.divergence:.5f}", form == CHOSEN)
        for form, verdict in found.forms.items()
        if form != FP32
    ]
    cells = [
        [
            f"{form} (taken)" if form == found.method else form,
            f"{verdict.accuracy:.4f}",
            f"{100 * (found.forms[FP32].accuracy - verdict.accuracy):+.2f}",
            f"{verdict.flips:.2%}",
            f"{verdict.log_loss:.4f}",
            f"{verdict.calibration_error:.4f}",
        ]
        for form, verdict in found.forms.items()
    ]
    heads = ("form", "accuracy", "points lost", "called otherwise", "log loss", "calibration error")
    back = [layer.name for layer in found.layers if layer.excluded]
    told = f"{found.model}, {found.items} items; '{CHOSEN}' is {found.method} with " + (
        f"{', '.join(map(short_layer, back))} back in fp32" if back else "every layer in INT8"
    )
    what = f"divergence of the {kind} network"
    return html_figure("divergence from fp32, nats", bars(what, shares), told, wide=True) + html_table(
        heads, cells
    )


def _int8_layers(folder: Path, kind: str) -> str:
    """What each layer does alone, against its work."""
    layers = read_int8(folder, kind).layers
    drawn_bars = []
    for layer in layers:
        harm = layer.harm(layers)
        told = f"{harm:.0%}" + (", back to fp32" if layer.excluded else "")
        drawn_bars.append(Bar(short_layer(layer.name), harm, told, layer.excluded, layer.work))
    drawn = bars(f"harm of the layers of the {kind} network", drawn_bars)
    return html_figure(
        "share of the harm, each layer quantised alone", drawn, "short line: share of the work", wide=True
    )


def short_layer(name: str) -> str:
    """Where a layer is, without its operator and without what its path says twice."""
    parts = [part for part in name.split("/") if part and part != "folded"]
    parts = parts[:-1] or parts
    kept = [
        part
        for part, after in zip(parts, [*parts[1:], ""], strict=True)
        if after != part and not after.startswith(part + ".")
    ]
    text = "/".join(kept)
    return text if len(text) <= LONGEST_NAME else "..." + text[-LONGEST_NAME + 3 :]


def html_page(title: str, lead: str, sections: Sequence[str]) -> str:
    """The whole document."""
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<link rel="icon" href="data:,">'
        f"<title>{escape(title)}</title><style>{STYLE}</style></head>\n"
        f"<body><main><h1>{escape(title)}</h1>{lead}\n" + "\n".join(sections) + "\n</main></body></html>\n"
    )


def html_section(title: str, lead: str, body: str) -> str:
    """One heading with what it is about."""
    told = f"<p>{escape(lead)}</p>" if lead else ""
    return f"<section><h2>{escape(title)}</h2>{told}{body}</section>"


def sentence_for_missing(text: str) -> str:
    """What stands where there is nothing to show."""
    return f'<p class="missing">{escape(text)}</p>'


def html_figure(title: str, picture: str, told: str = "", *, wide: bool = False) -> str:
    """A plot with its title and what it says."""
    caption = f"<figcaption>{escape(told)}</figcaption>" if told else ""
    look = ' class="wide"' if wide else ""
    return f"<figure{look}><h3>{escape(title)}</h3>{picture}{caption}</figure>"


def html_legend(names: Mapping[str, str], ideal: str = "") -> str:
    """Which line is what."""
    colours = {look: COLOURS[LOOKS[look]] for look in names}
    parts = [
        f'<span style="color:var(--{colours[look]})">&#9679; {escape(t)}</span>' for look, t in names.items()
    ]
    return f'<p class="legend">{"".join(parts)}{f"<span>- - {escape(ideal)}</span>" if ideal else ""}</p>'


def html_table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Figures for whoever wants them exactly."""
    first = "".join(f"<th>{escape(head)}</th>" for head in heads)
    rest = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return (
        f'<div class="wide-table"><table><thead><tr>{first}</tr></thead><tbody>{rest}</tbody></table></div>'
    )


def html_details(title: str, body: str) -> str:
    """Something that is folded away."""
    return f"<details><summary>{escape(title)}</summary>{body}</details>"
