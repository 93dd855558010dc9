"""How the papers tested: which utterances and classes, who is on which side, and what is counted.

A protocol refuses a speaker on two sides, with one exception: those that were published so, and they say it
in their title. Classes of a protocol take the places of the seven labels where they have one, so that a
network learnt by any protocol has the tensors of every other network.
"""

from __future__ import annotations

import tarfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from liveaffect.engines.recipe import LABELS
from liveaffect.engines.training import scores
from liveaffect.engines.training.corpora_films import AFEW_LABELS, MOSEI_LABELS, FilmTake
from liveaffect.engines.training.corpora_voices import CorpusError
from liveaffect.engines.training.splits import side_of

SHARES = "SHARES SPEAKERS"
"""Stands in the title of every protocol that has one speaker on two sides."""
THRESHOLDS = np.arange(0.05, 0.96, 0.05)
Truth = NDArray[np.bool_]
"""(items, classes)."""


@dataclass(frozen=True, slots=True)
class Fold:
    """Rows of the utterances of one training and its examination."""

    name: str
    train: tuple[int, ...]
    valid: tuple[int, ...]
    test: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Protocol:
    """One way to test."""

    name: str
    corpus: str
    title: str
    classes: Mapping[str, tuple[str, ...]]
    """Class to the corpus's own labels that count as it."""
    divide: Callable[[Protocol, Sequence[FilmTake], Path], list[Fold]]
    several: bool = False
    """Several classes may hold at once, or none."""
    shares_speakers: bool = False
    improvised: bool = False
    """Only what was not read from a script."""
    slots: tuple[int, ...] = ()
    """Which of the seven places each class takes; made from the classes' names."""

    @property
    def names(self) -> tuple[str, ...]:
        """Of the classes."""
        return tuple(self.classes)

    @property
    def slots_learnt(self) -> tuple[int, ...]:
        """Places whose class is the label that live use says there; other classes have no word live."""
        return tuple(at for at, name in zip(self.slots, self.names, strict=True) if LABELS[at] == name)

    def chosen(self, takes: Sequence[FilmTake]) -> list[FilmTake]:
        """The utterances that this protocol asks about."""
        known = {label for labels in self.classes.values() for label in labels}
        kept = [t for t in takes if self.several or known.intersection(t.labels)]
        return [t for t in kept if not self.improvised or "impro" in t.name]

    def truth(self, takes: Sequence[FilmTake]) -> Truth:
        """(utterances, classes)."""
        rows = [[bool(set(labels) & set(t.labels)) for labels in self.classes.values()] for t in takes]
        return np.array(rows, bool).reshape(len(takes), len(self.classes))

    def folds(self, takes: Sequence[FilmTake], data: Path) -> list[Fold]:
        """Every fold, after no speaker was found on two of its sides. Raises CorpusError or ValueError."""
        found = self.divide(self, takes, data)
        for fold in found:
            if not (fold.train and fold.test):
                raise CorpusError(
                    f"fold '{fold.name}' of '{self.name}' has {len(fold.train)} utterances to learn from and "
                    f"{len(fold.test)} to be tested on; is the corpus whole?"
                )
            if not self.shares_speakers:
                refuse_leak(fold, takes)
        return found


def refuse_leak(fold: Fold, takes: Sequence[FilmTake]) -> None:
    """Raise ValueError if a speaker or an utterance is on two sides."""
    sides = [{takes[row].speaker for row in rows} for rows in (fold.train, fold.valid, fold.test)]
    for one, other in ((0, 2), (1, 2), (0, 1)):
        if both := sides[one] & sides[other]:
            raise ValueError(f"fold '{fold.name}' has the speaker '{min(both)}' on two sides")


def _slots(classes: Sequence[str]) -> tuple[int, ...]:
    spare = iter(at for at, label in enumerate(LABELS) if label not in classes)
    return tuple(LABELS.index(name) if name in LABELS else next(spare) for name in classes)


