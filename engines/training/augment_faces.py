"""Makes a face look as a webcam would have seen it: placed a little off, blurred, dark, compressed, tinted.

One warp does placing, turning, mirroring and the change of size, exactly as the live crop does, so a
picture is interpolated once. The order afterwards is that of a camera: light, lens, sensor, codec.

Where the live finder would cut each face out is told by a function, because no training knows the finder.
What it says is kept in a file: it takes minutes, and a training that goes on must find what it began with.
"""

from __future__ import annotations

import hashlib
import io
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from liveaffect.engines.manifest import write_whole
from liveaffect.engines.protocol import EngineFileError
from liveaffect.engines.recipe import CROP_SIZE

Grey = NDArray[np.float32]
Grey8 = NDArray[np.uint8]
Matrix = NDArray[np.float64]
Generator = np.random.Generator
PLACINGS = "placings.npz"
Place = Callable[[Grey8], Matrix | None]
"""From a grey picture to the (2, 3) matrix from its pixels to those of the crop; None if it shows no face."""
_NOISE = np.random.default_rng(20260101).standard_normal((256, 256)).astype(np.float32)
"""Drawn once: cutting from it costs a hundredth of drawing."""
_INTERPOLATIONS = (cv2.INTER_LINEAR, cv2.INTER_LINEAR, cv2.INTER_CUBIC, cv2.INTER_AREA)


@dataclass(frozen=True, slots=True)
class FaceChanges:
    """How often each thing happens, and how far it goes."""

    turn_deg: float = 7.0
    """Standard deviation; no more than 15."""
    scale: float = 0.07
    """Standard deviation of the logarithm."""
    shear: float = 0.04
    shift_px: float = 1.8
    """Standard deviation, in pixels of the crop."""
    about_live: float = 0.5
    """Share of all that where the live finder placed the face, and so erred already."""
    mirror: float = 0.5
    gamma: float = 0.28
    """Standard deviation of the logarithm."""
    contrast: float = 0.25
    side_light: float = 0.2
    low_light: float = 0.08
    blur: float = 0.2
    small: float = 0.12
    """The face was smaller in the picture than the crop is."""
    sharpen: float = 0.25
    """Webcams sharpen, and their faces are larger than those of FER2013."""
    noise: float = 0.25
    noise_levels: tuple[float, float] = (1.0, 9.0)
    jpeg: float = 0.2
    jpeg_quality: tuple[int, int] = (20, 80)
    occlusion: float = 0.3
    occlusion_side: tuple[float, float] = (0.12, 0.45)
    """As a share of the crop's side."""
    tint: float = 0.15
    """Standard deviation of the logarithm of each colour's gain."""


def placed(picture: Grey8, placing: Matrix | None = None) -> Grey8:
    """A face as it stands in the corpus, at the size of the crop, or where `placing` puts it."""
    return _warped(picture, _by_the_corpus(len(picture)) if placing is None else placing, cv2.INTER_LINEAR)


def grey_crops(pictures: Grey8, placings: Sequence[Matrix | None] | None = None) -> Grey8:
    """(n, side, side) to what the network takes, (n, 64, 64, 3), with nothing changed."""
    where = [None] * len(pictures) if placings is None else placings
    grey = np.stack([placed(picture, place) for picture, place in zip(pictures, where, strict=True)])
    return np.repeat(grey[..., None], 3, axis=3)


def seen(picture: Grey8, rng: Generator, strength: FaceChanges, placing: Matrix | None = None) -> Grey8:
    """One grey face as a camera might have given it, (64, 64).

    `placing` is where the live finder puts the crop, (2, 3) from the picture's pixels to the crop's. Its
    errors come with it, so about that place a face is moved less than about the one of the corpus.
    """
    out = _placed_anyhow(picture, rng, strength, placing).astype(np.float32)
    out = _lit(out, rng, strength)
    out = _through_a_lens(out, rng, strength)
    if rng.random() < strength.occlusion:
        _cover(out, rng, strength)
    if rng.random() < strength.noise:
        out += _grain(rng) * np.float32(rng.uniform(*strength.noise_levels))
    grey = np.clip(out, 0, 255).astype(np.uint8)
    return _compressed(grey, rng, strength) if rng.random() < strength.jpeg else grey


