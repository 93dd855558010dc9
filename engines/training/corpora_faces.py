"""Reads corpora of face pictures: FER+ in one file or as its publishers lay it out, and plain folders.

Everybody's votes are kept, because a face on which ten people disagree is not wrong nine times: a picture's
label is a distribution over the seven. What the votes say outside the seven (contempt, no idea, no face) is
left out by one rule, in `soft_labels`. Pictures are kept grey, as the largest corpus has no colour.

Every face lies on one side: to train on, to calibrate on, to test on. A corpus's own test split stays one. Of
what it trains on, a tenth is kept back to calibrate; corpora without a split give a tenth of their persons to
each.
"""

from __future__ import annotations

import csv
import hashlib
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from liveaffect.engines.recipe import CORPUS_LABELS, CROP_SIZE, LABELS
from liveaffect.engines.training import splits
from liveaffect.engines.training.augment_faces import grey_crops
from liveaffect.engines.training.corpora_voices import CorpusError

FERPLUS, PLAIN = "fer+", "plain"
FERPLUS_FILE = "faces/fer2013plus.npz"
FERPLUS_VOTES, FER2013_PIXELS = "fer2013new.csv", "fer2013.csv"
PICTURE_ENDINGS = (".png", ".jpg", ".jpeg", ".webp", ".bmp")
LICENCES = {
    FERPLUS: "votes MIT; the pictures come from a web search and carry no licence",
    PLAIN: "the user's own",
}
SIDE_PX = 48
KEPT_BACK = 0.1
_USAGE = {"Training": ("train", "FER2013Train"), "PublicTest": ("test", "FER2013Valid")}
"""Split and folder. The third part of FER+, PrivateTest, is the public benchmark's and is not read."""
_COLUMNS = tuple(CORPUS_LABELS[FERPLUS])


@dataclass(frozen=True, slots=True, eq=False)
class Faces:
    """Pictures of faces with what people saw in them."""

    corpus: str
    names: tuple[str, ...]
    """Unique within the corpus."""
    groups: tuple[str, ...]
    """What must never lie on two sides of a split: the person, or where nobody knows, the picture itself."""
    pictures: NDArray[np.uint8]
    """(n, side, side), grey, eyes where the crop template puts them."""
    soft: NDArray[np.float32]
    """(n, 7), sums of one; all zero where the seven do not describe the picture."""
    label: NDArray[np.int64]
    """What most people saw, -1 where that is none of the seven."""
    sides: tuple[str | None, ...]
    """'train' or 'test' by the corpus's own split, None where it has none."""
    placing: NDArray[np.float64] | None = None
    """(n, 2, 3), where the live finder would cut each out, NaN where it finds no face; None if unknown."""
    agreed: NDArray[np.bool_] | None = None
    """On which more than half of the votes are for the label: FER+'s own rule; None where nobody voted."""

    def __len__(self) -> int:
        return len(self.names)

    def take(self, chosen: NDArray[np.bool_] | NDArray[np.int64]) -> Faces:
        """Some of them, in that order."""
        at = np.flatnonzero(chosen) if chosen.dtype == np.bool_ else chosen
        return Faces(
            self.corpus,
            tuple(self.names[i] for i in at),
            tuple(self.groups[i] for i in at),
            self.pictures[at],
            self.soft[at],
            self.label[at],
            tuple(self.sides[i] for i in at),
            None if self.placing is None else self.placing[at],
            None if self.agreed is None else self.agreed[at],
        )


def find_faces(data: Path) -> list[Faces]:
    """Every corpus of faces in a data folder. Raises CorpusError when it holds none."""
    if not data.is_dir():
        raise CorpusError(f"there is no data folder {data}; {_looked_for()}")
    if (data / FERPLUS_FILE).exists():
        found = [read_ferplus(data / FERPLUS_FILE)]
    else:
        roots = sorted({path.parent for path in data.rglob(FERPLUS_VOTES)})
        found = [read_ferplus_as_published(root) for root in roots[:1]]
    if any((data / "faces" / label).is_dir() for label in LABELS):
        found.append(read_plain(data / "faces"))
    if not found:
        raise CorpusError(f"the data folder {data} holds no corpus of faces; {_looked_for()}")
    return found


def majorities(votes: NDArray[np.integer]) -> NDArray[np.bool_]:
    """Pictures on which more than half of the votes agree, single ones not counted."""
    counted = np.where(votes > 1, votes, 0)
    return np.asarray(counted.max(1) > counted.sum(1) / 2, np.bool_)


