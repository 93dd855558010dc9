"""Made-up pictures with faces that cannot be mistaken, and the drawn ones that the repository keeps.

Everything is computed with whole numbers, so a scene is the same on every machine. What a golden scene is
called is the name of its file; `difference` says where two pictures part, so that a failure can be judged
by eye before it is blessed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from liveaffect.engines.recipe import LABELS
from liveaffect.realtime.clock import MS, SECOND
from liveaffect.realtime.cue import NOT_SURE, Cue
from liveaffect.realtime.drawing.canvas import INK, PANEL, Canvas, Health, Mark, View, paste
from liveaffect.realtime.errors import RealtimeError
from liveaffect.realtime.frame import Box, VideoFrame
from liveaffect.realtime.overlay import draw
from liveaffect.realtime.sinks.timeline import PersonOverTime, TimelinePoint, figure_picture, timeline_figure

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


Picture = NDArray[np.uint8]


def _one_face(size: tuple[int, int], box: tuple[int, int, int, int], kind: str = "room") -> View:
    picture = background(*size, kind)
    add_face(picture, box)
    said = cue("surprised", confidence=0.71, speaking=True)
    return View(
        frame=frame(picture),
        marks=(mark(box, said),),
        health=health(),
        voice_level=0.8,
        history=history(),
    )


def _not_sure() -> View:
    view = _one_face((640, 480), (20, 20, 150, 150), "busy")
    said = cue(NOT_SURE, confidence=0.3, reason="face and voice disagree")
    notices = ("no trained network yet", "camera:0 lost; trying again")
    return replace(view, marks=(mark(view.marks[0].box, said),), voice_level=0.0, notices=notices)


def _fading() -> View:
    view = _one_face((640, 480), (-40, 330, 150, 150), "dark")
    return replace(view, marks=(replace(view.marks[0], face_age_ms=400, voice_age_ms=1800),))


def _gone() -> View:
    view = _one_face((320, 240), (90, 60, 110, 110))
    return replace(view, marks=(replace(view.marks[0], face_age_ms=900, voice_age_ms=2600),), history=())


def _empty_room() -> View:
    return View(
        frame=frame(background(640, 480)),
        marks=(),
        health=replace(health(mode="late"), age_ms=None, dropped=12),
        nobody=cue("angry", track=None, confidence=0.66),
        voice_level=0.4,
        notices=("starting",),
    )


def _close_up() -> View:
    view = _one_face((480, 360), (90, 15, 300, 330))
    return replace(view, notices=("microphone 'default' lost; trying again",))


_LETTERS = "".join(map(chr, (*range(33, 127), *range(161, 256))))
_NAMES = ("Büro, Çağrı, Žofie, Łódź", "Βασιλική, Вид из окна", "“…” – — · ± → × °")  # noqa: RUF001  names


def _typeface() -> Picture:
    """The characters of Western Europe and more in the sizes and weights that are used, on one sheet."""
    rows = [_LETTERS[i : i + 48] for i in range(0, len(_LETTERS), 48)]
    canvas = Canvas(700, 390)
    canvas.fill(0, 0, 700, 390, PANEL)
    y = 4
    for cap, bold in ((7, False), (8, False), (8, True), (11, True), (14, False), (22, True)):
        for row in rows if cap < 11 else _NAMES if cap < 20 else _NAMES[:1]:
            y += cap + 7 + cap // 3
            canvas.text((8, y), row, cap, INK, bold=bold)
    picture = np.zeros((390, 700, 3), np.uint8)
    paste(picture, canvas.sprite(), 0, 0)
    return picture


def _run_picture() -> Picture:
    """Twelve seconds of two people, one of whom is away for a while."""
    people = []
    names = (*LABELS, NOT_SURE)
    for track in (1, 2):
        points = []
        for step in range(120):
            if track == 2 and 40 <= step < 65:
                continue
            said = cue(
                names[(step // 12 + 3 * track) % 8], confidence=0.4 + step * 3 % 50 / 100, speaking=step > 60
            )
            points.append(
                TimelinePoint(step * 100 * MS, said.label, said.confidence, said.fused, said.weights)
            )
        people.append(PersonOverTime(f"person {track}", tuple(points)))
    return figure_picture(timeline_figure(people, left_out=2))


GOLDEN: dict[str, Callable[[], Picture]] = {
    "one-face": lambda: draw(crowd(640, 480, 1)),
    "one-face-small": lambda: draw(crowd(320, 240, 1)),
    "four-faces": lambda: draw(crowd(640, 480, 4)),
    "nine-faces-small": lambda: draw(crowd(320, 240, 9)),
    "four-faces-1280": lambda: draw(crowd(1280, 720, 4, "dark")),
    "face-at-the-edge-bright": lambda: draw(_one_face((640, 480), (470, 40, 150, 150), "bright")),
    "mirrored": lambda: draw(replace(_one_face((320, 240), (200, 30, 90, 90)), mirrored=True)),
    "not-sure-busy": lambda: draw(_not_sure()),
    "fading": lambda: draw(_fading()),
    "gone": lambda: draw(_gone()),
    "nobody-in-view": lambda: draw(_empty_room()),
    "close-up": lambda: draw(_close_up()),
    "typeface": _typeface,
    "timeline": _run_picture,
}


def load_golden(path: Path) -> Picture:
    """A kept picture."""
    import cv2

    read = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if read is None:
        raise RealtimeError(f"there is no picture at {path}; make it with: python tests/golden/bless.py")
    return np.ascontiguousarray(np.asarray(read, np.uint8)[..., ::-1])


def save_golden(path: Path, picture: Picture) -> None:
    """Keep a picture, as small as PNG can."""
    import cv2

    best = [cv2.IMWRITE_PNG_COMPRESSION, 9, cv2.IMWRITE_PNG_FILTER, cv2.IMWRITE_PNG_FILTER_NONE]
    if not cv2.imwrite(str(path), picture[..., ::-1], best):
        raise RealtimeError(f"cannot write {path}")


def difference(got: Picture, want: Picture) -> Picture:
    """White where two pictures part; the smaller one counts as black outside."""
    shape = max(got.shape[0], want.shape[0]), max(got.shape[1], want.shape[1]), 3
    both = np.zeros((2, *shape), np.uint8)
    both[0, : got.shape[0], : got.shape[1]] = got
    both[1, : want.shape[0], : want.shape[1]] = want
    parted = (both[0] != both[1]).any(axis=-1, keepdims=True)
    return np.where(parted, 255, both[1] // 4).astype(np.uint8)
