"""Where a network comes from, and how it becomes the one of the package, with the sides it was trained on.

Only files that fit their manifest, that were trained and that were judged are taken, so that no weight is
ever shipped whose figures nobody has seen.
"""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

from liveaffect.engines import manifest as manifests
from liveaffect.engines.manifest import SHIPPED, write_whole
from liveaffect.engines.protocol import EngineFileError
from liveaffect.engines.training import splits

_HERE = Path(__file__).resolve().parent


def source_commit(folder: Path = _HERE) -> str:
    """The commit that the checkout around `folder` stands at; 'unknown' for an installed package."""
    try:
        ran = subprocess.run(
            ["git", "-C", str(folder), "rev-parse", "HEAD"], capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return ran.stdout.strip()[:12]


def ship(kind: str, folder: Path, *, to: Path = SHIPPED, frozen: Path = splits.FROZEN) -> Path:
    """Copy one network with manifest into the package; the new manifest's path.

    Raises EngineFileError if it was not trained or not judged, or on other sides than those frozen before.
    """
    found = manifests.read(folder / f"{kind}.json")
    for part, what in (("training", "trained"), ("figures", "judged")):
        if not getattr(found, part):
            raise EngineFileError(f"'{found.name}' in {folder} was not {what} yet; it is not shipped")
    sides = splits.read_splits(folder / frozen.name)
    known = splits.read_splits(frozen)
    for corpus in found.training["corpora"]:
        if corpus not in sides:
            raise EngineFileError(f"{folder / frozen.name} does not say on which side '{corpus}' lies")
        if known.setdefault(corpus, sides[corpus]) != sides[corpus]:
            raise EngineFileError(
                f"'{found.name}' was trained on other sides of '{corpus}' than {frozen} has"
            )
    to.mkdir(parents=True, exist_ok=True)
    for precision in manifests.PRECISIONS:
        if found.has(precision):
            content = manifests.load_bytes(found, folder, precision)
            write_whole(to / manifests.file_name(kind, precision), content)
    manifests.write(found, to / f"{kind}.json")
    content_json = {"format": splits.FORMAT, "corpora": dict(sorted(known.items()))}
    write_whole(frozen, (json.dumps(content_json, indent=1) + "\n").encode())
    return to / f"{kind}.json"
