"""What the live path would cut out of a corpus's pictures and films: to learn from, and to judge its cost."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from liveaffect.engines.recipe import CROP_SIZE, EYE_IMAGE_LEFT, EYE_IMAGE_RIGHT, SAMPLE_RATE, crop_matrix
from liveaffect.engines.training.corpora_films import LEFT, RIGHT, WHOLE, FilmTake
from liveaffect.engines.training.cutting import Cut
from liveaffect.realtime import decode
from liveaffect.realtime.blazeface import FaceFinder, Found, make_finder
from liveaffect.realtime.clock import SECOND
from liveaffect.realtime.crop import cut_out
from liveaffect.realtime.face_analyzer import FaceAnalyzer
from liveaffect.realtime.frame import VideoFrame

SIDE_PX, MARGIN_PX = 192, 72
TEMPLATE = np.array([EYE_IMAGE_LEFT, EYE_IMAGE_RIGHT]) * SIDE_PX + MARGIN_PX - 0.5
Picture = NDArray[np.uint8]


def in_a_room(picture: Picture) -> Picture:
    """A grey face 192 pixels wide in a larger RGB picture."""
    large = cv2.resize(picture, (SIDE_PX, SIDE_PX), interpolation=cv2.INTER_CUBIC)
    m = MARGIN_PX
    wide = cv2.copyMakeBorder(large, m, m, m, m, cv2.BORDER_REPLICATE)
    return np.asarray(cv2.cvtColor(wide, cv2.COLOR_GRAY2RGB), np.uint8)


def live_crop(finder: FaceFinder, image: Picture) -> tuple[Picture, float] | None:
    """What the live path would cut out, and how far its eyes lie from the template, in sides of the face."""
    found = _best_place(finder, image)
    if found is None:
        return None
    away = np.hypot(*(np.asarray(found.points[:2]) - TEMPLATE).T).mean() / SIDE_PX
    return cut_out(image, found.points), float(away)


def placed_live() -> Callable[[Picture], NDArray[np.float64] | None]:
    """A function from a grey picture to the (2, 3) matrix of its live crop, None if no face is found in it.

    Raises MissingFile, which names the command that brings the finder.
    """
    _, near = make_finder()

    def place(picture: Picture) -> NDArray[np.float64] | None:
        found = _best_place(near, in_a_room(picture))
        return None if found is None else from_the_corpus(crop_matrix(*found.points[:2]), len(picture))

    return place


def from_the_corpus(matrix: NDArray[np.float64], side: int) -> NDArray[np.float64]:
    """A matrix for the picture in its room as one for the picture of the corpus, `side` pixels wide."""
    scale = SIDE_PX / side
    # Pixel x of the corpus has its middle at scale * (x + 0.5) - 0.5 + margin in the room.
    origin = np.full(2, scale / 2 - 0.5 + MARGIN_PX)
    return np.column_stack([matrix[:, :2] * scale, matrix[:, :2] @ origin + matrix[:, 2]])


def _best_place(finder: FaceFinder, image: Picture) -> Found | None:
    return max(finder.find(image), key=lambda one: one.score, default=None)


WARM_UP_S = 1.0
"""Before an utterance begins the live path has been looking for a while."""


@lru_cache(maxsize=1)
def _finders() -> tuple[FaceFinder, FaceFinder]:
    return make_finder()


def cut_film(takes: Sequence[FilmTake], pictures_hz: float) -> Iterator[tuple[FilmTake, Cut | str]]:
    """The utterances of one film as the live path sees and hears them: tracked, cut out, at 16 kHz.

    They come in the order of their beginnings. What is wrong with one is told instead of it.
    """
    seen = _pictures_of(takes, pictures_hz)
    for take in takes:
        try:
            samples = _samples_of(take)
        except (OSError, ValueError) as err:
            yield take, f"its sound cannot be read: {err}"
            continue
        faces = seen.get(take.name, [])
        crops = np.array([crop for _, crop in faces], np.uint8).reshape(-1, CROP_SIZE, CROP_SIZE, 3)
        yield take, Cut(crops, np.array([at_s for at_s, _ in faces], np.float32), samples)


def _pictures_of(takes: Sequence[FilmTake], hz: float) -> dict[str, list[tuple[float, Picture]]]:
    """The largest face of each utterance at so many pictures a second."""
    film = takes[0].film
    if film is None:
        return {}
    eyes = {
        take.name: (take, FaceAnalyzer(take.name, *_finders()), list[tuple[float, Picture]]())
        for take in takes
    }
    last_s = max(take.end_s or np.inf for take in takes)
    for at_s, image in _film_pictures(takes[0], film):
        if at_s > last_s:
            break
        for take, analyzer, kept in eyes.values():
            if take.begin_s - WARM_UP_S <= at_s <= (take.end_s or np.inf):
                _see(take, analyzer, kept, at_s, image, hz)
    return {name: kept for name, (_, _, kept) in eyes.items()}


def _see(
    take: FilmTake,
    analyzer: FaceAnalyzer,
    kept: list[tuple[float, Picture]],
    at_s: float,
    image: Picture,
    hz: float,
) -> None:
    middle = image.shape[1] // 2
    part = {WHOLE: image, LEFT: image[:, :middle], RIGHT: image[:, middle:]}[take.half]
    frame = VideoFrame(take.name, 0, round(at_s * SECOND), np.ascontiguousarray(part))
    faces = analyzer.step(frame).faces
    since_s = at_s - take.begin_s
    if faces and since_s >= 0 and (not kept or since_s >= kept[-1][0] + 1 / hz - 1e-3):
        largest = max(faces, key=lambda face: face.box[2] * face.box[3])
        kept.append((since_s, np.asarray(largest.crop, np.uint8)))


def _film_pictures(take: FilmTake, film: Path) -> Iterator[tuple[float, Picture]]:
    """Time and RGB picture of a film, or of a folder of pictures by their number."""
    if film.is_dir():
        numbered = {int(path.stem.rpartition("_")[2]): path for path in film.glob(take.picture_name)}
        for number, path in sorted(numbered.items()):
            image = cv2.imread(str(path))
            if image is not None:
                yield number / take.pictures_hz, np.asarray(image[:, :, ::-1], np.uint8)
        return
    found = decode.probe(film)
    if not found.has_video:
        raise ValueError(f"{film} holds no pictures")
    yield from ((at_ns / SECOND, image) for at_ns, image in decode.read_pictures(film, found, Counter()))


def _samples_of(take: FilmTake) -> NDArray[np.float16]:
    """The utterance's sound; silence where the file lost some."""
    path = take.sound or take.film
    assert path is not None
    whole = _whole_sound(path)
    if take.sound is None or not take.sound_is_cut:
        end_s = take.end_s if take.end_s is not None else len(whole) / SAMPLE_RATE
        whole = whole[round(take.begin_s * SAMPLE_RATE) : round(end_s * SAMPLE_RATE)]
    if len(whole) < SAMPLE_RATE // 5:
        raise ValueError(f"{path} has {len(whole) / SAMPLE_RATE:.2f} s of sound for it")
    return whole


@lru_cache(maxsize=1)
def _whole_sound(path: Path) -> NDArray[np.float16]:
    found = decode.probe(path)
    if not found.has_audio:
        raise ValueError(f"{path} holds no sound")
    blocks = [(first, block) for first, _, block in decode.read_sound(path, found, Counter())]
    if not blocks:
        raise ValueError(f"{path} holds no sound that can be decoded")
    samples = np.zeros(blocks[-1][0] + len(blocks[-1][1]), np.float16)
    for first, block in blocks:
        samples[first : first + len(block)] = block
    return samples
