"""Heads on frozen layers that each leave speakers or a whole corpus out, and what they say of those.

A run `K` leaves out four actors of RAVDESS (the first five runs), one speaker of nEMO and one of EmoDB, in
the order of their names; a run named after a corpus leaves that out. The layers must not have learnt a label
of any of them: Whisper's have none, and of the small voice those are taken that were distilled, not tuned.
Head and listener are learnt anew in every run; the latter takes some three minutes of one core.
With `--tune EPOCHS` the small voice's layers are tuned in every run without the people left out, taught by a
full voice that has not heard them either: some 90 seconds of one core an epoch, against the 30 epochs of the
package.

    python benchmarks/accuracy/folds_voice.py PRESET --data DIR --out OUT
        [--whisper DIR | --layers DIR [--tune EPOCHS]]
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from liveaffect.engines.manifest import write_whole
from liveaffect.engines.model.voice_statistics import StatisticsVoice, VoiceWhisper
from liveaffect.engines.protocol import EngineFileError
from liveaffect.engines.recipe import SAMPLE_RATE
from liveaffect.engines.training import (
    loop,
    piece_bank,
    splits,
    synthetic_sounds,
    train_listener,
    train_voice,
)
from liveaffect.engines.training.corpora_voices import Take
from liveaffect.engines.training.piece_bank import NOTHING, PieceBank, Sound
from liveaffect.engines.training.scores import change_tables
from liveaffect.engines.training.tune_voice import DistilTask, Labelled, Pupil, Sounds, TuneTask
from liveaffect.engines.training.voice_answers import (
    COLD,
    FOLDS_OF,
    KNOWN,
    VoiceAnswer,
    answer_of,
    read_answers,
    recalls,
    write_answers,
)
from liveaffect.engines.training.voice_heads import HeadSchedule, asked, give_head
from liveaffect.engines.whisper import whisper_folder

RUNS = (*map(str, range(9)), "ravdess", "nemo", "emodb")
ACTORS = 4
"""Of RAVDESS in one run, so that five runs judge all twenty."""
AFTER_S = (1.0, 2.0)
DECIMALS = 1
_log = logging.getLogger(__name__)


def left_out(speaker: Sequence[str], run: str) -> NDArray[np.bool_]:
    """(recordings,): what a run is judged by and never hears, by who speaks in each."""
    corpus = np.array([one.partition("/")[0] for one in speaker])
    if not run.isdecimal():
        return np.asarray(corpus == run)
    number, held = int(run), np.zeros(len(corpus), np.bool_)
    for name in set(corpus) - {""}:
        speakers = sorted({one for one, of in zip(speaker, corpus, strict=True) if of == name})
        each = ACTORS if name == "ravdess" else 1
        held |= np.isin(speaker, speakers[number * each : (number + 1) * each])
    return held


def judged(
    bank: PieceBank, takes: Sequence[Take | None], run: str, network: StatisticsVoice, schedule: HeadSchedule
) -> list[VoiceAnswer]:
    """Train a head on the others; what it says of each recording left out, from cold and known."""
    held = left_out(bank.speaker.tolist(), run)
    train = ~held & (bank.label != NOTHING)
    voices = give_head(network, bank, train, schedule)
    rows = np.flatnonzero(held & (bank.copy == 0))
    hop_s, found = network.sound.hop / SAMPLE_RATE, list[VoiceAnswer]()
    for known in (False, True):
        for row, said in sorted(
            asked(voices, network.head, rows, hop_s, known=known, seed=schedule.seed).items()
        ):
            among, take = _among(bank, train, row), takes[row]
            if take is not None and bank.label[row] in among:  # What nobody could learn is not asked for.
                found.append(answer_of(take, said, among, known, AFTER_S))
    return found


def _among(bank: PieceBank, train: NDArray[np.bool_], row: int) -> NDArray[np.int64]:
    """The labels that the recording's corpus has and that could be learnt."""
    own = np.unique(bank.label[bank.corpus == bank.corpus[row]])
    return np.intersect1d(own, np.unique(bank.label[train]))


def layers_of(preset: str, whisper: Path, layers: Path | None) -> StatisticsVoice:
    """A network whose layers learnt no label. Raises EngineFileError for those that did."""
    if preset == "whisper":
        return train_voice.full_network(whisper)
    if layers is None:
        raise EngineFileError("folds of the student need --layers, a folder in which it was distilled")
    task = str(loop.read_checkpoint(layers / loop.CHECKPOINT).get("task"))
    if not task.startswith("distil"):
        raise EngineFileError(
            f"the layers in {layers} learnt '{task}', labels of people left out here among it; "
            "take the folder 'distilled' of the same training"
        )
    return train_voice.learnt_layers(layers)


