"""Measures how the weight of a face and of a voice falls when they get worse, on real crops and on speech.

Portraits are those that installed packages carry and some faces of the test side. Each is made smaller,
blurred and darkened beside a clear voice; speech gets noise and is cut off beside a good face. Crop, quality,
networks and fusion are the live ones.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from liveaffect.calibration.clips import Clip, Engines, enlarged, pairs_watched
from liveaffect.engines.recipe import SpeakerStatistics
from liveaffect.realtime.crop import cut_out, eye_distance, quality
from liveaffect.realtime.estimate import Estimate, Opinion
from liveaffect.realtime.expression import Pooled
from liveaffect.realtime.face_analyzer import find_in_picture
from liveaffect.realtime.fusion import fuse
from liveaffect.realtime.networks import Networks
from liveaffect.realtime.portrait import packaged_portraits
from liveaffect.realtime.replay import load_picture
from liveaffect.realtime.speech import make_speech, read_wav

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
