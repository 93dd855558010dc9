"""Makes every result again: tables from committed answers, and answers from the networks that are shipped.

    python benchmarks/accuracy/run.py --data DIR [--renew [--curve LOG]]

The two together leave no figure without a source. It needs a checkout, because the results lie in its
`docs/`. Answers may differ a little from machine to machine, INT8 more than fp32, because processors round
differently; how much is allowed stands beside every difference. With `--renew` what the shipped networks
answer now is written down first, and the tables with it.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

BENCHMARKS = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(BENCHMARKS)]

from accuracy import fusion_tables, live_answers, pages, voice_tables
from accuracy.face_tables import ANSWERS, CONDITIONS, CURVE, FACE, rows_of
from accuracy.pages import DOCS, Difference

from liveaffect.engines import manifest as manifests
from liveaffect.engines.load import FULL
from liveaffect.engines.manifest import write_whole
from liveaffect.engines.onnx_engine import OnnxEngine
from liveaffect.engines.recipe import LABELS
from liveaffect.engines.training import (
    corpora_faces,
    evaluate_face,
    evaluate_fusion,
    evaluate_voice,
    splits,
)
from liveaffect.engines.training.augment_faces import grey_crops
from liveaffect.engines.training.corpora_faces import Faces, load_split
from liveaffect.engines.training.scores import change_tables, read_tables

Report = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Allowed:
    """How far answers may lie from those committed."""

    otherwise: float
    """Share of items that may be called otherwise."""
    score: float
    """Largest change of the middle 99 % of all scores."""


FP32, INT8 = Allowed(0.002, 0.02), Allowed(0.01, 0.5)


def repeat(data: Path, report: Report, docs: Path = DOCS) -> list[Difference]:
    """What is not as committed; nothing when every table and every answer can be repeated."""
    found = pages.differences(docs)
    report(f"tables of {docs / 'results.md'}: {len(found)} differ")
    for name, again in RERUNS.items():
        if not (manifests.SHIPPED / f"{name}.json").exists():
            report(f"{name}: no network is shipped, nothing to repeat")
            continue
        differ = again(data, docs / "results", report)
        report(f"{name}: {len(differ)} differences between its answers now and those committed")
        found += differ
    return found


def renew(data: Path, report: Report, *, docs: Path = DOCS, curve: Path | None = None) -> None:
    """Write what the shipped networks answer now, the figures in their manifests, and every table."""
    results, shipped = docs / "results", manifests.SHIPPED
    if curve is not None:
        write_whole(results / CURVE, curve.read_bytes())
    face = evaluate_face.evaluate_face(data, report=quiet)
    manifests.record_figures(shipped / "face.json", face.of_the_test_side())
    change_tables(results / FACE, {ANSWERS: face.table(), CONDITIONS: conditions_table(face)})
    report(f"wrote what the face network says of {len(face.names)} pictures, {len(face.seen_as)} ways")
    if (shipped / "voice.json").exists():
        voice = evaluate_voice.evaluate_voice(data, report=quiet)
        for which, folder in ((evaluate_voice.SMALL, shipped), (FULL, shipped / FULL)):
            figures: dict[str, Any] = {}
            for one in voice:
                figures |= one.figures() if one.voice == which else {}
            if figures:
                manifests.record_figures(folder / "voice.json", figures)
        change_tables(results / voice_tables.VOICE, voice_tables.written(voice))
        report(f"wrote what {len(voice)} files of voices say of the test side")
    if (shipped / "fusion.json").exists():
        fused = evaluate_fusion.evaluate_fusion(data, report=quiet)
        change_tables(results / fusion_tables.FUSION, {fusion_tables.TEST: fused.table()})
        report(f"wrote what the fusion says of {len(fused.given.truth)} takes")
    live_answers.write_live_answers(data, test_faces(data), results, report)
    pages.write(docs)


def quiet(_: str) -> None:
    """What is said while networks are judged only to be written down."""


def test_faces(data: Path) -> Faces:
    """The pictures of the test side that have one of the seven labels."""
    faces = load_split(corpora_faces.find_faces(data), splits.FROZEN, add=False)
    found = manifests.read(manifests.SHIPPED / "face.json")
    splits.refuse_other_sides(found, faces.corpora, faces.digest)
    return faces.test.take(np.flatnonzero(faces.test.label >= 0))


def face_answers(faces: Faces) -> dict[str, NDArray[np.float32]]:
    """Logits per precision, rounded as in the table."""
    found = manifests.read(manifests.SHIPPED / "face.json")
    crops, logits = grey_crops(faces.pictures), {}
    for precision in manifests.PRECISIONS:
        with closing(OnnxEngine(found, manifests.SHIPPED, precision)) as engine:
            logits[precision] = np.round(evaluate_face.crop_answers(engine, crops), 3)
    return logits


def conditions_table(judged: evaluate_face.FaceVerdict) -> str:
    """What each picture is called under every condition."""
    lines = [",".join(["name", "truth", *judged.seen_as])]
    for at, name in enumerate(judged.names):
        calls = [str(called[at]) for called in judged.seen_as.values()]
        lines.append(",".join([name, str(judged.truth[at]), *calls]))
    return "\n".join(lines) + "\n"


def repeat_face(data: Path, results: Path, _: Report) -> list[Difference]:
    """The shipped face files on the test side against those committed."""
    faces = test_faces(data)
    truth, committed = evaluate_face.read_table(read_tables(results / FACE)[ANSWERS])
    if len(truth) != len(faces) or (truth != faces.label).any():
        return [Difference("face, pictures", str(len(truth)), str(len(faces)))]
    now, found = face_answers(faces), []
    for precision, logits in now.items():
        allowed = INT8 if precision == "int8" else FP32
        found += compared(f"face {precision}", committed[precision], logits, allowed)
    return found


def repeat_voice(data: Path, results: Path, report: Report) -> list[Difference]:
    """The shipped voice files on the test side against their tables; the full one where Whisper is."""
    committed, found = voice_tables.read_test(results), []
    for one in evaluate_voice.evaluate_voice(data, report=quiet):
        before = committed.pop(one.name, [])
        if [(row.name, row.known) for row in before] != [(row.name, row.known) for row in one.answers]:
            found.append(Difference(f"voice, takes of {one.name}", str(len(before)), str(len(one.answers))))
            continue
        allowed = INT8 if one.precision == "int8" else FP32
        old, new = (
            np.nan_to_num(np.array([row.logits for row in rows]), nan=-99.0) for rows in (before, one.answers)
        )
        found += compared(f"voice {one.name}", old, new, allowed)
    for name in committed:
        report(f"voice {name}: not asked again, the file or Whisper is not here")
    return found


def repeat_fusion(data: Path, results: Path, report: Report) -> list[Difference]:
    """The voice network on the test side, and the fusion on that and the committed faces, as committed."""
    rows = rows_of(read_tables(results / fusion_tables.FUSION)[fusion_tables.TEST])

    def column(part: str) -> NDArray[np.float32]:
        return np.array([[float(row[f"{part}_{label}"]) for label in LABELS] for row in rows], np.float32)

    names, found = tuple(row["name"] for row in rows), manifests.read(manifests.SHIPPED / "fusion.json")
    now, by = evaluate_fusion.gather(found, manifests.SHIPPED, data, splits.FROZEN, report)
    if names != now.names:
        return [Difference("fusion, takes", str(len(names)), str(len(now.names)))]
    heard = (manifests.SHIPPED / "voice.json").exists()
    given = replace(now, face=column("face"), voice=now.voice if heard else column("voice"))
    verdict = evaluate_fusion.judge_fusion(found, manifests.SHIPPED, given, by)
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


def say(line: str) -> None:
    """A line for the person at the keyboard; results go to standard output."""
    sys.stderr.write(line + "\n")


def main() -> int:
    """The command line; 1 and a table of the differences if something is not as committed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with the corpora")
    parser.add_argument("--renew", action="store_true", help="write the results anew first")
    parser.add_argument("--curve", type=Path, help="with --renew: the log of the face training")
    given = parser.parse_args()
    if given.renew:
        renew(given.data, say, curve=given.curve)
    found = repeat(given.data, say)
    if found:
        sys.stdout.write(pages.as_table(found))
    return 1 if found else 0


if __name__ == "__main__":
    raise SystemExit(main())
