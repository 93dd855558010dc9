"""Tensors that a network stands on and that are not ours: where they lie, and handing them to a run-time.

The file of such a network names them and holds none of their numbers. Its manifest says of which file they
are, by SHA-256, so that a network is never put together from another Whisper than it was trained on.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from liveaffect.engines import whisper
from liveaffect.engines.manifest import Manifest
from liveaffect.engines.protocol import EngineFileError
from liveaffect.engines.user_folders import cache_dir

FOLDER_VARIABLE = "LIVEAFFECT_WHISPER"
"""A folder of the user's own that holds the files instead."""


def whisper_folder(name: str) -> Path:
    """Where the files of one Whisper lie or would lie."""
    given = os.environ.get(FOLDER_VARIABLE)
    return Path(given) if given else cache_dir() / f"whisper-{name}"


def why_not(manifest: Manifest) -> str | None:
    """Why the foreign tensors of a network cannot be had here, in a few words; None if they can.

    The file is looked at and not read: its sum is checked when it is opened.
    """
    if not manifest.foreign:
        return None
    name = str(manifest.foreign["whisper"])
    path = whisper_folder(name) / whisper.FILE
    return None if path.is_file() else f"Whisper {name} is not in {path.parent}; `liveaffect fetch` brings it"


def tensors(manifest: Manifest) -> dict[str, NDArray[np.float32]]:
    """The foreign tensors by the names that the network's file has for them; none for most networks.

    Raises EngineFileError if their file is missing, damaged, or another one than the manifest names.
    """
    if not manifest.foreign:
        return {}
    name, wanted = str(manifest.foreign["whisper"]), manifest.foreign["sha256"]
    model = whisper.KNOWN.get(name)
    if model is None or model.sha256 != wanted:
        raise EngineFileError(
            f"'{manifest.name}' stands on Whisper {name} with SHA-256 {str(wanted)[:12]}..., which this "
            "version does not know; bring liveaffect up to date with 'pip install --upgrade liveaffect'"
        )
    found = whisper.read(whisper_folder(name), model)
    names: list[str] = list(manifest.foreign["tensors"])
    if missing := sorted(set(names) - found.keys()):
        raise EngineFileError(
            f"Whisper {name} lacks the tensor {missing[0]} that '{manifest.name}' stands on"
        )
    return {key: np.ascontiguousarray(found[key], np.float32) for key in names}


def described(model: whisper.WhisperModel, names: list[str]) -> dict[str, Any]:
    """What a manifest says of the foreign tensors."""
    return {"whisper": model.name, "sha256": model.sha256, "tensors": sorted(names)}
