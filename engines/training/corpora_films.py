"""Reads corpora of filmed emotion as their publishers lay them out: who says what, where it lies, what it is.

A reader touches no picture and no sound: it yields paths, times and labels, and names and counts what is not
there or not whole, because a corpus that is read in part by accident gives figures nobody else can repeat.
Labels keep the corpus's own names; a protocol says which of them it asks for.
"""

from __future__ import annotations

import csv
import hashlib
import re
import tarfile
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from liveaffect.engines.training.corpora_voices import PATTERNS, CorpusError

WHOLE, LEFT, RIGHT = "whole", "left", "right"
NO_FILM, NO_SOUND, DAMAGED, NO_LABEL = "film missing", "sound missing", "damaged", "without a label"
NUMBERS = "numbers of other programs, not read: neither film nor sound can be had from them"
_NAMED = 20
"""Files of one kind of trouble that are named; all are counted."""


@dataclass(frozen=True, slots=True)
class FilmTake:
    """One utterance, not read yet."""

    corpus: str
    name: str
    """Unique within the corpus."""
    speaker: str
    """Such as 'iemocap/Ses01F'; the film's own name where a corpus does not tell who speaks."""
    labels: tuple[str, ...]
    """In the corpus's own names; none where nothing was seen, several where several were."""
    film: Path | None = None
    """A film, or a folder of pictures named by their number."""
    sound: Path | None = None
    """None: that of the film."""
    begin_s: float = 0.0
    end_s: float | None = None
    half: str = WHOLE
    """The side of the picture in which the speaker sits."""
    words: str = ""
    session: str = ""
    part: str = ""
    """'train', 'valid' or 'test' where the publishers say so."""
    pictures_hz: float = 0.0
    """Of a folder of pictures."""
    picture_name: str = "image_*.jpg"
    sound_is_cut: bool = True
    """A sound file of its own holds just this utterance, not the whole recording."""


@dataclass(slots=True)
class FilmReading:
    """What a reader found, and what it missed."""

    takes: list[FilmTake] = field(default_factory=list)
    troubles: Counter[str] = field(default_factory=Counter)
    named: dict[str, list[str]] = field(default_factory=dict)

    def miss(self, trouble: str, what: str) -> None:
        """Count and name one file."""
        self.troubles[trouble] += 1
        names = self.named.setdefault(trouble, [])
        if len(names) < _NAMED:
            names.append(what)

    def told(self) -> list[str]:
        """One line a kind of trouble."""
        return [
            f"{trouble}: {count} ({', '.join(self.named[trouble][:3])}{', ...' if count > 3 else ''})"
            for trouble, count in self.troubles.items()
        ]


def read_films(corpus: str, data: Path) -> FilmReading:
    """All utterances of a corpus below a folder. Raises CorpusError when it is not there at all."""
    if corpus not in READERS:
        raise CorpusError(f"no reader for films of '{corpus}'; there are {', '.join(READERS)}")
    if not data.is_dir():
        raise CorpusError(f"there is no folder {data} with the corpus '{corpus}'")
    found = READERS[corpus](data)
    if not found.takes:
        missed = "; ".join(found.told()) or "no file of its layout"
        raise CorpusError(f"{data} holds nothing usable of '{corpus}': {missed}")
    found.takes.sort(key=lambda take: take.name)
    names = Counter(take.name for take in found.takes)
    if twice := [name for name, count in names.items() if count > 1]:
        raise CorpusError(f"'{twice[0]}' of '{corpus}' is there twice below {data}; remove one")
    return found


def _place(data: Path, *places: str) -> Path:
    return next((data / place for place in places if (data / place).exists()), data)


def _listed(folder: Path, pattern: str) -> list[Path]:
    return sorted(path for path in folder.glob(pattern) if not path.name.startswith("._"))


def _there_and_whole(found: FilmReading, path: Path | None, trouble: str) -> Path | None:
    """The path if it is there and not empty; else None, counted."""
    if path is None or not path.exists():
        found.miss(trouble, str(path))
        return None
    if path.is_file() and path.stat().st_size < 64:
        found.miss(DAMAGED, str(path))
        return None
    return path


