"""Where pictures and cues go: one file for each kind of output, all behind one contract.

A sink is called from one thread. `show`, `tell` and `hear` may raise SinkError, which says which output
failed and what to do; the caller then closes that sink and goes on with the others.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from liveaffect.realtime.cue import Cue
from liveaffect.realtime.errors import SinkError
from liveaffect.realtime.frame import AudioBlock, VideoFrame

_LOG = logging.getLogger(__name__)


class OwnScreen:
    """Marks a sink that shows pictures only to whoever started the program."""


class OneSize:
    """Marks a sink whose first picture decides the size of all: none that stands in for a camera's."""


class Sink(Protocol):
    """One output. Times in frames, cues and sound never go back within a run."""

    @property
    def wants_pictures(self) -> bool:
        """False: `show` would do nothing now, so nothing need be drawn for this sink."""
        ...

    @property
    def wants_sound(self) -> bool:
        """False: `hear` would do nothing."""
        ...

    def show(self, picture: NDArray[np.uint8], frame: VideoFrame) -> None:
        """Take a drawn picture and the frame it shows. The picture may be kept; it is never changed."""
        ...

    def tell(self, cues: Sequence[Cue]) -> None:
        """Take the cues of one grid point."""
        ...

    def hear(self, block: AudioBlock) -> None:
        """Take a stretch of sound."""
        ...

    def close(self) -> str | None:
        """Finish and free the output; safe to call twice, and afterwards the others raise SinkError.

        Returns what the user should know, such as that nothing came, so no file was written.
        """
        ...


class Outputs:
    """Hands pictures, cues and sound to every sink. One caller."""

    def __init__(self, sinks: Sequence[Sink], *, notice: bool = False) -> None:
        self._sinks = list(sinks)
        self._notice = notice
        """Pictures that leave the process are to say that emotions are being analysed."""
        self.failures: list[str] = []
        """What sinks failed at, in words for the user; the sink was closed."""
        self.notes: list[str] = []
        """What sinks said at their end, such as that nothing came for them."""

    @property
    def want_pictures(self) -> bool:
        """False: nothing need be drawn."""
        return any(sink.wants_pictures for sink in self._sinks)

    @property
    def disclose(self) -> bool:
        """Whether pictures must carry the mark now: somebody besides the user's own window gets them."""
        return self._notice and any(
            sink.wants_pictures and not isinstance(sink, OwnScreen) for sink in self._sinks
        )

    @property
    def all_failed(self) -> bool:
        """Each of them failed: whatever comes now goes nowhere."""
        return bool(self.failures) and not self._sinks

    @property
    def want_sound(self) -> bool:
        """False: nobody listens."""
        return any(sink.wants_sound for sink in self._sinks)

    def show(self, picture: NDArray[np.uint8], frame: VideoFrame, *, stands_in: bool = False) -> None:
        """A drawn picture to every sink that wants pictures; `stands_in`: for one that is still to come."""
        for sink in [s for s in self._sinks if s.wants_pictures]:
            if stands_in and isinstance(sink, OneSize):
                continue
            try:
                sink.show(picture, frame)
            except SinkError as error:
                self._drop(sink, error)

    def tell(self, cues: Sequence[Cue]) -> None:
        """The cues of one grid point to every sink."""
        for sink in list(self._sinks):
            try:
                sink.tell(cues)
            except SinkError as error:
                self._drop(sink, error)

    def hear(self, block: AudioBlock) -> None:
        """A stretch of sound to every sink that wants it."""
        for sink in [s for s in self._sinks if s.wants_sound]:
            try:
                sink.hear(block)
            except SinkError as error:
                self._drop(sink, error)

    def close(self) -> None:
        """Finish every output; safe to call twice."""
        for sink in list(self._sinks):
            self._sinks.remove(sink)
            try:
                if said := sink.close():
                    self.notes.append(said)
                    _LOG.warning("%s", said)
            except SinkError as error:
                self._note(error)

    def _drop(self, sink: Sink, error: SinkError) -> None:
        self._note(error)
        self._sinks.remove(sink)
        try:
            sink.close()
        except SinkError as second:
            _LOG.debug("closing a failed output failed, too: %s", second)

    def _note(self, error: SinkError) -> None:
        self.failures.append(str(error))
        _LOG.error("%s", error)
