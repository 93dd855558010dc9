"""Learns how to join a face's and a voice's opinion, from real pairs of both, for the networks at hand.

What is learnt from pairs is how far to believe two opinions that come together; that is four numbers, and
they carry over from the stand-in for faces to our face network because the opinions are brought to the same
honesty first. How honest our own networks are is measured on the calibrate side, network by network. A fusion
of vectors would have to be learnt from the very vectors it is used on, and there are no pairs of those.
"""

from __future__ import annotations

import hashlib
import logging
import math
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from liveaffect.engines import manifest as manifests
from liveaffect.engines.build.export_onnx import export
from liveaffect.engines.model.fusion import LateMaskedFusion
from liveaffect.engines.onnx_engine import OnnxEngine
from liveaffect.engines.protocol import EngineFileError
from liveaffect.engines.training import (
    ablate_fusion,
    corpora_faces,
    corpora_voices,
    evaluate_face,
    evaluate_fusion,
    loop,
    pairs,
    splits,
    stand_in,
    voice_answers,
)
from liveaffect.engines.training.augment_faces import grey_crops
from liveaffect.engines.training.fit_fusion import BOTH, Plan, evidence_of, fit, fitted_temperature
from liveaffect.engines.training.sided_faces import sided as sided_faces
from liveaffect.engines.training.sided_voices import found_in, sided
from liveaffect.engines.training.source import source_commit
from liveaffect.engines.training.stand_in import FoldAnswers, Said

PRESET = "late-masked"
EPOCHS, SMOKE_EPOCHS = 40, 5
Report = Callable[[str], None]
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Sources:
    """What is learnt from beside the pairs."""

    voices: Path | None = None
    """The answers of fold-wise voice networks; without it a stand-in over statistics of the sound."""
    networks: Path = manifests.SHIPPED
    """The folder with the face and the voice network that will be joined."""


def schedule_of(
    *,
    smoke: bool = False,
    seed: int = 0,
    epochs: int | None = None,
    limit_s: float = math.inf,
    threads: int = 0,
) -> loop.Schedule:
    """A minute on any machine; only the seed and the number of epochs matter."""
    return loop.Schedule(epochs=epochs or (SMOKE_EPOCHS if smoke else EPOCHS), seed=seed, threads=threads)


def main_run(
    data: Path,
    out: Path,
    *,
    preset: str = PRESET,
    schedule: loop.Schedule | None = None,
    sources: Sources | None = None,
    report: Report = _log.info,
) -> Path:
    """Learn from the pairs in `data`, judge, and write everything into `out`; the manifest's path."""
    if preset not in (PRESET, "live"):
        raise EngineFileError(
            f"a fusion '{preset}' is learnt from the vectors of the networks it joins, and no pairs of "
            f"those are at hand; train '{PRESET}', or compare all with --folds"
        )
    schedule, sources = schedule or schedule_of(), sources or Sources()
    out.mkdir(parents=True, exist_ok=True)
    folder = sources.networks
    frozen = out / splits.FROZEN.name
    real = pairs.read(data)
    takes = {"ravdess": corpora_voices.read("ravdess", corpora_voices.find(data)["ravdess"])}
    sided(takes, frozen)
    digest = splits.read(frozen)["ravdess"]["sha256"]
    train = real.sides == "train"
    report(f"{int(train.sum())} pairs of {len(set(np.array(real.actors)[train]))} actors to learn from")
    learnt = learnt_gains(real, ablate_fusion.voices_of(real, sources.voices, schedule.seed), schedule)
    temperature = temperatures(folder, data, learnt, report)
    learnt.temperature[:2] = torch.tensor([temperature["face"], temperature["voice"]])
    training = {
        "corpora": ["ravdess"],
        "licence": corpora_voices.LICENCES["ravdess"],
        "splits": digest,
        "seed": schedule.seed,
        "commit": source_commit(),
        "epochs": schedule.epochs,
        "voices": _told(sources.voices),
        "networks": _networks(folder),
        "temperature": {name: round(value, 4) for name, value in temperature.items()},
    }
    path = export("fusion", PRESET, out, state=learnt.state_dict(), training=training)
    found = manifests.read(path)
    given, voice_by = evaluate_fusion.gather(found, folder, data, frozen, report)
    verdict = evaluate_fusion.judge(found, out, given, voice_by)
    manifests.write(manifests.extended(found, figures={"ravdess test side": verdict.figures()}), path)
    report(f"wrote {path}\n{verdict.markdown()}")
    return path


def learnt_gains(real: pairs.Pairs, voices: FoldAnswers, schedule: loop.Schedule) -> LateMaskedFusion:
    """The fusion learnt from what networks say about train-side actors whom they never saw."""
    folds, train = real.folds, real.sides == "train"
    faces = stand_in.answers_by_fold(real.face, real.truth, folds, seed=schedule.seed)
    held_out = [Said(said.vectors[0], said.held_out(folds)) for said in (faces, voices)]
    given = evidence_of(held_out[0], held_out[1], train, BOTH)
    learnt = fit(PRESET, given, real.truth[train], Plan(schedule.seed, epochs=schedule.epochs))
    assert isinstance(learnt, LateMaskedFusion)
    return learnt


def temperatures(folder: Path, data: Path, learnt: LateMaskedFusion, report: Report) -> dict[str, float]:
    """How much too sure the networks to be joined are, each on its own calibrate side.

    A network that is not there yet keeps the temperature of what stood in for it.
    """
    found = {"face": float(learnt.temperature[0]), "voice": float(learnt.temperature[1])}
    if (folder / "face.json").exists():
        network = manifests.read(folder / "face.json")
        faces = sided_faces(corpora_faces.find(data), _sides_of(folder), add=False).calibrate
        known = faces.take(np.flatnonzero(faces.label >= 0))
        with closing(OnnxEngine(network, folder)) as engine:
            logits = evaluate_face.answers(engine, grey_crops(known.pictures))
        found["face"] = fitted_temperature(
            torch.from_numpy(logits), torch.from_numpy(known.label), balanced=False
        )
        report(f"temperature of '{network.name}' on {len(known)} pictures: {found['face']:.3f}")
    if (folder / "voice.json").exists():
        asked = voice_answers.ask(folder, found_in(data), "calibrate", _sides_of(folder), report)
        found["voice"] = fitted_temperature(
            torch.from_numpy(asked.logits), torch.from_numpy(asked.truth), balanced=False
        )
        report(f"temperature of the voice network on {len(asked.names)} takes: {found['voice']:.3f}")
    return found


def _sides_of(folder: Path) -> Path:
    return splits.FROZEN if folder == manifests.SHIPPED else folder / splits.FROZEN.name


def _told(voices: Path | None) -> str:
    if voices is None:
        return "a stand-in over statistics of the sound"
    return f"fold-wise networks, SHA-256 of their answers {hashlib.sha256(voices.read_bytes()).hexdigest()}"


def _networks(folder: Path) -> dict[str, Any]:
    """The SHA-256 of the networks that this fusion joins."""
    found = {}
    for kind in ("face", "voice"):
        if (folder / f"{kind}.json").exists():
            found[kind] = manifests.read(folder / f"{kind}.json").files[f"{kind}.onnx"]
    return found
