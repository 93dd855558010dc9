"""The two face detectors, which are not ours: where they lie, how to know them, and how to open them.

A file in the user's cache counts only if its SHA-256 fits; `liveaffect fetch` brings it.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

from liveaffect.engines.user_folders import cache_dir
from liveaffect.realtime.errors import MissingFile
from liveaffect.realtime.faces.blazeface import FaceFinder, open_finder

FULL_RANGE = "face_detection_full_range_sparse.tflite"
SHORT_RANGE = "face_detection_short_range.tflite"
COMMAND = "liveaffect fetch"


@dataclass(frozen=True, slots=True)
class ForeignFile:
    """A file somebody else made, and how to know it."""

    name: str
    sha256: str
    size: int


FILES = (
    ForeignFile(FULL_RANGE, "2c3728e6da56f21e21a320433396fb06d40d9088f2247c05e5635a688d45dfe1", 676_746),
    ForeignFile(SHORT_RANGE, "bbff11cebd1eb27a1e004cae0b0e63ec8c551cbf34a4451148b4908b8db3eca8", 229_714),
)


def files_dir(explicit: Path | None = None) -> Path:
    """The folder that counts: the explicit one, else LIVEAFFECT_FILES, else the user's cache."""
    if explicit is not None:
        return explicit.parent if explicit.is_file() else explicit
    if given := os.environ.get("LIVEAFFECT_FILES"):
        return Path(given).expanduser()
    return cache_dir()


def model_path(name: str, explicit: Path | None = None) -> Path:
    """Where the file `name` lies. Raises MissingFile, which names the command that brings it.

    `explicit` is a folder, or a file in it. A file in the cache must be undamaged; one in a folder that
    the user named is the user's choice and taken as it is.
    """
    path = files_dir(explicit) / name
    if not path.is_file():
        raise MissingFile(f"the face detector '{path}' is not there; bring it with: {COMMAND}")
    known = {file.name: file for file in FILES}.get(name)
    if path.parent == cache_dir() and known is not None and not is_whole(path, known):
        raise MissingFile(f"the face detector '{path}' is damaged; bring it again with: {COMMAND}")
    return path


def is_whole(path: Path, file: ForeignFile) -> bool:
    """Whether the file is there and is the one that is meant."""
    return path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest() == file.sha256


def make_finder(folder: Path | None = None) -> tuple[FaceFinder, FaceFinder]:
    """`far` and `near` as `FaceAnalyzer` takes them; one pair serves one thread.

    Raises MissingFile, which names the command that brings the files, or MissingLibrary.
    """
    return open_finder(model_path(FULL_RANGE, folder)), open_finder(model_path(SHORT_RANGE, folder))
