"""`liveaffect calibrate confidence`: how far the networks are to be believed, fitted and kept in manifests.

Clips of people whom the networks were not trained on pass through the live path in lock-step; temperatures
and thresholds are fitted on the cues that come out, and judged on people who took no part in the fitting.
"""

from __future__ import annotations

import importlib.util
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from liveaffect.calibration import clips as played
from liveaffect.calibration.clips import (
    Clip,
    ClipTrace,
    ClipTraces,
    Engines,
    Remembering,
    enlarged,
    pairs_watched,
    relived,
)
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
from liveaffect.calibration.reliability import UnfitSamples
from liveaffect.engines import manifest as manifests
from liveaffect.engines.confidence import READING, Calibrated, part
from liveaffect.engines.load import FULL, folders_of, load
from liveaffect.engines.manifest import KINDS, Manifest
from liveaffect.engines.protocol import Engine
from liveaffect.engines.recipe import LABELS, SpeakerStatistics
from liveaffect.realtime.acting import make_speech, read_wav
from liveaffect.realtime.blazeface import make_finder
from liveaffect.realtime.clock import SECOND, process_cpu_ns
from liveaffect.realtime.crop import cut_out, eye_distance, quality
from liveaffect.realtime.cue import NOT_SURE
from liveaffect.realtime.errors import MissingLibrary, RealtimeError, SettingsError
from liveaffect.realtime.estimate import Confidence, Estimate, Opinion
from liveaffect.realtime.expression import Pooled
from liveaffect.realtime.face_analyzer import find_in_picture
from liveaffect.realtime.networks import Networks, fuse
from liveaffect.realtime.portrait import packaged_portraits
from liveaffect.realtime.replay import load_picture
from liveaffect.realtime.window import PieceGrid
from liveaffect.realtime.wiring import Finders

Image = NDArray[np.uint8]
Points = NDArray[np.float32]
EYES_PX = 40.0
"""Distance of the eyes in a portrait that nothing was done to."""
Levels = tuple[float, ...]
SIZES: Levels = (40.0, 32.0, 28.0, 24.0, 20.0, 16.0, 13.0, 10.0)
BLURS: Levels = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)
LIGHTS: Levels = (1.0, 0.7, 0.5, 0.4, 0.3, 0.2, 0.15, 0.1)
NOISES_DB: Levels = (40.0, 30.0, 20.0, 15.0, 10.0, 5.0, 0.0, -5.0)
GAINS: Levels = (1.0, 1.5, 2.0, 2.5, 3.0, 4.0, 6.0)
PEAK = 0.9

HEADS = ("evidence", "spoilt_by", "level", "quality", "weight")
Say = Callable[[str], None]
SAME = 1e-6
"""What reckoning anew may differ from what the run itself showed."""
EXAMPLES = 40
"""Faces of the test side on which it is measured how weight falls with quality, beside the portraits."""
WATCHING = {"face": played.faces_watched, "voice": played.voices_watched, "face+voice": played.pairs_watched}


def curves(cast: Engines, examples: Sequence[Clip] = ()) -> list[list[Any]]:
    """One row for each level: mean quality, and mean weight beside good evidence of the other sort."""
    with tempfile.TemporaryDirectory(prefix="liveaffect-curves-") as folder:
        speech = read_wav(make_speech(Path(folder)))
    speech = np.asarray(speech * PEAK / np.abs(speech).max(), np.float32)
    pictures = [load_picture(path) for path in packaged_portraits()]
    pictures += [enlarged(np.asarray(clip.content, np.uint8)) for clip in examples]
    faces = [face for picture in pictures if (face := _portrait(cast, picture)) is not None]
    rows: list[list[Any]] = [list(HEADS)]
    for name, (levels, spoil) in FACES_SPOILT.items():
        rows += [["face", name, *row] for row in face_curve(cast, faces, speech, levels, spoil)]
    logits = _ask_face(cast, cut_out(*faces[0])).logits if faces else np.zeros(7, np.float32)
    # A voice network that learnt nothing is not asked beside a face network that did.
    for name, (levels, damage) in VOICES_SPOILT.items() if cast.voice.spec.trained else ():
        rows += [["voice", name, *row] for row in voice_curve(cast, speech, logits, levels, damage)]
    return rows


