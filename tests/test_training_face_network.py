"""The face training draws rare labels more often, keeps pooling apart, and judges only what it may judge."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")

from torch import Tensor, nn

from liveaffect.engines import manifest as manifests
from liveaffect.engines.model import presets
from liveaffect.engines.protocol import EngineFileError
from liveaffect.engines.recipe import LABELS
from liveaffect.engines.training import (
    corpora_faces,
    evaluate_face,
    loop,
    splits,
    train_face,
)
from liveaffect.engines.training.corpora_faces import Faces, load_split
from liveaffect.engines.training.scores import score
from liveaffect.engines.training.train_face import (
    FaceOptions,
    FaceRecipe,
    FaceTask,
    drawing_chances,
    face_batches,
    log_frequencies,
)

SMALL = FaceRecipe(batch=16)


def faces(count: int = 70, seed: int = 0) -> Faces:
    rng = np.random.default_rng(seed)
    label = np.arange(count) % len(LABELS)
    names = tuple(f"{i:03d}" for i in range(count))
    pictures = rng.integers(0, 255, (count, 48, 48)).astype(np.uint8)
    soft = np.eye(len(LABELS), dtype=np.float32)[label]
    return Faces("fer+", names, names, pictures, soft, label, ("train",) * count)


def task() -> FaceTask:
    return FaceTask(faces(), faces(14, 1), SMALL, "test")


def test_rare_labels_are_drawn_more_often_than_they_occur_and_less_than_common_ones() -> None:
    soft = np.eye(7, dtype=np.float32)[[0] * 900 + [1] * 90 + [2] * 10]
    drawn = drawing_chances(soft, 0.5) @ soft
    assert drawn[2] > 0.01
    assert drawn[0] > drawn[1] > drawn[2]
    assert drawn[0] / drawn[2] == pytest.approx(np.sqrt(90))
    np.testing.assert_allclose(drawing_chances(soft, 0.0) @ soft, soft.mean(0), rtol=1e-6)


def test_the_dice_of_an_epoch_give_its_batches() -> None:
    same, again, other = (next(iter(task().batches(0, np.random.default_rng(seed)))) for seed in (1, 1, 2))
    assert torch.equal(same[0], again[0])
    assert not torch.equal(same[0], other[0])
    assert same[0].shape == (16, 64, 64, 3)
    assert torch.allclose(same[1].sum(1), torch.ones(16))


def test_every_parameter_learns_and_pooling_changes_nothing_but_what_asks_for_weight() -> None:
    network, one = presets.build("face", "live"), task()
    batch = next(iter(one.batches(0, np.random.default_rng(0))))
    torch.autograd.backward(one.loss(network, batch))
    assert not [name for name, p in network.named_parameters() if p.grad is None]
    vector = torch.randn(16, 64, requires_grad=True)
    network.zero_grad()
    logits, shared = one._bags(network, vector.detach(), batch[1])
    torch.autograd.backward((logits.log_softmax(1) * shared).sum())
    learnt = {name.partition(".")[0] for name, p in network.named_parameters() if p.grad is not None}
    assert learnt == {"to_score"}


def test_frequencies_move_logits_by_their_share_and_nothing_else() -> None:
    network, soft = presets.build("face", "live"), np.eye(7, dtype=np.float32)[[0] * 90 + [1] * 9 + [2]]
    before = network.state_dict()
    after = train_face.with_frequencies(before, 0.5 * log_frequencies(soft))
    moved = [name for name in before if not torch.equal(before[name], after[name])]
    assert moved == ["to_logits.bias"]
    gain = after["to_logits.bias"] - before["to_logits.bias"]
    assert float(gain[0] - gain[1]) == pytest.approx(0.5 * np.log(10), rel=1e-3)


class Biased(nn.Module):
    """Sees nothing, and says what it leans to."""

    def __init__(self, logits: list[float]) -> None:
        super().__init__()
        self.logits = torch.tensor(logits)

    def forward(self, crop: Tensor) -> object:
        return SimpleNamespace(logits=self.logits.repeat(len(crop), 1))


@pytest.mark.parametrize(("lead", "share"), [(-0.1, 0.1), (-0.35, 0.2), (0.1, 0.0), (-5.0, 0.0)])
def test_the_smallest_share_that_makes_the_most_right_is_taken(lead: float, share: float) -> None:
    """One label is more frequent by 2 in its logarithm, and the only one that occurs on the watched side."""
    watched = replace(faces(14, 1), label=np.zeros(14, np.int64))
    one = FaceTask(faces(), watched, SMALL, "test")
    often = np.array([2.0, 0, 0, 0, 0, 0, 0], np.float32)
    assert one.best_share(Biased([lead, 0, 0, 0, 0, 0, 0]), often) == share


def test_int8_is_calibrated_on_as_many_crops_of_each_label() -> None:
    batches = list(face_batches(faces(), each=20))
    assert [len(batch["crop"]) for batch in batches] == [20] * 7
    assert {batch["crop"].dtype for batch in batches} == {np.dtype("uint8")}
    again = list(face_batches(faces(), each=20))
    assert all(np.array_equal(a["crop"], b["crop"]) for a, b in zip(batches, again, strict=True))


def test_a_network_trained_on_other_sides_is_not_judged(tmp_path: Path) -> None:
    found = replace(manifests.describe("face", "live"), training={"corpora": ["fer+"], "splits": "a" * 64})
    everything = load_split([faces(200)], tmp_path / "splits.json")
    with pytest.raises(EngineFileError, match="it may know what it is tested on"):
        splits.refuse_other_sides(found, everything.corpora, everything.digest)
    with pytest.raises(EngineFileError, match="was never trained"):
        splits.refuse_other_sides(replace(found, training={}), everything.corpora, everything.digest)
    splits.refuse_other_sides(
        replace(found, training={"corpora": ["fer+"], "splits": everything.digest}),
        everything.corpora,
        everything.digest,
    )


@pytest.mark.parametrize("name", evaluate_face.CONDITIONS)
def test_every_condition_keeps_the_form_of_a_crop_and_all_but_the_first_change_it(name: str) -> None:
    crops = np.random.default_rng(0).integers(0, 255, (2, 64, 64, 3)).astype(np.uint8)
    changed = evaluate_face.CONDITIONS[name](crops)
    assert changed.shape == crops.shape
    assert changed.dtype == np.uint8
    assert np.array_equal(changed, crops) == (name == "it is")


def test_the_table_of_scores_gives_every_figure_again() -> None:
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 7, 50)
    logits = {name: np.round(rng.normal(size=(50, 7)), 3).astype(np.float32) for name in ("fp32", "int8")}
    names = tuple(map(str, range(50)))

    agreed = truth % 2 == 0
    logits["fp32"][agreed] = np.eye(7, dtype=np.float32)[truth[agreed]]
    scores = {name: score(truth, part) for name, part in logits.items()}
    verdict = evaluate_face.FaceVerdict("face-live", "fer+", names, truth, agreed, logits, scores, 0.1, {})
    assert verdict.figures()["fp32"]["majority"] == {
        "items": int(agreed.sum()),
        "accuracy": 1.0,
        "unweighted_recall": 1.0,
    }
    again, read = evaluate_face.read_table(verdict.table())
    assert {name: score(again, part) for name, part in read.items()} == scores
    with pytest.raises(ValueError, match="begins with name, truth"):
        evaluate_face.read_table("name,label\na,happy\n")


class Killed(Exception):
    """Stands for a power cut."""


@pytest.mark.slow
def test_a_small_training_that_was_killed_ends_in_the_same_files_and_can_be_judged(
    shared_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(train_face, "SMOKE_PICTURES", 256)  # Two batches an epoch.
    monkeypatch.setattr(evaluate_face, "CONDITIONS", {})
    corpora = corpora_faces.find_faces(shared_data)
    monkeypatch.setattr(corpora_faces, "find_faces", lambda data: corpora)  # Read once.
    plan = train_face.face_schedule(smoke=True, epochs=2, threads=1)
    whole = train_face.train_face(shared_data, tmp_path / "whole", FaceOptions(smoke=True), schedule=plan)
    assert whole is not None
    learnt, calls = FaceTask.loss, [0]

    def dying(self: FaceTask, network: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        calls[0] += 1
        if calls[0] == 4:
            raise Killed
        return learnt(self, network, batch)

    with monkeypatch.context() as patch:
        patch.setattr(FaceTask, "loss", dying)
        with pytest.raises(Killed):
            train_face.train_face(shared_data, tmp_path / "killed", FaceOptions(smoke=True), schedule=plan)
    resumed = train_face.train_face(shared_data, tmp_path / "killed", FaceOptions(smoke=True), schedule=plan)
    assert resumed is not None
    assert list(_curve(resumed.parent)) == list(_curve(whole.parent))
    assert manifests.read(resumed).files == manifests.read(whole).files
    assert set(manifests.read(whole).files) == {"face.onnx", "face.int8.onnx"}
    told = manifests.read(whole).training
    assert told["corpora"] == ["fer+"]
    assert "after" not in told
    assert (told["recipe"]["live"], told["recipe"]["teacher"]) == (0.0, 0.0)
    judged = manifests.read(whole).figures["fer+ test side"]
    assert 0.0 < judged["int8"]["accuracy"] < 1.0
    assert judged == manifests.read(resumed).figures["fer+ test side"]
    assert len((tmp_path / "whole/face.csv").read_text().splitlines()) == 1 + judged["int8"]["items"]


def _curve(folder: Path) -> Iterator[dict[str, float]]:
    for line in (folder / loop.LOG).read_text().splitlines():
        row = json.loads(line)
        yield {key: value for key, value in row.items() if key != "seconds"}
