"""Voices to calibrate INT8 on come from the calibrate side, under four conditions, heard as live."""

from __future__ import annotations

import wave
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch", reason="the readers of voices need torch: pip install liveaffect[train]")

from liveaffect.calibration import samples as calibration_samples
from liveaffect.calibration.samples import CLOSE, FAR, ROOM, VOICE_CONDITIONS, under
from liveaffect.engines import manifest as manifests
from liveaffect.engines.manifest import Manifest
from liveaffect.engines.onnx_engine import OnnxEngine
from liveaffect.engines.protocol import Done, Pending, Tensors
from liveaffect.engines.recipe import LABELS, SAMPLE_RATE, SpeakerStatistics
from liveaffect.engines.training.splits import CALIBRATE_SHARE, TEST_SHARE, found_in, side_of, sided
from liveaffect.realtime.testing import engines

TAKES = 8


def quiet(line: str) -> None:
    """Say nothing."""


def speakers_of(side: str, count: int) -> list[str]:
    names = (f"s{number}" for number in range(1000))
    found = (n for n in names if side_of(f"plain/{n}", calibrate=CALIBRATE_SHARE, test=TEST_SHARE) == side)
    return [next(found) for _ in range(count)]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Buzzes of two speakers to calibrate on and one to train on, each label at its own pitch."""
    root = tmp_path_factory.mktemp("data")
    at_s = np.arange(round(1.1 * SAMPLE_RATE)) / SAMPLE_RATE
    for number, label in enumerate(LABELS):
        (root / "plain" / label).mkdir(parents=True)
        for speaker in [*speakers_of("calibrate", 2), *speakers_of("train", 1)]:
            for take in range(TAKES):
                sound = 8000 * np.sign(np.sin(2 * np.pi * (100 + 20 * number + take) * at_s))
                with wave.open(str(root / "plain" / label / f"{speaker}_{take}.wav"), "wb") as file:
                    file.setparams((1, 2, SAMPLE_RATE, 0, "NONE", ""))
                    file.writeframes(sound.astype(np.int16).tobytes())
    return root


class SureOfSpeech(OnnxEngine):
    """Takes everything for speech."""

    def submit(self, inputs: Tensors) -> Pending:
        answers = super().submit(inputs).result()
        return Done({**answers, "speech": np.full_like(answers["speech"], 0.9)})


def trained(data: Path, folder: Path) -> tuple[Manifest, OnnxEngine]:
    path = engines.write_tiny(folder, "voice")
    takes = found_in(data)
    training = {"corpora": list(takes), "splits": sided(takes, folder / "splits.json")[1]}
    manifests.write(manifests.extended(manifests.read(path), training=training), path)
    found = manifests.read(path)
    return found, SureOfSpeech(found, folder)


def test_pieces_are_of_the_calibrate_side_balanced_and_heard_in_running_statistics(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(calibration_samples, "VOICES_EACH", 6)
    found, engine = trained(data, tmp_path)
    files = {"sides": tmp_path / "splits.json", "frozen": tmp_path / "samples.json"}
    samples, exam = calibration_samples.voice_samples(data, engine, found, report=quiet, **files)
    again, _ = calibration_samples.voice_samples(data, engine, found, report=quiet, **files)
    assert samples.sha256 == again.sha256
    for one, other in zip(samples.batches, again.batches, strict=True):
        for name in one:
            np.testing.assert_array_equal(one[name], other[name])
    count = sum(len(batch["samples"]) for batch in samples.batches)
    pieces = 1 + (round(1.1 * SAMPLE_RATE) - found.recipe.piece) // found.recipe.hop
    assert count == len(LABELS) * 6 * min(pieces, calibration_samples.PIECES)
    cold = SpeakerStatistics.cold().normaliser()[0]
    first, second = samples.batches[0]["mean"][:2]
    np.testing.assert_array_equal(first, cold)
    assert np.abs(second - cold).max() > 0.01
    # Half of each label's sixteen recordings at most was drawn from; the others are judged.
    assert np.bincount(exam.truth, minlength=len(LABELS)).tolist() == [10] * len(LABELS)
    assert len(exam.inputs["samples"]) == 10 * len(LABELS) * pieces
    answers = engine.infer({name: array[:pieces] for name, array in exam.inputs.items()})
    few = {name: np.concatenate([array] * (10 * len(LABELS))) for name, array in answers.items()}
    pooled = exam.pool(few)
    assert pooled.shape == (10 * len(LABELS), len(LABELS))
    assert answers["logits"].min() <= pooled.min() <= pooled.max() <= answers["logits"].max()
    silent = {**few, "speech": np.zeros_like(few["speech"])}
    assert np.isnan(exam.pool(silent)).all()


def test_conditions_change_level_and_room_and_nothing_else() -> None:
    rng = np.random.default_rng(0)
    sound = (0.2 * np.sin(np.arange(SAMPLE_RATE) / 9)).astype(np.float32)
    changed = {name: under(sound, name, rng) for name in VOICE_CONDITIONS}
    np.testing.assert_array_equal(changed[VOICE_CONDITIONS[0]], sound)
    np.testing.assert_allclose(changed[FAR], 0.1 * sound, atol=1e-7)
    np.testing.assert_allclose(changed[CLOSE], 2 * sound, atol=1e-7)
    noise = changed[ROOM] - sound
    ratio_db = 20 * np.log10(np.std(sound) / np.std(noise))
    assert (
        calibration_samples.SIGNAL_TO_NOISE_DB[0] - 0.1
        < ratio_db
        < calibration_samples.SIGNAL_TO_NOISE_DB[1] + 0.1
    )
    assert np.abs(under(np.ones(100, np.float32), CLOSE, rng)).max() == 1
