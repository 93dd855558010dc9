"""Heads on frozen layers that each leave speakers or a whole corpus out, and what they say of those.

A run `K` leaves out four actors of RAVDESS (the first five runs), one speaker of nEMO and one of EmoDB, in
the order of their names; a run named after a corpus leaves that out. The layers learnt
from none of them.

    python -m benchmarks.accuracy.folds_full_voice --data DIR --whisper DIR --out OUT [--runs 0 ravdess]
"""

from __future__ import annotations

import argparse
import csv
import io
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from liveaffect.engines.manifest import write_whole
from liveaffect.engines.model.voice_statistics import HeadPreset
from liveaffect.engines.recipe import LABELS, SAMPLE_RATE
from liveaffect.engines.training import piece_bank, sound_store, train_statistics_voice
from liveaffect.engines.training.piece_bank import NOTHING, PieceBank
from liveaffect.engines.training.scores import unweighted_recall
from liveaffect.engines.training.sided_voices import found_in
from liveaffect.engines.training.voice_heads import HeadSchedule, Said, Voices, asked, fit, measure_of

RUNS = (*map(str, range(9)), "ravdess", "nemo", "emodb")
ACTORS = 4
"""Of RAVDESS in one run, so that five runs judge all twenty."""
AFTER_S = (1.0, 2.0)
SAID = ("corpus", "speaker", "name", "known", "truth", *LABELS, "after_1s", "after_2s")
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


def judged(bank: PieceBank, run: str, preset: HeadPreset, schedule: HeadSchedule, hop_s: float) -> str:
    """Train a head on the others; a table of what it says of each recording, from cold and known."""
    held = left_out(bank, run)
    train = ~held & (bank.label != NOTHING)
    voices = Voices(bank, measure_of(bank, train))
    head = fit(voices, train, preset, schedule)
    rows = np.flatnonzero(held & (bank.copy == 0))
    out = io.StringIO()
    table = csv.writer(out, lineterminator="\n")
    table.writerow(SAID)
    for known in (False, True):
        for row, said in sorted(asked(voices, head, rows, known=known, seed=schedule.seed).items()):
            among = _among(bank, train, row)
            if bank.label[row] in among:  # What nobody could learn is not asked for.
                table.writerow(_line(bank, row, said, among, known, hop_s))
    return out.getvalue()


def recalls(table: str) -> dict[tuple[str, str], tuple[float, ...]]:
    """By corpus and 'cold' or 'known': unweighted recall of whole recordings, after 1 s and after 2 s."""
    rows = list(csv.DictReader(io.StringIO(table)))
    found = {}
    for key in sorted({(row["corpus"], row["known"]) for row in rows}):
        these = [row for row in rows if (row["corpus"], row["known"]) == key]
        truth = np.array([int(row["truth"]) for row in these])
        whole = np.array(
            [max(range(len(LABELS)), key=lambda i: float(row[LABELS[i]] or -1e9)) for row in these]
        )
        calls = (whole, *(np.array([int(row[f"after_{s:g}s"]) for row in these]) for s in AFTER_S))
        found[key] = tuple(unweighted_recall(truth, call, len(LABELS)) for call in calls)
    return found


def _among(bank: PieceBank, train: NDArray[np.bool_], row: int) -> NDArray[np.int64]:
    """The labels that the recording's corpus has and that could be learnt."""
    own = np.unique(bank.label[bank.corpus == bank.corpus[row]])
    return np.intersect1d(own, np.unique(bank.label[train]))


def _line(
    bank: PieceBank, row: int, said: Said, among: NDArray[np.int64], known: bool, hop_s: float
) -> list[str]:
    whole = said.pooled(hop_s)
    numbers = [f"{whole[i]:.3f}" if i in among else "" for i in range(len(LABELS))]
    early = [str(among[said.pooled(hop_s, s)[among].argmax()]) for s in AFTER_S]
    who = [str(bank.corpus[row]), str(bank.speaker[row]), str(bank.name[row])]
    return [*who, "known" if known else "cold", str(bank.label[row]), *numbers, *early]


def main(argv: Sequence[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.accuracy.folds_full_voice", description=__doc__
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--whisper", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--runs", nargs="+", default=list(RUNS), choices=RUNS)
    parser.add_argument("--copies", type=int, default=train_statistics_voice.COPIES)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    torch.set_num_threads(1)
    network = train_statistics_voice.ready("whisper", given.whisper, None)
    sounds = train_statistics_voice.sounds_of(found_in(given.data), sound_store.default_folder())
    bank = piece_bank.filled(network, sounds, given.copies, given.out / "bank", report=_log.info)
    assert bank is not None
    tables = run_all(bank, given.runs, given.out, network.head_preset, HeadSchedule(seed=given.seed))
    for run, table in tables.items():
        for (corpus, how), figures in recalls(table).items():
            _log.info("%s %s %s %s", run, corpus, how, " ".join(f"{x:.3f}" for x in figures))
    return 0


def run_all(
    bank: PieceBank, runs: Sequence[str], out: Path, preset: HeadPreset, schedule: HeadSchedule
) -> Mapping[str, str]:
    """The table of every run; those that are there already are read, not made again."""
    hop_s, found = 6_400 / SAMPLE_RATE, {}
    for run in runs:
        path = out / f"{run}-seed{schedule.seed}.csv"
        if not path.exists():
            write_whole(path, judged(bank, run, preset, schedule, hop_s).encode())
        found[run] = path.read_text("utf-8")
    return found


if __name__ == "__main__":
    raise SystemExit(main())
