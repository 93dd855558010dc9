"""Learns how to join a face's and a voice's opinion, from real pairs of both, for the networks at hand.

What is learnt from pairs is how far to believe two opinions that come together; that is four numbers, and
they carry over from the stand-in for faces to our face network because the opinions are brought to the same
honesty first. How honest our own networks are is measured on the calibrate side, network by network. A fusion
of vectors would have to be learnt from the very vectors it is used on, and there are no pairs of those.

Whoever stands before a camera is of no corpus. So a face is paired with what a voice network said that knew
the corpus and not the actor, with what one said that never heard the corpus, and, since most people talk
plainly whatever their face shows, with a neutral take of anybody.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from liveaffect.engines import manifest as manifests
from liveaffect.engines.build.export_onnx import export
from liveaffect.engines.model.fusion import LateMaskedFusion
from liveaffect.engines.onnx_engine import OnnxEngine
from liveaffect.engines.protocol import EngineFileError
from liveaffect.engines.recipe import LABELS
from liveaffect.engines.training import (
    corpora_faces,
    corpora_voices,
    evaluate_face,
    evaluate_fusion,
    pairs,
    splits,
)
from liveaffect.engines.training.augment_faces import grey_crops
from liveaffect.engines.training.corpora_faces import load_split
from liveaffect.engines.training.fit_fusion import (
    BOTH,
    PRESET,
    evidence_of,
    fit_late_masked,
    fusion_temperature,
)
from liveaffect.engines.training.listen import ask_about
from liveaffect.engines.training.loop import source_commit
from liveaffect.engines.training.scores import read_tables
from liveaffect.engines.training.splits import found_in, sided
from liveaffect.engines.training.voice_answers import COLD, FOLDS_OF, KNOWN, read_answers

EPOCHS, SMOKE_EPOCHS = 40, 5
Report = Callable[[str], None]
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class FusionOptions:
    """What is learnt, and from what beside the pairs."""

    preset: str = PRESET
    seed: int = 0
    epochs: int = EPOCHS
    voices: Path | None = None
    """The archive with what fold-wise heads said; without it a stand-in over statistics of the sound."""
    networks: Path = manifests.SHIPPED
    """The folder with the face and the voice network that will be joined."""


def train_fusion(
    data: Path, out: Path, options: FusionOptions = FusionOptions(), *, report: Report = _log.info
) -> Path:
    """Learn from the pairs in `data`, judge, and write everything into `out`; the manifest's path."""
    _refuse_vectors(options.preset)
    seed, epochs, networks = options.seed, options.epochs, options.networks
    out.mkdir(parents=True, exist_ok=True)
    frozen = out / splits.FROZEN.name
    real = pairs.read_pairs(data)
    takes = {"ravdess": corpora_voices.read_corpus("ravdess", corpora_voices.find(data)["ravdess"])}
    sided(takes, frozen)
    digest = splits.read_splits(frozen)["ravdess"]["sha256"]
    train = real.sides == "train"
    report(f"{int(train.sum())} pairs of {len(set(np.array(real.actors)[train]))} actors to learn from")
    voice = manifests.read(networks / "voice.json").preset if (networks / "voice.json").exists() else ""
    learnt = learnt_gains(real, voices_of(real, options.voices, voice, seed), seed, epochs)
    temperature = temperatures(networks, data, learnt, report)
    learnt.temperature[:2] = torch.tensor([temperature["face"], temperature["voice"]])
    training = {
        "corpora": ["ravdess"],
        "licence": corpora_voices.LICENCES["ravdess"],
        "splits": digest,
        "seed": seed,
        "commit": source_commit(),
        "epochs": epochs,
        "voices": voices_told(options.voices, voice),
        "networks": _networks_joined(networks),
        "temperature": {name: round(value, 4) for name, value in temperature.items()},
    }
    path = export("fusion", PRESET, out, state=learnt.state_dict(), training=training)
    found = manifests.read(path)
    given, voice_by = evaluate_fusion.gather(found, networks, data, frozen, report)
    verdict = evaluate_fusion.judge_fusion(found, out, given, voice_by)
    manifests.record_figures(path, {"ravdess test side": verdict.figures()})
    report(f"wrote {path}\n{verdict.markdown()}")
    return path


def _refuse_vectors(preset: str) -> None:
    if preset != PRESET:
        raise EngineFileError(
            f"a fusion '{preset}' is learnt from the vectors of the networks it joins, and no pairs of "
            f"those are at hand; train '{PRESET}'"
        )


def fold_tables(voices: Path, preset: str) -> list[str]:
    """What heads of one preset said, fold by fold, and last what one said that never heard the corpus.

    Those of the full voice where nobody ran its own. Raises CorpusError if the archive lacks one.
    """
    try:
        tables = read_tables(voices)
        if FOLDS_OF.format(preset=preset, run=0) not in tables:
            preset = "whisper"
        runs = (*range(pairs.FOLDS), "ravdess")
        return [tables[FOLDS_OF.format(preset=preset, run=run)] for run in runs]
    except (OSError, ValueError, KeyError) as err:
        raise corpora_voices.CorpusError(
            f"{voices} has no answers of five folds of '{preset}' and of one without 'ravdess': {err}"
        ) from err


