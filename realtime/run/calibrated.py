"""Reads what calibration found out of the manifests of a run's networks, for the path to use.

A confidence that was fitted on other weights is refused by name and left out; the run goes on, and the
overlay says that it is not calibrated. A damaged one stops the run like any damaged manifest.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from pathlib import Path

from calibration.confidence import READING, SUBSETS, Calibrated, OtherWeights, parse
from engines import manifest as manifests
from engines.load import manifest_path
from realtime.confidence import Confidence

NOT_CALIBRATED = "confidence not calibrated"


def confidence_of(weights: Path | None, trained: Collection[str], say: Callable[[str], None]) -> Confidence:
    """What the manifests say of those networks that were trained; the others have none.

    Raises EngineFileError for a damaged one.
    """
    found = {kind: manifests.read(manifest_path(kind, weights)) for kind in trained}
    parts: dict[str, dict[str, Calibrated]] = {}
    for kind, manifest in found.items():
        try:
            parts[kind] = parse(manifest, found)
        except OtherWeights as err:
            say(f"{NOT_CALIBRATED}: {err}")
            parts[kind] = {}
    readings = {kind: one[READING] for kind, one in parts.items() if READING in one}
    # A fusion of plain rules hands on what stands alone, so that is believed as it was by itself.
    fused = parts.get("fusion", readings)
    lacking = [
        subset
        for subset in SUBSETS
        if set(subset.split("+")) <= set(trained)
        and (subset not in fused or ("+" not in subset and subset not in readings))
    ]
    return Confidence(
        readings={name: one.temperature for name, one in readings.items()},
        fused={name: one.temperature for name, one in fused.items()},
        thresholds={name: one.threshold for name, one in fused.items()},
        picture_threshold=readings["face"].threshold if "face" in readings else None,
        caveat=_caveat(lacking, whole=not readings),
    )


def _caveat(lacking: list[str], *, whole: bool) -> str | None:
    if not lacking:
        return None
    return NOT_CALIBRATED if whole else f"{NOT_CALIBRATED}: {', '.join(lacking)}"
