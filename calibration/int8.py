"""`liveaffect calibrate int8`: a network quantised so that nobody notices, by measurement, or not at all.

Methods are compared by what they cost: how far the answers move from fp32 (divergence, in nats), on items
that no range was chosen on. Then every layer is quantised alone. That takes twice as long as putting each
back into an INT8 network, but puts them in the right order also where two layers share one bad tensor, which
neither can mend alone. A layer goes back to fp32 if it does much more harm than work, and its share of the
multiplications is the price. If the result still breaks the limits, nothing is written.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from liveaffect.calibration import int8_tables, samples
from liveaffect.calibration.int8_tables import Int8Verdict, Layer
from liveaffect.calibration.reliability import calibration_error, log_loss, tempered
from liveaffect.calibration.samples import Exam, Samples
from liveaffect.engines import manifest as manifests
from liveaffect.engines import parity, stopwatch
from liveaffect.engines.build.quantize import (
    METHODS,
    PreparedNetwork,
    prepare_network,
    quantisation_part,
    record_int8,
)
from liveaffect.engines.load import manifest_path
from liveaffect.engines.onnx_engine import OnnxEngine
from liveaffect.engines.protocol import EngineError, EngineUnavailable, Tensors
from liveaffect.engines.training import splits

KINDS = ("face", "voice")
ROUNDS = 60
Say = Callable[[str], None]
Answers = dict[str, NDArray[Any]]


class Int8TooCostly(EngineError):
    """The best INT8 form loses more than was allowed; says what, how much and where."""


@dataclass(frozen=True, slots=True)
class Int8Options:
    """What was asked for."""

    data: Path
    kinds: Sequence[str] = KINDS
    weights: Path | None = None
    """None means the weights of the package."""
    out: Path | None = None
    """Folder for tables."""
    limits: dict[str, float] = field(default_factory=dict)
    """By name, where they are not the usual ones."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What INT8 may cost."""

    points: float = 0.5
    """Percentage points of accuracy."""
    flips: float = 2.0
    """Per cent of the items that it calls otherwise than fp32."""
    harm_to_work: float = 1.5
    """A layer goes back to fp32 if its share of the harm is this many times its share of the work."""
    work: float = 0.25
    """Of the multiplications at most this share goes back."""
    unnoticed: float = 3e-4
    """Divergence in nats for which no layer need go back; of a single layer a tenth of it."""


@dataclass(frozen=True, slots=True, eq=False)
class Int8Outcome:
    """What was found out and chosen."""

    name: str
    items: int
    method: str
    methods: Mapping[str, Int8Verdict]
    layers: tuple[Layer, ...]
    fp32: Int8Verdict
    int8: Int8Verdict
    content: bytes
    part: Mapping[str, Any]

    @property
    def points_lost(self) -> float:
        """Percentage points of accuracy that INT8 costs; below zero if it gains some."""
        return 100 * (self.fp32.accuracy - self.int8.accuracy)

    @property
    def excluded(self) -> tuple[str, ...]:
        """The layers that went back to fp32."""
        return tuple(layer.name for layer in self.layers if layer.excluded)


def calibrate_int8(options: Int8Options, say: Say) -> None:
    """Every network that is there; raises on the first that is refused, and leaves its files as they are."""
    found = [kind for kind in options.kinds if manifest_path(kind, options.weights).exists()]
    if not found:
        folder = manifest_path(options.kinds[0], options.weights).parent
        raise EngineUnavailable(f"there are no weights of {' or '.join(options.kinds)} in {folder}")
    for kind in found:
        _calibrate_kind(kind, options, say)


def _calibrate_kind(kind: str, options: Int8Options, say: Say) -> None:
    path = manifest_path(kind, options.weights)
    found, folder = manifests.read(path), path.parent
    packaged = options.weights is None
    sides = splits.FROZEN if packaged else folder / splits.FROZEN.name
    frozen = samples.FROZEN if packaged else folder / samples.FROZEN.name
    if kind == "face":
        to_calibrate, exam = samples.face_samples(options.data, found, sides=sides, frozen=frozen)
    else:
        with closing(OnnxEngine(found, folder)) as engine:
            to_calibrate, exam = samples.voice_samples(
                options.data, engine, found, sides=sides, frozen=frozen, report=say
            )
    count = sum(len(next(iter(batch.values()))) for batch in to_calibrate.batches)
    say(f"{found.name}: calibrated on {count} items, judged on {len(exam.truth)} others")
    outcome = calibrate_network(path, to_calibrate, exam, Limits(**options.limits), say)
    table = table_of(kind, outcome)
    say(int8_tables.markdown(table))
    if options.out is not None:
        int8_tables.write_int8(options.out, table)
    lost = outcome.points_lost
    told = f"{abs(lost):.2f} points of accuracy {'lost' if lost > 0 else 'gained'}"
    say(f"{found.name}: {told}; {_time_taken(kind, path)}")


