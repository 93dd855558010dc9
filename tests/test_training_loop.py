"""A training is the same curve however often it is killed, and refuses what does not belong to it."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")

from torch import Tensor, nn

from liveaffect.engines.protocol import EngineFileError
from liveaffect.engines.training import loop
from liveaffect.engines.training.loop import Schedule, optimiser_of, rate_at, train


class Line:
    """Learn a plane from noisy points; dropout makes torch's own dice matter."""

    name = "line"
    steps = 5

    def batches(self, epoch: int, rng: np.random.Generator) -> Iterator[tuple[Tensor, Tensor]]:
        for _ in range(self.steps):
            x = torch.from_numpy(rng.normal(size=(16, 3)).astype(np.float32))
            yield x, x @ torch.tensor([[1.0], [-2.0], [0.5]])

    def loss(self, network: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        out: Tensor = (network(batch[0]).float() - batch[1]).square().mean()
        return out

    def figures(self, network: nn.Module) -> Mapping[str, float]:
        assert not network.training
        return {"error": float(self.loss(network, next(self.batches(0, np.random.default_rng(7)))))}


class Killed(Exception):
    """Stands for a power cut."""


class Dying(Line):
    """Killed in the middle of an epoch."""

    def __init__(self, epoch: int) -> None:
        self.last = epoch

    def batches(self, epoch: int, rng: np.random.Generator) -> Iterator[tuple[Tensor, Tensor]]:
        for at, batch in enumerate(super().batches(epoch, rng)):
            if (epoch, at) == (self.last, 3):
                raise Killed
            yield batch


PLAN = Schedule(epochs=6, rate=0.05, average=0.9, seed=3)


def network() -> nn.Module:
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(3, 8), nn.BatchNorm1d(8), nn.Dropout(0.2), nn.Linear(8, 1))


def curve(folder: Path) -> list[dict[str, float]]:
    rows = [json.loads(line) for line in (folder / loop.LOG).read_text().splitlines()]
    return [{key: value for key, value in row.items() if key != "seconds"} for row in rows]


def test_a_killed_training_resumes_to_the_same_curve_and_the_same_weights(tmp_path: Path) -> None:
    whole = train(network(), Line(), PLAN, tmp_path / "whole")
    for epoch in (2, 4):
        with pytest.raises(Killed):
            train(network(), Dying(epoch), PLAN, tmp_path / "killed")
    resumed = train(network(), Line(), PLAN, tmp_path / "killed")
    assert curve(tmp_path / "killed") == curve(tmp_path / "whole")
    assert len(curve(tmp_path / "whole")) == PLAN.epochs
    assert all(torch.equal(a, resumed.state[name]) for name, a in whole.state.items())


def test_a_training_out_of_time_says_so_and_goes_on_later(tmp_path: Path) -> None:
    early = train(network(), Line(), replace(PLAN, limit_s=0.0), tmp_path)
    assert not early.finished
    assert not early.history
    assert train(network(), Line(), PLAN, tmp_path).finished


def test_a_training_can_be_cut_short_and_its_rate_then_falls_to_the_new_end(tmp_path: Path) -> None:
    with pytest.raises(Killed):
        train(network(), Dying(2), PLAN, tmp_path)
    said: list[str] = []
    assert train(network(), Line(), replace(PLAN, epochs=4), tmp_path, report=said.append).finished
    assert said[0] == "going on behind epoch 2 of 6, towards 4"
    assert curve(tmp_path)[-1]["rate"] < 0.05 * PLAN.rate


def test_a_training_goes_on_where_half_precision_does_not_pay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for capable in ({"avx512_bf16": True}, {"avx2": True}):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda able=capable: able, raising=False)
        bf16 = loop.half_precision_pays("cpu")
        assert bf16 == ("avx512_bf16" in capable)
        epochs = 2 if bf16 else 3
        assert train(network(), Line(), replace(PLAN, epochs=epochs, bf16=bf16), tmp_path).finished
    assert len(curve(tmp_path)) == 3
    assert loop.half_precision_pays("cuda")


def test_learning_makes_the_error_smaller_and_leaves_the_dice_alone(tmp_path: Path) -> None:
    module, before = network(), torch.random.get_rng_state()
    history = train(module, Line(), PLAN, tmp_path).history
    assert history[-1]["error"] < 0.2 * history[0]["error"]
    assert torch.equal(torch.random.get_rng_state(), before)


def test_another_seed_is_another_curve(tmp_path: Path) -> None:
    train(network(), Line(), PLAN, tmp_path / "a")
    train(network(), Line(), replace(PLAN, seed=4), tmp_path / "b")
    assert curve(tmp_path / "a") != curve(tmp_path / "b")


def test_a_checkpoint_of_another_training_is_refused_with_both_values(tmp_path: Path) -> None:
    train(network(), Line(), replace(PLAN, epochs=1), tmp_path)
    with pytest.raises(EngineFileError, match=r"rate 0\.05 there and 0\.01 here"):
        train(network(), Line(), replace(PLAN, epochs=1, rate=0.01), tmp_path)


def test_a_damaged_checkpoint_is_named(tmp_path: Path) -> None:
    train(network(), Line(), replace(PLAN, epochs=1), tmp_path)
    content = (tmp_path / loop.CHECKPOINT).read_bytes()
    (tmp_path / loop.CHECKPOINT).write_bytes(content[: len(content) // 2])
    with pytest.raises(EngineFileError, match=r"checkpoint\.pt is damaged"):
        train(network(), Line(), PLAN, tmp_path)


def test_a_loss_that_is_no_number_ends_the_training_before_it_is_saved(tmp_path: Path) -> None:
    class Broken(Line):
        def loss(self, network: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
            return super().loss(network, batch) * float("nan")

    with pytest.raises(ValueError, match="became nan in epoch 1"):
        train(network(), Broken(), PLAN, tmp_path)
    assert not (tmp_path / loop.CHECKPOINT).exists()


def test_the_optimiser_holds_every_parameter_once_and_biases_do_not_decay() -> None:
    module = network()
    groups = optimiser_of(module, PLAN).param_groups
    held = [id(p) for group in groups for p in group["params"]]
    assert sorted(held) == sorted(id(p) for p in module.parameters())
    assert {p.ndim > 1 for p in groups[0]["params"]} == {True}
    assert groups[1]["weight_decay"] == 0.0


def test_the_rate_rises_in_a_line_and_falls_in_a_cosine() -> None:
    rates = [rate_at(PLAN, step, 100) for step in range(100)]
    assert rates.index(max(rates)) in (4, 5)
    assert max(rates) == pytest.approx(PLAN.rate)
    assert all(a > b for a, b in itertools.pairwise(rates[5:]))
    assert rates[-1] == pytest.approx(PLAN.rate * PLAN.last_rate, rel=0.1)
