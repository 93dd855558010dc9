"""Every recording there is, on its side by its speaker: to train on, to calibrate on, to test on.

Sides follow from the hash of a speaker's name. Half a dozen speakers make a coarse dice, so the shares of a
small corpus are far from what was asked for; that is the price of sides that nobody ever chose.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path

from liveaffect.engines.training import corpora_voices, splits
from liveaffect.engines.training.corpora_voices import Take

CALIBRATE_SHARE, TEST_SHARE = 0.15, 0.15
SMOKE_SPEAKERS, SMOKE_TAKES = 2, 24
"""Of each side and corpus, and of each of those speakers."""


def voice_side(speaker: str) -> str:
    """The side of a speaker, for ever the same."""
    return splits.side_of(speaker, calibrate=CALIBRATE_SHARE, test=TEST_SHARE)


def sided(
    takes: Mapping[str, Sequence[Take]], frozen: Path, *, add: bool = True
) -> tuple[dict[str, str], str]:
    """The side of every speaker, after the sides were found to be those frozen in a file; and their digest.

    `add` freezes a corpus that the file does not know yet.
    """
    sides: dict[str, str] = {}
    digests = []
    for corpus, these in takes.items():
        sides |= {take.speaker: voice_side(take.speaker) for take in these}
        members = [splits.Member(take.name, take.speaker, sides[take.speaker]) for take in these]
        digests.append(splits.freeze(frozen, corpus, members, add=add))
    return sides, hashlib.sha256("".join(digests).encode()).hexdigest()


def on_side(takes: Mapping[str, Sequence[Take]], side: str, frozen: Path) -> dict[str, list[Take]]:
    """The takes of one side, corpora without any left out; the sides must be those frozen."""
    sides, _ = sided(takes, frozen, add=False)
    held = {corpus: [t for t in these if sides[t.speaker] == side] for corpus, these in takes.items()}
    return {corpus: these for corpus, these in held.items() if these}


def found_in(data: Path) -> dict[str, list[Take]]:
    """Every take of every corpus in a data folder."""
    return {
        corpus: corpora_voices.read_corpus(corpus, path) for corpus, path in corpora_voices.find(data).items()
    }


def few(takes: Sequence[Take], sides: Mapping[str, str]) -> list[Take]:
    """Some takes of a few speakers of every side, to see that everything works."""
    chosen: list[Take] = []
    for side in splits.SIDES:
        speakers = dict.fromkeys(take.speaker for take in takes if sides[take.speaker] == side)
        for speaker in list(speakers)[:SMOKE_SPEAKERS]:
            mine = [take for take in takes if take.speaker == speaker]
            chosen += mine[:: max(1, len(mine) // SMOKE_TAKES)][:SMOKE_TAKES]
    return chosen
