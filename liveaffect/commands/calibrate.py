"""Commands that make scores mean something: calibrate and its parts.

Each part is two functions: one that names its flags, listed in `PARTS`, and one that runs it.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from liveaffect.commands import command
from liveaffect.progress import LOADING, say, working
from liveaffect.realtime.errors import MissingLibrary, SettingsError
from liveaffect.settings import Settings

if TYPE_CHECKING:
    from liveaffect.calibration.av_offset import LiveRecording


class _CanOpen(Protocol):
    def open(self) -> object: ...
    def close(self) -> object: ...


Openable = TypeVar("Openable", bound=_CanOpen)

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
    from liveaffect.calibration import av_offset as av
    from liveaffect.realtime import device_pairs
    from liveaffect.realtime.blazeface import make_finder
    from liveaffect.realtime.replay import MediaFile

    if given.list:
        sys.stdout.write("".join(f"{line}\n" for line in av.list_offsets()))
    elif given.erase == "all":
        device_pairs.erase_pair(None, None)
        say("all offsets are erased")
    elif given.erase:
        gone = device_pairs.erase_pair(*_device_names(settings))
        say(f"erased: {gone} of this pair")
    elif given.file is not None:
        finders = None if given.clap else make_finder(settings.face_files)
        with opened(MediaFile(given.file)) as media, working("measuring"):
            offset = av.measure_offset(media, finders, clap=given.clap)
        sys.stdout.write(av.offset_in_words(offset) + "\n")
    else:
        sys.stdout.write(_measure_devices(settings, clap=given.clap) + "\n")
    return 0


def _measure_devices(settings: Settings, *, clap: bool) -> str:
    """Measure the camera and the microphone of the settings, keep it, and say what came of it."""
    from liveaffect.calibration import av_offset as av
    from liveaffect.calibration.av_offset import LiveRecording
    from liveaffect.realtime import device_pairs
    from liveaffect.realtime.blazeface import make_finder
    from liveaffect.realtime.clock import MonotonicClock
    from liveaffect.webcam import feeds_of

    names = _device_names(settings)
    clock = MonotonicClock()
    # What was stored before must not bend what is measured now.
    feeds = feeds_of(replace(settings, av_offset="0"), clock)
    finders = None if clap else make_finder(settings.face_files)
    seconds = settings.seconds or av.SECONDS
    doing = "clap about once a second, not evenly" if clap else "speak, with your face in view, alone"
    say(f"for {seconds:.0f} seconds: {doing}")
    with opened(LiveRecording(feeds, clock, seconds)) as recording, working("measuring", seconds):
        offset = av.measure_offset(recording, finders, clap=clap)
    device_pairs.store_pair(device_pairs.Pair(*names, offset.ns, offset.method, round(offset.confidence, 3)))
    return f"{av.offset_in_words(offset)}; kept for {names[0]} with {names[1]}"


def _device_names(settings: Settings) -> tuple[str, str]:
    """What the one camera and the one microphone of the settings call themselves."""
    from liveaffect.realtime.device_pairs import camera_name, microphone_name

    cameras = [name for name in settings.camera if name != "none"]
    microphones = settings.microphones
    if len(cameras) != 1 or len(microphones) != 1:
        raise SettingsError(
            "an offset is between one camera and one microphone; name one each: --camera 0 --mic default"
        )
    return camera_name(cameras[0]), microphone_name(microphones[0])


@contextmanager
def opened(source: Openable) -> Iterator[Openable]:
    """A source or a recording that is open inside."""
    source.open()
    try:
        yield source
    finally:
        source.close()


def _int8_flags(parts: Any) -> None:
    int8 = command(
        parts, "int8", _calibrate_int8, "the best INT8 form of the networks; needs the extra 'train'"
    )
    int8.add_argument("--data", type=Path, required=True, help="folder with the corpora")
    int8.add_argument("--kind", choices=("face", "voice"), help="one of them instead of both")
    int8.add_argument("--out", type=Path, metavar="DIR", help="folder for tables")
    for name, text in INT8_LIMITS.items():
        int8.add_argument(f"--limit-{name.replace('_', '-')}", type=float, help=text)


def _calibrate_int8(given: argparse.Namespace, settings: Settings) -> int:
    try:
        from liveaffect.calibration.int8 import KINDS, Int8Options, calibrate_int8
    except ImportError as err:
        raise MissingLibrary(
            f"calibrating INT8 needs the extra 'train' ({err}): uv sync --inexact --extra train"
        ) from err
    limits = {name: getattr(given, f"limit_{name}") for name in INT8_LIMITS}
    options = Int8Options(
        data=given.data,
        kinds=(given.kind,) if given.kind else KINDS,
        weights=settings.weights_folder,
        out=given.out,
        limits={name: limit for name, limit in limits.items() if limit is not None},
    )
    with working("calibrating"):
        calibrate_int8(options, say)
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
    from liveaffect.calibration.baseline import SECONDS, baseline_in_words, measured
    from liveaffect.realtime.profile import check_profile_name, network_names, save_profile
    from liveaffect.realtime.replay import MediaFile

    if not settings.profile:
        raise SettingsError("a profile has a name: --profile NAME")
    check_profile_name(settings.profile)
    with working(LOADING):
        tools = replace(settings, profile="").load_tools(say)
    networks = network_names(tools.networks, settings.weights_folder)
    if given.file is not None:
        film = MediaFile(given.file, video=settings.camera != ("none",), audio=settings.mic != ("none",))
        with opened(film), working("measuring"):
            wanted = [kind for kind, there in (("face", film.has_video), ("voice", film.has_audio)) if there]
            baseline = measured(film, tools, networks, wanted)
    else:
        seconds = settings.seconds or SECONDS
        recording, wanted = _one_person(settings, seconds)
        with opened(recording), working("measuring", seconds):
            baseline = measured(recording, tools, networks, wanted)
    path = save_profile(settings.profile, baseline)
    sys.stdout.write(f"profile '{settings.profile}' is kept in {path}: {baseline_in_words(baseline)}\n")
    return 0


def _one_person(settings: Settings, seconds: float) -> tuple[LiveRecording, list[str]]:
    """The first camera and the first microphone of the settings, and what they are to show."""
    from liveaffect.calibration.av_offset import LiveRecording
    from liveaffect.realtime.clock import MonotonicClock
    from liveaffect.webcam import feeds_of

    cameras = [name for name in settings.camera if name != "none"][:1]
    microphones = settings.microphones[:1]
    if not cameras and not microphones:
        raise SettingsError("neither a camera nor a microphone: both are 'none', so nobody can be measured")
    clock = MonotonicClock()
    feeds = feeds_of(
        replace(settings, camera=tuple(cameras) or ("none",), mic=tuple(microphones) or ("none",)), clock
    )
    say(f"for {seconds:.0f} seconds: a neutral face to the camera, and speak in your ordinary voice")
    return LiveRecording(feeds, clock, seconds), ["face"] * len(cameras) + ["voice"] * len(microphones)


def _profile_list(given: argparse.Namespace, settings: Settings) -> int:
    from liveaffect.realtime import profile as profiles

    sys.stdout.write("".join(f"{line}\n" for line in profiles.profiles_in_words()))
    return 0


def _profile_erase(given: argparse.Namespace, settings: Settings) -> int:
    from liveaffect.realtime import profile as profiles

    profiles.erase_profile(given.name)
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
    from liveaffect.engines.load import FULL

    with working("calibrating"):
        from liveaffect.calibration.fit_confidence import calibrate_confidence, wanted

        return calibrate_confidence(
            wanted(given.data, settings.weights_folder, given.out, full=settings.voice == FULL),
            say,
            engine=settings.engine,
            threads=settings.threads,
            face_files=settings.face_files,
        )


def _report_flags(parts: Any) -> None:
    report = command(parts, "report", _report, "one page with everything that was measured, before and after")
    report.add_argument("--out", type=Path, default=Path("report.html"), metavar="PAGE.html")
    report.add_argument("--results", type=Path, metavar="DIR", help="folder with tables; docs/results")


def _report(given: argparse.Namespace, settings: Settings) -> int:
    with working("writing the report"):
        from liveaffect.calibration.report import RESULTS, write_report

        write_report(given.out, given.results or RESULTS, settings.weights_folder, say)
    return 0


PARTS: tuple[Callable[[Any], None], ...] = (
    _confidence_flags,
    _int8_flags,
    _av_flags,
    _baseline_flags,
    _report_flags,
)
"""Add the parts of `calibrate`, each to the same sub-parsers."""


def add_calibration(commands: Any) -> None:
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
