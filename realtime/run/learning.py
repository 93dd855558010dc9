"""`liveaffect train` and `evaluate`: hand the flags to the trainings, which need torch and nothing live."""

from __future__ import annotations

import importlib
import importlib.util
import math
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from realtime.errors import MissingLibrary, SettingsError

Say = Callable[[str], None]
KINDS = ("face", "voice", "fusion")


@dataclass(frozen=True, slots=True)
class Lesson:
    """What to train, on what, and for how long."""

    kind: str
    data: Path
    out: Path
    preset: str = "live"
    smoke: bool = False
    seed: int = 0
    epochs: int | None = None
    hours: float = math.inf
    threads: int = 0
    as_live: bool = False
    """Face: half of the faces are placed as the live finder places them."""
    after: Path | None = None
    """Face: the checkpoint of a finished training to begin with and to learn from."""
    voices: Path | None = None
    """Fusion: what fold-wise voice networks said."""
    networks: Path | None = None
    """Fusion: the folder of the networks to be joined; None means the package's."""
    folds: bool = False
    """Fusion: compare all of them on people nobody trained on, instead of training one."""


def train(lesson: Lesson, say: Say) -> int:
    """Train one network, or go on where the last call stopped. 0 when it is finished, 3 when time ran out."""
    _check(lesson.data)
    if lesson.kind != "face" and (lesson.as_live or lesson.after):
        raise SettingsError(f"--as-live and --after are for the face network, not for {lesson.kind}")
    if lesson.kind == "fusion":
        return _train_fusion(lesson, say)
    limit_s = lesson.hours * 3600
    training = importlib.import_module(f"engines.training.train_{lesson.kind}")
    schedule = training.schedule_of(
        smoke=lesson.smoke, seed=lesson.seed, epochs=lesson.epochs, limit_s=limit_s, threads=lesson.threads
    )
    if lesson.kind == "face":
        order = training.Order(lesson.preset, lesson.smoke, _place(lesson), lesson.after)
        done = training.main_run(lesson.data, lesson.out, order, schedule=schedule, report=say)
    else:
        done = training.main_run(
            lesson.data, lesson.out, preset=lesson.preset, smoke=lesson.smoke, schedule=schedule, report=say
        )
    return 3 if done is None else 0


def _place(lesson: Lesson) -> Callable[..., Any] | None:
    """What tells the training where the live finder puts a face; it needs the finder, so only if wanted."""
    return importlib.import_module("realtime.run.placing").placed_live() if lesson.as_live else None


def _train_fusion(lesson: Lesson, say: Say) -> int:
    if lesson.folds:
        ablation = importlib.import_module("engines.training.ablate_fusion")
        ablation.main_run(
            lesson.data,
            lesson.out,
            voices=lesson.voices,
            seeds=(0,) if lesson.smoke else (0, 1, 2),
            report=say,
        )
        return 0
    training = importlib.import_module("engines.training.train_fusion")
    sources = training.Sources(lesson.voices, lesson.networks or training.manifests.SHIPPED)
    schedule = training.schedule_of(smoke=lesson.smoke, seed=lesson.seed, epochs=lesson.epochs)
    training.main_run(
        lesson.data, lesson.out, preset=lesson.preset, schedule=schedule, sources=sources, report=say
    )
    return 0


def evaluate(kinds: tuple[str, ...], data: Path, weights: Path | None, out: Path | None, say: Say) -> int:
    """Judge the networks of the package, or of a folder, on people they never saw."""
    _check(data)
    for kind in kinds:
        judging = importlib.import_module(f"engines.training.evaluate_{kind}")
        if not (judging.manifests.SHIPPED if weights is None else weights).joinpath(f"{kind}.json").exists():
            if len(kinds) == 1:
                raise SettingsError(f"there is no {kind} network to judge; train one, or name its folder")
            say(f"{kind}: there is no network to judge")
            continue
        verdict = judging.main_run(data, weights=weights, out=out, report=say)
        if out is not None:
            reports = importlib.import_module("engines.training.reports")
            reports.write(kind, verdict, weights, out)
    return 0


def evaluate_all(data: Path, *, renew: bool, curve: Path | None, say: Say) -> int:
    """Repeat every result; 1 and a table of the differences if one is not as committed.

    With `renew` what the shipped networks answer now is written down first, and the tables with it.
    """
    _check(data)
    repeating = importlib.import_module("engines.training.evaluate_all")
    page = importlib.import_module("engines.training.results_page")
    if not (page.DOCS / "results.md").exists():
        raise SettingsError(f"the results are part of a checkout, and there is none around {page.DOCS}")
    if renew:
        live = importlib.import_module("realtime.run.live_answers")
        repeating.renew(data, curve=curve, report=say)
        live.renew(data, page.DOCS / "results", say)
        page.write()
    found = repeating.main_run(data, report=say)
    if found:
        sys.stdout.write(page.as_table(found))
    return 1 if found else 0


def _check(data: Path) -> None:
    if not data.is_dir():
        raise SettingsError(f"there is no folder {data} with data to learn from or to judge on")
    if importlib.util.find_spec("torch") is None:
        raise MissingLibrary("training and evaluation need torch: uv sync --inexact --extra train")
