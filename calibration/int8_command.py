"""`liveaffect calibrate int8`: the best INT8 form of each network in a folder, or a refusal that says why."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from liveaffect.engines import manifest as manifests
from liveaffect.engines import probe, stopwatch
from liveaffect.engines.load import manifest_path
from liveaffect.engines.onnx_engine import OnnxEngine
from liveaffect.engines.protocol import EngineUnavailable
from liveaffect.realtime.errors import MissingLibrary

KINDS = ("face", "voice")
ROUNDS = 60

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Wanted:
    """What was asked for."""

    data: Path
    kinds: Sequence[str] = KINDS
    weights: Path | None = None
    """None means the weights of the package."""
    out: Path | None = None
    """Folder for tables."""
    limits: dict[str, float] = field(default_factory=dict)
    """By name, where they are not the usual ones."""


def calibrate(wanted: Wanted, say: Say) -> None:
    """Every network that is there; raises on the first that is refused, and leaves its files as they are."""
    found = [kind for kind in wanted.kinds if manifest_path(kind, wanted.weights).exists()]
    if not found:
        folder = manifest_path(wanted.kinds[0], wanted.weights).parent
        raise EngineUnavailable(f"there are no weights of {' or '.join(wanted.kinds)} in {folder}")
    for kind in found:
        _one(kind, wanted, say)


def _one(kind: str, wanted: Wanted, say: Say) -> None:
    try:
        from liveaffect.calibration import int8, int8_tables, samples
        from liveaffect.engines.training import splits
    except ImportError as err:
        raise MissingLibrary(
            f"calibrating INT8 needs the extra 'train': {err}; pip install 'liveaffect[train]'"
        ) from err
    path = manifest_path(kind, wanted.weights)
    found, folder = manifests.read(path), path.parent
    packaged = wanted.weights is None
    sides = splits.FROZEN if packaged else folder / splits.FROZEN.name
    frozen = samples.FROZEN if packaged else folder / samples.FROZEN.name
    if kind == "face":
        from liveaffect.calibration.face_samples import faces

        to_calibrate, exam = faces(wanted.data, found, sides=sides, frozen=frozen)
    else:
        from liveaffect.calibration.voice_samples import voices

        with closing(OnnxEngine(found, folder)) as engine:
            to_calibrate, exam = voices(wanted.data, engine, found, sides=sides, frozen=frozen, report=say)
    drawn = sum(len(next(iter(batch.values()))) for batch in to_calibrate.batches)
    say(f"{found.name}: calibrated on {drawn} items, judged on {len(exam.truth)} others")
    outcome = int8.calibrate(path, to_calibrate, exam, int8.Limits(**wanted.limits), say)
    table = int8_tables.table_of(kind, outcome)
    say(int8_tables.markdown(table))
    if wanted.out is not None:
        int8_tables.write(wanted.out, table)
    lost = outcome.points_lost
    told = f"{abs(lost):.2f} points of accuracy {'lost' if lost > 0 else 'gained'}"
    say(f"{found.name}: {told}; {_time_taken(kind, path)}")


def _time_taken(kind: str, path: Path) -> str:
    """Both forms in turns, on this machine now."""
    found = manifests.read(path)
    batch = probe.inputs(kind, 1, piece=found.recipe.piece)
    with (
        closing(OnnxEngine(found, path.parent)) as fp32,
        closing(OnnxEngine(found, path.parent, "int8")) as int8,
    ):
        fp32.warm_up()
        int8.warm_up()
        long_ns, short_ns = stopwatch.median_ns(
            [partial(fp32.infer, batch), partial(int8.infer, batch)], rounds=ROUNDS
        )
    return f"{short_ns / 1e6:.2f} ms in INT8, {long_ns / 1e6:.2f} ms in fp32"
