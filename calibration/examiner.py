"""Asks every form of one network the same questions, and says how far the answers are from those of fp32."""

from __future__ import annotations

import tempfile
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from liveaffect.calibration.int8_verdict import Verdict
from liveaffect.calibration.reliability import calibration_error
from liveaffect.calibration.samples import Exam
from liveaffect.calibration.temperature import log_loss, tempered
from liveaffect.engines import manifest as manifests
from liveaffect.engines.build.quantize import Prepared
from liveaffect.engines.onnx_engine import OnnxEngine
from liveaffect.engines.protocol import Tensors

Answers = dict[str, NDArray[Any]]


class Examiner:
    """Asks every form of one network the same questions."""

    def __init__(self, prepared: Prepared, folder: Path, exam: Exam) -> None:
        self._manifest, self._exam = prepared.manifest, exam
        with closing(OnnxEngine(prepared.manifest, folder)) as engine:
            self._wanted = _answers(engine, exam.inputs)
        self._few = exam.few if exam.few is not None else np.arange(len(self._wanted["logits"]))
        self._called = _called(exam.pool(self._wanted))
        self.fp32 = self._judged(self._wanted)

    def verdict(self, content: bytes) -> Verdict:
        """On everything."""
        return self._judged(self._asked(content, self._exam.inputs))

    def distance(self, content: bytes) -> tuple[float, float]:
        """Divergence and vector error on the few items that put layers in order."""
        part = {name: array[self._few] for name, array in self._exam.inputs.items()}
        return self._apart(self._asked(content, part), self._few)

    def _asked(self, content: bytes, inputs: Tensors) -> Answers:
        manifest = manifests.record_file(self._manifest, "int8", content)
        with tempfile.TemporaryDirectory() as scratch:
            Path(scratch, manifests.file_name(manifest.kind, "int8")).write_bytes(content)
            with closing(OnnxEngine(manifest, Path(scratch), "int8")) as engine:
                return _answers(engine, inputs)

    def _judged(self, answers: Answers) -> Verdict:
        truth, logits = self._exam.truth, self._exam.pool(answers)
        called = _called(logits)
        # Where nothing was evidence any label is as likely as the other.
        probabilities = tempered(np.nan_to_num(logits, nan=0.0), 1.0)
        right = (called == truth).astype(np.float64)
        apart = self._apart(answers, np.arange(len(answers["logits"])))
        return Verdict(
            *apart,
            accuracy=float(right.mean()),
            flips=float((called != self._called).mean()),
            log_loss=log_loss(probabilities, truth),
            calibration_error=calibration_error(probabilities.max(axis=1), right),
        )

    def _apart(self, answers: Answers, at: NDArray[np.int64]) -> tuple[float, float]:
        wanted, given = (tempered(a, 1.0) for a in (self._wanted["logits"][at], answers["logits"]))
        floor = 1e-12
        divergence = wanted * (np.log(np.maximum(wanted, floor)) - np.log(np.maximum(given, floor)))
        vectors = self._wanted["vector"]
        spread = np.linalg.norm(vectors - vectors.mean(axis=0), axis=1).mean()
        moved = np.linalg.norm(answers["vector"] - vectors[at], axis=1).mean()
        return float(divergence.sum(axis=1).mean()), float(moved / max(spread, 1e-12))


def _answers(engine: OnnxEngine, inputs: Tensors) -> Answers:
    step, items = engine.spec.max_batch, len(next(iter(inputs.values())))
    parts = [
        engine.infer({name: array[at : at + step] for name, array in inputs.items()})
        for at in range(0, items, step)
    ]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _called(logits: NDArray[np.floating]) -> NDArray[np.int64]:
    """The label of each row, -1 where nothing was evidence."""
    return np.where(np.isnan(logits[:, 0]), -1, logits.argmax(axis=1)).astype(np.int64)
