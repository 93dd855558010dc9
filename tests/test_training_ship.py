"""Nothing is shipped that was not trained, judged and found whole, on the sides frozen for the package."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from liveaffect.engines import manifest as manifests
from liveaffect.engines.protocol import EngineFileError
from liveaffect.engines.training import splits
from liveaffect.engines.training.ship import ship, source_commit


def trained(folder: Path, *, members: int = 3, without: str = "") -> Path:
    """A network that is a few bytes, with everything around it in order."""
    folder.mkdir(exist_ok=True)
    everybody = [splits.Member(str(i), str(i), "train") for i in range(members)]
    splits.freeze(folder / "splits.json", "fer+", everybody)
    manifest = manifests.record_file(manifests.describe("face", "live"), "fp32", b"network")
    parts: dict[str, dict[str, Any]] = {
        "training": {"corpora": ["fer+"]},
        "figures": {"fer+": {"accuracy": 0.9}},
    }
    kept = {name: part for name, part in parts.items() if name != without}
    manifest = manifests.extended(manifest, **kept)
    (folder / "face.onnx").write_bytes(b"network")
    manifests.write(manifest, folder / "face.json")
    return folder


def test_a_judged_network_is_shipped_whole_with_its_sides(tmp_path: Path) -> None:
    folder, to, frozen = trained(tmp_path / "out"), tmp_path / "weights", tmp_path / "splits.json"
    path = ship("face", folder, to=to, frozen=frozen)
    assert manifests.load_bytes(manifests.read(path), to, "fp32") == b"network"
    assert splits.read_splits(frozen) == splits.read_splits(folder / "splits.json")
    assert ship("face", folder, to=to, frozen=frozen) == path


@pytest.mark.parametrize(("part", "told"), [("training", "not trained yet"), ("figures", "not judged yet")])
def test_what_was_not_trained_or_judged_is_not_shipped(tmp_path: Path, part: str, told: str) -> None:
    folder = trained(tmp_path / "out", without=part)
    with pytest.raises(EngineFileError, match=told):
        ship("face", folder, to=tmp_path / "weights", frozen=tmp_path / "splits.json")
    assert not (tmp_path / "weights").exists()


def test_a_network_of_other_sides_or_altered_bytes_is_not_shipped(tmp_path: Path) -> None:
    to, frozen = tmp_path / "weights", tmp_path / "splits.json"
    ship("face", trained(tmp_path / "out"), to=to, frozen=frozen)
    with pytest.raises(EngineFileError, match="other sides of 'fer\\+'"):
        ship("face", trained(tmp_path / "other", members=4), to=to, frozen=frozen)
    altered = trained(tmp_path / "altered")
    (altered / "face.onnx").write_bytes(b"netwurk")
    with pytest.raises(EngineFileError, match="truncated or altered"):
        ship("face", altered, to=to, frozen=frozen)


def test_an_installed_package_knows_no_commit(tmp_path: Path) -> None:
    assert source_commit(tmp_path) == "unknown"
