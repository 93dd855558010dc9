"""From the record of a run to a page for a person: verdicts first, then tables, then how to read them.

A figure that did not settle is marked, a part that did not run says why, and a refusal is quoted as it came.
Nothing is rounded away: the record beside the page holds everything.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from gpu.chart import Panel, draw, png

DRY_TITLE = "DRY RUN: no GPU was used and no figure here says anything about one"
BUDGETS = (
    ("face network, batch 1, whole, p50", "p50", 0.10),
    ("face network, batch 1, whole, p99", "p99", 0.15),
    ("tick of 64 faces and one piece of sound, p50", "tick", 1.0),
)
"""Of the design: fp16 with a CUDA graph."""
BLANK = "dry"
_SHARES = ("p50", "p90", "p99", "p99.9")

Record = dict[str, Any]

HOW_TO_READ = """\
## How to read this

* **whole** starts with arrays on the host and ends with answers on the host: copy into pinned memory, copy
  in, network, copy out, the wait. **alone** is the network on data that lies on the card, by the wall clock;
  **events** is the same by the card's clock. **items/s** comes from 16 calls in flight.
* A percentile is over single calls of the last three windows; it is left out when fewer than five calls lie
  beyond it. *not settled* means that three windows in a row never agreed.
* A **tick** is what a live run does at once: all faces and a piece of sound are handed in, then both answers
  are taken. Not counted: capture, finding and cutting out faces, pooling, fusion, drawing.
* A **stream** brings one face 30 times a second and its sound. Its age is from arrival to answer; streams
  are out of step, and who arrives while the card works waits for the next turn.
* **first ever** begins with nothing kept: plan built, kernels compiled. **first cached** is the next process.
* What a label costs before and after the card is more than the network: smoothing with a time constant of
  150 ms delays it by about 105 ms, and a face is judged by its last two seconds, a voice by four. These
  belong to every statement about delay.
