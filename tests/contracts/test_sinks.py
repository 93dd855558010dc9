"""Every output passes the contract of outputs, and the contract catches those that do not."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from liveaffect.realtime.cue import Cue
from liveaffect.realtime.errors import SinkError
from liveaffect.realtime.frame import AudioBlock, VideoFrame
from liveaffect.realtime.sinks import Sink
from liveaffect.realtime.sinks.catalogue import open_sink
from liveaffect.realtime.sinks.window import WindowSink, display_is_there
from liveaffect.realtime.testing.contracts import check_sink


@pytest.mark.parametrize(
    "ending", ["cues.jsonl", "table.csv", "out.mp4", "out.mkv", "run.sheet.png", "run.png"]
)
def test_every_kind_of_file_keeps_the_contract(tmp_path: Path, ending: str) -> None:
    numbers = itertools.count()
    check_sink(lambda: open_sink(str(tmp_path / f"{next(numbers)}-{ending}")))
    assert not list(tmp_path.glob(".*")), "a temporary file was left behind"


def test_standard_output_keeps_the_contract(capfd: pytest.CaptureFixture[str]) -> None:
    check_sink(lambda: open_sink("-"))
    assert capfd.readouterr().out.count("\n") == 6


def test_the_window_keeps_the_contract() -> None:
    if not display_is_there():
        pytest.skip("needs a display; the test of the window brings its own")
    check_sink(WindowSink)


class Sloppy:
    """A sink that keeps everything to itself and breaks nothing."""

    wants_pictures = True
    wants_sound = True

    def __init__(self) -> None:
        self.closed = False

    def show(self, picture: NDArray[np.uint8], frame: VideoFrame) -> None:
        self._check()

    def tell(self, cues: Sequence[Cue]) -> None:
        self._check()

    def hear(self, block: AudioBlock) -> None:
        self._check()

    def close(self) -> None:
        self.closed = True

    def _check(self) -> None:
        if self.closed:
            raise SinkError("closed")


class Scribbles(Sloppy):
    def show(self, picture: NDArray[np.uint8], frame: VideoFrame) -> None:
        self._check()
        picture[0, 0] = 255


class ClosesOnce(Sloppy):
    def close(self) -> None:
        self._check()
        self.closed = True


class Forgets(Sloppy):
    def _check(self) -> None:
        """Says nothing."""


class Silent(Sloppy):
    def _check(self) -> None:
        if self.closed:
            raise SinkError


def test_a_sink_that_does_as_it_should_passes() -> None:
    check_sink(Sloppy)


@pytest.mark.parametrize("kind", [Scribbles, ClosesOnce, Forgets, Silent])
def test_a_sink_that_breaks_a_promise_is_caught(kind: type[Sloppy]) -> None:
    def make() -> Sink:
        return kind()

    with pytest.raises((AssertionError, SinkError)):
        check_sink(make)
