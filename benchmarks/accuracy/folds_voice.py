"""Heads on frozen layers that each leave speakers or a whole corpus out, and what they say of those.

A run `K` leaves out four actors of RAVDESS (the first five runs), one speaker of nEMO and one of EmoDB, in
the order of their names; a run named after a corpus leaves that out. The layers must not have learnt a label
of any of them: Whisper's have none, and of the small voice those are taken that were distilled, not tuned.

    python benchmarks/accuracy/folds_voice.py PRESET --data DIR --out OUT [--whisper DIR | --layers DIR]
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
from liveaffect.engines.model.voice_statistics import StatisticsVoice
from liveaffect.engines.protocol import EngineFileError
from liveaffect.engines.recipe import SAMPLE_RATE
from liveaffect.engines.training import loop, piece_bank, splits, synthetic_sounds, train_voice
from liveaffect.engines.training.archive import change_tables
from liveaffect.engines.training.corpora_voices import Take
from liveaffect.engines.training.piece_bank import NOTHING, PieceBank, Sound
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
from liveaffect.engines.training.voice_heads import HeadSchedule, Voices, asked, fit, measure_of
from liveaffect.engines.whisper import whisper_folder

RUNS = (*map(str, range(9)), "ravdess", "nemo", "emodb")
ACTORS = 4
"""Of RAVDESS in one run, so that five runs judge all twenty."""
AFTER_S = (1.0, 2.0)
DECIMALS = 1
_log = logging.getLogger(__name__)


def left_out(bank: PieceBank, run: str) -> NDArray[np.bool_]:
    """(recordings,): what a run is judged by and never hears."""
    corpus = bank.corpus
    if not run.isdecimal():
        return np.asarray(corpus == run)
    number, held = int(run), np.zeros(len(corpus), np.bool_)
    for name in set(corpus) - {""}:
        speakers = sorted(set(bank.speaker[corpus == name]))
        each = ACTORS if name == "ravdess" else 1
        held |= np.isin(bank.speaker, speakers[number * each : (number + 1) * each])
    return held


def judged(
    bank: PieceBank, takes: Sequence[Take | None], run: str, network: StatisticsVoice, schedule: HeadSchedule
) -> list[VoiceAnswer]:
    """Train a head on the others; what it says of each recording left out, from cold and known."""
    held = left_out(bank, run)
    train = ~held & (bank.label != NOTHING)
    voices = Voices(bank, measure_of(bank, train))
    head = fit(voices, train, network.head_preset, schedule)
    rows = np.flatnonzero(held & (bank.copy == 0))
    hop_s, found = network.sound.hop / SAMPLE_RATE, list[VoiceAnswer]()
    for known in (False, True):
        for row, said in sorted(asked(voices, head, rows, hop_s, known=known, seed=schedule.seed).items()):
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


def main(argv: Sequence[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("preset", choices=train_voice.TRAINED_PRESETS)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True, help="bank, and a table a run")
    parser.add_argument("--whisper", type=Path, default=whisper_folder("tiny.en"))
    parser.add_argument("--layers", type=Path, help="student: the folder in which it was distilled")
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
    bank = piece_bank.filled(network, sounds, train_voice.COPIES, given.out / "bank", report=_log.info)
    assert bank is not None
    takes = [one.take for one in sounds] * train_voice.COPIES
    for run in given.runs:
        path = given.out / f"{run}-seed{given.seed}.csv"
        if not path.exists():
            schedule = HeadSchedule(seed=given.seed)
            said = judged(bank, takes, run, network, schedule)
            write_whole(path, write_answers(said, DECIMALS).encode())
        answers = read_answers(path.read_text("utf-8"))
        for corpus in sorted({one.corpus for one in answers}):
            for how in (COLD, KNOWN):
                these = [one for one in answers if (one.corpus, one.known) == (corpus, how)]
                _log.info("%s %s %s %s", run, corpus, how, " ".join(f"{x:.3f}" for x in recalls(these)))
        if given.archive is not None:
            name = FOLDS_OF.format(preset=given.preset, run=run)
            change_tables(given.archive, {name: path.read_text("utf-8")})
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
