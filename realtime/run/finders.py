"""Opens the two face finders of a run: full range for tiles, short range for close looks."""

from __future__ import annotations

from pathlib import Path

from realtime.faces.blazeface import FaceFinder, open_finder
from realtime.run.fetch import FULL_RANGE, SHORT_RANGE, model_path


def make_finder(folder: Path | None = None) -> tuple[FaceFinder, FaceFinder]:
    """`far` and `near` as `Sight` takes them; one pair serves one thread.

    Raises MissingFile, which names the command that brings the files, or MissingLibrary.
    """
    return open_finder(model_path(FULL_RANGE, folder)), open_finder(model_path(SHORT_RANGE, folder))
