"""An output of your own: keep the picture on which somebody was surest of all to be happy.

    python own_sink.py FILM OUT.png

An output is any object with these two attributes and four methods. Outputs are shown every drawn picture,
told every cue, and closed at the end; `analyze` and `watch` take any number of them.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

import liveaffect
from liveaffect.realtime.frame import AudioBlock, VideoFrame

HAPPY = liveaffect.LABELS.index("happy")


class Happiest:
    """Remembers one picture and writes it when it is closed."""

    wants_pictures = True
    wants_sound = False

    def __init__(self, path: str) -> None:
        self.share = 0.0
        self._path = path
        self._now = 0.0
        self._picture: NDArray[np.uint8] | None = None

    def tell(self, cues: Sequence[liveaffect.Cue]) -> None:
        """The cues of one grid point come before the picture that shows them."""
        self._now = max((cue.fused[HAPPY] for cue in cues), default=0.0)

    def show(self, picture: NDArray[np.uint8], frame: VideoFrame) -> None:
        """Drawn pictures may be kept; nobody changes them any more."""
        if self._now > self.share:
            self.share, self._picture = self._now, picture

    def hear(self, block: AudioBlock) -> None:
        """Not wanted, so never called."""

    def close(self) -> None:
        """Write what was kept. A failure is raised as SinkError, and the other outputs go on."""
        if self._picture is None:
            return
        if not cv2.imwrite(self._path, cv2.cvtColor(self._picture, cv2.COLOR_RGB2BGR)):
            raise liveaffect.SinkError(f"{self._path} cannot be written")
        self._picture = None


def main(film: str, out: str) -> None:
    """Analyse the film and say how happy its happiest moment was."""
    happiest = Happiest(out)
    with liveaffect.analyze(film, sinks=[happiest]) as cues:
        for _ in cues:
            pass
    print(f"at most {happiest.share:.0%} happy")


if __name__ == "__main__":
    main(*sys.argv[1:])
