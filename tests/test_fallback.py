"""An engine that is lost costs nothing but speed, and one that comes later takes over between two batches."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from liveaffect.engines import parity
from liveaffect.engines.fallback import LOST, FallbackEngine
from liveaffect.engines.protocol import (
    EngineError,
    EngineFailed,
    EngineLost,
    Pending,
    Tensors,
)
from liveaffect.engines.scripted_engine import ScriptedFace, ScriptedFusion, ScriptedVoice
from liveaffect.realtime.networks import Networks
from liveaffect.realtime.testing.contracts import check_engine
from liveaffect.realtime.testing.engines import ConstantEngine, CountingEngine


class Losing(ScriptedFace):
    """Is gone after so many batches, when it is handed one or when it is asked for the answer."""

    def __init__(self, after: int, *, when_asked: bool = False) -> None:
        super().__init__()
        self.left = after
        self.when_asked = when_asked

    def submit(self, inputs: Tensors) -> Pending:
        self.left -= 1
        if self.left >= 0:
            return super().submit(inputs)
        if self.when_asked:
            return _Gone()
        raise EngineLost("it lost its GPU")


class _Gone:
    def result(self) -> Tensors:
        raise EngineLost("it lost its GPU")


def faces(count: int, seed: int = 0) -> parity.Batch:
    return parity.inputs("face", count, seed=seed)


@pytest.mark.parametrize("when_asked", [False, True])
def test_the_batch_that_was_lost_is_answered_by_the_engine_behind(when_asked: bool) -> None:
    said: list[str] = []
    behind = CountingEngine(ConstantEngine("face", "happy"))
    first = CountingEngine(Losing(1, when_asked=when_asked))
    engine = FallbackEngine(first, lambda: behind, report=said.append)
    assert engine.infer(faces(2))["logits"].argmax(1).tolist() != [1, 1]
    assert engine.notice is None
    assert engine.infer(faces(2))["logits"].argmax(1).tolist() == [1, 1]
    assert engine.notice == LOST
    assert engine.spec == behind.spec
    assert said == ["it lost its GPU; going on without it"]
    assert first.closes == 0, "batches may still lie in its memory"
    engine.infer(faces(1))
    assert behind.batches == [2, 1]
    engine.close()
    engine.close()
    assert behind.closes >= 1
    assert first.closes >= 1


def test_several_batches_on_their_way_are_all_answered() -> None:
    engine = FallbackEngine(Losing(0, when_asked=True), lambda: ConstantEngine("face", "sad"))
    waiting = [engine.submit(faces(count)) for count in (1, 2, 3)]
    assert [len(pending.result()["logits"]) for pending in waiting] == [1, 2, 3]


def test_without_an_engine_behind_the_loss_is_an_error() -> None:
    engine = FallbackEngine(Losing(0))
    with pytest.raises(EngineLost, match="lost its GPU"):
        engine.infer(faces(1))


def test_any_other_failure_is_handed_on() -> None:
    class Failing(ScriptedFace):
        def submit(self, inputs: Tensors) -> Pending:
            raise EngineFailed("not finite")

    engine = FallbackEngine(Failing(), lambda: ScriptedFace())
    with pytest.raises(EngineFailed, match="not finite"):
        engine.infer(faces(1))
    assert engine.notice is None


def test_an_engine_on_offer_takes_over_with_the_next_batch_and_the_one_before_still_answers() -> None:
    said: list[str] = []
    cpu = CountingEngine(ScriptedFace())
    engine = FallbackEngine(cpu, wants_gpu=True, report=said.append)
    engine.notice = "making ready"
    before = engine.submit(faces(1))
    thread = threading.Thread(target=lambda: engine.offer(ConstantEngine("face", "angry")))
    thread.start()
    thread.join()
    assert engine.infer(faces(2))["logits"].argmax(1).tolist() == [3, 3]
    assert engine.notice is None
    assert said == [f"'{engine.spec.name}' takes over from '{cpu.spec.name}'"]
    np.testing.assert_array_equal(before.result()["logits"], cpu.infer(faces(1))["logits"])
    engine.close()
    assert cpu.closes == 1


@pytest.mark.parametrize("closed_before", [True, False])
def test_an_offer_that_nobody_took_is_ended_with_the_rest(closed_before: bool) -> None:
    engine, late = FallbackEngine(ScriptedFace()), CountingEngine(ScriptedFace())
    if closed_before:
        engine.close()
    engine.offer(late)
    engine.close()
    assert late.closes == 1


def test_what_was_in_use_before_an_offer_stands_behind_it() -> None:
    cpu = CountingEngine(ScriptedFace())
    engine = FallbackEngine(cpu)
    engine.offer(Losing(1))
    engine.infer(faces(1))
    engine.infer(faces(1))
    assert cpu.calls == 1
    assert engine.notice == LOST


def test_it_keeps_the_engine_contract() -> None:
    check_engine(lambda: FallbackEngine(ScriptedFace()), faces)
    engine = FallbackEngine(ScriptedFace())
    engine.close()
    with pytest.raises(EngineError, match="closed"):
        engine.submit(faces(1))


def test_what_an_engine_has_to_tell_is_a_notice_of_the_networks_and_no_failure() -> None:
    face = FallbackEngine(Losing(0), lambda: ScriptedFace())
    voice = FallbackEngine(ScriptedVoice())
    networks = Networks(face, voice, ScriptedFusion())
    assert not networks.notices
    answers, _ = networks.ask([{"crop": faces(1)["crop"][0]}], [])
    assert answers[0] is not None
    voice.notice = LOST
    assert networks.notices == (LOST,)
    assert not networks.failing
    networks.close()
