"""Commands for training and judging networks: train, evaluate."""

from __future__ import annotations

import argparse
import importlib.util
import math
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from liveaffect.commands import USUAL_PRESETS, command
from liveaffect.progress import say, working
from liveaffect.realtime.errors import MissingLibrary, SettingsError
from liveaffect.settings import Settings

KINDS = ("face", "voice", "fusion")
PAPER = "paper"
PAPER_SYSTEMS = ("fv2es", "fcn", "gfbp", "agfbp", "amfbp")
CORPORA = ("iemocap", "mosei", "afew", "ravdess", "crema-d", "meld")
RESULTS = Path(__file__).resolve().parents[2] / "benchmarks" / "accuracy" / "run.py"
"""What makes every result again; part of a checkout only."""
TIME_IS_UP = 3
"""Exit code of a training that is not finished: the same command goes on."""


def add_training(commands: Any) -> None:
    """Their names and flags."""
    train = command(commands, "train", _train, "train a network; needs the extra 'train'")
    train.add_argument("kind", choices=(*KINDS, PAPER))
    train.add_argument("system", nargs="?", choices=PAPER_SYSTEMS, help="with paper: which published system")
    train.add_argument("--data", type=Path, required=True, help="folder with the corpora")
    train.add_argument("--out", type=Path, metavar="DIR", help="checkpoints and results; trained/KIND")
    train.add_argument(
        "--preset", help="which network; face live, voice student or whisper, fusion late-masked"
    )
    train.add_argument("--whisper", type=Path, metavar="DIR", help="voice: the folder of Whisper's model.bin")
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
        metavar="FILE",
        help="face: begin with the network of a checkpoint or a face.json, and learn from it",
    )
    train.add_argument(
        "--teacher",
        type=Path,
        action="append",
        default=[],
        metavar="FILE",
        help="face: learn from the network of this checkpoint or face.json too; again for each further one",
    )
    train.add_argument(
        "--voices", type=Path, metavar="FILE", help="fusion: the archive of what voices of folds said"
    )
    _add_paper(train)

    evaluate = command(commands, "evaluate", _evaluate, "judge networks on people they never saw")
    evaluate.add_argument(
        "what", nargs="?", choices=(PAPER,), help="paper: the papers' figures beside those measured here"
    )
    evaluate.add_argument("--data", type=Path, help="folder with the corpora")
    evaluate.add_argument(
        "--results",
        type=Path,
        metavar="DIR",
        default=Path("trained") / PAPER,
        help="with paper: what was trained",
    )
    evaluate.add_argument("--kind", choices=KINDS, help="one of them instead of all")
    evaluate.add_argument(
        "--all", action="store_true", help="repeat every table and answer of the results; needs a checkout"
    )
    evaluate.add_argument("--renew", action="store_true", help="with --all: write them anew instead")
    evaluate.add_argument(
        "--curve", type=Path, metavar="LOG", help="with --renew: the log of the face training"
    )
    evaluate.add_argument("--out", type=Path, metavar="DIR", help="folder for tables and pictures")


def _add_paper(train: argparse.ArgumentParser) -> None:
    paper = train.add_argument_group("paper")
    paper.add_argument("--corpus", choices=CORPORA, help="which corpus lies in --data")
    paper.add_argument("--protocol", help="how it is tested; the first of the corpus if not given")
    paper.add_argument(
        "--form",
        choices=("mended", "published"),
        default="mended",
        help="without the known defects, or as far as known as published",
    )
    paper.add_argument("--albert", type=Path, metavar="DIR", help="folder of albert-base-v2, for words")
    paper.add_argument("--only", action="append", choices=("face", "voice", "words"), help="these alone")
    paper.add_argument("--plain", action="store_true", help="one branch in training too")
    paper.add_argument("--no-attention", action="store_true", help="convolutions instead, of equal size")
    paper.add_argument("--seeds", type=int, default=1, help="how often, each from another start")
    paper.add_argument("--folds", type=int, help="only so many; all if not given")
    paper.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="processes that cut films")
    paper.add_argument(
        "--cache", type=Path, metavar="DIR", help="what was cut; the user's cache if not given"
    )


def _train(given: argparse.Namespace, settings: Settings) -> int:
    """Train one network, or go on where the last call stopped. 0 when it is finished, 3 when time ran out."""
    _refuse_without_data(given.data)
    if given.kind != "face" and (given.as_live or given.after or given.teacher):
        raise SettingsError(
            f"--as-live, --after and --teacher are for the face network, not for {given.kind}"
        )
    if (given.kind == PAPER) != (given.system is not None and given.corpus is not None):
        raise SettingsError(
            f"a published system is trained with: train paper {'|'.join(PAPER_SYSTEMS)} --corpus NAME ..."
        )
    start = {"face": _train_face, "voice": _train_voice, "fusion": _train_fusion, PAPER: _train_paper}[
        given.kind
    ]
    with working("training" if given.kind == PAPER else f"training the {given.kind} network"):
        done = start(given, given.out or Path("trained") / given.kind, settings)
    return TIME_IS_UP if done is None else 0


