"""Tables of what speaks for the design: the same training with other blocks, and with other kinds of network.

The published line of work gives branches to its face network in training and hierarchical attention to one of
its voice networks. Both are judged here by trainings of equal length, on people that were not trained on.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

from liveaffect.engines.training import voice_tables
from liveaffect.engines.training.results_tables import Maker, table

FOLDER = "designs"
_TAUGHT = re.compile(r"taught by [1-9]")
FACES = {"live": "RepVGG: three branches, folded into one for use", "live-vgg": "VGG: one branch"}
VOICES = {
    "live-wide": "convolutions over 2.4 s",
    "live-fcn": "convolutions over 0.8 s",
    "live": "hierarchical attention over 0.4 s",
}


def faces(results: Path) -> str:
    """The calibrate side behind every epoch, block against block."""
    logs = {
        preset: [
            json.loads(line) for line in (results / FOLDER / f"face-{preset}.jsonl").read_text().splitlines()
        ]
        for preset in FACES
    }
    epochs = min(len(log) for log in logs.values())
    cells = [
        (
            f"{preset}, {FACES[preset]}",
            *(f"{row['accuracy']:.3f} / {row['recall']:.3f}" for row in log[:epochs]),
        )
        for preset, log in logs.items()
    ]
    return table(("blocks", *(f"epoch {at}" for at in range(1, epochs + 1))), cells)


def voices(results: Path) -> str:
    """The first fold, every network with one seed, without teachers."""
    cells = []
    for preset, what in VOICES.items():
        folder = results / (voice_tables.FOLDER if preset == "live-wide" else f"{FOLDER}/{preset}")
        for run in map(voice_tables.read, sorted(folder.glob("fold-0-seed*.csv"))):
            if _TAUGHT.search(run.told):
                continue
            found = []
            for corpus in ("ravdess", "nemo"):
                at = run.of(corpus)
                found += [
                    f"{voice_tables.judged(run, at).unweighted_recall:.3f}",
                    f"{voice_tables.recall(run.truth[at], run.called_after['after_1s'][at]):.3f}",
                ]
            cells.append((f"{preset}, {what}, seed {run.seed}", *found))
    heads = [f"{corpus}, {what}" for corpus in ("ravdess", "nemo") for what in ("whole", "after 1 s")]
    return table(("network", *heads), cells)


MAKERS: dict[str, Maker] = {"design faces": faces, "design voices": voices}
