"""Voice networks that each leave some speakers out: every speaker is judged by one that never heard them.

A fold leaves out a fifth of every corpus's speakers, in the order of their names: four actors of RAVDESS
together with two speakers of nEMO. `CORPUS>` trains on one corpus alone and judges the others. What each
network said about each recording it never heard is kept as a table, from which all figures can be made again.

    python benchmarks/accuracy/folds_voice.py --data DIR --out OUT [--runs 0 1 'nemo>'] [--seed 0]

A run that was stopped goes on where it was; one that is finished is not repeated.
"""

from __future__ import annotations

import argparse
import hashlib
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from liveaffect.engines.manifest import write_whole
from liveaffect.engines.model import presets
from liveaffect.engines.model.heads import VoiceNetwork
from liveaffect.engines.recipe import LABELS
from liveaffect.engines.training import loop, sound_store
from liveaffect.engines.training.corpora_voices import Take
from liveaffect.engines.training.listen import Heard
from liveaffect.engines.training.replay_statistics import Replay
from liveaffect.engines.training.ship import source_commit
from liveaffect.engines.training.sided_voices import UNHEARD, found_in, pooled_scores
from liveaffect.engines.training.taught_voice import TEACHERS, ready_taught, taught, teacher_seed
from liveaffect.engines.training.train_voice import (
    AVERAGE,
    EPOCHS,
    RATE,
    WARM_UP,
    VoiceTask,
    heard_from_cold,
    recipe_for,
)
from liveaffect.engines.training.voice_batches import Recording, recorded

FOLDS = 5
AFTER_S = (1.0, 2.0)
"""Seconds of speech after which it is noted what was called."""
CORPUS_RUN = ">"
_log = logging.getLogger(__name__)
COLUMNS = ("name", "speaker", "truth", *LABELS, "window", *(f"after_{s:g}s" for s in AFTER_S))


@dataclass(frozen=True, slots=True)
class FoldsPlan:
    """What is run."""

    data: Path
    out: Path
    runs: tuple[str, ...]
    preset: str
    seed: int
    epochs: int
    teachers: int
    rate: float


