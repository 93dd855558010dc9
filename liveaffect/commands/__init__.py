"""The commands in groups, each a small function that imports what it needs when it is called.

So neither `--help` nor the first picture waits for libraries that only other commands use. Results go to
standard output, everything said to the person at the keyboard to standard error.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from liveaffect.settings import ENGINE_CHOICES, VOICE_CHOICES, Settings

Run = Callable[[argparse.Namespace, Settings], int]


def say(line: str) -> None:
    """A line for the person at the keyboard; results go to standard output, everything else here."""
    with contextlib.suppress(OSError):  # a terminal that is gone must not end a run that could go on
        sys.stderr.write(line + "\n")


def command(commands: Any, name: str, run: Run, text: str) -> argparse.ArgumentParser:
    """A command with the flags that all of them have."""
    parser: argparse.ArgumentParser = commands.add_parser(
        name, help=text, description=text.capitalize() + "."
    )
    parser.set_defaults(command=run)
    parser.add_argument("--config", type=Path, help="TOML file with settings")
    parser.add_argument("--log-level", choices=("debug", "info", "warning", "error"))
    parser.add_argument("--engine", choices=ENGINE_CHOICES, help="what runs the networks")
    parser.add_argument("--voice", choices=VOICE_CHOICES, help="which voice network; full: on Whisper")
    parser.add_argument("--weights", help="folder with other networks")
    parser.add_argument("--threads", type=int, help="processor threads of each network")
    parser.add_argument("--face-model", help="folder with the face detector's files")
    return parser
