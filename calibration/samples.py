"""Which inputs INT8 is calibrated on and which others it is judged on: by one rule, from the calibrate side.

The rule: as many of every label; within a label every person in turn; every condition in turn. A label has at
most half of its items drawn, so that the other half is left to judge by, and is drawn again under another
condition where that is too few. Which items are drawn follows from their names alone and is frozen as one
SHA-256: whoever calibrates on anything else is told.

Pictures are taken as they are and as webcams see them, voices at other levels and in other rooms. A recording
is heard piece by piece from cold by the network itself in fp32, so each piece comes with the speaker's
statistics that it would have live.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from liveaffect.calibration.reliability import refuse_unfit
from liveaffect.engines.manifest import Manifest, RecipeNumbers, write_whole
from liveaffect.engines.protocol import Engine, EngineFileError, Tensors
from liveaffect.engines.recipe import LABELS, SAMPLE_RATE
from liveaffect.engines.training import corpora_faces, corpora_voices, splits, synthetic_sounds
from liveaffect.engines.training.augment_faces import FaceChanges, Grey8, grey_crops, seen, tinted
from liveaffect.engines.training.corpora_faces import Faces, load_split
from liveaffect.engines.training.corpora_voices import Take
from liveaffect.engines.training.listen import Heard, listen, pieces_of
from liveaffect.engines.training.splits import found_in, sided

FROZEN = Path(__file__).resolve().with_name("samples.json")
"""The samples behind the INT8 files of the package."""
RULE = "labels, persons and conditions in turn; version 1"
FORMAT = 1
FEWEST = 32
"""Different items; from fewer no range is chosen and nothing is judged."""
SEED = 20260711

EACH = 32
BATCH = 32
AS_IT_IS, WEBCAM = "as it is", "as a webcam sees it"
FACE_CONDITIONS = (AS_IT_IS, WEBCAM)

VOICES_EACH = 12
"""Recordings of every label."""
PIECES = 5
"""Of each of them, from its beginning to its end."""
MOST_JUDGED = 420
"""Recordings to judge by, every label and speaker in turn: more take minutes and tell little more."""
MOST_FEW = 600
VOICE_BATCH = 30
AS_RECORDED, FAR, CLOSE, ROOM = "as recorded", "20 dB quieter", "6 dB louder", "in a noisy room"
VOICE_CONDITIONS = (AS_RECORDED, FAR, CLOSE, ROOM)
SIGNAL_TO_NOISE_DB = (8.0, 20.0)

Places = NDArray[np.int64]
Sound = NDArray[np.float32]
Pool = Callable[[Tensors], NDArray[np.floating]]
"""From answers for all items to logits of what they belong to, rows of NaN where nothing was evidence."""


@dataclass(frozen=True, slots=True)
class Pick:
    """One item to calibrate on."""

    at: int
    condition: str


@dataclass(frozen=True, slots=True, eq=False)
class Samples:
    """What INT8 is calibrated on."""

    batches: tuple[Tensors, ...]
    sha256: str
    """Of the names and conditions, as frozen."""
    conditions: tuple[str, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Exam:
    """What INT8 is judged on: nothing that it was calibrated on."""

    inputs: Tensors
    """All items: pictures, or the pieces of recordings."""
    truth: Places
    """Of what the items belong to."""
    pool: Pool = field(default=lambda answers: answers["logits"])
    few: Places | None = None
    """Some of the items, enough to put layers in order; None means all."""

    def check(self, what: str) -> None:
        """Raise UnfitSamples for too few items, only one label, or answers that are no labels."""
        refuse_unfit(self.truth, what, FEWEST)


def draw_picks(
    labels: Places, groups: Sequence[str], each: int, conditions: Sequence[str], seed: int = SEED
) -> list[Pick]:
    """`each` picks of every label that has two items or more, in the order of labels."""
    rng = np.random.default_rng(seed)
    picks = []
    for label in range(len(LABELS)):
        order = in_turn(np.flatnonzero(labels == label), groups, rng)
        order = order[: len(order) // 2]
        for turn in range(each if len(order) else 0):
            # One further on in every round, so that an item that comes again comes under another condition.
            condition = conditions[(turn + turn // len(order)) % len(conditions)]
            picks.append(Pick(int(order[turn % len(order)]), condition))
    distinct = np.array(sorted({pick.at for pick in picks}), np.int64)
    refuse_unfit(labels[distinct], "the samples to calibrate INT8 on", FEWEST)
    return picks


def in_turn(at: Places, groups: Sequence[str], rng: np.random.Generator) -> Places:
    """The same places, every group in turn, groups and their members in random order."""
    members: dict[str, list[int]] = {}
    for place in rng.permutation(at):
        members.setdefault(str(groups[place]), []).append(int(place))
    rounds = max((len(these) for these in members.values()), default=0)
    return np.array([m[k] for k in range(rounds) for m in members.values() if k < len(m)], np.int64)


def left_over(labels: Places, picks: Sequence[Pick]) -> Places:
    """Every labelled item that was not drawn."""
    free = labels >= 0
    free[[pick.at for pick in picks]] = False
    return np.flatnonzero(free)


def freeze_picks(
    path: Path, kind: str, corpora: Sequence[str], names: Sequence[str], picks: Sequence[Pick]
) -> str:
    """The SHA-256 of the picks, written into `path` the first time and compared from then on.

    Raises EngineFileError when the same rule draws other samples than those frozen: the data changed.
    """
    digest = hashlib.sha256()
    for pick in picks:
        digest.update(f"{names[pick.at]}\t{pick.condition}\n".encode())
    entry: dict[str, Any] = {"rule": RULE, "items": len(picks), "sha256": digest.hexdigest()}
    frozen, key = _frozen(path), f"{kind} of {', '.join(corpora)}"
    if frozen.get(key) == entry:
        return digest.hexdigest()
    if frozen.get(key, entry)["rule"] == RULE and key in frozen:
        raise EngineFileError(
            f"the samples to calibrate {key} on are not those frozen in {path}: {entry['items']} here with "
            f"SHA-256 {entry['sha256'][:12]}, {frozen[key]['items']} there with "
            f"{frozen[key]['sha256'][:12]}; the data changed or is incomplete"
        )
    frozen[key] = entry
    content = {"format": FORMAT, "samples": dict(sorted(frozen.items()))}
    write_whole(path, (json.dumps(content, indent=1) + "\n").encode())
    return digest.hexdigest()


def _frozen(path: Path) -> dict[str, dict[str, Any]]:
    if not path.exists():
        return {}
    try:
        found = json.loads(path.read_text("utf-8"))
        if found["format"] != FORMAT:
            raise EngineFileError(f"{path} has format {found['format']}, this version reads {FORMAT}")
        return {
            key: {name: entry[name] for name in ("rule", "items", "sha256")}
            for key, entry in found["samples"].items()
        }
    except (ValueError, KeyError, TypeError, AttributeError) as err:
        raise EngineFileError(f"the frozen samples {path} are damaged: {err}; bring them back") from err


def face_samples(data: Path, found: Manifest, *, sides: Path, frozen: Path) -> tuple[Samples, Exam]:
    """From the calibrate side of the corpora in `data`, for a network that was trained on the train side.

    `sides` and `frozen` are the files in which the sides and the samples are frozen.
    """
    cv2.setNumThreads(1)
    everything = load_split(corpora_faces.find_faces(data), sides, add=False)
    splits.refuse_other_sides(found, everything.corpora, everything.digest)
    side = everything.calibrate
    picks = draw_picks(side.label, side.groups, EACH, FACE_CONDITIONS)
    digest = freeze_picks(frozen, "face", everything.corpora, side.names, picks)
    at = np.array([pick.at for pick in picks])
    crops = _face_crops(side, at, np.array([pick.condition == WEBCAM for pick in picks]), seed=1)
    batches = tuple({"crop": crops[start : start + BATCH]} for start in range(0, len(crops), BATCH))
    rest = left_over(side.label, picks)
    twice = np.repeat(rest, len(FACE_CONDITIONS))
    crops = _face_crops(side, twice, np.arange(len(twice)) % len(FACE_CONDITIONS) == 1, seed=2)
    # One condition of each picture, in turn, is enough to put layers in order.
    few = np.arange(len(rest)) * len(FACE_CONDITIONS) + np.arange(len(rest)) % len(FACE_CONDITIONS)
    exam = Exam({"crop": crops}, side.label[twice], few=few)
    exam.check("the pictures to judge INT8 by")
    return Samples(batches, digest, FACE_CONDITIONS), exam


def _face_crops(side: Faces, at: Places, webcam: NDArray[np.bool_], seed: int) -> Grey8:
    crops = grey_crops(side.pictures[at])
    rng, strength = np.random.default_rng(seed), FaceChanges()
    anyhow = np.stack([seen(side.pictures[place], rng, strength) for place in at[webcam]])
    crops[webcam] = tinted(anyhow, rng, strength)
    return crops


def voice_samples(
    data: Path, engine: Engine, found: Manifest, *, sides: Path, frozen: Path, report: Callable[[str], None]
) -> tuple[Samples, Exam]:
    """From the calibrate side of the corpora in `data`; `engine` runs the network in fp32.

    `sides` and `frozen` are the files in which the sides and the samples are frozen.
    """
    takes = found_in(data)
    of_speaker, digest = sided(takes, sides, add=False)
    splits.refuse_other_sides(found, tuple(takes), digest)
    held, sounds = _sounds(
        {c: [t for t in these if of_speaker[t.speaker] == "calibrate"] for c, these in takes.items()}, report
    )
    labels = np.array([LABELS.index(take.label) for take in held], np.int64)
    speakers = [take.speaker for take in held]
    picks = draw_picks(labels, speakers, VOICES_EACH, VOICE_CONDITIONS)
    chosen = freeze_picks(frozen, "voice", tuple(takes), [f"{t.corpus}/{t.name}" for t in held], picks)
    rng = np.random.default_rng(1)
    changed = [under(sounds[pick.at], pick.condition, rng) for pick in picks]
    inputs, owner, _ = _pieces_heard(engine, changed, found.recipe)
    kept = np.concatenate([_spread_over(np.flatnonzero(owner == i)) for i in range(len(picks))])
    batches = tuple(
        {name: array[kept[at : at + VOICE_BATCH]] for name, array in inputs.items()}
        for at in range(0, len(kept), VOICE_BATCH)
    )
    rest = _every_label(labels, left_over(labels, picks), speakers)
    return Samples(batches, chosen, VOICE_CONDITIONS), _exam(engine, sounds, rest, labels, found.recipe)


def under(sound: Sound, condition: str, rng: np.random.Generator) -> Sound:
    """The same recording, spoken from further off, closer by, or in a room that is not quiet."""
    if condition == ROOM:
        noise = synthetic_sounds.make("noise", rng, len(sound) / SAMPLE_RATE)[: len(sound)]
        noise = np.pad(noise, (0, len(sound) - len(noise)))
        below = 10 ** (-rng.uniform(*SIGNAL_TO_NOISE_DB) / 20)
        loud = below * float(np.std(sound)) / max(float(np.std(noise)), 1e-9)
        sound = np.asarray(sound + loud * noise, np.float32)
    gain = {FAR: 0.1, CLOSE: 2.0}.get(condition, 1.0)
    return np.asarray(np.clip(sound * gain, -1, 1), np.float32)


def _sounds(takes: dict[str, list[Take]], report: Callable[[str], None]) -> tuple[list[Take], list[Sound]]:
    held: list[Take] = []
    sounds: list[Sound] = []
    for these in takes.values():
        if these:
            held += these
            sounds += [
                s.astype(np.float32)
                for s in corpora_voices.load_takes(these, corpora_voices.default_folder(), report)
            ]
    return held, sounds


def _pieces_heard(
    engine: Engine, sounds: Sequence[Sound], recipe: RecipeNumbers
) -> tuple[dict[str, NDArray[np.float32]], Places, list[Heard]]:
    """The inputs of all pieces, the recording each belongs to, and what was heard in each recording."""
    pieces = [pieces_of(s, recipe.piece, recipe.hop, recipe.lead) for s in sounds]
    answers = listen(engine.infer, recipe, sounds)
    owner = np.repeat(np.arange(len(pieces)), [len(one) for one in pieces])
    inputs = {
        "samples": np.concatenate(pieces),
        "mean": np.concatenate([one.mean for one in answers]),
        "istd": np.concatenate([one.istd for one in answers]),
    }
    return inputs, owner, answers


def _exam(
    engine: Engine, sounds: Sequence[Sound], rest: Places, labels: Places, recipe: RecipeNumbers
) -> Exam:
    """Recordings in which fp32 hears speech; the others say nothing about INT8."""
    inputs, owner, answers = _pieces_heard(engine, [sounds[at] for at in rest], recipe)
    heard = np.array([answer.pooled() is not None for answer in answers])
    inputs = {name: array[heard[owner]] for name, array in inputs.items()}
    ends = np.cumsum([len(a.speech) for a, ok in zip(answers, heard, strict=True) if ok])
    few = np.arange(0, int(ends[-1]), max(1, -(-int(ends[-1]) // MOST_FEW))) if len(ends) else None
    exam = Exam(inputs, labels[rest[heard]], lambda given: _pooled_pieces(given, ends, recipe), few)
    exam.check("the recordings to judge INT8 by")
    return exam


def _pooled_pieces(answers: Tensors, ends: Places, recipe: RecipeNumbers) -> NDArray[np.float32]:
    """Logits of whole recordings, under the same weights as live."""
    rows = []
    for start, end in zip([0, *ends[:-1]], ends, strict=True):
        part = {name: array[start:end] for name, array in answers.items()}
        speech = part["speech"][:, 0]
        one = Heard(
            logits=part["logits"],
            score=part["score"][:, 0],
            speech=speech,
            weight=recipe.statistics.weights(speech, recipe.piece, recipe.hop),
            hop_s=recipe.hop / SAMPLE_RATE,
        ).pooled()
        rows.append(np.full(len(LABELS), np.nan, np.float32) if one is None else one)
    return np.stack(rows)


def _spread_over(at: Places) -> Places:
    """A few places from the first to the last."""
    found: Places = at[np.unique(np.linspace(0, len(at) - 1, PIECES).astype(int))]
    return found


def _every_label(labels: Places, rest: Places, speakers: Sequence[str]) -> Places:
    """At most MOST_JUDGED of them, every speaker of every label in turn."""
    cells = [f"{label} {speaker}" for label, speaker in zip(labels, speakers, strict=True)]
    return np.sort(in_turn(rest, cells, np.random.default_rng(2))[:MOST_JUDGED])
