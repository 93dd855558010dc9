"""What voice networks say about whole takes: those of the folds, read from a file, or one network, asked.

The networks of the folds are trained elsewhere and for hours; what they said about every take is kept in one
file, and a fusion is learnt from that.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from liveaffect.engines import manifest as manifests
from liveaffect.engines.model import presets
from liveaffect.engines.model.heads import VoiceNetwork
from liveaffect.engines.onnx_engine import OnnxEngine
from liveaffect.engines.protocol import VECTOR
from liveaffect.engines.recipe import LABELS
from liveaffect.engines.training import sound_store
from liveaffect.engines.training.corpora_voices import CorpusError, Take
from liveaffect.engines.training.listen import listen
from liveaffect.engines.training.pairs import FOLDS, FoldAnswers, Pairs, answers_by_fold
from liveaffect.engines.training.replay_statistics import Replay
from liveaffect.engines.training.sided_voices import sided, voices


@dataclass(frozen=True, slots=True, eq=False)
class Asked:
    """One network's pooled logits about takes; takes in which it heard no speech are left out."""

    names: tuple[str, ...]
    truth: NDArray[np.int64]
    logits: NDArray[np.float32]


def of_folds(real: Pairs, voices: Path | None, seed: int) -> FoldAnswers:
    """The answers of fold-wise voice networks, or of stand-ins over statistics of the sound."""
    if voices is not None:
        return read_folds(voices, real)
    return answers_by_fold(real.sound, real.truth, real.folds, seed=seed)


def fingerprint(voices: Path | None) -> str:
    """Which answers of voice networks were used."""
    return "stand-in" if voices is None else hashlib.sha256(voices.read_bytes()).hexdigest()[:12]


def read_folds(path: Path, pairs: Pairs) -> FoldAnswers:
    """The answers of the folds' networks about exactly these pairs, in their order.

    The file is what `folds_voice` writes: `names`, `folds`, and by fold `vectors` and `logits`, pooled over
    whole takes. Raises CorpusError if it is damaged, lacks a take or has other folds.
    """
    try:
        with np.load(path) as kept:
            row = {str(name)[3:]: at for at, name in enumerate(kept["names"])}
            folds, vectors, logits = (kept[part] for part in ("folds", "vectors", "logits"))
    except (OSError, ValueError, KeyError) as err:
        raise CorpusError(f"cannot read the answers of voice networks in {path}: {err}") from err
    if missing := [name for name in pairs.names if name not in row]:
        raise CorpusError(f"{path} lacks {len(missing)} of {len(pairs)} takes, the first is '{missing[0]}'")
    at = np.array([row[name] for name in pairs.names])
    for part, array, width in (("vectors", vectors, VECTOR), ("logits", logits, len(LABELS))):
        wanted = (FOLDS, len(row), width)
        if array.shape != wanted or not np.isfinite(array).all():
            raise CorpusError(f"{path}: '{part}' must hold numbers of shape {wanted}")
    if (folds[at] != pairs.folds).any():
        raise CorpusError(f"{path} was made with other folds than one for every four actors in order")
    return FoldAnswers(vectors=vectors[:, at].astype(np.float32), logits=logits[:, at].astype(np.float32))


def ask(
    folder: Path, takes: dict[str, list[Take]], side: str, frozen: Path, report: Callable[[str], None]
) -> Asked:
    """Let the voice network of a folder hear one side as live, from cold, in fp32."""
    found = manifests.read(folder / "voice.json")
    network = presets.build("voice", found.preset)
    assert isinstance(network, VoiceNetwork)
    replay = Replay(network.sound)
    sides = sided(takes, frozen, add=False)
    held = {corpus: [t for t in these if sides[0][t.speaker] == side] for corpus, these in takes.items()}
    held = {corpus: these for corpus, these in held.items() if these}
    recordings = voices(held, sides, replay, sound_store.default_folder(), report).sides[side]
    with closing(OnnxEngine(found, folder)) as engine:
        pieces = [replay.samples(one.samples) for one in recordings]
        pooled = [heard.pooled() for heard in listen(engine.infer, pieces, found.recipe.hop)]
    kept = [(one, said) for one, said in zip(recordings, pooled, strict=True) if said is not None]
    return Asked(
        names=tuple(one.take.name for one, _ in kept if one.take),
        truth=np.array([one.label for one, _ in kept]),
        logits=np.array([said for _, said in kept], np.float32).reshape(-1, len(LABELS)),
    )
