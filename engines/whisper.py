"""Whisper's weights, which are not ours: where the user's own copy lies, and handing it to a run-time.

The voice network stands on the first layers of Whisper's encoder. Its own file names those tensors and
holds none of their numbers; its manifest says of which file they are, by SHA-256, so that a network is
never put together from another Whisper than it was trained on. They come in the format of CTranslate2,
which is plain: a head, then name, shape, type and bytes of each tensor. It is read with NumPy alone,
mapped, so only those used cost memory.
"""

from __future__ import annotations

import hashlib
import mmap
import os
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from liveaffect.engines.manifest import Manifest
from liveaffect.engines.protocol import EngineFileError
from liveaffect.engines.user_folders import cache_dir

FILE = "model.bin"
_TYPES = {0: np.float32, 1: np.int8, 2: np.int16, 3: np.int32, 4: np.float16}
_SPEC = "WhisperSpec"
_BLOCK = 1 << 20


@dataclass(frozen=True, slots=True)
class WhisperModel:
    """One size of Whisper, as far as its encoder's first layers go."""

    name: str
    sha256: str
    """Of `model.bin`."""
    width: int
    heads: int
    layers: int


TINY_EN = WhisperModel(
    name="tiny.en",
    sha256="1a5afae06a4db91c975c9a9d78be5cc110ee4ea022ad57d55492e4550e936b2a",
    width=384,
    heads=6,
    layers=4,
)
BASE = WhisperModel(
    name="base",
    sha256="d01c3014881c9c6f3133c182f3d2887eb6ca1c789a7538c5c007196857a0a6a9",
    width=512,
    heads=8,
    layers=6,
)
KNOWN = {model.name: model for model in (TINY_EN, BASE)}


def read(folder: Path, model: WhisperModel) -> dict[str, NDArray[np.generic]]:
    """The tensors of `folder/model.bin` by CTranslate2's names, after its SHA-256 was found to be right.

    Raises EngineFileError if the file is missing, another one, or damaged.
    """
    path = folder / FILE
    check(path, model)
    return read_tensors(path)


def check(path: Path, model: WhisperModel) -> None:
    """Raise EngineFileError unless this is the file that is known under the model's name."""
    try:
        found = _sha256(path)
    except OSError as err:
        raise EngineFileError(
            f"Whisper {model.name} is not at {path}: {err.strerror}; `liveaffect fetch` brings it"
        ) from err
    if found != model.sha256:
        raise EngineFileError(
            f"{path} is not Whisper {model.name} as known here (SHA-256 {found[:12]}..., expected "
            f"{model.sha256[:12]}...); remove it and run `liveaffect fetch`"
        )


def read_tensors(path: Path) -> dict[str, NDArray[np.generic]]:
    """All tensors of a CTranslate2 file, whatever model it holds."""
    try:
        with path.open("rb") as stream:
            content = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
        return dict(_tensors(_Cursor(content)))
    except (OSError, ValueError, struct.error, UnicodeDecodeError) as err:
        raise EngineFileError(
            f"cannot read Whisper's weights in {path}: {err}; run `liveaffect fetch`"
        ) from err


class _Cursor:
    """A place in the file."""

    def __init__(self, content: mmap.mmap) -> None:
        self.content, self.at = content, 0

    def take(self, form: str) -> tuple[int, ...]:
        found = struct.unpack_from(form, self.content, self.at)
        self.at += struct.calcsize(form)
        return found

    def text(self) -> str:
        (length,) = self.take("<H")
        found = self.content[self.at : self.at + length - 1].decode()
        self.at += length
        return found


def _tensors(cursor: _Cursor) -> list[tuple[str, NDArray[np.generic]]]:
    cursor.take("<I")
    if (spec := cursor.text()) != _SPEC:
        raise ValueError(f"it holds a '{spec}', not a '{_SPEC}'")
    _, count = cursor.take("<II")
    found = []
    for _ in range(count):
        name = cursor.text()
        (rank,) = cursor.take("<B")
        shape = cursor.take(f"<{rank}I")
        kind, length = cursor.take("<BI")
        if kind in _TYPES:
            dtype = np.dtype(_TYPES[kind])
            values = np.frombuffer(cursor.content, dtype, length // dtype.itemsize, cursor.at)
            found.append((name, values.reshape(shape)))
        cursor.at += length
    return found


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


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
    path = whisper_folder(name) / FILE
    return None if path.is_file() else f"Whisper {name} is not in {path.parent}; `liveaffect fetch` brings it"


def tensors(manifest: Manifest) -> dict[str, NDArray[np.float32]]:
    """The foreign tensors by the names that the network's file has for them; none for most networks.

    Raises EngineFileError if their file is missing, damaged, or another one than the manifest names.
    """
    if not manifest.foreign:
        return {}
    name, wanted = str(manifest.foreign["whisper"]), manifest.foreign["sha256"]
    model = KNOWN.get(name)
    if model is None or model.sha256 != wanted:
        raise EngineFileError(
            f"'{manifest.name}' stands on Whisper {name} with SHA-256 {str(wanted)[:12]}..., which this "
            "version does not know; bring liveaffect up to date with 'pip install --upgrade liveaffect'"
        )
    found = read(whisper_folder(name), model)
    names: list[str] = list(manifest.foreign["tensors"])
    if missing := sorted(set(names) - found.keys()):
        raise EngineFileError(
            f"Whisper {name} lacks the tensor {missing[0]} that '{manifest.name}' stands on"
        )
    return {key: np.ascontiguousarray(found[key], np.float32) for key in names}


def described(model: WhisperModel, names: list[str]) -> dict[str, Any]:
    """What a manifest says of the foreign tensors."""
    return {"whisper": model.name, "sha256": model.sha256, "tensors": sorted(names)}
