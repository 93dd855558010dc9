"""Every engine that needs no files passes the engine contract, and the contract catches those that do not."""

from __future__ import annotations

import threading
from collections.abc import Callable

import numpy as np
import pytest

from liveaffect.engines.protocol import (
    FACE_INPUTS,
    FUSION_INPUTS,
    VOICE_INPUTS,
    Done,
    Engine,
    EngineError,
    EngineFailed,
    EngineInputError,
    EngineSpec,
    Pending,
    Tensors,
    TensorSpec,
)
from liveaffect.engines.recipe import LABELS, PIECE, SAMPLE_RATE
from liveaffect.engines.scripted_engine import ScriptedFace, ScriptedFusion, ScriptedVoice, log_mel
from liveaffect.realtime.clock import MS
from liveaffect.realtime.testing.contracts import check_engine
from liveaffect.realtime.testing.engines import (
    ConstantEngine,
    CountingEngine,
    FailingEngine,
    NanEngine,
    SlowEngine,
)
from liveaffect.realtime.testing.virtual_time import FakeClock


def rows_for(tensors: tuple[TensorSpec, ...]) -> Callable[[int], Tensors]:
    def make(count: int) -> Tensors:
        rng = np.random.default_rng(count)
        out = {}
        for t in tensors:
            shape = (count, *t.shape)
            if t.dtype == "uint8":
                out[t.name] = rng.integers(0, 256, shape, np.uint8)
            elif t.name in ("istd", "mask"):
                out[t.name] = np.ones(shape, np.float32)
            else:
                out[t.name] = rng.normal(0, 0.1, shape).astype(np.float32)
        return out

    return make


faces, voices, fusions = rows_for(FACE_INPUTS), rows_for(VOICE_INPUTS), rows_for(FUSION_INPUTS)


@pytest.mark.parametrize(
    ("make", "inputs"),
    [
        pytest.param(ScriptedFace, faces, id="face"),
        pytest.param(ScriptedVoice, voices, id="voice"),
        pytest.param(ScriptedFusion, fusions, id="fusion"),
        pytest.param(lambda: ScriptedFace(max_batch=2), faces, id="face-of-two"),
        pytest.param(lambda: ConstantEngine("voice", "happy"), voices, id="constant"),
        pytest.param(lambda: CountingEngine(ScriptedFace()), faces, id="counting"),
        pytest.param(lambda: SlowEngine(ScriptedFusion(), FakeClock(), 0), fusions, id="slow"),
    ],
)
def test_every_fake_keeps_the_whole_contract(
    make: Callable[[], Engine], inputs: Callable[[int], Tensors]
) -> None:
    check_engine(make, inputs, tolerance=0.0)


class Broken(ScriptedVoice):
    """An engine with one defect, to see the contract catch it."""

    def __init__(self, defect: str) -> None:
        super().__init__()
        self._defect = defect
        self._buffer: Tensors = {}

    def submit(self, inputs: Tensors) -> Pending:
        if self._defect == "accepts anything":
            inputs = {
                name: np.resize(inputs.get(name, 0), (1, *s.shape)).astype(s.dtype)
                for name, s in ((s.name, s) for s in self.spec.inputs)
            }
        if self._defect == "hides the reason":
            try:
                return super().submit(inputs)
            except EngineInputError as error:
                raise EngineInputError("bad input") from error
        answer = dict(super().submit(inputs).result())
        if self._defect == "neighbours":
            answer["logits"] = answer["logits"] - answer["logits"].mean(axis=0)
        if self._defect == "wrong type":
            answer["score"] = answer["score"].astype(np.float64)
        if self._defect == "shares its buffer":
            if self._buffer and self._buffer["logits"].shape == answer["logits"].shape:
                self._buffer["logits"][:] = answer["logits"]
                answer["logits"] = self._buffer["logits"]
            self._buffer = answer
        if self._defect == "writes into inputs":
            inputs["samples"][:] = 0
        return Done(answer)

    def close(self) -> None:
        if self._defect != "never ends":
            super().close()


