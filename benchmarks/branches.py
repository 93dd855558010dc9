"""Many branches in training against one: the same answers in use? how much faster? learnt better with them?

The shipped face network is unfolded into its branches, the published one and the voice begin at random. The
faces learn some steps from real pictures, all labels alike, so that every branch carries something; the voice
hears real sound until its statistics fit. Then each is folded, and both forms judge what neither has met.

Whether branches help learning is asked of a narrow live face network, with branches and with one 3x3
convolution in the place of each block: from a part of the corpus, the same batches in the same order, as
faces are always learnt (train_face), and judged on the test side.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from liveaffect.engines.manifest import SHIPPED
from liveaffect.engines.model import presets
from liveaffect.engines.model.face import FaceNet
from liveaffect.engines.recipe import LABELS
from liveaffect.engines.stopwatch import median_ns
from liveaffect.engines.training import corpora_faces, corpora_voices, splits
from liveaffect.engines.training.augment_faces import grey_crops
from liveaffect.engines.training.corpora_faces import Faces
from liveaffect.engines.training.loop import Schedule, TrainingOutcome, train
from liveaffect.engines.training.scores import markdown_table, unweighted_recall
from liveaffect.engines.training.train_face import RATE, FaceRecipe, FaceTask, read_before, torch_answers

STEPS, BATCH, JUDGED, ROUNDS = 100, 32, 1000, 31
HEADS = (
    "network", "items", "recall, branches", "recall, one", "labels that differ", "largest logit",
    "largest difference", "branches, ms", "one, ms", "ratio",
)  # fmt: skip
Logits = Callable[[nn.Module, int], Tensor]
_HALF = tuple(replace(stage, width=stage.width // 2) for stage in presets.FACE_LIVE.stages)
NARROW = replace(presets.FACE_LIVE, name="narrow", size=48, stages=_HALF)
"""The live network at half its widths, and at the size that the pictures have."""
WITH, WITHOUT = "branches", "one branch"
WAYS = {WITH: NARROW, WITHOUT: replace(NARROW, name="narrow-vgg", plain=True)}
EVERY, EPOCHS, DRAWS = 2, 8, 1000
"""Learnt from is every second picture of the training side."""


def branches_table(data: Path) -> str:
    """One row a network."""
    faces = corpora_faces.load_split(corpora_faces.find_faces(data), splits.FROZEN, add=False)
    test = faces.test.take(faces.test.label >= 0).take(np.arange(JUDGED))
    crops, rows = torch.from_numpy(grey_crops(test.pictures)), []
    for preset in ("live", "fv2es"):
        network = presets.build("face", preset, seed=0)
        if preset == "live":
            network = read_before(SHIPPED / "face.json").begun(grey_crops(faces.train.pictures[:512]), 0)
        _learn_faces(network, faces.train, 1e-4 if preset == "live" else 1e-3)
        rows.append(_compared(f"face {preset}", network.eval(), partial(_faces_said, crops), test.label))
    pieces = _pieces(data)
    voice = presets.build("voice", "student", seed=0).train()
    with torch.no_grad():
        for at in range(0, len(pieces) // 2, BATCH):
            _voice_said(pieces[at : at + BATCH], voice, BATCH)
    judged = pieces[len(pieces) // 2 :][:JUDGED]
    rows.append(_compared("voice student", voice.eval(), partial(_voice_said, judged), None))
    return markdown_table(HEADS, rows)


class _FaceTask(FaceTask):
    def figures(self, network: nn.Module) -> dict[str, float]:
        """None: nothing is chosen by a figure."""
        return {}


def learning_table(data: Path, seeds: int, kept: Path) -> str:
    """Both ways to learn, mean over the seeds; intervals draw seeds and pictures."""
    faces = corpora_faces.load_split(corpora_faces.find_faces(data), splits.FROZEN, add=False)
    learnt, test = faces.train.take(np.arange(0, len(faces.train), EVERY)), faces.test
    test = test.take(test.label >= 0)
    crops, rng = grey_crops(test.pictures), np.random.default_rng(0)
    said, costs = {}, {}
    for way in WAYS:
        outcomes = [_learnt_face(way, learnt, seed, kept) for seed in range(seeds)]
        answers = [torch_answers(presets.deploy(one.network), crops, "cpu").argmax(1) for one in outcomes]
        said[way] = np.stack(answers)
        costs[way] = np.mean([one.history[-1]["loss"] for one in outcomes])
    draws = [
        (rng.integers(seeds, size=seeds), rng.integers(len(crops), size=len(crops))) for _ in range(DRAWS)
    ]
    rows = []
    for name, figure in (("accuracy", _accuracy), ("unweighted recall", _recall)):
        each = {way: [figure(test.label, one) for one in found] for way, found in said.items()}
        drawn = [
            np.mean([figure(test.label[at], said[WITH][seed, at]) for seed in some])
            - np.mean([figure(test.label[at], said[WITHOUT][seed, at]) for seed in some])
            for some, at in draws
        ]
        means = [float(np.mean(found)) for found in each.values()]
        low, high = np.percentile(drawn, [2.5, 97.5])
        seeds_each = ", ".join(
            f"{100 * (one - other):+.1f}" for one, other in zip(each[WITH], each[WITHOUT], strict=True)
        )
        rows.append(
            (
                name, *(f"{100 * mean:.1f}" for mean in means),
                f"{100 * (means[0] - means[1]):+.1f} ({100 * low:+.1f} to {100 * high:+.1f})", seeds_each,
            )
        )  # fmt: skip
    rows.append(("loss at the end", *(f"{cost:.3f}" for cost in costs.values()), "", ""))
    heads = (f"{len(learnt)} faces learnt from, {len(test)} judged", *WAYS, "gain", "each seed")
    return markdown_table(heads, rows)


def _learnt_face(way: str, faces: Faces, seed: int, kept: Path) -> TrainingOutcome:
    task = _FaceTask(faces, faces.take(np.arange(1)), FaceRecipe(), f"face-{WAYS[way].name}-{len(faces)}")
    plan = Schedule(EPOCHS, rate=RATE, average=0.99, seed=seed, threads=1)
    torch.manual_seed(seed)
    return train(FaceNet(WAYS[way]), task, plan, kept / f"{WAYS[way].name}-{seed}", report=print)


def _accuracy(truth: np.ndarray, said: np.ndarray) -> float:
    return float((truth == said).mean())


def _recall(truth: np.ndarray, said: np.ndarray) -> float:
    return unweighted_recall(truth, said, len(LABELS))


def _learn_faces(network: nn.Module, faces: Faces, rate: float) -> None:
    rng = np.random.default_rng(0)
    optimiser = torch.optim.AdamW(network.train().parameters(), rate)
    of_label = [np.flatnonzero(faces.label == label) for label in range(len(LABELS))]
    for _ in range(STEPS):
        some = faces.take(
            np.array([rng.choice(of_label[one]) for one in rng.integers(len(LABELS), size=BATCH)])
        )
        with torch.autocast("cpu", torch.bfloat16):
            said = network(torch.from_numpy(grey_crops(some.pictures))).logits.float()
        loss = functional.cross_entropy(said, torch.from_numpy(some.soft))
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()


def _pieces(data: Path) -> Tensor:
    """(n, samples): of every take of EmoDB the first piece."""
    takes = corpora_voices.read_corpus("emodb", corpora_voices.find(data)["emodb"])
    length = presets.VOICE_STUDENT.sound.piece
    sounds = corpora_voices.load_takes(takes, corpora_voices.default_folder())
    whole = [np.pad(one.astype(np.float32), (0, length))[:length] for one in sounds]
    return torch.from_numpy(np.stack(whole))


def _faces_said(crops: Tensor, network: nn.Module, count: int) -> Tensor:
    said: Tensor = network(crops[:count]).logits
    return said


def _voice_said(pieces: Tensor, network: nn.Module, count: int) -> Tensor:
    some = pieces[:count]
    flat = torch.zeros(len(some), presets.VOICE_STUDENT.width * 2)
    said: Tensor = network(some, flat, flat + 1).logits
    return said


def _compared(name: str, many: nn.Module, said: Logits, truth: np.ndarray | None) -> tuple[str, ...]:
    one = presets.deploy(many)
    with torch.inference_mode():
        before, after = (said(network, JUDGED) for network in (many, one))
        spent = median_ns([partial(said, network, 1) for network in (many, one)], rounds=ROUNDS)
    called = before.argmax(1).numpy(), after.argmax(1).numpy()
    recalls = ["", ""]
    if truth is not None:
        recalls = [f"{100 * unweighted_recall(truth, found, len(LABELS)):.2f}" for found in called]
    return (
        name, str(len(before)), *recalls, str(int((called[0] != called[1]).sum())),
        f"{float(before.abs().max()):.1f}", f"{float((before - after).abs().max()):.1e}",
        *(f"{ns / 1e6:.2f}" for ns in spent), f"{spent[0] / spent[1]:.2f}",
    )  # fmt: skip
