"""Everything that was measured to make scores mean something, on one page that needs nothing but itself.

It only shows what other commands measured and kept. What is missing is a sentence that names the command
which makes it, and a table that cannot be read is named, never left out in silence.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

from liveaffect.calibration import plots
from liveaffect.calibration.int8_section import forms, sensitive
from liveaffect.calibration.int8_tables import read
from liveaffect.calibration.page import details, figure, legend, missing, page, section, table
from liveaffect.calibration.plots import Bar

CONFIDENCE = "liveaffect calibrate confidence --data DIR --out docs/results/confidence"
INT8 = "liveaffect calibrate int8 --data DIR --out docs/results/int8"
OFFSET = "liveaffect calibrate av"
SIDES = {"calibrate": "calibrate side", "test": "test side"}
KINDS = ("face", "voice")

Row = dict[str, str]


@dataclass(frozen=True, slots=True)
class Network:
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
class Sources:
    """What the page is made of."""

    results: Path
    """The folder with the folders `confidence` and `int8`."""
    networks: Sequence[Network]
    pairs: Sequence[OffsetOfPair]


def html(sources: Sources) -> str:
    """The whole page."""
    parts = (_reliability, _risk, _temperatures, _int8, _offsets, _quality)
    return page("Calibration", _networks(sources.networks), [part(sources) for part in parts])


def _networks(networks: Sequence[Network]) -> str:
    if not networks:
        return "<p>No networks were found.</p>"
    told = ", ".join(f"{escape(one.name)} (<code>{escape(one.sums)}</code>)" for one in networks)
    return f"<p>Networks at hand: {told}.</p>"


def _rows(sources: Sources, name: str, *wanted: str) -> list[Row]:
    """A table of confidence. Raises FileNotFoundError, or ValueError for what is no such table."""
    path = sources.results / "confidence" / name
    rows = list(csv.DictReader(io.StringIO(path.read_text("utf-8"))))
    if lacking := [head for head in wanted if not rows or head not in rows[0]]:
        raise ValueError(f"the table {path} has no {', '.join(lacking)}")
    return rows


def _shown(title: str, lead: str, make: Callable[[], str], command: str) -> str:
    """A section, or the sentence that stands for what it lacks."""
    try:
        return section(title, lead, make())
    except FileNotFoundError:
        return section(title, lead, missing(f"Nothing was measured yet. This is made by: {command}"))
    except (ValueError, UnicodeDecodeError, OSError) as err:
        return section(title, lead, missing(f"It cannot be shown: {err}. It is made anew by: {command}"))


def _names(rows: Sequence[Row]) -> list[str]:
    return list(dict.fromkeys(row["answers"] for row in rows))


def _sides(rows: Sequence[Row], answers: str) -> list[str]:
    return list(dict.fromkeys(row["side"] for row in rows if row["answers"] == answers))


def _reliability(sources: Sources) -> str:
    def make() -> str:
        rows = _rows(sources, "diagram.csv", "answers", "side", "level", "state", "confidence", "accuracy")
        summary = _rows(
            sources, "summary.csv", "answers", "side", "level", "state", "error", "perfect", "excess"
        )
        parts = []
        for answers in _names(rows):
            for side in _sides(rows, answers):
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
                parts.append(figure(what, plots.reliability(what, states), _excess(told)))
        heads = ("answers", "side", "level", "state", "items", "accuracy", "error", "perfect", "excess")
        cells = [[row.get(head, "") for head in heads] for row in summary]
        return (
            legend({"before": "before, temperature one", "after": "after"}, ideal="as it should be")
            + f'<div class="figures">{"".join(parts)}</div>'
            + details("All figures", table(heads, cells))
        )

    lead = (
        "Of all moments at which the overlay says 0.9, nine of ten should be right. Each point stands for a "
        "fifteenth of all cues; nobody on the calibrate side is judged by a temperature fitted on them. Even "
        "a perfect model shows a calibration error, because a bin holds few people; what lies beyond that is "
        "the excess."
    )
    return _shown("Is a confidence a frequency?", lead, make, CONFIDENCE)


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


def _risk(sources: Sources) -> str:
    def make() -> str:
        rows = _rows(sources, "risk.csv", "answers", "side", "coverage", "risk")
        kept = _rows(sources, "promises.csv", "answers", "side", "answered", "promised_risk", "risk_high")
        parts = []
        for answers in _names(rows):
            sides = _sides(rows, answers)
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
            parts.append(figure(answers, plots.risk_against_coverage(answers, lines, found), told))
        return legend(SIDES) + f'<div class="figures">{"".join(parts)}</div>'

    lead = (
        "Whoever answers only when sure is wrong less often. The dot is what the threshold for the surest "
        "80 % gave, its line the interval that holds in 95 of 100 cases."
    )
    return _shown("What does it cost to answer more often?", lead, make, CONFIDENCE)


def _temperatures(sources: Sources) -> str:
    def make() -> str:
        rows = _rows(sources, "summary.csv", "answers", "side", "level", "state", "temperature")
        after = {r["answers"]: float(r["temperature"]) for r in rows if r["state"] == "after"}
        kept = {row["answers"]: row for row in _rows(sources, "promises.csv", "answers", "threshold")}
        drawn = [Bar(name, found, f"{found:.2f}", True, 1.0) for name, found in after.items()]
        cells = [
            [name, f"{found:.3f}", kept[name]["threshold"] if name in kept else "-"]
            for name, found in after.items()
        ]
        return plots.bars("temperatures", drawn) + table(("answers", "temperature", "label from"), cells)

    lead = (
        "Scores are divided by the temperature. Above one they were too sure of themselves, below one not "
        "sure enough; the short line is one. Which label wins never changes."
    )
    return _shown("Temperatures", lead, make, CONFIDENCE)


def _int8(sources: Sources) -> str:
    lead = (
        "Divergence is how far the answers move from fp32, in nats. Then each layer is quantised alone; one "
        "that does much more harm than its share of the work (the short line) goes back to fp32."
    )
    parts = []
    for kind in KINDS:
        folder = sources.results / "int8"

        command = f"{INT8} --kind {kind}"

        def make(kind: str = kind, folder: Path = folder, command: str = command) -> str:
            shown = forms(folder, kind) + sensitive(folder, kind)
            model = read(folder, kind).model.rpartition(" ")[2]
            if any(model in one.sums for one in sources.networks):
                return shown
            told = f"These are figures of the network {model}, which is not at hand. New ones are made by: "
            return missing(told + command) + shown

        parts.append(_shown(f"INT8, {kind}", lead if kind == KINDS[0] else "", make, command))
    return "".join(parts)


def _offsets(sources: Sources) -> str:
    def make() -> str:
        if not sources.pairs:
            raise FileNotFoundError
        drawn = plots.offsets("offsets", [(one.name, one.offset_ms) for one in sources.pairs])
        return drawn + table(
            ("devices", "offset", "how"), [[p.name, f"{p.offset_ms:+.0f} ms", p.how] for p in sources.pairs]
        )

    lead = (
        "How much later a sound is stamped than its picture was, on this machine, for each pair of devices."
    )
    return _shown("Sound and picture", lead, make, OFFSET)


def _quality(sources: Sources) -> str:
    def make() -> str:
        rows = _rows(sources, "quality_curves.csv", "evidence", "spoilt_by", "level", "quality", "weight")
        parts = []
        for evidence, spoilt in dict.fromkeys((row["evidence"], row["spoilt_by"]) for row in rows):
            mine = [row for row in rows if (row["evidence"], row["spoilt_by"]) == (evidence, spoilt)]
            lines = {name: [float(row[name]) for row in mine] for name in ("quality", "weight")}
            levels = [f"{float(row['level']):g}" for row in mine]
            what = f"{evidence}: {spoilt}"
            parts.append(figure(what, plots.curves(what, levels, lines, spoilt)))
        names = {"weight": "weight in the joint answer", "quality": "quality"}
        return legend(names) + f'<div class="figures">{"".join(parts)}</div>'

    lead = "The worse the evidence, the less it weighs beside good evidence of the other sort."
    return _shown("Bad evidence weighs less", lead, make, CONFIDENCE)
