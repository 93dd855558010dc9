"""Puts the parts that `pack.py` wrote together again: checks every one, joins, unpacks.

    python3 unpack.py TARGET [--parts FOLDER] [--only runtime,networks,project]

Travels with the parts, so it needs the standard library alone. A part that is missing, cut or altered is
refused by name before anything is written. Afterwards `TARGET/measure` runs the kit.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import lzma
import os
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

LIST = "parts.json"
_BLOCK = 1 << 20
_MEASURE = """#!/bin/sh
# Runs the kit with what was unpacked beside this file. PYTHON names another interpreter.
here={here}
export PYTHONPATH="$here/runtime${{PYTHONPATH:+:$PYTHONPATH}}"
export LD_LIBRARY_PATH="$here/runtime/tensorrt_rtx_libs${{LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}}"
exec "${{PYTHON:-python3}}" "$here/project/benchmarks/gpu/run.py" --networks "$here/networks" "$@"
"""


class PartError(Exception):
    """A part is missing or is not the one that was packed."""


class _Joined:
    """All parts one after the other, as one file to read."""

    def __init__(self, paths: list[Path]) -> None:
        self._blocks = _blocks(paths)
        self._left = b""

    def read(self, size: int = -1) -> bytes:
        """At most so many bytes; all that is left without a number."""
        while size < 0 or len(self._left) < size:
            block = next(self._blocks, b"")
            if not block:
                break
            self._left += block
        end = len(self._left) if size < 0 else size
        out, self._left = self._left[:end], self._left[end:]
        return out


def _blocks(paths: list[Path]) -> Iterator[bytes]:
    for path in paths:
        with path.open("rb") as file:
            while block := file.read(_BLOCK):
                yield block


def check(folder: Path, only: list[str] | None = None) -> list[dict[str, Any]]:
    """The archives asked for, after every part of them was found whole. Raises PartError with all names."""
    try:
        archives: list[dict[str, Any]] = json.loads((folder / LIST).read_text("utf-8"))["archives"]
    except (OSError, ValueError, KeyError) as err:
        raise PartError(f"{folder} holds no readable {LIST} ({err}); bring it along with the parts") from err
    known = [archive["name"] for archive in archives]
    if unknown := sorted(set(only or known) - set(known)):
        raise PartError(f"there is no archive {', '.join(unknown)}; there are {', '.join(known)}")
    chosen = [archive for archive in archives if archive["name"] in (only or known)]
    complaints = [why for archive in chosen for part in archive["parts"] if (why := _wrong(folder, part))]
    if complaints:
        raise PartError("bring these parts again: " + "; ".join(complaints))
    return chosen


def _wrong(folder: Path, part: dict[str, Any]) -> str | None:
    path = folder / part["file"]
    if not path.is_file():
        return f"{part['file']} is missing"
    if path.stat().st_size != part["bytes"]:
        return f"{part['file']} has {path.stat().st_size} bytes instead of {part['bytes']}"
    return None if sha256_of(path) == part["sha256"] else f"{part['file']} is damaged (its SHA-256 differs)"


def sha256_of(path: Path) -> str:
    """The sum of a file."""
    digest = hashlib.sha256()
    for block in _blocks([path]):
        digest.update(block)
    return digest.hexdigest()


def unpack(folder: Path, target: Path, only: list[str] | None = None) -> list[str]:
    """Check, join and unpack; the names of the archives that were unpacked."""
    chosen = check(folder, only)
    target.mkdir(parents=True, exist_ok=True)
    for archive in chosen:
        joined: Any = _Joined([folder / part["file"] for part in archive["parts"]])
        with lzma.open(joined) as content, tarfile.open(fileobj=content, mode="r|") as tar:
            tar.extractall(target / archive["name"], filter="data")
    script = target / "measure"
    script.write_text(_MEASURE.format(here=target.resolve()), "utf-8")
    script.chmod(0o755)
    return [archive["name"] for archive in chosen]


def main(arguments: list[str] | None = None) -> int:
    """Unpack and say how to go on; 1 if a part does not fit."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("target", type=Path)
    parser.add_argument("--parts", type=Path, default=Path(__file__).resolve().parent)
    parser.add_argument("--only", default="", help="names of archives, with commas; default all")
    given = parser.parse_args(arguments)
    try:
        done = unpack(given.parts, given.target, [name for name in given.only.split(",") if name] or None)
    except (PartError, lzma.LZMAError, tarfile.TarError) as err:
        print(f"unpack: {err}", file=sys.stderr)
        return 1
    print(f"unpacked {', '.join(done)} into {given.target}; measure with: {given.target / 'measure'}")
    return 0


if __name__ == "__main__":
    os.umask(0o022)
    sys.exit(main())
