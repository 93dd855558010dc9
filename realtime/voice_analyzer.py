"""Listens to one microphone: which pieces of sound are due, in whose statistics, and whose voice it is.

The counterpart of `face_analyzer`. A piece passes the voice network once; what comes back updates the
speaker's running statistics *afterwards*, so the network never sees its own future. While it is undecided who
speaks, evidence waits for the decision instead of being given to the wrong person.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from liveaffect.engines.recipe import SAMPLE_RATE, SpeakerStatistics, Statistics, hops_in
from liveaffect.realtime.attribution import Attribution, SpeechEnergy, Voice
from liveaffect.realtime.clock import MS, SECOND
from liveaffect.realtime.expression import Evidence, weighted_score
from liveaffect.realtime.ring import AudioRing, Stretch
from liveaffect.realtime.signs import ClarityMeter
from liveaffect.realtime.window import PieceGrid

MOST_PIECES = 2
"""Pieces of one microphone in one step; older ones are skipped and counted."""
_WAIT_NS = 2 * SECOND
"""Evidence whose owner is still undecided after this time is dropped."""
_ALONE_NS = 700 * MS
"""A voice belongs to nobody in view when that was so for this long: a cut or a doubt is shorter."""
_LOST_SHARE = 0.25
"""A piece that lost more of its samples than this says nothing."""
SPEECH = 0.5
"""From this probability on a piece counts as speech."""
_METER_FLOOR_DB = -60.0
LATE = "pieces of sound skipped because the machine was late"
SHED = "pieces of sound left out to keep up"
BROKEN = "pieces of sound skipped because the microphone lost samples"
UNDECIDED = "pieces of speech dropped because it stayed undecided who spoke"
NOBODY = "pieces of speech dropped because the speaker was not known yet or had left"


@dataclass(frozen=True, slots=True, eq=False)
class SoundPiece:
    """A piece of sound that is due."""

    index: int
    stretch: Stretch

    @property
    def captured_ns(self) -> int:
        """When its last sample was captured: the age of a voice reading counts from there."""
        return self.stretch.captured_ns + len(self.stretch.samples) * SECOND // SAMPLE_RATE


@dataclass(frozen=True, slots=True, eq=False)
class OwnedEvidence:
    """Evidence with its owner: a track, or None for nobody in view."""

    track: int | None
    evidence: Evidence
    covers_ns: int
    """How much speech it stands for."""


@dataclass(frozen=True, slots=True, eq=False)
class _Unowned:
    """Evidence that waits until it is decided whose voice it is."""

    evidence: Evidence
    covers_ns: int
    after: bool
    """It ends behind the speech in it, so it belongs to whoever spoke last."""


class VoiceAnalyzer:
    """One microphone's stream. One caller."""

    def __init__(
        self,
        source: str,
        ring: AudioRing,
        grid: PieceGrid,
        *,
        believe_speech: bool = False,
        attribution: Attribution | None = None,
    ) -> None:
        """`believe_speech`: the network was trained to tell speech from noise; attribution may ask it."""
        self.source = source
        self.hears: frozenset[str] | None = None
        """Cameras whose people this microphone may hear; None: those of all."""
        self.lost: Counter[str] = Counter()
        """Pieces that say nothing about anybody, by cause."""
        self.level = 0.0
        """Loudness of the newest sound for the meter, 0..1."""
        self.clarity = ClarityMeter()
        """How far speech stands out of the noise, and whether it is clipped."""
        self.voice = Voice("nobody speaks", None, 1.0)
        """Whose voice it is, as of the last decision."""
        self._ring = ring
        self._grid = self._usual_grid = grid
        self._believe_speech = believe_speech
        self._next_index = 0
        self._begin: int | None = None
        """The first sample that was there to be heard; silence is put in the place of those before."""
        self._energy = SpeechEnergy()
        self._energy_end = 0
        self._attribution = attribution or Attribution()
        self._statistics: dict[int | None, SpeakerStatistics] = {None: self._cold()}
        self._speaker: int | None = None
        self._alone_since_ns: int | None = None
        self._waiting: deque[_Unowned] = deque()
        self._last_owner: tuple[int | None] | None = None
        """Who was handed evidence last."""
        self._shares: deque[float] = deque(maxlen=hops_in(grid.length, grid.hop))
        """Which share of each of the last hops was speech."""
        self._taken_index: int | None = None

    def go_on_after(self, old: VoiceAnalyzer) -> None:
        """Before the first piece: count on where another stopped; speakers are met anew."""
        self.lost = Counter(old.lost)
        self._next_index, self._begin, self._energy_end = old._next_index, old._begin, old._energy_end

    def due(self, *, hop_doubled: bool) -> list[SoundPiece]:
        """Pieces that are complete and were not analysed yet; lost and skipped ones are counted."""
        wanted, skipped = self._complete()
        for index in range(self._next_index, self._next_index + skipped):
            # What reaches into a gap is complete only when the gap ends; no machine could be in time.
            self.lost[BROKEN if self._lost_in(index) else LATE] += 1
        pieces: list[SoundPiece] = []
        for index in wanted:
            self._next_index = index + 1
            stretch = self._read(index * self._grid.hop - self._grid.lead)
            if stretch is None:
                self.lost[LATE] += 1
            elif hop_doubled and index % 2 == 1:
                self.lost[SHED] += 1
            elif stretch.lost > _LOST_SHARE * self._grid.length:
                self.lost[BROKEN] += 1
            else:
                pieces.append(SoundPiece(index, stretch))
        return pieces

    def _lost_in(self, index: int) -> int:
        """How many samples of a piece the device lost."""
        return self._ring.lost_in(index * self._grid.hop - self._grid.lead, self._grid.length)

    @property
    def unheard(self) -> int:
        """Pieces that are complete and that nobody has asked for yet."""
        wanted, skipped = self._complete()
        return len(wanted) + skipped

    def _complete(self) -> tuple[range, int]:
        """Pieces not asked for yet whose samples are all there, and how many older ones are gone."""
        oldest, end = self._ring.start, self._ring.end
        if self._begin is None and end > oldest:
            self._begin = oldest
        if oldest == self._begin:
            oldest -= self._grid.lead
        return self._grid.due(next_index=self._next_index, oldest=oldest, end=end, most=MOST_PIECES)

    def _read(self, first: int) -> Stretch | None:
        """A piece's samples, after silence for those before the stream began."""
        silent = max(0, (self._begin or 0) - first)
        found = self._ring.read(first + silent, self._grid.length - silent)
        if found is None or not silent:
            return found
        samples = np.concatenate([np.zeros(silent, np.float32), found.samples])
        return Stretch(first, samples, found.captured_ns - silent * SECOND // SAMPLE_RATE, found.lost)

    def inputs(self, piece: SoundPiece) -> dict[str, NDArray[Any]]:
        """The voice network's inputs for one piece, in the present speaker's statistics."""
        mean, istd = self._statistics[self._speaker].normaliser()
        return {"samples": piece.stretch.samples, "mean": mean, "istd": istd}

    def take(self, piece: SoundPiece, answer: Mapping[str, NDArray[Any]]) -> bool:
        """The network's answer for one piece: update the speaker, keep the evidence until `assign`.

        Whether there is enough speech in it to be evidence.
        """
        speech = float(answer["speech"][0])
        weight = self._weight(piece.index, speech)
        self._statistics[self._speaker].add(
            answer["stat_sum"],
            answer["stat_sumsq"],
            speech=weight,
            new=self._grid.statistics.new(self._grid.hop),
        )
        self.clarity.hear(piece.stretch.samples, self._grid.hop, speech=speech >= SPEECH)
        if self._believe_speech:
            heard_before_ns = self._grid.lead * SECOND // SAMPLE_RATE
            begin_ns = piece.stretch.captured_ns + heard_before_ns
            self._attribution.judge(begin_ns, piece.captured_ns, speech)
        evidence = Evidence(
            captured_ns=piece.captured_ns,
            vector=answer["vector"],
            logits=answer["logits"],
            score=weighted_score(float(answer["score"][0]), weight),
        )
        covers_ns = round(speech * self._grid.hop * SECOND / SAMPLE_RATE)
        # What begins to speak is heard at once, and counts for the little that it is.
        counts = max(weight, speech) >= SPEECH
        if counts:
            self._waiting.append(_Unowned(evidence, covers_ns, after=speech < SPEECH))
        return counts

    def _weight(self, index: int, speech: float) -> float:
        """How much a piece counts, by the speech in all of it."""
        missed = 0 if self._taken_index is None else index - self._taken_index - 1
        self._taken_index = index
        # A hop that was left out is taken to be like the one that came after it.
        self._shares.extend([speech] * (1 + min(missed, len(self._shares))))
        grid = self._grid
        return float(grid.statistics.weights(np.array(self._shares), grid.length, grid.hop)[-1])

    def watch(self, track: int, captured_ns: int, mouth_motion: float) -> None:
        """How far a person's mouth opened between two pictures, in crop pixels."""
        self._attribution.move(captured_ns, track, mouth_motion)

    def know(self, track: int | None, statistics: SpeakerStatistics) -> None:
        """Begin with what is known of that person's voice; None: of nobody in view.

        What was measured for another network is of no use to this one and is left aside.
        """
        if statistics.kept == self._grid.statistics:
            self._statistics[track] = statistics.copy()

    def listen_with(self, statistics: Statistics | None) -> None:
        """Another network listens from now on, which keeps other statistics; None: the usual one again.

        What one network knows of a speaker means nothing to the other, so everybody is a stranger again.
        """
        usual = self._usual_grid
        self._grid = usual if statistics is None else replace(usual, statistics=statistics)
        self._statistics = {track: self._cold() for track in self._statistics}

    def _cold(self) -> SpeakerStatistics:
        return SpeakerStatistics.cold(kept=self._grid.statistics)

    def present_statistics(self) -> SpeakerStatistics:
        """Those of whoever is taken to speak."""
        return self._statistics[self._speaker].copy()

    def forget(self, track: int) -> None:
        """A track ended; its state dies with it."""
        self._attribution.end(track)
        self._statistics.pop(track, None)
        if self._last_owner == (track,):
            self._last_owner = None
        if self._speaker == track:
            self._speaker = None
            self._statistics[None] = self._cold()

    def assign(self, now_ns: int, *, anyone_in_view: bool) -> list[OwnedEvidence]:
        """Decide whose voice it is, and hand out the evidence whose owner is known now.

        Evidence waits while it is undecided who speaks; what is still undecided after that is dropped.
        """
        self._follow_energy()
        self.voice = self._attribution.decide(now_ns)
        alone = self.voice.state == "nobody in view" or not anyone_in_view
        self._alone_since_ns = (self._alone_since_ns or now_ns) if alone else None
        nobody = alone and now_ns - (self._alone_since_ns or now_ns) >= _ALONE_NS
        if self.voice.state == "track":
            self._change_speaker(self.voice.track)
        while self._waiting and self._waiting[0].evidence.captured_ns <= now_ns - _WAIT_NS:
            self._waiting.popleft()
            self.lost[UNDECIDED] += 1
        if self.voice.state == "track" or nobody:
            self._last_owner = (self.voice.track,)
            heard, self._waiting = list(self._waiting), deque()
        elif self.voice.state == "nobody speaks" and self._last_owner is not None:
            heard = []
            while self._waiting and self._waiting[0].after:
                heard.append(self._waiting.popleft())
        else:
            return []
        (owner,) = self._last_owner
        return [OwnedEvidence(owner, one.evidence, one.covers_ns) for one in heard]

    def _change_speaker(self, track: int | None) -> None:
        if track == self._speaker:
            return
        if track not in self._statistics:
            # Until somebody is named, what was heard is taken for the first one who is.
            stranger = self._speaker is None
            self._statistics[track] = self._statistics[None].copy() if stranger else self._cold()
        self._speaker = track

    def _follow_energy(self) -> None:
        """Feed the speech envelope of all new sound to attribution and to the meter."""
        begin, end = max(self._energy_end, self._ring.start), self._ring.end
        if end - begin < SAMPLE_RATE // 50:
            return
        stretch = self._ring.read(begin, end - begin)
        if stretch is None:
            return
        self._energy_end = end
        self._attribution.hear(self._energy.add(stretch.captured_ns, stretch.samples))
        tail = stretch.samples[-SAMPLE_RATE // 10 :]
        power = float(np.mean(np.square(tail, dtype=np.float64)))
        loud_db = 10 * float(np.log10(power + 1e-12))
        self.level = min(max(1 - loud_db / _METER_FLOOR_DB, 0.0), 1.0)
