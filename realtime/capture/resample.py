"""Any sound to mono 16 kHz, piece by piece, without moving it in time.

FFmpeg's polyphase resampler through PyAV: sample k of the output lies exactly at k / 16000 s after the
first input sample, whatever the rate; only the last millisecond comes later, with the next piece or `flush`.
"""

from __future__ import annotations

from fractions import Fraction

import av
import numpy as np
from numpy.typing import NDArray

from liveaffect.engines.recipe import SAMPLE_RATE

Samples = NDArray[np.float32]
LOUDEST = 100.0
"""Full scale is 1 and films may pass it a little. A sample beyond this is no sound; resampled it would ring
through all its neighbours, so sources put silence in its place."""


class Resampler:
    """One unbroken stretch of sound. After a gap, flush it and make a new one."""

    def __init__(self) -> None:
        self._convert = av.AudioResampler(format="flt", layout="mono", rate=SAMPLE_RATE)
        self._fed = 0

    def push(self, samples: Samples, rate_hz: int) -> Samples:
        """Mono samples at `rate_hz`, which stays the same; returns what is ready."""
        frame = av.AudioFrame.from_ndarray(
            np.ascontiguousarray(samples[None, :]), format="fltp", layout="mono"
        )
        frame.sample_rate = rate_hz
        return self.push_frame(frame)

    def push_frame(self, frame: av.AudioFrame) -> Samples:
        """A decoded frame of any format and layout. Its own time stamp is not used."""
        frame.pts = self._fed
        frame.time_base = Fraction(1, frame.sample_rate)
        self._fed += frame.samples
        return _join(self._convert.resample(frame))

    def flush(self) -> Samples:
        """The rest; nothing can be pushed afterwards."""
        return _join(self._convert.resample(None)) if self._fed else np.zeros(0, np.float32)


def _join(frames: list[av.AudioFrame]) -> Samples:
    parts = [np.asarray(frame.to_ndarray(), np.float32).reshape(-1) for frame in frames]
    return np.concatenate(parts) if parts else np.zeros(0, np.float32)
