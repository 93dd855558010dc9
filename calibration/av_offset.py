"""`liveaffect calibrate av`: how much later sound is stamped than the picture, for a camera and a microphone.

Two ways. A clap is sharp in both: its sound starts within a millisecond, and the motion of the hands, which
grew until they met, breaks off. Without claps a talker will do: a jaw goes down while the voice swells and
up while it fades, so the opening of the mouth is compared with the *change* of loudness over the very same
stretch, shifted. Both refuse, by name, to answer from weak evidence.

Items of camera and microphone are handed on as they come and forgotten; only numbers are kept (how far the
mouth opened, how much of the picture changed, how loud it was), and sound for as long as the measurement
lasts, because claps are sharper than any envelope.
"""

from __future__ import annotations

import queue
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from liveaffect.engines.recipe import SAMPLE_RATE
from liveaffect.realtime.clock import MS, SECOND, Clock
from liveaffect.realtime.device_pairs import load_pairs
from liveaffect.realtime.errors import CalibrationRefused, EndOfStream, SourceError, SourceLost
from liveaffect.realtime.face_analyzer import FaceAnalyzer
from liveaffect.realtime.feeds import Feed
from liveaffect.realtime.frame import AudioBlock, Item, VideoFrame
from liveaffect.realtime.signs import SpeechEnergy, mouth_motion
from liveaffect.realtime.supervisor import Supervisor
from liveaffect.realtime.wiring import Finders

WAITING = 256
"""Items that wait at most; more are dropped, which the stamps of the next ones show."""
START_S = 15.0
"""A device that has not delivered by then is given up."""


class LiveRecording:
    """Feeds read for `seconds` from when all of them deliver; `read` raises EndOfStream after that."""

    def __init__(self, feeds: Sequence[Feed], clock: Clock, seconds: float) -> None:
        self._clock = clock
        self._seconds = seconds
        self._items: queue.Queue[Item] = queue.Queue(WAITING)
        self._supervisors = [Supervisor(f.make, clock, self._take, live=f.live, watch=f.watch) for f in feeds]
        self._opened_ns = 0
        self._until_ns: int | None = None

    def open(self) -> None:
        """Start them all."""
        self._opened_ns = self._clock.now_ns()
        for supervisor in self._supervisors:
            supervisor.start()

    def read(self, timeout_s: float) -> Item | None:
        """The next item of any of them; None if nothing came in time. SourceError if one never came."""
        now_ns = self._clock.now_ns()
        if self._until_ns is None:
            self._await_all(now_ns)
        if (self._until_ns is not None and now_ns >= self._until_ns) or self._all_ended():
            raise EndOfStream("the time is over")
        try:
            item = self._items.get(timeout=min(timeout_s, 0.1))
        except queue.Empty:
            return None
        # What came before everything was there belongs to no comparison.
        return None if self._until_ns is None else item

    def close(self) -> None:
        """Let go of the devices. Safe to call twice."""
        for supervisor in self._supervisors:
            supervisor.stop()

    def _take(self, item: Item) -> None:
        try:
            self._items.put_nowait(item)
        except queue.Full:
            return

    def _await_all(self, now_ns: int) -> None:
        states = [supervisor.state for supervisor in self._supervisors]
        if all(state.delivered for state in states):
            self._until_ns = now_ns + round(self._seconds * SECOND)
            return
        for supervisor, state in zip(self._supervisors, states, strict=True):
            late = now_ns - self._opened_ns > START_S * SECOND
            if not state.delivered and (state.phase == "ended" or late):
                reason = supervisor.error or f"{state.name} delivered nothing for {START_S:.0f} s"
                raise reason if isinstance(reason, SourceError) else SourceLost(str(reason))

    def _all_ended(self) -> bool:
        ended = all(supervisor.state.phase == "ended" for supervisor in self._supervisors)
        return ended and self._items.empty()


REACH_NS = 400 * MS
"""No offset larger than this is looked for."""

