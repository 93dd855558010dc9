"""Who said which words, and what they say of that person: words join faces and voices here.

A word belongs to whomever the attribution of voices named while it was said; what was named for nobody in
view is nobody's. Attribution looks back a second, so a word is given its owner by the moments a little after
it, and keeps it: captions do not jump. The emotion is that of the last words of one person.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from liveaffect.realtime import cue
from liveaffect.realtime.attribution import Voice
from liveaffect.realtime.clock import MS, SECOND
from liveaffect.realtime.cue import Caption
from liveaffect.realtime.estimate import SpokenEvidence
from liveaffect.realtime.utterance import Utterance, Word

LATER_NS = 300 * MS
"""Attribution names a new talker about so much after their first word."""
HISTORY_NS = 30 * SECOND
SHOWN_NS = 4 * SECOND
"""A caption stays so long after its last word."""
JUDGED_WORDS = 24
"""The emotion of words is that of the last so many."""
KEPT_UTTERANCES = 4


@dataclass(slots=True, eq=False)
class _Said:
    """An utterance in its newest form, and the owners that its words were given."""

    utterance: Utterance
    owners: dict[int, int | None] = field(default_factory=dict)


class SpokenWords:
    """One microphone's words and their owners. One caller."""

    def __init__(self, source: str, judge: Callable[[str], Sequence[float] | None]) -> None:
        self.source = source
        self._judge = judge
        self._voices: deque[tuple[int, Voice]] = deque()
        self._said: deque[_Said] = deque(maxlen=KEPT_UTTERANCES)
        self._judged: dict[int | None, tuple[str, SpokenEvidence | None]] = {}

    def hear(self, now_ns: int, voice: Voice, forms: Iterable[Utterance]) -> None:
        """Whose voice it is at a grid point, and what was heard since the last one."""
        self._voices.append((now_ns, voice))
        while self._voices[0][0] < now_ns - HISTORY_NS:
            self._voices.popleft()
        for form in forms:
            known = next((one for one in self._said if one.utterance.number == form.number), None)
            if known is None:
                self._said.append(_Said(form))
            else:
                known.utterance = form
        for one in self._said:
            self._give(one, now_ns)

    def forget(self, track: int) -> None:
        """A person left: what they said is nobody's."""
        self._judged.pop(track, None)
        for one in self._said:
            one.owners = {at: None if owner == track else owner for at, owner in one.owners.items()}

    def captions(self, now_ns: int) -> list[Caption]:
        """What is shown now, of everybody who spoke lately."""
        found: dict[int | None, tuple[list[str], list[str]]] = {}
        for one in self._said:
            lately: dict[int | None, tuple[list[str], list[str]]] = {}
            ended_ns: dict[int | None, int] = {}
            for at, word in enumerate(one.utterance.words):
                owner = one.owners.get(at)
                parts = lately.setdefault(owner, ([], []))
                parts[0 if word.final else 1].append(word.text)
                is_last = at + 1 == len(one.utterance.words)
                ended_ns[owner] = max(word.end_ns, one.utterance.heard_ns) if is_last else word.end_ns
            found |= {owner: lately[owner] for owner, ns in ended_ns.items() if now_ns - ns <= SHOWN_NS}
        return [
            Caption(self.source, track, "".join(text).strip(), "".join(guess).strip())
            for track, (text, guess) in found.items()
        ]

    def evidence(self, track: int | None, now_ns: int) -> SpokenEvidence | None:
        """What that person's last believed words tell, as long as it counts."""
        words = self._last_words(track)
        if not words or not cue.WORDS.holds(cue.age_ns(now_ns, words[-1].end_ns)):
            return None
        text = self._text(words)
        before = self._judged.get(track)
        if before is None or before[0] != text:
            logits = self._judge(text)
            found = None
            if logits is not None:
                found = SpokenEvidence(words[-1].end_ns, np.asarray(logits, np.float64))
            before = self._judged[track] = (text, found)
        return before[1]

    def text(self, track: int | None, now_ns: int) -> str | None:
        """The last utterance of that person, as believed; None if it is long ago."""
        for caption in self.captions(now_ns):
            if caption.track == track and caption.text:
                return caption.text
        return None

    def _last_words(self, track: int | None) -> list[Word]:
        for one in reversed(self._said):
            words = [
                word
                for at, word in enumerate(one.utterance.words)
                if word.final and one.owners.get(at) == track
            ]
            if words:
                return words[-JUDGED_WORDS:]
        return []

    def _text(self, words: Sequence[Word]) -> str:
        """In English; nothing where another language was spoken that nobody translated."""
        for one in reversed(self._said):
            if words[-1] in one.utterance.words and one.utterance.language != "en":
                return one.utterance.translation
        return "".join(word.text for word in words).strip()

    def _give(self, one: _Said, now_ns: int) -> None:
        """An owner for every word that was said long enough ago, or that ends the utterance."""
        for at, word in enumerate(one.utterance.words):
            if at in one.owners and one.owners[at] is not None:
                continue
            named = self._named(word.begin_ns, word.end_ns + LATER_NS)
            if named is not None:
                one.owners[at] = named
            elif at and one.owners.get(at - 1) is not None and now_ns - word.end_ns < LATER_NS:
                one.owners[at] = one.owners[at - 1]

    def _named(self, begin_ns: int, end_ns: int) -> int | None:
        """The track that was named most often in that time, if more often than nobody in view."""
        votes: dict[int | None, int] = {}
        for at_ns, voice in self._voices:
            if begin_ns <= at_ns <= end_ns and voice.state in ("track", "nobody in view"):
                votes[voice.track] = votes.get(voice.track, 0) + 1
        return max(votes, key=lambda track: votes[track]) if votes else None
