"""Judges the fusion that is shipped on real pairs of people nobody trained on, with a modality blanked too.

The voice is the voice network's own answer. The face is the stand-in's, trained on the same side's actors,
because no films are at hand; its logits are brought to the scale that the fusion expects of our face network.
So the figures say what joining is worth, not how good our face network is on these people.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from liveaffect.engines import manifest as manifests
from liveaffect.engines.manifest import Manifest
from liveaffect.engines.onnx_engine import OnnxEngine
from liveaffect.engines.protocol import FUSION_INPUTS
from liveaffect.engines.recipe import LABELS
from liveaffect.engines.training import corpora_voices, pairs, splits
from liveaffect.engines.training.fit_fusion import CONDITIONS, fusion_temperature
from liveaffect.engines.training.listen import ask_about
from liveaffect.engines.training.pairs import Pairs
from liveaffect.engines.training.scores import Scores, score, to_markdown, write_pictures

Logits = NDArray[np.float32]
Report = Callable[[str], None]
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, eq=False)
class Inputs:
    """What the fusion is given about takes."""

    names: tuple[str, ...]
    actors: tuple[str, ...]
    truth: NDArray[np.int64]
    face: Logits
    voice: Logits
    """NaN where no speech was heard."""

    @property
    def heard(self) -> NDArray[np.bool_]:
        """Whether there is a voice."""
        return np.asarray(np.isfinite(self.voice).all(1))


@dataclass(frozen=True, slots=True, eq=False)
class FusionVerdict:
    """What the fusion's answers are worth."""

    model: str
    given: Inputs
    voice_by: str
    said: Mapping[str, NDArray[np.float64]]
    """Per condition, (n, 7) probabilities."""
    scores: Mapping[str, Scores]

    def figures(self) -> dict[str, Any]:
        """For the manifest."""
        return {
            name: {
                "items": found.items,
                "accuracy": round(found.accuracy, 4),
                "unweighted_recall": round(found.unweighted_recall, 4),
                "macro_f1": round(found.macro_f1, 4),
            }
            for name, found in self.scores.items()
        } | {"voice": self.voice_by, "face": "stand-in over facial action units"}

    def markdown(self) -> str:
        """Its tables."""
        people = sorted(set(self.given.actors))
        lines = [
            f"Fusion `{self.model}`, {len(self.given.truth)} takes of {len(people)} actors "
            f"({', '.join(people)}), voice by {self.voice_by}, face by a stand-in over action units.\n",
            "| given | unweighted recall | accuracy | macro F1 |",
            "|---|--:|--:|--:|",
        ]
        for name, found in self.scores.items():
            low, high = found.unweighted_recall_between
            lines.append(
                f"| {name} | {found.unweighted_recall:.3f} ({low:.3f} to {high:.3f}) "
                f"| {found.accuracy:.3f} | {found.macro_f1:.3f} |"
            )
        return "\n".join([*lines, "", to_markdown(self.scores["both"])])

    def table(self) -> str:
        """One line a take: what the fusion was given and what it said of both."""
        heads = [f"{part}_{label}" for part in ("face", "voice", "fused") for label in LABELS]
        lines = [",".join(["name", "actor", "truth", *heads])]
        for at, name in enumerate(self.given.names):
            parts = (self.given.face[at], self.given.voice[at], self.said["both"][at])
            cells = [f"{value:.4f}" for part in parts for value in part]
            lines.append(",".join([name, self.given.actors[at], LABELS[self.given.truth[at]], *cells]))
        return "\n".join(lines) + "\n"


def evaluate_fusion(
    data: Path, *, weights: Path | None = None, out: Path | None = None, report: Report = _log.info
) -> FusionVerdict:
    """Judge the fusion of the package or of a folder on the test side; writes tables into `out`."""
    folder = weights or manifests.SHIPPED
    found = manifests.read(folder / "fusion.json")
    frozen = splits.FROZEN if weights is None else folder / splits.FROZEN.name
    refuse_other_actors(found, frozen)
    given, voice_by = gather(found, folder, data, frozen, report)
    verdict = judge_fusion(found, folder, given, voice_by)
    report(verdict.markdown())
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        manifests.write_whole(out / "fusion.md", verdict.markdown().encode())
        manifests.write_whole(out / "fusion.csv", verdict.table().encode())
        confusions = {f"fusion-{name.replace(' ', '-')}": scores for name, scores in verdict.scores.items()}
        write_pictures(out, confusions, folder)
    return verdict