def _portrait(cast: Engines, image: Image) -> tuple[Image, Points] | None:
    """The picture with the eyes as far apart as every curve begins with, and the face's points in it."""
    found = find_in_picture(*cast.finders, image)
    if not found:
        return None
    scale = EYES_PX / eye_distance(found[0].points)
    return scaled(image, found[0].points, scale)


def scaled(image: Image, points: Points, scale: float) -> tuple[Image, Points]:
    """A picture and the points in it, larger or smaller."""
    way = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    size = (max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale)))
    return np.asarray(cv2.resize(image, size, interpolation=way), np.uint8), np.asarray(
        points * scale, np.float32
    )


def _smaller(image: Image, points: Points, eyes_px: float) -> tuple[Image, Points]:
    return scaled(image, points, eyes_px / EYES_PX)


def _blurred(image: Image, points: Points, sigma: float) -> tuple[Image, Points]:
    return (np.asarray(cv2.GaussianBlur(image, (0, 0), sigma), np.uint8) if sigma else image), points


def _darker(image: Image, points: Points, share: float) -> tuple[Image, Points]:
    return (image * share).astype(np.uint8), points


def face_curve(
    cast: Engines,
    faces: list[tuple[Image, Points]],
    speech: NDArray[np.float32],
    levels: Levels,
    spoil: Callable[[Image, Points, float], tuple[Image, Points]],
) -> Iterator[tuple[float, float, float]]:
    """Level, mean quality and mean weight of the faces beside a clear voice."""
    voice = _ask_voice(cast, speech)
    networks = Networks(cast.face, cast.voice, cast.fusion)
    for level in levels:
        qualities, weights = [], []
        for face in faces:
            image, points = spoil(*face, level)
            crop = cut_out(image, points)
            good = quality(crop, points).score
            seen = _ask_face(cast, crop)
            both = Estimate(0, 1, Opinion(0, seen, seen, say=good), Opinion(0, voice, voice))
            (fused,) = fuse([both], networks.fuse)
            if fused.answered:
                qualities.append(good)
                weights.append(fused.weights[0])
        yield level, float(np.mean(qualities)), float(np.mean(weights))


def voice_curve(
    cast: Engines,
    speech: NDArray[np.float32],
    logits: NDArray[np.float32],
    levels: Levels,
    damage: Callable[[NDArray[np.float32], float], NDArray[np.float32]],
) -> Iterator[tuple[float, float, float]]:
    """Level, mean quality and mean weight of the voice beside a good face with these logits."""
    for level in levels:
        clip = Clip("speech", "espeak", "test", 0, damage(speech, level), logits)
        (watch,) = pairs_watched([clip], cast)
        if watch is None:
            continue
        weights = [one.weights[1] for one in watch.estimates]
        heard = [one.voice.quality for one in watch.estimates if one.voice is not None]
        yield level, float(np.mean(heard or [0.0])), float(np.mean(weights))


def _with_noise(speech: NDArray[np.float32], ratio_db: float) -> NDArray[np.float32]:
    rng = np.random.default_rng(0)
    noise = rng.normal(0, float(np.sqrt(np.mean(np.square(speech)))) * 10 ** (-ratio_db / 20), len(speech))
    return np.asarray(speech + noise, np.float32)


def _clipped(speech: NDArray[np.float32], gain: float) -> NDArray[np.float32]:
    return np.asarray(np.clip(speech * gain, -1.0, 1.0), np.float32)


def _ask_face(cast: Engines, crop: Image) -> Pooled:
    answer = cast.face.infer({"crop": crop[None]})
    return Pooled(answer["vector"][0], answer["logits"][0])


def _ask_voice(cast: Engines, speech: NDArray[np.float32]) -> Pooled:
    """The loudest piece, from cold."""
    starts = range(0, len(speech) - cast.pieces.length + 1, cast.pieces.hop)
    pieces = [speech[start : start + cast.pieces.length] for start in starts]
    loudest = max(pieces, key=lambda piece: float(np.square(piece).sum()))
    mean, istd = SpeakerStatistics.cold(kept=cast.pieces.statistics).normaliser()
    answer = cast.voice.infer({"samples": loudest[None], "mean": mean[None], "istd": istd[None]})
    return Pooled(answer["vector"][0], answer["logits"][0])


FACES_SPOILT = {"eyes apart px": (SIZES, _smaller), "blur px": (BLURS, _blurred), "light": (LIGHTS, _darker)}
VOICES_SPOILT = {"noise dB": (NOISES_DB, _with_noise), "gain": (GAINS, _clipped)}


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