def fold_of(speakers: Sequence[str]) -> dict[str, int]:
    """The fold of every speaker, in the order of their names within one corpus."""
    names = sorted(set(speakers))
    size = -(-len(names) // FOLDS)
    return {name: at // size for at, name in enumerate(names)}


def divided(takes: Sequence[Take], run: str) -> NDArray[np.bool_]:
    """Which recordings a run leaves out and is judged by."""
    if run.endswith(CORPUS_RUN):
        return np.array([take.corpus != run[: -len(CORPUS_RUN)] for take in takes])
    folds: dict[str, int] = {}
    for corpus in {take.corpus for take in takes}:
        folds |= fold_of([take.speaker for take in takes if take.corpus == corpus])
    return np.array([folds[take.speaker] == int(run) for take in takes])


def train_folds(plan: FoldsPlan) -> list[Path]:
    """Train and judge every run that is not finished; the tables of all."""
    torch.set_num_threads(1)  # Pieces are too small to be shared out among threads.
    replay = Replay(ready_taught(plan.preset, plan.seed).sound)
    recordings: list[Recording] = []
    for takes in found_in(plan.data).values():
        recordings += recorded(takes, sound_store.load_takes(takes, sound_store.default_folder()), replay)
    tables = []
    for run in plan.runs:
        table = plan.out / f"{_named(run, plan.seed)}.csv"
        if not table.exists():
            _one(plan, run, table, recordings, replay)
        tables.append(table)
    answers = [plan.out / f"{fold}-seed{plan.seed}" / "answers.npz" for fold in range(FOLDS)]
    if all(path.exists() for path in answers):
        _together(answers, plan.out / "answers.npz")
    return tables


def _named(run: str, seed: int) -> str:
    return f"fold-{run.replace(CORPUS_RUN, '-to-others')}-seed{seed}"


def _one(plan: FoldsPlan, run: str, table: Path, recordings: Sequence[Recording], replay: Replay) -> None:
    """Teachers are judged as well: they show what another seed does, and what learning from them brings."""
    folder = plan.out / table.stem.removeprefix("fold-")
    held = divided([one.take for one in recordings if one.take], run)
    train = [one for one, out in zip(recordings, held, strict=True) if not out]
    learnt = {one.label for one in train}  # What a corpus does not have cannot be asked of its pupil.
    judged = [one for one, out in zip(recordings, held, strict=True) if out and one.label in learnt]
    task = VoiceTask(train, [], replay, recipe_for(replay), f"voice-{plan.preset}-{run}")
    schedule = loop.Schedule(
        epochs=_epochs(plan.epochs, len(train), len(recordings)),
        rate=plan.rate,
        warm_up=WARM_UP,
        seed=plan.seed,
        average=AVERAGE,
        threads=1,
    )
    outcome, before = taught(plan.preset, task, schedule, folder, teachers=plan.teachers, report=_log.info)
    head = f"# {plan.preset}, run {run}, {schedule.epochs} epochs, rate {plan.rate:g}, "
    for number, alone in enumerate(before, start=1):
        seed = teacher_seed(plan.seed, number)
        _judge(alone, f"{head}seed {seed}, alone", judged, replay, plan.out / f"{_named(run, seed)}.csv")
    if not run.endswith(CORPUS_RUN):
        assert isinstance(outcome.network, VoiceNetwork)
        _keep_answers(outcome.network, recordings, replay, int(run), folder / "answers.npz")
    _judge(outcome, f"{head}seed {plan.seed}, taught by {len(before)}", judged, replay, table)


def _epochs(wanted: int, trained: int, all_there_are: int) -> int:
    """A run on a small corpus alone gets as many steps as half of everything would."""
    return max(wanted, round(wanted * all_there_are / (2 * trained)))


def _judge(
    outcome: loop.TrainingOutcome, head: str, judged: Sequence[Recording], replay: Replay, table: Path
) -> None:
    state = b"".join(tensor.numpy().tobytes() for tensor in outcome.state.values())
    assert isinstance(outcome.network, VoiceNetwork)
    said = heard_from_cold(outcome.network, judged, replay)
    head += f", source {source_commit()}, weights {hashlib.sha256(state).hexdigest()[:12]}\n"
    write_whole(table, (head + _rows(judged, said)).encode())


def _rows(recordings: Sequence[Recording], said: Sequence[Heard]) -> str:
    """One line a recording."""
    truth = np.array([one.label for one in recordings])
    corpora = np.array([one.take.corpus if one.take else "" for one in recordings])
    among = {corpus: np.unique(truth[corpora == corpus]) for corpus in set(corpora)}
    lines = [",".join(COLUMNS)]
    for one, answer, corpus in zip(recordings, said, corpora, strict=True):
        assert one.take is not None
        labels = among[corpus]
        whole = pooled_scores([answer], labels)[0]
        parts = [answer.newest_within(), *(answer.until(s) for s in AFTER_S)]
        calls = [int(pooled_scores([part], labels)[0].argmax()) for part in parts]
        numbers = [f"{p:.3f}" for p in whole[:UNHEARD]]
        lines.append(",".join([one.take.name, one.take.speaker, str(one.label), *numbers, *map(str, calls)]))
    return "\n".join(lines) + "\n"


def _keep_answers(
    network: VoiceNetwork, recordings: Sequence[Recording], replay: Replay, fold: int, path: Path
) -> None:
    """What the fold's network says of every RAVDESS take, those it learnt from too: for a fusion."""
    chosen = [one for one in recordings if one.take and one.take.corpus == "ravdess"]
    folds = fold_of([one.take.speaker for one in chosen if one.take])
    vectors, logits, scores, speech = [], [], [], []
    for answer in heard_from_cold(network, chosen, replay):
        weight, total = answer.weights()
        vectors.append(weight @ answer.vector)
        logits.append(weight @ answer.logits)
        scores.append(total)
        speech.append(float(answer.speech.sum() * answer.hop_s))
    np.savez(
        path,
        names=np.array([one.take.name for one in chosen if one.take]),
        folds=np.array([folds[one.take.speaker] for one in chosen if one.take]),
        fold=fold,
        vector=np.array(vectors, np.float32),
        logits=np.array(logits, np.float32),
        score=np.array(scores, np.float32),
        speech_s=np.array(speech, np.float32),
    )


def _together(paths: Sequence[Path], out: Path) -> None:
    parts: list[Mapping[str, NDArray[np.generic]]] = [dict(np.load(path)) for path in paths]
    np.savez(
        out,
        names=parts[0]["names"],
        folds=parts[0]["folds"],
        vectors=np.stack([part["vector"] for part in parts]),
        logits=np.stack([part["logits"] for part in parts]),
        scores=np.stack([part["score"] for part in parts]),
        speech_s=parts[0]["speech_s"],
    )


def main(argv: Sequence[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--runs", nargs="+", default=[str(fold) for fold in range(FOLDS)])
    parser.add_argument("--preset", default="live-wide", choices=presets.preset_names("voice"))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--epochs", type=int, default=EPOCHS)
    parser.add_argument("--teachers", type=int, default=TEACHERS)
    parser.add_argument("--rate", type=float, default=RATE, help="attention wants a lower one")
    given = parser.parse_args(argv)
    given.out.mkdir(parents=True, exist_ok=True)
    plan = FoldsPlan(
        given.data,
        given.out,
        tuple(given.runs),
        given.preset,
        given.seed,
        given.epochs,
        given.teachers,
        given.rate,
    )
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    for table in train_folds(plan):
        _log.info("%s", table)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
