"""What somebody said between two pauses, and which words of a guess are to be believed. Pure.

Whisper hears a stretch that grows, so it guesses again and again, and what stands near the cut is often
wrong. A word is believed where two guesses that end at different moments agree on it, and those before it.
What it makes of noise and of silence, and where it says the same again and again, is known and taken out
here, before anybody sees it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from liveaffect.engines.protocol import HeardWords, TimedWord

NEAR_CUT_S = 0.15
"""A word that ends so close to the cut may be half of one."""
LEAST_SURENESS = -1.1
"""A guess less sure than this is no speech; Whisper's own bound is about the same."""
SILENT, UNSURE = 0.6, -0.6
"""A guess is dropped if it is likely silence and not quite sure."""
FASTEST_WORDS_S = 7.0
"""No more words a second of speech than this."""
LEAST_WORD_S = 0.05
"""Words that share less time than this each were not said there."""
LONGEST_LOOP = 12
MOST_AGAIN, AGAIN_S = 3, 0.1
"""So many believed words may come again, when times differ by so much between two guesses."""
FILLERS = re.compile(
    "(you|bye|bye bye|thank you( (very|so) much)?|thanks|(thanks|thank you) for watching|please subscribe"
    "|the end|so|oh|okay|i'm sorry|music|applause|silence)( \\1)*"
)
"""What Whisper writes where nobody says anything."""
FILLER_SURENESS, FILLER_SILENCE, FILLER_SPEECH_S = -0.45, 0.3, 0.4
"""These words count only when they are sure, far from silence, and long enough."""


@dataclass(frozen=True, slots=True)
class Word:
    """One word and when it was said."""

    text: str
    begin_ns: int
    end_ns: int
    final: bool
    """False: a guess that may change."""


@dataclass(frozen=True, slots=True)
class Utterance:
    """What one microphone heard between two pauses, as far as it is known."""

    source: str
    number: int
    """The next one has the next number; a later form of the same one keeps it."""
    words: tuple[Word, ...]
    """Those that are believed, then the guess."""
    ended: bool
    heard_ns: int
    """When the newest sound behind it was captured."""
    language: str = "en"
    translation: str = ""
    """In English, where another language was spoken and the Whisper of this run can translate."""


def plain(text: str) -> str:
    """Letters and digits alone, to compare words."""
    return re.sub(r"[^\w']", "", text.lower())


def said(words: Sequence[TimedWord]) -> str:
    """The words as one line."""
    return "".join(word.text for word in words).strip()


def plausible(heard: HeardWords, speech_s: float) -> tuple[TimedWord, ...]:
    """The words that somebody can have said in so much speech."""
    new = heard.words
    if not new:
        return ()
    if heard.sureness < LEAST_SURENESS or (heard.silence > SILENT and heard.sureness < UNSURE):
        return ()
    if FILLERS.fullmatch(" ".join(plain(word.text) for word in new)):
        sure = heard.sureness >= FILLER_SURENESS and heard.silence <= FILLER_SILENCE
        if not sure or speech_s < FILLER_SPEECH_S:
            return ()
    new = without_loops(new)
    while new and (new[-1].end_s - new[-1].begin_s < LEAST_WORD_S or new[-1].begin_s >= speech_s):
        new = new[:-1]  # Whisper begins the sentence again where there is no sound left for it
    return new[: max(1, round(FASTEST_WORDS_S * speech_s))]


def without_loops(words: Sequence[TimedWord]) -> tuple[TimedWord, ...]:
    """Up to where the same words come again in no time, or for the third time."""
    texts = [plain(word.text) for word in words]
    for end in range(2, len(texts) + 1):
        for length in range(1, min(LONGEST_LOOP, end // 2) + 1):
            last, before = words[end - length : end], words[end - 2 * length : end - length]
            if texts[end - length : end] != texts[end - 2 * length : end - length]:
                continue
            shortest = min(part[-1].end_s - part[0].begin_s for part in (last, before)) / length
            thrice = texts[end - length : end] == texts[max(0, end - 3 * length) : end - 2 * length]
            if shortest < LEAST_WORD_S or (thrice and length > 1) or (thrice and shortest < 2 * LEAST_WORD_S):
                return tuple(words[: end - length])
    return tuple(words)


class Agreement:
    """The believed words of one stretch and the guess behind them; seconds from its first sample."""

    def __init__(self) -> None:
        self.believed: tuple[TimedWord, ...] = ()
        self.guess: tuple[TimedWord, ...] = ()

    def take(self, words: Sequence[TimedWord], cut_s: float) -> None:
        """A guess of all words; what follows the believed ones and the last guess also said is believed."""
        new, count = words[self._known(words) :], 0
        for word, before in zip(new, self.guess, strict=False):
            if plain(word.text) != plain(before.text) or word.end_s > cut_s - NEAR_CUT_S:
                break
            count += 1
        self.believed, self.guess = (*self.believed, *new[:count]), tuple(new[count:])

    def _known(self, words: Sequence[TimedWord]) -> int:
        """How many of them are the believed ones once more: by their time, and said again behind it."""
        if not self.believed:
            return 0
        end_s = self.believed[-1].end_s
        count = sum(word.begin_s + word.end_s < 2 * end_s for word in words)
        told = [plain(word.text) for word in self.believed]
        for length in range(min(len(told), len(words) - count, MOST_AGAIN), 0, -1):
            again = words[count : count + length]
            if [plain(word.text) for word in again] == told[-length:] and again[0].begin_s < end_s + AGAIN_S:
                return count + length
        return count

    def settle(self, words: Sequence[TimedWord]) -> None:
        """All words, heard up to a pause: nothing was cut, so they are better than those before."""
        self.believed, self.guess = tuple(words), ()

    def leave_behind(self, count: int, by_s: float) -> tuple[TimedWord, ...]:
        """The stretch begins `by_s` later, behind so many believed words; they are returned."""
        left = self.believed[:count]
        self.believed = tuple(later(word, -by_s) for word in self.believed[count:])
        self.guess = tuple(later(word, -by_s) for word in self.guess)
        return left


def later(word: TimedWord, by_s: float) -> TimedWord:
    """The same word when time begins so much sooner."""
    return replace(word, begin_s=max(0.0, word.begin_s + by_s), end_s=max(0.0, word.end_s + by_s))
