"""The tables about faces and whole clips, made again from what the networks said about single items.

Each maker of a table takes the folder of the committed answers and gives the text that stands between its
marks in `docs/results.md`. No figure of a table is written by hand.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from liveaffect.engines import manifest as manifests
from liveaffect.engines.recipe import LABELS
from liveaffect.engines.training import evaluate_face
from liveaffect.engines.training.scores import (
    ENDING,
    markdown_table,
    read_tables,
    score,
    to_markdown,
    two_figures,
)

FACE = f"face{ENDING}"
ANSWERS, CONDITIONS, LIVE_CROP = "answers.csv", "conditions.csv", "live_crop.csv"
"""What that file holds."""
PORTRAITS, TALKERS, CURVE = "portraits.csv", "talkers.csv", "face_curve.jsonl"
DESIGNS = {"live": "RepVGG: three branches, folded into one for use", "live-vgg": "VGG: one branch"}
NOT_SURE = "not sure"
Maker = Callable[[Path], str]


def rows_of(text: str) -> list[dict[str, str]]:
    """A table of answers, one mapping a line."""
    return list(csv.DictReader(io.StringIO(text)))


def face_source(_: Path) -> str:
    """Which files were judged, and how they came about."""
    found = manifests.read(manifests.SHIPPED / "face.json")
    files = {name: digest[:12] for name, digest in found.files.items()}
    made = found.training
    before = made.get("after")
    begun = f" after {before['epochs']} of weights {before['weights'][:12]}" if before else ""
    return (
        f"Network `{found.name}`, fp32 file {files['face.onnx']}, INT8 file {files['face.int8.onnx']}, "
        f"seed {made['seed']}, {made['epochs']} epochs{begun} over {made['pictures']} pictures, "
        f"commit {made['commit']}.\n"
    )


def face_of(precision: str) -> Maker:
    """Figures and confusions of one precision."""

    def make(results: Path) -> str:
        truth, logits = evaluate_face.read_table(read_tables(results / FACE)[ANSWERS])
        return to_markdown(score(truth, logits[precision]))

    return make


def face_protocols(results: Path) -> str:
    """The two rules by which FER+ gets labels."""
    text = read_tables(results / FACE)[ANSWERS]
    truth, logits = evaluate_face.read_table(text)
    agreed = np.array([row["agreed"] == "1" for row in rows_of(text)])
    cells = []
    for rule, kept in (("most votes of ten", np.ones_like(agreed)), ("more than half of the votes", agreed)):
        for precision in logits:
            count, right, recall = evaluate_face.majority_figures(truth, kept, logits[precision])
            cells.append((rule, precision, count, f"{right:.3f}", f"{recall:.3f}"))
    return markdown_table(("label by", "file", "pictures", "accuracy", "unweighted recall"), cells)


def face_flips(results: Path) -> str:
    """How often INT8 calls otherwise."""
    _, logits = evaluate_face.read_table(read_tables(results / FACE)[ANSWERS])
    flips = (logits["fp32"].argmax(1) != logits["int8"].argmax(1)).mean()
    return f"INT8 calls {flips:.2%} of the pictures otherwise than fp32.\n"


def face_conditions(results: Path) -> str:
    """The same pictures as a webcam might give them."""
    rows = rows_of(read_tables(results / FACE)[CONDITIONS])
    truth = np.array([int(row["truth"]) for row in rows])
    found = []
    for name in list(rows[0])[2:]:
        right, recall = two_figures(truth, np.array([int(row[name]) for row in rows]))
        found.append((name, f"{right:.3f}", f"{recall:.3f}"))
    return markdown_table(("seen as", "accuracy", "unweighted recall"), found)


def face_live_crop(results: Path) -> str:
    """The live detector's crop against the corpus's placing."""
    rows = rows_of(read_tables(results / FACE)[LIVE_CROP])
    kept = [row for row in rows if row["away"]]
    truth = np.array([int(row["truth"]) for row in kept])
    away = np.percentile([float(row["away"]) for row in kept], [50, 95])
    cells = []
    for precision in manifests.PRECISIONS:
        pair = [np.array([int(row[f"{precision}_{how}"]) for row in kept]) for how in ("placed", "live")]
        shown = ["{:.3f} / {:.3f}".format(*two_figures(truth, called)) for called in pair]
        cells.append((f"{precision}, accuracy / unweighted recall", *shown))
    head = f"of {len(rows)} pictures {len(kept)} were found"
    return (
        f"The finder's eyes lie {away[0]:.1%} of the face's side from the template at the median, "
        f"{away[1]:.1%} at the 95th percentile.\n\n"
        + markdown_table((head, "placed by the corpus", "live crop"), cells)
    )


def face_curve(results: Path) -> str:
    """Some epochs of the training."""
    rows = [json.loads(line) for line in (results / CURVE).read_text("utf-8").splitlines()]
    step = max(1, len(rows) // 7)
    kept = [row for at, row in enumerate(rows, 1) if at % step == 0 or at == len(rows)]
    cells = [
        (f"{row['epoch']:.0f}", f"{row['loss']:.3f}", f"{row['accuracy']:.3f}", f"{row['recall']:.3f}")
        for row in kept
    ]
    return markdown_table(("epoch", "loss", "accuracy", "unweighted recall"), cells)


def portraits(results: Path) -> str:
    """Real faces in colour, and what their colour changes."""
    found: dict[str, dict[str, NDArray[np.float64]]] = {}
    for row in rows_of((results / PORTRAITS).read_text("utf-8")):
        scores = np.array([float(row[label]) for label in LABELS])
        found.setdefault(row["picture"], {})[f"{row['precision']} {row['seen']}"] = scores
    cells, changes = [], []
    for name, said in found.items():
        shown = []
        for precision in manifests.PRECISIONS:
            scores = said[f"{precision} colour"]
            shown.append(f"{LABELS[int(scores.argmax())]} {scores.max():.2f}")
            changes.append((precision, float(np.abs(scores - said[f"{precision} grey"]).max())))
        cells.append((name, *shown))
    most = {p: max(change for of, change in changes if of == p) for p in manifests.PRECISIONS}
    told = " and ".join(f"{change:.3f} in {precision}" for precision, change in most.items())
    return (
        markdown_table(("picture", *manifests.PRECISIONS), cells)
        + f"\nThe same crops made grey first change no probability by more than {told}.\n"
    )


def talkers(results: Path) -> str:
    """Ten neutral people talking: what face, voice and the joined answer call them, cue by cue."""
    rows = rows_of((results / TALKERS).read_text("utf-8"))
    cells = []
    for part in ("face", "voice", "shown"):
        called = [row[part] for row in rows if row[part]]
        often = {name: called.count(name) for name in (*LABELS, NOT_SURE) if name in called}
        most = sorted(often.items(), key=lambda one: -one[1])
        calm = sum(often.get(name, 0) for name in ("neutral", NOT_SURE)) / max(len(called), 1)
        told = ", ".join(f"{name} {count / len(called):.0%}" for name, count in most)
        cells.append((part, len(called), f"{calm:.0%}", told or "-"))
    changes, minutes = label_changes(rows)
    return (
        markdown_table(("said by", "cues", "neutral or not sure", "all"), cells)
        + f"\nWhat is shown of a person changes from one label to another {changes} times in "
        f"{minutes:.2f} minutes.\n"
    )


def label_changes(rows: Sequence[Mapping[str, str]]) -> tuple[int, float]:
    """How often one person's label changes to another, "not sure" between them aside, and over how long."""
    seen: dict[str, float] = {}
    said: dict[str, str] = {}
    changes, seconds = 0, 0.0
    for row in rows:
        track, at, shown = row["track"], float(row["t"]), row["shown"]
        seconds += at - seen.get(track, at)
        seen[track] = at
        if shown != NOT_SURE:
            changes += said.get(track, shown) != shown
            said[track] = shown
    return changes, seconds / 60


def design_faces(results: Path) -> str:
    """The calibrate side behind every epoch, block against block."""
    files = {preset: results / "designs" / f"face-{preset}.jsonl" for preset in DESIGNS}
    logs = {
        preset: [json.loads(line) for line in path.read_text("utf-8").splitlines()]
        for preset, path in files.items()
    }
    epochs = min(len(log) for log in logs.values())
    cells = [
        (
            f"{preset}, {DESIGNS[preset]}",
            *(f"{row['accuracy']:.3f} / {row['recall']:.3f}" for row in log[:epochs]),
        )
        for preset, log in logs.items()
    ]
    return markdown_table(("blocks", *(f"epoch {at}" for at in range(1, epochs + 1))), cells)


MAKERS: dict[str, Maker] = {
    "face source": face_source,
    "face fp32": face_of("fp32"),
    "face int8": face_of("int8"),
    "face protocols": face_protocols,
    "face flips": face_flips,
    "face conditions": face_conditions,
    "face live crop": face_live_crop,
    "face curve": face_curve,
    "design faces": design_faces,
    "portraits": portraits,
    "talkers": talkers,
}