def tinted(grey: NDArray[np.uint8], rng: np.random.Generator, strength: FaceChanges) -> NDArray[np.uint8]:
    """(n, 64, 64) to (n, 64, 64, 3) under lamps of many colours; their brightness together stays."""
    gain = np.exp(rng.normal(0.0, strength.tint, (len(grey), 1, 1, 3))).astype(np.float32)
    gain /= gain.mean(axis=3, keepdims=True)
    return np.asarray(np.clip(grey[..., None] * gain, 0, 255), np.uint8)


def _placed_anyhow(picture: Grey8, rng: Generator, strength: FaceChanges, placing: Matrix | None) -> Grey8:
    far = 1.0 if placing is None else strength.about_live
    angle = np.deg2rad(np.clip(rng.normal(0.0, far * strength.turn_deg), -15, 15))
    size = np.exp(np.clip(rng.normal(0.0, far * strength.scale), -0.2, 0.2))
    cos, sin = np.cos(angle) * size, np.sin(angle) * size
    turn = np.array([[cos, -sin], [sin, cos]]) @ np.array(
        [[1.0, rng.normal(0.0, far * strength.shear)], [0.0, 1.0]]
    )
    if rng.random() < strength.mirror:
        turn = turn @ np.diag([-1.0, 1.0])
    shift = rng.normal(0.0, far * strength.shift_px, 2)
    base = _by_the_corpus(len(picture)) if placing is None else placing
    middle = np.full(2, (CROP_SIZE - 1) / 2)
    move = turn @ (base[:, 2] - middle) + middle + shift
    whole = np.column_stack([turn @ base[:, :2], move])
    return _warped(picture, whole, _INTERPOLATIONS[rng.integers(len(_INTERPOLATIONS))])


def _by_the_corpus(side: int) -> Matrix:
    """The whole picture is the crop; pixel centres lie at whole coordinates on both sides."""
    scale = CROP_SIZE / side
    return np.array([[scale, 0.0, (scale - 1) / 2], [0.0, scale, (scale - 1) / 2]])


def _warped(picture: Grey8, matrix: Matrix, interpolation: int) -> Grey8:
    size, border = (CROP_SIZE, CROP_SIZE), cv2.BORDER_REPLICATE
    return np.asarray(cv2.warpAffine(picture, matrix, size, flags=interpolation, borderMode=border), np.uint8)


def _lit(out: Grey, rng: np.random.Generator, strength: FaceChanges) -> Grey:
    """Exposure, contrast, a lamp from one side, too little light."""
    middle = np.float32(out.mean())
    out = (out - middle) * np.float32(np.exp(rng.normal(0.0, strength.contrast))) + middle
    power = np.float32(np.exp(rng.normal(0.0, strength.gamma)))
    out = np.asarray(255 * (np.clip(out, 0, 255) / 255) ** power, np.float32)
    if rng.random() < strength.side_light:
        along = np.linspace(rng.uniform(0.4, 1.0), rng.uniform(0.8, 1.3), CROP_SIZE, dtype=np.float32)
        ramp = along if rng.random() < 0.5 else along[::-1]
        out = out * (ramp[None, :] if rng.random() < 0.7 else ramp[:, None])
    if rng.random() < strength.low_light:
        out = out * np.float32(rng.uniform(0.15, 0.5))
        out += _grain(rng) * np.float32(rng.uniform(1.0, 5.0))
    return np.asarray(out, np.float32)


