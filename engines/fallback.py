"""An engine that can be exchanged while it is used: from the CPU to the GPU when that is ready, and back.

A GPU that is lost costs one batch nothing: what was handed in is asked of the engine behind it at once. The
engine on offer was opened and warmed by whoever offers it, so that `submit` only exchanges one for the other.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from typing import Any

from numpy.typing import NDArray

from liveaffect.engines.protocol import (
    Engine,
    EngineError,
    EngineLost,
    EngineSpec,
    Pending,
    Staged,
    Staging,
    Tensors,
)

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
        self._offered: Engine | None = None
        self._gone: list[Engine] = []
        """Engines that lost what they ran on. They are ended last: batches may still lie in their memory."""
        self._closed = False

    @property
    def spec(self) -> EngineSpec:
        """Of the engine in use."""
        return self._engine.spec

    def offer(self, engine: Engine) -> None:
        """From the next batch on use this one, which is warm; the engine in use stays behind it."""
        with self._offers:
            late = engine if self._closed else self._offered
            self._offered = None if self._closed else engine
        if late is not None:
            late.close()

    def submit(self, inputs: Tensors) -> Pending:
        """Hand in one batch, to the engine on offer if there is one."""
        engine = self._current()
        try:
            return _Guarded(self, engine, engine.submit(inputs), inputs)
        except EngineLost as err:
            return self.after_loss(engine, err).submit(inputs)

    def stage(self, count: int) -> Staged | None:
        """Room for one batch, if the engine in use has such."""
        engine = self._current()
        try:
            room = engine.stage(count) if isinstance(engine, Staging) else None
        except EngineLost as err:
            self.after_loss(engine, err)
            return None
        return None if room is None else _GuardedRoom(self, engine, room)

    def infer(self, inputs: Tensors) -> Tensors:
        """`submit` and wait."""
        return self.submit(inputs).result()

    def warm_up(self) -> None:
        """Of the engine in use."""
        self._engine.warm_up()

    def close(self) -> None:
        """End all of them. Safe to call twice."""
        with self._offers:
            self._closed = True
            offered, self._offered = self._offered, None
        for engine in (offered, self._engine, self._spare, *self._gone):
            if engine is not None:
                engine.close()

    def after_loss(self, lost: Engine, why: EngineLost) -> Engine:
        """The engine to use now that one is gone: the one behind it. Raises `why` if there is none."""
        if self._engine is not lost:
            return self._engine
        if self._spare is None and self._behind is None:
            raise why
        self._report(f"{why}; going on without it")
        self._gone.append(lost)
        if self._spare is None and self._behind is not None:
            self._spare = self._behind()
        assert self._spare is not None
        self._engine, self._spare, self._behind = self._spare, None, None
        self.notice = LOST
        return self._engine

    def _current(self) -> Engine:
        """The engine to use now, after taking the one on offer."""
        if self._closed:
            raise EngineError(f"engine '{self.spec.name}' is closed")
        if self._offered is not None:
            with self._offers:
                taken, self._offered = self._offered, None
            if taken is not None:
                self._report(f"'{taken.spec.name}' takes over from '{self._engine.spec.name}'")
                self._engine, self._spare, self.notice = taken, self._engine, None
        return self._engine


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


class _GuardedRoom:
    """Room for a batch of an engine that may be lost."""

    def __init__(self, owner: FallbackEngine, engine: Engine, room: Staged) -> None:
        self._owner = owner
        self._engine = engine
        self._room = room
        self.inputs: Mapping[str, NDArray[Any]] = room.inputs

    def submit(self) -> Pending:
        """Hand it in, or ask the engine behind."""
        try:
            return _Guarded(self._owner, self._engine, self._room.submit(), self.inputs)
        except EngineLost as err:
            return self._owner.after_loss(self._engine, err).submit(self.inputs)
