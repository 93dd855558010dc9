"""Flags to settings to the function that does it; no logic of its own.

Every command is a small function that imports what it needs when it is called, so that `--help` and the
first picture do not wait for libraries that only other commands use. Errors written for the user end the
program with their text and exit code 1; a defect of the program keeps its traceback.
"""

from __future__ import annotations

import argparse
import logging
import math
import os
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from engines.protocol import EngineError
from realtime.errors import RealtimeError
from realtime.run.settings import ENGINE_CHOICES, OVERLAY_MODES, Settings, resolve

LIBRARIES = {"OPENCV_LOG_LEVEL": "ERROR", "OPENCV_VIDEOIO_V4L_SELECT_TIMEOUT": "1"}
"""What OpenCV reads when it is loaded: its warnings are said by us; a stalled camera is let go after 1 s."""
Command = Callable[[argparse.Namespace, Settings], int]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    given = _parser().parse_args(arguments)
    for name, value in LIBRARIES.items():
        os.environ.setdefault(name, value)
    if threading.current_thread() is threading.main_thread():
        # A run that is ended from outside finishes its files, as after Ctrl-C.
        signal.signal(signal.SIGTERM, signal.default_int_handler)
    command: Command = given.command
    try:
        settings = resolve(vars(given), config=given.config)
        logging.basicConfig(
            level=settings.log_level.upper(),
            stream=sys.stderr,
            format="%(levelname)s %(name)s: %(message)s",
        )
        return command(given, settings)
    except (RealtimeError, EngineError) as error:
        say(f"liveaffect: {error}")
        return 1
    except KeyboardInterrupt:
        say("stopped")
        return 130
    except BrokenPipeError:
        return 0


def say(line: str) -> None:
    """A line for the person at the keyboard; results go to standard output, everything else here."""
    sys.stderr.write(line + "\n")


def _weights(settings: Settings) -> Path | None:
    return Path(settings.weights) if settings.weights else None


def _demo(given: argparse.Namespace, settings: Settings) -> int:
    from realtime.run.demo import run_demo

    return run_demo(settings, seconds=settings.seconds or 12.0, out=given.out, window=given.window, say=say)


def _live(given: argparse.Namespace, settings: Settings) -> int:
    from realtime.run.webcam import run_live

    return run_live(settings, say)


def _analyze(given: argparse.Namespace, settings: Settings) -> int:
    from realtime.run.analyze import Wanted, analyse_files
    from realtime.run.loading import load_tools

    paths = tuple(p for p in (given.cues, given.csv, given.overlay_video, given.plot) if p)
    wanted = Wanted(paths, given.sheet)
    wanted.check(given.files)
    results = analyse_files(given.files, wanted, load_tools(settings, say))
    for file, summary in results.items():
        say(f"{file}: {summary.line()}")
    return 1 if any(summary.failures for summary in results.values()) else 0


def _predict(given: argparse.Namespace, settings: Settings) -> int:
    import json

    from realtime.run.loading import load_tools
    from realtime.run.predict import expand, predict, sentence

    tools = load_tools(settings, say)
    failed = 0
    for path in expand(given.paths):
        try:
            line = predict(path, tools, cropped=given.cropped)
        except RealtimeError as error:
            failed += 1
            say(f"liveaffect: {error}")
            continue
        sys.stdout.write((json.dumps(line) if given.json else sentence(line)) + "\n")
    return 1 if failed else 0


def _fetch(given: argparse.Namespace, settings: Settings) -> int:
    from realtime.run.fetch import fetch

    say(f"the face detector's files are in {fetch(given.to)}")
    return 0


def _doctor(given: argparse.Namespace, settings: Settings) -> int:
    from realtime.run.doctor import doctor

    return doctor(as_json=given.json, settings=settings)


def _export(given: argparse.Namespace, settings: Settings) -> int:
    from engines.build.export_onnx import export

    say(f"written: {export(given.kind, given.preset, given.out, seed=given.seed)}")
    return 0


def _build(given: argparse.Namespace, settings: Settings) -> int:
    from realtime.run.engine_build import build

    for line in build(given.precision.split(","), _weights(settings)):
        say(line)
    return 0


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
    )
    return train(lesson, say)


def _evaluate(given: argparse.Namespace, settings: Settings) -> int:
    from realtime.run.learning import KINDS, evaluate

    return evaluate((given.kind,) if given.kind else KINDS, given.data, _weights(settings), given.out, say)


def _engines_list(given: argparse.Namespace, settings: Settings) -> int:
    from realtime.run.engine_list import engine_lines

    for line in engine_lines(_weights(settings)):
        sys.stdout.write(line + "\n")
    return 0


