"""The full voice: Whisper's arithmetic, none of its numbers in our file, put together when it is opened."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch", reason="networks are built with torch")
onnx = pytest.importorskip("onnx", reason="export needs the package 'onnx', which torch brings along")

import torch

from liveaffect.engines import load, manifest, parity, whisper
from liveaffect.engines.build import export_onnx
from liveaffect.engines.load import FULL, voice_folder
from liveaffect.engines.manifest import Manifest
from liveaffect.engines.model import presets
from liveaffect.engines.model.frontend import BANDS, WhisperFront, WhisperSound, heard_share
from liveaffect.engines.model.voice_statistics import FOREIGN, VoiceWhisper, foreign_names
from liveaffect.engines.onnx_engine import OnnxEngine
from liveaffect.engines.protocol import EngineFileError
from liveaffect.engines.recipe import SAMPLE_RATE
from liveaffect.engines.torch_engine import open_weights
from tests.test_whisper import converted


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, VoiceWhisper]:
    """A full voice on a Whisper of chance numbers, which lies in a file as the real one does."""
    folder = tmp_path_factory.mktemp("full")
    network = presets.build("voice", "whisper", seed=1)
    assert isinstance(network, VoiceWhisper)
    chance = torch.Generator().manual_seed(2)  # Tensors that are equal would be stored once.
    with torch.no_grad():
        for one in network.ears.parameters():
            one.add_(0.05 * torch.randn(one.shape, generator=chance))
    names = foreign_names(network.ears.state_dict())
    tensors = {
        names[ours]: value.numpy().astype(np.float16) for ours, value in network.ears.state_dict().items()
    }
    network.ears.take(tensors)
    export_onnx.in_halves(network)
    content = converted(tensors)
    (folder / "whisper").mkdir()
    (folder / "whisper" / whisper.FILE).write_bytes(content)
    known = replace(whisper.TINY_EN, sha256=hashlib.sha256(content).hexdigest())
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(whisper.KNOWN, known.name, known)
        export_onnx.export("voice", "whisper", folder / FULL, state=network.state_dict())
    return folder, network.eval()


@pytest.fixture
def found(exported: tuple[Path, VoiceWhisper], monkeypatch: pytest.MonkeyPatch) -> Manifest:
    folder, _ = exported
    read = manifest.read(folder / FULL / "voice.json")
    monkeypatch.setenv(whisper.FOLDER_VARIABLE, str(folder / "whisper"))
    known = replace(whisper.TINY_EN, sha256=str(read.foreign["sha256"]))
    monkeypatch.setitem(whisper.KNOWN, known.name, known)
    return read


def test_our_file_holds_no_number_of_whispers(exported: tuple[Path, VoiceWhisper], found: Manifest) -> None:
    folder, network = exported
    graph = onnx.load(folder / FULL / "voice.onnx", load_external_data=False).graph
    theirs = {t.name: t for t in graph.initializer if t.name.startswith("encoder/")}
    assert set(theirs) == set(found.foreign["tensors"])
    assert len(theirs) == len(network.ears.state_dict())
    assert not any(tensor.raw_data or tensor.float_data for tensor in theirs.values())
    ears = sum(p.numel() for p in network.ears.parameters())
    assert (folder / FULL / "voice.onnx").stat().st_size < ears


def test_what_is_ours_and_large_is_kept_in_half_precision_and_loses_nothing(
    exported: tuple[Path, VoiceWhisper],
) -> None:
    folder, network = exported
    graph = onnx.load(folder / FULL / "voice.onnx", load_external_data=False).graph
    kept = {tensor.name: tensor for tensor in graph.initializer}
    large = {
        name
        for name, one in presets.deploy(network).named_parameters()
        if not name.startswith(FOREIGN) and one.numel() >= export_onnx.LARGE
    }
    assert {"head.hidden.weight", "listener.enter.weight"} <= large
    for name in large:
        assert kept[name].data_type == onnx.TensorProto.FLOAT16, name
        stored = onnx.numpy_helper.to_array(kept[name]).astype(np.float32)
        np.testing.assert_array_equal(stored, network.state_dict()[name].numpy())


def test_put_together_it_answers_like_the_module(
    exported: tuple[Path, VoiceWhisper], found: Manifest
) -> None:
    folder, network = exported
    batch = parity.for_tensors("voice", 4, found.inputs, seed=2)
    given = OnnxEngine(found, folder / FULL).infer(batch)
    with torch.no_grad():
        wanted = network(*(torch.from_numpy(batch[one.name]) for one in found.inputs))
    for name, tensor in wanted._asdict().items():
        assert np.abs(given[name] - tensor.numpy()).max() <= 1e-4 * max(1.0, float(tensor.abs().max())), name


def test_the_reference_takes_the_same_foreign_tensors(
    exported: tuple[Path, VoiceWhisper], found: Manifest
) -> None:
    folder, _ = exported
    batch = parity.for_tensors("voice", 16, found.inputs, seed=3)
    engines = open_weights(found, folder / FULL), OnnxEngine(found, folder / FULL)
    report = parity.compare(*engines, batch, tolerance=parity.EXACT)
    assert report.alike, "\n".join(report.lines())


def test_another_whisper_than_the_one_it_was_trained_on_is_refused(
    exported: tuple[Path, VoiceWhisper], found: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, _ = exported
    monkeypatch.setitem(whisper.KNOWN, "tiny.en", replace(whisper.TINY_EN, sha256="0" * 64))
    with pytest.raises(EngineFileError, match=r"stands on Whisper tiny\.en with SHA-256"):
        OnnxEngine(found, folder / FULL)


def test_the_full_voice_is_taken_where_it_can_be_and_said_where_not(
    exported: tuple[Path, VoiceWhisper], found: Manifest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    folder, _ = exported
    lines: list[str] = []
    assert voice_folder("full", folder, report=lines.append) == folder / FULL
    assert voice_folder("small", folder, report=lines.append) is None
    assert voice_folder("auto", folder, report=lines.append) is None, "nobody knows how far to believe it"
    assert not lines
    monkeypatch.setenv(whisper.FOLDER_VARIABLE, str(tmp_path))
    assert voice_folder("auto", folder, report=lines.append) is None
    assert "liveaffect fetch" in lines[0]
    with pytest.raises(EngineFileError, match=r"the full voice cannot be used: Whisper tiny\.en is not in"):
        voice_folder("full", folder, report=lines.append)
    with pytest.raises(EngineFileError, match="there is no full voice network"):
        voice_folder("full", tmp_path, report=lines.append)


def test_the_planner_hears_of_its_pieces_and_statistics(
    exported: tuple[Path, VoiceWhisper], found: Manifest
) -> None:
    folder, network = exported
    numbers = load.recipe_numbers("voice", choice="onnx", weights=folder / FULL)
    assert (numbers.piece, numbers.hop, numbers.lead) == (25_600, 6_400, 19_200)
    assert (numbers.statistics.width, numbers.statistics.counts) == (network.width, "pieces")


def test_a_tone_stands_in_its_band_and_silence_on_the_floor() -> None:
    sound = WhisperSound(piece=16_000, hop=6_400)
    at_s = np.arange(sound.piece) / SAMPLE_RATE
    tone = torch.from_numpy(0.1 * np.sin(2 * np.pi * 1000 * at_s)).float()
    log_mel = WhisperFront(sound)(tone[None])
    assert log_mel.shape == (1, BANDS, sound.frames)
    loudest = log_mel.mean(2).argmax().item()
    # 1 kHz is the knee of the scale: 15 of the 45.25 mel below 8 kHz, in eighty-one steps.
    assert loudest == pytest.approx(15 / 45.245 * (BANDS + 1) - 1, abs=1)
    assert log_mel.max() - log_mel.min() == pytest.approx(2.0, abs=1e-5)
    assert WhisperFront(sound)(torch.zeros(1, sound.piece)).unique().tolist() == [-1.5]


def test_silence_before_a_voice_hardly_counts() -> None:
    sound = WhisperSound(piece=16_000, hop=6_400)
    rng = np.random.default_rng(0)
    voice = np.where(np.arange(sound.piece) >= 12_000, 0.1, 1e-4) * rng.normal(size=sound.piece)
    share = heard_share(WhisperFront(sound)(torch.from_numpy(voice).float()[None]))[0]
    assert share.shape == (sound.moments,)
    assert share.sum() == pytest.approx(1.0, abs=1e-5)
    assert share[: round(0.7 * sound.moments)].sum() < 0.05