@pytest.mark.parametrize(
    ("defect", "words"),
    [
        ("neighbours", "logits changes by"),
        ("wrong type", "should give"),
        ("shares its buffer", "overwritten|reversed"),
        ("writes into inputs", "changed its input samples"),
        ("hides the reason", "without saying"),
        ("accepts anything", "should give|accepted"),
        ("never ends", "accepted work after close"),
    ],
)
def test_the_contract_catches_an_engine_with_one_defect(defect: str, words: str) -> None:
    with pytest.raises(AssertionError, match=words):
        check_engine(lambda: Broken(defect), voices)


def test_numbers_that_are_not_finite_break_the_contract() -> None:
    with pytest.raises(AssertionError, match="not finite"):
        check_engine(lambda: NanEngine(ScriptedFace()), faces)


def test_a_failing_engine_works_as_often_as_promised_and_then_fails_while_running() -> None:
    engine = FailingEngine(ScriptedFace(), after=2)
    for _ in range(2):
        assert engine.infer(faces(1))["logits"].shape == (1, len(LABELS))
    pending = engine.submit(faces(1))
    with pytest.raises(EngineFailed, match="face/scripted"):
        pending.result()


def test_a_slow_engine_answers_exactly_when_its_delay_is_over() -> None:
    clock = FakeClock()
    engine = SlowEngine(ScriptedFace(), clock, 30 * MS)
    answered: list[int] = []

    def ask() -> None:
        engine.infer(faces(1))
        answered.append(clock.now_ns())

    thread = threading.Thread(target=ask)
    thread.start()
    clock.wait_for_sleepers(1)
    clock.advance(29 * MS)
    clock.wait_for_sleepers(1)
    assert answered == []
    clock.advance(MS)
    thread.join(5)
    assert answered == [30 * MS]


def test_closing_a_slow_engine_lets_its_caller_go() -> None:
    clock = FakeClock()
    engine = SlowEngine(ScriptedFace(), clock, 30 * MS)
    thread = threading.Thread(target=lambda: engine.infer(faces(1)))
    thread.start()
    clock.wait_for_sleepers(1)
    engine.close()
    thread.join(5)
    assert not thread.is_alive()
    with pytest.raises(EngineError, match="closed"):
        engine.submit(faces(1))


def test_a_counting_engine_knows_how_it_was_used() -> None:
    engine = CountingEngine(ScriptedFace())
    engine.warm_up()
    for size in (1, 4, 2):
        engine.infer(faces(size))
    engine.close()
    assert (engine.batches, engine.calls, engine.warm_ups, engine.closes) == ([1, 4, 2], 3, 1, 1)


@pytest.mark.parametrize("label", LABELS)
def test_a_constant_engine_always_says_its_label(label: str) -> None:
    answer = ConstantEngine("fusion", label).infer(fusions(3))
    assert (answer["logits"].argmax(axis=1) == LABELS.index(label)).all()
    np.testing.assert_allclose(answer["weights"].sum(axis=1), 1.0, rtol=1e-6)


def drawn_face(bow: float) -> Tensors:
    """A bright crop with a dark mouth whose middle lies `bow` pixels lower than its ends."""
    image = np.full((1, 64, 64, 3), 180, np.uint8)
    for x in range(18, 46):
        y = round(51 + bow * (1 - ((x - 32) / 14) ** 2))
        image[0, y - 1 : y + 2, x] = 40
    return {"crop": image}


def test_the_scripted_face_takes_an_upward_mouth_for_happy_and_a_downward_one_for_sad() -> None:
    engine = ScriptedFace()
    assert LABELS[int(engine.infer(drawn_face(4))["logits"].argmax())] == "happy"
    assert LABELS[int(engine.infer(drawn_face(-4))["logits"].argmax())] == "sad"


