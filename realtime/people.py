"""What is remembered of each person in view, and the cue that comes out of it.

All state hangs on the track: when the track ends, everything ends with it, so nobody inherits somebody
else's feelings. The voice of nobody in view is a person too, one without a face.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from liveaffect.engines.recipe import LABELS, SpeakerStatistics
from liveaffect.realtime import cue, expression
from liveaffect.realtime.clock import MS, SECOND
from liveaffect.realtime.crop import Quality
from liveaffect.realtime.cue import Cue, age_ms
from liveaffect.realtime.estimate import Circumstances, Confidence, Estimate, Labeller, Opinion, SpokenOpinion
from liveaffect.realtime.expression import Evidence, Memory, Pooled, Rest
from liveaffect.realtime.frame import Box, Face, Sighting
from liveaffect.realtime.signs import CLEAR, Clarity, evidence_share
from liveaffect.realtime.voice_analyzer import VoiceAnalyzer

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
    labeller: Labeller
    face: Memory = field(
        default_factory=lambda: Memory(expression.FACE, rest=Rest(expression.FACE.temperature))
    )
    voice: Memory = field(default_factory=lambda: Memory(expression.VOICE))
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

    def estimate(
        self, now_ns: int, circumstances: Circumstances, words: SpokenOpinion | None = None
    ) -> Estimate:
        """What is known at `now_ns`: all evidence that has not expired."""
        quality = self.quality or Quality(1.0, None)
        face = voice = strength = None
        if (seen := _held(self.face, now_ns, cue.FACE)) is not None:
            face = Opinion(*seen, quality.score, quality.weakness, quality.score)
            strength = None if self.face.rest is None else self.face.rest.strength(face.short)
        if (heard := _held(self.voice, now_ns, cue.VOICE)) is not None:
            say = self.clarity.score * evidence_share(self.voice.evidence_ns / SECOND)
            voice = Opinion(*heard, self.clarity.score, self.clarity.weakness, say)
        return Estimate(
            at_ns=now_ns,
            track=self.track,
            face=face,
            voice=voice,
            words=words,
            evidence_ns=self.face.evidence_ns + self.voice.evidence_ns,
            circumstances=circumstances,
            strength=strength,
        )


class ProfileOwner:
    """Whose the profile is: the largest face's, once everybody who is there has been found.

    When that person leaves, whoever comes next may be them again; who was there all the time is not.
    """

    def __init__(self, profile: Profile | None = None, *, of_voice: bool = False) -> None:
        """`of_voice`: without cameras it belongs to whoever is heard."""
        self.track: int | None = None
        self._profile = profile
        self._of_voice = of_voice
        self._vacant_ns = 0

    def settle(self, sighting: Sighting, people: Mapping[int, Person]) -> bool:
        """Look who is there; True when it was just given to `track`."""
        if self._profile is None or self.track is not None:
            return False
        faces = [face for face in sighting.faces if people[face.track].came_ns >= self._vacant_ns]
        came_ns = min((people[face.track].came_ns for face in faces), default=sighting.captured_ns)
        if sighting.captured_ns - came_ns < _ALL_FOUND_NS:
            return False
        self.track = max(faces, key=lambda face: face.box[2] * face.box[3]).track
        people[self.track].profile = self._profile
        return True

    def left(self, person: Person | None) -> None:
        """Somebody is gone."""
        if person is not None and person.track is not None and person.track == self.track:
            self.track, self._vacant_ns = None, person.seen_ns

    def given(self, track: int | None) -> Profile:
        """What a newcomer begins with."""
        return self._profile if self._profile and self._of_voice and track is None else Profile()

    def tell(self, track: int | None, voice_analyzers: Sequence[VoiceAnalyzer]) -> None:
        """Let every microphone know what that voice sounds like."""
        if self._profile is not None and self._profile.statistics is not None:
            for voice_analyzer in voice_analyzers:
                voice_analyzer.know(track, self._profile.statistics)


def _shifted(item: Evidence, shift: NDArray[np.float32] | None) -> Evidence:
    return item if shift is None else replace(item, logits=item.logits + shift)


def _held(memory: Memory, now_ns: int, lifetime: cue.Lifetime) -> tuple[int, Pooled, Pooled] | None:
    """When the newest evidence was captured and what it comes to, short and long, until it expires."""
    pooled = memory.read()
    if pooled is None or memory.newest_ns is None:
        return None
    if not lifetime.holds(cue.age_ns(now_ns, memory.newest_ns)):
        return None
    return memory.newest_ns, *pooled


@dataclass(frozen=True, slots=True)
class Moment:
    """What all cues of one step share."""

    skipped: int
    model: str
    epoch_ns: int | None
    confidence: Confidence


def make_cue(person: Person, estimate: Estimate, moment: Moment, transcript: str | None = None) -> Cue:
    """The cue of one person, of an estimate that was labelled."""
    face, voice = estimate.face, estimate.voice
    confidence = moment.confidence
    strength = None
    if estimate.strength is not None and estimate.label in LABELS:
        strength = estimate.strength[LABELS.index(estimate.label)]
    return Cue(
        t_ns=estimate.at_ns,
        source=person.source,
        frame=person.size,
        track=person.track,
        box=None if person.box is None else _whole(person.box),
        speaking=person.speaking,
        face=None if face is None else face.scores(confidence.of_reading("face")),
        voice=None if voice is None else voice.scores(confidence.of_reading("voice")),
        words=None if estimate.words is None else estimate.words.scores,
        raw=estimate.raw,
        fused=estimate.scores,
        weights=estimate.weights,
        label=estimate.label,
        confidence=estimate.confidence,
        reason=estimate.reason,
        age_ms=(
            age_ms(estimate.at_ns, None if face is None else face.captured_ns),
            age_ms(estimate.at_ns, None if voice is None else voice.captured_ns),
        ),
        skipped=moment.skipped,
        model=moment.model,
        epoch_ns=moment.epoch_ns,
        strength=strength,
        transcript=transcript,
    )


def _whole(box: Box) -> tuple[int, int, int, int]:
    x, y, width, height = box
    return round(x), round(y), round(width), round(height)
