"""Which source trained a network: the commit of the checkout, for the manifest."""

from __future__ import annotations

import subprocess
from pathlib import Path

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
