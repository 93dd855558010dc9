"""Where this user's files are kept that can be made or fetched again."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path


def cache_dir(environ: Mapping[str, str] = os.environ) -> Path:
    """The folder of the whole application; it need not exist yet."""
    if given := environ.get("XDG_CACHE_HOME"):
        return Path(given) / "liveaffect"
    if sys.platform == "win32" and (local := environ.get("LOCALAPPDATA")):
        return Path(local) / "liveaffect" / "cache"
    return Path.home() / ".cache" / "liveaffect"


def config_dir(environ: Mapping[str, str] = os.environ) -> Path:
    """Settings of this user; need not exist yet."""
    return _place(environ, "XDG_CONFIG_HOME", "APPDATA", (".config",))


def data_dir(environ: Mapping[str, str] = os.environ) -> Path:
    """Data of this user that no command can bring back; need not exist yet."""
    return _place(environ, "XDG_DATA_HOME", "LOCALAPPDATA", (".local", "share"))


def write_private(path: Path, text: str) -> None:
    """Write a file in one step, so that a broken write leaves the old one; only the user may read it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    try:
        descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def _place(environ: Mapping[str, str], unix: str, windows: str, home: tuple[str, ...]) -> Path:
    if given := environ.get(unix):
        return Path(given) / "liveaffect"
    if sys.platform == "win32" and (roaming := environ.get(windows)):
        return Path(roaming) / "liveaffect"
    return Path.home().joinpath(*home) / "liveaffect"