def refuse_other_actors(found: Manifest, frozen: Path) -> None:
    """Raise EngineFileError unless the fusion was learnt from exactly the train side of the pairs' corpus."""
    known = splits.read_splits(frozen).get("ravdess", {}).get("sha256")
    splits.refuse_other_sides(found, ("ravdess",), str(known))


def gather(found: Manifest, folder: Path, data: Path, frozen: Path, report: Report) -> tuple[Inputs, str]:
    """The test side as the fusion is given it, and who judged the voices."""
    real = pairs.read_pairs(data)
    expected = found.training["temperature"]
    face = at_scale(real.face, real, float(expected["face"]))
    test = real.sides == "test"
    if (folder / "voice.json").exists():
        takes = {"ravdess": corpora_voices.read_corpus("ravdess", corpora_voices.find(data)["ravdess"])}
        asked = ask_about(folder, takes, "test", frozen, report)
        said = {name[3:]: logits for name, logits in zip(asked.names, asked.logits, strict=True)}
        silent = np.full(len(LABELS), np.nan, np.float32)
        voice = np.stack([said.get(name, silent) for name in real.names])
        voice_by = f"network `{manifests.read(folder / 'voice.json').preset}`"
    else:
        voice = at_scale(real.sound, real, float(expected["voice"]))
        voice_by = "a stand-in over statistics of the sound, because no voice network is there"
    return (
        Inputs(
            tuple(np.array(real.names)[test].tolist()),
            tuple(np.array(real.actors)[test].tolist()),
            real.truth[test],
            # Rounded as in the table, so that the table gives exactly these figures again.
            np.round(face[test], 4),
            np.round(voice[test], 4),
        ),
        voice_by,
    )


def at_scale(numbers: NDArray[np.float32], real: Pairs, temperature: float) -> Logits:
    """A stand-in's logits about all takes, as sure of themselves as a network of that temperature."""
    logits = pairs.stand_in_answers(numbers, real.truth, real.sides == "train", seed=0)
    kept = real.sides == "calibrate"
    own = fusion_temperature(torch.from_numpy(logits[kept]), torch.from_numpy(real.truth[kept]))
    return np.asarray(logits * (temperature / own), np.float32)


def judge_fusion(found: Manifest, folder: Path, given: Inputs, voice_by: str) -> FusionVerdict:
    """Ask the shipped file under every condition."""
    with closing(OnnxEngine(found, folder)) as engine:
        said = {name: fused(engine, given, mask) for name, mask in CONDITIONS.items()}
    scores = {name: score(given.truth, part, groups=given.actors) for name, part in said.items()}
    return FusionVerdict(found.name, given, voice_by, said, scores)


def fused(engine: OnnxEngine, given: Inputs, mask: tuple[float, float, float]) -> NDArray[np.float64]:
    """Probabilities of all takes; one without any evidence gets the same for every label."""
    count = len(given.truth)
    rows: dict[str, NDArray[np.float32]] = {
        tensor.name: np.zeros((count, *tensor.shape), np.float32) for tensor in FUSION_INPUTS
    }
    rows["face_logits"], rows["voice_logits"] = given.face, np.nan_to_num(given.voice)
    rows["mask"] = np.tile(np.array(mask, np.float32), (count, 1))
    rows["mask"][:, 1] *= given.heard
    step = engine.spec.max_batch
    parts = [
        engine.infer({name: array[at : at + step] for name, array in rows.items()})["logits"]
        for at in range(0, count, step)
    ]
    logits = np.concatenate(parts).astype(np.float64)
    raised = np.exp(logits - logits.max(1, keepdims=True))
    return np.asarray(raised / raised.sum(1, keepdims=True))