def _row_numbers(kept: Iterable[bool]) -> tuple[int, ...]:
    return tuple(row for row, keep in enumerate(kept) if keep)


def _by_group(key: Callable[[FilmTake], str], count: int | None = None) -> Callable[..., list[Fold]]:
    """One fold a group, or groups dealt onto so many folds. The first speaker of the next fold is for
    validation and for nothing else."""

    def divide(protocol: Protocol, takes: Sequence[FilmTake], data: Path) -> list[Fold]:
        groups = sorted({key(take) for take in takes})
        parts = (
            [groups[at::count] for at in range(min(count, len(groups)))] if count else [[g] for g in groups]
        )
        folds = []
        for at, out in enumerate(parts):
            others = parts[(at + 1) % len(parts)]
            waiting = sorted({t.speaker for t in takes if key(t) in others and key(t) not in out})
            aside = waiting[:1] if len(parts) > 2 else []
            short = "+".join(g.rpartition("/")[2] for g in out)
            folds.append(
                Fold(
                    short if len(out) < 3 else f"{at + 1} of {len(parts)}",
                    _row_numbers(key(t) not in out and t.speaker not in aside for t in takes),
                    _row_numbers(t.speaker in aside for t in takes),
                    _row_numbers(key(t) in out for t in takes),
                )
            )
        return folds

    return divide


_LISTS = "mosei_iemocap_ids.tar.gz"


def _published_ids(protocol: Protocol, takes: Sequence[FilmTake], data: Path) -> list[Fold]:
    corpus = protocol.corpus.upper()
    wanted = {part: set(_id_list(data, f"{corpus}_{part}.txt")) for part in ("train", "valid", "test")}
    return [
        Fold(
            "published",
            *(_row_numbers(t.name in wanted[part] for t in takes) for part in ("train", "valid", "test")),
        )
    ]


def _id_list(data: Path, name: str) -> list[str]:
    """A list of utterances, as files or in the archive, in the data folder, beside it or in `splits`."""
    for place in (data, data / "splits", data.parent / "splits", data.parent):
        if (place / "mosei_iemocap_splits" / name).exists():
            return (place / "mosei_iemocap_splits" / name).read_text("utf-8").split()
        if (place / name).exists():
            return (place / name).read_text("utf-8").split()
        if (place / _LISTS).exists():
            with tarfile.open(place / _LISTS) as tar:
                stream = tar.extractfile(f"mosei_iemocap_splits/{name}")
                return stream.read().decode().split() if stream else []
    raise CorpusError(f"there is no list {name} of the published split; put {_LISTS} beside {data}")


def _published_parts(protocol: Protocol, takes: Sequence[FilmTake], data: Path) -> list[Fold]:
    """The publishers' parts. Where they give no test side, validation is tested on and a part of what is
    learnt from, drawn by hash, takes its place."""
    if any(take.part == "test" for take in takes):
        return [
            Fold(
                "published",
                *(_row_numbers(t.part == part for t in takes) for part in ("train", "valid", "test")),
            )
        ]
    aside = {t.name for t in takes if t.part == "train" and side_of(t.speaker, calibrate=0.15) == "calibrate"}
    return [
        Fold(
            "published",
            _row_numbers(t.part == "train" and t.name not in aside for t in takes),
            _row_numbers(t.name in aside for t in takes),
            _row_numbers(t.part == "valid" for t in takes),
        )
    ]


