"""The scenes whose drawn pictures are kept in the repository and compared to the last bit.

What a scene is called is the name of its file. `difference` says where two pictures part, so that a failure
can be judged by eye before it is blessed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from liveaffect.engines.figures import figure_picture
from liveaffect.engines.recipe import LABELS
from liveaffect.realtime.clock import MS
from liveaffect.realtime.cue import NOT_SURE
from liveaffect.realtime.drawing.canvas import INK, PANEL, Canvas, paste
from liveaffect.realtime.drawing.view import View
from liveaffect.realtime.errors import RealtimeError
from liveaffect.realtime.overlay import draw
from liveaffect.realtime.sinks.timeline import PersonOverTime, TimelinePoint, timeline_figure
from liveaffect.realtime.testing import scenes

Picture = NDArray[np.uint8]


def _one_face(size: tuple[int, int], box: tuple[int, int, int, int], kind: str = "room") -> View:
    picture = scenes.background(*size, kind)
    scenes.add_face(picture, box)
    said = scenes.cue("surprised", confidence=0.71, speaking=True)
    return View(
        frame=scenes.frame(picture),
        marks=(scenes.mark(box, said),),
        health=scenes.health(),
        voice_level=0.8,
        history=scenes.history(),
    )


def _not_sure() -> View:
    view = _one_face((640, 480), (20, 20, 150, 150), "busy")
    said = scenes.cue(NOT_SURE, confidence=0.3, reason="face and voice disagree")
    notices = ("no trained network yet", "camera:0 lost; trying again")
    return replace(view, marks=(scenes.mark(view.marks[0].box, said),), voice_level=0.0, notices=notices)


def _fading() -> View:
    view = _one_face((640, 480), (-40, 330, 150, 150), "dark")
    return replace(view, marks=(replace(view.marks[0], face_age_ms=400, voice_age_ms=1800),))


def _gone() -> View:
    view = _one_face((320, 240), (90, 60, 110, 110))
    return replace(view, marks=(replace(view.marks[0], face_age_ms=900, voice_age_ms=2600),), history=())


def _empty_room() -> View:
    return View(
        frame=scenes.frame(scenes.background(640, 480)),
        marks=(),
        health=replace(scenes.health(mode="late"), age_ms=None, dropped=12),
        nobody=scenes.cue("angry", track=None, confidence=0.66),
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
            said = scenes.cue(
                names[(step // 12 + 3 * track) % 8], confidence=0.4 + step * 3 % 50 / 100, speaking=step > 60
            )
            points.append(
                TimelinePoint(step * 100 * MS, said.label, said.confidence, said.fused, said.weights)
            )
        people.append(PersonOverTime(f"person {track}", tuple(points)))
    return figure_picture(timeline_figure(people, left_out=2))


GOLDEN: dict[str, Callable[[], Picture]] = {
    "one-face": lambda: draw(scenes.crowd(640, 480, 1)),
    "one-face-small": lambda: draw(scenes.crowd(320, 240, 1)),
    "four-faces": lambda: draw(scenes.crowd(640, 480, 4)),
    "nine-faces-small": lambda: draw(scenes.crowd(320, 240, 9)),
    "four-faces-1280": lambda: draw(scenes.crowd(1280, 720, 4, "dark")),
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
