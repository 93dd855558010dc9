"""What a part of the run asks of a network on the card, whichever library runs it.

A path is a way of running networks: TensorRT with or without CUDA graphs, torch eager or as a CUDA graph. It
opens a network in one precision. What is opened is an engine, as live use has it, and gives lanes: one batch
each, everything allocated, which can be driven alone, on data that already lies on the card.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from gpu.networks import Network

from liveaffect.engines.protocol import Engine


class Lane(Protocol):
    """One network, one precision, one batch; one caller."""

    @property
    def no_graph(self) -> str | None:
        """Why the network alone is launched without a graph on a path that has graphs; mostly None."""
        ...

    def start(self) -> None:
        """Hand in the network alone, on what was last copied in. Returns before it is done."""
        ...

    def wait(self) -> None:
        """Until everything that was handed in is done."""
        ...

    def device_ms(self) -> float:
        """`start` between two events of the card, and the wait for the second: what lies between them."""
        ...

    def close(self) -> None:
        """Free what was made for it. Safe to call twice."""
        ...


class Opened(Protocol):
    """One network in one precision on one path."""

    @property
    def engine(self) -> Engine:
        """As live use has it, warm: arrays on the host to answers on the host."""
        ...

    def lane(self, batch: int) -> Lane:
        """A lane that was run once. Raises EngineError where this batch cannot be run."""
        ...

    def close(self) -> None:
        """Free everything, the lanes too. Safe to call twice."""
        ...


class Path(Protocol):
    """A way to run networks on the card."""

    @property
    def name(self) -> str:
        """Such as 'tensorrt-rtx, CUDA graph'."""
        ...

    @property
    def graph(self) -> bool:
        """Whether a network is launched as one CUDA graph."""
        ...

    @property
    def precisions(self) -> Sequence[str]:
        """What it can run, in order of importance."""
        ...

    def open(self, network: Network, precision: str) -> Opened:
        """The network, warm. Raises EngineError where this cannot be run."""
        ...
