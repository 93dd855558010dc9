"""From an expression that changes to a label that changes, and how calm labels are while nothing changes.

    uv run python benchmarks/response_looks.py --data DIR --landmarks FILE --out LOOKS
    uv run python benchmarks/bench_response.py --looks LOOKS [--picture docs/response/curve.png]
        [--way NAME ...] [--kind KIND ...] [--write]

Delay is counted from when an expression begins to change to the first look after which it is shown, in films
of known expression; the age of a reading (`liveaffect bench latency`) comes on top live. Calm is counted on
people who talk and on neutral faces that turn, blink and chew: a *change* is one label after another in one
track, whatever "not sure" stood between them; an *interruption* is a label that gives way to "not sure".
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from harness import Result, print_record
from response_estimators import FRAMES, PRESENT, STACKED, Estimator, Look, ways

from liveaffect.engines import manifest as manifests
from liveaffect.engines.manifest import KINDS
from liveaffect.realtime.clock import SECOND
from liveaffect.realtime.cue import NOT_SURE
from liveaffect.realtime.estimate import Confidence
from liveaffect.realtime.wiring import confidence_of

STILL_S = 0.3
"""A label within this time of being found is a first one; calm is counted from then on."""
LATE_S = 0.4
"""A flash may be shown so much after it is over."""
BEFORE = Confidence(fused={"face": 1.0431}, thresholds={"face": 0.6305})
"""As calibrated for the stages that the path had before."""


LEGEND = {
    STACKED: "before: window, then running average",
    PRESENT: "now: since the last change, by correlation of looks",
    f"{PRESENT} without rest": "the same without the face's own rest",
}


COLUMNS = ("films", "film", "track", "left_px", "t_ns", "logits", "score", "quality")


@dataclass(frozen=True, slots=True, eq=False)
class Track:
    """The looks at one person in one film."""

    film: dict[str, Any]
    looks: tuple[Look, ...]
    changes: tuple[dict[str, Any], ...]

    @property
    def kind(self) -> str:
        """What the film is for."""
        return str(self.film["kind"])


def read(folder: Path, kinds: Sequence[str]) -> Iterator[Track]:
    """Everything that was recorded, or only films of some kinds."""
    for path in sorted(folder.glob("*.npz")):
        if kinds and path.name.split(".")[0] not in kinds:
            continue
        # Columns are read once: asking the file for one anew decompresses all of it.
        with np.load(path) as file:
            table = {name: file[name] for name in COLUMNS if name in file}
        if "films" not in table:
            continue
        for number, film in enumerate(json.loads(str(table["films"]))):
            of_film = np.flatnonzero(table["film"] == number)
            for track in np.unique(table["track"][of_film]):
                at = of_film[table["track"][of_film] == track]
                person = int(np.median(table["left_px"][at]) > 200) if len(film["changes"]) > 1 else 0
                looks = tuple(
                    Look(
                        int(table["t_ns"][k]),
                        table["logits"][k].copy(),
                        float(table["score"][k]),
                        float(table["quality"][k]),
                    )
                    for k in at
                )
                if len(looks) >= 10:
                    yield Track(film, looks, tuple(film["changes"][person]))


@dataclass(slots=True)
class Tally:
    """What one way came to."""

    delays_s: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    """By what changed; infinite where it was never shown."""
    changes: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    interruptions: int = 0
    minutes: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    covered: list[float] = field(default_factory=list)
    """Share of a talker's looks with a label."""
    first_s: list[float] = field(default_factory=list)
    mild: list[bool] = field(default_factory=list)
    rest: list[tuple[int, int]] = field(default_factory=list)
    """Looks at neutral faces that were called neutral, and all of them."""

    def take(self, track: Track, make: Callable[[], Estimator]) -> None:
        """Judge one person of one film."""
        estimator = make()
        times = np.array([look.at_ns / SECOND for look in track.looks])
        labels = [estimator.see(look)[1] for look in track.looks]
        said = [k for k, label in enumerate(labels) if label != NOT_SURE]
        self.first_s.append(times[said[0]] - times[0] if said else math.inf)
        if not track.changes:
            self._calm(track.kind, times, labels)
        for change in track.changes:
            self._changed(track, change, times, labels)

    def _calm(self, kind: str, times: np.ndarray, labels: list[str]) -> None:
        later = [label for t, label in zip(times, labels, strict=True) if t > times[0] + STILL_S]
        shown = [label for label in later if label != NOT_SURE]
        self.changes[kind] += sum(a != b for a, b in itertools.pairwise(shown))
        self.minutes[kind] += (times[-1] - times[0] - STILL_S) / 60
        if kind == "talk":
            self.interruptions += sum(b == NOT_SURE != a for a, b in itertools.pairwise(later))
            self.covered.append(len(shown) / max(len(later), 1))

    def _changed(self, track: Track, change: dict[str, Any], times: np.ndarray, labels: list[str]) -> None:
        begin, end, label = change["at_s"], change["until_s"], change["label"]
        if times[0] > begin - 1:
            return
        before = [one for t, one in zip(times, labels, strict=True) if begin - 1.5 < t < begin]
        late = LATE_S if track.kind == "flash" and label != "neutral" else 0.0
        shown = [t for t, one in zip(times, labels, strict=True) if begin <= t < end + late and one == label]
        name = f"{track.kind} {change['blend_s']:g} s {track.film['fps']:g} Hz"
        if label == "neutral":
            if any(one not in (label, NOT_SURE) for one in before):
                self.delays_s[f"back {name}"].append(shown[0] - begin if shown else math.inf)
            return
        if track.kind != "other":
            resting = [one for one in before if one]
            self.rest.append((sum(one == "neutral" for one in resting), len(resting)))
        if not before or before[-1] != label:
            self.delays_s[name].append(shown[0] - begin if shown else math.inf)
        if track.kind == "mild":
            last = [one for t, one in zip(times, labels, strict=True) if end - 1 < t < end]
            self.mild.append(sum(one == label for one in last) > len(last) / 2)

    def figures(self) -> dict[str, float]:
        """All of it as numbers whose names end with the unit."""
        out: dict[str, float] = {}
        for name, delays in sorted(self.delays_s.items()):
            seen = sorted(delays)
            out[f"{name}/median_s"] = float(np.median(seen))
            out[f"{name}/p95_s"] = seen[min(len(seen) - 1, math.ceil(0.95 * len(seen)) - 1)]
            out[f"{name}/seen"] = float(np.isfinite(seen).mean())
            out[f"{name}/films"] = float(len(seen))
        for kind, count in sorted(self.changes.items()):
            low, high = poisson(count)
            out[f"{kind}/changes_per_min"] = count / self.minutes[kind]
            out[f"{kind}/changes_from_per_min"] = low / self.minutes[kind]
            out[f"{kind}/changes_to_per_min"] = high / self.minutes[kind]
            out[f"{kind}/minutes"] = self.minutes[kind]
        if self.covered:
            out["talk/interruptions_per_min"] = self.interruptions / self.minutes["talk"]
            out["talk/labelled"] = float(np.mean(self.covered))
        if self.mild:
            out["mild/named"], out["mild/films"] = float(np.mean(self.mild)), float(len(self.mild))
        if self.rest:
            kept = np.sum(self.rest, axis=0)
            out["rest/called neutral"] = float(kept[0] / kept[1])
        out["first/median_s"] = float(np.median(self.first_s))
        out["first/p95_s"] = float(np.quantile(self.first_s, 0.95))
        return out


