"""Pieces of voices to calibrate INT8 on, and others to judge it by: levels and rooms in turn, heard as live.

Every recording is heard piece by piece from cold by the network itself in fp32, so each piece comes with the
speaker's statistics that it would have live.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from liveaffect.calibration.samples import Exam, Places, Samples, draw_picks, freeze_picks, in_turn, left_over
from liveaffect.engines.manifest import Manifest, RecipeNumbers
from liveaffect.engines.protocol import Engine, Tensors
from liveaffect.engines.recipe import LABELS, SAMPLE_RATE
from liveaffect.engines.training import sound_store, splits, synthetic_sounds
from liveaffect.engines.training.corpora_voices import Take
from liveaffect.engines.training.listen import Heard, listen, pieces_of
from liveaffect.engines.training.sided_voices import found_in, sided

EACH = 12
"""Recordings of every label."""
PIECES = 5
"""Of each of them, from its beginning to its end."""
MOST_JUDGED = 420
"""Recordings to judge by, every label and speaker in turn: more take minutes and tell little more."""
MOST_FEW = 600
BATCH = 30
AS_IT_IS, FAR, CLOSE, ROOM = "as recorded", "20 dB quieter", "6 dB louder", "in a noisy room"
CONDITIONS = (AS_IT_IS, FAR, CLOSE, ROOM)
SIGNAL_TO_NOISE_DB = (8.0, 20.0)

Sound = NDArray[np.float32]


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
    picks = draw_picks(labels, speakers, EACH, CONDITIONS)
    chosen = freeze_picks(frozen, "voice", tuple(takes), [f"{t.corpus}/{t.name}" for t in held], picks)
    rng = np.random.default_rng(1)
    changed = [under(sounds[pick.at], pick.condition, rng) for pick in picks]
    inputs, owner, _ = _pieces_heard(engine, changed, found.recipe)
    kept = np.concatenate([_spread_over(np.flatnonzero(owner == i)) for i in range(len(picks))])
    batches = tuple(
        {name: array[kept[at : at + BATCH]] for name, array in inputs.items()}
        for at in range(0, len(kept), BATCH)
    )
    rest = _every_label(labels, left_over(labels, picks), speakers)
    return Samples(batches, chosen, CONDITIONS), _exam(engine, sounds, rest, labels, found.recipe)


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
                for s in sound_store.load_takes(these, sound_store.default_folder(), report)
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
    hop_s = recipe.hop / SAMPLE_RATE
    few = np.arange(0, int(ends[-1]), max(1, -(-int(ends[-1]) // MOST_FEW))) if len(ends) else None
    exam = Exam(inputs, labels[rest[heard]], lambda given: _pooled_pieces(given, ends, hop_s), few)
    exam.check("the recordings to judge INT8 by")
    return exam


def _pooled_pieces(answers: Tensors, ends: Places, hop_s: float) -> NDArray[np.float32]:
    """Logits of whole recordings, under the same weights as live."""
    rows = []
    for start, end in zip([0, *ends[:-1]], ends, strict=True):
        part = {name: array[start:end] for name, array in answers.items()}
        one = Heard(
            logits=part["logits"],
            score=part["score"][:, 0],
            speech=part["speech"][:, 0],
            hop_s=hop_s,
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