JAW_LEADS_NS = 7 * MS
"""In a film whose sound is in step, loudness follows the jaw by this (11 clips of the GRID corpus)."""
RANGE_NATS = 5.5
"""Sound this far below the loudest hardly counts: breath and room swell too, and no jaw follows them."""
LOUD_NATS = 1.0
"""From here on a stretch of sound may be speech."""
MOST_PX = 2.0
"""A larger opening between two pictures is a slip of the tracker."""
STILL_PX = 0.05
"""A mouth that moves less than this between two pictures, root mean square, is still."""
LEAST_SPEECH_S = 4.0
STEP_NS = 5 * MS
REST_NS = 1_600 * MS
"""How far the curve is followed beyond the reach, to know what agreement chance brings."""
PEAK_NS = 400 * MS
"""What lies nearer to the peak than this belongs to it."""
CLEAR = 5.0
"""The peak must stand this many root mean squares of the rest above zero. Of 300 mouths played with the wrong
sound the highest reached 5.05, and there the halves did not agree."""
AGREE_NS = 60 * MS
"""Both halves of the evidence must have their peaks this near to that of the whole."""
TURN_NS = 1_500 * MS
"""The halves take turns of this length, so that both hear the beginning and the end."""

LEAST_CLAPS = 3
HOP = 32
"""Samples in one step of the search for onsets: 2 ms."""
SHARP = 100.0
"""A clap raises the power of high frequencies by this factor within a step or two."""
ALONE_NS = 200 * MS
"""Two onsets nearer than this are one clap and its echo."""
RIVAL = 0.7
"""A second offset with so much of the best one's support makes the answer ambiguous."""

Times = NDArray[np.int64]
Values = NDArray[np.floating[Any]]


class OffsetRefused(ValueError):
    """The evidence does not suffice; the message says what was missing and what to do."""


@dataclass(frozen=True, slots=True)
class Offset:
    """What one measurement came to."""

    ns: int
    """How much later sound is stamped than the picture of the same moment; negative: earlier."""
    method: Literal["clap", "mouth"]
    spread_ns: int
    """How far apart the claps, or the two halves of the talking, are."""
    confidence: float
    """0..1: how clearly it stands out. Refused below 0.5."""
    claps: int = 0


