"""Commands that make scores mean something: calibrate and its parts.

Each part is two functions: one that names its flags, listed in `PARTS`, and one that runs it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

PARTS: tuple[Callable[[Any], None], ...] = ()
"""Add the parts of `calibrate`, each to the same sub-parsers."""


def add(commands: Any) -> None:
    """Their names and flags."""
    calibrate = commands.add_parser("calibrate", help="make scores mean something: see its parts")
    parts = calibrate.add_subparsers(required=True, metavar="PART")
    for part in PARTS:
        part(parts)
