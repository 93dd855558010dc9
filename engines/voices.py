"""Which of the two voice networks is used: the small one that is always there, or the full one on Whisper.

Files can wait, so they get the full one wherever Whisper is. Live takes it where this very machine carries
it, which is measured, not guessed from a name.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from liveaffect.engines import manifest, parity, stopwatch, whisper
from liveaffect.engines.load import manifest_path
from liveaffect.engines.manifest import SHIPPED
from liveaffect.engines.onnx_engine import OnnxEngine
from liveaffect.engines.protocol import EngineFileError
from liveaffect.engines.recipe import SAMPLE_RATE

VOICES = ("auto", "small", "full")
FULL = "full"
"""The folder beside the small network's files that holds the full one's, and a fusion of its own."""
MOST_OF_A_CORE = 0.15
"""A live machine carries the full network if it takes no larger share of a core than this."""
ROUNDS = 5

Report = Callable[[str], None]


def voice_folder(
    choice: str, weights: Path | None = None, *, live: bool = False, threads: int = 1, report: Report
) -> Path | None:
    """Where the full voice is, if it is to be used; None for the small one. `report` gets why.

    Raises EngineFileError when the full one was asked for and cannot be had.
    """
    if choice not in VOICES:
        raise ValueError(f"no voice '{choice}'; known are {', '.join(VOICES)}")
    folder = (weights or SHIPPED) / FULL
    if choice == "small" or (weights is not None and weights.suffix == ".json"):
        return None
    path = manifest_path("voice", folder)
    if not path.is_file():
        if choice == "full":
            raise EngineFileError(f"there is no full voice network in {folder}; use --voice small")
        return None
    found = manifest.read(path)
    if why := whisper.why_not(found):
        if choice == "full":
            raise EngineFileError(f"the full voice cannot be used: {why}")
        report(f"voice: the small one; not the full one: {why}")
        return None
    if choice == "auto" and not found.confidence:
        return None  # Whatever its recall, nobody could say how far to believe it.
    if choice == "auto" and live and (share := _share(found, folder, threads)) > MOST_OF_A_CORE:
        report(f"voice: the small one; the full one would take {share:.0%} of a core here")
        return None
    return folder


def folders_of(weights: Path | None, full: Path | None) -> dict[str, Path | None]:
    """Where the manifest of each kind is: the full voice has a folder and a fusion of its own."""
    return {"face": weights, "voice": full or weights, "fusion": full or weights}


def _share(found: manifest.Manifest, folder: Path, threads: int) -> float:
    """Of a core, by the time of a piece and the time between two."""
    engine = OnnxEngine(found, folder, threads=threads)
    engine.warm_up()
    batch = parity.inputs("voice", 1, piece=found.recipe.piece, statistics=found.recipe.statistics)
    (spent_ns,) = stopwatch.median_ns([lambda: engine.infer(batch)], rounds=ROUNDS)
    engine.close()
    return spent_ns * 1e-9 * SAMPLE_RATE / found.recipe.hop
