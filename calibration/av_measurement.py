"""`liveaffect calibrate av`: how far sound lies behind the picture, kept for the two devices.

Only numbers are kept while it listens: how far the mouth opened, how much of the picture changed, how loud
it was. Sound is held for as long as the measurement lasts, because claps are sharper than any envelope.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from liveaffect.calibration.av_offset import Offset, OffsetRefused, by_claps, by_mouth, clap_onsets, contacts
from liveaffect.engines.recipe import SAMPLE_RATE
from liveaffect.realtime.clock import MS, SECOND
from liveaffect.realtime.device_pairs import load_pairs
from liveaffect.realtime.errors import CalibrationRefused, EndOfStream
from liveaffect.realtime.face_analyzer import FaceAnalyzer
from liveaffect.realtime.frame import AudioBlock, VideoFrame
from liveaffect.realtime.signs import SpeechEnergy, mouth_motion
from liveaffect.realtime.wiring import Finders

SECONDS = 20.0
"""How long devices are listened to, if nobody says otherwise."""
_SMALL = 160
"""Width at which pictures are compared; hands are large."""
_GRAIN = 10
"""A pixel that changed by less is the noise of the camera."""
_LOST_NS = 250 * MS
"""Two pictures further apart than this are not compared."""

Say = Callable[[str], None]


class MediaReader(Protocol):
    """A file, or devices that are recorded for a while."""

    def read(self, timeout_s: float) -> VideoFrame | AudioBlock | None:
        """The next item, None if nothing came in time; EndOfStream at the end."""
        ...


@dataclass(slots=True, eq=False)
class Traces:
    """What sight and sound leave behind for the comparison."""

    begin_ns: list[int] = field(default_factory=list)
    end_ns: list[int] = field(default_factory=list)
    opening_px: list[float] = field(default_factory=list)
    seen_ns: list[int] = field(default_factory=list)
    changed: list[float] = field(default_factory=list)
    heard_ns: list[int] = field(default_factory=list)
    nats: list[float] = field(default_factory=list)
    sounds: list[AudioBlock] = field(default_factory=list)

    def sound(self) -> tuple[int, NDArray[np.float32]]:
        """When the sound begins, and all of it; what the device lost is the value before."""
        first, last = self.sounds[0], self.sounds[-1]
        # The newest stamp counts: the first ones of a stream are the least certain.
        begin_ns = last.captured_ns - (last.first - first.first) * SECOND // SAMPLE_RATE
        out = np.zeros(last.end - first.first, np.float32)
        for block in self.sounds:
            out[block.first - first.first : block.end - first.first] = block.samples
        return begin_ns, out


class Watching:
    """Takes items and leaves traces. One caller."""

    def __init__(self, finders: Finders | None) -> None:
        """Without finders only claps can be seen."""
        self.traces = Traces()
        self._finders = finders
        self._sight: FaceAnalyzer | None = None
        self._energy = SpeechEnergy()
        self._faces: dict[int, tuple[int, NDArray[np.uint8]]] = {}
        self._small: NDArray[np.uint8] | None = None

    def all_of(self, reader: MediaReader) -> Traces:
        """Everything until the end."""
        while True:
            try:
                item = reader.read(1.0)
            except EndOfStream:
                return self.traces
            if isinstance(item, VideoFrame):
                self._see(item)
            elif item is not None:
                self._hear(item)

    def _see(self, frame: VideoFrame) -> None:
        traces = self.traces
        height = round(_SMALL * frame.image.shape[0] / frame.image.shape[1])
        grey = cv2.cvtColor(frame.image, cv2.COLOR_RGB2GRAY)
        small = np.asarray(cv2.resize(grey, (_SMALL, height), interpolation=cv2.INTER_AREA), np.uint8)
        if self._small is not None and self._small.shape == small.shape:
            change = cv2.absdiff(small, self._small)
            traces.changed.append(float(change[change > _GRAIN].sum()) / change.size)
            traces.seen_ns.append(frame.captured_ns)
        elif not traces.seen_ns:
            traces.seen_ns.append(frame.captured_ns)
        self._small = small
        if self._finders is not None:
            self._follow(frame, self._finders)

    def _follow(self, frame: VideoFrame, finders: Finders) -> None:
        self._sight = self._sight or FaceAnalyzer(frame.source, *finders)
        for face in self._sight.step(frame).faces:
            before_ns, crop = self._faces.get(face.track, (0, None))
            if crop is not None and 0 < frame.captured_ns - before_ns <= _LOST_NS:
                self.traces.begin_ns.append(before_ns)
                self.traces.end_ns.append(frame.captured_ns)
                self.traces.opening_px.append(mouth_motion(crop, face.crop))
            self._faces[face.track] = frame.captured_ns, face.crop

    def _hear(self, block: AudioBlock) -> None:
        self.traces.sounds.append(block)
        for at_ns, nats in self._energy.add(block.captured_ns, block.samples):
            self.traces.heard_ns.append(at_ns)
            self.traces.nats.append(nats)


def measure_offset(reader: MediaReader, finders: Finders | None, *, clap: bool) -> Offset:
    """The offset of what the reader delivers. Raises CalibrationRefused with what was missing."""
    traces = Watching(None if clap else finders).all_of(reader)
    if not traces.seen_ns:
        raise CalibrationRefused("there were no pictures: the offset is between sound and picture")
    if not traces.sounds:
        raise CalibrationRefused("there was no sound: the offset is between sound and picture")
    try:
        return _from_claps(traces) if clap else _from_a_mouth(traces)
    except OffsetRefused as refusal:
        raise CalibrationRefused(f"the offset was not measured: {refusal}") from refusal


def _from_a_mouth(traces: Traces) -> Offset:
    begin, end, heard = (np.array(t, np.int64) for t in (traces.begin_ns, traces.end_ns, traces.heard_ns))
    return by_mouth(begin, end, np.array(traces.opening_px), heard, np.array(traces.nats))


def _from_claps(traces: Traces) -> Offset:
    seen = np.array(traces.seen_ns, np.int64)
    met, weights = contacts(seen, np.array(traces.changed))
    frame_ns = int(np.median(np.diff(seen))) if len(seen) > 1 else 0
    return by_claps(clap_onsets(*traces.sound()), met, weights, frame_ns)


def offset_in_words(offset: Offset) -> str:
    """One line for the person at the keyboard."""
    later = "later" if offset.ns >= 0 else "earlier"
    how = f"{offset.claps} claps" if offset.method == "clap" else "mouth and voice"
    return (
        f"sound is stamped {abs(offset.ns) / MS:.0f} ms {later} than the picture ({how}, "
        f"{offset.spread_ns / MS:.0f} ms apart, confidence {offset.confidence:.2f})"
    )


def list_offsets() -> list[str]:
    """What is kept, one line for each pair."""
    return [str(pair) for pair in load_pairs()] or ["no pair of devices was measured yet"]
