"""Whatever is pushed and read in whatever order, the ring agrees with a list that keeps everything."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, rule

from liveaffect.realtime.ring import Batch, Ring


class RingMachine(RuleBasedStateMachine):
    """One writer, any number of readers, each with its own cursor."""

    cursors: Bundle[int] = Bundle("cursors")

    @initialize(capacity=st.integers(1, 5), target=cursors)
    def start(self, capacity: int) -> int:
        self.capacity = capacity
        self.hooked: list[int] = []
        self.ring: Ring[int] = Ring(capacity, on_push=self.hooked.append)
        self.all: list[int] = []
        self.closed = False
        self.error: Exception | None = None
        return 0

    @rule(count=st.integers(1, 7))
    def push(self, count: int) -> None:
        for _ in range(count):
            try:
                self.ring.push(len(self.all))
            except RuntimeError:
                assert self.closed
                return
            assert not self.closed
            self.all.append(len(self.all))

    @rule(cursor=cursors, target=cursors)
    def read(self, cursor: int) -> int:
        return self.check(cursor, self.ring.read_since(cursor))

    @rule(cursor=cursors, target=cursors)
    def wait(self, cursor: int) -> int:
        return self.check(cursor, self.ring.wait_since(cursor, 0.0))

    def check(self, cursor: int, batch: Batch[int]) -> int:
        oldest = max(0, len(self.all) - self.capacity)
        assert list(batch.items) == self.all[max(cursor, oldest) :]
        assert batch.missed == max(0, oldest - cursor)
        assert batch.cursor == len(self.all) == cursor + batch.missed + len(batch.items)
        return batch.cursor

    @rule(error=st.sampled_from([None, ValueError("gone")]))
    def close(self, error: Exception | None) -> None:
        self.ring.close(error)
        if not self.closed:
            self.closed, self.error = True, error

    @invariant()
    def agrees(self) -> None:
        if not hasattr(self, "ring"):
            return
        assert self.ring.written == len(self.all)
        assert self.ring.newest() == (self.all[-1] if self.all else None)
        assert (self.ring.closed, self.ring.error) == (self.closed, self.error)
        assert self.hooked == self.all
        assert self.ring.capacity == self.capacity


TestRing = RingMachine.TestCase
TestRing.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
