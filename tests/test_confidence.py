"""What stands in a manifest about confidence is read back whole, or refused by name."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from liveaffect.engines import manifest as manifests
from liveaffect.engines.confidence import Calibrated, DamagedConfidence, OtherWeights, parse, part
from liveaffect.engines.manifest import Manifest

FOUND = Calibrated(
    temperature=1.4,
    threshold=0.52,
    coverage=0.8,
    risk=0.13,
    risk_between=(0.11, 0.16),
    cues=4000,
    clips=500,
    groups=500,
    excess_before=0.09,
    excess_after=0.004,
)


def network(kind: str, weights: str = "a") -> Manifest:
    described = manifests.describe(kind, "live")
    return manifests.record_file(described, "fp32", f"{kind} {weights}".encode())


ALL = {kind: network(kind) for kind in ("face", "voice", "fusion")}


def calibrated(kind: str, *names: str) -> Manifest:
    fitted_on = ALL if kind == "fusion" else {kind: ALL[kind]}
    content = part(dict.fromkeys(names, FOUND), fitted_on, dict.fromkeys(fitted_on, "onnx"))
    return manifests.extended(ALL[kind], confidence=content)


def test_what_was_written_is_read_back_after_it_was_a_file(tmp_path: Path) -> None:
    path = tmp_path / "fusion.json"
    manifests.write(calibrated("fusion", "face", "face+voice"), path)
    assert parse(manifests.read(path), ALL) == {"face": FOUND, "face+voice": FOUND}


def test_without_the_part_there_is_nothing_and_no_complaint() -> None:
    assert parse(ALL["face"]) == {}


def test_the_confidence_of_other_weights_is_refused_by_name() -> None:
    moved = replace(calibrated("face", "reading"), files=network("face", "b").files)
    with pytest.raises(
        OtherWeights, match=r"'face-live' was fitted on another face\.onnx .*calibrate confid"
    ):
        parse(moved)


def test_a_fusion_is_refused_when_the_voice_beside_it_is_another() -> None:
    fusion = calibrated("fusion", "face+voice")
    assert parse(fusion, ALL)
    with pytest.raises(OtherWeights, match=r"another voice\.onnx"):
        parse(fusion, {**ALL, "voice": network("voice", "b")})


def test_quantising_anew_does_not_make_it_stale() -> None:
    quantised = manifests.record_file(calibrated("face", "reading"), "int8", b"other scales")
    assert parse(quantised) == {"reading": FOUND}


def _without(*path: str) -> Callable[[dict[str, Any]], None]:
    def spoil(content: dict[str, Any]) -> None:
        for name in path[:-1]:
            content = content[name]
        del content[path[-1]]

    return spoil


def _with(value: object, *path: str) -> Callable[[dict[str, Any]], None]:
    def spoil(content: dict[str, Any]) -> None:
        for name in path[:-1]:
            content = content[name]
        content[path[-1]] = value

    return spoil


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (_with(2, "format"), "its format is 2, wanted 1"),
        (_without("weights"), "lacks 'weights' or 'parts'"),
        (_with({}, "parts"), "lacks 'weights' or 'parts'"),
        (_with({"voice.onnx": "x"}, "weights"), r"on which face\.onnx"),
        (_with(1.3, "parts", "smell"), "unknown part smell"),
        (_without("parts", "reading", "temperature"), "part 'reading' holds"),
        (_with(True, "parts", "reading", "risk"), "'risk' of part 'reading' is True"),
        (_with(float("nan"), "parts", "reading", "threshold"), "'threshold' of part 'reading' is nan"),
        (_with(0.0, "parts", "reading", "temperature"), "temperature of part 'reading' is 0.0"),
        (_with(-3, "parts", "reading", "temperature"), "temperature of part 'reading' is -3"),
        (_with(1.2, "parts", "reading", "threshold"), "'threshold' of part 'reading' is 1.2, wanted 0 to 1"),
        (_with([0.1], "parts", "reading", "risk_between"), r"is \[0.1\], wanted two numbers"),
        (_with(["a", "b"], "parts", "reading", "risk_between"), "'risk_between' of part 'reading' is 'a'"),
    ],
)
def test_a_damaged_confidence_is_refused_by_name(spoil: Callable[[dict[str, Any]], None], said: str) -> None:
    found = calibrated("face", "reading")
    content = copy.deepcopy(dict(found.confidence))
    spoil(content)
    with pytest.raises(DamagedConfidence, match=said) as refusal:
        parse(manifests.extended(found, confidence=content))
    assert "'face-live'" in str(refusal.value)
    assert "liveaffect calibrate confidence" in str(refusal.value)
