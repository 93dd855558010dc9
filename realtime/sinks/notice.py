"""The mark on every picture that leaves the process: who sees it is told that emotions are being analysed.

The window on the own screen carries none; whoever looks at that has started the program.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from liveaffect.realtime.cue import Cue
from liveaffect.realtime.drawing.canvas import INK, WARN, Canvas, Sprite, paste
from liveaffect.realtime.drawing.text import ascent_px, text_mask
from liveaffect.realtime.frame import AudioBlock, VideoFrame
from liveaffect.realtime.sinks import Sink

WORDS = "emotions are being analysed"
LEAST_CAP_PX = 7


class Noticed:
    """Another sink, shown pictures that carry the mark."""

    def __init__(self, sink: Sink) -> None:
        self.sink = sink
        self._marks: dict[tuple[int, int], Sprite] = {}

    @property
    def wants_pictures(self) -> bool:
        """As the sink does."""
        return self.sink.wants_pictures

    @property
    def wants_sound(self) -> bool:
        """As the sink does."""
        return self.sink.wants_sound

    def show(self, picture: NDArray[np.uint8], frame: VideoFrame) -> None:
        """A copy with the mark."""
        size = picture.shape[1], picture.shape[0]
        if size not in self._marks:
            self._marks = {size: mark_for(*size)}
        self.sink.show(marked(picture, self._marks[size]), frame)

    def tell(self, cues: Sequence[Cue]) -> None:
        """As they are."""
        self.sink.tell(cues)

    def hear(self, block: AudioBlock) -> None:
        """As it is."""
        self.sink.hear(block)

    def close(self) -> str | None:
        """Close the sink."""
        return self.sink.close()


def mark_for(width: int, height: int) -> Sprite:
    """The mark for pictures of this size: legible, and small."""
    cap = max(LEAST_CAP_PX, height // 60)
    mask = text_mask(WORDS, cap)
    pad, dot = cap, round(0.9 * cap)
    canvas = Canvas(mask.shape[1] + dot + 3 * pad, cap + 2 * pad)
    canvas.plate((cap + 2 * pad) // 2)
    middle = pad + cap // 2
    rows, columns = np.mgrid[0:dot, 0:dot] - (dot - 1) / 2
    disc = (np.clip(dot / 2 + 0.5 - np.hypot(rows, columns), 0, 1) * 256).astype(np.uint16)
    canvas.stamp(pad, middle - dot // 2, disc, WARN)
    canvas.stamp(2 * pad + dot, pad + cap - ascent_px(cap), mask, INK)
    return canvas.sprite()


def marked(picture: NDArray[np.uint8], mark: Sprite) -> NDArray[np.uint8]:
    """A copy with the mark in the lower left corner; as much of it as the picture is wide."""
    out = picture.copy()
    gap = max(2, picture.shape[0] // 60)
    paste(out, mark, gap, max(0, picture.shape[0] - gap - mark.light.shape[0]))
    return out
