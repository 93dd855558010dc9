"""Commands about this machine: fetch, doctor, export, build, engines, and bench, which measures it."""

from __future__ import annotations

import argparse
import importlib.util
import sys
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any

from liveaffect.commands import USUAL_PRESETS, amount_up_to, command, count, counts
from liveaffect.progress import say, working
from liveaffect.realtime.errors import MissingFile, MissingLibrary, SettingsError
from liveaffect.settings import Settings


def add_machine(commands: Any) -> None:
    """Their names and flags."""
    fetch = command(commands, "fetch", _fetch, "bring the files that are not ours, once")
    fetch.add_argument("--to", type=Path, help="folder of the face detectors, instead of the user's cache")
    fetch.add_argument("--small", action="store_true", help="without Whisper (78 MB), for the small voice")
    fetch.add_argument("--words", metavar="WHISPER", help="another Whisper for words: base, or a folder")

    doctor = command(commands, "doctor", _doctor, "what works here, what does not, and what mends it")
    doctor.add_argument("--json", action="store_true", help="machine-readable")

    export = command(commands, "export", _export, "write a network as ONNX, or those there are for Triton")
    export.add_argument("kind", nargs="?", choices=("face", "voice", "fusion"))
    export.add_argument("--preset", help="which network; face live, voice student, fusion late-masked")
    export.add_argument("--out", type=Path, default=Path("exported"), metavar="DIR")
    export.add_argument("--seed", type=int, default=0, help="of the random weights")
    export.add_argument("--triton", type=Path, metavar="DIR", help="write Triton's model repository instead")
    export.add_argument(
        "--backend",
        choices=("onnx", "tensorrt", "python"),
        default="onnx",
        help="of Triton's, that runs them",
    )
    export.add_argument("--precision", choices=("fp32", "int8"), default="fp32", help="of Triton's networks")
    export.add_argument(
        "--delay-ms", type=amount_up_to(1000), default=2.0, help="how long Triton waits for more crops"
    )
    export.add_argument(
        "--instances", type=count, default=1, help="executions side by side on Triton's device"
    )
    export.add_argument("--gpu", action="store_true", help="Triton's device is a GPU")

    build = command(commands, "build", _build, "make the faster forms of the networks for this machine")
    build.add_argument(
        "--precision",
        default="int8",
        help="several with commas, of: int8 fp16 fp32 fp32-tf32 (default: int8)",
    )

    engines = commands.add_parser("engines", help="list or compare engines, remove plans")
    tools = engines.add_subparsers(required=True, metavar="list|compare|clean")
    command(tools, "list", _engines_list, "the engines that work here, and why the others do not; all plans")
    command(tools, "clean", _engines_clean, "remove all plans of TensorRT from the user's cache")
    compare = command(tools, "compare", _engines_compare, "largest difference of two engines, and a verdict")
    compare.add_argument("a", metavar="A", help="the truth: an engine such as onnx, or FOLDER:onnx")
    compare.add_argument("b", metavar="B", help="the engine to judge, such as onnx-int8 or FOLDER:onnx-int8")
    compare.add_argument("--kind", choices=("face", "voice", "fusion"), default="face")
    compare.add_argument("--items", type=count, default=64, help="inputs to compare on")


def _fetch(given: argparse.Namespace, settings: Settings) -> int:
    from liveaffect.fetch import fetch, fetch_whisper, fetch_words

    say(f"the face detector's files are in {fetch(given.to)}")
    if not given.small:
        try:
            say(f"the files of Whisper are in {fetch_whisper()}")
        except MissingFile as error:
            say(f"without Whisper, so words are not heard and the small voice network is used: {error}")
    if settings.words not in ("auto", "off"):
        say(f"words are heard with the files in {fetch_words(settings.words)}")
    return 0


def _doctor(given: argparse.Namespace, settings: Settings) -> int:
    from liveaffect.doctor import doctor

    return doctor(as_json=given.json, settings=settings)


def _export(given: argparse.Namespace, settings: Settings) -> int:
    if given.triton is not None:
        return _export_for_triton(given, settings)
    if given.kind is None:
        raise SettingsError("export what? name a kind of network, or --triton DIR for a model repository")
    if lacking := [name for name in ("torch", "onnx") if importlib.util.find_spec(name) is None]:
        raise MissingLibrary(f"export needs {' and '.join(lacking)}: uv sync --inexact --extra train")
    with working(f"writing the {given.kind} network"):
        from liveaffect.engines.build.export_onnx import export  # with torch, which takes its time
        from liveaffect.engines.model.presets import preset_names

        preset, known = given.preset or USUAL_PRESETS[given.kind], preset_names(given.kind)
        if preset not in known:
            raise SettingsError(f"no {given.kind} network is called '{preset}'; there are {', '.join(known)}")
        path = export(given.kind, preset, given.out, seed=given.seed)
    say(f"written: {path}")
    return 0


def _export_for_triton(given: argparse.Namespace, settings: Settings) -> int:
    from liveaffect.engines.build.triton_repository import KINDS, Serving, write_repository

    if given.kind not in (None, *KINDS):
        raise SettingsError(f"a {given.kind} network is too small for a server; it stays on the nodes")
    serving = Serving(
        given.backend, given.precision, round(1000 * given.delay_ms), given.instances, given.gpu
    )
    kinds = KINDS if given.kind is None else (given.kind,)
    write_repository(given.triton, serving, settings.weights_folder, say, kinds=kinds)
    return 0


