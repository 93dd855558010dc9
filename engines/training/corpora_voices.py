"""Reads corpora of acted speech as their publishers lay them out, and keeps them decoded at 16 kHz.

Speaker and label stand in every corpus's file names, so one pattern per corpus reads every layout, and a
manifest only proves that nothing is missing. A file that fits no pattern stops the reading: a corpus that is
read in part by accident would give figures that nobody else can repeat.

Decoding takes longer than an epoch's arithmetic, so it is done once, into a cache folder outside the tree.
The file's name holds a hash of what it was made from; a corpus that changed is decoded again.
"""

from __future__ import annotations

import csv
import hashlib
import io
import os
import re
import tarfile
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray

from liveaffect.engines.manifest import write_whole
from liveaffect.engines.protocol import EngineError
from liveaffect.engines.recipe import CORPUS_LABELS, LABELS, SAMPLE_RATE

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
Samples = NDArray[np.float16]
LEAST_S = 0.2
"""A take shorter than this is damaged: no corpus holds one."""


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


def default_folder() -> Path:
    """The user's cache folder."""
    root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(root) / "liveaffect" / "sounds"


def load_takes(takes: Sequence[Take], folder: Path, report: Callable[[str], None] = print) -> list[Samples]:
    """The samples of every take, in their order; decoded if that was not done before."""
    path = folder / f"{takes[0].corpus}-{_takes_fingerprint(takes)}.npz"
    if path.is_file():
        try:
            with path.open("rb") as stream, np.load(stream) as kept:
                return np.split(kept["samples"], kept["ends"][:-1])
        except (OSError, ValueError, KeyError, zipfile.BadZipFile):
            report(f"the cache file {path} is damaged; decoding again")
    report(f"decoding {len(takes)} takes of {takes[0].corpus} once, into {folder}")
    found = {take.name: decode(content, take) for take, content in read_bytes(takes)}
    sounds = [found[take.name] for take in takes]
    folder.mkdir(parents=True, exist_ok=True)
    packed = io.BytesIO()
    np.savez(packed, samples=np.concatenate(sounds), ends=np.cumsum([len(s) for s in sounds]))
    write_whole(path, packed.getvalue())
    return sounds


def decode(content: bytes, take: Take) -> Samples:
    """Mono 16 kHz samples of one encoded sound. Raises CorpusError that names the take."""
    import av
    from av.error import FFmpegError

    parts: list[NDArray[np.float32]] = []
    try:
        with av.open(io.BytesIO(content), mode="r") as container:
            if not container.streams.audio:
                raise CorpusError(f"'{take.name}' of {take.where} holds no sound")
            convert = av.AudioResampler(format="flt", layout="mono", rate=SAMPLE_RATE)
            fed = 0
            for frame in container.decode(audio=0):
                frame.pts, frame.time_base = fed, Fraction(1, frame.sample_rate)
                fed += frame.samples
                parts += [
                    np.asarray(out.to_ndarray(), np.float32).reshape(-1) for out in convert.resample(frame)
                ]
            if fed:
                parts += [
                    np.asarray(out.to_ndarray(), np.float32).reshape(-1) for out in convert.resample(None)
                ]
    except (FFmpegError, OSError, ValueError) as err:
        raise CorpusError(f"'{take.name}' of {take.where} cannot be decoded: {err}; copy it again") from err
    samples = np.concatenate(parts) if parts else np.zeros(0, np.float32)
    if len(samples) < LEAST_S * SAMPLE_RATE or not np.isfinite(samples).all():
        raise CorpusError(
            f"'{take.name}' of {take.where} is damaged: {len(samples)} samples came out; copy it again"
        )
    return samples.astype(np.float16)


def _takes_fingerprint(takes: Sequence[Take]) -> str:
    """Changes when a file's size, its time of change or the list of takes does."""
    digest = hashlib.sha256()
    for where in dict.fromkeys(take.where for take in takes):
        status = where.stat()
        digest.update(f"{where.name} {status.st_size} {status.st_mtime_ns}\n".encode())
    digest.update("\n".join(take.name for take in takes).encode())
    return digest.hexdigest()[:16]