# IEMOCAP, full release: SessionN/dialog/{EmoEvaluation,transcriptions,avi/DivX}, SessionN/sentences/wav.
_EVALUATED = re.compile(
    r"\[(?P<begin>[\d.]+) - (?P<end>[\d.]+)\]\t(?P<name>Ses\d\d[FM]_\w+)\t(?P<label>\w+)\t"
)
_SAID = re.compile(r"(?P<name>Ses\d\d[FM]_\w+) \[[\d.-]+\]: (?P<words>.*)")


def _iemocap(data: Path) -> FilmReading:
    if (processed := _place(data, "IEMOCAP_RAW_PROCESSED")) != data or (data / "meta.pkl").exists():
        return _processed("iemocap", processed)
    found, root = FilmReading(), _place(data, "IEMOCAP_full_release", "IEMOCAP")
    for session in _listed(root, "Session[1-5]"):
        dialog = session / "dialog"
        for evaluation in _listed(dialog / "EmoEvaluation", "Ses*.txt"):
            film = _there_and_whole(found, dialog / "avi" / "DivX" / f"{evaluation.stem}.avi", NO_FILM)
            words = _transcript(found, dialog / "transcriptions" / evaluation.name)
            for line in evaluation.read_text("utf-8", errors="replace").splitlines():
                if match := _EVALUATED.match(line):
                    name = match["name"]
                    sounds = session / "sentences" / "wav" / evaluation.stem / f"{name}.wav"
                    if sound := _there_and_whole(found, sounds, NO_SOUND):
                        found.takes.append(
                            FilmTake(
                                "iemocap",
                                name,
                                _iemocap_speaker(name),
                                (match["label"],),
                                film,
                                sound,
                                float(match["begin"]),
                                float(match["end"]),
                                _iemocap_half(name),
                                words.get(name, ""),
                                session=session.name,
                            )
                        )
    return found


def _transcript(found: FilmReading, path: Path) -> dict[str, str]:
    if not path.exists():
        found.miss("transcript missing", str(path))
        return {}
    lines = path.read_text("utf-8", errors="replace").splitlines()
    return {match["name"]: match["words"].strip() for line in lines if (match := _SAID.match(line))}


def _iemocap_speaker(name: str) -> str:
    """The recording carries the letter of whoever wears the markers, the turn that of whoever speaks."""
    return f"iemocap/{name[:5]}{name.rpartition('_')[2][0]}"


def _iemocap_half(name: str) -> str:
    return LEFT if name[5] == name.rpartition("_")[2][0] else RIGHT


# CMU-MOSEI, raw: Videos/Full/Combined, Audio/WAV_16000, Transcript/Combined or Segmented/Combined, Labels.
MOSEI_LABELS = ("anger", "disgust", "fear", "happiness", "sadness", "surprise")


def _mosei(data: Path) -> FilmReading:
    if (processed := _place(data, "MOSEI_RAW_PROCESSED")) != data or (data / "meta.pkl").exists():
        return _processed("mosei", processed)
    found, root = FilmReading(), _place(data, "Raw", "MOSEI_Raw", "CMU-MOSEI")
    for numbers in sorted(data.rglob("*.csd")):
        found.miss(NUMBERS, numbers.name)
    votes: dict[str, dict[str, float]] = {}
    for table in _listed(root / "Labels", "*.csv"):
        with table.open(newline="", encoding="utf-8", errors="replace") as lines:
            for row in csv.DictReader(lines):
                name = f"{row['Input.VIDEO_ID'].rpartition('/')[2]}_{row['Input.CLIP']}"
                vote = votes.setdefault(name, dict.fromkeys(MOSEI_LABELS, 0.0))
                for label in MOSEI_LABELS:
                    vote[label] += float(row[f"Answer.{label}"] or 0)
    texts = _place(root / "Transcript", "Combined", "Segmented/Combined")
    for text in _listed(texts, "*.txt"):
        video = text.stem
        film = _there_and_whole(found, root / "Videos" / "Full" / "Combined" / f"{video}.mp4", NO_FILM)
        sound = root / "Audio" / "WAV_16000" / f"{video}.wav"
        for line in text.read_text("utf-8", errors="replace").splitlines():
            parts = [part for part in line.split("___") if part]
            if len(parts) < 5:
                continue
            name = f"{video}_{parts[1]}"
            if name not in votes:
                found.miss(NO_LABEL, name)
            elif film is not None or sound.exists():
                seen = tuple(label for label in MOSEI_LABELS if votes[name][label] > 0)
                found.takes.append(
                    FilmTake(
                        "mosei",
                        name,
                        f"mosei/{video}",
                        seen,
                        film,
                        sound if sound.exists() else None,
                        float(parts[2]),
                        float(parts[3]),
                        words=parts[4].strip(),
                        sound_is_cut=False,
                    )
                )
    return found