def listened_without(
    run: str, network: VoiceWhisper, bank: PieceBank, given: argparse.Namespace
) -> PieceBank:
    """The bank with statistics of a listener that none of the people a run leaves out taught."""
    train = ~left_out(bank.speaker.tolist(), run) & (bank.label != NOTHING)
    plan = train_listener.usual_schedule(given.seed)
    task = train_listener.ListenTask(bank, train, given.seed)
    folder = given.out / f"{run}-seed{given.seed}-listened"
    found = train_listener.teach(network, task, folder, plan, report=_log.info)
    assert found is not None
    return found


def tuned_without(run: str, sounds: Sequence[Sound], given: argparse.Namespace) -> StatisticsVoice:
    """Layers of the small voice that learnt labels, but none of the people a run leaves out."""
    teacher = train_voice.full_network(given.whisper)
    told = piece_bank.filled(teacher, sounds, train_voice.COPIES, given.out / "bank", report=_log.info)
    assert told is not None
    told = listened_without(run, teacher, told, given)
    train = ~left_out(told.speaker.tolist(), run) & (told.label != NOTHING)
    give_head(teacher, told, train, HeadSchedule(seed=given.seed))
    said = [one for one in sounds if one.take is not None]
    outside = left_out([one.take.speaker if one.take else "" for one in said], run)
    heard = [one for one, out in zip(said, outside, strict=True) if not out]
    watched = [one for one, out in zip(said, outside, strict=True) if out]
    samples = [one.samples for one in heard]
    distil = DistilTask(Sounds.of(samples, samples[::20]), teacher)
    pupil = Pupil(train_voice.new_student(given.seed), distil.told)
    pupil.load_state_dict(loop.read_checkpoint(given.layers / loop.CHECKPOINT)["averaged"])
    folder = given.out / f"{run}-tuned"
    task = TuneTask(distil, Labelled(heard), Labelled(watched), f"tune-{folder.name}")
    schedule = loop.Schedule(
        given.tune, rate=train_voice.TUNE_RATE, average=train_voice.AVERAGE, seed=given.seed, threads=1
    )
    loop.train(pupil, task, schedule, folder, report=_log.info)
    return train_voice.learnt_layers(folder, given.seed)


def main(argv: Sequence[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("preset", choices=train_voice.TRAINED_PRESETS)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True, help="bank, and a table a run")
    parser.add_argument("--whisper", type=Path, default=whisper_folder("tiny.en"))
    parser.add_argument("--layers", type=Path, help="student: the folder in which it was distilled")
    parser.add_argument("--tune", type=int, metavar="EPOCHS", help="student: tune the layers in every run")
    parser.add_argument("--runs", nargs="+", default=list(RUNS), choices=RUNS)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--archive", type=Path, help="put the tables into this one as well")
    given = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    torch.set_num_threads(1)
    given.out.mkdir(parents=True, exist_ok=True)
    network = layers_of(given.preset, given.whisper, given.layers)
    corpora = train_voice.read_corpora(given.data, given.out / splits.FROZEN.name, report=_log.info)
    noises = synthetic_sounds.bank(train_voice.NOISES_EACH, train_voice.NOISES_SEED)
    sounds = [*corpora.sounds, *(Sound(one) for kind in noises.values() for one in kind)]
    takes = [one.take for one in sounds] * train_voice.COPIES
    kept = f"-tuned{given.tune}" if given.tune else ""
    for run in given.runs:
        path = given.out / f"{run}-seed{given.seed}{kept}.csv"
        if not path.exists():
            if given.tune:
                network = tuned_without(run, sounds, given)
            bank = piece_bank.filled(
                network, sounds, train_voice.COPIES, given.out / "bank", report=_log.info
            )
            assert bank is not None
            if isinstance(network, VoiceWhisper):
                bank = listened_without(run, network, bank, given)
            schedule = HeadSchedule(seed=given.seed)
            said = judged(bank, takes, run, network, schedule)
            write_whole(path, write_answers(said, DECIMALS).encode())
        answers = read_answers(path.read_text("utf-8"))
        for corpus in sorted({one.corpus for one in answers}):
            for how in (COLD, KNOWN):
                these = [one for one in answers if (one.corpus, one.known) == (corpus, how)]
                _log.info("%s %s %s %s", run, corpus, how, " ".join(f"{x:.3f}" for x in recalls(these)))
        if given.archive is not None:
            name = FOLDS_OF.format(preset=given.preset + kept, run=run)
            change_tables(given.archive, {name: path.read_text("utf-8")})
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
