"""Commands that watch and listen: demo, live, analyze, predict."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from liveaffect.commands import command
from liveaffect.progress import LOADING, say, working
from liveaffect.realtime.errors import MissingLibrary
from liveaffect.settings import OVERLAY_MODES, Settings

WINDOW_KEYS = "Keys in the window: q quit, f full screen, m mirror, l wait for results or not, h keys."


def add_watching(commands: Any) -> None:
    """Their names and flags."""
    demo = command(commands, "demo", _demo, "the whole path without camera or microphone")
    demo.epilog = WINDOW_KEYS
    demo.add_argument("--seconds", type=float, help="length of the demo; 12 if not given")
    demo.add_argument("--out", type=Path, default=Path("demo"), help="folder for video and contact sheet")
    demo.add_argument("--window", choices=("auto", "yes", "no"), default="auto", help="open a window")
    _spoken_flags(demo)
    _overlay_flags(demo)

    _add_live(commands)
    _add_serve(commands)

    analyze = command(commands, "analyze", _analyze, "files in lock-step, nothing skipped")
    analyze.add_argument("files", nargs="+", type=_named_path, metavar="PATH", help="films, sounds, folders")
    analyze.add_argument(
        "--cues", metavar="OUT.jsonl", help="every cue, one JSON object a line; - for stdout"
    )
    analyze.add_argument("--csv", metavar="OUT.csv", help="the same as a table")
    analyze.add_argument(
        "--overlay", dest="overlay_video", metavar="OUT.mp4", help="the picture with overlay"
    )
    analyze.add_argument("--plot", metavar="OUT.png", help="a timeline of all tracks")
    analyze.add_argument("--sheet", metavar="OUT.png", help="a contact sheet of drawn pictures")
    _notice_flag(analyze)
    _personal_flags(analyze)
    _spoken_flags(analyze)

    predict = command(commands, "predict", _predict, "pictures, sound, videos, folders: one line per file")
    predict.add_argument("paths", nargs="+", type=_named_path, metavar="PATH")
    predict.add_argument("--json", action="store_true", help="one JSON object a line")
    predict.add_argument("--cropped", action="store_true", help="the pictures are face crops already")
    _spoken_flags(predict)


def _add_live(commands: Any) -> None:
    live = command(commands, "live", _live, "the webcam app: camera and microphone, live")
    live.epilog = WINDOW_KEYS
    live.add_argument(
        "--camera",
        action="append",
        help="index, name, device, file, URL, screen, screen:x,y,w,h, window:NAME or none, "
        "or NAME=URL to call it otherwise; repeatable",
    )
    live.add_argument(
        "--mic",
        action="append",
        help="default, index, name, file, output (what the loudspeaker plays) or none; repeatable. "
        "Not given: the default one, none with a film",
    )
    live.add_argument("--pair", action="append", help="CAMERA=MIC: whom a microphone hears; repeatable")
    live.add_argument("--size", help="picture size to ask for, such as 1280x720")
    live.add_argument("--fps", type=float, help="pictures a second to ask for")
    live.add_argument(
        "--site", help="watch as a node of that name: many cameras, no screen; see docs/fleet.md"
    )
    live.add_argument("--decoder", help="of network cameras: auto, software, cuda, vaapi, qsv")
    live.add_argument("--host", help="a node: where /metrics and /healthz are; not loopback wants a token")
    live.add_argument("--port", type=int, help="a node: their port")
    _output_flags(live)
    live.add_argument("--seconds", type=float, help="stop after so many seconds")
    _personal_flags(live)
    _spoken_flags(live)
    _overlay_flags(live)
    _server_flags(live)


def _add_serve(commands: Any) -> None:
    serve = command(commands, "serve", _serve, "a page for video calls, in the browser on this machine")
    serve.add_argument("--port", type=int, help="port on this machine; 0 takes any")
    serve.add_argument("--host", help="address to listen at; anything but loopback wants --token")
    serve.add_argument("--token", help="secret that pages must know; better: LIVEAFFECT_TOKEN")
    serve.add_argument("--seconds", type=float, help="stop after so many seconds")


def _output_flags(live: argparse.ArgumentParser) -> None:
    live.add_argument(
        "--sink",
        action="append",
        help="window, a .mp4 .jsonl .csv .png file, - for cues on stdout, camera (a virtual one), "
        "ws://127.0.0.1:8765, mqtt://HOST, nats://HOST, osc://HOST, lsl; repeatable",
    )
    _notice_flag(live)


def _notice_flag(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--notice",
        type=_yes_or_no,
        metavar="yes|no",
        help="mark pictures that leave the program: emotions are being analysed (default: yes)",
    )


def _server_flags(live: argparse.ArgumentParser) -> None:
    live.add_argument(
        "--send-sound", action="store_const", const=True, help="let servers have sound, not only face crops"
    )
    live.add_argument("--server-ca", metavar="FILE", help="certificates that servers may show")
    live.add_argument("--server-cert", metavar="FILE", help="what this machine shows to servers")
    live.add_argument("--server-key", metavar="FILE", help="the key of that")


def _yes_or_no(text: str) -> bool:
    if text not in ("yes", "no"):
        raise argparse.ArgumentTypeError(f"'{text}' is neither yes nor no")
    return text == "yes"


def _named_path(text: str) -> Path:
    """An empty name, such as that of a variable without a value, would mean the present folder."""
    if not text:
        raise argparse.ArgumentTypeError("an empty name names no file")
    return Path(text)


def _demo(given: argparse.Namespace, settings: Settings) -> int:
    from liveaffect.webcam import run_demo

    return run_demo(settings, seconds=settings.seconds or 12.0, out=given.out, window=given.window, say=say)


def _live(given: argparse.Namespace, settings: Settings) -> int:
    from liveaffect.webcam import run_live

    return run_live(settings, say)


def _serve(given: argparse.Namespace, settings: Settings) -> int:
    try:
        from liveaffect.serve import run_serve
    except ModuleNotFoundError as error:
        raise MissingLibrary(
            f"'liveaffect serve' needs {error.name}, of the extra 'web': uv sync --extra web, "
            "or pip install 'liveaffect[web]'"
        ) from error
    return run_serve(settings, say)


def _analyze(given: argparse.Namespace, settings: Settings) -> int:
    from liveaffect.files import OutputFiles, analyse_files, expand, table_of_failures
    from liveaffect.realtime.endings import SOUNDS, VIDEOS
    from liveaffect.realtime.sinks.catalogue import Kind, by_flag

    flags: tuple[tuple[Kind, str | None], ...] = (
        ("cues", given.cues),
        ("table", given.csv),
        ("video", given.overlay_video),
        ("timeline", given.plot),
        ("sheet", given.sheet),
    )
    named = tuple(by_flag(kind, name) for kind, name in flags if name is not None)
    wanted = OutputFiles(named, settings.notice)
    found = expand(given.files, (*VIDEOS, *SOUNDS))
    wanted.check(found.files)
    if (line := found.line()) is not None:
        say(line)
    failed = dict(found.failed)
    if found.files:
        with working(LOADING):
            tools = settings.load_tools(say)
        done = analyse_files(found.files, wanted, tools, later_ns=settings.av_offset_ns or 0, say=say)
        failed |= done.failed
    for line in table_of_failures(failed, len(found.files) + len(found.failed)):
        say(line)
    return 1 if failed else 0


def _predict(given: argparse.Namespace, settings: Settings) -> int:
    from liveaffect.files import expand, table_of_failures
    from liveaffect.prediction import predict_files
    from liveaffect.realtime.endings import PICTURES, SOUNDS, VIDEOS

    found = expand(given.paths, (*PICTURES, *SOUNDS, *VIDEOS))
    if (line := found.line()) is not None:
        say(line)
    failed = dict(found.failed)
    if found.files:
        with working(LOADING):
            tools = settings.load_tools(say)
        failed |= predict_files(found.files, tools, cropped=given.cropped, as_json=given.json)
    for line in table_of_failures(failed, len(found.files) + len(found.failed)):
        say(line)
    return 1 if failed else 0


def _personal_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--profile", metavar="NAME", help="personal profile of the only or largest face")
    parser.add_argument("--av-offset", metavar="MS", help="how much later sound is stamped than its picture")


def _whisper_named(name: str) -> str:
    """What stands behind --words. As that may be left out, a film that follows would be taken for it."""
    if Path(name).is_file():
        raise argparse.ArgumentTypeError(
            f"'{name}' is a file, and what may stand here is the name of a Whisper; put --words behind "
            "the files, or say --words auto"
        )
    return name


def _spoken_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--words",
        nargs="?",
        type=_whisper_named,
        const="auto",
        metavar="WHISPER",
        help="hear what is said: off, auto, tiny.en, base, or a folder; auto where it is and is carried",
    )
    parser.add_argument("--language", metavar="CODE", help="spoken language; tiny.en knows only en")
    parser.add_argument(
        "--transcript", action="store_const", const=True, help="write what was said into the cues"
    )


def _overlay_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--overlay", choices=OVERLAY_MODES, help="wait for results (locked) or not (late)")
    parser.add_argument("--mirror", action="store_const", const=True, help="show the picture as in a mirror")
    parser.add_argument(
        "--require-gpu", action="store_const", const=True, help="refuse to fall back to the CPU"
    )
