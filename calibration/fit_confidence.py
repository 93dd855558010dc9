"""`liveaffect calibrate confidence`: how far the networks are to be believed, fitted and kept in manifests.

Clips of people whom the networks were not trained on pass through the live path in lock-step; temperatures
and thresholds are fitted on the cues that come out, and judged on people who took no part in the fitting.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from liveaffect.calibration import clips as played
from liveaffect.calibration.clips import Clip, ClipTrace, ClipTraces, Engines, Remembering, relived
from liveaffect.calibration.held_out import (
    Answers,
    ClipCount,
    Findings,
    Fused,
    Outcome,
    Reading,
    ShownCount,
    find_out,
    write_findings,
)
from liveaffect.calibration.quality_curves import curves
from liveaffect.calibration.reliability import UnfitSamples
from liveaffect.engines import manifest as manifests
from liveaffect.engines.confidence import READING, Calibrated, part
from liveaffect.engines.load import load
from liveaffect.engines.manifest import KINDS, Manifest
from liveaffect.engines.protocol import Engine
from liveaffect.engines.recipe import LABELS
from liveaffect.engines.voices import FULL, folders_of
from liveaffect.realtime.clock import SECOND, process_cpu_ns
from liveaffect.realtime.cue import NOT_SURE
from liveaffect.realtime.errors import MissingLibrary, RealtimeError, SettingsError
from liveaffect.realtime.estimate import Confidence
from liveaffect.realtime.faces.blazeface import make_finder
from liveaffect.realtime.window import PieceGrid
from liveaffect.realtime.wiring import Finders

Say = Callable[[str], None]
SAME = 1e-6
"""What reckoning anew may differ from what the run itself showed."""
EXAMPLES = 40
"""Faces of the test side on which it is measured how weight falls with quality, beside the portraits."""
WATCHING = {"face": played.faces_watched, "voice": played.voices_watched, "face+voice": played.pairs_watched}


@dataclass(frozen=True, slots=True)
class ConfidenceOptions:
    """What to fit on, and where figures go."""

    data: Path
    weights: Path | None = None
    full: bool = False
    """Fit the full voice and its fusion instead of the small one's."""
    out: Path = Path("confidence")
    page: Path | None = None
    """A document with the two marks between which the figures are written."""


def wanted(data: Path, weights: Path | None, out: Path | None, *, full: bool = False) -> ConfidenceOptions:
    """In a checkout the figures of the package's own weights go into its documents; those of the full voice
    into a folder of their own."""
    docs = manifests.SHIPPED.parent.parent / "docs"
    if out is not None or weights is not None or not docs.is_dir():
        return ConfidenceOptions(data, weights, full, out or (weights or Path()) / "confidence")
    if full:
        return ConfidenceOptions(data, None, True, docs / "results" / "confidence-full")
    return ConfidenceOptions(data, None, False, docs / "results" / "confidence", docs / "confidence.md")


def calibrate_confidence(
    wanted: ConfidenceOptions,
    say: Say,
    *,
    engine: str = "auto",
    threads: int = 1,
    face_files: Path | None = None,
) -> int:
    """Fit, write and report; 0 when everything that is judged could be fitted, else 1."""
    if not wanted.data.is_dir():
        raise SettingsError(f"there is no folder {wanted.data} with data to fit confidence on")
    if importlib.util.find_spec("torch") is None:
        raise MissingLibrary("fitting confidence needs torch: uv sync --inexact --extra train")
    folder = wanted.weights or manifests.SHIPPED
    folders = folders_of(folder, folder / FULL if wanted.full else None)
    paths = {kind: (folders[kind] or folder) / f"{kind}.json" for kind in KINDS}
    found = {kind: manifests.read(path) for kind, path in paths.items() if path.exists()}
    found = {kind: manifest for kind, manifest in found.items() if manifest.training}
    if not found.keys() & {"face", "voice"}:
        raise SettingsError(f"no network in {folder} was trained; there is no confidence to fit")
    began_ns = process_cpu_ns()
    kinds = _kinds(found, folders, engine, threads, say)
    cast = _cast(found, kinds, make_finder(face_files))
    watched, seen, examples = _watch(found, wanted, cast, say)
    outcomes, failed = _fit_all(found, watched, say)
    # The face network is the same beside either voice, and is fitted beside the small one.
    fitted = {kind: path for kind, path in paths.items() if kind != "face" or not wanted.full}
    _write_manifests(found, fitted, outcomes, cast)
    confidence = _as_fitted(outcomes)
    shown = [
        _shown(subset, side, watched[subset], confidence)
        for subset in watched
        for side in ("calibrate", "test")
    ]
    models = {
        kind: manifest.files[manifests.file_name(kind, "fp32")][:12] for kind, manifest in found.items()
    }
    findings = Findings(outcomes, tuple(seen), tuple(one for one in shown if one.cues), models)
    say("\n" + write_findings(findings, curves(cast, examples), wanted.out, wanted.page))
    say(f"{(process_cpu_ns() - began_ns) / SECOND:.0f} s of processor time; tables are in {wanted.out}")
    return int(failed)


def _kinds(
    found: Mapping[str, Manifest], folders: Mapping[str, Path | None], engine: str, threads: int, say: Say
) -> dict[str, Engine]:
    """The engines a run would take, except that INT8 is taken where it is there, however fast it is here."""

    def one(kind: str) -> Engine:
        if kind not in found:
            return load(kind, choice="scripted", report=say)
        choice = engine
        if choice == "auto":
            choice = "onnx-int8" if found[kind].has("int8") and kind != "fusion" else "onnx"
        return load(kind, choice=choice, weights=folders[kind], threads=threads, report=say)

    return {kind: one(kind) for kind in KINDS}


