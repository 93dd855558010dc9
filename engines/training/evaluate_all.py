"""Repeats every result: tables from committed answers, and the answers from the networks that are shipped.

The two together leave no figure without a source. Answers may differ a little from machine to machine, INT8
more than fp32, because processors round differently; how much is allowed stands beside every difference.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from liveaffect.engines import manifest as manifests
from liveaffect.engines.manifest import write_whole
from liveaffect.engines.onnx_engine import OnnxEngine
from liveaffect.engines.recipe import LABELS
from liveaffect.engines.training import (
    corpora_faces,
    evaluate_face,
    evaluate_fusion,
    evaluate_voice,
    fusion_tables,
    results_page,
    splits,
    voice_tables,
)
from liveaffect.engines.training.augment_faces import grey_crops
from liveaffect.engines.training.corpora_faces import Faces
from liveaffect.engines.training.results_page import DOCS, Difference
from liveaffect.engines.training.results_tables import CONDITIONS, FACE, rows_of
from liveaffect.engines.training.sided_faces import sided

Report = Callable[[str], None]
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Allowed:
    """How far answers may lie from those committed."""

    otherwise: float
    """Share of items that may be called otherwise."""
    score: float
    """Largest change of the middle 99 % of all scores."""


FP32, INT8 = Allowed(0.002, 0.02), Allowed(0.01, 0.5)


def main_run(data: Path, *, docs: Path = DOCS, report: Report = _log.info) -> list[Difference]:
    """What is not as committed; nothing when every table and every answer can be repeated."""
    found = results_page.differences(docs)
    report(f"tables of {docs / 'results.md'}: {len(found)} differ")
    for name, again in RERUNS.items():
        if not (manifests.SHIPPED / f"{name}.json").exists():
            report(f"{name}: no network is shipped, nothing to repeat")
            continue
        differ = again(data, docs / "results", report)
        report(f"{name}: {len(differ)} differences between its answers now and those committed")
        found += differ
    return found


def renew(data: Path, *, docs: Path = DOCS, curve: Path | None = None, report: Report = _log.info) -> None:
    """Write what the shipped networks answer now, and the figures in their manifests."""
    results = docs / "results"
    (results / fusion_tables.FOLDER).mkdir(parents=True, exist_ok=True)
    if curve is not None:
        write_whole(results / "face_curve.jsonl", curve.read_bytes())
    judged = evaluate_face.main_run(data, report=lambda _: None)
    evaluate_face.record(manifests.SHIPPED, judged)
    write_whole(results / FACE, judged.table().encode())
    write_whole(results / CONDITIONS, conditions_table(judged).encode())
    report(f"wrote what the face network says of {len(judged.names)} pictures, {len(judged.seen_as)} ways")
    if (manifests.SHIPPED / "voice.json").exists():
        verdicts = evaluate_voice.main_run(data, report=lambda _: None)
        evaluate_voice.record(manifests.SHIPPED, verdicts)
        (results / voice_tables.FOLDER).mkdir(exist_ok=True)
        heard = "".join(verdict.table() for verdict in verdicts)
        write_whole(results / voice_tables.FOLDER / voice_tables.TEST, heard.encode())
        report(
            f"wrote what the voice network says of {sum(len(verdict.truth) for verdict in verdicts)} takes"
        )
    if (manifests.SHIPPED / "fusion.json").exists():
        fused = evaluate_fusion.main_run(data, report=lambda _: None)
        write_whole(results / fusion_tables.FOLDER / fusion_tables.TEST, fused.table().encode())
        report(f"wrote what the fusion says of {len(fused.given.truth)} takes")


def test_faces(data: Path) -> Faces:
    """The pictures of the test side that have one of the seven labels."""
    faces = sided(corpora_faces.find(data), splits.FROZEN, add=False)
    evaluate_face.refuse_other_sides(manifests.read(manifests.SHIPPED / "face.json"), faces)
    return faces.test.take(np.flatnonzero(faces.test.label >= 0))


def face_answers(faces: Faces) -> dict[str, NDArray[np.float32]]:
    """Logits per precision, rounded as in the table."""
    found = manifests.read(manifests.SHIPPED / "face.json")
    crops, logits = grey_crops(faces.pictures), {}
    for precision in manifests.PRECISIONS:
        with closing(OnnxEngine(found, manifests.SHIPPED, precision)) as engine:
            logits[precision] = np.round(evaluate_face.answers(engine, crops), 3)
    return logits


def conditions_table(judged: evaluate_face.Verdict) -> str:
    """What each picture is called under every condition."""
    lines = [",".join(["name", "truth", *judged.seen_as])]
    for at, name in enumerate(judged.names):
        calls = [str(called[at]) for called in judged.seen_as.values()]
        lines.append(",".join([name, str(judged.truth[at]), *calls]))
    return "\n".join(lines) + "\n"


def repeat_face(data: Path, results: Path, _: Report) -> list[Difference]:
    """The shipped face files on the test side against `face.csv`."""
    faces = test_faces(data)
    truth, committed = evaluate_face.read_table((results / FACE).read_text("utf-8"))
    if len(truth) != len(faces) or (truth != faces.label).any():
        return [Difference("face, pictures", str(len(truth)), str(len(faces)))]
    now, found = face_answers(faces), []
    for precision, logits in now.items():
        allowed = INT8 if precision == "int8" else FP32
        found += compared(f"face {precision}", committed[precision], logits, allowed)
    return found


def repeat_voice(data: Path, results: Path, _: Report) -> list[Difference]:
    """The shipped voice files on the test side against their table."""
    committed = voice_tables.read_test(results / voice_tables.FOLDER / voice_tables.TEST)
    verdicts = evaluate_voice.main_run(data, report=lambda _: None)
    found = []
    for one in verdicts:
        rows = committed.get((one.corpus, one.precision), [])
        if tuple(row["name"] for row in rows) != one.names:
            found.append(Difference(f"voice, takes of {one.corpus}", str(len(rows)), str(len(one.names))))
            continue
        allowed = INT8 if one.precision == "int8" else FP32
        what = f"voice {one.corpus} {one.precision}"
        found += compared(what, voice_tables.scores_of(rows), one.scores, allowed)
    return found


def repeat_fusion(data: Path, results: Path, report: Report) -> list[Difference]:
    """The voice network on the test side, and the fusion on that and the committed faces, as committed."""
    rows = rows_of(results / fusion_tables.FOLDER / fusion_tables.TEST)

    def column(part: str) -> NDArray[np.float32]:
        return np.array([[float(row[f"{part}_{label}"]) for label in LABELS] for row in rows], np.float32)

    names, found = tuple(row["name"] for row in rows), manifests.read(manifests.SHIPPED / "fusion.json")
    now, by = evaluate_fusion.gather(found, manifests.SHIPPED, data, splits.FROZEN, report)
    if names != now.names:
        return [Difference("fusion, takes", str(len(names)), str(len(now.names)))]
    heard = (manifests.SHIPPED / "voice.json").exists()
    given = replace(now, face=column("face"), voice=now.voice if heard else column("voice"))
    verdict = evaluate_fusion.judge(found, manifests.SHIPPED, given, by)
    return [
        *compared("voice, for the fusion", np.nan_to_num(column("voice")), np.nan_to_num(given.voice), FP32),
        *compared("fusion", column("fused"), verdict.said["both"], FP32),
    ]


def compared(
    what: str, committed: NDArray[np.floating], now: NDArray[np.floating], allowed: Allowed
) -> list[Difference]:
    """What differs by more than is allowed."""
    otherwise = float((committed.argmax(1) != now.argmax(1)).mean())
    change = float(np.percentile(np.abs(committed - now), 99))
    found = []
    if otherwise > allowed.otherwise:
        told = f"{otherwise:.2%} called otherwise"
        found.append(Difference(f"{what}, labels", f"{len(now)} items", told, f"{allowed.otherwise:.2%}"))
    if change > allowed.score:
        told = f"scores differ by {change:.3f}"
        found.append(Difference(f"{what}, scores", f"{len(now)} items", told, f"{allowed.score}"))
    return found


RERUNS: dict[str, Callable[[Path, Path, Report], list[Difference]]] = {
    "face": repeat_face,
    "voice": repeat_voice,
    "fusion": repeat_fusion,
}
