"""Who is trained on, who is calibrated on, who is tested on: decided once, by hash, and never again.

A side follows from the name of the group alone (a speaker, or a picture where nobody knows the person), so
adding data moves nobody. The sides of a corpus are then frozen as one SHA-256 over every name and its side.
Whatever is trained or tested later on other sides is refused, because its figures would mean nothing.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from liveaffect.engines.manifest import Manifest, write_whole
from liveaffect.engines.protocol import EngineFileError

SIDES = ("train", "calibrate", "test")
FORMAT = 1
FROZEN = Path(__file__).resolve().with_name("splits.json")
"""The sides of the corpora that the weights of the package were trained on."""
_SALT = "liveaffect-1"


@dataclass(frozen=True, slots=True)
class Member:
    """One picture or recording."""

    name: str
    group: str
    side: str


def side_of(group: str, *, calibrate: float, test: float = 0.0) -> str:
    """The side of a group, for ever the same; the shares hold on average."""
    dice = int.from_bytes(hashlib.sha256(f"{_SALT}/{group}".encode()).digest()[:8], "big") / 2**64
    if dice < test:
        return "test"
    return "calibrate" if dice < test + calibrate else "train"


def freeze(path: Path, corpus: str, members: Iterable[Member], *, add: bool = True) -> str:
    """The SHA-256 of a corpus's sides, written into `path` the first time and compared from then on.

    Without `add` nothing is written. Raises ValueError if a group lies on two sides, EngineFileError if the
    sides are not those frozen.
    """
    members = sorted(members, key=lambda member: member.name)
    refuse_straddling(members)
    entry = {
        "sha256": digest(members),
        "members": dict(sorted(Counter(member.side for member in members).items())),
        "groups": dict(sorted(Counter(dict(_sides(members)).values()).items())),
    }
    frozen = read_splits(path)
    if corpus not in frozen and not add:
        return str(entry["sha256"])
    if corpus not in frozen:
        frozen[corpus] = entry
        content = {"format": FORMAT, "corpora": dict(sorted(frozen.items()))}
        write_whole(path, (json.dumps(content, indent=1) + "\n").encode())
    elif frozen[corpus] != entry:
        raise EngineFileError(
            f"the sides of '{corpus}' are not those frozen in {path}: {entry['members']} here, "
            f"{frozen[corpus].get('members')} there; the data changed or is incomplete"
        )
    return str(entry["sha256"])


def read_splits(path: Path) -> dict[str, dict[str, Any]]:
    """The frozen corpora of a file; none if it does not exist."""
    if not path.exists():
        return {}
    try:
        found = json.loads(path.read_text("utf-8"))
        if found["format"] != FORMAT:
            raise EngineFileError(f"{path} has format {found['format']}, this version reads {FORMAT}")
        return dict(found["corpora"])
    except (ValueError, KeyError, TypeError) as err:
        raise EngineFileError(f"the splits {path} are damaged: {err}") from err


def digest(members: Iterable[Member]) -> str:
    """One number for every name and its side."""
    hashed = hashlib.sha256()
    for member in sorted(members, key=lambda member: member.name):
        hashed.update(f"{member.name}\t{member.side}\n".encode())
    return hashed.hexdigest()


def refuse_straddling(members: Iterable[Member]) -> None:
    """Raise ValueError if a group lies on two sides."""
    seen: dict[str, str] = {}
    for group, side in _sides(members):
        if seen.setdefault(group, side) != side:
            raise ValueError(f"'{group}' lies on two sides of the split, {seen[group]} and {side}")


def refuse_other_sides(found: Manifest, corpora: Sequence[str], digest: str) -> None:
    """Raise EngineFileError unless a network was trained, and on exactly the train side of these corpora."""
    if not found.training:
        raise EngineFileError(f"'{found.name}' was never trained; there is nothing to judge")
    told = str(found.training.get("splits"))
    if list(found.training.get("corpora", ())) == list(corpora) and told != digest:
        raise EngineFileError(
            f"'{found.name}' was trained on other sides of {', '.join(corpora)} "
            f"({told[:12]}, these are {digest[:12]}): it may know what it is tested on"
        )


def _sides(members: Iterable[Member]) -> Iterable[tuple[str, str]]:
    return ((member.group, member.side) for member in members)