def _engines_compare(given: argparse.Namespace, settings: Settings) -> int:
    from engines.parity import compare_named

    report = compare_named(given.kind, given.a, given.b, weights=_weights(settings), items=given.items)
    sys.stdout.write("\n".join(report.lines()) + "\n")
    return 0 if report.alike else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="liveaffect",
        description="Watches cameras, listens to microphones, and shows which emotion each person shows "
        "and how sure it is. Nothing leaves the machine.",
    )
    parser.add_argument("--version", action="version", version=f"liveaffect {version('liveaffect')}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_runs(commands)
    _add_tools(commands)
    _add_learning(commands)
    return parser


def _add_runs(commands: Any) -> None:
    demo = _command(commands, "demo", _demo, "the whole path without camera or microphone")
    demo.add_argument("--seconds", type=float, help="length of the demo; 12 if not given")
    demo.add_argument("--out", type=Path, default=Path("demo"), help="folder for video and contact sheet")
    demo.add_argument("--window", choices=("auto", "yes", "no"), default="auto", help="open a window")
    _overlay_flags(demo)

    live = _command(commands, "live", _live, "the webcam app: camera and microphone, live")
    live.add_argument("--camera", action="append", help="index, name, device, file, URL or none; repeatable")
    live.add_argument("--mic", action="append", help="default, index, name or none; repeatable")
    live.add_argument("--size", help="picture size to ask for, such as 1280x720")
    live.add_argument("--fps", type=float, help="pictures a second to ask for")
    live.add_argument(
        "--sink",
        action="append",
        help="window, a .mp4 .jsonl .csv .png file, or - for cues on stdout; repeatable",
    )
    live.add_argument("--seconds", type=float, help="stop after so many seconds")
    _overlay_flags(live)

    analyze = _command(commands, "analyze", _analyze, "files in lock-step, nothing skipped")
    analyze.add_argument("files", nargs="+", type=Path, metavar="FILE")
    analyze.add_argument(
        "--cues", metavar="OUT.jsonl", help="every cue, one JSON object a line; - for stdout"
    )
    analyze.add_argument("--csv", metavar="OUT.csv", help="the same as a table")
    analyze.add_argument(
        "--overlay", dest="overlay_video", metavar="OUT.mp4", help="the picture with overlay"
    )
    analyze.add_argument("--plot", metavar="OUT.png", help="a timeline of all tracks")
    analyze.add_argument("--sheet", metavar="OUT.png", help="a contact sheet of drawn pictures")

    predict = _command(commands, "predict", _predict, "pictures, sound, videos, folders: one line per file")
    predict.add_argument("paths", nargs="+", type=Path, metavar="PATH")
    predict.add_argument("--json", action="store_true", help="one JSON object a line")
    predict.add_argument("--cropped", action="store_true", help="the pictures are face crops already")


def _add_tools(commands: Any) -> None:
    fetch = _command(commands, "fetch", _fetch, "bring the face detector's files, once")
    fetch.add_argument("--to", type=Path, help="folder, instead of the user's cache")

    doctor = _command(commands, "doctor", _doctor, "what works here, what does not, and what mends it")
    doctor.add_argument("--json", action="store_true", help="machine-readable")

    export = _command(commands, "export", _export, "write a network as ONNX with its manifest")
    export.add_argument("kind", choices=("face", "voice", "fusion"))
    export.add_argument("--preset", default="live")
    export.add_argument("--out", type=Path, default=Path("exported"), metavar="DIR")
    export.add_argument("--seed", type=int, default=0, help="of the random weights")

    build = _command(commands, "build", _build, "make the faster forms of the networks for this machine")
    build.add_argument("--precision", default="int8", help="of: int8; fp32 and fp16 plans need the GPU path")

    engines = commands.add_parser("engines", help="list or compare engines")
    tools = engines.add_subparsers(required=True, metavar="list|compare")
    _command(tools, "list", _engines_list, "the engines that work here, and why the others do not")
    compare = _command(tools, "compare", _engines_compare, "largest difference of two engines, and a verdict")
    compare.add_argument("a", metavar="A", help="the truth: an engine such as onnx, or FOLDER:onnx")
    compare.add_argument("b", metavar="B", help="the engine to judge, such as onnx-int8 or FOLDER:onnx-int8")
    compare.add_argument("--kind", choices=("face", "voice", "fusion"), default="face")
    compare.add_argument("--items", type=int, default=64, help="inputs to compare on")


def _add_learning(commands: Any) -> None:
    train = _command(commands, "train", _train, "train a network; needs the extra 'train'")
    train.add_argument("kind", choices=("face", "voice"))
    train.add_argument("--data", type=Path, required=True, help="folder with the corpora")
    train.add_argument("--out", type=Path, metavar="DIR", help="checkpoints and results; trained/KIND")
    train.add_argument("--preset", default="live")
    train.add_argument("--smoke", action="store_true", help="a small part of all, to see that it works")
    train.add_argument("--seed", type=int, default=0)
    train.add_argument("--epochs", type=int)
    train.add_argument("--hours", type=float, default=math.inf, help="stop after; the same command goes on")

    evaluate = _command(commands, "evaluate", _evaluate, "judge networks on people they never saw")
    evaluate.add_argument("--data", type=Path, required=True, help="folder with the corpora")
    evaluate.add_argument("--kind", choices=("face", "voice"), help="one of them instead of both")
    evaluate.add_argument("--out", type=Path, metavar="DIR", help="folder for tables and pictures")


def _command(commands: Any, name: str, run: Command, text: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(
        name, help=text, description=text.capitalize() + "."
    )
    parser.set_defaults(command=run)
    parser.add_argument("--config", type=Path, help="TOML file with settings")
    parser.add_argument("--log-level", choices=("debug", "info", "warning", "error"))
    parser.add_argument("--engine", choices=ENGINE_CHOICES, help="what runs the networks")
    parser.add_argument("--weights", help="folder with other networks")
    parser.add_argument("--threads", type=int, help="processor threads of each network")
    parser.add_argument("--face-model", help="folder with the face detector's files")
    return parser


def _overlay_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--overlay", choices=OVERLAY_MODES, help="wait for results (locked) or not (late)")
    parser.add_argument("--mirror", action="store_const", const=True, help="show the picture as in a mirror")
    parser.add_argument(
        "--require-gpu", action="store_const", const=True, help="refuse to fall back to the CPU"
    )


if __name__ == "__main__":
    sys.exit(main())
