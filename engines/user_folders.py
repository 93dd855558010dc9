"""Where this user's files are kept: on each system where its users expect them."""

from __future__ import annotations

import os
from pathlib import Path

_NAME = "liveaffect"


def cache_dir() -> Path:
    """What can be made or fetched again; it need not exist yet."""
    from platformdirs import user_cache_path

    return user_cache_path(_NAME, appauthor=False)


def config_dir() -> Path:
    """Settings of this user; need not exist yet."""
    from platformdirs import user_config_path

    return user_config_path(_NAME, appauthor=False)


def data_dir() -> Path:
    """Data of this user that no command can bring back; need not exist yet."""
    from platformdirs import user_data_path

    return user_data_path(_NAME, appauthor=False)


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