def poisson(count: int) -> tuple[float, float]:
    """The interval in which the mean lies in 95 of 100 cases, exact."""
    low, high = 0.0, 0.0
    grid = np.linspace(0, count + 4 * math.sqrt(count + 1) + 5, 20_001)
    terms = np.zeros_like(grid)
    below = np.zeros_like(grid)
    for k in range(count + 1):
        terms = np.exp(-grid) if k == 0 else terms * grid / k
        if k < count:
            below += terms
    at_most = below + terms
    high = float(grid[np.flatnonzero(at_most >= 0.025)[-1]])
    if count:
        low = float(grid[np.flatnonzero(1 - below <= 0.025)[-1]])
    return low, high


def chosen(names: Sequence[str], everything: dict[str, Callable[[], Estimator]]) -> list[str]:
    """The ways that were asked for, all of them without a wish."""
    unknown = set(names) - set(everything)
    if unknown:
        raise SystemExit(f"unknown: {', '.join(sorted(unknown))}; there are {', '.join(everything)}")
    return list(names or everything)


def draw(curves: dict[str, list[tuple[float, float, str]]], path: Path) -> None:
    """Delay against calm, a line for each family of ways."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(8, 5), dpi=110)
    for family, points in curves.items():
        axes.plot([p[0] for p in points], [p[1] for p in points], "o-", label=LEGEND.get(family, family))
        for x, y, name in points:
            axes.annotate(name, (x, y), textcoords="offset points", xytext=(5, 4), fontsize=7)
    axes.set_xlabel("a smile that comes within 0.3 s to the label happy, median, seconds")
    axes.set_ylabel("label changes and interruptions a minute, people who talk")
    axes.set_yscale("symlog", linthresh=1.0)
    axes.axvline(0.35, color="grey", linestyle=":")
    axes.grid(alpha=0.3)
    axes.legend()
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)


def main() -> None:
    """Every way on all looks."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--looks", type=Path, required=True, help="what response_looks.py recorded")
    parser.add_argument("--way", action="append", default=[])
    parser.add_argument("--kind", action="append", default=[], help="of films, such as onset or talk")
    parser.add_argument("--picture", type=Path)
    parser.add_argument("--write", action="store_true", help="keep the results")
    given = parser.parse_args()
    confidence = confidence_of(dict.fromkeys(KINDS), KINDS, print)
    everything = ways(confidence, BEFORE)
    curves: dict[str, list[tuple[float, float, str]]] = defaultdict(list)
    for name in chosen(given.way, everything):
        tally = Tally()
        for track in read(given.looks, given.kind):
            tally.take(track, everything[name])
        figures = tally.figures()
        judged = tuple(key for key in ("onset 0.3 s 30 Hz/median_s",) if key in figures)
        model = manifests.read(manifests.SHIPPED / "face.json").files["face.onnx"][:12]
        print_record(Result(f"response/{name}", figures, judged=judged, notes={"face": model}))
        family = next(f for f in (FRAMES, STACKED, PRESENT) if name.startswith(f))
        setting = name.removeprefix(family).removesuffix(", no rest").strip()
        family += " without rest" if "no rest" in name else ""
        flickers = figures.get("talk/changes_per_min", math.nan)
        flickers += figures.get("talk/interruptions_per_min", math.nan)
        delay_s = figures.get("onset 0.3 s 30 Hz/median_s", math.nan)
        point = delay_s, flickers, setting
        if all(math.isfinite(value) for value in point[:2]):
            curves[family].append(point)
    if given.picture is not None:
        draw(curves, given.picture)


if __name__ == "__main__":
    main()
