"""Tables of what networks said about single items, many in one packed file.

Figures are made again from these tables, so they belong to the repository; packed together they take a
sixth of their size, because the same names stand in many. The same tables always give the same bytes.
"""

from __future__ import annotations

import io
import tarfile
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

from liveaffect.engines.manifest import write_whole

ENDING = ".tar.xz"


def read_tables(path: Path) -> dict[str, str]:
    """Every table of a packed file by its name. Raises ValueError if it is damaged."""
    return dict(_unpacked(path, path.stat().st_mtime_ns))


@lru_cache(maxsize=8)
def _unpacked(path: Path, changed_ns: int) -> dict[str, str]:
    try:
        with tarfile.open(path, "r:xz") as packed:
            members = ((one.name, packed.extractfile(one)) for one in packed.getmembers())
            return {name: file.read().decode() for name, file in members if file is not None}
    except (tarfile.TarError, UnicodeDecodeError, EOFError) as err:
        raise ValueError(f"{path} holds no packed tables: {err}") from err


def write_tables(path: Path, tables: Mapping[str, str]) -> None:
    """Pack tables, in the order of their names, in place of those that were there."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:xz", preset=9, format=tarfile.USTAR_FORMAT) as packed:
        for name in sorted(tables):
            content = tables[name].encode()
            about = tarfile.TarInfo(name)
            about.size = len(content)
            packed.addfile(about, io.BytesIO(content))
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, buffer.getvalue())


def change_tables(path: Path, tables: Mapping[str, str]) -> None:
    """Put tables beside those that are packed already, or in the place of those of the same name."""
    write_tables(path, {**(read_tables(path) if path.exists() else {}), **tables})
