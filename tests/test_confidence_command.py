"""The command refuses what cannot work, writes every part where it belongs, and keeps what others wrote."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from liveaffect import cli
from liveaffect.calibration import fit_confidence as confidence
from liveaffect.calibration.clips import ClipTrace, Engines
from liveaffect.calibration.held_out import Outcome, Reading
from liveaffect.calibration.reliability import Fit
from liveaffect.engines import manifest as manifests
from liveaffect.engines.confidence import Calibrated, parse
from liveaffect.engines.manifest import Manifest
from liveaffect.engines.scripted_engine import ScriptedFace, ScriptedFusion, ScriptedVoice
from liveaffect.realtime.errors import RealtimeError, SettingsError
from liveaffect.realtime.testing.people import ScriptedFinder
from liveaffect.realtime.window import PIECES
from liveaffect.realtime.wiring import confidence_of

KINDS = ("face", "voice", "fusion")
CAST = Engines(
    ScriptedFace(), ScriptedVoice(), ScriptedFusion(), (ScriptedFinder(), ScriptedFinder()), PIECES
)


def networks(folder: Path, *kinds: str) -> dict[str, Manifest]:
    """Manifests of networks that say they were trained, in a folder."""
    made = {}
    for kind in kinds:
        described = manifests.record_file(manifests.describe(kind, "live"), "fp32", kind.encode())
        made[kind] = manifests.extended(described, training={"corpora": ["ravdess"]})
        manifests.write(made[kind], folder / f"{kind}.json")
    return made


class Some:
    """An outcome as far as the manifests want one."""

    def __init__(self, temperature: float) -> None:
        self.fit = Fit(temperature, 1.0, 0.9)

    def calibrated(self) -> Calibrated:
        return Calibrated(self.fit.temperature, 0.5, 0.8, 0.1, (0.05, 0.15), 900, 100, 100, 0.1, 0.01)


OUTCOMES = {
    name: Some(temperature)
    for name, temperature in {
        "face reading": 1.1,
        "face": 1.2,
        "voice reading": 1.3,
        "voice": 1.4,
        "face+voice": 1.5,
    }.items()
}


def outcomes() -> dict[str, Outcome]:
    return dict(OUTCOMES)  # type: ignore[arg-type]


def test_every_part_stands_in_the_manifest_where_the_path_looks_for_it(tmp_path: Path) -> None:
    made = networks(tmp_path, *KINDS)
    confidence._write_manifests(made, {kind: tmp_path / f"{kind}.json" for kind in made}, outcomes(), CAST)
    found = {kind: manifests.read(tmp_path / f"{kind}.json") for kind in KINDS}
    assert parse(found["face"])["reading"].temperature == 1.1
    assert set(parse(found["fusion"], found)) == {"face", "voice", "face+voice"}
    read = confidence_of(dict.fromkeys(KINDS, tmp_path), KINDS, print)
    assert read.readings == {"face": 1.1, "voice": 1.3}
    assert read.fused == {"face": 1.2, "voice": 1.4, "face+voice": 1.5}
    assert read.caveat is None


def test_what_others_wrote_meanwhile_stays(tmp_path: Path) -> None:
    made = networks(tmp_path, "face")
    newer = manifests.extended(made["face"], figures={"fer+ test side": {"items": 7}})
    manifests.write(newer, tmp_path / "face.json")
    confidence._write_manifests(made, {kind: tmp_path / f"{kind}.json" for kind in made}, outcomes(), CAST)
    found = manifests.read(tmp_path / "face.json")
    assert found.figures == {"fer+ test side": {"items": 7}}
    assert found.confidence


def test_weights_that_changed_meanwhile_are_refused(tmp_path: Path) -> None:
    made = networks(tmp_path, "face")
    manifests.write(manifests.record_file(made["face"], "fp32", b"another"), tmp_path / "face.json")
    with pytest.raises(RealtimeError, match="the weights of 'face-live' changed"):
        confidence._write_manifests(
            made, {kind: tmp_path / f"{kind}.json" for kind in made}, outcomes(), CAST
        )


def test_what_could_not_be_fitted_is_named_and_the_rest_goes_on(tmp_path: Path) -> None:
    made = networks(tmp_path, "face", "fusion")
    few = [ClipTrace(f"clip-{k}", f"clip-{k}", "calibrate", k % 7, ()) for k in range(9)]
    lines: list[str] = []
    found, failed = confidence._fit_all(made, {"face": few}, lines.append)
    assert found == {}
    assert failed
    assert lines == [
        "left out: face reading: 9 items are too few to learn a confidence from, wanted 50",
        "left out: face: 9 items are too few to learn a confidence from, wanted 50",
    ]


def test_without_data_or_without_a_trained_network_it_says_so(tmp_path: Path) -> None:
    if importlib.util.find_spec("torch") is None:
        pytest.skip("needs torch to be installed")
    with pytest.raises(SettingsError, match=r"there is no folder .*nowhere"):
        confidence.calibrate_confidence(confidence.ConfidenceOptions(tmp_path / "nowhere"), print)
    with pytest.raises(SettingsError, match=r"no network in .* was trained"):
        confidence.calibrate_confidence(confidence.ConfidenceOptions(tmp_path, weights=tmp_path), print)


def test_the_command_says_what_is_missing_and_ends_with_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["calibrate", "confidence", "--data", str(tmp_path / "nowhere")]) == 1
    assert "there is no folder" in capsys.readouterr().err


def test_figures_of_the_packages_own_weights_go_into_its_documents(tmp_path: Path) -> None:
    own = confidence.wanted(tmp_path, None, None)
    if (manifests.SHIPPED.parent.parent / "docs").is_dir():
        assert own.page is not None
        assert own.page.name == "confidence.md"
        assert own.out.parts[-3:] == ("docs", "results", "confidence")
    else:  # Installed from a wheel, there are no documents.
        assert (own.out, own.page) == (Path("confidence"), None)
    others = confidence.wanted(tmp_path, tmp_path / "weights", None)
    assert (others.out, others.page) == (tmp_path / "weights" / "confidence", None)
    assert confidence.wanted(tmp_path, None, tmp_path / "out").page is None


def test_answers_of_nobody_are_no_answers() -> None:
    assert Reading("face", []).scores(1.0).shape == (0, 7)
