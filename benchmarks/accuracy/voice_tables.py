"""The tables about voices, made again from what networks said about recordings of people they never heard.

The shipped files on the test side, and heads that left speakers or a whole corpus out.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from accuracy.face_tables import Maker, rows_of

from liveaffect.engines.recipe import LABELS
from liveaffect.engines.training.evaluate_voice import SPEECH_S, VoiceVerdict, scores_of
from liveaffect.engines.training.scores import ENDING, markdown_table, read_tables, to_markdown
from liveaffect.engines.training.voice_answers import (
    COLD,
    FOLDS_OF,
    KNOWN,
    VoiceAnswer,
    read_answers,
    recalls,
    write_answers,
)

VOICE = f"voice{ENDING}"
TEST, SPEECH = "test/", "speech/"
FOLD_RUNS = tuple(map(str, range(9)))
CORPORA = ("ravdess", "nemo", "emodb")


def written(verdicts: Sequence[VoiceVerdict]) -> dict[str, str]:
    """The tables of the test side, as the archive holds them."""
    tables = {f"{TEST}{one.name}.csv": write_answers(one.answers) for one in verdicts}
    for one in verdicts:
        rows = [f"{kind},{count},{share:.4f}" for kind, (count, share) in one.speech.items()]
        tables[f"{SPEECH}{one.name}.csv"] = "\n".join(["sound,pieces,share", *rows]) + "\n"
    return tables


def tables_of(results: Path, begin: str) -> dict[str, str]:
    """Those whose names begin so, such as 'small-int8' of the test side."""
    tables = read_tables(results / VOICE)
    names = sorted((name for name in tables if name.startswith(begin)), reverse=True)
    return {name[len(begin) : -len(".csv")]: tables[name] for name in names}


def read_test(results: Path) -> dict[str, list[VoiceAnswer]]:
    """What each shipped file said of the test side."""
    return {name: read_answers(text) for name, text in tables_of(results, TEST).items()}


def test_side(results: Path) -> str:
    """Unweighted recall of the shipped files, whole and after so much speech, cold and known."""
    cells = []
    for name, answers in read_test(results).items():
        for corpus in CORPORA:
            cold, known = (_of(answers, corpus, how) for how in (COLD, KNOWN))
            if cold:
                low, high = scores_of(cold).unweighted_recall_between
                people = len({one.speaker for one in cold})
                between = f"{low:.2f} to {high:.2f}"
                cells.append((name, corpus, people, len(cold), _figures(cold), between, _figures(known)))
    times = " / ".join(["whole", *(f"{s:g} s" for s in SPEECH_S)])
    heads = ("voice", "corpus", "speakers", "recordings", f"cold, {times}", "whole between", "known")
    return markdown_table(heads, cells)


def labels(results: Path) -> str:
    """The confusions of the small voice on the test side, corpora apart, whole and cold."""
    answers = read_test(results)["small-fp32"]
    parts = []
    for corpus in CORPORA:
        if cold := _of(answers, corpus, COLD):
            parts.append(f"{corpus}:\n\n{to_markdown(scores_of(cold), (*LABELS, 'unheard'))}")
    return "\n".join(parts)


def speech(results: Path) -> str:
    """What is taken for speech."""
    told = {name: rows_of(text) for name, text in tables_of(results, SPEECH).items()}
    cells = [
        (rows[0]["sound"], rows[0]["pieces"], *(f"{float(row['share']):.1%}" for row in rows))
        for rows in zip(*told.values(), strict=True)
    ]
    return markdown_table(("sound", "pieces", *told), cells)


def folds_of(preset: str) -> Maker:
    """What heads of one preset said of speakers and of corpora that they left out."""

    def make(results: Path) -> str:
        tables = read_tables(results / VOICE)
        runs = {run: tables.get(FOLDS_OF.format(preset=preset, run=run)) for run in (*FOLD_RUNS, *CORPORA)}
        said = {run: read_answers(text) for run, text in runs.items() if text}
        cells: list[tuple[str, ...]] = []
        for corpus in CORPORA:
            folds = [_of(said.get(run, []), corpus, COLD) for run in FOLD_RUNS]
            known = [_of(said.get(run, []), corpus, KNOWN) for run in FOLD_RUNS]
            cells.append((f"{corpus}, folds by speaker: mean", _mean(folds), _mean(known)))
            cells.append((f"{corpus}, each fold, whole", _each(folds), _each(known)))
        for corpus in CORPORA:
            left = [_of(said.get(corpus, []), corpus, how) for how in (COLD, KNOWN)]
            cells.append((f"{corpus} from the two others", *(_mean([one]) for one in left)))
        return markdown_table(("left out; whole / after 1 s / after 2 s", "cold", "known"), cells)

    return make


def _of(answers: Sequence[VoiceAnswer], corpus: str, known: str) -> list[VoiceAnswer]:
    return [one for one in answers if (one.corpus, one.known) == (corpus, known)]


def _figures(answers: Sequence[VoiceAnswer]) -> str:
    return " / ".join(f"{x:.3f}" for x in recalls(answers))


def _mean(folds: Sequence[Sequence[VoiceAnswer]]) -> str:
    found = [recalls(one) for one in folds if one]
    return " / ".join(f"{x:.3f}" for x in np.mean(found, axis=0)) if found else "-"


def _each(folds: Sequence[Sequence[VoiceAnswer]]) -> str:
    return ", ".join(f"{recalls(one)[0]:.3f}" for one in folds if one) or "-"


MAKERS: dict[str, Maker] = {
    "voice test side": test_side,
    "voice labels": labels,
    "voice speech": speech,
    "voice folds whisper": folds_of("whisper"),
    "voice folds student": folds_of("student"),
}
