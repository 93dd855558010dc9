"""Judges a face network on the test side of the corpora, through the engines that a person would run.

The files that are shipped are what is judged, fp32 and INT8, never the module that was trained. Beside the
pictures as they are stand the same pictures as a webcam might give them, because training on grey squares
of 48 pixels says nothing yet about a face in a dark room.
"""

from __future__ import annotations

import csv
import io
import logging
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from liveaffect.engines import manifest as manifests
from liveaffect.engines.manifest import Manifest
from liveaffect.engines.onnx_engine import OnnxEngine
from liveaffect.engines.protocol import Engine
from liveaffect.engines.recipe import CROP_SIZE, LABELS
from liveaffect.engines.training import corpora_faces, splits
from liveaffect.engines.training.augment_faces import grey_crops
from liveaffect.engines.training.corpora_faces import FaceSplit, load_split
from liveaffect.engines.training.scores import Scores, score, to_markdown, two_figures, write_pictures

Crops = NDArray[np.uint8]
Report = Callable[[str], None]
_log = logging.getLogger(__name__)
_KEYS = ("name", "truth", "agreed")
MAJORITY = ("items", "accuracy", "unweighted_recall")


@dataclass(frozen=True, slots=True, eq=False)
class FaceVerdict:
    """What the files of one network are worth."""

    model: str
    corpus: str
    names: tuple[str, ...]
    truth: NDArray[np.int64]
    agreed: NDArray[np.bool_] | None
    """Where more than half of the votes agree, see `Faces`."""
    logits: Mapping[str, NDArray[np.float32]]
    """Per precision."""
    scores: Mapping[str, Scores]
    """Per precision."""
    flips: float | None
    """Share of pictures that INT8 calls otherwise than fp32."""
    seen_as: Mapping[str, NDArray[np.int64]]
    """What each picture is called under other conditions, in INT8 where there is one."""

    def figures(self) -> dict[str, Any]:
        """For the manifest."""
        out: dict[str, Any] = {
            precision: {
                "items": found.items,
                "accuracy": round(found.accuracy, 4),
                "unweighted_recall": round(found.unweighted_recall, 4),
                "macro_f1": round(found.macro_f1, 4),
                "recall": {
                    label: None if share is None else round(share, 4)
                    for label, share in zip(LABELS, found.recall, strict=True)
                },
            }
            for precision, found in self.scores.items()
        }
        if self.agreed is not None:
            for precision, logits in self.logits.items():
                figures = majority_figures(self.truth, self.agreed, logits)
                out[precision]["majority"] = dict(zip(MAJORITY, figures, strict=True))
        if self.flips is not None:
            out["int8_flips"] = round(self.flips, 4)
        return out

    def of_the_test_side(self) -> dict[str, Any]:
        """The figures by the name that the manifest keeps them under."""
        return {f"{self.corpus} test side": self.figures()}

    def markdown(self) -> str:
        """Every table, for `docs/results.md`."""
        parts = [f"Network `{self.model}`, {len(self.truth)} pictures of {self.corpus}.\n"]
        for precision, found in self.scores.items():
            parts.append(f"{precision}:\n\n{to_markdown(found)}")
        if self.flips is not None:
            parts.append(f"INT8 calls {self.flips:.2%} of the pictures otherwise than fp32.\n")
        figures = {name: two_figures(self.truth, called) for name, called in self.seen_as.items()}
        rows = [f"| {name} | {a:.3f} | {r:.3f} |" for name, (a, r) in figures.items()]
        parts.append("| seen as | accuracy | unweighted recall |\n|---|---|---|\n" + "\n".join(rows) + "\n")
        return "\n".join(parts)

    def table(self) -> str:
        """One line a picture, from which every figure can be made again."""
        heads = [f"{precision}_{label}" for precision in self.logits for label in LABELS]
        lines = [",".join([*_KEYS, *heads])]
        for at, name in enumerate(self.names):
            cells = [f"{value:.3f}" for part in self.logits.values() for value in part[at]]
            agreed = "" if self.agreed is None else str(int(self.agreed[at]))
            lines.append(",".join([name, LABELS[self.truth[at]], agreed, *cells]))
        return "\n".join(lines) + "\n"


def evaluate_face(
    data: Path, *, weights: Path | None = None, out: Path | None = None, report: Report = _log.info
) -> FaceVerdict:
    """Judge the weights of the package or of a folder; writes tables into `out`.

    Raises EngineFileError if the network was trained on other sides than these.
    """
    folder = weights or manifests.SHIPPED
    found = manifests.read(folder / "face.json")
    frozen = splits.FROZEN if weights is None else folder / splits.FROZEN.name
    faces = load_split(corpora_faces.find_faces(data), frozen, add=False)
    splits.refuse_other_sides(found, faces.corpora, faces.digest)
    verdict = judge_face(found, folder, faces)
    report(verdict.markdown())
    if out is not None:
        write_verdict(verdict, out)
        confusions = {f"face-{precision}": scores for precision, scores in verdict.scores.items()}
        write_pictures(out, confusions, folder)
    return verdict


def write_verdict(verdict: FaceVerdict, out: Path) -> None:
    """`face.md` for people, `face.csv` to make every figure again from."""
    out.mkdir(parents=True, exist_ok=True)
    manifests.write_whole(out / "face.md", verdict.markdown().encode())
    manifests.write_whole(out / "face.csv", verdict.table().encode())