def _cast(found: Mapping[str, Manifest], engines: Mapping[str, Engine], finders: Finders) -> Engines:
    recipe = found["voice"].recipe if "voice" in found else manifests.describe("voice", "scripted").recipe
    pieces = PieceGrid(recipe.piece, recipe.hop, recipe.lead, recipe.statistics)
    return Engines(engines["face"], Remembering(engines["voice"]), engines["fusion"], finders, pieces)


def _watch(
    found: Mapping[str, Manifest], wanted: ConfidenceOptions, cast: Engines, say: Say
) -> tuple[dict[str, list[ClipTrace]], list[ClipCount], list[Clip]]:
    """Every clip of everything that can be judged, watched; and some of the faces."""
    watched, seen, examples = {}, [], list[Clip]()
    for name, clips in _material(found, wanted, say):
        results = list(WATCHING[name](clips, cast))
        watched[name] = [watch for watch in results if watch is not None]
        for side in dict.fromkeys(clip.side for clip in clips):
            given = [
                watch is not None for clip, watch in zip(clips, results, strict=True) if clip.side == side
            ]
            seen.append(ClipCount(name, side, len(given), sum(given)))
        difference = ClipTraces(watched[name]).largest_difference()
        if difference > SAME:
            raise RealtimeError(
                f"reckoning '{name}' anew differs from the run by {difference}; a defect of the program"
            )
        if name == "face":
            examples = [clip for clip in clips if clip.side == "test"][:EXAMPLES]
        say(f"{name}: {len(watched[name])} of {len(clips)} clips gave cues")
    return watched, seen, examples


def _material(
    found: Mapping[str, Manifest], wanted: ConfidenceOptions, say: Say
) -> Iterator[tuple[str, list[Clip]]]:
    # What stands in for faces is tiny: threads of torch would only wait for each other.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    if "face" in found:
        yield "face", played.face_clips(wanted.data, wanted.weights)
    if "voice" in found:
        yield "voice", played.voice_clips(wanted.data, wanted.weights, say)
    if len(found) == len(KINDS):
        yield "face+voice", played.pair_clips(wanted.data, wanted.weights, say)


def _fit_all(
    found: Mapping[str, Manifest], watched: Mapping[str, list[ClipTrace]], say: Say
) -> tuple[dict[str, Outcome], bool]:
    """By name: 'face reading', 'voice reading', and the subsets that are fused."""
    outcomes: dict[str, Outcome] = {}
    failed = False
    known: dict[str, float] = {}
    for name, watches in watched.items():
        sides = {side: [w for w in watches if w.side == side] for side in ("calibrate", "test")}
        wanted: dict[str, Callable[[list[ClipTrace]], Answers]] = {}
        if name in ("face", "voice"):
            wanted[f"{name} {READING}"] = partial(Reading, name)
        if "fusion" in found:
            wanted[name] = partial(_fused, name, dict(known))
        for what, make in wanted.items():
            try:
                outcomes[what] = find_out(what, make(sides["calibrate"]), make(sides["test"]))
            except UnfitSamples as error:
                say(f"left out: {error}")
                failed = True
        if name in outcomes:
            known[name] = outcomes[name].fit.temperature
    return outcomes, failed


def _fused(subset: str, known: Mapping[str, float], watches: list[ClipTrace]) -> Answers:
    return Fused(ClipTraces(watches), subset, known)


def _write_manifests(
    found: Mapping[str, Manifest], paths: Mapping[str, Path], outcomes: Mapping[str, Outcome], cast: Engines
) -> None:
    engines = {kind: getattr(cast, kind).spec.name.rpartition("/")[2] for kind in found}
    for kind, manifest in found.items():
        if kind not in paths:
            continue
        parts: dict[str, Calibrated] = {}
        for name, outcome in outcomes.items():
            if kind == "fusion" and not name.endswith(READING):
                parts[name] = outcome.calibrated()
            elif name == f"{kind} {READING}":
                parts[READING] = outcome.calibrated()
        of = found if kind == "fusion" else {kind: manifest}
        content = part(parts, of, {one: engines[one] for one in of}) if parts else {}
        # Read anew: somebody may have written figures into it while the clips were watched.
        newest = manifests.read(paths[kind])
        if newest.files != manifest.files:
            raise RealtimeError(
                f"the weights of '{manifest.name}' changed while its confidence was fitted; again"
            )
        manifests.write(manifests.extended(newest, confidence=content), paths[kind])


def _as_fitted(outcomes: Mapping[str, Outcome]) -> Confidence:
    readings = {n.partition(" ")[0]: o for n, o in outcomes.items() if n.endswith(READING)}
    fused = {n: o for n, o in outcomes.items() if not n.endswith(READING)} or readings
    return Confidence(
        readings={name: one.fit.temperature for name, one in readings.items()},
        fused={name: one.fit.temperature for name, one in fused.items()},
        thresholds={name: one.applied.threshold for name, one in fused.items()},
    )


def _shown(subset: str, side: str, watches: list[ClipTrace], confidence: Confidence) -> ShownCount:
    """What users see in the end, all rules of "not sure" included."""
    cues = labels = wrong = 0
    for watch in watches:
        if watch.side != side:
            continue
        for one in relived(watch, confidence):
            cues += 1
            if one.label != NOT_SURE:
                labels += 1
                wrong += one.label != LABELS[watch.truth]
    return ShownCount(subset, side, cues, labels, wrong)
