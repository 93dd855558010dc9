"""Draw the golden pictures anew: python tests/golden/bless.py [NAME...]

Only what changed is written, and files of scenes that no longer exist are removed. Look at every picture
before it is committed: blessing is saying that it is right.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from liveaffect.realtime.testing.scenes import GOLDEN, load_golden, save_golden

FOLDER = Path(__file__).resolve().parent


def main(names: list[str]) -> int:
    """Write the named pictures, or all."""
    if unknown := [name for name in names if name not in GOLDEN]:
        sys.stderr.write(f"no such scene: {', '.join(unknown)}. There are: {', '.join(GOLDEN)}\n")
        return 2
    for name in names or GOLDEN:
        path = FOLDER / f"{name}.png"
        picture = GOLDEN[name]()
        if path.exists() and np.array_equal(load_golden(path), picture):
            continue
        save_golden(path, picture)
        sys.stdout.write(f"wrote {path.name}\n")
    for path in FOLDER.glob("*.png"):
        if path.stem not in GOLDEN:
            path.unlink()
            sys.stdout.write(f"removed {path.name}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
