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