def table_of(kind: str, outcome: Int8Outcome) -> int8_tables.Int8Table:
    """What to keep of an outcome."""
    forms = {int8_tables.FP32: outcome.fp32, **outcome.methods, int8_tables.CHOSEN: outcome.int8}
    model = f"{outcome.name} {str(outcome.part['from'])[:12]}"
    return int8_tables.Int8Table(kind, model, outcome.items, outcome.method, forms, outcome.layers)


def _time_taken(kind: str, path: Path) -> str:
    """Both forms in turns, on this machine now."""
    found = manifests.read(path)
    batch = parity.inputs(kind, 1, piece=found.recipe.piece, statistics=found.recipe.statistics)
    with (
        closing(OnnxEngine(found, path.parent)) as fp32,
        closing(OnnxEngine(found, path.parent, "int8")) as int8,
    ):
        fp32.warm_up()
        int8.warm_up()
        long_ns, short_ns = stopwatch.median_ns(
            [partial(fp32.infer, batch), partial(int8.infer, batch)], rounds=ROUNDS
        )
    return f"{short_ns / 1e6:.2f} ms in INT8, {long_ns / 1e6:.2f} ms in fp32"


def calibrate_network(path: Path, drawn: Samples, exam: Exam, limits: Limits, report: Say) -> Int8Outcome:
    """Find the best INT8 form of one network and write it with its manifest.

    Raises Int8TooCostly, and leaves what is there as it is, if that form breaks the limits.
    """
    prepared = prepare_network(path)
    outcome = best_form(prepared, path.parent, drawn, exam, limits, report)
    refuse_costly(outcome, limits)
    record_int8(path, prepared, outcome.content, outcome.part)
    return outcome


def best_form(
    prepared: PreparedNetwork, folder: Path, drawn: Samples, exam: Exam, limits: Limits, report: Say
) -> Int8Outcome:
    """The best INT8 form within the price, whatever it costs; writes nothing."""
    observed = prepared.observe(drawn.batches)
    examiner = Examiner(prepared, folder, exam)
    methods = {name: examiner.verdict(prepared.quantised(observed.cuts(name))) for name in METHODS}
    method = min(methods, key=lambda name: methods[name].divergence)
    told = ", ".join(f"{name} {found.divergence:.5f}" for name, found in methods.items())
    report(f"{prepared.manifest.name}: divergence {told}; {method} it is")
    cuts = observed.cuts(method)
    layers = sensitivity(prepared, examiner, cuts, prepared.work(observed))
    excluded = fragile(layers, limits) if methods[method].divergence > limits.unnoticed else ()
    content = prepared.quantised(cuts, excluded)
    verdict = examiner.verdict(content) if excluded else methods[method]
    for name in _further(layers, excluded, limits):
        if not _broken(examiner.fp32, verdict, limits):
            break
        excluded = (*excluded, name)
        content = prepared.quantised(cuts, excluded)
        verdict = examiner.verdict(content)
    layers = tuple(replace(layer, excluded=layer.name in excluded) for layer in layers)
    report(f"{prepared.manifest.name}: back to fp32: {', '.join(excluded) or 'no layer'}")
    part = {
        **quantisation_part(prepared, observed, method, excluded),
        "samples_sha256": drawn.sha256,
        "conditions": list(drawn.conditions),
        "judged_on": len(exam.truth),
        "divergence": {name: round(found.divergence, 6) for name, found in methods.items()},
        "sensitivity": {layer.name: round(layer.divergence, 6) for layer in layers},
        "fp32": _as_told(examiner.fp32),
        "int8": _as_told(verdict),
        "limits": asdict(limits),
    }
    return Int8Outcome(
        name=prepared.manifest.name,
        items=len(exam.truth),
        method=method,
        methods=methods,
        layers=layers,
        fp32=examiner.fp32,
        int8=verdict,
        content=content,
        part=part,
    )


