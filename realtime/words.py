"""Hears the words of one microphone while they are said: `voice_analyzer`'s counterpart for what is said.

Speech is found first, which costs next to nothing; a pass of Whisper covers only the last seconds of an
utterance. Passes are made while it grows, so that words can be shown early, and once more in a pause, after
which nothing is cut and all is believed. When the machine is late, passes come rarer, then only of finished
utterances, of which the newest is heard first and the oldest is given up and counted.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from liveaffect.engines.protocol import SPEECH_CHUNK as CHUNK
from liveaffect.engines.protocol import Activity, HeardWords, SpeechReader, TimedWord
from liveaffect.engines.recipe import SAMPLE_RATE
from liveaffect.realtime.clock import SECOND
from liveaffect.realtime.ring import AudioRing, Ring
from liveaffect.realtime.utterance import Agreement, Utterance, Word, later, plausible

SPEECH, SILENCE = 0.3, 0.2
"""Speech begins at the first and ends below the second of these probabilities."""
BEFORE_S, AFTER_S = 0.3, 0.2
"""Sound around speech that belongs to it: quiet beginnings and ends of words."""
LEAST_SPEECH_S = 0.15
"""Shorter is a click."""
PAUSE_S = 0.35
"""After so much silence no word is cut."""
END_S = 1.2
"""After so much silence an utterance has ended."""
HOP_S = 0.7
"""New speech between two passes over an utterance that grows."""
LONG_S = 4.0
"""Passes over a longer stretch cost more, and come rarer by as much."""
RARE_HOP_S = 2.1
WINDOW_S = 6.0
"""A stretch longer than this loses its first believed words."""
KEPT_S = 2.5
"""How much of it is kept then, at least."""
SENTENCE_ENDS = (".", "?", "!")
"""It is best cut behind a sentence."""
LEFT_OUT_S, MOST_PIECES = 1.0, 3
"""More speech than this behind the last word was left out, and so many pieces are made of a stretch."""
LONGEST_S = 14.0
"""A stretch of which nothing is believed is cut off here."""
MOST_WORDS = 60
"""Then an utterance ends although there was no pause, so that nothing grows without bound."""
WAITING = 3
"""Finished utterances that wait for their pass."""
UTTERANCES = 64
SENTENCE_WORDS = 24
"""The emotion of words is that of the last so many."""
UNHEARD = "utterances whose words were not heard because the machine was late"
OVERRUN = "seconds of speech whose words were not heard because the machine was late"


@dataclass(frozen=True, slots=True)
class WordTools:
    """What hearing words takes; one set for all microphones of a run, each with an activity of its own."""

    ears: SpeechReader
    make_activity: Callable[[], Activity]
    judge: Callable[[str], tuple[float, ...] | None]
    """Logits of the emotion of an English text; None if it says nothing."""


@dataclass(slots=True, eq=False)
class _Stretch:
    """The sound of an utterance that is still being heard, by sample number."""

    number: int
    begin: int
    end: int
    """Where its speech ends so far."""
    speech: int = 0
    """How many samples of it are speech."""
    passed: int = 0
    """The newest pass reached so far."""
    whole: bool = False
    """That pass lay in a pause."""
    ended: bool = False
    first: int = 0
    """Where the utterance begins."""
    before: list[Word] = field(default_factory=list)
    """Words whose sound was left behind."""
    agreement: Agreement = field(default_factory=Agreement)
    language: str | None = None
    translation: str = ""

    @property
    def is_heard(self) -> bool:
        """Nothing was said since the last pass, which lay in a pause."""
        return self.whole and self.passed >= self.end


class WordsAnalyzer:
    """One microphone. One caller: a thread when live, the file loop in lock-step."""

    def __init__(self, source: str, ring: AudioRing, tools: WordTools) -> None:
        self.source = source
        self.said: Ring[Utterance] = Ring(UTTERANCES)
        """Every form of every utterance, for whoever reads."""
        self.lost: Counter[str] = Counter()
        self.passes = 0
        self._ring, self._tools = ring, tools
        self._activity = tools.make_activity()
        self._next: int | None = None
        self._number = 0
        self._open: _Stretch | None = None
        self._finished: deque[_Stretch] = deque()

    def step(self, *, rarer: bool = False, finished_only: bool = False) -> bool:
        """Listen to what is new, and make one pass if one is due; True if it was made."""
        self._listen()
        if self._finished:
            self._hear_finished(self._finished.pop())
            return True
        stretch = self._open
        if stretch is None or finished_only or not self._is_due(stretch, RARE_HOP_S if rarer else HOP_S):
            return False
        self._hear(stretch)
        return True

    def finish(self) -> None:
        """No more sound comes: hear what is left."""
        self._listen()
        if self._open is not None:
            self._end(self._open)
        while self._finished:
            self._hear_finished(self._finished.popleft())

    # Where somebody speaks.

    def _listen(self) -> None:
        """Move on through the new sound and find where speech begins and ends."""
        start, end = self._ring.start, self._ring.end
        if self._next is None:
            self._next = start
        if self._next < start:
            self.lost[OVERRUN] += 1 + (start - self._next) // SAMPLE_RATE
            self._open, self._next = None, start
        count = (end - self._next) // CHUNK * CHUNK
        sound = self._ring.read(self._next, count) if count else None
        if sound is None:
            return
        for at, probability in enumerate(self._activity.add(sound.samples)):
            self._follow(self._next + at * CHUNK, float(probability))
        self._next += count

    def _follow(self, at: int, probability: float) -> None:
        stretch = self._open
        if stretch is None:
            if probability >= SPEECH:
                self._number += 1
                begin = max(self._ring.start, at - _samples(BEFORE_S))
                self._open = _Stretch(self._number, begin, at + CHUNK, speech=CHUNK, first=begin)
            return
        if probability >= (SILENCE if stretch.end == at else SPEECH):
            if stretch.is_heard:
                self._go_on(stretch, at)
            stretch.end, stretch.speech = at + CHUNK, stretch.speech + CHUNK
        elif at + CHUNK - stretch.end >= _samples(END_S):
            self._end(stretch)

    def _go_on(self, stretch: _Stretch, at: int) -> None:
        """Speech goes on after a pause: what was heard up to it stays as it is, and is not heard again."""
        begin = max(stretch.begin, self._ring.start, at - _samples(BEFORE_S))
        self._leave_behind(stretch, len(stretch.agreement.believed), begin)
        stretch.whole = False

    def _end(self, stretch: _Stretch) -> None:
        self._open, stretch.ended = None, True
        if stretch.speech < _samples(LEAST_SPEECH_S):
            return
        if stretch.is_heard and not self._translated(stretch):
            self._publish(stretch)
            return
        self._finished.append(stretch)
        if len(self._finished) > WAITING:
            given_up = self._finished.popleft()
            self.lost[UNHEARD] += not given_up.is_heard
            given_up.agreement.guess = ()
            self._publish(given_up)

    # What is said.

    def _is_due(self, stretch: _Stretch, hop_s: float) -> bool:
        """A pass is due after enough new speech, and in a pause if there was any since the last."""
        if stretch.speech < _samples(LEAST_SPEECH_S):
            return False
        if (self._next or 0) - stretch.end >= _samples(PAUSE_S):
            return stretch.passed < stretch.end or not stretch.whole
        new = stretch.end - max(stretch.passed, stretch.begin)
        length_s = (stretch.end - stretch.begin) / SAMPLE_RATE
        return new >= _samples(hop_s * max(1.0, length_s / LONG_S))

    def _hear_finished(self, stretch: _Stretch) -> None:
        if not stretch.is_heard:
            self._hear(stretch)
        if not self._translated(stretch):
            return
        first = max(stretch.first, self._ring.start)
        if (sound := self._ring.read(first, stretch.passed - first)) is not None:
            stretch.translation = self._tools.ears.translate(sound.samples, stretch.language or "en")
        self._publish(stretch)

    def _translated(self, stretch: _Stretch) -> bool:
        """Whether what it says is put into English, which is done once, at its end."""
        return self._tools.ears.multilingual and stretch.language not in (None, "en")

    def _hear(self, stretch: _Stretch) -> None:
        """One pass over the stretch up to the newest sound, and what follows from it."""
        pause = (self._next or 0) - stretch.end
        whole = stretch.ended or pause >= _samples(PAUSE_S)
        end = min(self._next or 0, stretch.end + _samples(AFTER_S if whole else END_S))
        if self._ring.start > stretch.begin:
            self._leave_behind(stretch, len(stretch.agreement.believed), self._ring.start)
        sound = self._ring.read(stretch.begin, end - stretch.begin)
        stretch.passed, stretch.whole = end, whole
        if sound is None:
            self.lost[UNHEARD] += stretch.ended
            return
        agreement = stretch.agreement
        heard, words = self._words_in(sound.samples, stretch, cut=not whole)
        if stretch.speech >= _samples(2.0):
            stretch.language = heard.language
        if whole:
            agreement.settle(words)
        else:
            agreement.take(words, len(sound.samples) / SAMPLE_RATE)
        self._shorten(stretch)
        self._publish(stretch, heard.language)

    def _words_in(
        self, samples: NDArray[np.float32], stretch: _Stretch, *, cut: bool
    ) -> tuple[HeardWords, list[TimedWord]]:
        """Whisper likes to stop behind a sentence: what it left out is heard as a piece of its own."""
        speech_s = (stretch.end - stretch.begin) / SAMPLE_RATE
        words, at_s, pieces = list[TimedWord](), 0.0, 0
        while True:
            heard = self._tools.ears.hear(samples[_samples(at_s) :], language=stretch.language, cut=cut)
            self.passes += 1
            pieces += 1
            new = plausible(heard, speech_s - at_s)
            words += [later(word, at_s) for word in new]
            if not new or pieces == MOST_PIECES or speech_s - words[-1].end_s < LEFT_OUT_S:
                return heard, words
            at_s = words[-1].end_s

    def _shorten(self, stretch: _Stretch) -> None:
        """Leave the beginning of a long stretch behind, at a word that is believed."""
        length_s = (stretch.passed - stretch.begin) / SAMPLE_RATE
        if length_s <= WINDOW_S:
            return
        believed = stretch.agreement.believed
        starts = [at for at, word in enumerate(believed) if 0.5 < word.begin_s <= length_s - KEPT_S]
        if starts:
            sentences = [at for at in starts if believed[at - 1].text.endswith(SENTENCE_ENDS)]
            keep = (sentences or starts)[-1]
            first = believed[keep].begin_s
            self._leave_behind(stretch, keep, stretch.begin + _samples(max(0.0, first - 0.1)))
        elif length_s > LONGEST_S:
            self._leave_behind(stretch, len(believed), stretch.passed - _samples(KEPT_S))
        if len(stretch.before) >= MOST_WORDS and not stretch.ended:
            self._divide(stretch)

    def _leave_behind(self, stretch: _Stretch, keep: int, begin: int) -> None:
        left = stretch.agreement.leave_behind(keep, (begin - stretch.begin) / SAMPLE_RATE)
        stretch.before += self._words(stretch.begin, left, final=True)
        stretch.begin = begin

    def _divide(self, stretch: _Stretch) -> None:
        """Somebody speaks on and on: what was said becomes an utterance, the rest begins the next."""
        said_before = _Stretch(stretch.number, stretch.begin, stretch.begin, ended=True)
        said_before.before, said_before.passed = stretch.before, stretch.passed
        self._publish(said_before, stretch.language or "en")
        self._number += 1
        stretch.number, stretch.before = self._number, []

    def _publish(self, stretch: _Stretch, language: str | None = None) -> None:
        believed = [*stretch.before, *self._words(stretch.begin, stretch.agreement.believed, final=True)]
        guess = self._words(stretch.begin, stretch.agreement.guess, final=False)
        if not believed and not guess and not stretch.ended:
            return
        spoken = stretch.language or language or "en"
        self.said.push(
            Utterance(
                source=self.source,
                number=stretch.number,
                words=(*believed, *guess),
                ended=stretch.ended,
                heard_ns=self._ring.time_of(max(stretch.passed, stretch.end)) or 0,
                language=spoken,
                translation=stretch.translation,
            )
        )

    def _words(self, first: int, words: Sequence[TimedWord], *, final: bool) -> list[Word]:
        origin_ns = self._ring.time_of(first) or 0
        return [
            Word(
                word.text,
                origin_ns + round(word.begin_s * SECOND),
                origin_ns + round(word.end_s * SECOND),
                final,
            )
            for word in words
        ]


def _samples(seconds: float) -> int:
    return round(seconds * SAMPLE_RATE)