_SIX = {
    "angry": ("ang",),
    "excited": ("exc",),
    "frustrated": ("fru",),
    "happy": ("hap",),
    "neutral": ("neu",),
    "sad": ("sad",),
}
_FOUR = {"angry": ("ang",), "happy": ("hap",), "neutral": ("neu",), "sad": ("sad",)}
_OURS = {"Angry": "angry", "Disgust": "disgusted", "Fear": "fearful", "Happy": "happy", "Neutral": "neutral"}
_OURS |= {"Sad": "sad", "Surprise": "surprised", "anger": "angry", "disgust": "disgusted", "fear": "fearful"}
_OURS |= {"happiness": "happy", "sadness": "sad", "surprise": "surprised", "joy": "happy"}
_OURS |= {"neutral": "neutral"}
_MELD = ("anger", "disgust", "fear", "joy", "neutral", "sadness", "surprise")
_RAVDESS: dict[str, tuple[str, ...]] = {
    label: (f"{code:02d}",) for code, label in enumerate(("happy", "sad", "angry"), 3)
}
_RAVDESS |= {label: (f"{code:02d}",) for code, label in enumerate(("fearful", "disgusted", "surprised"), 6)}
_RAVDESS |= {"neutral": ("01", "02")}
_CREMA = dict(
    zip(
        ("neutral", "happy", "sad", "angry", "fearful", "disgusted"),
        ("NEU", "HAP", "SAD", "ANG", "FEA", "DIS"),
        strict=True,
    )
)


def _by_our_names(labels: Sequence[str]) -> dict[str, tuple[str, ...]]:
    return {_OURS[label]: (label,) for label in labels}


def _speaker(take: FilmTake) -> str:
    return take.speaker


def _session(take: FilmTake) -> str:
    return take.session


def _known(*protocols: Protocol) -> dict[str, Protocol]:
    from dataclasses import replace

    return {one.name: replace(one, slots=_slots(one.names)) for one in protocols}


PROTOCOLS = _known(
    Protocol(
        "iemocap-4-session",
        "iemocap",
        "IEMOCAP, four classes, improvised, one session left out",
        _FOUR,
        _by_group(_session),
        improvised=True,
    ),
    Protocol(
        "iemocap-4-speaker",
        "iemocap",
        "IEMOCAP, four classes (happy with excited), one of ten speakers left out",
        {**_FOUR, "happy": ("hap", "exc")},
        _by_group(_speaker),
    ),
    Protocol(
        "iemocap-6-session",
        "iemocap",
        "IEMOCAP, six classes, one session left out",
        _SIX,
        _by_group(_session),
    ),
    Protocol(
        "iemocap-6-published",
        "iemocap",
        f"IEMOCAP, six classes, the split of the FV2ES line, which {SHARES} AND DIALOGUES",
        _SIX,
        _published_ids,
        shares_speakers=True,
    ),
    Protocol(
        "mosei-6",
        "mosei",
        "CMU-MOSEI, six emotions each yes or no, published split, no film on two sides",
        _by_our_names(MOSEI_LABELS),
        _published_ids,
        several=True,
    ),
    Protocol(
        "afew-7",
        "afew",
        "AFEW, seven classes, learnt from Train, tested on Val; who speaks is told nowhere",
        _by_our_names(AFEW_LABELS),
        _published_parts,
    ),
    Protocol("ravdess-7", "ravdess", "RAVDESS films, seven classes, five folds of actors", _RAVDESS,
             _by_group(_speaker, 5)),
    Protocol("crema-d-6", "crema-d", "CREMA-D, six classes, five folds of actors",
             {label: (code,) for label, code in _CREMA.items()}, _by_group(_speaker, 5)),
    Protocol(
        "meld-7",
        "meld",
        f"MELD, seven classes, published parts, which {SHARES}",
        _by_our_names(_MELD),
        _published_parts,
        shares_speakers=True,
    ),
)  # fmt: skip
"""Speaker-independent ones first: that is the order of every table."""


def protocols_of(corpus: str) -> list[Protocol]:
    """Those that test on a corpus, the most honest first."""
    return [one for one in PROTOCOLS.values() if one.corpus == corpus]


def thresholds_from(truth: Truth, shares: NDArray[np.floating]) -> NDArray[np.float64]:
    """The threshold of each class that gives the best F1 on validation; half where nothing tells."""
    found = np.full(truth.shape[1], 0.5)
    for at in range(truth.shape[1]):
        if truth[:, at].any():
            f1 = [_f1(truth[:, at], shares[:, at] > one) for one in THRESHOLDS]
            found[at] = THRESHOLDS[int(np.argmax(f1))]
    return found


