"""Analyse a video or sound file and write a table with one row for each person and tenth of a second.

    python file_to_csv.py FILM OUT.csv

Cues come while the file is read, so a film of hours needs no more memory than a short one.
"""

from __future__ import annotations

import csv
import sys

import liveaffect


def main(film: str, out: str) -> None:
    """Write the table."""
    with open(out, "w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["seconds", "person", "label", "confidence", *liveaffect.LABELS])
        for cue in liveaffect.analyze(film):
            shares = [f"{share:.3f}" for share in cue.fused]
            table.writerow([cue.t, cue.track, cue.label, f"{cue.confidence:.3f}", *shares])


if __name__ == "__main__":
    main(*sys.argv[1:])
