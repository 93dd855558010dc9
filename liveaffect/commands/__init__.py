"""The commands in groups, each a small function that imports what it needs when it is called.

So neither `--help` nor the first picture waits for libraries that only other commands use. Results go to
standard output, everything said to the person at the keyboard to standard error.
"""

from __future__ import annotations

import argparse
import copy
import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

from liveaffect.settings import ENGINE_CHOICES, SERVERS, VOICE_CHOICES, Settings

USUAL_PRESETS = {"face": "live", "voice": "student", "fusion": "late-masked"}
"""The networks of the package."""

Run = Callable[[argparse.Namespace, Settings], int]


class WithDefaults(argparse.HelpFormatter):
    """Help that says what a flag is when it is not given, also where only the settings know it."""

    def add_argument(self, action: argparse.Action) -> None:
        """One flag, with its default behind its text."""
        default = _default_of(action)
        said = action.help or ""
        if (
            default
            and said is not argparse.SUPPRESS
            and "if not given" not in said
            and "default:" not in said
        ):
            shown = copy.copy(action)
            shown.help = f"{said} (default: {default.replace('%', '%%')})".strip()
            super().add_argument(shown)
        else:
            super().add_argument(action)


def count(text: str) -> int:
    """A flag's whole number, 1 or more."""
    try:
        if (found := int(text)) > 0:
            return found
    except ValueError:
        pass
    raise argparse.ArgumentTypeError(f"a whole number of 1 or more is wanted, not '{text}'")


def counts(text: str) -> tuple[int, ...]:
    """Several of them with commas."""
    return tuple(count(one) for one in text.split(","))


def amount_up_to(most: float) -> Callable[[str], float]:
    """A flag's number between nought and that."""

    def amount(text: str) -> float:
        try:
            if 0 <= (found := float(text)) <= most:
                return found
        except ValueError:
            pass
        raise argparse.ArgumentTypeError(f"a number from 0 to {most:g} is wanted, not '{text}'")

    return amount


_IN_WORDS = {
    "camera": "0",
    "sink": "window",
    "weights": "those of the package",
    "face_model": "the user's cache",
    "profile": "none",
    "seconds": "no end",
    "mic": "default, none with a film",
    "mirror": "no",
    "verbose": "no",
    "require_gpu": "no",
    "token": "none",
    "pair": "none",
    "transcript": "no",
    "send_sound": "no",
    "site": "none",
    "server_ca": "the system's",
    "server_cert": "none",
    "server_key": "none",
}
"""Defaults of settings that say nothing as they stand."""


def _default_of(action: argparse.Action) -> str:
    if not action.option_strings or action.required or action.default is argparse.SUPPRESS:
        return ""
    if action.default is None:
        known = {field.name: field.default for field in dataclasses.fields(Settings)}
        return _IN_WORDS.get(action.dest) or str(known.get(action.dest, ""))
    return "" if isinstance(action.default, bool) else str(action.default)


def command(commands: Any, name: str, run: Run, text: str) -> argparse.ArgumentParser:
    """A command with the flags that all of them have."""
    parser: argparse.ArgumentParser = commands.add_parser(
        name, help=text, description=f"{text[0].upper()}{text[1:]}.", formatter_class=WithDefaults
    )
    parser.set_defaults(command=run)
    parser.add_argument("--config", type=Path, help="TOML file with settings")
    parser.add_argument(
        "--log-level", choices=("debug", "info", "warning", "error"), help="what is logged to stderr"
    )
    parser.add_argument(
        "-v", "--verbose", action="store_const", const=True, help="say why each network runs where it runs"
    )
    parser.add_argument(
        "--engine",
        type=_engine,
        metavar="ENGINE",
        help=f"what runs the networks: {', '.join(ENGINE_CHOICES)}, or {SERVERS}HOST:8001[,HOST2...]",
    )
    parser.add_argument("--voice", choices=VOICE_CHOICES, help="which voice network; full: on Whisper")
    parser.add_argument("--weights", help="folder with other networks")
    parser.add_argument("--threads", type=int, help="processor threads of each network")
    parser.add_argument("--face-model", help="folder with the face detector's files")
    return parser


def _engine(text: str) -> str:
    if text not in ENGINE_CHOICES and not text.startswith(SERVERS):
        raise argparse.ArgumentTypeError(
            f"'{text}' is no engine; choose from {', '.join(ENGINE_CHOICES)}, or {SERVERS}HOST:8001"
        )
    return text
