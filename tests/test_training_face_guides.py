"""A face training follows its guides: crops where the live finder puts them, and the network before it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

torch = pytest.importorskip("torch", reason="torch is not installed")

from torch import Tensor, nn

from liveaffect import placing as live_placing
from liveaffect.cli import main
from liveaffect.engines import manifest as manifests
from liveaffect.engines.model import presets
from liveaffect.engines.model.blocks import unfold
from liveaffect.engines.model.face import FaceNet
from liveaffect.engines.onnx_engine import OnnxEngine
from liveaffect.engines.protocol import EngineFileError
from liveaffect.engines.recipe import CROP_SIZE, EYE_IMAGE_LEFT, EYE_IMAGE_RIGHT, LABELS, crop_matrix
from liveaffect.engines.training import (
    corpora_faces,
    evaluate_face,
    loop,
    train_face,
)
from liveaffect.engines.training.augment_faces import (
    PLACINGS,
    FaceChanges,
    grey_crops,
    placed,
    placings,
    seen,
    where_found,
)
from liveaffect.engines.training.corpora_faces import Faces
from liveaffect.engines.training.train_face import (
    LIVE,
    TEACHERS,
    FaceOptions,
    FaceRecipe,
    FaceTask,
    read_before,
    teacher_opinions,
)
from liveaffect.realtime.blazeface import Found
from liveaffect.realtime.crop import cut_out

Matrix = NDArray[np.float64]
SIDE = 48
CORPUS = np.array([[4 / 3, 0.0, 1 / 6], [0.0, 4 / 3, 1 / 6]])
"""The whole picture is the crop."""


def picture(seed: int) -> NDArray[np.uint8]:
    rough = np.random.default_rng(seed).integers(0, 255, (6, 6)).astype(np.uint8)
    return np.asarray(cv2.resize(rough, (SIDE, SIDE), interpolation=cv2.INTER_LINEAR), np.uint8)


def faces(count: int = 28, placing: Matrix | None = None) -> Faces:
    label = np.arange(count) % len(LABELS)
    names = tuple(map(str, range(count)))
    pictures = np.stack([picture(i) for i in range(count)])
    soft = np.eye(len(LABELS), dtype=np.float32)[label]
    return Faces("fer+", names, names, pictures, soft, label, ("train",) * count, placing)


def still(**given: float) -> FaceChanges:
    """Nothing spoils a face; it only lies where it is put."""
    light = ("gamma", "contrast", "side_light", "low_light", "tint")
    lens = ("blur", "small", "sharpen", "noise", "jpeg", "occlusion")
    where = ("turn_deg", "scale", "shear", "shift_px", "mirror")
    changes: dict[str, Any] = {**dict.fromkeys((*light, *lens, *where), 0.0), **given}
    return replace(FaceChanges(), **changes)


def moved(right_px: float) -> Matrix:
    return np.asarray(CORPUS + np.array([[0, 0, right_px], [0, 0, 0]]), np.float64)


def test_the_finder_is_asked_once_for_each_picture_and_its_answers_are_kept(tmp_path: Path) -> None:
    asked: list[int] = []

    def place(one: NDArray[np.uint8]) -> Matrix | None:
        asked.append(len(asked))
        return None if len(asked) == 2 else moved(len(asked))

    pictures, kept = faces(3).pictures, tmp_path / "new" / PLACINGS
    first = placings(pictures, place, kept)
    again = placings(pictures, place, kept)
    assert asked == [0, 1, 2]
    np.testing.assert_array_equal(first, again)
    found = where_found(again)
    assert found[1] is None
    np.testing.assert_array_equal(np.stack([m for m in found if m is not None]), [moved(1), moved(3)])


def test_placings_of_other_pictures_or_cut_short_are_refused(tmp_path: Path) -> None:
    kept = tmp_path / PLACINGS
    placings(faces(3).pictures, lambda one: CORPUS, kept)
    with pytest.raises(EngineFileError, match="of other pictures; remove them"):
        placings(faces(4).pictures, lambda one: CORPUS, kept)
    kept.write_bytes(kept.read_bytes()[:90])
    with pytest.raises(EngineFileError, match=r"are damaged .*; remove them"):
        placings(faces(3).pictures, lambda one: CORPUS, kept)


def test_a_face_is_cut_out_where_it_is_placed_and_otherwise_as_the_corpus_has_it() -> None:
    pictures = faces(2).pictures
    crops = grey_crops(pictures, [None, moved(5)])
    np.testing.assert_array_equal(crops[0], grey_crops(pictures)[0])
    np.testing.assert_allclose(crops[1][:, 5:], grey_crops(pictures)[1][:, :-5], atol=1)
    look = seen(picture(3), np.random.default_rng(0), still(), moved(5))
    assert np.abs(look.astype(int) - placed(picture(3), moved(5))).max() <= 12  # Interpolation is drawn.


def test_about_the_live_place_a_face_is_moved_less_and_mirrored_as_often() -> None:
    far = [_column_of_a_line(None, seed) for seed in range(60)]
    near = [_column_of_a_line(CORPUS, seed) for seed in range(60)]
    assert np.std(near) == pytest.approx(FaceChanges().about_live * np.std(far), rel=0.1)
    looks = [seen(picture(3), np.random.default_rng(s), still(mirror=0.5), moved(5)) for s in range(40)]
    straight = placed(picture(3), moved(5)).astype(int)
    mirrored = sum(np.abs(look - straight).mean() > np.abs(look - straight[:, ::-1]).mean() for look in looks)
    assert 10 < mirrored < 30


def _column_of_a_line(where: Matrix | None, seed: int) -> float:
    line = np.zeros((SIDE, SIDE), np.uint8)
    line[:, 23:25] = 255
    look = seen(line, np.random.default_rng(seed), still(shift_px=FaceChanges().shift_px), where).astype(
        float
    )
    return float((look.sum(0) * np.arange(CROP_SIZE)).sum() / look.sum())


def test_a_share_of_faces_is_drawn_where_live_puts_them_if_they_were_found_at_all() -> None:
    where = np.stack([np.zeros((2, 3)), np.full((2, 3), np.nan)] * 14)  # Zero: one pixel fills the crop.
    for live, flat in ((0.0, 0.0), (1.0, 0.5), (0.5, 0.25)):
        recipe = FaceRecipe(batch=256, rarity=0.0, mixed=0.0, live=live, strength=still())
        task = FaceTask(faces(28 * 16, np.tile(where, (16, 1, 1))), faces(7), recipe, "test")
        crops, _ = next(iter(task.batches(0, np.random.default_rng(0))))
        uniform = (crops == crops[:, :1, :1]).flatten(1).all(1)
        assert float(uniform.float().mean()) == pytest.approx(flat, abs=0.09)


def test_the_log_tells_the_figures_of_the_live_place_beside_those_of_the_corpus() -> None:
    network = presets.build("face", "live").eval()
    plain = FaceTask(faces(), faces(), FaceRecipe(batch=8), "test").figures(network)
    where = np.tile(CORPUS, (28, 1, 1))
    where[:7] = np.nan  # One of each label was not found.
    both = FaceTask(faces(), faces(placing=where), FaceRecipe(batch=8), "test").figures(network)
    assert set(plain) == {"accuracy", "recall"}
    assert {name: both[name] for name in plain} == dict(plain)
    found = faces().take(np.arange(7, 28))
    crops = grey_crops(found.pictures)
    with torch.inference_mode():
        said = network(torch.from_numpy(crops)).logits.argmax(1).numpy()
    assert both["live_accuracy"] == pytest.approx((said == found.label).mean())


def test_a_mixed_face_shows_two_and_is_said_to_be_both() -> None:
    one = FaceTask(faces(), faces(7), FaceRecipe(batch=28, mixed=1.0, strength=still()), "test")
    _, wanted = next(iter(one.batches(0, np.random.default_rng(0))))
    assert torch.allclose(wanted.sum(1), torch.ones(28), atol=1e-5)
    assert float((wanted.max(1).values < 0.99).float().mean()) > 0.5
    assert float(wanted.max(1).values.min()) >= 0.5


class Told(nn.Module):
    """Says of a crop what its mean brightness is, so that its opinion is known beforehand."""

    def forward(self, crop: Tensor) -> object:
        level = crop.float().mean((1, 2, 3))[:, None] / 64
        logits = torch.cat([level, torch.zeros(len(crop), len(LABELS) - 1)], 1)
        return SimpleNamespace(logits=logits)


def test_an_opinion_is_the_mean_over_places_and_mirrors_with_what_was_added_in_training() -> None:
    where = np.tile(moved(8), (5, 1, 1))
    where[2] = np.nan
    shift = torch.arange(7).float() / 10
    said = teacher_opinions(Told(), faces(5, where), shift, "cpu")
    views = [grey_crops(faces(5).pictures), grey_crops(faces(5).pictures, where_found(where))]
    level = torch.tensor(np.stack([view.mean((1, 2, 3)) for view in views])) / 64
    logits = torch.zeros(2, 5, 7)
    logits[..., 0] = level
    np.testing.assert_allclose(said, (logits + shift).softmax(-1).mean(0), atol=1e-2)  # Half precision.
    np.testing.assert_allclose(said.sum(1), 1.0, atol=1e-5)


def test_a_teacher_has_its_share_beside_the_votes() -> None:
    recipe = FaceRecipe(batch=28, mixed=0.0, teacher=0.25, strength=still())
    alone = FaceTask(faces(), faces(7), recipe, "test")
    taught = FaceTask(faces(), faces(7), recipe, "test", teachers=[Told()])
    votes, wanted = (next(iter(t.batches(0, np.random.default_rng(0))))[1] for t in (alone, taught))
    assert torch.allclose(wanted.sum(1), torch.ones(28), atol=1e-5)
    said = (wanted - 0.75 * votes) / 0.25
    assert float(said.min()) > 0.0
    assert float(said[:, 1:].std(1).max()) < 0.2  # All but the first label are alike to it but for the dice.


def test_a_checkpoint_says_itself_which_network_it_holds(tmp_path: Path) -> None:
    state = presets.build("face", "live", seed=4).state_dict()
    checkpoint = _checkpoint(tmp_path / loop.CHECKPOINT, state)
    before = read_before(checkpoint)
    assert all(torch.equal(before.state[name], state[name]) for name in state)
    assert (before.preset, before.epochs, before.task) == ("live", 7, "face-live-x/y")
    _checkpoint(checkpoint, presets.build("face", "live", seed=5).state_dict())
    assert read_before(checkpoint).digest != before.digest
    _checkpoint(checkpoint, state, "face-fv2es-x/y")
    with pytest.raises(EngineFileError, match="not those of a face network 'fv2es'"):
        read_before(checkpoint)
    _checkpoint(checkpoint, state, "voice-student/y")
    with pytest.raises(EngineFileError, match="one of a training of faces"):
        read_before(checkpoint)


def test_a_deployed_network_goes_on_training_from_what_it_said() -> None:
    """In evaluation exactly; in training nearly, where BatchNorm looks at its batch."""
    before = read_before(manifests.SHIPPED / "face.json")
    crops = grey_crops(np.stack([picture(seed) for seed in range(96)]))
    shown = torch.from_numpy(crops)
    shipped = OnnxEngine(manifests.read(manifests.SHIPPED / "face.json"), manifests.SHIPPED)
    wanted = torch.from_numpy(shipped.infer({"crop": crops[:8]})["logits"])
    shipped.close()
    network = before.begun(crops)
    assert isinstance(network, FaceNet)
    torch.testing.assert_close(network.eval()(shown[:8]).logits, wanted, atol=2e-3, rtol=1e-3)
    torch.testing.assert_close(presets.deploy(network)(shown[:8]).logits, wanted, atol=2e-3, rtol=1e-3)
    network.train()
    network.to_vector.eval()  # Without dropout.
    assert float((network(shown).logits[:8].detach() - wanted).abs().max()) < 0.1
    network(shown).logits.square().mean().backward()
    gains = [gain for name, gain in network.named_parameters() if name.endswith("point.norm.weight")]
    assert len(gains) == 10
    assert all(gain.grad is not None and bool(gain.grad.abs().max() > 0) for gain in gains)
    other = {f"further.{name}": value for name, value in before.state.items()}
    with pytest.raises(ValueError, match=r"another network: it has no further\.cnn\.0"):
        unfold(network, other, shown)


def _checkpoint(path: Path, averaged: dict[str, Any], task: str = "face-live-x/y") -> Path:
    content = {"format": loop.CHECKPOINT_FORMAT, "averaged": averaged, "epoch": 7, "task": task}
    torch.save(content, path)
    return path


class OneFind:
    """A finder that always finds one face, a little turned and off; and a worse one beside it."""

    points = np.array([(130.0, 140.0), (205.0, 152.0), *[(170.0, 190.0)] * 4], np.float32)

    def find(self, image: NDArray[np.uint8]) -> list[Found]:
        box = (100.0, 100.0, 120.0, 120.0)
        return [Found(box, self.points + 30, 0.4), Found(box, self.points, 0.9)]


def test_a_corpus_picture_is_cut_out_as_the_live_path_cuts_it_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live_placing, "make_finder", lambda: (None, OneFind()))
    for side in (48, 64):
        small = np.asarray(cv2.resize(picture(5), (side, side), interpolation=cv2.INTER_CUBIC), np.uint8)
        matrix = live_placing.placed_live()(small)
        assert matrix is not None
        live = cut_out(live_placing.in_a_room(small), OneFind.points)[..., 0]
        assert np.abs(placed(small, matrix).astype(int) - live).mean() < 1.5
        assert np.abs(placed(small).astype(int) - live).mean() > 10


def test_eyes_where_the_template_has_them_give_the_place_of_the_corpus() -> None:
    matrix = live_placing.from_the_corpus(crop_matrix(*live_placing.TEMPLATE), SIDE)
    np.testing.assert_allclose(matrix, CORPUS, atol=1e-9)
    assert live_placing.TEMPLATE.shape == np.array([EYE_IMAGE_LEFT, EYE_IMAGE_RIGHT]).shape


@pytest.mark.parametrize(
    "flag", [["--as-live"], ["--after", "checkpoint.pt"], ["--teacher", "checkpoint.pt"]]
)
def test_guides_are_for_faces_alone(
    flag: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", "voice", "--data", str(tmp_path), *flag]) != 0
    assert "for the face network, not for voice" in capsys.readouterr().err


@pytest.mark.slow
def test_a_training_goes_out_from_one_before_it_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    corpus = replace(faces(280), sides=("train",) * 240 + ("test",) * 40)
    monkeypatch.setattr(corpora_faces, "find_faces", lambda data: [corpus])
    monkeypatch.setattr(evaluate_face, "CONDITIONS", {})
    monkeypatch.setattr(train_face, "quantize", lambda path, batches: None)
    plan = train_face.face_schedule(epochs=1, threads=1)
    checkpoint = _checkpoint(tmp_path / loop.CHECKPOINT, presets.build("face", "live", seed=4).state_dict())
    (tmp_path / "wide").mkdir()
    wide = presets.build("face", "wide", seed=4).state_dict()
    larger = _checkpoint(tmp_path / "wide" / loop.CHECKPOINT, wide, "face-wide-x/y")
    order = FaceOptions(place=lambda one: moved(2), after=checkpoint, teachers=(larger,))
    made = train_face.train_face(tmp_path, tmp_path / "made", order, schedule=plan)
    assert made is not None
    told = manifests.read(made).training
    assert told["after"] == read_before(checkpoint).told()
    assert told["teachers"] == [read_before(larger).told()]
    assert (told["recipe"]["live"], told["recipe"]["teacher"]) == (LIVE, TEACHERS)
    row = json.loads((made.parent / loop.LOG).read_text())
    assert 0.0 <= row["live_accuracy"] <= 1.0