def _processed(corpus: str, root: Path) -> FilmReading:
    """The form that the FV2ES line trains on: a folder of pictures and a sound an utterance, and meta.pkl."""
    found, told = FilmReading(), _meta(root / "meta.pkl")
    folders = {path.name: path for path in root.rglob("*") if path.is_dir()}
    for name, entry in told.items():
        folder = folders.get(name)
        if folder is None:
            found.miss("utterance's folder missing", name)
            continue
        iemocap = corpus == "iemocap"
        side = ("L" if _iemocap_half(name) == LEFT else "R") if iemocap else ""
        sound = _there_and_whole(found, folder / (f"audio_{side}.wav" if side else "audio.wav"), NO_SOUND)
        if sound is None:
            continue
        given = entry.get("label", ())
        labels = (
            (given,)
            if isinstance(given, str)
            else tuple(label for label, on in zip(MOSEI_LABELS, list(given), strict=True) if on)
        )
        found.takes.append(
            FilmTake(
                corpus,
                name,
                _iemocap_speaker(name) if iemocap else f"mosei/{name.rpartition('_')[0]}",
                labels,
                folder,
                sound,
                words=entry["text"] if isinstance(entry.get("text"), str) else "",
                session=f"Session{name[4]}" if iemocap else "",
                # Every frame of IEMOCAP's film was kept; of MOSEI's two a second.
                pictures_hz=29.97 if iemocap else 2.0,
                picture_name=f"image_{side}_*.jpg" if side else "image_*.jpg",
            )
        )
    return found


def _meta(path: Path) -> dict[str, dict[str, Any]]:
    """Plain values only: a pickle may otherwise run what its maker liked."""
    import pickle

    class Plain(pickle.Unpickler):
        def find_class(self, module: str, name: str) -> object:
            if module.startswith("numpy") and name in ("_reconstruct", "ndarray", "dtype", "scalar"):
                return super().find_class(module, name)
            raise CorpusError(f"{path} wants to load {module}.{name}; it is not the table of utterances")

    try:
        with path.open("rb") as stream:
            found = Plain(stream).load()
    except (OSError, pickle.UnpicklingError, EOFError, AttributeError) as err:
        raise CorpusError(f"cannot read {path}: {err}; copy it again") from err
    return {str(name): dict(entry) for name, entry in found.items()}


# AFEW of EmotiW: folders of films by part and label. Who speaks is told nowhere.
_AFEW_PARTS = {"train": "train", "train_afew": "train", "val": "valid", "val_afew": "valid"}


def _afew(data: Path) -> FilmReading:
    found = FilmReading()
    for folder in sorted(path for path in data.rglob("*") if path.is_dir()):
        if (part := _AFEW_PARTS.get(folder.name.lower())) is None:
            continue
        for label in AFEW_LABELS:
            for film in _films(_place(folder, label) if (folder / label).exists() else folder / label):
                if _there_and_whole(found, film, NO_FILM):
                    name = f"{part}/{label}/{film.stem}"
                    found.takes.append(
                        FilmTake("afew", name, f"afew/{part}/{film.stem}", (label,), film, part=part)
                    )
    return found


AFEW_LABELS = ("Angry", "Disgust", "Fear", "Happy", "Neutral", "Sad", "Surprise")
_FILMS = (".avi", ".mp4", ".flv", ".mkv", ".mov")


def _films(folder: Path) -> Iterator[Path]:
    yield from sorted(path for path in folder.glob("*") if path.suffix.lower() in _FILMS)


