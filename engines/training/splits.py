"""Who is trained on, who is calibrated on, who is tested on: decided once, by hash, and never again.

A side follows from the name of the group alone (a speaker, or a picture where nobody knows the person), so
adding data moves nobody. Half a dozen speakers make a coarse dice, so the shares of a small corpus are far
from what was asked for; that is the price of sides that nobody ever chose. The sides of a corpus are then
frozen as one SHA-256 over every name and its side. Whatever is trained or tested later on other sides is
refused, because its figures would mean nothing.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from liveaffect.engines.manifest import Manifest, write_whole
from liveaffect.engines.protocol import EngineFileError
from liveaffect.engines.training import corpora_voices
from liveaffect.engines.training.corpora_voices import Take

SIDES = ("train", "calibrate", "test")
FORMAT = 1
FROZEN = Path(__file__).resolve().with_name("splits.json")
"""The sides of the corpora that the weights of the package were trained on."""
_SALT = "liveaffect-1"
CALIBRATE_SHARE, TEST_SHARE = 0.15, 0.15
SMOKE_SPEAKERS, SMOKE_TAKES = 2, 24
"""Of each side and corpus, and of each of those speakers."""


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


def voice_side(speaker: str) -> str:
    """The side of a speaker, for ever the same."""
    return side_of(speaker, calibrate=CALIBRATE_SHARE, test=TEST_SHARE)


def sided(
    takes: Mapping[str, Sequence[Take]], frozen: Path, *, add: bool = True
) -> tuple[dict[str, str], str]:
    """The side of every speaker, after the sides were found to be those frozen in a file; and their digest.

    `add` freezes a corpus that the file does not know yet.
    """
    sides: dict[str, str] = {}
    digests = []
    for corpus, these in takes.items():
        sides |= {take.speaker: voice_side(take.speaker) for take in these}
        members = [Member(take.name, take.speaker, sides[take.speaker]) for take in these]
        digests.append(freeze(frozen, corpus, members, add=add))
    return sides, hashlib.sha256("".join(digests).encode()).hexdigest()


def on_side(takes: Mapping[str, Sequence[Take]], side: str, frozen: Path) -> dict[str, list[Take]]:
    """The takes of one side, corpora without any left out; the sides must be those frozen."""
    sides, _ = sided(takes, frozen, add=False)
    held = {corpus: [t for t in these if sides[t.speaker] == side] for corpus, these in takes.items()}
    return {corpus: these for corpus, these in held.items() if these}


def found_in(data: Path) -> dict[str, list[Take]]:
    """Every take of every corpus in a data folder."""
    return {
        corpus: corpora_voices.read_corpus(corpus, path) for corpus, path in corpora_voices.find(data).items()
    }


def few(takes: Sequence[Take], sides: Mapping[str, str]) -> list[Take]:
    """Some takes of a few speakers of every side, to see that everything works."""
    chosen: list[Take] = []
    for side in SIDES:
        speakers = dict.fromkeys(take.speaker for take in takes if sides[take.speaker] == side)
        for speaker in list(speakers)[:SMOKE_SPEAKERS]:
            mine = [take for take in takes if take.speaker == speaker]
            chosen += mine[:: max(1, len(mine) // SMOKE_TAKES)][:SMOKE_TAKES]
    return chosen