def by_mouth(begin_ns: Times, end_ns: Times, opening_px: Values, heard_ns: Times, nats: Values) -> Offset:
    """From a talker: how far the mouth opened between two pictures, and the loudness over the noise.

    Raises OffsetRefused for too little speech, a still mouth, or agreement no better than chance.
    """
    _refuse_what_is_no_number("mouth motion", opening_px)
    _refuse_what_is_no_number("loudness", nats)
    if len(begin_ns) == 0:
        raise OffsetRefused("no face was in view: sit in front of the camera, with light on your face")
    speech_s = float((nats >= LOUD_NATS).sum()) * _step_s(heard_ns)
    if speech_s < LEAST_SPEECH_S:
        raise OffsetRefused(
            f"only {speech_s:.1f} s of sound stood out of the noise, and {LEAST_SPEECH_S:.0f} s of speech "
            "are needed. Speak throughout, nearer to the microphone, or clap: --clap"
        )
    moved = np.clip(opening_px, -MOST_PX, MOST_PX)
    if float(np.sqrt(np.mean(np.square(moved)))) < STILL_PX:
        raise OffsetRefused("the mouth did not move: speak, with the whole face in view, or clap: --clap")
    loud = np.logaddexp(nats, float(np.quantile(nats, 0.99)) - RANGE_NATS)
    lags = np.arange(-REACH_NS - REST_NS, REACH_NS + REST_NS + 1, STEP_NS)

    def curve(of: NDArray[np.bool_]) -> Values:
        return _agreement(begin_ns[of], end_ns[of], moved[of], heard_ns, loud, lags)

    whole = curve(np.ones(len(moved), bool))
    at_ns, height = _highest(lags, whole)
    rest = whole[np.abs(lags - at_ns) > PEAK_NS]
    clarity = height / float(np.sqrt(np.mean(np.square(rest))) + 1e-9)
    turn = (begin_ns // TURN_NS) % 2 == 0
    halves = [_highest(lags, curve(half))[0] for half in (turn, ~turn)]
    apart_ns = max(abs(half - at_ns) for half in halves)
    if clarity < CLEAR or apart_ns > AGREE_NS:
        raise OffsetRefused(
            f"mouth and voice agree no better than by chance (clarity {clarity:.1f} of {CLEAR:.0f}, the two "
            f"halves {apart_ns / MS:.0f} ms apart). Is it the talker who is in view, alone? "
            "Speak longer (--seconds 40), or clap: --clap"
        )
    ns = round(at_ns - JAW_LEADS_NS)
    return Offset(ns, "mouth", round(apart_ns), clarity / (clarity + CLEAR))


def by_claps(onsets_ns: Times, contacts_ns: Times, weights: Values, frame_ns: int) -> Offset:
    """From claps: when each was heard, and when hands may have met, each with how abruptly motion broke off.

    Raises OffsetRefused with fewer than three claps in both, or where two offsets fit alike.
    """
    if len(onsets_ns) < LEAST_CLAPS:
        raise OffsetRefused(
            f"{len(onsets_ns)} claps were heard, and {LEAST_CLAPS} are needed. Clap loudly, about once a "
            "second, in a quiet room"
        )
    if len(contacts_ns) < LEAST_CLAPS:
        raise OffsetRefused(
            f"{len(onsets_ns)} claps were heard, but hands were seen to meet {len(contacts_ns)} times. "
            "Clap in front of the camera, from the side, with little else that moves"
        )
    apart = onsets_ns[:, None] - contacts_ns[None, :]
    near = np.abs(apart) <= REACH_NS
    candidates = np.unique(apart[near])
    if len(candidates) == 0:
        raise OffsetRefused(
            f"no clap was heard within {REACH_NS // MS} ms of being seen. Is it the microphone beside this "
            "camera? Devices further apart than that cannot be used together"
        )
    near_ns = round(0.6 * frame_ns)
    support = np.array([_support(apart, weights, offset, near_ns) for offset in candidates])
    best = int(support.argmax())
    rivals = support[np.abs(candidates - candidates[best]) > 3 * frame_ns]
    rival = float(rivals.max(initial=0.0) / support[best])
    matched = np.sort(apart[near & (np.abs(apart - candidates[best]) <= near_ns)])
    if len(matched) < max(LEAST_CLAPS, len(onsets_ns) / 2) or rival > RIVAL:
        raise OffsetRefused(
            f"{len(matched)} of {len(onsets_ns)} claps fit one offset, and another fits {100 * rival:.0f} % "
            "as well. Clap about once a second, not evenly, and hold the rest still"
        )
    middle = float(np.median(matched))
    spread_ns = round(1.5 * float(np.median(np.abs(matched - middle))))
    return Offset(round(middle), "clap", spread_ns, 1.0 - 0.5 * rival / RIVAL, len(matched))


def clap_onsets(first_ns: int, samples: NDArray[np.floating[Any]]) -> Times:
    """When claps begin: high frequencies leap up from one step of 2 ms to the next, and die soon."""
    _refuse_what_is_no_number("sound", samples)
    sharp = np.diff(np.asarray(samples, np.float64), n=2)  # lets voices through weakly, claps strongly
    count = len(sharp) // HOP
    power = np.square(sharp[: count * HOP]).reshape(count, HOP).mean(axis=1)
    if count < 100:
        return np.zeros(0, np.int64)
    before = np.array([power[max(0, k - 12) : max(1, k - 1)].mean() for k in range(count)])
    loud = max(float(np.median(power)) * SHARP, float(power.max()) / 300, 1e-10)
    leaps = np.flatnonzero((power > loud) & (power > SHARP * before))
    onsets: list[int] = []
    for k in leaps:
        height = power[k : k + 5].max()
        dies = power[k + 40 : k + 60].mean() < height / 30 if k + 60 < count else False
        at_ns = first_ns + int(k) * HOP * SECOND // SAMPLE_RATE
        if dies and (not onsets or at_ns - onsets[-1] > ALONE_NS):
            onsets.append(at_ns)
    return np.array(onsets, np.int64)


def contacts(times_ns: Times, motion: Values) -> tuple[Times, Values]:
    """When motion broke off, and how much: `motion[k]` is what changed between pictures k and k + 1.

    Hands that meet between two pictures move for a share of that time only. So the motion of that interval,
    relative to the one before, says where in it they met: this is finer than the pictures are apart.
    """
    _refuse_what_is_no_number("motion", motion)
    if len(motion) < 5:
        return np.zeros(0, np.int64), np.zeros(0)
    still = float(np.median(motion))
    rest = np.minimum(motion[1:-1], motion[2:])
    fall = np.maximum(motion[:-2] - np.maximum(rest, still), 0.0)
    known = fall > 0.15 * float(np.quantile(fall, 0.995)) + 1e-9
    known &= fall > 0.5 * np.maximum(motion[:-2] - still, 1e-9)
    known[1:] &= fall[1:] >= fall[:-1]
    known[:-1] &= fall[:-1] > fall[1:]
    at = np.flatnonzero(known)
    share = np.clip((motion[at + 1] - rest[at]) / np.maximum(motion[at] - rest[at], 1e-9), 0.0, 1.0)
    met = times_ns[at + 1] + share * (times_ns[at + 2] - times_ns[at + 1])
    return np.round(met).astype(np.int64), fall[at] / float(fall.max(initial=1e-9))


def _agreement(
    begin_ns: Times, end_ns: Times, moved: Values, heard_ns: Times, loud: Values, lags: Times
) -> Values:
    """For every lag the correlation, about zero, of the opening with the change of loudness so much later."""
    out = np.zeros(len(lags))
    power = float(np.square(moved).sum())
    for k, lag in enumerate(lags):
        swell = np.interp(end_ns + lag, heard_ns, loud) - np.interp(begin_ns + lag, heard_ns, loud)
        out[k] = moved @ swell / np.sqrt(power * float(np.square(swell).sum()) + 1e-12)
    return out


def _highest(lags: Times, curve: Values) -> tuple[float, float]:
    """Where within reach the curve is highest, between its points, and how high."""
    within = np.flatnonzero(np.abs(lags) <= REACH_NS)
    k = int(within[curve[within].argmax()])
    left, here, right = (float(v) for v in curve[k - 1 : k + 2])
    bend = left - 2 * here + right
    shift = 0.5 * (left - right) / bend if bend < 0 else 0.0
    return float(lags[k]) + max(-1.0, min(1.0, shift)) * STEP_NS, here


def _support(apart: Times, weights: Values, offset: int, near_ns: int) -> float:
    """What speaks for an offset: for every clap the most abrupt stop that lies near it."""
    fits = np.abs(apart - offset) <= near_ns
    return float(np.where(fits, weights[None, :], 0.0).max(axis=1).sum())


def _step_s(heard_ns: Times) -> float:
    return float(np.median(np.diff(heard_ns))) / SECOND if len(heard_ns) > 1 else 0.0


def _refuse_what_is_no_number(what: str, values: Values) -> None:
    bad = int((~np.isfinite(values)).sum())
    if bad:
        raise OffsetRefused(
            f"{bad} of {len(values)} values of the {what} are not finite; nothing is concluded"
        )


SECONDS = 20.0
"""How long devices are listened to, if nobody says otherwise."""
_SMALL = 160
"""Width at which pictures are compared; hands are large."""
_GRAIN = 10
"""A pixel that changed by less is the noise of the camera."""
_LOST_NS = 250 * MS
"""Two pictures further apart than this are not compared."""


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
