"""Loads what a run needs, as the settings say: the three networks and the face finders."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from engines.load import load, recipe_numbers
from engines.manifest import KINDS
from engines.protocol import Engine
from realtime.networks import Networks
from realtime.people import Habit
from realtime.run.calibrated import confidence_of
from realtime.run.calibrations.profiles import habit_of
from realtime.run.finders import make_finder
from realtime.run.settings import Settings
from realtime.run.wiring import Finders
from realtime.window import PIECES, PieceGrid

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Tools:
    """What every run uses; loaded once for all of them."""

    networks: Networks
    make_finders: Callable[[], Finders]
    pieces: PieceGrid = PIECES
    """What the voice network takes, from its manifest."""
    habit: Habit | None = None
    """The personal profile that was asked for."""


def load_tools(settings: Settings, say: Say) -> Tools:
    """Networks and finders, warmed up. Raises EngineError or MissingFile with what to do about it."""
    networks = load_networks(settings, say)
    numbers = recipe_numbers("voice", choice=settings.engine, weights=_folder(settings.weights))
    pieces = PieceGrid(numbers.piece, numbers.hop)
    habit = habit_of(settings, networks)
    return Tools(networks, lambda: make_finder(_folder(settings.face_model)), pieces, habit)


def _folder(name: str) -> Path | None:
    return Path(name) if name else None


def load_networks(settings: Settings, say: Say) -> Networks:
    """Face, voice and fusion engine, and how far they are believed."""

    def one(kind: str) -> Engine:
        return load(
            kind,
            choice=settings.engine,
            weights=_folder(settings.weights),
            threads=settings.threads,
            require_gpu=settings.require_gpu and kind != "fusion",
            report=say,
        )

    engines = {kind: one(kind) for kind in KINDS}
    trained = [kind for kind, engine in engines.items() if engine.spec.trained]
    confidence = confidence_of(_folder(settings.weights), trained, say)
    networks = Networks(engines["face"], engines["voice"], engines["fusion"], confidence)
    networks.warm_up()
    return networks
