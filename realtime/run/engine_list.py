"""`liveaffect engines list`: which back ends work here for which network, and why the others do not."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from engines.load import CHOICES, load
from engines.manifest import KINDS
from engines.protocol import EngineError


def engine_lines(weights: Path | None) -> Iterator[str]:
    """One line for every network and back end; each engine is really opened and run once."""
    for kind in KINDS:
        for choice in CHOICES:
            said: list[str] = []
            try:
                engine = load(kind, choice=choice, weights=weights, report=said.append)
                engine.close()
            except EngineError as error:
                yield f"{kind:<7} {choice:<10} no   {error}"
            else:
                yield f"{kind:<7} {choice:<10} yes  {'; '.join(said)}"
