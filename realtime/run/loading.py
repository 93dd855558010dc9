"""Loads what a run needs, as the settings say: the three networks and the face finders."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from engines.fallback import FallbackEngine
from engines.load import load, manifest_path, recipe_numbers
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
    awaiting: Mapping[Path, FallbackEngine] = field(default_factory=dict)
    """Engines that would move to the GPU if it had plans, by the manifest of their network."""


def load_tools(settings: Settings, say: Say) -> Tools:
    """Networks and finders, warmed up. Raises EngineError or MissingFile with what to do about it."""
    engines = _load_engines(settings, say)
    networks = _joined(engines, settings, say)
    numbers = recipe_numbers("voice", choice=settings.engine, weights=_folder(settings.weights))
    pieces = PieceGrid(numbers.piece, numbers.hop, numbers.lead)
    habit = habit_of(settings, networks)
    awaiting = {
        manifest_path(kind, _folder(settings.weights)): engine
        for kind, engine in engines.items()
        if isinstance(engine, FallbackEngine) and engine.wants_gpu
    }
    return Tools(networks, lambda: make_finder(_folder(settings.face_model)), pieces, habit, awaiting)


def _folder(name: str) -> Path | None:
    return Path(name) if name else None


def load_networks(settings: Settings, say: Say) -> Networks:
    """Face, voice and fusion engine, and how far they are believed."""
    return _joined(_load_engines(settings, say), settings, say)


def _load_engines(settings: Settings, say: Say) -> dict[str, Engine]:
    def one(kind: str) -> Engine:
        return load(
            kind,
            choice=settings.engine,
            weights=_folder(settings.weights),
            threads=settings.threads,
            require_gpu=settings.require_gpu and kind != "fusion",
            report=say,
        )

    return {kind: one(kind) for kind in KINDS}


def _joined(engines: Mapping[str, Engine], settings: Settings, say: Say) -> Networks:
    trained = [kind for kind, engine in engines.items() if engine.spec.trained]
    confidence = confidence_of(_folder(settings.weights), trained, say)
    networks = Networks(engines["face"], engines["voice"], engines["fusion"], confidence)
    networks.warm_up()
    return networks
