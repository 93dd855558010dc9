"""Reads recordings of people who just talk: announcements, read words, letters said aloud; nobody in a mood.

Corpora of acted moods say little of how most people talk most of the time. Any folder of sounds serves; who
speaks is told by the folder that a file lies in. Nobody is judged by these recordings, so they have no sides.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path

from liveaffect.engines.training import corpora_voices
from liveaffect.engines.training.corpora_voices import SOUND_ENDINGS, Take

TALK = "talk"
"""The name of the folder in a data folder, and of the corpus."""
LEAST_S, MOST_S = 0.7, 9.0
MOST_EACH = 60
"""Recordings of one folder at most, so that nobody is heard all the time."""
LABEL = "neutral"


def read_talk(data: Path, report: Callable[[str], None] = print) -> list[Take]:
    """Recordings in `data/talk`; none where there is no such folder."""
    root = data / TALK
    folders: dict[Path, list[Path]] = {}
    for path in sorted(root.rglob("*")):
        if path.suffix.lower() in SOUND_ENDINGS and not path.is_symlink():
            folders.setdefault(path.parent, []).append(path)
    takes, damaged = list[Take](), 0
    for folder, files in sorted(folders.items()):
        chosen = list[Path]()
        for path in sorted(files, key=_dice):
            length = corpora_voices.length_s(path)
            damaged += length is None
            if length is not None and LEAST_S <= length <= MOST_S and len(chosen) < MOST_EACH:
                chosen.append(path)
        takes += _of(folder.relative_to(root), sorted(chosen))
    if damaged:
        what = "1 file" if damaged == 1 else f"{damaged} files"
        report(f"{what} in {root} cannot be read and {'is' if damaged == 1 else 'are'} left out")
    return takes


def _of(folder: Path, chosen: Sequence[Path]) -> list[Take]:
    speaker = f"{TALK}/{folder.as_posix()}"
    return [Take(TALK, f"{folder.as_posix()}/{path.stem}", speaker, LABEL, path) for path in chosen]


def _dice(path: Path) -> str:
    return hashlib.sha256(f"{path.parent.name}/{path.name}".encode()).hexdigest()
