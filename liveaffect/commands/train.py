"""Commands for training and judging networks: train, evaluate."""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import math
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from liveaffect.commands import command, say
from liveaffect.realtime.errors import MissingLibrary, SettingsError
from liveaffect.settings import Settings


def add_training(commands: Any) -> None:
    """Their names and flags."""
    train = command(commands, "train", _train, "train a network; needs the extra 'train'")
    train.add_argument("kind", choices=("face", "voice", "fusion"))
    train.add_argument("--data", type=Path, required=True, help="folder with the corpora")
    train.add_argument("--out", type=Path, metavar="DIR", help="checkpoints and results; trained/KIND")
    train.add_argument("--preset", default="live")
    train.add_argument("--smoke", action="store_true", help="a small part of all, to see that it works")
    train.add_argument("--seed", type=int, default=0)
    train.add_argument("--epochs", type=int)
    train.add_argument("--hours", type=float, default=math.inf, help="stop after; the same command goes on")
    train.add_argument(
        "--as-live", action="store_true", help="face: half of the faces placed as the live finder does"
    )
    train.add_argument(
        "--after",
        type=Path,
        metavar="CHECKPOINT",
        help="face: begin with this one's network, and learn from it",
    )
    train.add_argument(
        "--voices", type=Path, metavar="FILE", help="fusion: what fold-wise voice networks said"
    )
    train.add_argument(
        "--folds", action="store_true", help="fusion: compare all of them instead, fold by fold"
    )

    evaluate = command(commands, "evaluate", _evaluate, "judge networks on people they never saw")
    evaluate.add_argument("--data", type=Path, required=True, help="folder with the corpora")
    evaluate.add_argument("--kind", choices=("face", "voice", "fusion"), help="one of them instead of all")
    evaluate.add_argument("--all", action="store_true", help="repeat every table and answer of the results")
    evaluate.add_argument("--renew", action="store_true", help="with --all: write them anew instead")
    evaluate.add_argument(
        "--curve", type=Path, metavar="LOG", help="with --renew: the log of the face training"
    )
    evaluate.add_argument("--out", type=Path, metavar="DIR", help="folder for tables and pictures")


def _train(given: argparse.Namespace, settings: Settings) -> int:
    from liveaffect.commands.train import TrainOptions, train

    lesson = TrainOptions(
        kind=given.kind,
        data=given.data,
        out=given.out or Path("trained") / given.kind,
        preset=given.preset,
        smoke=given.smoke,
        seed=given.seed,
        epochs=given.epochs,
        hours=given.hours,
        threads=given.threads or 0,
        as_live=given.as_live,
        after=given.after,
        voices=given.voices,
        networks=settings.weights_folder,
        folds=given.folds,
    )
    return train(lesson, say)


def _evaluate(given: argparse.Namespace, settings: Settings) -> int:
    from liveaffect.commands.train import KINDS, evaluate, evaluate_all

    if given.all:
        return evaluate_all(given.data, renew=given.renew, curve=given.curve, say=say)
    return evaluate(
        (given.kind,) if given.kind else KINDS, given.data, settings.weights_folder, given.out, say
    )


Say = Callable[[str], None]
KINDS = ("face", "voice", "fusion")


@dataclass(frozen=True, slots=True)
class TrainOptions:
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


def train(lesson: TrainOptions, say: Say) -> int:
    """Train one network, or go on where the last call stopped. 0 when it is finished, 3 when time ran out."""
    _check(lesson.data)
    if lesson.kind != "face" and (lesson.as_live or lesson.after):
        raise SettingsError(f"--as-live and --after are for the face network, not for {lesson.kind}")
    if lesson.kind == "fusion":
        return _train_fusion(lesson, say)
    limit_s = lesson.hours * 3600
    training = importlib.import_module(f"liveaffect.engines.training.train_{lesson.kind}")
    schedule = training.schedule_of(
        smoke=lesson.smoke, seed=lesson.seed, epochs=lesson.epochs, limit_s=limit_s, threads=lesson.threads
    )
    if lesson.kind == "face":
        order = training.FaceOptions(lesson.preset, lesson.smoke, _place(lesson), lesson.after)
        done = training.main_run(lesson.data, lesson.out, order, schedule=schedule, report=say)
    else:
        done = training.main_run(
            lesson.data, lesson.out, preset=lesson.preset, smoke=lesson.smoke, schedule=schedule, report=say
        )
    return 3 if done is None else 0


def _place(lesson: TrainOptions) -> Callable[..., Any] | None:
    """What tells the training where the live finder puts a face; it needs the finder, so only if wanted."""
    return importlib.import_module("liveaffect.placing").placed_live() if lesson.as_live else None


def _train_fusion(lesson: TrainOptions, say: Say) -> int:
    if lesson.folds:
        ablation = importlib.import_module("liveaffect.engines.training.ablate_fusion")
        ablation.main_run(
            lesson.data,
            lesson.out,
            voices=lesson.voices,
            seeds=(0,) if lesson.smoke else (0, 1, 2),
            report=say,
        )
        return 0
    training = importlib.import_module("liveaffect.engines.training.train_fusion")
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
        judging = importlib.import_module(f"liveaffect.engines.training.evaluate_{kind}")
        if not (judging.manifests.SHIPPED if weights is None else weights).joinpath(f"{kind}.json").exists():
            if len(kinds) == 1:
                raise SettingsError(f"there is no {kind} network to judge; train one, or name its folder")
            say(f"{kind}: there is no network to judge")
            continue
        verdict = judging.main_run(data, weights=weights, out=out, report=say)
        if out is not None:
            reports = importlib.import_module("liveaffect.engines.training.reports")
            reports.write(kind, verdict, weights, out)
    return 0


def evaluate_all(data: Path, *, renew: bool, curve: Path | None, say: Say) -> int:
    """Repeat every result; 1 and a table of the differences if one is not as committed.

    With `renew` what the shipped networks answer now is written down first, and the tables with it.
    """
    _check(data)
    repeating = importlib.import_module("liveaffect.engines.training.evaluate_all")
    page = importlib.import_module("liveaffect.engines.training.results_page")
    if not (page.DOCS / "results.md").exists():
        raise SettingsError(f"the results are part of a checkout, and there is none around {page.DOCS}")
    if renew:
        live = importlib.import_module("liveaffect.live_answers")
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
