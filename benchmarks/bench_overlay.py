"""What does drawing the overlay on one picture cost?

    uv run python benchmarks/bench_overlay.py [--write]

As in live use: the box moves with every picture, ages and the health line change with every picture, a new
cue comes with every third, the timeline grows by one entry with it. No two pictures in a row are alike and
the sequence is longer than anything the overlay remembers, so nothing is measured that only a test repeats.
The budget is 0.6 ms of processor time at 640x480 with one face; copying the picture alone is shown beside it.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
from harness import measure

from liveaffect.engines.recipe import LABELS
from liveaffect.realtime.clock import MS
from liveaffect.realtime.cue import Cue
from liveaffect.realtime.overlay import View, draw, lay_out, paint
from liveaffect.realtime.testing import scenes

PICTURES = 1_800
"""A minute; 600 cues a face, four times as many as are remembered."""
CASES = (
    ("640x480/1", (640, 480), 1, 0.6),
    ("640x480/4", (640, 480), 4, None),
    ("640x480/9", (640, 480), 9, None),
    ("1280x720/1", (1280, 720), 1, None),
    ("1920x1080/1", (1920, 1080), 1, None),
    ("3840x2160/1", (3840, 2160), 1, None),
)


def live_views(width: int, height: int, faces: int) -> list[View]:
    """A minute of views over one picture."""
    rng = np.random.default_rng(7)
    start = scenes.crowd(width, height, faces)
    said: list[Cue] = []
    past: list[tuple[int, str, float]] = list(scenes.history())
    out = []
    for number in range(PICTURES):
        if number % 3 == 0:
            said = [next_cue(rng, mark.track, number) for mark in start.marks]
            past = [*past[-99:], (past[-1][0] + 100 * MS, said[0].label, said[0].confidence)]
        shift = round(12 * np.sin(number / 9))
        marks = tuple(
            replace(
                mark,
                box=(mark.box[0] + shift, mark.box[1], *mark.box[2:]),
                cue=cue,
                face_age_ms=30 + number % 3 * 33 + int(rng.integers(0, 9)),
                voice_age_ms=200 + number % 6 * 33 if cue.speaking else None,
            )
            for mark, cue in zip(start.marks, said, strict=True)
        )
        health = replace(start.health, fps=29.5 + rng.random(), age_ms=40 + 9 * rng.random())
        level = float(rng.random())
        out.append(replace(start, marks=marks, health=health, voice_level=level, history=tuple(past)))
    return out


def next_cue(rng: np.random.Generator, track: int, number: int) -> Cue:
    """A cue with scores of its own."""
    scores = tuple(float(share) for share in rng.dirichlet(np.ones(len(LABELS))))
    label = LABELS[int(np.argmax(scores))]
    made = scenes.cue(label, confidence=max(scores), track=track, t_ns=number * 33 * MS, speaking=track == 1)
    return replace(made, fused=scores)


def main() -> None:
    """Every case as one JSON line."""
    for name, size, faces, budget_ms in CASES:
        views = live_views(*size, faces)
        turn: Iterator[View] = itertools.cycle(views)
        measure(f"overlay/draw/{name}", lambda turn=turn: draw(next(turn)), budget_ms=budget_ms).print_json()  # type: ignore[misc]
        if faces == 1:
            image = views[0].frame.image
            measure(f"overlay/copy_alone/{name}", image.copy).print_json()
    steady = scenes.crowd(640, 480, 1)
    layout = lay_out(steady)
    measure("overlay/nothing_new/640x480/1", lambda: draw(steady)).print_json()
    measure("overlay/paint_alone/640x480/1", lambda: paint(steady, layout)).print_json()
    mirrored = replace(steady, mirrored=True)
    measure("overlay/nothing_new_mirrored/640x480/1", lambda: draw(mirrored)).print_json()


if __name__ == "__main__":
    main()