def test_the_scripted_face_trusts_a_sharp_crop_more_than_a_blurred_one() -> None:
    sharp = drawn_face(3)
    blurred = sharp["crop"].astype(np.float64)
    for _ in range(4):
        blurred[:, 1:-1, 1:-1] = (
            blurred[:, :-2, 1:-1] + blurred[:, 2:, 1:-1] + blurred[:, 1:-1, :-2] + blurred[:, 1:-1, 2:]
        ) / 4
    engine = ScriptedFace()
    soft = engine.infer({"crop": blurred.astype(np.uint8)})
    assert engine.infer(sharp)["score"][0, 0] > soft["score"][0, 0]


def tone(hz: float, volume: float) -> Tensors:
    samples = volume * np.sin(2 * np.pi * hz * np.arange(PIECE) / SAMPLE_RATE)
    one = {"samples": samples.astype(np.float32)[None]}
    return {**one, "mean": np.full((1, 64), -6, np.float32), "istd": np.full((1, 64), 0.5, np.float32)}


def test_the_scripted_voice_hears_speech_in_a_tone_and_none_in_silence() -> None:
    engine = ScriptedVoice()
    assert engine.infer(tone(220, 0.2))["speech"][0, 0] > 0.95
    assert engine.infer(tone(220, 0.0))["speech"][0, 0] < 0.05


def test_the_scripted_voice_tells_high_and_loud_from_low_and_quiet() -> None:
    engine = ScriptedVoice()
    assert LABELS[int(engine.infer(tone(280, 0.3))["logits"].argmax())] == "happy"
    assert LABELS[int(engine.infer(tone(100, 0.003))["logits"].argmax())] == "sad"


def test_the_log_mel_of_a_tone_peaks_in_the_band_of_its_frequency() -> None:
    mel = log_mel(tone(1_000, 0.2)["samples"][0])
    mels = 2595 * np.log10(1 + np.array([1_000, SAMPLE_RATE / 2]) / 700)
    assert mel.shape == (32, 64)
    assert int(mel.mean(axis=0).argmax()) == round(65 * mels[0] / mels[1]) - 1


def test_stat_sums_are_those_of_the_log_mel_frames() -> None:
    given = voices(2)
    answer = ScriptedVoice().infer(given)
    for row, samples in enumerate(given["samples"]):
        np.testing.assert_allclose(answer["stat_sum"][row], log_mel(samples).sum(axis=0), rtol=1e-5)
        np.testing.assert_allclose(answer["stat_sumsq"][row], (log_mel(samples) ** 2).sum(axis=0), rtol=1e-5)


def test_speaker_statistics_move_the_scripted_voice_vector() -> None:
    given = tone(220, 0.2)
    other = {**given, "mean": given["mean"] + 1}
    engine = ScriptedVoice()
    assert np.abs(engine.infer(given)["vector"] - engine.infer(other)["vector"]).max() > 0.1


@pytest.mark.parametrize("mask", [(1, 1, 1), (1, 0, 0), (0, 1, 0), (0, 1, 1), (0, 0, 0)])
def test_the_scripted_fusion_ignores_what_the_mask_leaves_out(mask: tuple[int, int, int]) -> None:
    given = {**fusions(1), "mask": np.array([mask], np.float32)}
    changed = {name: array.copy() for name, array in given.items()}
    for there, name in zip(mask, ("face_logits", "voice_logits", "words_logits"), strict=True):
        if not there:
            changed[name] += 5
    engine = ScriptedFusion()
    answer = engine.infer(given)
    np.testing.assert_array_equal(answer["logits"], engine.infer(changed)["logits"])
    assert answer["weights"].sum() == pytest.approx(1.0 if any(mask) else 0.0)
    assert (answer["weights"][0][np.array(mask) == 0] == 0).all()


def test_no_stand_in_claims_to_be_trained() -> None:
    specs: list[EngineSpec] = [e.spec for e in (ScriptedFace(), ScriptedVoice(), ScriptedFusion())]
    assert not any(spec.trained for spec in specs)
    assert {spec.model for spec in specs} == {"scripted"}
