"""What is remembered of each person in view, and the cue that comes out of it.

All state hangs on the track: when the track ends, everything ends with it, so nobody inherits somebody
else's feelings. The voice of nobody in view is a person too, one without a face.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from liveaffect.engines.recipe import SpeakerStatistics
from liveaffect.realtime.clarity import CLEAR, Clarity, evidence_share
from liveaffect.realtime.clock import MS, SECOND
from liveaffect.realtime.confidence import Confidence
from liveaffect.realtime.crop import Quality
from liveaffect.realtime.cue import Cue, Reading, age_ms
from liveaffect.realtime.frame import Box, Face, Sighting
from liveaffect.realtime.fusion import UNKNOWN, Gathered, Part, Trunks, softmax
from liveaffect.realtime.pooling import FACE_WINDOW_NS, VOICE_WINDOW_NS, Evidence, Memory
from liveaffect.realtime.smoothing import Circumstances, LabelSmoother, Shown
from liveaffect.realtime.voice_analyzer import VoiceAnalyzer

FACE_EXPIRES_NS = 500 * MS
VOICE_EXPIRES_NS = 2 * SECOND
_ALL_FOUND_NS = 500 * MS
"""A face that is in view is found within this time."""


@dataclass(frozen=True, slots=True, eq=False)
class Profile:
    """How the networks judge one person at rest, taken back: their personal profile."""

    face: NDArray[np.float32] | None = None
    """Added to the logits of every look."""
    voice: NDArray[np.float32] | None = None
    """Added to the logits of every piece of sound."""
    statistics: SpeakerStatistics | None = None
    """What this voice is known to sound like."""


@dataclass(slots=True, eq=False)
class Person:
    """One person, or the voice of nobody in view (`track` None). Used by the scheduler alone."""

    source: str
    track: int | None
    steady: LabelSmoother
    face: Memory = field(default_factory=lambda: Memory(FACE_WINDOW_NS))
    voice: Memory = field(default_factory=lambda: Memory(VOICE_WINDOW_NS))
    size: tuple[int, int] | None = None
    box: Box | None = None
    came_ns: int = 0
    """When the first picture with this person was captured."""
    seen_ns: int = 0
    """When the newest picture with this person was captured."""
    crop: NDArray[np.uint8] | None = None
    """The newest crop, to see how the mouth moves to the next."""
    quality: Quality | None = None
    clarity: Clarity = CLEAR
    """How clear the sound was in which this person was heard."""
    speaking: bool = False
    looks: int = 0
    profile: Profile = Profile()
    """Of a person without a profile nothing is known."""

    def see(self, sighting: Sighting, face: Face, quality: Quality) -> None:
        """The newest picture of this person."""
        if not self.looks:
            self.came_ns = sighting.captured_ns
        self.size, self.box, self.seen_ns = sighting.size, face.box, sighting.captured_ns
        self.crop, self.quality = face.crop, quality
        self.looks += 1

    def show(self, item: Evidence, covers_ns: int) -> None:
        """Evidence of this face."""
        self.face.add(_shifted(item, self.profile.face), covers_ns)

    def say(self, item: Evidence, covers_ns: int) -> None:
        """Evidence of this voice."""
        self.voice.add(_shifted(item, self.profile.voice), covers_ns)

    def gather(self, now_ns: int) -> Gathered:
        """All evidence that has not expired."""
        return Gathered(
            face=_fresh(self.face, now_ns, FACE_EXPIRES_NS),
            voice=_fresh(self.voice, now_ns, VOICE_EXPIRES_NS),
            face_quality=1.0 if self.quality is None else self.quality.score,
            voice_quality=self.clarity.score * evidence_share(self.voice.evidence_ns / SECOND),
        )


class ProfileOwner:
    """Whose the profile is: the largest face's, once everybody who is there has been found.

    When that person leaves, whoever comes next may be them again; who was there all the time is not.
    """

    def __init__(self, profile: Profile | None = None, *, of_voice: bool = False) -> None:
        """`of_voice`: without cameras it belongs to whoever is heard."""
        self.track: int | None = None
        self._habit = profile
        self._of_voice = of_voice
        self._vacant_ns = 0

    def settle(self, sighting: Sighting, people: Mapping[int, Person]) -> bool:
        """Look who is there; True when it was just given to `track`."""
        if self._habit is None or self.track is not None:
            return False
        faces = [face for face in sighting.faces if people[face.track].came_ns >= self._vacant_ns]
        came_ns = min((people[face.track].came_ns for face in faces), default=sighting.captured_ns)
        if sighting.captured_ns - came_ns < _ALL_FOUND_NS:
            return False
        self.track = max(faces, key=lambda face: face.box[2] * face.box[3]).track
        people[self.track].profile = self._habit
        return True

    def left(self, person: Person | None) -> None:
        """Somebody is gone."""
        if person is not None and person.track is not None and person.track == self.track:
            self.track, self._vacant_ns = None, person.seen_ns

    def given(self, track: int | None) -> Profile:
        """What a newcomer begins with."""
        return self._habit if self._habit and self._of_voice and track is None else Profile()

    def tell(self, track: int | None, voice_analyzers: Sequence[VoiceAnalyzer]) -> None:
        """Let every microphone know what that voice sounds like."""
        if self._habit is not None and self._habit.statistics is not None:
            for voice_analyzer in voice_analyzers:
                voice_analyzer.know(track, self._habit.statistics)


def _shifted(item: Evidence, shift: NDArray[np.float32] | None) -> Evidence:
    return item if shift is None else replace(item, logits=item.logits + shift)


def _fresh(memory: Memory, now_ns: int, expires_ns: int) -> Trunks | None:
    if memory.newest_ns is None or now_ns - memory.newest_ns > expires_ns:
        return None
    return memory.read(now_ns)


@dataclass(frozen=True, slots=True)
class Moment:
    """What all cues of one step share."""

    now_ns: int
    skipped: int
    model: str
    epoch_ns: int | None
    circumstances: Circumstances
    confidence: Confidence


def readings(
    person: Person, gathered: Gathered, confidence: Confidence
) -> tuple[Reading | None, Reading | None]:
    """What face and voice say each on their own, from the short trunk."""
    face = voice = None
    if gathered.face is not None and person.face.newest_ns is not None:
        quality = person.quality
        face = Reading(
            captured_ns=person.face.newest_ns,
            scores=softmax(gathered.face[0].logits, confidence.of_reading("face")),
            quality=1.0 if quality is None else quality.score,
            weakness=None if quality is None else quality.weakness,
        )
    if gathered.voice is not None and person.voice.newest_ns is not None:
        voice = Reading(
            captured_ns=person.voice.newest_ns,
            scores=softmax(gathered.voice[0].logits, confidence.of_reading("voice")),
            quality=person.clarity.score,
            weakness=person.clarity.weakness,
        )
    return face, voice


def make_cue(person: Person, gathered: Gathered, parts: Sequence[Part], moment: Moment) -> Cue:
    """The cue of one person; moves the person's smoothing on to `moment`."""
    face, voice = readings(person, gathered, moment.confidence)
    fused = moment.confidence.join(parts)
    raw = UNKNOWN if fused is None else fused.scores
    shown: Shown = person.steady.step(
        moment.now_ns,
        None if fused is None else raw,
        face=face,
        voice=voice,
        evidence_ns=person.face.evidence_ns + person.voice.evidence_ns,
        circumstances=moment.circumstances,
    )
    return Cue(
        t_ns=moment.now_ns,
        source=person.source,
        frame=person.size,
        track=person.track,
        box=None if person.box is None else _whole(person.box),
        speaking=person.speaking,
        face=None if face is None else face.scores,
        voice=None if voice is None else voice.scores,
        words=None,
        raw=raw,
        fused=shown.scores,
        weights=(0.0, 0.0, 0.0) if fused is None else fused.weights,
        label=shown.label,
        confidence=shown.confidence,
        reason=shown.reason,
        age_ms=(
            age_ms(moment.now_ns, None if face is None else face.captured_ns),
            age_ms(moment.now_ns, None if voice is None else voice.captured_ns),
        ),
        skipped=moment.skipped,
        model=moment.model,
        epoch_ns=moment.epoch_ns,
    )


def _whole(box: Box) -> tuple[int, int, int, int]:
    x, y, width, height = box
    return round(x), round(y), round(width), round(height)