"""


def cells_of(record: Record, part: str) -> Iterator[Record]:
    """All cells of all parts whose name begins like this."""
    for name, found in record["parts"].items():
        if name.startswith(part):
            yield from found.get("data", {}).get("cells", [])


def verdicts(record: Record) -> list[Record]:
    """Each budget with its figure: PASS, FAIL, or why it was not judged."""
    path, out = record.get("measured_path"), []
    faces = [
        cell
        for cell in cells_of(record, "latency face-live")
        if (cell["precision"], cell["path"], cell["batch"]) == ("fp16", path, 1) and "whole" in cell
    ]
    ticks = [
        cell
        for cell in cells_of(record, "tick")
        if (cell["precision"], cell["path"], cell["faces"]) == ("fp16", path, 64)
    ]
    for what, share, limit_ms in BUDGETS:
        found = (ticks if share == "tick" else faces)[:1]
        judged = "p50" if share == "tick" else share
        figure = found[0]["whole"].get(judged) if found and not record["dry_run"] else None
        entry: Record = {"what": what, "limit_ms": limit_ms, "figure_ms": figure, "path": path}
        if figure is None:
            entry["verdict"] = "not judged: " + ("a dry run" if record["dry_run"] else "not measured")
        else:
            entry["verdict"] = "PASS" if figure <= limit_ms else "FAIL"
            entry["settled"] = found[0]["settled"]
            entry["alone_events_p50_ms"] = found[0].get("events", {}).get("p50")
        out.append(entry)
    return out


def blanked(data: Any) -> Any:
    """The same without a single time: those of a dry run say nothing, so nobody shall read them."""
    if isinstance(data, dict):
        return {name: blanked(one) for name, one in data.items()}
    if isinstance(data, list):
        return [blanked(one) for one in data]
    return BLANK if isinstance(data, float) else data


def markdown(record: Record) -> str:
    """The whole page."""
    lines = [f"# {DRY_TITLE if record['dry_run'] else 'Latency on ' + record['gpu']['name']}", ""]
    lines += _machine(record)
    lines += ["", "## Budgets", "", "| what | budget | measured | verdict |", "| --- | --: | --: | --- |"]
    for one in record["budgets"]:
        figure = "" if one["figure_ms"] is None else f"{one['figure_ms']:g} ms"
        settled = "" if one.get("settled", True) else ", not settled"
        lines.append(f"| {one['what']} | {one['limit_ms']:g} ms | {figure} | **{one['verdict']}**{settled} |")
    lines += ["", f"fp16, path: {record.get('measured_path') or 'none could be measured'}."]
    for name, part in record["parts"].items():
        lines += ["", f"## {name}", "", *part_lines(part)]
    return "\n".join([*lines, "", HOW_TO_READ])


def _machine(record: Record) -> list[str]:
    gpu, machine = record["gpu"], record["machine"]
    packages = ", ".join(f"{name} {version}" for name, version in machine["packages"].items())
    facts = [
        f"commit {record['commit'] or 'unknown'}, sources {record['sources']} ({record['same_sources']})",
        f"GPU: {gpu['name']}, compute capability {gpu['capability']}, driver for CUDA {gpu['driver']}, "
        f"{gpu['memory_gb']} GB; {record['card']}",
        f"host: {machine['cpu']}, {machine['cores']} cores, {machine['system']}, Python {machine['python']}",
        f"packages: {packages}",
        f"networks: {', '.join(record['networks'])}; left out: {'; '.join(record['left_out']) or 'none'}",
        f"reading the host's clock costs {record['clock_cost_ms'] * 1e6:.0f} ns, once in every wall time",
    ]
    return [f"* {fact}" for fact in [*facts, *record["notes"]]]


def part_lines(part: Record) -> list[str]:
    """What one part found, or why it found nothing."""
    lines = []
    if part["status"] != "done":
        lines.append(f"**{part['status']}**: {part.get('why', '')}")
    data = part.get("data", {})
    if refused := data.get("refused"):
        quoted = [refused] if isinstance(refused, str) else refused
        lines += ["refused, in its own words:", "```", *quoted, "```"]
    if data.get("not_reached"):
        lines.append(f"{data['not_reached']} rows were not reached in the time given")
    for key, table in (("cells", _cells), ("rows", _parity), ("starts", _starts), ("trials", _trials)):
        if data.get(key):
            lines += ["", *table(data), ""]
    for key in ("why_not", "last_lines"):
        if told := data.get(key):
            lines += ["```", *([told] if isinstance(told, str) else told), "```"]
    return [*lines, "", f"card: {_card(part.get('card', {}))}; {part.get('seconds', 0):.0f} s"]


def _card(card: Record) -> str:
    if "why_not" in card or not card:
        return str(card.get("why_not", "not read"))
    told = [
        f"{name} {found[0]:g} to {found[1]:g} {unit}"
        for name, key, unit in (
            ("SM clock", "sm_mhz", "MHz"),
            ("memory clock", "memory_mhz", "MHz"),
            ("power", "power_w", "W"),
            ("temperature", "temperature_c", "C"),
        )
        if (found := card.get(key))
    ]
    return ", ".join([*told, f"held down by: {', '.join(card['held_down_by']) or 'nothing'}"])


def _cells(data: Record) -> list[str]:
    cells = data["cells"]
    if "faces" in cells[0]:
        head = ["faces + 1 piece", "precision", *(f"{share}, ms" for share in _SHARES), ""]
        rows = [[one["faces"], one["precision"], *_times(one["whole"]), _mark(one)] for one in cells]
        return _table(head, rows)
    head = ["batch", "precision", *(f"whole {share}, ms" for share in _SHARES), "alone p50", "alone p99"]
    rows = []
    for one in cells:
        if "why_not" in one:
            rows.append([one["batch"], one["precision"], one["why_not"], *[""] * 9])
            continue
        alone, events = _times(one["alone"]), _times(one["events"])
        own = [alone[0], alone[2], events[0], events[2], _number(one["items_per_s"]), _mark(one)]
        rows.append([one["batch"], one["precision"], *_times(one["whole"]), *own])
    return _table([*head, "events p50", "events p99", "items/s", ""], rows)


def _parity(data: Record) -> list[str]:
    head = ["network", "precision", "against", "largest difference", "in", "cosine", "flips", "verdict"]
    rows = [
        [one["network"], one["precision"], "", "", "", "", "", one["why_not"]]
        if "why_not" in one
        else [
            *(one[key] for key in ("network", "precision", "against", "largest", "in", "cosine")),
            f"{one['flips']} of {one['items']}",
            "alike" if one["alike"] else "**NOT alike**: " + "; ".join(one["complaints"]),
        ]
        for one in data["rows"]
    ]
    return _table(head, rows)


def _starts(data: Record) -> list[str]:
    keys = list(dict.fromkeys(key for one in data["starts"] for key in one))
    return _table(keys, [[one.get(key, "") for key in keys] for one in data["starts"]])


def _trials(data: Record) -> list[str]:
    head = ["streams", "age p50, ms", "age p99, ms", "faces a turn"]
    rows = [
        [one["streams"], *(_number(one[key]) for key in ("p50_ms", "p99_ms", "faces_a_turn"))]
        for one in data["trials"]
    ]
    found = f"**{data['streams']} streams** at p99 <= 33 ms, {data['precision']}, {data['path']}"
    return [found, "", *_table(head, rows)]


def _times(found: Record) -> list[str]:
    return [_number(found[share]) if share in found else "too few" for share in _SHARES]


def _number(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _mark(cell: Record) -> str:
    marks = [] if cell["settled"] else ["not settled"]
    if why := cell.get("alone_without_graph"):
        marks.append(f"alone and events without a graph ({why})")
    return "; ".join(marks)


def _table(head: list[str], rows: list[list[Any]]) -> list[str]:
    lines = [f"| {' | '.join(map(str, row))} |" for row in [head, *rows]]
    return [lines[0], f"|{' --- |' * len(head)}", *lines[1:]]


def picture(record: Record) -> bytes:
    """Batch against latency of both networks of live use, as a PNG."""
    panels = []
    for name in record["networks"][:2]:
        lines: dict[str, list[tuple[float, float]]] = {}
        for cell in cells_of(record, f"latency {name}"):
            if "whole" in cell and not record["dry_run"]:
                line = f"{cell['precision']} {cell['path']}"
                lines.setdefault(line, []).append((float(cell["batch"]), float(cell["whole"]["p50"])))
        title = f"{'dry run, no gpu: ' if record['dry_run'] else ''}{name}, whole, p50"
        panels.append(Panel(title, "batch", "ms", lines))
    return png(draw(panels))
