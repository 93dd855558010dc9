"""Commands that make scores mean something: calibrate and its parts.

Each part is two functions: one that names its flags, listed in `PARTS`, and one that runs it.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from realtime.run.commands import command, say, weights_of
from realtime.run.settings import Settings

INT8_LIMITS = {
    "points": "refuse to lose more percentage points of accuracy than this; 0.5",
    "flips": "refuse to call more per cent of the items otherwise than fp32; 2",
    "work": "share of the multiplications that may go back to fp32; 0.25",
}


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


def _int8_flags(parts: Any) -> None:
    int8 = command(parts, "int8", _int8, "the best INT8 form of the networks; needs the extra 'train'")
    int8.add_argument("--data", type=Path, required=True, help="folder with the corpora")
    int8.add_argument("--kind", choices=("face", "voice"), help="one of them instead of both")
    int8.add_argument("--out", type=Path, metavar="DIR", help="folder for tables")
    for name, text in INT8_LIMITS.items():
        int8.add_argument(f"--limit-{name.replace('_', '-')}", type=float, help=text)


def _int8(given: argparse.Namespace, settings: Settings) -> int:
    from realtime.run.calibrations.int8 import KINDS, Wanted, calibrate

    limits = {name: getattr(given, f"limit_{name}") for name in INT8_LIMITS}
    wanted = Wanted(
        data=given.data,
        kinds=(given.kind,) if given.kind else KINDS,
        weights=weights_of(settings),
        out=given.out,
        limits={name: limit for name, limit in limits.items() if limit is not None},
    )
    calibrate(wanted, say)
    return 0


def _baseline_flags(parts: Any) -> None:
    text = "make a personal profile from some seconds of a neutral face and voice"
    baseline = command(parts, "baseline", _baseline, text)
    baseline.add_argument("--profile", required=True, metavar="NAME", help="what to call it")
    baseline.add_argument("--camera", action="append", help="index, name, device or none")
    baseline.add_argument("--mic", action="append", help="default, index, name or none")
    baseline.add_argument("--seconds", type=float, help="how long; 5 if not given")
    baseline.add_argument("--file", type=Path, help="from a film of the person instead")


def _baseline(given: argparse.Namespace, settings: Settings) -> int:
    from realtime.run.calibrations.baseline import make_profile

    sys.stdout.write(make_profile(settings, given.file, say) + "\n")
    return 0


def _profile_list(given: argparse.Namespace, settings: Settings) -> int:
    from realtime.run.calibrations import profiles

    sys.stdout.write("".join(f"{line}\n" for line in profiles.listing()))
    return 0


def _profile_erase(given: argparse.Namespace, settings: Settings) -> int:
    from realtime.run.calibrations import profiles

    profiles.erase(given.name)
    say(f"profile '{given.name}' is erased")
    return 0


def _confidence_flags(parts: Any) -> None:
    confidence = command(
        parts,
        "confidence",
        _confidence,
        "make a confidence of 0.9 mean right nine times in ten; needs the extra 'train'",
    )
    confidence.add_argument("--data", type=Path, required=True, help="folder with the corpora")
    confidence.add_argument("--out", type=Path, metavar="DIR", help="folder for tables")


def _confidence(given: argparse.Namespace, settings: Settings) -> int:
    from realtime.run.calibrations.confidence import calibrate, wanted

    return calibrate(wanted(given.data, weights_of(settings), given.out), settings, say)


def _report_flags(parts: Any) -> None:
    report = command(parts, "report", _report, "one page with everything that was measured, before and after")
    report.add_argument("--out", type=Path, default=Path("report.html"), metavar="PAGE.html")
    report.add_argument("--results", type=Path, metavar="DIR", help="folder with tables; docs/results")


def _report(given: argparse.Namespace, settings: Settings) -> int:
    from realtime.run.calibrations.report import RESULTS, write

    write(given.out, given.results or RESULTS, weights_of(settings), say)
    return 0


PARTS: tuple[Callable[[Any], None], ...] = (
    _confidence_flags,
    _int8_flags,
    _av_flags,
    _baseline_flags,
    _report_flags,
)
"""Add the parts of `calibrate`, each to the same sub-parsers."""


def add(commands: Any) -> None:
    """Their names and flags."""
    calibrate = commands.add_parser("calibrate", help="make scores mean something: see its parts")
    parts = calibrate.add_subparsers(required=True, metavar="PART")
    for part in PARTS:
        part(parts)
    profile = commands.add_parser("profile", help="list or erase personal profiles")
    tools = profile.add_subparsers(required=True, metavar="list|erase")
    command(tools, "list", _profile_list, "the personal profiles, and what each holds")
    erase = command(tools, "erase", _profile_erase, "remove a personal profile so that nothing is left of it")
    erase.add_argument("name", metavar="NAME")