def binary_figures(truth: Truth, said: Truth, shares: NDArray[np.floating]) -> dict[str, Any]:
    """Plain and weighted accuracy, F1 and AUC of each class against all others, and their means."""
    each = {key: _class_figures(key, truth, said, shares) for key in BINARY}
    return {"each": each, "mean": {key: _mean(values) for key, values in each.items()}}


def _class_figures(key: str, truth: Truth, said: Truth, shares: NDArray[np.floating]) -> list[float | None]:
    return [BINARY[key](truth[:, at], said[:, at], shares[:, at]) for at in range(truth.shape[1])]


def drawn_interval(
    groups: Sequence[str], measure: Callable[[NDArray[np.int64]], float], *, rounds: int = 1000
) -> tuple[float, float]:
    """What 95 of 100 samples of whole speakers, drawn anew, would have given."""
    draws = scores.bootstrap(len(groups), groups, rounds, 0)
    low, high = np.nanpercentile([measure(at) for at in draws], [2.5, 97.5])
    return float(low), float(high)


def judged(
    protocol: Protocol,
    truth: Truth,
    shares: NDArray[np.floating],
    said: Truth,
    groups: Sequence[str],
    *,
    rounds: int = 1000,
) -> dict[str, Any]:
    """Every figure of one set of answers: binary ones always, recall of the classes where one holds."""
    found = binary_figures(truth, said, shares)

    def mean_of(key: str) -> Callable[[NDArray[np.int64]], float]:
        return lambda at: _mean(_class_figures(key, truth[at], said[at], shares[at])) or 0.0

    found["weighted_accuracy_between"] = drawn_interval(
        groups, mean_of("weighted_accuracy"), rounds=min(rounds, 200)
    )
    found["f1_between"] = drawn_interval(groups, mean_of("f1"), rounds=min(rounds, 200))
    if not protocol.several:
        one = scores.score(truth.argmax(1), shares, groups=groups, rounds=rounds)
        found["classes"] = one.to_json()
    found["items"] = len(truth)
    return found


def baselines(protocol: Protocol, train: Truth, truth: Truth, groups: Sequence[str]) -> dict[str, Any]:
    """What those reach who hear and see nothing: no everywhere, and always the commonest of training."""
    nothing = np.zeros(truth.shape)
    commonest = np.zeros(truth.shape)
    commonest[:, int(train.sum(0).argmax())] = 1.0
    return {
        "all negative": judged(protocol, truth, nothing, nothing > 0.5, groups, rounds=200),
        "majority": judged(protocol, truth, commonest, commonest > 0.5, groups, rounds=200),
    }


def _balanced(truth: NDArray[np.bool_], said: NDArray[np.bool_]) -> float | None:
    if truth.all() or not truth.any():
        return None
    return float((said[truth].mean() + (~said[~truth]).mean()) / 2)


def _f1(truth: NDArray[np.bool_], said: NDArray[np.bool_]) -> float:
    both = int((truth & said).sum())
    return 2 * both / max(int(truth.sum()) + int(said.sum()), 1)


def _mean(values: Sequence[float | None]) -> float | None:
    there = [value for value in values if value is not None]
    return float(np.mean(there)) if there else None


Column = NDArray[Any]
BINARY: Mapping[str, Callable[[Column, Column, Column], float | None]] = {
    "accuracy": lambda truth, said, shares: float((truth == said).mean()),
    "weighted_accuracy": lambda truth, said, shares: _balanced(truth, said),
    "f1": lambda truth, said, shares: _f1(truth, said),
    "auc": lambda truth, said, shares: scores.area_under_curve(truth, shares),
}
"""Figures of one class: what is true, what was said and how likely it was held."""
