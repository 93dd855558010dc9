"""A run believes its networks as their manifests say, and says so where they say nothing."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest

from liveaffect.doctor import doctor
from liveaffect.engines import manifest as manifests
from liveaffect.engines.confidence import READING, Calibrated, DamagedConfidence, part
from liveaffect.engines.manifest import Manifest
from liveaffect.realtime.wiring import confidence_of
from liveaffect.self_test import confidence
from liveaffect.settings import Settings

KINDS = ("face", "voice", "fusion")


def found(temperature: float, threshold: float = 0.5) -> Calibrated:
    return Calibrated(temperature, threshold, 0.8, 0.1, (0.05, 0.15), 900, 100, 100, 0.1, 0.01)


def networks(*kinds: str) -> dict[str, Manifest]:
    return {
        kind: manifests.record_file(manifests.describe(kind, "live"), "fp32", kind.encode()) for kind in kinds
    }


def written(folder: Path, made: dict[str, Manifest], parts: dict[str, dict[str, Calibrated]]) -> Path:
    """Manifests with what calibration found; weight files are not looked at here."""
    for kind, manifest in made.items():
        content = {}
        if kind in parts:
            content = part(parts[kind], made if kind == "fusion" else {kind: manifest}, {})
        manifests.write(manifests.extended(manifest, confidence=content), folder / f"{kind}.json")
    return folder


WHOLE = {
    "face": {READING: found(1.5)},
    "voice": {READING: found(2.5)},
    "fusion": {"face": found(1.2, 0.4), "voice": found(2.0, 0.35), "face+voice": found(1.1, 0.45)},
}


def test_everything_that_was_found_reaches_the_path(tmp_path: Path) -> None:
    lines: list[str] = []
    confidence = confidence_of(
        dict.fromkeys(KINDS, written(tmp_path, networks(*KINDS), WHOLE)), KINDS, lines.append
    )
    assert confidence.readings == {"face": 1.5, "voice": 2.5}
    assert confidence.fused == {"face": 1.2, "voice": 2.0, "face+voice": 1.1}
    assert confidence.thresholds == {"face": 0.4, "voice": 0.35, "face+voice": 0.45}
    assert confidence.picture_threshold == 0.5
    assert confidence.caveat is None
    assert lines == []


def test_manifests_without_it_run_at_one_and_say_so(tmp_path: Path) -> None:
    confidence = confidence_of(
        dict.fromkeys(KINDS, written(tmp_path, networks(*KINDS), {})), KINDS, lambda line: None
    )
    assert confidence.of_reading("face") == 1.0
    assert confidence.fused == {}
    assert confidence.caveat == "confidence not calibrated"
    assert confidence.picture_threshold is None


@pytest.mark.parametrize(
    ("kinds", "lacking", "caveat"),
    [
        (("face",), "", None),
        (("face", "voice"), "", "confidence not calibrated: face+voice"),
        (KINDS, "face+voice", "confidence not calibrated: face+voice"),
        (KINDS, "voice", "confidence not calibrated: voice"),
    ],
)
def test_what_is_judged_and_was_not_calibrated_is_named(
    tmp_path: Path, kinds: tuple[str, ...], lacking: str, caveat: str | None
) -> None:
    fusion = {name: one for name, one in WHOLE["fusion"].items() if name != lacking}
    parts = {**WHOLE, "fusion": fusion}
    assert (
        confidence_of(dict.fromkeys(KINDS, written(tmp_path, networks(*kinds), parts)), kinds, print).caveat
        == caveat
    )


def test_an_untrained_network_needs_none_and_rules_of_fusion_hand_on_the_face_as_it_is(
    tmp_path: Path,
) -> None:
    confidence = confidence_of(
        dict.fromkeys(KINDS, written(tmp_path, networks("face"), WHOLE)), ["face"], print
    )
    assert confidence.fused == {"face": 1.5}
    assert confidence_of(dict.fromkeys(KINDS, tmp_path), [], print).caveat is None


def test_the_confidence_of_other_weights_is_named_and_left_out(tmp_path: Path) -> None:
    made = networks(*KINDS)
    written(tmp_path, made, WHOLE)
    other = manifests.record_file(manifests.read(tmp_path / "voice.json"), "fp32", b"trained longer")
    manifests.write(other, tmp_path / "voice.json")
    lines: list[str] = []
    confidence = confidence_of(dict.fromkeys(KINDS, tmp_path), KINDS, lines.append)
    assert len(lines) == 2
    assert all("another voice.onnx" in line for line in lines)
    assert confidence.readings == {"face": 1.5}
    assert confidence.fused == {}
    assert confidence.caveat == "confidence not calibrated: face, voice, face+voice"


def test_a_damaged_one_stops_the_run(tmp_path: Path) -> None:
    written(tmp_path, networks("face"), WHOLE)
    path = tmp_path / "face.json"
    content = json.loads(path.read_text())
    content["confidence"]["parts"]["reading"]["temperature"] = "warm"
    path.write_text(json.dumps(content))
    with pytest.raises(DamagedConfidence, match="'temperature' of part 'reading' is 'warm'"):
        confidence_of(dict.fromkeys(KINDS, tmp_path), ["face"], print)


@pytest.mark.parametrize(
    ("parts", "said"),
    [
        (WHOLE, "ok      confidence: temperatures: face 1.20, voice 2.00, face+voice 1.10"),
        ({}, "-       confidence: not calibrated\n          if wanted: liveaffect calibrate confidence"),
    ],
)
def test_the_doctor_says_whether_confidence_means_something(
    tmp_path: Path, parts: dict[str, dict[str, Calibrated]], said: str
) -> None:
    settings = Settings(weights=str(written(tmp_path, networks(*KINDS), parts)))
    out = io.StringIO()
    assert doctor(out=out, sections=[("engines", lambda: [confidence(list(KINDS), settings)])]) == 0
    assert said in out.getvalue()