def soft_labels(votes: NDArray[np.integer]) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Ten columns of votes to a distribution over the seven, and the label most people gave.

    A single vote among others is taken for a slip. Where fewer than half of the remaining votes are for
    one of the seven there is no distribution, and where most are for another column there is no label.
    Of two columns with as many votes the first in the corpus's own order wins.
    """
    counted = np.where(votes > 1, votes, 0).astype(np.float32)
    counted = np.where(counted.any(1, keepdims=True), counted, votes)
    seven = np.zeros((len(votes), len(LABELS)), np.float32)
    ours = np.full(len(_COLUMNS), -1)
    for column, name in enumerate(_COLUMNS):
        if (label := CORPUS_LABELS[FERPLUS][name]) is not None:
            ours[column] = LABELS.index(label)
            seven[:, ours[column]] = counted[:, column]
    total = seven.sum(1, keepdims=True)
    described = total >= 0.5 * counted.sum(1, keepdims=True)
    soft = np.where(described & (total > 0), seven / np.maximum(total, 1e-9), 0.0).astype(np.float32)
    return soft, ours[votes.argmax(1)].astype(np.int64)


def read_ferplus(path: Path) -> Faces:
    """FER+ in one file. Training pictures that nearly equal one of another split are left out."""
    try:
        with path.open("rb") as opened, np.load(opened) as file:
            blob, offset = file["blob"], file["offset"].astype(np.int64)
            votes, split, leak = file["votes"], file["split"], file["near_leak"]
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as err:
        raise CorpusError(f"{path} is damaged or not the FER+ file: {err}; copy it again") from err
    if votes.shape != (len(offset) - 1, len(_COLUMNS)) or offset[-1] != len(blob):
        raise CorpusError(
            f"{path} is cut short: {len(offset) - 1} pictures, votes {votes.shape}; copy it again"
        )
    kept = np.flatnonzero(~leak)
    names = [f"{i:05d}" for i in kept]
    pictures = [
        _decoded_picture(blob[offset[i] : offset[i + 1]], f"picture {i} of {path}", SIDE_PX) for i in kept
    ]
    sides = ["test" if side else "train" for side in split[kept]]
    return _ferplus(names, pictures, votes[kept], sides)


def read_ferplus_as_published(root: Path) -> Faces:
    """Microsoft's table of votes beside the pictures of FER2013, as its table of pixels or as PNG files."""
    rows = _csv_rows(root / FERPLUS_VOTES, ("Usage", "Image name", *_COLUMNS))
    pixels = root / FER2013_PIXELS
    table = _csv_rows(pixels, ("pixels",)) if pixels.exists() else None
    if table is not None and len(table) != len(rows):
        raise CorpusError(
            f"{pixels} has {len(table)} pictures, {FERPLUS_VOTES} votes for {len(rows)}; "
            "they belong together row by row"
        )
    names, pictures, votes, sides = [], [], [], []
    for at, row in enumerate(rows):
        if row["Usage"] not in _USAGE or not row["Image name"]:
            continue
        side, folder = _USAGE[row["Usage"]]
        if table is None:
            pictures.append(_opened_picture(root / folder / row["Image name"], SIDE_PX))
        else:
            pictures.append(_from_text(table[at]["pixels"], f"row {at + 2} of {pixels}"))
        names.append(Path(row["Image name"]).stem)
        votes.append([_number(row[name], root / FERPLUS_VOTES, at) for name in _COLUMNS])
        sides.append(side)
    if not names:
        raise CorpusError(f"{root / FERPLUS_VOTES} has no picture of {' or '.join(_USAGE)}")
    return _ferplus(names, pictures, np.array(votes), sides)


def read_plain(root: Path) -> Faces:
    """A folder for each label, `happy/anna_01.png`; the pictures are face crops as the template cuts them."""
    files = sorted(
        path
        for label in LABELS
        for path in (root / label).glob("*")
        if path.suffix.lower() in PICTURE_ENDINGS
    )
    if not files:
        raise CorpusError(f"{root} holds no pictures in folders named {', '.join(LABELS)}")
    for path in files:
        if "_" not in path.stem:
            raise CorpusError(f"{path}: a picture is named for its person first, such as 'anna_{path.name}'")
    label = np.array([LABELS.index(path.parent.name) for path in files])
    return Faces(
        PLAIN,
        tuple(f"{path.parent.name}/{path.name}" for path in files),
        tuple(path.stem.partition("_")[0] for path in files),
        np.stack([_opened_picture(path, CROP_SIZE) for path in files]),
        np.eye(len(LABELS), dtype=np.float32)[label],
        label,
        (None,) * len(files),
    )


