"""Made-up pictures with faces that cannot be mistaken, and what the overlay is told about them.

Used by the golden pictures, by the benchmark of the overlay and by the tests of the sinks. Everything is
computed with whole numbers, so a scene is the same on every machine.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from liveaffect.engines.recipe import LABELS
from liveaffect.realtime.clock import MS, SECOND
from liveaffect.realtime.cue import NOT_SURE, Cue
from liveaffect.realtime.drawing.view import Health, Mark, View
from liveaffect.realtime.frame import Box, VideoFrame

SKINS = ((236, 188, 152), (172, 120, 84), (110, 74, 52), (216, 160, 120))


def background(width: int, height: int, kind: str = "room") -> NDArray[np.uint8]:
    """A picture without people: 'room' (a wall in soft steps), 'dark', 'bright', or 'busy' (all colours)."""
    xs, ys = np.arange(width)[None, :], np.arange(height)[:, None]
    if kind in ("dark", "bright"):
        return np.full((height, width, 3), 6 if kind == "dark" else 252, np.uint8)
    if kind == "busy":
        rows = [
            ((xs // (width // 40 + 1) * step + ys // (height // 30 + 1) * 67) % 256) for step in (37, 91, 149)
        ]
        return np.stack(rows, axis=-1).astype(np.uint8)
    wall = 150 - 10 * (7 * ys // height) + 6 * (5 * xs // width)
    return np.stack([wall, wall + 8, wall + 20], axis=-1).astype(np.uint8)


def add_face(picture: NDArray[np.uint8], box: Box, skin: tuple[int, int, int] = SKINS[0]) -> None:
    """Paint a head that fills the box, with two eyes and a mouth, in place."""
    x, y, w, h = (round(v) for v in box)
    _disc(picture, (x + w // 2, y + h // 2), (w // 2, h // 2), skin)
    for share in (315, 690):
        _disc(picture, (x + w * share // 1000, y + h * 39 // 100), (w // 16 + 1, h // 16 + 1), (20, 20, 24))
    _disc(picture, (x + w // 2, y + h * 79 // 100), (w // 7 + 1, h // 20 + 1), (150, 40, 48))


def _disc(
    picture: NDArray[np.uint8], middle: tuple[int, int], radii: tuple[int, int], colour: tuple[int, int, int]
) -> None:
    (cx, cy), (rx, ry) = middle, radii
    top, left = max(0, cy - ry), max(0, cx - rx)
    part = picture[top : max(0, cy + ry + 1), left : max(0, cx + rx + 1)]
    xs = np.arange(left, left + part.shape[1])[None, :] - cx
    ys = np.arange(top, top + part.shape[0])[:, None] - cy
    inside = xs * xs * (ry * ry) + ys * ys * (rx * rx) <= (rx * ry) * (rx * ry)
    part[inside] = colour


def cue(
    label: str,
    *,
    confidence: float = 0.8,
    track: int | None = 1,
    t_ns: int = 0,
    speaking: bool = False,
    reason: str | None = None,
) -> Cue:
    """A complete cue whose scores lean to `label`; 'not sure' leans to nothing."""
    rest = (1 - confidence) / (len(LABELS) - 1)
    scores = tuple(confidence if name == label else rest for name in LABELS)
    if label == NOT_SURE:
        scores = (0.3, 0.1, 0.25, 0.1, 0.1, 0.05, 0.1)
    voice = speaking or track is None
    weights = (0.0, 1.0, 0.0) if track is None else (0.7, 0.3, 0.0) if voice else (1.0, 0.0, 0.0)
    return Cue(
        t_ns=t_ns,
        source="camera:0",
        frame=(640, 480),
        track=track,
        box=None if track is None else (200, 100, 128, 128),
        speaking=speaking,
        face=None if track is None else scores,
        voice=scores if voice else None,
        words=None,
        raw=scores,
        fused=scores,
        weights=weights,
        label=label,
        confidence=confidence,
        reason=reason,
        age_ms=(None if track is None else 21, 240 if voice else None),
        skipped=0,
        model="scripted",
    )


def mark(
    box: Box, said: Cue | None, *, face_age_ms: int | None = 33, voice_age_ms: int | None = None
) -> Mark:
    """A face at a place that shows a cue."""
    track = 0 if said is None or said.track is None else said.track
    if said is not None and said.speaking and voice_age_ms is None:
        voice_age_ms = 240
    return Mark(track, box, said, face_age_ms if said is not None else None, voice_age_ms)


def history(
    labels: Sequence[str] = ("neutral", "happy", NOT_SURE, "surprised"),
) -> tuple[tuple[int, str, float], ...]:
    """Ten seconds of a person's emotions, with a hole of half a second."""
    out = []
    for step in range(100):
        if 40 <= step < 45:
            continue
        out.append((step * 100 * MS, labels[step * len(labels) // 100], 0.35 + (step * 7 % 60) / 100))
    return tuple(out)


def health(*, mode: str = "locked") -> Health:
    """A path that does well."""
    return Health(fps=29.97, age_ms=42.0, dropped=0, skipped=3, engine="onnx-int8", mode=mode)


def frame(
    picture: NDArray[np.uint8], seq: int = 0, *, captured_ns: int | None = None, source: str = "camera:0"
) -> VideoFrame:
    """A picture as a frame of a camera with 30 pictures a second."""
    stamp = seq * SECOND // 30 if captured_ns is None else captured_ns
    return VideoFrame(source=source, seq=seq, captured_ns=stamp, image=picture)


def boxes_in_rows(width: int, height: int, count: int) -> list[Box]:
    """Square boxes spread over the picture, `count` of them."""
    columns = next(n for n in range(1, 20) if n * n >= count)
    rows = -(-count // columns)
    side = min(width // columns, height // rows) * (45 if count == 1 else 42) // 100
    return [
        (
            width * (2 * (i % columns) + 1) // (2 * columns) - side // 2,
            height * (2 * (i // columns) + 1) // (2 * rows) - side // 2,
            side,
            side,
        )
        for i in range(count)
    ]


def crowd(width: int, height: int, count: int, kind: str = "room") -> View:
    """A picture with `count` faces; the second one speaks, where there is one, else the first."""
    picture = background(width, height, kind)
    marks = []
    for index, box in enumerate(boxes_in_rows(width, height, count)):
        add_face(picture, box, SKINS[index % len(SKINS)])
        said = cue(
            LABELS[(index + 1) % len(LABELS)],
            confidence=0.9 - 0.06 * index,
            track=index + 1,
            speaking=index == min(1, count - 1),
        )
        marks.append(mark(box, said))
    return View(frame=frame(picture), marks=tuple(marks), health=health(), voice_level=0.6, history=history())
