"""What makes one stream out of several openings, and tells a dark sensor from a working one.

Pure bookkeeping for the supervisor, without thread or clock. Picture numbers simply go on; sound numbers
go on by as much as time has passed, because the place of a sample is its time.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from engines.recipe import SAMPLE_RATE
from realtime.clock import MS, SECOND
from realtime.frame import AudioBlock, VideoFrame

_SPARSE = 16
"""Every so many pixels are looked at to see whether a picture is black."""
_EARLY_NS, _LATE_NS = 20 * MS, 40 * MS
"""How far before and behind its place, as the sample count has it, a block of sound may be stamped."""
_LOST_NS = SECOND
"""A stamp this far behind its place means that sound was lost."""


class Numbering:
    """Makes one stream out of several openings: numbers rise, time never falls, losses are counted."""

    def __init__(self) -> None:
        self._next_seq = self._next_sample = 0
        self._seq_offset = self._sample_offset = 0
        self._video_ns = self._sound_ns = self._sound_end_ns = 0
        self._fresh_sound = False
        self._begun = False
        self.missed_samples = 0
        """Samples that passed while the source was away."""
        self._jumped = 0
        self._again = {VideoFrame: 0, AudioBlock: 0}
        self._gaps = {VideoFrame: 0, AudioBlock: 0}

    def reopened(self) -> None:
        """What comes next counts from 0 again."""
        self._seq_offset = self._next_seq
        self._fresh_sound = self._next_sample > 0

    def renumber(self, item: VideoFrame | AudioBlock) -> VideoFrame | AudioBlock | None:
        """The item with its number in the published stream; None if that number was there before."""
        return self._picture(item) if isinstance(item, VideoFrame) else self._block(item)

    def losses(self, *, gaps: bool) -> dict[str, int]:
        """Pictures and samples that are missing, by cause; `gaps` unless the source counts those itself."""
        found = {
            "samples while it was away": self.missed_samples,
            "samples that its clock passed over": self._jumped,
            "pictures that came again": self._again[VideoFrame],
            "samples that came again": self._again[AudioBlock],
        }
        if gaps:
            found["pictures missing in its numbers"] = self._gaps[VideoFrame]
            found["samples missing in its numbers"] = self._gaps[AudioBlock]
        return {cause: count for cause, count in found.items() if count}

    def _picture(self, frame: VideoFrame) -> VideoFrame | None:
        seq = frame.seq + self._seq_offset
        if seq < self._next_seq:
            self._again[VideoFrame] += 1
            return None
        self._gaps[VideoFrame] += seq - self._next_seq
        self._next_seq = seq + 1
        self._video_ns = max(self._video_ns, frame.captured_ns)
        return replace(frame, seq=seq, captured_ns=self._video_ns)

    def _block(self, block: AudioBlock) -> AudioBlock | None:
        captured_ns = block.captured_ns
        if self._fresh_sound:
            self._fresh_sound = False
            away_ns = max(0, captured_ns - self._sound_end_ns)
            gap = away_ns * SAMPLE_RATE // SECOND
            self.missed_samples += gap
            self._sample_offset = self._next_sample + gap - block.first
            self._next_sample += gap
            self._sound_end_ns += gap * SECOND // SAMPLE_RATE
        first = block.first + self._sample_offset
        if self._begun:
            if first < self._next_sample:
                self._again[AudioBlock] += len(block.samples)
                return None
            gap = first - self._next_sample
            self._gaps[AudioBlock] += gap
            place_ns = self._sound_end_ns + gap * SECOND // SAMPLE_RATE
            if captured_ns > place_ns + _LOST_NS:
                jump = (captured_ns - place_ns) * SAMPLE_RATE // SECOND
                self._jumped += jump
                self._sample_offset += jump
                first += jump
            else:
                # The place of sound is its time: a stamp that strays from it is followed in small steps.
                captured_ns = min(max(captured_ns, place_ns - _EARLY_NS), place_ns + _LATE_NS)
            captured_ns = max(captured_ns, self._sound_ns)
        self._begun = True
        self._sound_ns = captured_ns
        self._next_sample = first + len(block.samples)
        self._sound_end_ns = captured_ns + len(block.samples) * SECOND // SAMPLE_RATE
        return replace(block, first=first, captured_ns=captured_ns)


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