def _through_a_lens(out: Grey, rng: np.random.Generator, strength: FaceChanges) -> Grey:
    if rng.random() < strength.small:
        side = int(rng.integers(18, 44))
        small = cv2.resize(out, (side, side), interpolation=cv2.INTER_AREA)
        out = np.asarray(
            cv2.resize(small, (CROP_SIZE, CROP_SIZE), interpolation=cv2.INTER_LINEAR), np.float32
        )
    if rng.random() < strength.blur:
        if rng.random() < 0.3:
            length = int(rng.integers(3, 8))
            size = (length, 1) if rng.random() < 0.6 else (1, length)
            return np.asarray(cv2.blur(out, size), np.float32)
        return np.asarray(cv2.GaussianBlur(out, (0, 0), rng.uniform(0.4, 1.6)), np.float32)
    if rng.random() < strength.sharpen:
        soft = cv2.GaussianBlur(out, (0, 0), rng.uniform(0.8, 1.6))
        return np.asarray(out + (out - soft) * np.float32(rng.uniform(0.3, 1.6)), np.float32)
    return out


def _cover(out: Grey, rng: np.random.Generator, strength: FaceChanges) -> None:
    """A hand, a cup, hair: one patch of one grey or of noise, in place."""
    low, high = (share * CROP_SIZE for share in strength.occlusion_side)
    height, width = (int(rng.uniform(low, high)) for _ in range(2))
    top, left = (int(rng.integers(-size // 3, CROP_SIZE - 2 * size // 3)) for size in (height, width))
    rows, columns = slice(max(top, 0), top + height), slice(max(left, 0), left + width)
    patch = out[rows, columns]
    patch[:] = rng.uniform(0, 255)
    if rng.random() < 0.4:
        patch += _grain(rng)[rows, columns] * np.float32(rng.uniform(10, 50))


def _grain(rng: np.random.Generator) -> Grey:
    top, left = rng.integers(0, len(_NOISE) - CROP_SIZE, 2)
    return _NOISE[top : top + CROP_SIZE, left : left + CROP_SIZE]


def _compressed(
    grey: NDArray[np.uint8], rng: np.random.Generator, strength: FaceChanges
) -> NDArray[np.uint8]:
    quality = int(rng.integers(*strength.jpeg_quality))
    written, code = cv2.imencode(".jpg", grey, [cv2.IMWRITE_JPEG_QUALITY, quality])
    if not written:
        return grey
    return np.asarray(cv2.imdecode(code, cv2.IMREAD_GRAYSCALE), np.uint8)


def placings(pictures: Grey8, place: Place, kept: Path) -> Matrix:
    """(n, 2, 3), one matrix a picture, NaN where no face is found; out of the file `kept` if it has them.

    Raises EngineFileError if the file is damaged or tells of other pictures.
    """
    digest = hashlib.sha256(np.ascontiguousarray(pictures).tobytes()).hexdigest()
    if kept.exists():
        return _kept_placings(kept, digest)
    out = np.full((len(pictures), 2, 3), np.nan)
    for at, picture in enumerate(pictures):
        if (found := place(picture)) is not None:
            out[at] = found
    buffer = io.BytesIO()
    np.savez(buffer, matrix=out, pictures=np.array(digest))
    kept.parent.mkdir(parents=True, exist_ok=True)
    write_whole(kept, buffer.getvalue())
    return out


def where_found(matrices: Matrix) -> list[Matrix | None]:
    """The same, None where no face is found."""
    return [one if np.isfinite(one).all() else None for one in matrices]


def _kept_placings(path: Path, digest: str) -> Matrix:
    try:
        with path.open("rb") as opened, np.load(opened) as file:
            matrices, told = file["matrix"], str(file["pictures"])
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as err:
        raise EngineFileError(
            f"the placings {path} are damaged ({err}); remove them to find them anew"
        ) from err
    if told != digest:
        raise EngineFileError(f"the placings {path} are of other pictures; remove them to find them anew")
    return np.asarray(matrices, np.float64)
