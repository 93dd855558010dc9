"""A manifest that does not fit, or a weight file that is not the one it names, is refused by name."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from liveaffect.engines import manifest as manifests
from liveaffect.engines.protocol import EngineFileError
from liveaffect.engines.recipe import LABELS
from liveaffect.realtime.testing import engines

Entry = dict[str, Any]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return engines.write_tiny(tmp_path, "voice")


def rewrite(path: Path, change: Callable[[Entry], object]) -> None:
    entry = json.loads(path.read_text())
    change(entry)
    path.write_text(json.dumps(entry))


@pytest.mark.parametrize("kind", manifests.KINDS)
def test_what_was_written_is_what_is_read(tmp_path: Path, kind: str) -> None:
    path = engines.write_tiny(tmp_path, kind, trained=True)
    found = manifests.read(path)
    again = tmp_path / "again.json"
    manifests.write(found, again)
    assert manifests.read(again) == found
    assert again.read_text() == path.read_text()
    assert (found.inputs, found.outputs) == manifests.tensors(kind)


def test_the_written_form_has_exactly_the_agreed_fields(path: Path) -> None:
    entry = json.loads(path.read_text())
    assert list(entry)[:4] == ["name", "kind", "preset", "format"]
    assert set(entry) == {
        *("name", "kind", "preset", "format", "files", "labels", "inputs", "outputs", "recipe"),
        *("quantisation", "confidence", "training", "figures", "foreign"),
    }
    assert entry["labels"] == list(LABELS)
    assert entry["recipe"] == {
        "crop": 1,
        "sample_rate": 16000,
        "piece": 6600,
        "hop": 3200,
        "lead": 0,
        "evidence_s": 4.0,
        "statistics": {"width": 64, "counts": "frames"},
    }
    assert set(entry["files"]) == {"voice.onnx"}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda e: e.update(format=2), ["format 2", "reads 1", "pip install --upgrade liveaffect"]),
        (lambda e: e.update(format="1"), ["format is '1'"]),
        (lambda e: e.update(format=True), ["format is True"]),
        (lambda e: e.pop("labels"), ["lacks labels"]),
        (lambda e: e.update(colour="red"), ["unknown fields colour"]),
        (lambda e: e.update(kind="smell"), ["kind 'smell'", "face, voice, fusion"]),
        (lambda e: e.update(kind="face"), ["samples", "crop"]),
        (lambda e: e.update(labels=sorted(LABELS)), ["its labels are", "angry", str(list(LABELS))]),
        (lambda e: e["inputs"][0].update(dtype="float64"), ["its inputs are", "float64"]),
        (lambda e: e["outputs"].pop(), ["its outputs are", "stat_sumsq"]),
        (lambda e: e.update(recipe=3), ["'recipe' is not a JSON object but int"]),
        (lambda e: e["recipe"].update(crop=2), ["recipe 'crop' is 2", "live path uses 1"]),
        (lambda e: e["recipe"].update(sample_rate=8000), ["'sample_rate' is 8000", "16000"]),
        (lambda e: e["recipe"].update(piece=8000), ["its inputs are", "8000"]),
        (lambda e: e["recipe"].update(piece=10), ["'piece' is 10"]),
        (lambda e: e["recipe"].update(hop=0), ["'hop' is 0"]),
        (lambda e: e["recipe"].update(hop=6601), ["'hop' is 6601", "1 to 6600"]),
        (lambda e: e["recipe"].update(hop=3200.0), ["'hop' is 3200.0"]),
        (lambda e: e["recipe"].update(evidence_s=-1.0), ["'evidence_s' is -1.0"]),
        (lambda e: e["recipe"].update(evidence_s=float("nan")), ["'evidence_s' is nan"]),
        (lambda e: e["recipe"].update(mood=1), ["unknown fields mood"]),
        (lambda e: e["files"].update({"../voice.onnx": "0" * 64}), ["lists the file '../voice.onnx'"]),
        (lambda e: e["files"].update({"voice.onnx": "abc"}), ["SHA-256 of 'voice.onnx' is 'abc'"]),
        (lambda e: e["files"].clear(), ["lists no file 'voice.onnx'"]),
        (lambda e: e.update(training=[]), ["'training' is not a JSON object"]),
        (lambda e: e.update(name=""), ["'name' is ''"]),
    ],
)
def test_a_manifest_that_does_not_fit_is_refused_by_name(
    path: Path, change: Callable[[Entry], object], words: list[str]
) -> None:
    rewrite(path, change)
    with pytest.raises(EngineFileError) as refusal:
        manifests.read(path)
    for word in [str(path), *words]:
        assert word in str(refusal.value)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"format": 1', "\x00"])
def test_a_damaged_manifest_is_refused_without_advice_to_write_random_weights(path: Path, text: str) -> None:
    path.write_text(text)
    with pytest.raises(EngineFileError, match="copy it again from where it came") as refusal:
        manifests.read(path)
    assert "export" not in str(refusal.value)


def test_a_manifest_that_is_not_text_is_refused(path: Path) -> None:
    path.write_bytes(b"\xff\xfe\xff")
    with pytest.raises(EngineFileError, match=r"cannot read the manifest .*voice\.json"):
        manifests.read(path)


def test_a_missing_manifest_is_named_with_the_command_that_writes_it(tmp_path: Path) -> None:
    with pytest.raises(EngineFileError, match=r"no manifest .*face\.json.*liveaffect export face"):
        manifests.read(tmp_path / "face.json")


def test_a_shipped_file_is_brought_back_not_made_anew() -> None:
    words = manifests.mend(manifests.SHIPPED / "face.onnx")
    assert "git checkout -- " in words
    assert "export" not in words


@pytest.mark.parametrize(
    "spoil",
    [
        pytest.param(lambda b: b[:-1], id="truncated"),
        pytest.param(lambda b: b[:100] + bytes([b[100] ^ 1]) + b[101:], id="one bit flipped"),
        pytest.param(lambda b: b + b"\0", id="longer"),
        pytest.param(lambda b: b"", id="empty"),
    ],
)
def test_a_truncated_or_altered_weight_file_is_never_handed_out(
    path: Path, spoil: Callable[[bytes], bytes]
) -> None:
    weights = path.with_name("voice.onnx")
    weights.write_bytes(spoil(weights.read_bytes()))
    with pytest.raises(
        EngineFileError, match=r"voice\.onnx is truncated or altered.*copy it again"
    ) as refusal:
        manifests.load_bytes(manifests.read(path), path.parent, "fp32")
    assert "export" not in str(refusal.value), "that would write random weights over it"


def test_a_missing_weight_file_is_named(path: Path) -> None:
    path.with_name("voice.onnx").unlink()
    with pytest.raises(EngineFileError, match=r"voice\.onnx is missing; write an untrained one with"):
        manifests.load_bytes(manifests.read(path), path.parent, "fp32")


def test_a_precision_without_a_file_is_named_with_the_command_that_builds_it(path: Path) -> None:
    with pytest.raises(EngineFileError, match=r"has no int8 file.*liveaffect build --precision int8"):
        manifests.load_bytes(manifests.read(path), path.parent, "int8")


def test_only_a_network_with_a_training_record_counts_as_trained(tmp_path: Path) -> None:
    for trained in (False, True):
        found = manifests.read(engines.write_tiny(tmp_path, "face", trained=trained))
        assert found.spec("fp32", "onnx").trained is trained


def test_the_model_named_in_cues_is_the_start_of_the_sum_of_the_file_that_runs(path: Path) -> None:
    found = manifests.read(path)
    assert found.spec("fp32", "onnx").model == found.files["voice.onnx"][:6]


def test_a_voice_preset_may_declare_its_own_piece() -> None:
    longer = manifests.describe("voice", "longer", piece=12_000, hop=5_200)
    assert longer.inputs[0].shape == (12_000,)
    assert (longer.recipe.piece, longer.recipe.hop) == (12_000, 5_200)


def test_a_manifest_has_no_parts_that_nobody_agreed_on(path: Path) -> None:
    with pytest.raises(ValueError, match="no part colours"):
        manifests.extended(manifests.read(path), colours={})


def test_a_failed_write_leaves_the_old_file_and_no_other(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before, names = path.read_bytes(), {p.name for p in path.parent.iterdir()}

    def full(self: Path, content: bytes) -> int:
        self.touch()
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match="No space"):
        manifests.write_whole(path, b"new")
    assert path.read_bytes() == before
    assert {p.name for p in path.parent.iterdir()} == names
