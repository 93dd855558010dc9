"""One tick of the analysis: gather what is due, ask the networks once, fuse, publish.

`step` never waits for a source: it takes what the rings hold, all faces of all cameras in one batch and
all sound pieces in another, and moves every person on. The present state is returned as a `Snapshot` for
the display, which draws at its own rate; grid points are published as cues. A step that comes late skips
to the newest and counts. The same object runs live in a thread and in lock-step.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from liveaffect.realtime.attribution import mouth_motion
from liveaffect.realtime.clock import MS, SECOND
from liveaffect.realtime.crop import Quality, quality
from liveaffect.realtime.cue import FACE, VOICE, Caption, Cue, age_ns
from liveaffect.realtime.estimate import Circumstances, SpokenOpinion
from liveaffect.realtime.expression import Evidence, weighted_score
from liveaffect.realtime.frame import Face, Sighting
from liveaffect.realtime.health import (
    FACES_HALVED,
    VOICE_SMALL,
    VOICES_HALVED,
    WORDS_FINISHED,
    WORDS_RARER,
    LoadShedder,
)
from liveaffect.realtime.hearing import SpeechHearing
from liveaffect.realtime.networks import Networks, Row, fuse, spoken_opinion
from liveaffect.realtime.people import Moment, Person, Profile, ProfileOwner, make_cue
from liveaffect.realtime.ring import Ring
from liveaffect.realtime.spoken import SpokenWords
from liveaffect.realtime.voice_analyzer import NOBODY, OwnedEvidence, SoundPiece, VoiceAnalyzer
from liveaffect.realtime.window import FUSION_STEP_NS, grid_due

_LONGEST_LOOK_NS = 100 * MS
"""The time that one crop stands for at most."""
_STANDING_IN = 3
"""While this machine stands in for lost servers, every third look at a face is judged."""
_JUDGE_EVERY = 3
"""Size, light, blur and turn of a face change slowly; every third look judges them."""
_OLD_NS = 250 * MS
"""A picture that is so old when its faces are found means that the machine is late."""
_FORGET_UNSEEN_NS = 10_000 * MS
"""Longer than any track waits for its face to come back."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Where everybody stands after a step; what the display reads."""

    at_ns: int
    cues: tuple[Cue, ...] = ()
    """One for every person in view, and one without a track for a voice of nobody in view."""
    seen: Mapping[str, int] = field(default_factory=dict)
    """Number of the newest picture of each camera that is in this state."""
    level: float = 0.0
    """Loudness of the newest sound, 0..1."""
    notices: tuple[str, ...] = ()
    captions: tuple[Caption, ...] = ()
    """What was said lately, and by whom."""


@dataclass(frozen=True, slots=True, eq=False)
class _Look:
    """One face that is due."""

    person: Person
    face: Face
    captured_ns: int
    covers_ns: int
    quality: Quality