def _train_face(given: argparse.Namespace, out: Path, settings: Settings) -> Path | None:
    from liveaffect.engines.training.train_face import FaceOptions, face_schedule, train_face
    from liveaffect.placing import placed_live

    place = placed_live() if given.as_live else None
    preset = given.preset or USUAL_PRESETS[given.kind]
    options = FaceOptions(preset, given.smoke, place, given.after, tuple(given.teacher))
    schedule = face_schedule(**_schedule_flags(given), begun=given.after is not None)
    return train_face(given.data, out, options, schedule=schedule, report=say)


def _train_voice(given: argparse.Namespace, out: Path, settings: Settings) -> Path | None:
    from liveaffect.engines.training.train_voice import VoiceOptions, train_voice
    from liveaffect.engines.whisper import whisper_folder

    options = VoiceOptions(
        whisper=given.whisper or whisper_folder("tiny.en"),
        preset=given.preset or USUAL_PRESETS[given.kind],
        smoke=given.smoke,
        seed=given.seed,
        epochs=given.epochs,
        limit_s=given.hours * 3600,
        threads=given.threads or 1,
    )
    return train_voice(given.data, out, options, report=say)


def _train_fusion(given: argparse.Namespace, out: Path, settings: Settings) -> Path:
    from liveaffect.engines.manifest import SHIPPED
    from liveaffect.engines.training.train_fusion import (
        EPOCHS,
        SMOKE_EPOCHS,
        FusionOptions,
        train_fusion,
    )

    options = FusionOptions(
        given.preset or USUAL_PRESETS[given.kind],
        given.seed,
        given.epochs or (SMOKE_EPOCHS if given.smoke else EPOCHS),
        given.voices,
        settings.weights_folder or SHIPPED,
    )
    return train_fusion(given.data, out, options, report=say)


def _train_paper(given: argparse.Namespace, out: Path, settings: Settings) -> Path | None:
    from liveaffect.engines.model.paper import MODALITIES
    from liveaffect.engines.training.corpora_voices import default_folder
    from liveaffect.engines.training.train_paper import PaperOptions, train_paper
    from liveaffect.placing import cut_film

    options = PaperOptions(
        given.system,
        given.corpus,
        given.form,
        given.protocol,
        given.albert,
        tuple(given.only or MODALITIES),
        given.plain,
        given.no_attention,
        given.seeds,
        given.folds,
        given.epochs,
        given.smoke,
        given.hours * 3600,
        given.threads or 0,
        given.workers,
    )
    cache = given.cache or default_folder().with_name("films")
    try:
        return train_paper(given.data, out, options, cut_film, cache, report=say)
    except ValueError as error:
        raise SettingsError(str(error)) from error


def _schedule_flags(given: argparse.Namespace) -> dict[str, Any]:
    """How long to train, as a schedule takes it."""
    return {
        "smoke": given.smoke,
        "seed": given.seed,
        "epochs": given.epochs,
        "limit_s": given.hours * 3600,
        "threads": given.threads or 0,
    }


def _evaluate(given: argparse.Namespace, settings: Settings) -> int:
    """Judge the networks of the package, or of a folder, on people they never saw."""
    if given.what == PAPER:
        return _evaluate_paper(given)
    if given.data is None:
        raise SettingsError("evaluate needs --data, the folder with the corpora")
    _refuse_without_data(given.data)
    if given.all:
        return _repeat_results(given)
    from liveaffect.engines.manifest import SHIPPED

    with working("loading torch"):
        from liveaffect.engines.training.evaluate_face import evaluate_face
        from liveaffect.engines.training.evaluate_fusion import evaluate_fusion
        from liveaffect.engines.training.evaluate_voice import evaluate_voice

    judges: dict[str, Callable[..., object]] = {
        "face": evaluate_face,
        "voice": evaluate_voice,
        "fusion": evaluate_fusion,
    }
    weights = settings.weights_folder
    for kind in (given.kind,) if given.kind else KINDS:
        if (weights or SHIPPED).joinpath(f"{kind}.json").exists():
            with working(f"judging the {kind} network"):
                judges[kind](given.data, weights=weights, out=given.out, report=say)
        elif given.kind:
            raise SettingsError(f"there is no {kind} network to judge; train one, or name its folder")
        else:
            say(f"{kind}: there is no network to judge")
    return 0


def _evaluate_paper(given: argparse.Namespace) -> int:
    """The page to standard output."""
    _refuse_without_torch()
    from liveaffect.engines.training.evaluate_paper import evaluate_paper

    sys.stdout.write(evaluate_paper(given.results, given.out) + "\n")
    return 0


def _repeat_results(given: argparse.Namespace) -> int:
    """Make every result again; 1 and a table of the differences if one is not as committed."""
    if not RESULTS.exists():
        raise SettingsError(f"the results are part of a checkout: there is no {RESULTS}")
    told = ["--data", str(given.data), *(["--renew"] if given.renew else [])]
    told += ["--curve", str(given.curve)] if given.curve else []
    return subprocess.run([sys.executable, str(RESULTS), *told], check=False).returncode


def _refuse_without_data(data: Path) -> None:
    if not data.is_dir():
        raise SettingsError(f"there is no folder {data} with data to learn from or to judge on")
    _refuse_without_torch()


def _refuse_without_torch() -> None:
    if importlib.util.find_spec("torch") is None:
        raise MissingLibrary("training and evaluation need torch: uv sync --inexact --extra train")