def _ferplus(
    names: Sequence[str],
    pictures: Sequence[NDArray[np.uint8]],
    votes: NDArray[np.integer],
    sides: Sequence[str],
) -> Faces:
    """FER+ knows no persons: equal pictures are one group, and none of them may be trained on and tested."""
    groups = [hashlib.sha256(picture.tobytes()).hexdigest()[:16] for picture in pictures]
    tested = {group for group, side in zip(groups, sides, strict=True) if side == "test"}
    at = [i for i, side in enumerate(sides) if side == "test" or groups[i] not in tested]
    soft, label = soft_labels(votes)
    everything = Faces(
        FERPLUS,
        tuple(names),
        tuple(groups),
        np.stack(pictures),
        soft,
        label,
        tuple(sides),
        agreed=majorities(votes),
    )
    return everything.take(np.array(at))


def _decoded_picture(content: NDArray[np.uint8], what: str, side: int) -> NDArray[np.uint8]:
    picture = cv2.imdecode(content, cv2.IMREAD_GRAYSCALE) if len(content) else None
    if picture is None:
        raise CorpusError(f"{what} is no picture that can be read; copy it again or remove it")
    if picture.shape != (side, side):
        picture = cv2.resize(picture, (side, side), interpolation=cv2.INTER_AREA)
    return np.asarray(picture, np.uint8)


def _opened_picture(path: Path, side: int) -> NDArray[np.uint8]:
    try:
        content = np.frombuffer(path.read_bytes(), np.uint8)
    except OSError as err:
        raise CorpusError(f"cannot read the picture {path}: {err}") from err
    return _decoded_picture(content, str(path), side)


def _from_text(text: str, what: str) -> NDArray[np.uint8]:
    try:
        return np.array(text.split(), np.uint8).reshape(SIDE_PX, SIDE_PX)
    except (ValueError, OverflowError) as err:
        raise CorpusError(f"{what} does not hold {SIDE_PX}x{SIDE_PX} numbers up to 255: {err}") from err


def _csv_rows(path: Path, wanted: Sequence[str]) -> list[dict[str, str]]:
    csv.field_size_limit(1 << 20)
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            rows = list(reader)
    except (OSError, UnicodeDecodeError, csv.Error) as err:
        raise CorpusError(f"cannot read the table {path}: {err}") from err
    if lacking := [name for name in wanted if name not in (reader.fieldnames or ())]:
        raise CorpusError(f"the table {path} has no column {', '.join(lacking)}")
    return rows


def _number(text: str | None, path: Path, at: int) -> int:
    try:
        return int(text or "")
    except ValueError:
        raise CorpusError(f"row {at + 2} of {path} has '{text}' where a number of votes belongs") from None


def _looked_for() -> str:
    return (
        f"looked for {FERPLUS_FILE}, for {FERPLUS_VOTES} beside {FER2013_PIXELS} or "
        f"{_USAGE['Training'][1]}/, and for faces/LABEL/person_*.png with LABEL one of {', '.join(LABELS)}"
    )


@dataclass(frozen=True, slots=True, eq=False)
class FaceSplit:
    """All faces of some corpora."""

    train: Faces
    """Only those whose votes describe one of the seven."""
    calibrate: Faces
    test: Faces
    corpora: tuple[str, ...]
    digest: str
    """Of all sides, as frozen."""


def load_split(found: Sequence[Faces], frozen: Path, *, add: bool = True) -> FaceSplit:
    """Put every face on its side, after the sides were found to be those frozen in a file.

    `add` freezes a corpus that the file does not know yet.
    """
    parts: dict[str, list[Faces]] = {side: [] for side in splits.SIDES}
    digests = []
    for faces in found:
        sides = [_side_of_face(group, told) for group, told in zip(faces.groups, faces.sides, strict=True)]
        members = map(splits.Member, faces.names, faces.groups, sides)
        digests.append(splits.freeze(frozen, faces.corpus, members, add=add))
        for side, kept in parts.items():
            kept.append(faces.take(np.array([one == side for one in sides], np.bool_)))
    train, calibrate, test = (_joined(parts[side]) for side in splits.SIDES)
    described = np.flatnonzero(train.soft.any(1))
    digest = hashlib.sha256("".join(digests).encode()).hexdigest()
    return FaceSplit(train.take(described), calibrate, test, tuple(faces.corpus for faces in found), digest)


def _side_of_face(group: str, told: str | None) -> str:
    if told == "test":
        return told
    return splits.side_of(group, calibrate=KEPT_BACK, test=0.0 if told else KEPT_BACK)


def _joined(parts: Sequence[Faces]) -> Faces:
    """Corpora of different sizes meet at the size of the crop."""
    if len(parts) == 1:
        return parts[0]
    return Faces(
        "+".join(part.corpus for part in parts),
        tuple(f"{part.corpus}/{name}" for part in parts for name in part.names),
        tuple(f"{part.corpus}/{group}" for part in parts for group in part.groups),
        np.concatenate([grey_crops(part.pictures)[..., 0] for part in parts]),
        np.concatenate([part.soft for part in parts]),
        np.concatenate([part.label for part in parts]),
        tuple(side for part in parts for side in part.sides),
    )
