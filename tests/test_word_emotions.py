"""What words tell: negation, marks, names, very short utterances; small, quick, refused when damaged."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from liveaffect.engines import stopwatch
from liveaffect.engines.manifest import SHIPPED
from liveaffect.engines.protocol import EngineFileError
from liveaffect.engines.recipe import LABELS
from liveaffect.engines.word_emotions import (
    FILE,
    MANIFEST,
    MOST_WORDS,
    PIECES,
    ROWS,
    Judge,
    load_judge,
    table_rows,
    words_of,
)


@pytest.fixture(scope="module")
def judge() -> Judge:
    return load_judge()


def shares(judge: Judge, text: str) -> dict[str, float]:
    logits = judge(text)
    assert logits is not None, f"'{text}' was not judged"
    powers = np.exp(np.asarray(logits) - max(logits))
    return dict(zip(LABELS, (powers / powers.sum()).tolist(), strict=True))


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("I am so happy that you came! What a wonderful day.", "happy"),
        ("Thank you.", "happy"),
        ("My grandmother died and I miss her.", "sad"),
        ("I hate you, you idiot!", "angry"),
        ("I'm so scared of him.", "fearful"),
        ("That is disgusting.", "disgusted"),
        ("Wow! Oh my god, really?", "surprised"),
        ("Anna called Peter this morning.", "neutral"),
        ("Set white with P2 soon.", "neutral"),
    ],
)
def test_plain_sentences_get_the_label_that_people_give_them(judge: Judge, text: str, label: str) -> None:
    found = shares(judge, text)
    assert max(found, key=lambda name: found[name]) == label, found


def test_not_happy_is_far_less_happy_than_happy(judge: Judge) -> None:
    assert shares(judge, "I'm happy.")["happy"] > 0.9
    assert shares(judge, "I'm not happy.")["happy"] < 0.5
    assert shares(judge, "not happy at all")["happy"] < 0.5


def test_a_question_mark_is_heard(judge: Judge) -> None:
    assert shares(judge, "really?")["surprised"] > shares(judge, "really")["surprised"]


def test_a_name_tells_nothing(judge: Judge) -> None:
    one, other = shares(judge, "I met Anna yesterday."), shares(judge, "I met Boris yesterday.")
    assert sum(abs(one[label] - other[label]) for label in LABELS) < 0.6


@pytest.mark.parametrize("text", ["", "   ", "...", "!?", "\u266a"])
def test_what_holds_no_word_is_not_judged(judge: Judge, text: str) -> None:
    assert judge(text) is None


def test_a_sentence_takes_less_than_a_millisecond(judge: Judge) -> None:
    text = "I am not happy at all about what you said to me yesterday evening"
    judge(text)
    (spent_ns,) = stopwatch.median_ns([lambda: judge(text)], rounds=50)
    assert spent_ns < 1_000_000


def test_the_manifest_keeps_the_figures_that_were_asked_for() -> None:
    told = json.loads((SHIPPED / MANIFEST).read_text("utf-8"))
    assert told["figures"]["macro_f1"] >= 0.61
    assert told["figures"]["recall"] >= 0.61
    assert (SHIPPED / FILE).stat().st_size < 3_000_000


def test_a_damaged_file_is_refused_by_name(tmp_path: Path) -> None:
    for name in (MANIFEST, FILE):
        shutil.copy(SHIPPED / name, tmp_path / name)
    with (tmp_path / FILE).open("r+b") as file:
        file.seek(1000)
        file.write(b"\x00" * 8)
    with pytest.raises(EngineFileError, match=FILE):
        load_judge(tmp_path)


def test_words_are_cut_alike_whatever_the_case_and_the_apostrophe() -> None:
    assert words_of("Don\u2019t SHOUT, sooooo loud!!") == words_of("don't shout, soo loud!!")
    assert words_of("[NAME] is here") == ["somebody", "is", "here"]


def test_rows_are_bounded_however_long_text_and_words_are() -> None:
    rows = table_rows("x" * 5000 + " word" * 500)
    assert rows.shape == (MOST_WORDS, PIECES)
    assert rows.min() >= 0
    assert rows.max() < ROWS
