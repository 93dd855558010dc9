"""Training pools as the live path does, and the transformer knows an order if it is told to."""

from __future__ import annotations

import math

import numpy as np
import pytest

pytest.importorskip("torch", reason="networks are built with torch: pip install liveaffect[train]")

import torch

from liveaffect.engines.model.blocks import ClsTransformer, attention_pool
from liveaffect.realtime.clock import SECOND
from liveaffect.realtime.expression import Evidence, Forgetting, pool

torch.set_num_threads(1)  # tensors are small; a second thread only waits


def test_training_pools_as_live_use_does() -> None:
    """The torch form and the two NumPy forms of the live path agree."""
    rng = np.random.default_rng(2)
    evidence = [
        Evidence(
            captured_ns=i * SECOND // 5,
            vector=rng.normal(size=8).astype(np.float32),
            logits=rng.normal(size=7).astype(np.float32),
            score=float(rng.normal(0, 2)),
        )
        for i in range(40)
    ]
    forgetting = Forgetting(3 * SECOND)
    for item in evidence:
        forgetting.add(item)
    vectors = torch.from_numpy(np.stack([item.vector for item in evidence]))[None]
    scores = torch.tensor([[item.score for item in evidence]])
    ages_s = torch.tensor([[(39 - i) / 5 for i in range(40)]])
    trained = attention_pool(vectors, scores, ages_s, 3.0)[0].numpy()
    live = forgetting.read()
    assert live is not None
    np.testing.assert_allclose(live.vector, trained, atol=1e-5)
    np.testing.assert_allclose(pool(evidence, 3 * SECOND).vector, trained, atol=1e-5)


def test_what_is_not_there_is_left_out_of_pooling() -> None:
    vectors, scores = torch.randn(2, 3, 4), torch.zeros(2, 3)
    ages_s = torch.tensor([[0.0, math.inf, 0.0], [math.inf] * 3])
    vectors[0, 1] = 1e6
    pooled = attention_pool(vectors, scores, ages_s, 8.0)
    torch.testing.assert_close(pooled[0], vectors[0, [0, 2]].mean(0))
    assert torch.equal(pooled[1], torch.zeros(4))


def test_evidence_counts_half_after_a_half_life() -> None:
    pooled = attention_pool(
        torch.tensor([[[0.0], [3.0]]]), torch.zeros(1, 2), torch.tensor([[0.0, 8.0]]), 8.0
    )
    assert pooled.item() == pytest.approx(1.0)


def encoded(*, positions: bool, reverse: bool) -> torch.Tensor:
    torch.manual_seed(3)
    encoder = ClsTransformer(positions=positions).eval()
    vectors, ages_s = torch.randn(1, 6, 64), torch.arange(6, 0, -1)[None] * 0.4
    with torch.no_grad():
        out: torch.Tensor = encoder(vectors.flip(1) if reverse else vectors, ages_s)
    return out


def test_the_published_encoder_cannot_tell_an_order_from_its_reverse() -> None:
    forwards, backwards = (encoded(positions=False, reverse=reverse) for reverse in (False, True))
    torch.testing.assert_close(backwards, forwards)


def test_items_that_are_not_there_do_not_change_what_the_encoder_says() -> None:
    torch.manual_seed(4)
    encoder = ClsTransformer().eval()
    vectors, ages_s = torch.randn(1, 5, 64), torch.rand(1, 5)
    present = torch.tensor([[True, True, True, False, False]])
    with torch.no_grad():
        short = encoder(vectors[:, :3], ages_s[:, :3])
        torch.testing.assert_close(encoder(vectors, ages_s, present), short, rtol=1e-4, atol=1e-5)
        nothing = encoder(vectors, ages_s, torch.zeros(1, 5, dtype=torch.bool))
    assert torch.isfinite(nothing).all()