def sensitivity(
    prepared: PreparedNetwork, examiner: Examiner, cuts: Mapping[str, float], work: Mapping[str, float]
) -> tuple[Layer, ...]:
    """Every layer quantised alone, all others in fp32; in graph order."""
    found = []
    for name in prepared.layers:
        alone = prepared.quantised(cuts, set(prepared.layers) - {name})
        found.append(Layer(name, work[name], *examiner.distance(alone)))
    return tuple(found)


def fragile(layers: Sequence[Layer], limits: Limits) -> tuple[str, ...]:
    """The layers that do much more harm than work, the worst first, as far as the price allows."""
    chosen: list[str] = []
    spent = 0.0
    for layer in _worst_first(layers):
        worth = layer.harm(layers) >= limits.harm_to_work * layer.work
        worth = worth and layer.divergence >= limits.unnoticed / 10
        if worth and spent + layer.work <= limits.work + 1e-9:
            chosen.append(layer.name)
            spent += layer.work
    return tuple(chosen) if len(chosen) < len(layers) else ()


def refuse_costly(outcome: Int8Outcome, limits: Limits) -> None:
    """Raise Int8TooCostly if the limits are broken."""
    if not _broken(outcome.fp32, outcome.int8, limits):
        return
    worst = ", ".join(layer.name for layer in _worst_first(outcome.layers)[:3])
    raise Int8TooCostly(
        f"INT8 of '{outcome.name}' is refused: on {outcome.items} items it loses {outcome.points_lost:.2f} "
        f"points of accuracy (allowed {limits.points:g}) and calls {100 * outcome.int8.flips:.2f} % "
        f"otherwise than fp32 (allowed {limits.flips:g}). Tried {', '.join(outcome.methods)}; "
        f"{outcome.method} is best, with {', '.join(outcome.excluded) or 'no layer'} in fp32; the worst "
        f"layers are {worst}. "
        "What was there stays; allow more with --limit-points, --limit-flips or --limit-work, or use fp32"
    )


def _worst_first(layers: Sequence[Layer]) -> list[Layer]:
    return sorted(layers, key=lambda layer: (-layer.divergence / layer.work, layer.name))


def _further(layers: Sequence[Layer], excluded: Sequence[str], limits: Limits) -> list[str]:
    """What may still go back if the limits are broken, the worst first, within the price."""
    spent = sum(layer.work for layer in layers if layer.name in excluded)
    found: list[str] = []
    for layer in _worst_first(layers):
        last = len(excluded) + len(found) + 1 == len(layers)
        if layer.name not in excluded and not last and spent + layer.work <= limits.work + 1e-9:
            found.append(layer.name)
            spent += layer.work
    return found


def _broken(fp32: Int8Verdict, int8: Int8Verdict, limits: Limits) -> bool:
    lost = 100 * (fp32.accuracy - int8.accuracy)
    return lost > limits.points or 100 * int8.flips > limits.flips


def _as_told(verdict: Int8Verdict) -> dict[str, float]:
    return {name: round(value, 5) for name, value in asdict(verdict).items()}


class Examiner:
    """Asks every form of one network the same questions."""

    def __init__(self, prepared: PreparedNetwork, folder: Path, exam: Exam) -> None:
        self._manifest, self._exam = prepared.manifest, exam
        with closing(OnnxEngine(prepared.manifest, folder)) as engine:
            self._wanted = _all_answers(engine, exam.inputs)
        self._few = exam.few if exam.few is not None else np.arange(len(self._wanted["logits"]))
        self._called = _labels(exam.pool(self._wanted))
        self.fp32 = self._judged(self._wanted)

    def verdict(self, content: bytes) -> Int8Verdict:
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
                return _all_answers(engine, inputs)

    def _judged(self, answers: Answers) -> Int8Verdict:
        truth, logits = self._exam.truth, self._exam.pool(answers)
        called = _labels(logits)
        # Where nothing was evidence any label is as likely as the other.
        probabilities = tempered(np.nan_to_num(logits, nan=0.0), 1.0)
        right = (called == truth).astype(np.float64)
        apart = self._apart(answers, np.arange(len(answers["logits"])))
        return Int8Verdict(
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


def _all_answers(engine: OnnxEngine, inputs: Tensors) -> Answers:
    step, items = engine.spec.max_batch, len(next(iter(inputs.values())))
    parts = [
        engine.infer({name: array[at : at + step] for name, array in inputs.items()})
        for at in range(0, items, step)
    ]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _labels(logits: NDArray[np.floating]) -> NDArray[np.int64]:
    """The label of each row, -1 where nothing was evidence."""
    return np.where(np.isnan(logits[:, 0]), -1, logits.argmax(axis=1)).astype(np.int64)
