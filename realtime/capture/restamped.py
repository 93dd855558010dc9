"""A source whose sound is stamped as if its microphone agreed with the camera.

The one place where a measured offset between sound and picture takes effect: behind it, attribution, the
ages of readings and recorded files all see one time. Only stamps move; nothing is held back or cut.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from realtime.frame import AudioBlock, VideoFrame
from realtime.run.supervisor import CountsLosses, Source


class Restamped:
    """Another source, its sound stamped `later_ns` earlier: by so much it came too late."""

    def __init__(self, source: Source, later_ns: int) -> None:
        self._source = source
        self._later_ns = later_ns

    @property
    def name(self) -> str:
        """The name of the source."""
        return self._source.name

    @property
    def losses(self) -> Mapping[str, int]:
        """What the source left out, by cause."""
        return self._source.losses if isinstance(self._source, CountsLosses) else {}

    def open(self) -> None:
        """Open the source."""
        self._source.open()

    def read(self, timeout_s: float) -> VideoFrame | AudioBlock | None:
        """The next item; pictures as they are."""
        item = self._source.read(timeout_s)
        if not isinstance(item, AudioBlock):
            return item
        return replace(item, captured_ns=item.captured_ns - self._later_ns)

    def close(self) -> None:
        """Close the source. Safe to call twice."""
        self._source.close()
