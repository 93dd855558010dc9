"""Real pairs of face and voice: takes of RAVDESS whose facial action units and whose sound are both at hand.

The films cannot be had, the action units can: 35 numbers a take, measured by others on the film whose sound
we have. They stand in for a face network's input, so that a fusion is judged on a face and a voice that
belong together. Pairs of equal label from different people would be independent by construction, and no
figure about fusion could be had from them.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from liveaffect.engines.recipe import CORPUS_LABELS, LABELS
from liveaffect.engines.training import splits
from liveaffect.engines.training.corpora_voices import PATTERNS, CorpusError
from liveaffect.engines.training.sided_voices import CALIBRATE_SHARE, TEST_SHARE

PLACE = "av/au_mfcc.npz"
FOLDS = 5


@dataclass(frozen=True, slots=True, eq=False)
class Pairs:
    """Takes in the order of their names; one row each."""

    names: tuple[str, ...]
    """What film and sound have in common: 'channel-emotion-intensity-statement-repetition-actor'."""
    actors: tuple[str, ...]
    """As speakers are called elsewhere, such as 'ravdess/01'."""
    truth: NDArray[np.int64]
    face: NDArray[np.float32]
    """(n, 35): means of facial action units."""
    sound: NDArray[np.float32]
    """(n, 259): statistics of the sound, for a quick stand-in of a voice network."""

    def __len__(self) -> int:
        return len(self.names)

    @property
    def folds(self) -> NDArray[np.int64]:
        """Fold k holds out every k-th four of the actors in the order of their names."""
        order = {actor: at for at, actor in enumerate(sorted(set(self.actors)))}
        size = max(1, -(-len(order) // FOLDS))
        return np.array([order[actor] // size for actor in self.actors])

    @property
    def sides(self) -> NDArray[np.str_]:
        """The side of each take's actor, the same as for voices."""
        return np.array(
            [splits.side_of(actor, calibrate=CALIBRATE_SHARE, test=TEST_SHARE) for actor in self.actors]
        )


def read(data: Path) -> Pairs:
    """The pairs in a data folder. Raises CorpusError if the file is missing, damaged or holds other takes."""
    path = data / PLACE
    try:
        with np.load(path) as kept:
            clips, face, sound = (kept[name] for name in ("clip", "au", "mfcc"))
    except FileNotFoundError:
        raise CorpusError(f"there are no pairs of face and voice: looked for {path}") from None
    except (OSError, ValueError, KeyError) as err:
        raise CorpusError(f"the pairs {path} are damaged: {err}; copy the file again") from err
    if not len(clips) == len(face) == len(sound) or not np.isfinite(face).all():
        raise CorpusError(f"the pairs {path} are damaged: {len(clips)} names, {len(face)} faces; copy again")
    order = np.argsort(clips)
    found = [PATTERNS["ravdess"].fullmatch(str(clip)) for clip in clips[order]]
    if bad := [str(clip) for clip, match in zip(clips[order], found, strict=True) if match is None]:
        raise CorpusError(f"{path} holds takes that are not of RAVDESS, the first is '{bad[0]}'")
    matches = [match for match in found if match is not None]
    labels = [CORPUS_LABELS["ravdess"][match["label"]] for match in matches]
    return Pairs(
        names=tuple(str(clip)[3:] for clip in clips[order]),
        actors=tuple(f"ravdess/{match['speaker']}" for match in matches),
        truth=np.array([LABELS.index(str(label)) for label in labels]),
        face=face[order].astype(np.float32),
        sound=np.nan_to_num(sound[order]).astype(np.float32),
    )