def _build(given: argparse.Namespace, settings: Settings) -> int:
    from liveaffect.engines.overview import build_forms

    with working("building"):
        build_forms([name.strip() for name in given.precision.split(",")], settings.weights_folder, say)
    return 0


def _engines_list(given: argparse.Namespace, settings: Settings) -> int:
    from liveaffect.engines.overview import engine_lines, plan_lines

    lines = chain(engine_lines(settings.folders(say)), plan_lines(settings.weights_folder))
    while line := _next_of(lines):
        sys.stdout.write(line + "\n")
        sys.stdout.flush()
    return 0


def _next_of(lines: Iterator[str]) -> str | None:
    with working("trying the engines"):
        return next(lines, None)


def _engines_clean(given: argparse.Namespace, settings: Settings) -> int:
    from liveaffect.engines import plans

    count, freed = plans.clean()
    say(f"removed {count} files, {freed / 1e6:.1f} MB, from {plans.plans_dir()}")
    return 0


def _engines_compare(given: argparse.Namespace, settings: Settings) -> int:
    from liveaffect.engines.overview import compare_named

    with working("comparing"):
        report = compare_named(
            given.kind, given.a, given.b, weights=settings.weights_folder, items=given.items
        )
    sys.stdout.write("\n".join(report.lines()) + "\n")
    return 0 if report.alike else 1


def add_bench(commands: Any) -> None:
    """Its names and flags."""
    bench = commands.add_parser("bench", help="measure this machine, and compare two measurements")
    kinds = bench.add_subparsers(required=True, metavar="quick|full|latency|streams|gpu|peers|compare")
    for name, text in (
        ("quick", "stages, the whole path and the response to a changed face, in two minutes"),
        ("full", "the same for longer, and many sizes, rates, faces, loads, cameras, voices and words"),
        ("latency", "age of what is drawn, share of a core, and response to a changed face, voice, word"),
        ("streams", "how many cameras this machine carries, and what each costs"),
    ):
        one = command(kinds, name, _bench, text)
        one.set_defaults(what=name)
        one.add_argument("--out", type=Path, metavar="DIR", help="also write bench.json and bench.html there")
        if name in ("full", "latency"):
            one.add_argument(
                "--data", type=Path, metavar="DIR", help="acted voices to measure a changed voice with"
            )
        if name == "streams":
            one.add_argument("--cameras", type=counts, default="1,2,4,8,16", help="numbers of cameras")
            one.add_argument("--seconds", type=count, default=20, help="for each number of cameras")
    gpu = command(kinds, "gpu", _bench_gpu, "what an NVIDIA GPU does with the networks")
    gpu.add_argument("--networks", type=Path, metavar="DIR", help="default: the shipped ones")
    gpu.add_argument("--minutes", type=float, default=7.0, help="nothing new is started after")
    gpu.add_argument("--out", type=Path, default=Path("bench-gpu"), metavar="DIR")
    peers = command(kinds, "peers", _bench_peers, "other systems on the same pictures and the same sound")
    peers.add_argument("--only", help="names with commas, of those that are known")
    peers.add_argument("--data", type=Path, metavar="DIR", help="folder with weights that no package carries")
    peers.add_argument("--out", type=Path, default=Path("bench-peers"), metavar="DIR")
    compare = command(kinds, "compare", _bench_compare, "whether anything got slower; exit code 1 if so")
    compare.add_argument("before", type=Path, metavar="A", help="bench.json of one run, or its folder")
    compare.add_argument("after", type=Path, metavar="B")


def _bench(given: argparse.Namespace, settings: Settings) -> int:
    from liveaffect.bench import runs

    data: Path | None = getattr(given, "data", None)
    runs.refuse_what_fails_later(given.out, data)
    with working("measuring"):
        if given.what == "streams":
            rows = runs.stream_rows(given.cameras, given.seconds, settings, say)
        else:
            rows = runs.rows_of(given.what, settings, data, say)
    sys.stdout.write(runs.report(given.what, rows, given.out) + "\n")
    return 0


def _bench_gpu(given: argparse.Namespace, settings: Settings) -> int:
    from liveaffect.bench.gpu import run_gpu
    from liveaffect.engines.manifest import SHIPPED

    with working("measuring the GPU"):
        return run_gpu(given.networks or SHIPPED, given.minutes, given.out, say=say)


def _bench_peers(given: argparse.Namespace, settings: Settings) -> int:
    from liveaffect.bench import peers

    names = given.only.split(",") if given.only else None
    with working("measuring"):
        told = peers.run_peers(names, given.data, given.out, settings, say)
    sys.stdout.write(told + "\n")
    return 0


def _bench_compare(given: argparse.Namespace, settings: Settings) -> int:
    from liveaffect.bench.runs import judge_runs, read_run

    verdicts = judge_runs(read_run(given.before), read_run(given.after))
    sys.stdout.write("".join(f"{one.line}\n" for one in verdicts))
    return int(any(one.word == "worse" for one in verdicts))
