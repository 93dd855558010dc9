"""Reads corpora of acted speech as their publishers lay them out, in folders or in one tar with a manifest.

Speaker and label stand in every corpus's file names, so one pattern per corpus reads every layout, and a
manifest only proves that nothing is missing. A file that fits no pattern stops the reading: a corpus that
is read in part by accident would give figures that nobody else can repeat.
"""

from __future__ import annotations

import csv
import io
import re
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path, PurePosixPath

from liveaffect.engines.protocol import EngineError
from liveaffect.engines.recipe import CORPUS_LABELS, LABELS

SOUND_ENDINGS = (".wav", ".opus", ".ogg", ".flac", ".mp3", ".m4a", ".mp4", ".webm", ".flv")
PLAIN = "plain"
PATTERNS = {
    # modality-channel-emotion-intensity-statement-repetition-actor
    "ravdess": re.compile(r"0[123]-0[12]-(?P<label>\d\d)-\d\d-\d\d-\d\d-(?P<speaker>\d\d)"),
    "nemo": re.compile(r"(?P<speaker>[A-Z]+\d*)_(?P<label>[a-z]+)_\d+"),
    # speaker, text, emotion, version
    "emodb": re.compile(r"(?P<speaker>\d\d)[a-z]\d\d(?P<label>[A-Z])[a-z]?"),
    # actor, sentence, emotion, level
    "crema-d": re.compile(r"(?P<speaker>\d{4})_[A-Z]{3}_(?P<label>[A-Z]{3})_[A-Z]{1,2}"),
}
PLACES = {
    "ravdess": ("voice/ravdess_speech.tar", "ravdess", "Audio_Speech_Actors_01-24"),
    "nemo": ("voice/nemo.tar", "nemo"),
    "emodb": ("voice/emodb.tar", "emodb", "emodb/wav"),
    "crema-d": ("crema-d", "CREMA-D", "AudioWAV"),
    PLAIN: ("plain",),
}
"""Where in a data folder a corpus is looked for, the first that is there."""
LICENCES = {
    "ravdess": "CC-BY-NC-SA-4.0",
    "nemo": "CC-BY-NC-SA-4.0",
    "emodb": "CC0-1.0",
    "crema-d": "ODbL-1.0",
    PLAIN: "the user's own",
}
_MANIFEST = "manifest.csv"
_SPEECH_CHANNEL = "01"
_SILENT_VIDEO = "02"


class CorpusError(EngineError):
    """A corpus is missing, incomplete, damaged or not what it should be; says which file and what to do."""


@dataclass(frozen=True, slots=True)
class Take:
    """One recorded sentence, not read yet."""

    corpus: str
    name: str
    """Its file name without ending, unique within the corpus."""
    speaker: str
    """Unique over all corpora, such as 'ravdess/01'."""
    label: str
    where: Path
    """The file, or the tar that holds it."""
    member: str | None = None


def find(data: Path) -> dict[str, Path]:
    """Which corpora a data folder holds, and where. Raises CorpusError when it holds none."""
    if not data.is_dir():
        raise CorpusError(f"there is no data folder {data}; name one that holds {_places()}")
    found = {
        corpus: data / place
        for corpus, places in PLACES.items()
        for place in reversed(places)
        if (data / place).exists()
    }
    if not found:
        raise CorpusError(f"the data folder {data} holds no corpus of voices; looked for {_places()}")
    return found


def read_corpus(corpus: str, path: Path) -> list[Take]:
    """All takes of one corpus in the order of their names, whatever their layout."""
    if corpus not in (*PATTERNS, PLAIN):
        raise CorpusError(f"no reader for the corpus '{corpus}'; known are {', '.join((*PATTERNS, PLAIN))}")
    if path.is_file():
        takes = [t for member in _members(path) if (t := _take(corpus, path, member))]
    elif path.is_dir():
        files = sorted(p for p in path.rglob("*") if p.suffix.lower() in SOUND_ENDINGS)
        read_one = _plain if corpus == PLAIN else _take
        takes = [t for file in files if (t := read_one(corpus, file, None))]
    else:
        raise CorpusError(f"there is no {path} to read the corpus '{corpus}' from")
    if not takes:
        raise CorpusError(f"{path} holds no sound of the corpus '{corpus}' ({', '.join(SOUND_ENDINGS)})")
    return _once(takes)


