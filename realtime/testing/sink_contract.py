"""What every output keeps to, whatever it writes: one suite that all of them are run through.

`check_sink` asserts; it is given a way to make the sink, so that each property starts from a fresh one.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from liveaffect.engines.recipe import SAMPLE_RATE
from liveaffect.realtime.clock import MS
from liveaffect.realtime.errors import SinkError
from liveaffect.realtime.frame import AudioBlock
from liveaffect.realtime.sinks import Sink
from liveaffect.realtime.testing.scenes import background, cue, frame

_STEP_NS = 40 * MS


def check_sink(make: Callable[[], Sink]) -> None:
    """Run the whole contract; `make` must be able to make any number of sinks, one after the other."""
    _says_what_it_wants(make())
    _takes_a_run(make())
    _changes_nothing_it_is_given(make())
    _takes_whatever_a_camera_may_change_to(make())
    _closes_twice_also_when_nothing_came(make())
    _refuses_what_comes_after_the_end(make())


def _says_what_it_wants(sink: Sink) -> None:
    assert isinstance(sink.wants_pictures, bool)
    assert isinstance(sink.wants_sound, bool)
    sink.close()


def _takes_a_run(sink: Sink) -> None:
    """Pictures, sound and cues in the order in which a run brings them, some grid points without cues."""
    for step in range(6):
        t_ns = step * _STEP_NS
        picture = background(64, 48)
        sink.show(picture, frame(picture.copy(), step, captured_ns=t_ns))
        sink.hear(_sound(step))
        sink.tell([cue("happy", t_ns=t_ns), cue("sad", track=None, t_ns=t_ns)] if step % 2 else [])
    sink.close()


def _changes_nothing_it_is_given(sink: Sink) -> None:
    picture, block = background(64, 48), _sound(0)
    before, sound = picture.copy(), block.samples.copy()
    sink.show(picture, frame(picture.copy()))
    sink.hear(block)
    sink.close()
    assert np.array_equal(picture, before), "the sink wrote into the picture that others draw, too"
    assert np.array_equal(block.samples, sound), "the sink wrote into the sound that others hear, too"


def _takes_whatever_a_camera_may_change_to(sink: Sink) -> None:
    """Another size, an odd size, another source, and two pictures of one moment."""
    shown = [("camera:0", 64, 48), ("camera:0", 80, 60), ("camera:1", 33, 31), ("camera:0", 64, 48)]
    for seq, (source, width, height) in enumerate(shown):
        picture = background(width, height)
        sink.show(picture, frame(picture.copy(), seq, captured_ns=min(seq, 2) * _STEP_NS, source=source))
    sink.close()


def _closes_twice_also_when_nothing_came(sink: Sink) -> None:
    sink.close()
    sink.close()


def _refuses_what_comes_after_the_end(sink: Sink) -> None:
    """It says so instead of losing it silently; what a sink never wanted it may go on ignoring."""
    sink.close()
    picture = background(64, 48)
    if sink.wants_pictures:
        _must_refuse(lambda: sink.show(picture, frame(picture)))
    if sink.wants_sound:
        _must_refuse(lambda: sink.hear(_sound(0)))
    if not sink.wants_pictures and not sink.wants_sound:
        _must_refuse(lambda: sink.tell([cue("happy")]))


def _must_refuse(call: Callable[[], None]) -> None:
    try:
        call()
    except SinkError as error:
        said = str(error)
    else:
        raise AssertionError("what came after close() was lost without a word")
    assert said, "a refusal without a word helps nobody"


def _sound(step: int) -> AudioBlock:
    count = SAMPLE_RATE * _STEP_NS // 1_000_000_000
    samples = np.full(count, 0.1, np.float32)
    return AudioBlock("default", step * count, step * _STEP_NS, samples)
