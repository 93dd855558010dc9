"""`liveaffect bench`: measurements of this machine in minutes, and whether they got worse."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from liveaffect.commands import command
from liveaffect.progress import say, working
from liveaffect.settings import Settings


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
            one.add_argument("--cameras", default="1,2,4,8,16", help="numbers of cameras")
            one.add_argument("--seconds", type=float, default=20.0, help="for each number of cameras")
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

    with working("measuring"):
        if given.what == "streams":
            cameras = tuple(int(one) for one in given.cameras.split(","))
            rows = runs.stream_rows(cameras, given.seconds, settings, say)
        else:
            rows = runs.rows_of(given.what, settings, getattr(given, "data", None), say)
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