def read_table(text: str) -> tuple[NDArray[np.int64], dict[str, NDArray[np.float32]]]:
    """Truth and logits per precision out of a `face.csv`. Raises ValueError if it is none."""
    rows = list(csv.DictReader(io.StringIO(text)))
    heads = list(rows[0]) if rows else []
    found = dict.fromkeys(head.partition("_")[0] for head in heads[len(_KEYS) :])
    if heads != [*_KEYS, *(f"{p}_{label}" for p in found for label in LABELS)] or not found:
        raise ValueError(
            f"a table of scores begins with {', '.join(_KEYS)} and a column a label, got {heads[:4]}"
        )
    truth = np.array([LABELS.index(row["truth"]) for row in rows])
    return truth, {
        precision: np.array([[row[f"{precision}_{label}"] for label in LABELS] for row in rows], np.float32)
        for precision in found
    }


def judge_face(found: Manifest, folder: Path, faces: FaceSplit) -> FaceVerdict:
    """Run every precision over the test side."""
    known = np.flatnonzero(faces.test.label >= 0)
    test = faces.test.take(known)
    crops = grey_crops(test.pictures)
    logits: dict[str, NDArray[np.float32]] = {}
    for precision in [name for name in manifests.PRECISIONS if found.has(name)]:
        with closing(OnnxEngine(found, folder, precision)) as engine:
            # Rounded as in the table, so that the table gives exactly these figures again.
            logits[precision] = np.round(crop_answers(engine, crops), 3)
    with closing(OnnxEngine(found, folder, list(logits)[-1])) as engine:
        seen_as = {name: crop_answers(engine, change(crops)).argmax(1) for name, change in CONDITIONS.items()}
    called = [part.argmax(1) for part in logits.values()]
    flips = float((called[0] != called[1]).mean()) if len(called) == 2 else None
    scores = {precision: score(test.label, part) for precision, part in logits.items()}
    return FaceVerdict(
        found.name, test.corpus, test.names, test.label, test.agreed, logits, scores, flips, seen_as
    )


def majority_figures(
    truth: NDArray[np.int64], agreed: NDArray[np.bool_], logits: NDArray[np.float32]
) -> tuple[int, float, float]:
    """How many pictures more than half agree on; accuracy and unweighted recall on those."""
    right, recall = two_figures(truth[agreed], logits[agreed].argmax(1))
    return int(agreed.sum()), round(right, 4), round(recall, 4)


def crop_answers(engine: Engine, crops: Crops) -> NDArray[np.float32]:
    """Logits of many crops."""
    step = engine.spec.max_batch
    parts = [engine.infer({"crop": crops[at : at + step]})["logits"] for at in range(0, len(crops), step)]
    return np.concatenate(parts).astype(np.float32)


def _each(change: Callable[[NDArray[np.float32]], NDArray[Any]]) -> Callable[[Crops], Crops]:
    """The same change for every crop."""

    def changed(crops: Crops) -> Crops:
        out = [np.clip(change(crop.astype(np.float32)), 0, 255) for crop in crops]
        return np.stack(out).astype(np.uint8)

    return changed


def _turned(degrees: float, shift_px: float = 0.0, size: float = 1.0) -> Callable[[Crops], Crops]:
    middle = ((CROP_SIZE - 1) / 2,) * 2
    moved = np.array([[0, 0, shift_px], [0, 0, shift_px]])
    matrix = np.asarray(cv2.getRotationMatrix2D(middle, degrees, size), np.float64) + moved
    side, border = (CROP_SIZE, CROP_SIZE), cv2.BORDER_REPLICATE
    return _each(lambda crop: cv2.warpAffine(crop, matrix, side, borderMode=border))


def _small(side: int) -> Callable[[Crops], Crops]:
    return _each(
        lambda crop: cv2.resize(
            cv2.resize(crop, (side, side), interpolation=cv2.INTER_AREA), (CROP_SIZE, CROP_SIZE)
        )
    )


def _jpeg(quality: int) -> Callable[[Crops], Crops]:
    def coded(crop: NDArray[np.float32]) -> NDArray[Any]:
        _, code = cv2.imencode(".jpg", crop.astype(np.uint8), [cv2.IMWRITE_JPEG_QUALITY, quality])
        return np.asarray(cv2.imdecode(code, cv2.IMREAD_COLOR))

    return _each(coded)


def _noisy(crops: Crops, level: float = 8.0) -> Crops:
    noise = np.random.default_rng(0).normal(0.0, level, crops.shape).astype(np.float32)
    return np.asarray(np.clip(crops + noise, 0, 255), np.uint8)


CONDITIONS: dict[str, Callable[[Crops], Crops]] = {
    "it is": lambda crops: crops,
    "mirrored": lambda crops: np.ascontiguousarray(crops[:, :, ::-1]),
    "under a warm lamp": _each(lambda crop: crop * np.array([1.3, 1.0, 0.6], np.float32)),
    "under a blue screen": _each(lambda crop: crop * np.array([0.6, 0.9, 1.3], np.float32)),
    "with a third of the light": _each(lambda crop: crop / 3),
    "with noise of 8 levels": _noisy,
    "a face of 32 pixels": _small(32),
    "a face of 20 pixels": _small(20),
    "JPEG of quality 30": _jpeg(30),
    "turned by 10 degrees": _turned(10),
    "off by 3 pixels": _turned(0, 3.0),
    "a tenth too large": _turned(0, 0.0, 1.1),
    "a tenth too small": _turned(0, 0.0, 1 / 1.1),
}
"""What webcams do, each alone."""