def read_bytes(takes: Sequence[Take]) -> Iterator[tuple[Take, bytes]]:
    """The encoded sound of takes that lie in folders, or in tars that are each opened once."""
    for where in dict.fromkeys(take.where for take in takes):
        mine = [take for take in takes if take.where == where]
        if mine[0].member is None:
            try:
                yield mine[0], where.read_bytes()
            except OSError as err:
                raise CorpusError(f"cannot read {where}: {err}") from err
            continue
        with _opened(where) as tar:
            for take in mine:
                try:
                    stream = tar.extractfile(str(take.member))
                    content = stream.read() if stream else b""
                except (KeyError, OSError, tarfile.TarError) as err:
                    raise CorpusError(f"cannot read {take.member} in {where}: {err}; copy it again") from err
                yield take, content


def _take(corpus: str, where: Path, member: str | None) -> Take | None:
    """None for what the corpus holds besides emotional speech."""
    name = PurePosixPath(member or where.name).stem
    found = PATTERNS[corpus].fullmatch(name)
    if found is None:
        raise CorpusError(f"{member or where} has no file name of the corpus '{corpus}'; move it elsewhere")
    if corpus == "ravdess" and (name[3:5] != _SPEECH_CHANNEL or name[:2] == _SILENT_VIDEO):
        return None
    table = CORPUS_LABELS[corpus]
    if found["label"] not in table:
        raise CorpusError(
            f"{member or where}: '{found['label']}' is no label of '{corpus}', which has {', '.join(table)}"
        )
    label = table[found["label"]]
    return None if label is None else Take(corpus, name, f"{corpus}/{found['speaker']}", label, where, member)


def _plain(corpus: str, where: Path, member: str | None) -> Take:
    label, (speaker, underscore, _) = where.parent.name, where.stem.partition("_")
    if label not in LABELS:
        raise CorpusError(f"{where} lies in the folder '{label}'; folders are named {', '.join(LABELS)}")
    if not (speaker and underscore):
        raise CorpusError(f"{where}: a file is named for its speaker first, such as 'anna_{where.name}'")
    return Take(corpus, f"{label}/{where.stem}", f"{corpus}/{speaker}", label, where, member)


def _once(takes: list[Take]) -> list[Take]:
    """Sorted by name. RAVDESS has each take as film and as sound; the sound is kept."""
    takes = sorted(takes, key=lambda take: take.name)
    if takes[0].corpus == "ravdess":
        takes = sorted({take.name[2:]: take for take in takes}.values(), key=lambda take: take.name)
    for one, other in pairwise(takes):
        if one.name == other.name:
            raise CorpusError(f"'{one.name}' is there twice: {one.where} and {other.where}; remove one")
    return takes


def _members(path: Path) -> list[str]:
    """The sounds in a tar, after its manifest was found to list just these."""
    with _opened(path) as tar:
        try:
            names = tar.getnames()
            listing = next((name for name in names if PurePosixPath(name).name == _MANIFEST), None)
            stream = tar.extractfile(listing) if listing else None
            text = stream.read().decode("utf-8") if stream else ""
        except (OSError, tarfile.TarError, UnicodeDecodeError) as err:
            raise CorpusError(f"the archive {path} is damaged: {err}; copy it again") from err
    if not text:
        raise CorpusError(f"the archive {path} has no {_MANIFEST} that lists its takes; copy it again")
    sounds = {PurePosixPath(name).stem: name for name in names if name.lower().endswith(SOUND_ENDINGS)}
    rows = csv.DictReader(io.StringIO(text))
    if "id" not in (rows.fieldnames or ()):
        raise CorpusError(f"{listing} in {path} has no column 'id'; copy it again")
    listed = [row["id"] for row in rows]
    if missing := sorted(set(listed) - sounds.keys()):
        raise CorpusError(
            f"the archive {path} lacks {len(missing)} of the {len(listed)} takes its manifest lists, "
            f"the first is {missing[0]}; copy it again"
        )
    return [sounds[name] for name in sorted(set(listed))]


def _opened(path: Path) -> tarfile.TarFile:
    try:
        return tarfile.open(path)
    except (OSError, tarfile.TarError) as err:
        raise CorpusError(f"cannot open the archive {path}: {err}; copy it again") from err


def _places() -> str:
    return "; ".join(f"{corpus}: {' or '.join(places)}" for corpus, places in PLACES.items())
