"""Measures what this machine's GPU does with the networks: one command, out of a checkout, uninstalled.

    python benchmarks/gpu/run.py --networks DIR --minutes 7 --out DIR

`DIR` of the networks may be left out: then it is the shipped ones. The same as `liveaffect bench gpu`.
"""

from __future__ import annotations

import argparse
import sys
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # this checkout, whatever is installed

from liveaffect.bench import gpu
from liveaffect.engines.manifest import SHIPPED
from liveaffect.engines.protocol import EngineError


def main() -> int:
    """Measure; 1 where something broke or there is no GPU."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--networks", type=Path, default=SHIPPED, help="default: the shipped ones")
    parser.add_argument("--minutes", type=float, default=7.0, help="nothing new is started after")
    parser.add_argument("--out", type=Path, required=True, help="where gpu.json and gpu.html go")
    given = parser.parse_args()
    try:
        return gpu.run_gpu(given.networks, given.minutes, given.out, say=partial(print, flush=True))
    except EngineError as err:
        print(f"run: {err}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