def _ravdess(data: Path) -> FilmReading:
    """Films with sound (01-...), or silent ones (02-...) with the sound beside them (03-...)."""
    found = FilmReading()
    by_take: dict[str, dict[str, Path]] = {}
    for path in sorted(data.rglob("*")):
        named = PATTERNS["ravdess"].fullmatch(path.stem)
        takes_it = path.suffix.lower() in (*_FILMS, ".wav") and named and path.stem[3:5] == "01"
        if takes_it and _there_and_whole(found, path, DAMAGED):
            by_take.setdefault(path.stem[3:], {})[path.stem[:2]] = path
    for take, forms in by_take.items():
        sound = forms.get("03")
        if "01" not in forms and sound is None:
            found.miss(NO_SOUND, take)
            continue
        film = forms.get("01") or forms.get("02")
        if film is None:
            found.miss(NO_FILM, take)
        label, actor = take.split("-")[1], take.rpartition("-")[2]
        own = None if "01" in forms else sound
        found.takes.append(FilmTake("ravdess", take, f"ravdess/{actor}", (label,), film, own))
    return found


def _crema_d(data: Path) -> FilmReading:
    """Films in VideoFlash, sound in AudioWAV; compared with the publishers' list of hashes where that is."""
    found, root = FilmReading(), _place(data, "CREMA-D", "crema-d")
    wanted = _crema_hashes(data, root)
    films = {path.stem: path for path in _films(root / "VideoFlash")}
    for sound in _listed(root / "AudioWAV", "*.wav"):
        named = PATTERNS["crema-d"].fullmatch(sound.stem)
        if named is None:
            found.miss("file name of another corpus", sound.name)
            continue
        if _is_altered(sound, root, wanted):
            found.miss(DAMAGED, str(sound))
            continue
        film = films.get(sound.stem)
        if film is None:
            found.miss(NO_FILM, sound.stem)
        elif _is_altered(film, root, wanted):
            found.miss(DAMAGED, str(film))
            film = None
        speaker, label = f"crema-d/{named['speaker']}", named["label"]
        found.takes.append(FilmTake("crema-d", sound.stem, speaker, (label,), film, sound))
    return found


def _crema_hashes(data: Path, root: Path) -> dict[str, tuple[str, int]]:
    text = ""
    for place in (root, data, data / "splits"):
        if (place / "lfs_oids.csv").exists():
            text = (place / "lfs_oids.csv").read_text("utf-8")
        elif (place / "crema_d_labels.tar.gz").exists():
            with tarfile.open(place / "crema_d_labels.tar.gz") as tar:
                stream = tar.extractfile("lfs_oids.csv")
                text = stream.read().decode() if stream else ""
    rows = csv.DictReader(text.splitlines())
    return {row["path"]: (row["sha256"], int(row["size"])) for row in rows}


def _is_altered(path: Path, root: Path, wanted: dict[str, tuple[str, int]]) -> bool:
    digest, size = wanted.get(path.relative_to(root).as_posix(), ("", -1))
    if size < 0:
        return path.stat().st_size < 64
    return path.stat().st_size != size or hashlib.sha256(path.read_bytes()).hexdigest() != digest


_MELD_PARTS = {
    "train": ("train_sent_emo.csv", ("train_splits", "train")),
    "valid": ("dev_sent_emo.csv", ("dev_splits_complete", "dev")),
    "test": ("test_sent_emo.csv", ("output_repeated_splits_test", "test")),
}


def _meld(data: Path) -> FilmReading:
    found, root = FilmReading(), _place(data, "MELD.Raw", "MELD")
    for part, (table, folders) in _MELD_PARTS.items():
        path = root / table
        if not path.exists():
            found.miss("table missing", str(path))
            continue
        films = _place(root, *folders)
        with path.open(newline="", encoding="utf-8", errors="replace") as lines:
            for row in csv.DictReader(lines):
                stem = f"dia{row['Dialogue_ID']}_utt{row['Utterance_ID']}"
                if film := _there_and_whole(found, films / f"{stem}.mp4", NO_FILM):
                    found.takes.append(
                        FilmTake(
                            "meld",
                            f"{part}/{stem}",
                            f"meld/{row['Speaker'].strip()}",
                            (row["Emotion"].strip().lower(),),
                            film,
                            words=row["Utterance"].strip(),
                            session=f"{part}/dia{row['Dialogue_ID']}",
                            part=part,
                        )
                    )
    return found


READERS: dict[str, Callable[[Path], FilmReading]] = {
    "iemocap": _iemocap,
    "mosei": _mosei,
    "afew": _afew,
    "ravdess": _ravdess,
    "crema-d": _crema_d,
    "meld": _meld,
}
