"""An engine that can be exchanged while it is used: from the CPU to the GPU when that is ready, and back.

A GPU that is lost costs one batch nothing: what was handed in is asked of the engine behind it at once. The
exchange happens in `submit`, on the thread that uses the engine and with nothing in between, because
whoever uses a GPU also opens it.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from liveaffect.engines.protocol import Engine, EngineError, EngineLost, EngineSpec, Pending, Tensors

Make = Callable[[], Engine]
Report = Callable[[str], None]
LOST = "GPU lost: the networks run on the CPU"
"""The same from every network, so that it is one line for the user."""
_log = logging.getLogger(__name__)


class FallbackEngine:
    """The engine in use, and how to get the one behind it. One caller; `offer` and `say` from any thread."""

    def __init__(
        self,
        first: Engine,
        behind: Make | None = None,
        *,
        wants_gpu: bool = False,
        report: Report = _log.info,
    ) -> None:
        self.wants_gpu = wants_gpu
        """Whether the GPU could run this network, if only there were a plan."""
        self.notice: str | None = None
        """What the user should know about where this network runs; None if all is as wished."""
        self._engine = first
        self._behind = behind
        self._spare: Engine | None = None
        self._report = report
        self._offers = threading.Lock()
        self._offered: Make | None = None
        self._closed = False

    @property
    def spec(self) -> EngineSpec:
        """Of the engine in use."""
        return self._engine.spec

    def offer(self, make: Make) -> None:
        """From the next `submit` on use what this makes; the engine in use stays behind it."""
        with self._offers:
            self._offered = make

    def submit(self, inputs: Tensors) -> Pending:
        """Hand in one batch, to the engine on offer if there is one."""
        if self._closed:
            raise EngineError(f"engine '{self.spec.name}' is closed")
        self._take_offer()
        engine = self._engine
        try:
            return _Guarded(self, engine, engine.submit(inputs), inputs)
        except EngineLost as err:
            return self.after_loss(engine, err).submit(inputs)

    def infer(self, inputs: Tensors) -> Tensors:
        """`submit` and wait."""
        return self.submit(inputs).result()

    def warm_up(self) -> None:
        """Of the engine in use."""
        self._engine.warm_up()

    def close(self) -> None:
        """End both. Safe to call twice."""
        self._closed = True
        self._engine.close()
        if self._spare is not None:
            self._spare.close()

    def after_loss(self, lost: Engine, why: EngineLost) -> Engine:
        """The engine to use now that one is gone: the one behind it. Raises `why` if there is none."""
        if self._engine is not lost:
            return self._engine
        if self._spare is None and self._behind is None:
            raise why
        self._report(f"{why}; going on without it")
        lost.close()
        if self._spare is None and self._behind is not None:
            self._spare = self._behind()
        assert self._spare is not None
        self._engine, self._spare, self._behind = self._spare, None, None
        self.notice = LOST
        return self._engine

    def _take_offer(self) -> None:
        with self._offers:
            make, self._offered = self._offered, None
        if make is None:
            return
        before = self._engine
        try:
            self._engine = make()
        except EngineError as err:
            self.notice = None
            self._report(f"'{before.spec.name}' stays in use: {err}")
            return
        self._spare = before
        self.notice = None
        self._report(f"'{self._engine.spec.name}' takes over from '{before.spec.name}'")


class _Guarded:
    """A batch on its way, which is asked again if the engine is lost meanwhile."""

    def __init__(self, owner: FallbackEngine, engine: Engine, pending: Pending, inputs: Tensors) -> None:
        self._owner = owner
        self._engine = engine
        self._pending = pending
        self._inputs = inputs

    def result(self) -> Tensors:
        """The answer, of whichever engine is left."""
        try:
            return self._pending.result()
        except EngineLost as err:
            self._pending = self._owner.after_loss(self._engine, err).submit(self._inputs)
            return self._pending.result()