def voices_of(
    real: pairs.Pairs, voices: Path | None, preset: str, seed: int
) -> tuple[NDArray[np.float32], ...]:
    """(n, 7) each: what voice networks say of each pair that never heard its actor; without any a stand-in.

    Those that know the corpus come first, then those that do not; each from cold and with the speaker known.
    Raises CorpusError if the archive `voices` lacks a table or a take.
    """
    if voices is None:
        return (pairs.held_out_answers(real.sound, real.truth, real.folds, seed=seed),)
    *folds, strange = (_of_ravdess(text) for text in fold_tables(voices, preset))
    wanted = list(zip(real.folds.tolist(), real.names, strict=True))
    missing = [name for fold, name in wanted for said in (folds[fold], strange) if (COLD, name) not in said]
    if missing:
        raise corpora_voices.CorpusError(
            f"{voices} lacks {len(missing)} of {len(real)} takes in the folds that leave them out, "
            f"the first is '{missing[0]}'"
        )
    return tuple(
        np.nan_to_num(np.array([said[known, name] for said, name in asked], np.float32))
        for asked in ([(folds[fold], name) for fold, name in wanted], [(strange, name) for _, name in wanted])
        for known in (COLD, KNOWN)
    )


def _of_ravdess(text: str) -> dict[tuple[str, str], NDArray[np.float32]]:
    of = (one for one in read_answers(text) if one.corpus == "ravdess")
    return {(one.known, one.name[3:]): np.array(one.logits, np.float32) for one in of}


def voices_told(voices: Path | None, preset: str) -> str:
    """Which answers of voice networks were used."""
    if voices is None:
        return "a stand-in over statistics of the sound"
    digest = hashlib.sha256("".join(fold_tables(voices, preset)).encode()).hexdigest()
    return f"heads of folds and of one without the corpus, SHA-256 of their answers {digest}"


def learnt_gains(
    real: pairs.Pairs, voices: tuple[NDArray[np.float32], ...], seed: int, epochs: int
) -> LateMaskedFusion:
    """The fusion learnt from what networks say about train-side actors whom they never saw.

    All voices count alike, and so does one more: of the last of them, a neutral take that chance gives.
    """
    train = real.sides == "train"
    faces = pairs.held_out_answers(real.face, real.truth, real.folds, seed=seed)[train]
    truth, rng = real.truth[train], np.random.default_rng(seed)
    neutral = np.flatnonzero(truth == LABELS.index("neutral"))
    heard = [one[train] for one in voices]
    heard.append(heard[-1][rng.choice(neutral, len(truth))])
    given = evidence_of(np.concatenate([faces] * len(heard)), np.concatenate(heard), BOTH)
    truths = np.concatenate([truth] * len(heard))
    return fit_late_masked(given, truths, seed=seed, epochs=epochs, honest=len(truth))


def temperatures(folder: Path, data: Path, learnt: LateMaskedFusion, report: Report) -> dict[str, float]:
    """How much too sure the networks to be joined are, each on its own calibrate side.

    A network that is not there yet keeps the temperature of what stood in for it.
    """
    found = {"face": float(learnt.temperature[0]), "voice": float(learnt.temperature[1])}
    if (folder / "face.json").exists():
        network = manifests.read(folder / "face.json")
        faces = load_split(corpora_faces.find_faces(data), _sides_of(folder), add=False).calibrate
        known = faces.take(np.flatnonzero(faces.label >= 0))
        with closing(OnnxEngine(network, folder)) as engine:
            logits = evaluate_face.crop_answers(engine, grey_crops(known.pictures))
        found["face"] = fusion_temperature(
            torch.from_numpy(logits), torch.from_numpy(known.label), balanced=False
        )
        report(f"temperature of '{network.name}' on {len(known)} pictures: {found['face']:.3f}")
    if (folder / "voice.json").exists():
        asked = ask_about(folder, found_in(data), "calibrate", _sides_of(folder), report)
        found["voice"] = fusion_temperature(
            torch.from_numpy(asked.logits), torch.from_numpy(asked.truth), balanced=False
        )
        report(f"temperature of the voice network on {len(asked.names)} takes: {found['voice']:.3f}")
    return found


def _sides_of(folder: Path) -> Path:
    return splits.FROZEN if folder == manifests.SHIPPED else folder / splits.FROZEN.name


def _networks_joined(folder: Path) -> dict[str, Any]:
    """The SHA-256 of the networks that this fusion joins."""
    found = {}
    for kind in ("face", "voice"):
        if (folder / f"{kind}.json").exists():
            found[kind] = manifests.read(folder / f"{kind}.json").files[f"{kind}.onnx"]
    return found
