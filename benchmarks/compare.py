"""Did it get slower? Compares two results files and exits with 1 if a judged figure got worse beyond noise.

    python benchmarks/compare.py before.jsonl after.jsonl [--noise 0.10]

Noise is at least `--noise` and at least twice what the windows of either run differed among themselves, so
a restless machine makes the comparison weaker instead of wrong. Figures that did not settle, and runs on
different processors, are shown and never judged.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

Record = dict[str, Any]


def read_results(path: Path) -> dict[str, Record]:
    """The records of a file by name; the last one of a name counts."""
    lines = path.read_text("utf-8").splitlines()
    return {record["name"]: record for record in map(json.loads, filter(str.strip, lines))}


def verdict(before: Record, after: Record, figure: str, noise: float) -> tuple[str, bool]:
    """One line about one figure, and whether it got worse beyond noise."""
    old, new = before["figures"][figure], after["figures"][figure]
    # How much more time a thing takes now, or how much less of it gets done in the same time.
    worse = (old / new if figure.endswith("_per_s") else new / old) - 1.0 if old and new else 0.0
    allowed = max(noise, 2 * before["spread"], 2 * after["spread"])
    text = f"{after['name']} {figure}: {old:g} -> {new:g} ({worse:+.1%}, noise {allowed:.0%})"
    if before["machine"]["cpu"] != after["machine"]["cpu"]:
        return f"{text}  not judged: other processor", False
    if not (before["settled"] and after["settled"]):
        return f"{text}  not judged: did not settle", False
    if worse > allowed:
        return f"{text}  WORSE", True
    return f"{text}  {'better' if worse < -allowed else 'same'}", False


def compare(before: dict[str, Record], after: dict[str, Record], noise: float) -> tuple[list[str], bool]:
    """All lines, and whether anything got worse."""
    lines: list[str] = []
    is_worse = False
    for name, record in after.items():
        if name not in before:
            lines.append(f"{name}: new")
            continue
        for figure in record["judged"]:
            if figure in before[name]["figures"]:
                text, bad = verdict(before[name], record, figure, noise)
                lines.append(text)
                is_worse = is_worse or bad
    lines += [f"{name}: no longer measured" for name in before if name not in after]
    return lines, is_worse


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the comparison; 1 if something got worse."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("before", type=Path)
    parser.add_argument("after", type=Path)
    parser.add_argument("--noise", type=float, default=0.10, help="what is always allowed (default 0.10)")
    chosen = parser.parse_args(arguments)
    try:
        lines, is_worse = compare(read_results(chosen.before), read_results(chosen.after), chosen.noise)
    except (OSError, json.JSONDecodeError, KeyError) as error:
        parser.error(f"not a results file: {error}")
    print("\n".join(lines))
    return int(is_worse)


if __name__ == "__main__":
    sys.exit(main())
