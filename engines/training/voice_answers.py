"""What voice networks said about recordings of people they never heard, as tables that figures are made from.

One line a recording, once heard from cold and once after others of its speaker: logits of the whole, and the
label it was called after so much speech. Empty logits are of labels that were not asked for; a line without
any is a recording in which no speech was heard, which counts as wrong.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from liveaffect.engines.recipe import LABELS
from liveaffect.engines.training.corpora_voices import Take
from liveaffect.engines.training.listen import Heard
from liveaffect.engines.training.scores import unweighted_recall

COLD, KNOWN = "cold", "known"
DECIMALS = 2
UNHEARD = -1
"""The label of a recording in which no speech was heard."""
FOLDS_OF = "folds/{preset}/{run}-seed0.csv"
"""What the answers of one run of folds are called in an archive."""
_KEYS = ("corpus", "speaker", "name", "known", "truth")
_EARLY = "after_"


@dataclass(frozen=True, slots=True)
class VoiceAnswer:
    """One recording, heard once."""

    corpus: str
    speaker: str
    name: str
    known: str
    """'cold' or 'known'."""
    truth: int
    logits: tuple[float, ...]
    """Less the highest; NaN where the label was not asked for; all NaN where no speech was heard."""
    early: tuple[tuple[str, int], ...]
    """Such as 'after_1s', and the label it was called then."""

    @property
    def called(self) -> int:
        """The label of the whole recording."""
        return UNHEARD if np.isnan(self.logits).all() else int(np.nanargmax(self.logits))


def answer_of(
    take: Take, heard: Heard, among: NDArray[np.int64], known: bool, early_s: Sequence[float]
) -> VoiceAnswer:
    """What was said of a recording whose corpus has some of the labels."""
    logits = np.full(len(LABELS), np.nan)
    if (whole := heard.pooled()) is not None:
        # Rounded as in the table, so that the table gives exactly these figures again.
        logits[among] = np.round(whole[among] - whole[among].max(), DECIMALS)
    early = tuple((f"{_EARLY}{s:g}s", called_among(heard, among, s)) for s in early_s)
    truth = LABELS.index(take.label)
    return VoiceAnswer(
        take.corpus,
        take.speaker,
        take.name,
        KNOWN if known else COLD,
        truth,
        tuple(logits.tolist()),
        early,
    )


def called_among(heard: Heard, among: NDArray[np.int64], speech_s: float = float("inf")) -> int:
    """The highest of some labels after so much speech."""
    pooled = heard.pooled(speech_s)
    return UNHEARD if pooled is None else int(among[pooled[among].argmax()])


def write_answers(answers: Sequence[VoiceAnswer], decimals: int = DECIMALS) -> str:
    """A table. One decimal of the logits is enough for what is called."""
    out = io.StringIO()
    table = csv.writer(out, lineterminator="\n")
    table.writerow([*_KEYS, *LABELS, *(name for name, _ in answers[0].early)])
    for one in answers:
        numbers = ["" if np.isnan(x) else f"{x:.{decimals}f}" for x in one.logits]
        who = [one.corpus, one.speaker, one.name, one.known, one.truth]
        table.writerow([*who, *numbers, *(label for _, label in one.early)])
    return out.getvalue()


def read_answers(text: str) -> list[VoiceAnswer]:
    """A table. Raises ValueError if it is none."""
    rows = list(csv.DictReader(io.StringIO(text)))
    if not rows or tuple(rows[0])[: len(_KEYS)] != _KEYS:
        raise ValueError(f"no table of voices: it must begin with the columns {', '.join(_KEYS)}")
    early = [name for name in rows[0] if name.startswith(_EARLY)]
    return [
        VoiceAnswer(
            **{key: row[key] for key in _KEYS[:-1]},
            truth=int(row["truth"]),
            logits=tuple(float(row[label] or "nan") for label in LABELS),
            early=tuple((name, int(row[name])) for name in early),
        )
        for row in rows
    ]


def recalls(answers: Iterable[VoiceAnswer]) -> tuple[float, ...]:
    """Unweighted recall of whole recordings, and after each amount of speech."""
    these = list(answers)
    truth = np.array([one.truth for one in these])
    calls = [[one.called for one in these]]
    calls += [[one.early[at][1] for one in these] for at in range(len(these[0].early))]
    wrong = len(LABELS)
    return tuple(
        unweighted_recall(truth, np.where(np.array(call) == UNHEARD, wrong, call), wrong + 1)
        for call in calls
    )
