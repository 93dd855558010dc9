"""The same delays through the whole path: films in lock-step, labels as the display and as cues have them.

    uv run python benchmarks/response_path.py --data DIR --landmarks FILE [--kind flash] [--sheet SHEET]

The display has an answer with every picture, a cue comes with the grid of 100 ms. `--sheet` draws the first
film as a contact sheet with the label under every fifth picture.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import math
from pathlib import Path

import cv2
import numpy as np
from harness import Result, print_record
from numpy.typing import NDArray
from response_cast import Talk, programme
from response_films import Change, Film

from liveaffect.realtime.clock import SECOND
from liveaffect.realtime.cue import Cue
from liveaffect.realtime.errors import EndOfStream
from liveaffect.realtime.estimate import Estimate
from liveaffect.realtime.frame import VideoFrame
from liveaffect.realtime.lockstep import Watched, analyse
from liveaffect.realtime.sinks import Outputs
from liveaffect.realtime.wiring import Tools, load_tools

CAMERA = "film"


class Reel:
    """A film as a source."""

    def __init__(self, film: Film | Talk) -> None:
        self._frames = enumerate(film.frames())

    def read(self, timeout_s: float) -> VideoFrame:
        """The next picture."""
        for seq, (t_ns, picture) in self._frames:
            return VideoFrame(CAMERA, seq, t_ns, picture)
        raise EndOfStream(CAMERA)


def run(film: Film | Talk, tools: Tools) -> tuple[list[Estimate], list[Cue]]:
    """Every estimate and every cue of the first person."""
    estimates: list[Estimate] = []
    cues: list[Cue] = []
    networks = tools.networks
    networks.confidence = dataclasses.replace(networks.confidence, watch=estimates.append)
    analyse(Watched(Reel(film), CAMERA, None), tools, Outputs([]), cues.extend)
    first = min((one.track for one in estimates if one.track is not None), default=None)
    return [e for e in estimates if e.track == first], [cue for cue in cues if cue.track == first]


def delay_s(change: Change, shown: list[tuple[float, str]], late_s: float) -> float:
    """From when it begins to change to the first moment at which it is shown."""
    end_s = change.until_s + late_s
    times = (t for t, label in shown if change.at_s <= t < end_s and label == change.label)
    return next((t - change.at_s for t in times), math.inf)


def sheet(film: Film | Talk, estimates: list[Estimate], path: Path, every: int = 5) -> None:
    """Pictures of a film with the label that stood at them, its strength, and what was played."""
    by_ns = {one.at_ns: one for one in estimates}
    tiles: list[NDArray[np.uint8]] = []
    changes = film.changes[0]
    for t_ns, picture in itertools.islice(film.frames(), 0, None, every):
        one = by_ns.get(t_ns)
        tile = cv2.resize(picture, (240, 180), interpolation=cv2.INTER_AREA)
        tile = cv2.copyMakeBorder(tile, 0, 34, 0, 0, cv2.BORDER_CONSTANT, value=(20, 20, 20))
        playing = next((c.label for c in reversed(changes) if t_ns >= c.at_s * SECOND), "neutral")
        said = "-" if one is None else f"{one.label} {100 * one.confidence:.0f} %"
        if one is not None and one.strength is not None and one.label == "happy":
            said += f" strength {one.strength[1]:.2f}"
        for row, text in enumerate((f"{t_ns / SECOND:.2f} s  plays {playing}", said)):
            cv2.putText(tile, text, (4, 193 + 14 * row), cv2.FONT_HERSHEY_SIMPLEX, 0.4, (235, 235, 235), 1)
        tiles.append(np.asarray(tile, np.uint8))
    across = 8
    blank = np.zeros_like(tiles[0])
    tiles += [blank] * (-len(tiles) % across)
    rows = [np.hstack(tiles[k : k + across]) for k in range(0, len(tiles), across)]
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), cv2.cvtColor(np.vstack(rows), cv2.COLOR_RGB2BGR))


def main() -> None:
    """Films of one kind."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--landmarks", type=Path, required=True)
    parser.add_argument("--kind", default="onset")
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--most", type=int, default=12)
    parser.add_argument("--every", type=int, default=1, help="only every n-th film")
    parser.add_argument("--sheet", type=Path)
    parser.add_argument("--write", action="store_true", help="keep the result")
    given = parser.parse_args()
    films = programme(given.data, given.landmarks, each_talker=2)[given.kind]()
    films = films[given.first :: given.every][: given.most]
    tools = load_tools(lambda _: None)
    delays: dict[str, list[float]] = {}
    for number, film in enumerate(films):
        estimates, cues = run(film, tools)
        if given.sheet is not None and number == 0:
            sheet(film, estimates, given.sheet)
        late_s = 0.4 if film.kind == "flash" else 0.0
        for change in film.changes[0]:
            to = "back" if change.label == "neutral" else "to the label"
            seen = [(one.at_ns / SECOND, one.label) for one in estimates]
            told = [(cue.t_ns / SECOND, cue.label) for cue in cues]
            delays.setdefault(f"{to}/display", []).append(delay_s(change, seen, late_s))
            delays.setdefault(f"{to}/cues", []).append(delay_s(change, told, late_s))
    figures: dict[str, float] = {"films": float(len(films))}
    for name, found in delays.items():
        figures[f"{name}/median_s"] = float(np.median(found))
        figures[f"{name}/p95_s"] = sorted(found)[max(0, math.ceil(0.95 * len(found)) - 1)]
        figures[f"{name}/seen"] = float(np.isfinite(found).mean())
    print_record(Result(f"response path/{given.kind}", figures))


if __name__ == "__main__":
    main()
