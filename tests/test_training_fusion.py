"""What a fusion learns, on miniature pairs whose face and voice know different things."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch", reason="fusions are learnt with torch: pip install liveaffect[train]")

import torch
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "benchmarks"))

from accuracy import ablate_fusion
from accuracy.ablate_fusion import FusionFit, as_fused, fit_method

from liveaffect.engines.recipe import LABELS
from liveaffect.engines.training import fit_fusion, pairs, voice_answers
from liveaffect.engines.training.corpora_voices import CorpusError
from liveaffect.engines.training.fit_fusion import (
    BOTH,
    FACE,
    VOICE,
    Opinions,
    evidence_of,
    fit_late_masked,
    probabilities,
)
from liveaffect.engines.training.pairs import FoldAnswers
from liveaffect.engines.training.scores import accuracy

torch.set_num_threads(1)
ACTORS, EACH = 20, 7
CODES = {"neutral": "01", "happy": "03", "sad": "04", "angry": "05"} | {
    "fearful": "06",
    "disgusted": "07",
    "surprised": "08",
}


def clip(actor: int, take: int) -> str:
    return f"01-01-{CODES[LABELS[take % 7]]}-01-01-{take // 7 + 1:02d}-{actor:02d}"


def write(path: Path, content: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, **content)


def write_pairs(data: Path, *, clips: list[str] | None = None) -> Path:
    """Faces that tell the first labels apart, sounds that tell the others apart."""
    rng = np.random.default_rng(0)
    clips = clips or [clip(actor, take) for actor in range(1, ACTORS + 1) for take in range(EACH)]
    truth = np.array([list(CODES.values()).index(one[6:8]) for one in clips])
    shown = rng.normal(size=(2, 7, 8)).repeat(1, axis=0) * 2
    shown[0, 4:] = 0.0
    shown[1, :3] = 0.0
    face, sound = (part[truth] + rng.normal(size=(len(clips), 8)) for part in shown)
    path = data / pairs.PLACE
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, clip=clips, au=face.astype(np.float32), mfcc=sound.astype(np.float32))
    return path


def opinions(
    truth: NDArray[np.int64], sureness: float, seed: int, honest: float = 1.0
) -> NDArray[np.float32]:
    """Logits that know the truth about as well as they say, times how much they exaggerate."""
    rng = np.random.default_rng(seed)
    own = rng.normal(0, sureness, (len(truth), 7))
    own[np.arange(len(truth)), truth] += sureness**2
    return (own * honest).astype(np.float32)


def said(logits: NDArray[np.float32]) -> Opinions:
    vectors = np.zeros((len(logits), 64), np.float32)
    return Opinions(vectors, logits)


def test_pairs_are_read_in_the_order_of_names_with_folds_of_four_actors(tmp_path: Path) -> None:
    path = write_pairs(tmp_path)
    found = pairs.read_pairs(tmp_path)
    assert list(found.names) == sorted(found.names)
    assert found.names[0] == "01-01-01-01-01-01"
    assert np.bincount(found.folds).tolist() == [4 * EACH] * 5
    of = dict(zip(found.actors, found.folds.tolist(), strict=True))
    assert [of[f"ravdess/{actor:02d}"] for actor in (1, 4, 5, 20)] == [0, 0, 1, 4]
    with np.load(path) as kept:
        row = list(kept["clip"]).index(f"01-{found.names[5]}")
        np.testing.assert_array_equal(found.face[5], kept["au"][row])


def test_calm_is_neutral(tmp_path: Path) -> None:
    write_pairs(tmp_path, clips=["01-01-01-01-01-01-01", "01-01-03-01-01-01-01"])
    with np.load(tmp_path / pairs.PLACE) as kept:
        np.savez(
            tmp_path / pairs.PLACE,
            clip=["01-01-02-01-01-01-01", *kept["clip"][1:]],
            au=kept["au"],
            mfcc=kept["mfcc"],
        )
    assert pairs.read_pairs(tmp_path).truth.tolist() == [0, 1]


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (None, "looked for"),
        ({"clip": ["x"]}, "damaged"),
        ({"clip": ["anna"], "au": [[1.0]], "mfcc": [[1.0]]}, "anna"),
    ],
)
def test_pairs_that_are_missing_or_something_else_are_refused_by_name(
    tmp_path: Path, content: dict[str, list[object]] | None, told: str
) -> None:
    if content is not None:
        write(tmp_path / pairs.PLACE, content)
    with pytest.raises(CorpusError, match=told):
        pairs.read_pairs(tmp_path)


def test_the_temperature_undoes_what_a_network_exaggerates() -> None:
    truth = np.random.default_rng(1).integers(0, 7, 4000)
    for honest in (0.5, 1.0, 3.0):
        logits = torch.from_numpy(opinions(truth, 1.5, 2, honest))
        assert fit_fusion.fusion_temperature(logits, torch.from_numpy(truth)) == pytest.approx(
            honest, rel=0.08
        )


@pytest.mark.parametrize("exaggerated", [0.3, 4.0])
def test_late_masked_learns_the_same_gains_whatever_the_scale_of_the_logits(exaggerated: float) -> None:
    truth = np.random.default_rng(3).integers(0, 7, 700)
    at = np.ones(len(truth), np.bool_)
    learnt = []
    for honest in (1.0, exaggerated):
        face, voice = said(opinions(truth, 1.5, 4, honest)), said(opinions(truth, 1.0, 5))
        found = fit_late_masked(evidence_of(face, voice, at, BOTH), truth)
        learnt.append(found)
    torch.testing.assert_close(learnt[0].company, learnt[1].company, atol=0.02, rtol=0)
    assert float(learnt[1].temperature[0] / learnt[0].temperature[0]) == pytest.approx(exaggerated, rel=0.03)


def test_two_honest_opinions_beat_each_and_one_alone_is_itself() -> None:
    truth = np.random.default_rng(6).integers(0, 7, 1400)
    at = np.ones(len(truth), np.bool_)
    face, voice = said(opinions(truth, 1.4, 7)), said(opinions(truth, 1.2, 8, 5.0))
    found = fit_late_masked(evidence_of(face, voice, at, BOTH), truth)
    both, alone, other = (
        probabilities(found, evidence_of(face, voice, at, mask)).argmax(1) for mask in (BOTH, FACE, VOICE)
    )
    np.testing.assert_array_equal(alone, face.logits.argmax(1))
    np.testing.assert_array_equal(other, voice.logits.argmax(1))
    best = max(accuracy(truth, alone), accuracy(truth, other))
    assert accuracy(truth, both) > best + 0.1


def test_a_fusion_never_learns_from_what_a_network_says_about_its_own_actors(tmp_path: Path) -> None:
    folds = np.repeat(np.arange(5), 20)
    rng = np.random.default_rng(9)
    base = rng.normal(size=(100, 64)).astype(np.float32)
    turns = [np.linalg.qr(rng.normal(size=(64, 64)))[0] for _ in range(5)]
    vectors = np.stack([base @ turn for turn in turns]).astype(np.float32)
    logits = np.stack([np.full((100, 7), fold, np.float32) for fold in range(5)])
    answers = FoldAnswers(vectors, logits)
    held = as_fused(answers, folds, 2, held_out=True)
    np.testing.assert_array_equal(held.logits[:, 0], folds)
    trained_on = as_fused(answers, folds, 2, held_out=False)
    np.testing.assert_array_equal(trained_on.logits, np.full((100, 7), 2))


def test_vectors_of_another_network_come_in_the_coordinates_of_the_folds_own() -> None:
    rng = np.random.default_rng(10)
    base = rng.normal(size=(1000, 64)).astype(np.float32)
    turn = np.linalg.qr(rng.normal(size=(64, 64)))[0]
    folds = np.repeat(np.arange(5), 200)
    vectors = np.stack([base, *[(base @ turn).astype(np.float32)] * 4])
    found = as_fused(FoldAnswers(vectors, np.zeros((5, 1000, 7), np.float32)), folds, 0, held_out=True)
    np.testing.assert_allclose(found.vectors, base, atol=0.2)


def test_the_comparison_writes_every_take_and_reads_it_again(tmp_path: Path) -> None:
    write_pairs(tmp_path)
    out = tmp_path / "out"
    ablate_fusion.compare_fusions(tmp_path, out, seeds=(0,), methods=("late-masked",))
    takes = ablate_fusion.read_takes((out / ablate_fusion.TAKES).read_text("utf-8"))
    runs = ablate_fusion.read_called((out / ablate_fusion.CALLED).read_text("utf-8"))
    real = pairs.read_pairs(tmp_path)
    assert takes.names == real.names
    np.testing.assert_array_equal(takes.truth, real.truth)
    right = {
        (run.method, run.given): accuracy(takes.truth, run.called)
        for run in runs
        if run.how == ablate_fusion.USUAL
    }
    assert (
        right["late-masked", "both"]
        > max(right["face alone", "itself"], right["voice alone", "itself"]) + 0.1
    )
    for given, alone in (("voice blanked", "face alone"), ("face blanked", "voice alone")):
        assert right["late-masked", given] == right[alone, "itself"]
    usual = [run for run in runs if (run.method, run.given, run.how) == ("late-masked", "both", "as used")]
    np.testing.assert_array_equal(usual[0].called, takes.scores["fused"].argmax(1))
    assert {run.voices for run in runs} == {"stand-in"}


def test_answers_of_voice_networks_are_matched_by_name_and_refused_for_other_folds(tmp_path: Path) -> None:
    write_pairs(tmp_path)
    real = pairs.read_pairs(tmp_path)
    order = np.random.default_rng(0).permutation(len(real))
    content: dict[str, Any] = {
        "names": np.array([f"03-{real.names[at]}" for at in order]),
        "folds": real.folds[order],
        "vectors": np.zeros((5, len(real), 64)),
        "logits": np.tile(order[None, :, None], (5, 1, 7)),
    }
    path = tmp_path / "answers.npz"
    write(path, content)
    np.testing.assert_array_equal(voice_answers.read_folds(path, real).logits[3, :, 0], np.arange(len(real)))
    write(path, {**content, "folds": (content["folds"] + 1) % 5})
    with pytest.raises(CorpusError, match="other folds"):
        voice_answers.read_folds(path, real)
    write(path, {**content, "vectors": content["vectors"][:4]})
    with pytest.raises(CorpusError, match="'vectors' must hold"):
        voice_answers.read_folds(path, real)
    write(
        path,
        {key: value[1:] if key in ("names", "folds") else value[:, 1:] for key, value in content.items()},
    )
    with pytest.raises(CorpusError, match="lacks 1 of"):
        voice_answers.read_folds(path, real)
    path.write_bytes(b"no archive")
    with pytest.raises(CorpusError, match="cannot read"):
        voice_answers.read_folds(path, real)


def test_a_method_without_learning_needs_none() -> None:
    truth = np.arange(14) % 7
    at = np.ones(14, np.bool_)
    face, voice = said(opinions(truth, 1.0, 1)), said(opinions(truth, 1.0, 2))
    found = fit_method("mean of logits", evidence_of(face, voice, at, BOTH), truth, FusionFit())
    mean = (face.logits + voice.logits) / 2
    np.testing.assert_array_equal(
        probabilities(found, evidence_of(face, voice, at, BOTH)).argmax(1), mean.argmax(1)
    )


def test_stand_ins_are_the_same_for_the_same_seed() -> None:
    rng = np.random.default_rng(0)
    numbers, truth = rng.normal(size=(140, 5)).astype(np.float32), np.arange(140) % 7
    train = np.arange(140) < 100
    one, other, third = (pairs.stand_in_answers(numbers, truth, train, seed=seed)[1] for seed in (1, 1, 2))
    np.testing.assert_array_equal(one, other)
    assert not np.array_equal(one, third)
