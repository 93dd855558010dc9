"""What a fusion learns, on miniature pairs whose face and voice know different things."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch", reason="fusions are learnt with torch: pip install liveaffect[train]")

import torch
from numpy.typing import NDArray

from liveaffect.engines.model.fusion import LateMaskedFusion
from liveaffect.engines.recipe import LABELS
from liveaffect.engines.training import fit_fusion, pairs, train_fusion
from liveaffect.engines.training.corpora_voices import CorpusError
from liveaffect.engines.training.fit_fusion import (
    BOTH,
    FACE,
    VOICE,
    evidence_of,
    fit_late_masked,
    probabilities,
)
from liveaffect.engines.training.scores import accuracy, write_tables
from liveaffect.engines.training.voice_answers import FOLDS_OF, VoiceAnswer, write_answers

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
    learnt = []
    for honest in (1.0, exaggerated):
        face, voice = opinions(truth, 1.5, 4, honest), opinions(truth, 1.0, 5)
        learnt.append(fit_late_masked(evidence_of(face, voice, BOTH), truth))
    torch.testing.assert_close(learnt[0].company, learnt[1].company, atol=0.02, rtol=0)
    assert float(learnt[1].temperature[0] / learnt[0].temperature[0]) == pytest.approx(exaggerated, rel=0.03)


def test_two_honest_opinions_beat_each_and_one_alone_is_itself() -> None:
    truth = np.random.default_rng(6).integers(0, 7, 1400)
    face, voice = opinions(truth, 1.4, 7), opinions(truth, 1.2, 8, 5.0)
    found = fit_late_masked(evidence_of(face, voice, BOTH), truth)
    both, alone, other = (
        probabilities(found, evidence_of(face, voice, mask)).argmax(1) for mask in (BOTH, FACE, VOICE)
    )
    np.testing.assert_array_equal(alone, face.argmax(1))
    np.testing.assert_array_equal(other, voice.argmax(1))
    best = max(accuracy(truth, alone), accuracy(truth, other))
    assert accuracy(truth, both) > best + 0.1


def voice_tables(real: pairs.Pairs, preset: str = "student") -> dict[str, str]:
    """What the head of each fold says of the actors it left out, and one without the corpus of all."""
    which = {str(fold): np.flatnonzero(real.folds == fold)[::-1] for fold in range(pairs.FOLDS)}
    tables = {}
    for run, rows in {**which, "ravdess": np.arange(len(real))}.items():
        said = [
            VoiceAnswer("ravdess", real.actors[at], f"03-{real.names[at]}", how, 0, (told,) * 7, ())
            for at in rows
            for how, told in (("cold", float(at)), ("known", -float(at)))
        ]
        tables[FOLDS_OF.format(preset=preset, run=run)] = write_answers(said)
    return tables


def test_a_fusion_learns_from_heads_that_left_the_actor_out_matched_by_name(
    tmp_path: Path,
) -> None:
    write_pairs(tmp_path)
    real = pairs.read_pairs(tmp_path)
    path, tables = tmp_path / "voice.tar.xz", voice_tables(real)
    write_tables(path, tables)
    found = train_fusion.voices_of(real, path, "student", 0)
    wanted = np.arange(len(real))
    for said, expected in zip(found, (wanted, -wanted, wanted, -wanted), strict=True):
        np.testing.assert_array_equal(said[:, 3], expected)
    with pytest.raises(CorpusError, match="no answers of five folds of 'whisper'"):
        train_fusion.voices_of(real, path, "whisper", 0)
    (first, second), rest = list(tables)[:2], list(tables)[2:]
    swapped = {first: tables[second], second: tables[first], **{name: tables[name] for name in rest}}
    write_tables(tmp_path / "swapped.tar.xz", swapped)
    with pytest.raises(CorpusError, match="lacks 56 of 140 takes"):
        train_fusion.voices_of(real, tmp_path / "swapped.tar.xz", "student", 0)


def test_without_voices_of_folds_a_stand_in_speaks_of_actors_that_it_never_saw(tmp_path: Path) -> None:
    write_pairs(tmp_path)
    real = pairs.read_pairs(tmp_path)
    (said,) = train_fusion.voices_of(real, None, "student", 0)
    assert said.shape == (len(real), len(LABELS))
    assert accuracy(real.truth, said.argmax(1)) > 0.3


def test_a_voice_that_fails_on_strangers_is_believed_less_although_it_knows_its_corpus(
    tmp_path: Path,
) -> None:
    write_pairs(tmp_path)
    real = pairs.read_pairs(tmp_path)
    known, strange = opinions(real.truth, 2.0, 1), opinions(real.truth, 0.3, 2, 7.0)
    within = train_fusion.learnt_gains(real, (known, known), 0, 40)
    across = train_fusion.learnt_gains(real, (known, strange), 0, 40)
    torch.testing.assert_close(within.temperature, across.temperature)

    def gain(learnt: LateMaskedFusion) -> float:
        return float((learnt.company + learnt.company_if_certain).detach()[1, 0].exp())

    assert gain(across) < 0.8 * gain(within)


def test_stand_ins_are_the_same_for_the_same_seed() -> None:
    rng = np.random.default_rng(0)
    numbers, truth = rng.normal(size=(140, 5)).astype(np.float32), np.arange(140) % 7
    train = np.arange(140) < 100
    one, other, third = (pairs.stand_in_answers(numbers, truth, train, seed=seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(one, other)
    assert not np.array_equal(one, third)
