"""What does handing a picture or a block of sound from its device to a reader cost?

    python benchmarks/bench_ring.py [--write]

One JSON line a case. The question is whether the hand-over stays far below one picture period (33.3 ms at
30 pictures a second), so that a capture thread is never held up by its readers. The monitored case says
what the watching in tests costs.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
from harness import measure

from liveaffect.engines.recipe import PIECE, SAMPLE_RATE
from liveaffect.realtime.clock import SECOND
from liveaffect.realtime.frame import AudioBlock, VideoFrame
from liveaffect.realtime.ring import AudioRing, Ring
from liveaffect.realtime.testing.virtual_time import monitored_ring

IMAGE = np.zeros((720, 1280, 3), np.uint8)
BLOCK = np.zeros(320, np.float32)
BUDGET_MS = 0.1


def push_only(ring: Ring[VideoFrame]) -> Callable[[], None]:
    """The writer alone."""
    numbers = itertools.count()

    def call() -> None:
        number = next(numbers)
        ring.push(VideoFrame("camera:0", number, number, IMAGE))

    return call


def push_and_read(ring: Ring[VideoFrame]) -> Callable[[], None]:
    """The writer, and a reader that keeps up."""
    push = push_only(ring)
    cursor = 0

    def call() -> None:
        nonlocal cursor
        push()
        cursor = ring.read_since(cursor).cursor

    return call


def sound_push_and_read() -> Callable[[], None]:
    """20 ms of sound in, the newest piece out."""
    ring = AudioRing(10 * SAMPLE_RATE)
    numbers = itertools.count(0, len(BLOCK))

    def call() -> None:
        first = next(numbers)
        ring.push(AudioBlock("mic:0", first, first * SECOND // SAMPLE_RATE, BLOCK))
        ring.read(ring.end - PIECE, PIECE)

    return call


if __name__ == "__main__":
    for name, made in {
        "ring/push/720p": push_only(Ring(8)),
        "ring/push+read/720p": push_and_read(Ring(8)),
        "ring/push+read/720p/monitored": push_and_read(monitored_ring("camera:0", 8)),
        "audio_ring/push+read piece": sound_push_and_read(),
    }.items():
        measure(name, made, budget_ms=BUDGET_MS).print_json()
