"""What makes one stream out of several openings, and tells a dark sensor from a working one.

Pure bookkeeping for the supervisor, without thread or clock. Picture numbers simply go on; sound numbers
go on by as much as time has passed, because the place of a sample is its time.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from engines.recipe import SAMPLE_RATE
from realtime.clock import SECOND
from realtime.frame import AudioBlock, VideoFrame

_SPARSE = 16
"""Every so many pixels are looked at to see whether a picture is black."""


class Numbering:
    """Makes one stream out of several openings: numbers go on, time never falls."""

    def __init__(self) -> None:
        self._next_seq = self._next_sample = 0
        self._seq_offset = self._sample_offset = 0
        self._video_ns = self._sound_end_ns = 0
        self._fresh_sound = False
        self.missed_samples = 0

    def reopened(self) -> None:
        """What comes next counts from 0 again."""
        self._seq_offset = self._next_seq
        self._fresh_sound = self._next_sample > 0

    def renumber(self, item: VideoFrame | AudioBlock) -> VideoFrame | AudioBlock:
        """The item with its number in the published stream."""
        if isinstance(item, VideoFrame):
            seq = item.seq + self._seq_offset
            self._next_seq = seq + 1
            self._video_ns = max(self._video_ns, item.captured_ns)
            return replace(item, seq=seq, captured_ns=self._video_ns)
        if self._fresh_sound:
            self._fresh_sound = False
            away_ns = max(0, item.captured_ns - self._sound_end_ns)
            gap = away_ns * SAMPLE_RATE // SECOND
            self.missed_samples += gap
            self._sample_offset = self._next_sample + gap - item.first
        first = item.first + self._sample_offset
        self._next_sample = first + len(item.samples)
        self._sound_end_ns = item.captured_ns + len(item.samples) * SECOND // SAMPLE_RATE
        return replace(item, first=first)


class Blackness:
    """Since when a source has delivered nothing but zeros, which a working sensor never does."""

    def __init__(self) -> None:
        self.since_ns: int | None = None
        self.is_video = False

    def note(self, item: VideoFrame | AudioBlock, now_ns: int) -> None:
        """Take in what came."""
        self.is_video = isinstance(item, VideoFrame)
        values = item.image[::_SPARSE, ::_SPARSE] if isinstance(item, VideoFrame) else item.samples
        if np.any(values):
            self.since_ns = None
        elif self.since_ns is None:
            self.since_ns = now_ns
