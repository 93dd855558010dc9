"""What was found out about a network's confidence, in its manifest and out of it again.

    face.json, voice.json   "confidence": {"format", "weights", "engine", "parts": {"reading": {...}}}
    fusion.json             the same with the parts "face", "voice" and "face+voice": which evidence there is

`weights` are the sums of all files whose answers were looked at. A part that was fitted on other weights
is refused by name: a temperature of another network is worse than none.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from liveaffect.engines.manifest import Manifest, file_name
from liveaffect.engines.protocol import EngineFileError
from liveaffect.engines.recipe import SUBSETS

FORMAT = 1
READING = "reading"
"""Of a face or a voice by itself."""
COLDEST, HOTTEST = 0.2, 10.0
"""No network that learnt anything needs less or more."""
COVERAGE = 0.8
"""So much of all cues is answered; the rest is "not sure"."""
LEAST_SURE = 0.4
"""Nothing less sure than this is answered, even if that leaves less than `COVERAGE`."""
MEND = "liveaffect calibrate confidence --data DIR"


class DamagedConfidence(EngineFileError):
    """The part of a manifest is not what this program wrote."""


class OtherWeights(EngineFileError):
    """It was fitted on the answers of other networks than those at hand."""


@dataclass(frozen=True, slots=True)
class Calibrated:
    """How one sort of answer is to be believed."""

    temperature: float
    threshold: float
    """Confidence from which a label is shown."""
    coverage: float
    """Share of cues at or above it."""
    risk: float
    """Share of those that was wrong."""
    risk_between: tuple[float, float]
    cues: int
    clips: int
    groups: int
    """Speakers, or where nobody knows the people, pictures."""
    excess_before: float
    """Calibration error beyond a perfect model's, of people not used to fit, without the temperature."""
    excess_after: float


def part(
    found: Mapping[str, Calibrated], manifests: Mapping[str, Manifest], engines: Mapping[str, str]
) -> dict[str, Any]:
    """The `confidence` of one manifest: what was found, on which files, asked through which engines."""
    return {
        "format": FORMAT,
        "weights": {file_name(kind, "fp32"): _sum(manifest) for kind, manifest in manifests.items()},
        "engines": dict(engines),
        "parts": {name: asdict(one) for name, one in found.items()},
    }


def parse(manifest: Manifest, others: Mapping[str, Manifest] | None = None) -> dict[str, Calibrated]:
    """What stands in a manifest; empty where nothing was fitted.

    `others` are the manifests of the networks beside it. Raises DamagedConfidence or OtherWeights.
    """
    entry = manifest.confidence
    if not entry:
        return {}
    if entry.get("format") != FORMAT:
        raise _damaged_part(manifest, f"its format is {entry.get('format')!r}, wanted {FORMAT}")
    weights, parts = entry.get("weights"), entry.get("parts")
    if not isinstance(weights, dict) or not isinstance(parts, dict) or not parts:
        raise _damaged_part(manifest, "it lacks 'weights' or 'parts'")
    _refuse_other_weights(manifest, weights, {**(others or {}), manifest.kind: manifest})
    known = SUBSETS if manifest.kind == "fusion" else (READING,)
    if unknown := sorted(set(parts) - set(known)):
        raise _damaged_part(
            manifest, f"it has the unknown part {', '.join(unknown)}; known are {', '.join(known)}"
        )
    return {name: _calibrated(manifest, name, found) for name, found in parts.items()}


def _refuse_other_weights(
    manifest: Manifest, weights: Mapping[str, Any], present: Mapping[str, Manifest]
) -> None:
    if file_name(manifest.kind, "fp32") not in weights:
        raise _damaged_part(
            manifest, f"it does not say on which {file_name(manifest.kind, 'fp32')} it was fitted"
        )
    for kind, beside in present.items():
        name = file_name(kind, "fp32")
        fitted = weights.get(name)
        if fitted is not None and fitted != _sum(beside):
            raise OtherWeights(
                f"the confidence of '{manifest.name}' was fitted on another {name} "
                f"({str(fitted)[:12]}..., here is {_sum(beside)[:12]}...); fit it anew with '{MEND}'"
            )


def _calibrated(manifest: Manifest, name: str, found: object) -> Calibrated:
    wanted = {field.name for field in fields(Calibrated)}
    if not isinstance(found, dict) or set(found) != wanted:
        given = sorted(found) if isinstance(found, dict) else type(found).__name__
        raise _damaged_part(manifest, f"part '{name}' holds {given}, wanted {sorted(wanted)}")
    between = found["risk_between"]
    if not (isinstance(between, list | tuple) and len(between) == 2):
        raise _damaged_part(manifest, f"'risk_between' of part '{name}' is {between!r}, wanted two numbers")
    numbers = {key: value for key, value in found.items() if key != "risk_between"}
    for key, value in (*numbers.items(), ("risk_between", between[0]), ("risk_between", between[1])):
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise _damaged_part(manifest, f"'{key}' of part '{name}' is {value!r}, wanted a number")
    if not COLDEST <= found["temperature"] <= HOTTEST:
        raise _damaged_part(
            manifest,
            f"the temperature of part '{name}' is {found['temperature']}, wanted {COLDEST} to {HOTTEST}",
        )
    for key in ("threshold", "coverage", "risk"):
        if not 0.0 <= found[key] <= 1.0:
            raise _damaged_part(manifest, f"'{key}' of part '{name}' is {found[key]}, wanted 0 to 1")
    return Calibrated(**{**found, "risk_between": (float(between[0]), float(between[1]))})


def _sum(manifest: Manifest) -> str:
    return manifest.files.get(file_name(manifest.kind, "fp32"), "")


def _damaged_part(manifest: Manifest, what: str) -> DamagedConfidence:
    return DamagedConfidence(
        f"the confidence in the manifest of '{manifest.name}' is damaged: {what}; fit it anew with '{MEND}'"
    )
