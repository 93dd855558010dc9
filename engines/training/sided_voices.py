"""Every recording there is, on its side by its speaker: to train on, to calibrate on, to test on.

Sides follow from the hash of a speaker's name. Half a dozen speakers make a coarse dice, so the shares of a
small corpus are far from what was asked for; that is the price of sides that nobody ever chose.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from liveaffect.engines.recipe import LABELS
from liveaffect.engines.training import corpora_voices, sound_store, splits
from liveaffect.engines.training.corpora_voices import Take
from liveaffect.engines.training.listen import Heard
from liveaffect.engines.training.replay_statistics import Replay
from liveaffect.engines.training.scores import unweighted_recall
from liveaffect.engines.training.voice_batches import Recording, recorded

CALIBRATE_SHARE, TEST_SHARE = 0.15, 0.15
SMOKE_SPEAKERS, SMOKE_TAKES = 2, 24
"""Of each side and corpus, and of each of those speakers."""
UNHEARD = len(LABELS)
"""The column of `pooled_scores` for recordings in which no speech was heard."""


@dataclass(frozen=True, slots=True, eq=False)
class RecordedVoices:
    """All recordings, as one network's front end hears them."""

    sides: Mapping[str, list[Recording]]
    corpora: tuple[str, ...]
    digest: str
    """Of all sides, as frozen."""


def sided(
    takes: Mapping[str, Sequence[Take]], frozen: Path, *, add: bool = True
) -> tuple[dict[str, str], str]:
    """The side of every speaker, after the sides were found to be those frozen in a file; and their digest.

    `add` freezes a corpus that the file does not know yet.
    """
    sides, digests = {}, []
    for corpus, these in takes.items():
        for take in these:
            sides[take.speaker] = splits.side_of(take.speaker, calibrate=CALIBRATE_SHARE, test=TEST_SHARE)
        members = [splits.Member(take.name, take.speaker, sides[take.speaker]) for take in these]
        digests.append(splits.freeze(frozen, corpus, members, add=add))
    return sides, hashlib.sha256("".join(digests).encode()).hexdigest()


def voices(
    takes: Mapping[str, Sequence[Take]],
    sides: tuple[dict[str, str], str],
    replay: Replay,
    cache: Path,
    report: Callable[[str], None],
) -> RecordedVoices:
    """Decode takes, or find them decoded, and compute their log spectra."""
    parts: dict[str, list[Recording]] = {side: [] for side in splits.SIDES}
    for these in takes.values():
        for recording in recorded(these, sound_store.load_takes(these, cache, report), replay):
            if recording.take is not None:
                parts[sides[0][recording.take.speaker]].append(recording)
    return RecordedVoices(parts, tuple(takes), sides[1])


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


def of_corpora(recordings: Sequence[Recording]) -> dict[str, list[int]]:
    """Which recordings belong to which corpus."""
    found: dict[str, list[int]] = {}
    for index, one in enumerate(recordings):
        if one.take is not None:
            found.setdefault(one.take.corpus, []).append(index)
    return found


def recalls(recordings: Sequence[Recording], answers: Sequence[Heard]) -> dict[str, float]:
    """Unweighted recall of each corpus, among the labels that it has."""
    found = {}
    for corpus, at in of_corpora(recordings).items():
        truth = np.array([recordings[i].label for i in at])
        scores = pooled_scores([answers[i] for i in at], np.unique(truth))
        found[f"recall_{corpus}"] = unweighted_recall(truth, scores.argmax(1), scores.shape[1])
    return found


def pooled_scores(answers: Sequence[Heard], among: NDArray[np.int64]) -> NDArray[np.float64]:
    """(n, 8): probabilities of the labels that a corpus has, and of having heard no speech at all."""
    scores = np.zeros((len(answers), UNHEARD + 1))
    for row, answer in zip(scores, answers, strict=True):
        pooled = answer.pooled()
        if pooled is None:
            row[UNHEARD] = 1.0
            continue
        raised = np.exp(pooled[among] - pooled[among].max())
        row[among] = raised / raised.sum()
    return scores
