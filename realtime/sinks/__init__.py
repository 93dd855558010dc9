"""Where pictures and cues go: one file for each kind of output, all behind one contract.

A sink is called from one thread. `show`, `tell` and `hear` may raise SinkError, which says which output
failed and what to do; the caller then closes that sink and goes on with the others.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from liveaffect.realtime.cue import Cue
from liveaffect.realtime.frame import AudioBlock, VideoFrame


class OwnScreen:
    """Marks a sink that shows pictures only to whoever started the program."""


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
