"""Commands for training and judging networks: train, evaluate."""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from typing import Any

from realtime.run.commands import command, say, weights_of
from realtime.run.settings import Settings


def add(commands: Any) -> None:
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
    from realtime.run.learning import Lesson, train

    lesson = Lesson(
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
        networks=weights_of(settings),
        folds=given.folds,
    )
    return train(lesson, say)


def _evaluate(given: argparse.Namespace, settings: Settings) -> int:
    from realtime.run.learning import KINDS, evaluate, evaluate_all

    if given.all:
        return evaluate_all(given.data, renew=given.renew, curve=given.curve, say=say)
    return evaluate((given.kind,) if given.kind else KINDS, given.data, weights_of(settings), given.out, say)
