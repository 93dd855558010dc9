"""Follow a file of cues while another program writes it, like `tail -f`, and print what people show.

    liveaffect live --sink cues.jsonl       in one terminal
    python follow_cues.py cues.jsonl        in another

Every line of the file is whole when it appears; this reader only has to wait for its end. With a second
argument it stops when nothing was written for so many seconds.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator


def follow(path: str, patience_s: float) -> Iterator[str]:
    """The lines of a growing file, each when it is complete."""
    with open(path, encoding="utf-8") as file:
        line, last = "", time.monotonic()
        while time.monotonic() - last < patience_s:
            line += file.readline()
            if line.endswith("\n"):
                yield line
                line, last = "", time.monotonic()
            else:
                time.sleep(0.05)


def main(path: str, patience: str = "inf") -> None:
    """Print every cue that has a label."""
    for line in follow(path, float(patience)):
        cue = json.loads(line)
        if cue["label"] != "not sure":
            who = "somebody out of view" if cue["track"] is None else f"person {cue['track']}"
            print(f"{cue['t']:7.1f} s  {who}: {cue['label']}", flush=True)


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except KeyboardInterrupt:
        print("stopped")
