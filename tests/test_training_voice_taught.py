"""Several networks teach one: what they say together is what is wanted beside the label, and it resumes."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch", reason="networks are trained with torch: pip install liveaffect[train]")

import torch
from torch import Tensor, nn
from torch.nn import functional

from liveaffect.engines.model.heads import VoiceAnswer
from liveaffect.engines.protocol import EngineFileError
from liveaffect.engines.recipe import LABELS
from liveaffect.engines.training import loop
from liveaffect.engines.training.taught_voice import Teachers, taught, teacher_seed
from liveaffect.engines.training.voice_batches import NO_LABEL, VoiceBatch
from liveaffect.engines.training.voice_loss import SPEECH_WEIGHT, TAUGHT, loss, opinions, speech_loss

torch.set_num_threads(1)
HAVE = torch.tensor([[True] * 7, [True] * 5 + [False, True], [True] * 7])


def a_batch() -> VoiceBatch:
    """Two recordings of two pieces each, the second of a corpus without one label, and a noise."""
    return VoiceBatch(
        power=torch.zeros(5, 64, 8),
        mean=torch.zeros(5, 64),
        istd=torch.ones(5, 64),
        speech=torch.tensor([1.0, 0.8, 1.0, 0.1, 0.0]),
        owner=torch.tensor([0, 0, 1, 1, 2]),
        counts=torch.tensor([True, True, True, False, False]),
        labels=torch.tensor([3, 6, NO_LABEL]),
        possible=HAVE,
    )


def an_answer(seed: int) -> VoiceAnswer:
    made = torch.Generator().manual_seed(seed)
    return VoiceAnswer(
        vector=torch.zeros(5, 64),
        score=torch.randn(5, 1, generator=made),
        logits=3 * torch.randn(5, len(LABELS), generator=made),
        speech=torch.rand(5, 1, generator=made),
        stat_sum=torch.zeros(5, 64),
        stat_sumsq=torch.zeros(5, 64),
    )


class Says(nn.Module):
    """Always the same."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.seed = nn.Parameter(torch.tensor(float(seed)))

    def forward(self, power: Tensor, mean: Tensor, istd: Tensor) -> VoiceAnswer:
        return an_answer(int(self.seed))


def test_teachers_say_the_mean_of_their_probabilities_of_labels_the_corpus_has() -> None:
    batch = a_batch()
    told = Teachers([Says(1), Says(2)]).said(batch)
    alone = [opinions(an_answer(seed), batch) for seed in (1, 2)]
    torch.testing.assert_close(told.pieces, (alone[0][0] + alone[1][0]) / 2)
    torch.testing.assert_close(told.recordings, (alone[0][1] + alone[1][1]) / 2)
    torch.testing.assert_close(told.pieces.sum(1), torch.ones(5))
    assert told.recordings[1, 5] == 0
    assert told.pieces[2, 5] == 0
    # The piece that is no evidence has no say in its recording, so the other one's word stands.
    torch.testing.assert_close(alone[0][1][1], alone[0][0][2])
    with pytest.raises(ValueError, match="nobody"):
        Teachers([])


def test_what_is_wanted_lies_between_the_label_and_what_teachers_say() -> None:
    batch, answer, weights = a_batch(), an_answer(7), torch.ones(7)
    teachers = Teachers([Says(3)])
    alone, both = (float(loss(answer, batch, weights, told)) for told in (None, teachers.said(batch)))
    speech = SPEECH_WEIGHT * float(speech_loss(answer, batch))
    pieces, recordings = opinions(an_answer(3), batch)
    mine = opinions(answer, batch)
    counted = batch.counts
    of_teachers = -(recordings[:2] * mine[1][:2].clamp(min=1e-30).log()).sum(1).mean()
    of_teachers -= 0.3 * (pieces[counted] * mine[0][counted].clamp(min=1e-30).log()).sum(1).mean()
    wanted = (1 - TAUGHT) * (alone - speech) + TAUGHT * float(of_teachers)
    assert both - speech == pytest.approx(wanted, rel=1e-4)
    assert abs(both - alone) > 0.01


class Little:
    """Learns the sign of a number, asking teachers where it has some."""

    steps = 3

    def __init__(self) -> None:
        self.name = "little"
        self.asked = 0

    def learn_from(self, teachers: Teachers) -> None:
        self.name += teachers.digest

    def batches(self, epoch: int, rng: np.random.Generator) -> Iterator[VoiceBatch]:
        for _ in range(self.steps):
            yield replace(a_batch(), mean=torch.from_numpy(rng.normal(size=(5, 64)).astype(np.float32)))

    def loss(self, network: nn.Module, batch: VoiceBatch) -> Tensor:
        self.asked += 1
        found = sum(parameter.float().square().mean() for parameter in network.parameters())
        return torch.as_tensor(found) + functional.softplus(batch.mean.mean())

    def figures(self, network: nn.Module) -> Mapping[str, float]:
        return {}


def quiet(line: str) -> None:
    """Reports are for people."""


def test_a_pupil_has_teachers_of_other_seeds_and_goes_on_where_it_was_stopped(tmp_path: Path) -> None:
    schedule = loop.Schedule(epochs=2, seed=4, bf16=False, limit_s=-1.0)
    stopped, before = taught("live-fcn", Little(), schedule, tmp_path, teachers=2, report=quiet)
    assert not stopped.finished
    assert before == []
    schedule = replace(schedule, limit_s=math.inf)
    whole, before = taught("live-fcn", Little(), schedule, tmp_path, teachers=2, report=quiet)
    assert whole.finished
    assert len(before) == 2
    names = sorted(path.parent.name for path in tmp_path.rglob(loop.CHECKPOINT))
    assert names == sorted(["teacher-1", "teacher-2", tmp_path.name])
    weights = [outcome.state["to_vector.vector.weight"] for outcome in (*before, whole)]
    assert not any(torch.equal(weights[one], weights[one - 1]) for one in range(3))
    again = Little()
    same, _ = taught("live-fcn", again, schedule, tmp_path, teachers=2, report=quiet)
    assert again.asked == 0  # Nothing was left to do.
    torch.testing.assert_close(same.state, whole.state, rtol=0, atol=0)
    with pytest.raises(EngineFileError, match="of another training"):
        taught("live-fcn", Little(), schedule, tmp_path, teachers=1, report=quiet)
    assert len({teacher_seed(seed, number) for seed in range(3) for number in range(1, 4)}) == 9
