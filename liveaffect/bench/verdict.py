"""Did it get slower? Two runs are compared figure by figure, each by its ratio to the yardstick beside it.

The blocks of both runs say how much a figure moves by itself. Worse is what lies beyond that and beyond six
in a hundred; between two runs of one commit nothing does. What moves too much for a tenth to be seen, and
runs on different processors, are shown and not judged.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from liveaffect.realtime.errors import InputRefused

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
