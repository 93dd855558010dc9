"""What the pages of results say is what the committed answers of the shipped networks give."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from liveaffect.cli import main
from liveaffect.commands import train
from liveaffect.engines import manifest as manifests
from liveaffect.engines.recipe import LABELS
from liveaffect.engines.training import evaluate_face, splits
from liveaffect.engines.training.scores import change_tables, read_tables, score, write_tables
from liveaffect.engines.training.voice_answers import FOLDS_OF, VoiceAnswer, read_answers, write_answers

DOCS = Path(__file__).resolve().parent.parent / "docs"
sys.path.insert(0, str(DOCS.parent / "benchmarks"))


@pytest.mark.parametrize("precision", manifests.PRECISIONS)
def test_the_face_manifest_says_what_the_committed_answers_give(precision: str) -> None:
    truth, logits = evaluate_face.read_table(read_tables(DOCS / "results/face.tar.xz")["answers.csv"])
    found = score(truth, logits[precision])
    shipped = manifests.read(manifests.SHIPPED / "face.json").figures["fer+ test side"][precision]
    assert shipped["accuracy"] == pytest.approx(found.accuracy, abs=1e-4)
    assert shipped["unweighted_recall"] == pytest.approx(found.unweighted_recall, abs=1e-4)
    assert list(shipped["recall"]) == list(LABELS)


def test_the_shipped_face_network_was_trained_on_the_frozen_sides() -> None:
    found = manifests.read(manifests.SHIPPED / "face.json")
    assert found.training["corpora"] == ["fer+"]
    assert splits.read_splits(splits.FROZEN)["fer+"]["members"].keys() == set(splits.SIDES)
    assert {name: found.has(name) for name in manifests.PRECISIONS} == dict.fromkeys(
        manifests.PRECISIONS, True
    )


@pytest.fixture
def page() -> object:
    """The module that writes the page; it knows fusions, which are torch modules."""
    pytest.importorskip("torch", reason="the tables of fusions are made with torch installed")
    from accuracy import pages

    return pages


def test_every_table_of_the_results_is_what_the_committed_answers_give(page: object) -> None:
    from accuracy import pages

    assert pages.as_table(pages.differences()) == pages.as_table([])


QUICK = ("face source", "face flips", "face conditions")


def small_docs(to: Path) -> tuple[Path, dict[str, Callable[[Path], str]]]:
    """A page of three tables as they are committed, and who makes them."""
    from accuracy import pages

    docs = to / "docs"
    (docs / "results").mkdir(parents=True)
    shutil.copy(DOCS / "results/face.tar.xz", docs / "results/face.tar.xz")
    text = (DOCS / "results.md").read_text("utf-8")
    kept = [found[0] for found in pages.MARKED.finditer(text) if found["name"] in QUICK]
    (docs / "results.md").write_text("\n\n".join(kept) + "\n", "utf-8")
    return docs, {name: pages.MAKERS[name] for name in QUICK}


def test_changed_answers_are_found_and_written_anew(page: object, tmp_path: Path) -> None:
    from accuracy import pages

    docs, makers = small_docs(tmp_path)
    path = docs / "results/face.tar.xz"
    lines = [line.split(",") for line in read_tables(path)["conditions.csv"].splitlines()]
    for cells in lines[1:100]:
        cells[2] = str((int(cells[1]) + 1) % 7)
    change_tables(path, {"conditions.csv": "".join(",".join(cells) + "\n" for cells in lines)})
    found = pages.differences(docs, makers)
    assert [one.what for one in found] == ["table 'face conditions'"]
    assert "| it is |" in found[0].now
    assert "face conditions" in pages.as_table(found)
    pages.write(docs)
    assert pages.differences(docs, makers) == []


def test_a_table_that_was_edited_or_removed_by_hand_is_found(page: object, tmp_path: Path) -> None:
    from accuracy import pages

    docs, makers = small_docs(tmp_path)
    text = (docs / "results.md").read_text("utf-8")
    (docs / "results.md").write_text(text.replace("| mirrored | 0.", "| mirrored | 1.", 1), "utf-8")
    assert [one.what for one in pages.differences(docs, makers)] == ["table 'face conditions'"]
    gone = pages.MARKED.sub("", text, count=1)
    (docs / "results.md").write_text(gone, "utf-8")
    assert [(one.what, one.committed) for one in pages.differences(docs, makers)] == [
        ("table 'face source'", "not in the page")
    ]
    (docs / "results.md").write_text(text.replace("made: face flips", "made: face leaps"), "utf-8")
    assert "nobody makes 'face leaps'" in pages.differences(docs, makers)[0].now


def test_a_change_of_label_is_counted_for_each_person_and_not_by_way_of_not_sure() -> None:
    pytest.importorskip("torch", reason="the tables are made with torch installed")
    from accuracy.face_tables import label_changes

    shown = {"1": ["not sure", "neutral", "not sure", "neutral"], "2": ["happy", "not sure", "sad", "happy"]}
    rows = [
        {"track": track, "t": f"{at * 15}", "shown": one[at]}
        for at in range(4)
        for track, one in shown.items()
    ]
    assert label_changes(rows) == (2, 1.5)


def test_answers_that_moved_too_far_are_named_with_what_is_allowed(page: object) -> None:
    from accuracy.run import Allowed, compared

    committed = np.eye(7)[np.arange(70) % 7] * 5
    now = committed.copy()
    assert compared("face fp32", committed, now + 1e-4, Allowed(0.002, 0.02)) == []
    now[3:6] = np.roll(now[3:6], 1, axis=1)
    found = compared("face fp32", committed, now, Allowed(0.002, 0.02))
    assert [one.what for one in found] == ["face fp32, labels", "face fp32, scores"]
    assert found[0].now == "4.29% called otherwise"


def said(who: str, truth: int, called: int, how: str = "cold", early: int = 0) -> VoiceAnswer:
    """An answer that calls the whole recording something; -1 is unheard."""
    logits = tuple(float("nan") if called < 0 else float(label == called) for label in range(7))
    early_calls = (("after_1s", early), ("after_2s", truth))
    return VoiceAnswer(who.partition("/")[0], who, f"take{truth}", how, truth, logits, early_calls)


def test_what_a_voice_network_did_not_hear_is_wrong_and_corpora_are_judged_apart(tmp_path: Path) -> None:
    pytest.importorskip("torch", reason="the tables are made with torch installed")
    from accuracy import voice_tables

    right = [said("ravdess/01", label, label) for label in range(7)]
    deaf = [said("ravdess/02", label, -1) for label in range(7)]
    known = [said("ravdess/01", label, label, "known") for label in range(7)]
    tables = {
        FOLDS_OF.format(preset="whisper", run="0"): write_answers([*right, *deaf, *known]),
        FOLDS_OF.format(preset="whisper", run="1"): write_answers([*right, said("nemo/A", 1, 2)]),
        FOLDS_OF.format(preset="whisper", run="nemo"): write_answers([said("nemo/A", 1, 1)]),
        "test/small-fp32.csv": write_answers([*right, *deaf, *known]),
    }
    write_tables(tmp_path / voice_tables.VOICE, tables)
    made = voice_tables.folds_of("whisper")(tmp_path)
    assert "| ravdess, folds by speaker: mean | 0.750 / 0.143 / 1.000 | 1.000 / 0.143 / 1.000 |" in made
    assert "| ravdess, each fold, whole | 0.500, 1.000 | 1.000 |" in made
    assert "| nemo, folds by speaker: mean | 0.000 / 0.000 / 1.000 | - |" in made
    assert "| nemo from the two others | 1.000 / 0.000 / 1.000 | - |" in made
    assert "| small-fp32 | ravdess | 2 | 14 | 0.500 / " in voice_tables.test_side(tmp_path)
    assert "| neutral | 1 | 0 | 0 | 0 | 0 | 0 | 0 | 1 | 0.500" in voice_tables.labels(tmp_path)


def test_answers_of_voices_come_back_from_their_table() -> None:
    answers = [said("nemo/A", 1, 2), said("nemo/B", 0, -1, "known", early=-1)]
    again = read_answers(write_answers(answers))
    assert [(one.called, one.early, one.known) for one in again] == [
        (2, (("after_1s", 0), ("after_2s", 1)), "cold"),
        (-1, (("after_1s", -1), ("after_2s", 0)), "known"),
    ]
    with pytest.raises(ValueError, match="no table of voices"):
        read_answers("name,truth\na,1\n")


def test_face_designs_are_compared_over_the_epochs_that_all_had(tmp_path: Path) -> None:
    pytest.importorskip("torch", reason="the tables are made with torch installed")
    from accuracy import face_tables

    designs = tmp_path / "designs"
    designs.mkdir()
    for preset, epochs in (("live", 3), ("live-vgg", 2)):
        rows = [{"accuracy": 0.5 + at / 10, "recall": 0.25} for at in range(epochs)]
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (designs / f"face-{preset}.jsonl").write_text(text, "utf-8")
    assert "| live, RepVGG: three branches, folded into one for use | 0.500 / 0.250 | 0.600 / 0.250 |\n" in (
        face_tables.design_faces(tmp_path)
    )


def test_packed_tables_come_back_and_always_take_the_same_bytes(tmp_path: Path) -> None:
    tables = {"b/two.csv": "name\nü\n", "one.csv": "name\n" * 1000}
    write_tables(tmp_path / "a.tar.xz", tables)
    write_tables(tmp_path / "b.tar.xz", dict(reversed(tables.items())))
    assert read_tables(tmp_path / "a.tar.xz") == tables
    assert (tmp_path / "a.tar.xz").read_bytes() == (tmp_path / "b.tar.xz").read_bytes()
    change_tables(tmp_path / "a.tar.xz", {"one.csv": "new\n", "three.csv": ""})
    assert read_tables(tmp_path / "a.tar.xz") == {**tables, "one.csv": "new\n", "three.csv": ""}
    (tmp_path / "c.tar.xz").write_bytes(b"no archive")
    with pytest.raises(ValueError, match="holds no packed tables"):
        read_tables(tmp_path / "c.tar.xz")


def test_the_answers_behind_the_tables_take_no_more_than_a_megabyte() -> None:
    assert sum(path.stat().st_size for path in (DOCS / "results").rglob("*.*")) <= 1_000_000


def test_without_a_checkout_repeating_the_results_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("torch", reason="judging networks needs torch")
    monkeypatch.setattr(train, "RESULTS", tmp_path / "run.py")
    assert main(["evaluate", "--data", str(tmp_path), "--all"]) == 1
    assert "part of a checkout" in capsys.readouterr().err
