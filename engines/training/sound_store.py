"""Decodes a corpus once and keeps it as 16 kHz half-precision samples in a cache folder outside the tree.

Decoding takes longer than an epoch's arithmetic, so it is done once. The file's name holds a hash of what
it was made from; a corpus that changed is decoded again, and nothing stale is ever used.
"""

from __future__ import annotations

import hashlib
import io
import os
import zipfile
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from liveaffect.engines.manifest import write_whole
from liveaffect.engines.recipe import SAMPLE_RATE
from liveaffect.engines.training.corpora_voices import CorpusError, Take, read_bytes

Samples = NDArray[np.float16]
LEAST_S = 0.2
"""A take shorter than this is damaged: no corpus holds one."""


def default_folder() -> Path:
    """The user's cache folder."""
    root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(root) / "liveaffect" / "sounds"


def load_takes(takes: Sequence[Take], folder: Path, report: Callable[[str], None] = print) -> list[Samples]:
    """The samples of every take, in their order; decoded if that was not done before."""
    path = folder / f"{takes[0].corpus}-{_takes_fingerprint(takes)}.npz"
    if path.is_file():
        try:
            with path.open("rb") as stream, np.load(stream) as kept:
                return np.split(kept["samples"], kept["ends"][:-1])
        except (OSError, ValueError, KeyError, zipfile.BadZipFile):
            report(f"the cache file {path} is damaged; decoding again")
    report(f"decoding {len(takes)} takes of {takes[0].corpus} once, into {folder}")
    found = {take.name: decode(content, take) for take, content in read_bytes(takes)}
    sounds = [found[take.name] for take in takes]
    folder.mkdir(parents=True, exist_ok=True)
    packed = io.BytesIO()
    np.savez(packed, samples=np.concatenate(sounds), ends=np.cumsum([len(s) for s in sounds]))
    write_whole(path, packed.getvalue())
    return sounds


def decode(content: bytes, take: Take) -> Samples:
    """Mono 16 kHz samples of one encoded sound. Raises CorpusError that names the take."""
    import av
    from av.error import FFmpegError

    parts: list[NDArray[np.float32]] = []
    try:
        with av.open(io.BytesIO(content), mode="r") as container:
            if not container.streams.audio:
                raise CorpusError(f"'{take.name}' of {take.where} holds no sound")
            convert = av.AudioResampler(format="flt", layout="mono", rate=SAMPLE_RATE)
            fed = 0
            for frame in container.decode(audio=0):
                frame.pts, frame.time_base = fed, Fraction(1, frame.sample_rate)
                fed += frame.samples
                parts += [
                    np.asarray(out.to_ndarray(), np.float32).reshape(-1) for out in convert.resample(frame)
                ]
            if fed:
                parts += [
                    np.asarray(out.to_ndarray(), np.float32).reshape(-1) for out in convert.resample(None)
                ]
    except (FFmpegError, OSError, ValueError) as err:
        raise CorpusError(f"'{take.name}' of {take.where} cannot be decoded: {err}; copy it again") from err
    samples = np.concatenate(parts) if parts else np.zeros(0, np.float32)
    if len(samples) < LEAST_S * SAMPLE_RATE or not np.isfinite(samples).all():
        raise CorpusError(
            f"'{take.name}' of {take.where} is damaged: {len(samples)} samples came out; copy it again"
        )
    return samples.astype(np.float16)


def _takes_fingerprint(takes: Sequence[Take]) -> str:
    """Changes when a file's size, its time of change or the list of takes does."""
    digest = hashlib.sha256()
    for where in dict.fromkeys(take.where for take in takes):
        status = where.stat()
        digest.update(f"{where.name} {status.st_size} {status.st_mtime_ns}\n".encode())
    digest.update("\n".join(take.name for take in takes).encode())
    return digest.hexdigest()[:16]
