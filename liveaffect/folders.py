"""Files and folders as they were named become the list of files to work on, and an account of the rest.

A folder that cannot be read, and every file that is passed over, is counted with the reason: a run over ten
thousand files must not leave anybody wondering where some of them went.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from liveaffect.progress import written_out
from liveaffect.realtime.endings import why_passed_over


@dataclass(slots=True)
class FoundFiles:
    """What there is to do, and what not."""

    files: list[Path] = field(default_factory=list)
    """Those that were named as they are, those in folders by name."""
    failed: dict[Path, str] = field(default_factory=dict)
    """Folders that cannot be read or hold nothing, with the reason."""
    passed_over: Counter[str] = field(default_factory=Counter)
    """Files in folders that are not worked on, by reason."""

    def line(self) -> str | None:
        """What was passed over, in words; None if nothing was."""
        total = self.passed_over.total()
        causes = ", ".join(f"{count} {why}" for why, count in sorted(self.passed_over.items()) if count)
        return f"{total} {'file' if total == 1 else 'files'} passed over: {causes}" if total else None


def expand(paths: Sequence[Path], wanted: tuple[str, ...]) -> FoundFiles:
    """Files as they are; folders as all files in them and below whose ending is wanted."""
    found = FoundFiles()
    for path in paths:
        if is_folder(path):
            _look_into(path, wanted, found)
        else:
            found.files.append(path)
    return found


def is_folder(path: Path) -> bool:
    """Whether it is one; what the system refuses to look at is none."""
    try:
        return path.is_dir()
    except OSError:
        return False


def _look_into(folder: Path, wanted: tuple[str, ...], found: FoundFiles) -> None:
    def refused(error: OSError) -> None:
        where = Path(error.filename) if error.filename else folder
        found.failed[where] = f"the folder cannot be read: {error.strerror}"

    before = len(found.files), len(found.failed)
    for parent, folders, names in os.walk(folder, onerror=refused):
        folders.sort()
        # Not followed, because links can lead round in a circle.
        found.passed_over["linked folders"] += sum(Path(parent, name).is_symlink() for name in folders)
        for name in sorted(names):
            path = Path(parent, name)
            if (why := why_passed_over(path, wanted)) is None:
                found.files.append(path)
            else:
                found.passed_over[why] += 1
    if before == (len(found.files), len(found.failed)):
        found.failed[folder] = f"there is nothing to work on in it; {_list_of(wanted)} would be"


def _list_of(endings: tuple[str, ...]) -> str:
    return ", ".join(ending.removeprefix(".") for ending in endings)


def table_of_failures(failed: dict[Path, str], total: int) -> list[str]:
    """One line for each file that failed, below one that counts them. None for a single file, whose
    failure says everything by itself.
    """
    if not failed:
        return []
    if total == 1 and len(failed) == 1:
        return [f"liveaffect: {why}" for why in failed.values()]
    width = max(len(str(path)) for path in failed)
    heading = f"liveaffect: {len(failed)} of {total} failed:"
    return [heading, *(written_out(f"  {path!s:{width}}  {why}") for path, why in failed.items())]