class Scheduler:
    """One caller at a time: a thread when live, the file loop in lock-step."""

    def __init__(
        self,
        networks: Networks,
        *,
        sightings: Mapping[str, Ring[Sighting]],
        voice_analyzers: Sequence[VoiceAnalyzer],
        publish: Callable[[tuple[Cue, ...]], None],
        epoch_ns: Callable[[], int] | None = None,
    ) -> None:
        self.skipped: Counter[str] = Counter()
        """Grid points and looks that were left out."""
        self._ownerless = 0
        self._networks = networks
        self._sightings = dict(sightings)
        self._cursors = dict.fromkeys(sightings, 0)
        self._voice_analyzers = tuple(voice_analyzers)
        self._publish = publish
        self._epoch_ns = epoch_ns
        self._people: dict[int, Person] = {}
        self._nobody: dict[str, Person] = {}
        self._hearing: SpeechHearing | None = None
        self._spoken: list[SpokenWords] = []
        self._measures = [
            *[VOICE_SMALL] * bool(voice_analyzers and networks.lighter),
            *[VOICES_HALVED] * bool(voice_analyzers),
            *[FACES_HALVED] * bool(sightings),
        ]
        self.shedder = LoadShedder(self._measures, len(sightings))
        self._seen: dict[str, int] = {}
        self._cues: tuple[Cue, ...] = ()
        self._last_index = -1
        self._profile_owner = ProfileOwner()

    def adopt(self, profile: Profile | None) -> None:
        """Before the first step: a profile for the largest face; without cameras it is the voice's."""
        self._profile_owner = ProfileOwner(profile, of_voice=not self._sightings)
        if not self._sightings:
            self._profile_owner.tell(None, self._voice_analyzers)

    def hear_words(self, hearing: SpeechHearing) -> None:
        """Before the first step: words are heard as well, and are the first to be left out."""
        self._hearing = hearing
        self._spoken = [SpokenWords(name, hearing.judge) for name in hearing.sources]
        self.shedder = LoadShedder([WORDS_RARER, WORDS_FINISHED, *self._measures], len(self._sightings))

    def go_on_after(self, old: Scheduler) -> None:
        """Before the first step: count on, from the present on; everybody in view is met anew."""
        self.skipped = Counter(old.skipped)
        self._ownerless = old._ownerless
        self._last_index = old._last_index
        self._cursors = {source: ring.written for source, ring in self._sightings.items()}

    def retire(self) -> None:
        """Publish nothing more, whatever a step that hangs may still come to: another took its place."""
        self._publish = _to_nobody

    def step(self, now_ns: int) -> Snapshot:
        """One tick at `now_ns`."""
        looks, late = self._look(now_ns)
        self._forget_the_unseen(now_ns)
        self._ask(looks, self._pieces())
        in_view = [p for p in self._people.values() if _in_view(p, now_ns)]
        due = grid_due(FUSION_STEP_NS, last_index=self._last_index, now_ns=now_ns)
        if due is not None:
            # Whose voice it is changes over tenths of a second; asking with every picture would be waste.
            self._hand_out_voices(now_ns, in_view)
            self._hear_words(now_ns)
        skipped = due.skipped if due is not None and self._last_index >= 0 else 0
        self.shedder.note(now_ns, late=late or skipped > 0)
        self._choose_voice()
        people = [*in_view, *self._voices_of_nobody(now_ns)]
        wanted = due is not None or bool(looks) or self._anyone_new(people)
        cues = self._fuse(now_ns, people, skipped) if wanted else self._cues
        self._cues = cues
        if due is not None:
            self._last_index = due.index
            self.skipped["grid points"] += skipped
            if cues:
                t_ns = due.index * FUSION_STEP_NS
                self._publish(tuple(dataclasses.replace(cue, t_ns=t_ns) for cue in cues))
        level = max((voice_analyzer.level for voice_analyzer in self._voice_analyzers), default=0.0)
        captions = [caption for spoken in self._spoken for caption in spoken.captions(now_ns)]
        return Snapshot(
            at_ns=now_ns,
            cues=cues,
            seen=dict(self._seen),
            level=level,
            notices=self._notices(),
            captions=tuple(captions),
        )

    def _choose_voice(self) -> None:
        """The full voice network or, while the machine is late, the lighter one."""
        light, lighter = self.shedder.does(VOICE_SMALL), self._networks.lighter
        if lighter is not None and self._networks.listen_lightly(light):
            for voice_analyzer in self._voice_analyzers:
                voice_analyzer.listen_with(lighter.statistics if light else None)

    def _anyone_new(self, people: Sequence[Person]) -> bool:
        """Whether somebody came or left since the last answer."""
        known = {(cue.source, cue.track) for cue in self._cues}
        return known != {(person.source, person.track) for person in people}

    def _look(self, now_ns: int) -> tuple[list[_Look], bool]:
        """New faces of all cameras: every picture moves the mouths on, only the newest asks the network."""
        looks: list[_Look] = []
        late = False
        for source, ring in self._sightings.items():
            batch = ring.read_since(self._cursors[source])
            self._cursors[source] = batch.cursor
            left_out = batch.missed + max(len(batch.items) - 1, 0)
            late = late or left_out > 0
            late = late or any(now_ns - s.captured_ns > _OLD_NS for s in batch.items[-1:])
            self.skipped["looks"] += left_out
            for sighting in batch.items:
                found = self._take(sighting)
                if sighting is not batch.items[-1]:
                    continue
                if self._too_old(now_ns - sighting.captured_ns):
                    self.skipped["looks too old to be sent"] += len(found)
                else:
                    looks.extend(found)
        return looks, late

    def _too_old(self, age_ns: int) -> bool:
        """Whether a server's answer would come when it counts for nothing any more."""
        within_ns = round(self._networks.faces_within_s * SECOND)
        return within_ns > 0 and age_ns + within_ns >= FACE.expires_ns

    def _take(self, sighting: Sighting) -> list[_Look]:
        """One sighting: who ended, whose mouth moved, and which faces the network should see."""
        self._seen[sighting.source] = sighting.seq
        for track in sighting.ended:
            self._forget(track)
        looks = []
        every = 2 if self.shedder.does(FACES_HALVED) else 1
        every = max(every, _STANDING_IN) if self._networks.standing_in else every
        for face in sighting.faces:
            person = self._people.get(face.track)
            if person is None:
                person = self._people[face.track] = self._somebody(sighting.source, face.track)
            motion = 0.0 if person.crop is None else mouth_motion(person.crop, face.crop)
            for voice_analyzer in self._voice_analyzers:
                if voice_analyzer.hears is None or sighting.source in voice_analyzer.hears:
                    voice_analyzer.watch(face.track, sighting.captured_ns, motion)
            seen = person.quality
            if seen is None or person.looks % _JUDGE_EVERY == 0:
                seen = quality(face.crop, face.points)
            covers_ns = min(sighting.captured_ns - person.seen_ns, _LONGEST_LOOK_NS) if person.looks else 0
            person.see(sighting, face, seen)
            if person.looks % every == 1 % every:
                looks.append(_Look(person, face, sighting.captured_ns, covers_ns, seen))
        if self._profile_owner.settle(sighting, self._people):
            self._profile_owner.tell(self._profile_owner.track, self._voice_analyzers)
        return looks

    def _forget(self, track: int) -> None:
        self._profile_owner.left(self._people.pop(track, None))
        for voice_analyzer in self._voice_analyzers:
            voice_analyzer.forget(track)
        for spoken in self._spoken:
            spoken.forget(track)

    def _forget_the_unseen(self, now_ns: int) -> None:
        """The end of a track may have stood in a sighting that was overwritten before it was read."""
        for track in [t for t, p in self._people.items() if now_ns - p.seen_ns > _FORGET_UNSEEN_NS]:
            self._forget(track)

    def _pieces(self) -> list[tuple[VoiceAnalyzer, SoundPiece]]:
        hop_doubled = self.shedder.does(VOICES_HALVED)
        return [
            (heard, piece) for heard in self._voice_analyzers for piece in heard.due(hop_doubled=hop_doubled)
        ]

    def lost_sound(self) -> Counter[str]:
        """Pieces of sound that say nothing about anybody, by cause."""
        lost = sum((heard.lost for heard in self._voice_analyzers), Counter[str]())
        lost[NOBODY] += self._ownerless
        return lost if self._hearing is None else lost + self._hearing.lost()

    def unheard(self) -> int:
        """Complete pieces of sound that no step has taken yet."""
        return sum(heard.unheard for heard in self._voice_analyzers)

    def _ask(self, looks: list[_Look], pieces: list[tuple[VoiceAnalyzer, SoundPiece]]) -> None:
        """Submit all faces and all pieces, wait once, remember the answers."""
        if not looks and not pieces:
            return
        looks = looks if self._networks.judges("face") else []
        pieces = pieces if self._networks.judges("voice") else []
        crops: list[Row] = [{"crop": look.face.crop} for look in looks]
        faces, voices = self._networks.ask(
            crops, [voice_analyzer.inputs(piece) for voice_analyzer, piece in pieces]
        )
        for look, answer in zip(looks, faces, strict=True):
            if answer is not None:
                score = weighted_score(float(answer["score"][0]), look.quality.score)
                found = answer["vector"], answer["logits"]
                evidence = Evidence(look.captured_ns, *found, score, share=look.quality.score)
                look.person.show(evidence, look.covers_ns)
        for (voice_analyzer, piece), answer in zip(pieces, voices, strict=True):
            if answer is not None:
                voice_analyzer.take(piece, answer)

    def _hand_out_voices(self, now_ns: int, in_view: Sequence[Person]) -> None:
        """Give every microphone's evidence to the person it belongs to."""
        for person in in_view:
            person.speaking = False
        for voice_analyzer in self._voice_analyzers:
            heard_cameras = voice_analyzer.hears
            in_reach = [p for p in in_view if heard_cameras is None or p.source in heard_cameras]
            for heard in voice_analyzer.assign(now_ns, anyone_in_view=bool(in_reach)):
                owner = self._owner(voice_analyzer, heard)
                if owner is None:
                    self._ownerless += 1
                else:
                    owner.say(heard.evidence, heard.covers_ns)
                    owner.clarity = voice_analyzer.clarity.read()
            speaker = (
                self._people.get(voice_analyzer.voice.track)
                if voice_analyzer.voice.track is not None
                else None
            )
            if speaker is not None:
                speaker.speaking = True
            elif voice_analyzer.source in self._nobody:
                self._nobody[voice_analyzer.source].speaking = voice_analyzer.voice.state == "nobody in view"

    def _hear_words(self, now_ns: int) -> None:
        """Let every microphone's words find their owners."""
        if self._hearing is None:
            return
        self._hearing.rarer = self.shedder.does(WORDS_RARER)
        self._hearing.finished_only = self.shedder.does(WORDS_FINISHED)
        voices = {analyzer.source: analyzer.voice for analyzer in self._voice_analyzers}
        for spoken in self._spoken:
            spoken.hear(now_ns, voices[spoken.source], self._hearing.news(spoken.source))

    def _words_of(self, person: Person, now_ns: int) -> tuple[SpokenOpinion | None, str | None]:
        """What that person said lately, and its text where that is wanted."""
        for spoken in self._spoken:
            if person.track is None and spoken.source != person.source:
                continue
            if (heard := spoken.evidence(person.track, now_ns)) is not None:
                text = (
                    spoken.text(person.track, now_ns) if self._hearing and self._hearing.transcript else None
                )
                opinion = spoken_opinion(heard, now_ns, weighed=self._networks.weigh_words)
                return opinion, text
        return None, None

    def _owner(self, voice_analyzer: VoiceAnalyzer, heard: OwnedEvidence) -> Person | None:
        """Whose evidence it is; None for a voice that was there before the person came, or has left."""
        if heard.track is None:
            return self._nobody.setdefault(voice_analyzer.source, self._somebody(voice_analyzer.source, None))
        person = self._people.get(heard.track)
        return None if person is None or heard.evidence.captured_ns < person.came_ns else person

    def _voices_of_nobody(self, now_ns: int) -> list[Person]:
        """Voices without a face that were heard lately; the others are forgotten."""
        for source, person in list(self._nobody.items()):
            if not VOICE.holds(age_ns(now_ns, person.voice.newest_ns)):
                del self._nobody[source]
        return list(self._nobody.values())

    def _fuse(self, now_ns: int, people: Sequence[Person], skipped: int) -> tuple[Cue, ...]:
        """The present cue of everybody; everything that can be fused is fused in one call."""
        moment = Moment(
            skipped=skipped,
            model=self._networks.model,
            epoch_ns=None if self._epoch_ns is None else self._epoch_ns(),
            confidence=self._networks.confidence,
        )
        around = self._circumstances()
        words = [self._words_of(person, now_ns) for person in people]
        estimates = [
            person.estimate(now_ns, around, opinion)
            for person, (opinion, _) in zip(people, words, strict=True)
        ]
        fused = fuse(estimates, self._networks.fuse)
        said = [person.labeller.label(one) for person, one in zip(people, fused, strict=True)]
        if (watch := moment.confidence.watch) is not None:
            for one in said:
                watch(one)
        return tuple(
            make_cue(person, one, moment, text)
            for person, one, (_, text) in zip(people, said, words, strict=True)
        )

    def _circumstances(self) -> Circumstances:
        speakers = {h.voice.track for h in self._voice_analyzers if h.voice.track is not None}
        return Circumstances(
            network_failed=bool(self._networks.failing),
            voice=self._voice_analyzers[0].voice.state if self._voice_analyzers else None,
            two_voices=len(speakers) > 1,
        )

    def _somebody(self, source: str, track: int | None) -> Person:
        return Person(
            source, track, self._networks.confidence.labeller(), profile=self._profile_owner.given(track)
        )

    def _notices(self) -> tuple[str, ...]:
        shed = (f"too much for this machine: {self.shedder.says()}",) if self.shedder.level else ()
        caveat = self._networks.confidence.caveat
        networks = self._networks
        words = () if self._hearing is None else self._hearing.notices
        return (*networks.failing.values(), *networks.notices, *words, *shed, *([caveat] if caveat else []))


def _in_view(person: Person, now_ns: int) -> bool:
    return now_ns >= person.seen_ns and FACE.holds(now_ns - person.seen_ns)


def _to_nobody(_: tuple[Cue, ...]) -> None:
    """Where the cues of a scheduler go that was replaced."""
