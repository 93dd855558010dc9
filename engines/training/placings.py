"""Keeps where the live finder would cut each face out, so that a network learns from crops as live.

No training knows the finder: who starts one hands over a function that does. Its answers are kept in a file,
because they take minutes, and because a training that goes on must find exactly those it began with.
"""

from __future__ import annotations

import hashlib
import io
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from liveaffect.engines.manifest import write_whole
from liveaffect.engines.protocol import EngineFileError

PLACINGS = "placings.npz"
Pictures = NDArray[np.uint8]
Place = Callable[[Pictures], NDArray[np.float64] | None]
"""From a grey picture to the (2, 3) matrix from its pixels to those of the crop; None if it shows no face."""


def placings(pictures: Pictures, place: Place, kept: Path) -> NDArray[np.float64]:
    """(n, 2, 3), one matrix a picture, NaN where no face is found; out of the file `kept` if it has them.

    Raises EngineFileError if the file is damaged or tells of other pictures.
    """
    digest = hashlib.sha256(np.ascontiguousarray(pictures).tobytes()).hexdigest()
    if kept.exists():
        return _read(kept, digest)
    out = np.full((len(pictures), 2, 3), np.nan)
    for at, picture in enumerate(pictures):
        if (found := place(picture)) is not None:
            out[at] = found
    buffer = io.BytesIO()
    np.savez(buffer, matrix=out, pictures=np.array(digest))
    kept.parent.mkdir(parents=True, exist_ok=True)
    write_whole(kept, buffer.getvalue())
    return out


def where_found(matrices: NDArray[np.float64]) -> list[NDArray[np.float64] | None]:
    """The same, None where no face is found."""
    return [one if np.isfinite(one).all() else None for one in matrices]


def _read(path: Path, digest: str) -> NDArray[np.float64]:
    try:
        with path.open("rb") as opened, np.load(opened) as file:
            matrices, told = file["matrix"], str(file["pictures"])
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as err:
        raise EngineFileError(
            f"the placings {path} are damaged ({err}); remove them to find them anew"
        ) from err
    if told != digest:
        raise EngineFileError(f"the placings {path} are of other pictures; remove them to find them anew")
    return np.asarray(matrices, np.float64)
