"""Commands that make scores mean something: calibrate and its parts.

Each part is two functions: one that names its flags, listed in `PARTS`, and one that runs it.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from realtime.run.commands import command, say
from realtime.run.settings import Settings


def _av_flags(parts: Any) -> None:
    av = command(
        parts, "av", _av, "measure how far the sound of a microphone lies behind the camera's picture"
    )
    av.add_argument("--camera", action="append", help="index, name or device; the first one if not given")
    av.add_argument("--mic", action="append", help="default, index or name")
    av.add_argument("--clap", action="store_true", help="by clapping instead of speaking")
    av.add_argument("--seconds", type=float, help="how long to listen; 20 if not given")
    av.add_argument("--file", type=Path, help="measure a film instead; nothing is kept")
    av.add_argument("--list", action="store_true", help="what was measured so far")
    av.add_argument("--erase", choices=("pair", "all"), help="forget this pair of devices, or all")


def _av(given: argparse.Namespace, settings: Settings) -> int:
    from realtime.run.calibrations import av

    if given.list:
        sys.stdout.write("".join(f"{line}\n" for line in av.listing()))
    elif given.erase:
        say(av.forget(settings, everything=given.erase == "all"))
    elif given.file is not None:
        sys.stdout.write(av.in_words(av.measure_file(given.file, settings, clap=given.clap)) + "\n")
    else:
        sys.stdout.write(av.measure_and_keep(settings, clap=given.clap, say=say) + "\n")
    return 0


PARTS: tuple[Callable[[Any], None], ...] = (_av_flags,)
"""Add the parts of `calibrate`, each to the same sub-parsers."""


def add(commands: Any) -> None:
    """Their names and flags."""
    calibrate = commands.add_parser("calibrate", help="make scores mean something: see its parts")
    parts = calibrate.add_subparsers(required=True, metavar="PART")
    for part in PARTS:
        part(parts)
