"""From a folder of voices to files that run: trained, resumed to one curve, quantised, judged, refused."""

from __future__ import annotations

import wave
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch", reason="networks are trained with torch: pip install liveaffect[train]")

import torch

from liveaffect.engines import manifest, probe
from liveaffect.engines.model import presets
from liveaffect.engines.model.heads import VoiceNetwork
from liveaffect.engines.onnx_engine import OnnxEngine
from liveaffect.engines.protocol import EngineFileError
from liveaffect.engines.recipe import LABELS, SAMPLE_RATE
from liveaffect.engines.training import evaluate_voice, loop, splits, train_voice
from liveaffect.engines.training.sided_voices import CALIBRATE_SHARE, TEST_SHARE, few, found_in, sided, voices
from liveaffect.engines.training.taught_voice import replaying
from liveaffect.engines.training.train_voice import VoiceTask
from liveaffect.engines.training.voice_batches import VoiceBatch

torch.set_num_threads(1)
LENGTH_S = 0.9


def speakers() -> dict[str, str]:
    """A name for every side of the split."""
    found: dict[str, str] = {}
    for name in map("speaker{}".format, range(100)):
        side = splits.side_of(f"plain/{name}", calibrate=CALIBRATE_SHARE, test=TEST_SHARE)
        found.setdefault(side, name)
    return found


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every label twice by three speakers who do not exist."""
    root = tmp_path_factory.mktemp("data")
    for number, (side, speaker) in enumerate(sorted(speakers().items())):
        count = 2 if side == "train" else 1
        for at, label in enumerate(LABELS * count):
            sound = probe.inputs("voice", 1, seed=100 * number + at, piece=round(LENGTH_S * SAMPLE_RATE))
            path = root / "plain" / label / f"{speaker}_{at}.wav"
            path.parent.mkdir(parents=True, exist_ok=True)
            with wave.open(str(path), "wb") as out:
                out.setnchannels(1)
                out.setsampwidth(2)
                out.setframerate(SAMPLE_RATE)
                out.writeframes((sound["samples"][0] * 32_000).astype("<i2").tobytes())
    return root


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.getbasetemp() / "cache"))
    monkeypatch.setattr(train_voice, "NOISES_EACH", 1)


def quiet(line: str) -> None:
    """Reports are for people."""


def a_task(data: Path, folder: Path, preset: str = "live-fcn") -> tuple[VoiceNetwork, VoiceTask]:
    network = presets.build("voice", preset, seed=1)
    assert isinstance(network, VoiceNetwork)
    replay = replaying(network)
    takes = found_in(data)
    found = voices(takes, sided(takes, folder / "splits.json"), replay, folder / "cache", quiet)
    return network, VoiceTask(found.sides["train"], [], replay, train_voice.Recipe(batch=8), "a task")


class PowerCut(BaseException):
    """Ends a training in the middle of an epoch."""


class CutShort(VoiceTask):
    """Loses power in the second epoch."""

    def batches(self, epoch: int, rng: np.random.Generator) -> Iterator[VoiceBatch]:
        for number, batch in enumerate(super().batches(epoch, rng)):
            if epoch == 1 and number == 1:
                raise PowerCut
            yield batch


@pytest.mark.slow
def test_a_training_that_lost_power_goes_on_to_the_same_curve(data: Path, tmp_path: Path) -> None:
    schedule = loop.Schedule(epochs=2, seed=4)
    outcomes = []
    for folder, cut in ((tmp_path / "whole", False), (tmp_path / "cut", True)):
        folder.mkdir()
        if cut:
            network, task = a_task(data, folder)
            task.__class__ = CutShort
            with pytest.raises(PowerCut):
                loop.train(network, task, schedule, folder, report=quiet)
        outcomes.append(loop.train(*a_task(data, folder), schedule, folder, report=quiet))
    whole, resumed = outcomes
    assert [row["loss"] for row in whole.history] == [row["loss"] for row in resumed.history]
    torch.testing.assert_close(whole.state, resumed.state, rtol=0, atol=0)


@pytest.mark.slow
def test_a_smoke_run_leaves_files_that_run_and_can_be_judged(data: Path, tmp_path: Path) -> None:
    lines: list[str] = []
    path = train_voice.train_voice(data, tmp_path, preset="live-fcn", smoke=True, report=lines.append)
    assert path is not None
    assert path == tmp_path / "voice.json"
    found = manifest.read(path)
    assert set(found.files) == {"voice.onnx", "voice.int8.onnx"}
    assert found.training["corpora"] == ["plain"]
    assert found.training["speakers"] == [f"plain/{speakers()['train']}"]
    assert found.quantisation["items"] == len(LABELS)  # each just longer than a piece
    inputs = probe.inputs("voice", 3, piece=found.recipe.piece)
    full, small = (OnnxEngine(found, tmp_path, precision).infer(inputs) for precision in manifest.PRECISIONS)
    assert np.abs(full["logits"] - small["logits"]).max() < 1.0

    verdicts = evaluate_voice.evaluate_voice(
        data, weights=tmp_path, out=tmp_path / "told", report=lines.append
    )
    assert [(v.corpus, v.precision, v.whole.items) for v in verdicts] == [
        ("plain", "fp32", len(LABELS)),
        ("plain", "int8", len(LABELS)),
    ]
    assert set(verdicts[0].speakers) == {f"plain/{speakers()['test']}"}
    table = (tmp_path / "told" / "voice.csv").read_text("utf-8").splitlines()
    assert len(table) == 2 * (len(LABELS) + 1)
    assert "taken for speech" in (tmp_path / "told" / "voice.md").read_text("utf-8")
    manifest.record_figures(path, {verdict.title: verdict.figures() for verdict in verdicts})
    kept = manifest.read(path).figures["plain test side, int8"]
    assert kept["items"] == len(LABELS)
    assert kept["unweighted_recall"] == pytest.approx(verdicts[1].whole.unweighted_recall, abs=1e-4)


def test_untrained_weights_and_weights_of_other_sides_are_not_judged() -> None:
    untrained = manifest.describe("voice", "live")
    with pytest.raises(EngineFileError, match="was never trained"):
        splits.refuse_other_sides(untrained, ("nemo",), "a" * 64)
    trained = manifest.extended(untrained, training={"corpora": ["nemo"], "splits": "b" * 64})
    with pytest.raises(EngineFileError, match="may know what it is tested on"):
        splits.refuse_other_sides(trained, ("nemo",), "a" * 64)
    splits.refuse_other_sides(trained, ("nemo",), "b" * 64)
    splits.refuse_other_sides(trained, ("emodb",), "a" * 64)  # another corpus: all of it is new


def test_no_speaker_lies_on_two_sides_and_a_corpus_that_changed_is_refused(
    data: Path, tmp_path: Path
) -> None:
    takes = found_in(data)
    sides, digest = sided(takes, tmp_path / "splits.json")
    assert {sides[f"plain/{name}"]: name for name in speakers().values()} == speakers()
    assert sided(takes, tmp_path / "splits.json") == (sides, digest)
    with pytest.raises(EngineFileError, match="not those frozen"):
        sided({"plain": takes["plain"][1:]}, tmp_path / "splits.json")


def test_a_few_takes_come_from_every_side(data: Path, tmp_path: Path) -> None:
    takes = found_in(data)["plain"]
    sides, _ = sided({"plain": takes}, tmp_path / "splits.json")
    assert {sides[take.speaker] for take in few(takes, sides)} == set(splits.SIDES)


@pytest.mark.slow
def test_the_real_corpora_are_read_whole_and_split_without_a_leak(shared_data: Path, tmp_path: Path) -> None:
    takes = found_in(shared_data)
    assert {corpus: len(these) for corpus, these in takes.items()} == {
        "ravdess": 1200,
        "nemo": 4481,
        "emodb": 350,
    }
    sides, _ = sided(takes, tmp_path / "splits.json")
    for corpus, these in takes.items():
        assert {sides[take.speaker] for take in these} == set(splits.SIDES), corpus
        lacks = {"nemo": {"disgusted"}, "emodb": {"surprised"}}.get(corpus, set())
        assert {take.label for take in these} == set(LABELS) - lacks
