"""What the pages of results say is what the committed answers of the shipped networks give."""

from __future__ import annotations

from pathlib import Path

import pytest

from engines import manifest as manifests
from engines.recipe import LABELS
from engines.training import evaluate_face, splits
from engines.training.scores import score, to_markdown

DOCS = Path(__file__).resolve().parent.parent / "docs"


@pytest.mark.parametrize("precision", manifests.PRECISIONS)
def test_the_face_tables_follow_from_the_committed_answers(precision: str) -> None:
    truth, logits = evaluate_face.read_table((DOCS / "results/face.csv").read_text("utf-8"))
    found = score(truth, logits[precision])
    assert to_markdown(found) in (DOCS / "results.md").read_text("utf-8")
    shipped = manifests.read(manifests.SHIPPED / "face.json").figures["fer+ test side"][precision]
    assert shipped["accuracy"] == pytest.approx(found.accuracy, abs=1e-4)
    assert shipped["unweighted_recall"] == pytest.approx(found.unweighted_recall, abs=1e-4)
    assert list(shipped["recall"]) == list(LABELS)


def test_the_shipped_face_network_was_trained_on_the_frozen_sides() -> None:
    found = manifests.read(manifests.SHIPPED / "face.json")
    assert found.training["corpora"] == ["fer+"]
    assert splits.read(splits.FROZEN)["fer+"]["members"].keys() == set(splits.SIDES)
    assert {name: found.has(name) for name in manifests.PRECISIONS} == dict.fromkeys(
        manifests.PRECISIONS, True
    )
