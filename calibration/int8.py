"""How a network is quantised so that nobody notices: by measurement, layer by layer, or not at all.

Methods are compared by what they cost: how far the answers move from fp32 (divergence, in nats), on items
that no range was chosen on. Then every layer is quantised alone. That takes twice as long as putting each
back into an INT8 network, but puts them in the right order also where two layers share one bad tensor, which
neither can mend alone. A layer goes back to fp32 if it does much more harm than work, and its share of the
multiplications is the price. If the result still breaks the limits, nothing is written.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from liveaffect.calibration.examiner import Examiner
from liveaffect.calibration.int8_verdict import Layer, Verdict
from liveaffect.calibration.samples import Exam, Samples
from liveaffect.engines.build.quantize import Prepared, part_of, prepare, record
from liveaffect.engines.build.ranges import METHODS
from liveaffect.engines.protocol import EngineError

Report = Callable[[str], None]


class Int8TooCostly(EngineError):
    """The best INT8 form loses more than was allowed; says what, how much and where."""


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
class Outcome:
    """What was found out and chosen."""

    name: str
    items: int
    method: str
    methods: Mapping[str, Verdict]
    layers: tuple[Layer, ...]
    fp32: Verdict
    int8: Verdict
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


def calibrate(manifest_path: Path, samples: Samples, exam: Exam, limits: Limits, report: Report) -> Outcome:
    """Find the best INT8 form of one network and write it with its manifest.

    Raises Int8TooCostly, and leaves what is there as it is, if that form breaks the limits.
    """
    prepared = prepare(manifest_path)
    outcome = best(prepared, manifest_path.parent, samples, exam, limits, report)
    refuse_costly(outcome, limits)
    record(manifest_path, prepared, outcome.content, outcome.part)
    return outcome


def best(
    prepared: Prepared, folder: Path, samples: Samples, exam: Exam, limits: Limits, report: Report
) -> Outcome:
    """The best INT8 form within the price, whatever it costs; writes nothing."""
    observed = prepared.observe(samples.batches)
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
        **part_of(prepared, observed, method, excluded),
        "samples_sha256": samples.sha256,
        "conditions": list(samples.conditions),
        "judged_on": len(exam.truth),
        "divergence": {name: round(found.divergence, 6) for name, found in methods.items()},
        "sensitivity": {layer.name: round(layer.divergence, 6) for layer in layers},
        "fp32": _rounded(examiner.fp32),
        "int8": _rounded(verdict),
        "limits": asdict(limits),
    }
    return Outcome(
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
    prepared: Prepared, examiner: Examiner, cuts: Mapping[str, float], work: Mapping[str, float]
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


def refuse_costly(outcome: Outcome, limits: Limits) -> None:
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


def _broken(fp32: Verdict, int8: Verdict, limits: Limits) -> bool:
    lost = 100 * (fp32.accuracy - int8.accuracy)
    return lost > limits.points or 100 * int8.flips > limits.flips


def _rounded(verdict: Verdict) -> dict[str, float]:
    return {name: round(value, 5) for name, value in asdict(verdict).items()}
