"""Engines that misbehave on purpose, each in one way, around any engine that works.

A wrapper changes exactly the thing it is named for and hands everything else on, so a test that fails
says which behaviour the path cannot stand. All of them are engines and pass the engine contract as far
as their fault allows.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from liveaffect.engines.protocol import (
    FACE_INPUTS,
    FACE_OUTPUTS,
    FUSION_INPUTS,
    FUSION_OUTPUTS,
    VOICE_INPUTS,
    VOICE_OUTPUTS,
    Done,
    Engine,
    EngineError,
    EngineFailed,
    EngineSpec,
    Pending,
    Tensors,
    check_inputs,
)
from liveaffect.engines.recipe import LABELS
from liveaffect.realtime.clock import Clock

_TENSORS = {
    "face": (FACE_INPUTS, FACE_OUTPUTS),
    "voice": (VOICE_INPUTS, VOICE_OUTPUTS),
    "fusion": (FUSION_INPUTS, FUSION_OUTPUTS),
}
_CERTAIN = 6.0


class ConstantEngine:
    """Always the same label, whatever goes in; for voice, everything is speech."""

    def __init__(self, kind: Literal["face", "voice", "fusion"], label: str, *, max_batch: int = 64) -> None:
        inputs, outputs = _TENSORS[kind]
        self.spec = EngineSpec(f"{kind}/constant-{label}", inputs, outputs, max_batch, "constant", False)
        self._label = LABELS.index(label)
        self._closed = False

    def submit(self, inputs: Tensors) -> Pending:
        """Hand in one batch; the answer is there at once."""
        if self._closed:
            raise EngineError(f"engine '{self.spec.name}' was closed; make a new one")
        size = check_inputs(self.spec, inputs)
        out = {t.name: np.zeros((size, *t.shape), t.dtype) for t in self.spec.outputs}
        out["logits"][:, self._label] = _CERTAIN
        if "speech" in out:
            out["speech"][:] = 1.0
        if "weights" in out:
            present = inputs["mask"] > 0.5
            out["weights"][:] = present / np.maximum(present.sum(axis=1, keepdims=True), 1)
        return Done(out)

    def infer(self, inputs: Tensors) -> Tensors:
        """`submit` and wait."""
        return self.submit(inputs).result()

    def warm_up(self) -> None:
        """Nothing to do."""

    def close(self) -> None:
        """Safe to call twice."""
        self._closed = True


class AroundEngine:
    """An engine around another one that changes nothing yet; fakes override what they bend."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    @property
    def spec(self) -> EngineSpec:
        """That of the engine inside."""
        return self._engine.spec

    def submit(self, inputs: Tensors) -> Pending:
        """Hand on to the engine inside."""
        return self._engine.submit(inputs)

    def infer(self, inputs: Tensors) -> Tensors:
        """`submit` and wait."""
        return self.submit(inputs).result()

    def warm_up(self) -> None:
        """Warm up the engine inside."""
        self._engine.warm_up()

    def close(self) -> None:
        """Close the engine inside."""
        self._engine.close()


@dataclass(frozen=True, slots=True)
class _Later:
    """An answer that passes through `then` when it is asked for."""

    inner: Pending
    then: Callable[[Tensors], Tensors]

    def result(self) -> Tensors:
        """The answer inside, changed or held back."""
        return self.then(self.inner.result())


class SlowEngine(AroundEngine):
    """Every answer comes `delay_ns` after it was asked for, on the run's clock.

    On the fake clock the caller of `result` is one more sleeper. `close` lets it go at once.
    """

    def __init__(self, engine: Engine, clock: Clock, delay_ns: int) -> None:
        super().__init__(engine)
        self._clock = clock
        self.delay_ns = delay_ns
        """May be changed while it runs."""
        self._stop = threading.Event()

    def submit(self, inputs: Tensors) -> Pending:
        """Hand in one batch; the delay starts now."""
        due_ns = self._clock.now_ns() + self.delay_ns

        def hold(answer: Tensors) -> Tensors:
            self._clock.wait_until(due_ns, self._stop)
            return answer

        return _Later(super().submit(inputs), hold)

    def close(self) -> None:
        """Let a waiting caller go and close the engine inside."""
        self._stop.set()
        super().close()


class FailingEngine(AroundEngine):
    """Works `after` times, then fails for good while running."""

    def __init__(self, engine: Engine, *, after: int = 0) -> None:
        super().__init__(engine)
        self._left = after

    def submit(self, inputs: Tensors) -> Pending:
        """Hand in one batch; `result` raises EngineFailed once the good answers are used up."""
        self._left -= 1
        return super().submit(inputs) if self._left >= 0 else _Later(super().submit(inputs), self._fail)

    def _fail(self, answer: Tensors) -> Tensors:
        raise EngineFailed(f"engine '{self.spec.name}' failed on purpose; it was asked once too often")


class NanEngine(AroundEngine):
    """Works `after` times, then every number in its answers is NaN."""

    def __init__(self, engine: Engine, *, after: int = 0) -> None:
        super().__init__(engine)
        self._left = after

    def submit(self, inputs: Tensors) -> Pending:
        """Hand in one batch; the answer is worthless once the good ones are used up."""
        self._left -= 1
        return super().submit(inputs) if self._left >= 0 else _Later(super().submit(inputs), _worthless)


def _worthless(answer: Tensors) -> Tensors:
    return {name: np.full_like(array, np.nan) for name, array in answer.items()}


class SchooledEngine(AroundEngine):
    """Says of itself that it was trained."""

    @property
    def spec(self) -> EngineSpec:
        """That of the engine inside, trained."""
        return replace(super().spec, trained=True)


class CountingEngine(AroundEngine):
    """Remembers how it was used."""

    def __init__(self, engine: Engine) -> None:
        super().__init__(engine)
        self.batches: list[int] = []
        """Size of every batch handed in, in order."""
        self.warm_ups = 0
        self.closes = 0

    @property
    def calls(self) -> int:
        """How many batches were handed in."""
        return len(self.batches)

    def submit(self, inputs: Tensors) -> Pending:
        """Hand on, and note the size of the batch once it was accepted."""
        pending = super().submit(inputs)
        self.batches.append(len(next(iter(inputs.values()))))
        return pending

    def warm_up(self) -> None:
        """Count and hand on."""
        self.warm_ups += 1
        super().warm_up()

    def close(self) -> None:
        """Count and hand on."""
        self.closes += 1
        super().close()
