"""Measures what this machine's GPU does with the networks: one command, out of a checkout, without
installing.

    python benchmarks/gpu/run.py --networks DIR --minutes 7 --out DIR

`DIR` of the networks may be left out: then it is the shipped ones. The same as `liveaffect bench gpu`. With
`--dry-run` the same lines are walked on the host's memory with a scripted TensorRT and with torch on the
CPU, on tiny networks; nothing is measured, and the page says so.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # this checkout, whatever is installed

from liveaffect.bench import gpu
from liveaffect.engines import manifest as manifests
from liveaffect.engines.manifest import Manifest
from liveaffect.engines.protocol import EngineError
from liveaffect.engines.slots import SlotEngine

DRY = gpu.Effort(calls=3, queued=2, paced_s=0.1, trial_s=0.05, most_streams=2, items=4, pictures=2)


def dry_networks() -> Path:
    """Tiny networks, written into a folder."""
    from liveaffect.realtime.testing import engines

    folder = Path(tempfile.mkdtemp(prefix="liveaffect-dry-"))
    for kind in manifests.KINDS:
        engines.write_tiny(folder, kind)
    return folder


def dry_ways() -> list[gpu.Way]:
    """A scripted TensorRT, with and without graphs."""
    from liveaffect.engines.device_memory import HostMemory
    from liveaffect.engines.tensorrt_engine import RunOptions, TensorRTEngine
    from liveaffect.realtime.testing import gpu as absent

    def opened(found: Manifest, folder: Path, *, graphs: bool) -> SlotEngine:
        _, plan = absent.plan_of(folder, found.kind, (1, 4, 16, 64))
        options = RunOptions(graphs=graphs, owns_memory=True)
        backend = absent.backend()
        return TensorRTEngine(found, "fp16", plan, backend=backend, memory=HostMemory(), options=options)

    return [
        gpu.Way("scripted, graph", partial(opened, graphs=True)),
        gpu.Way("scripted, no graph", partial(opened, graphs=False)),
    ]


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, or walk; 1 where something broke or there is no GPU."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--networks", type=Path, help="folder of the networks (default: the shipped ones)")
    parser.add_argument("--minutes", type=float, default=7.0, help="nothing new is started after (default 7)")
    parser.add_argument("--out", type=Path, required=True, help="where gpu.json and gpu.html go")
    parser.add_argument("--dry-run", action="store_true", help="walk the same lines without a GPU")
    given = parser.parse_args(arguments)
    try:
        if given.dry_run:
            return gpu.run_gpu(
                given.networks or dry_networks(),
                given.minutes,
                given.out,
                say=lambda line: print(f"dry run, no GPU: {line}", flush=True),
                dry=(dry_ways(), DRY),
            )
        return gpu.run_gpu(
            given.networks or manifests.SHIPPED, given.minutes, given.out, say=partial(print, flush=True)
        )
    except EngineError as err:
        print(f"run: {err}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
