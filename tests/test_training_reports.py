"""The pictures of a report show the figures they are made from."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

pytest.importorskip("torch", reason="reports belong to training, which needs torch")

from liveaffect.engines.recipe import LABELS
from liveaffect.engines.training import draw, loop, reports
from liveaffect.engines.training.evaluate_fusion import Inputs, Verdict
from liveaffect.engines.training.scores import score


def test_the_darkest_cell_of_a_row_is_what_it_was_mostly_called() -> None:
    table = [[9, 1, 0], [0, 2, 8], [5, 0, 15]]
    picture = draw.confusion(table, ("one", "two", "three"), "title").astype(int)
    cell = picture.shape[0] - draw._EDGE - draw._TOP
    side = cell // 3
    corners = [
        [picture[draw._TOP + row * side + 3, draw._LEFT + column * side + 3].sum() for column in range(3)]
        for row in range(3)
    ]
    assert np.argmin(corners, axis=1).tolist() == [0, 2, 2]
    assert corners[0][2] == 3 * 255


def test_a_rising_curve_rises_on_the_page() -> None:
    rows = [{"epoch": float(e), "recall": e / 10} for e in range(1, 11)]
    picture = draw.curves(rows, ("recall",), "title")
    drawn = (picture == np.array(draw._LINES[0])).all(2)
    drawn[:100] = False
    heights = [np.flatnonzero(drawn[:, x]).mean() for x in (100, 300, 500, 700)]
    assert heights == sorted(heights, reverse=True)
    assert heights[0] - heights[-1] > 100


def test_a_report_holds_a_picture_for_every_condition_and_the_curve_of_a_log(tmp_path: Path) -> None:
    truth = np.arange(14) % 7
    said = np.eye(7)[truth] * 0.5 + 0.1
    logits = said.astype(np.float32)
    given = Inputs(tuple(map(str, truth)), ("a",) * 14, truth, logits, logits)
    verdict = Verdict("late-masked", given, "test", {"both": said}, {"both": score(truth, said, rounds=2)})
    rows = [{"epoch": 1.0, "loss": 2.0, "recall": 0.2}, {"epoch": 2.0, "loss": 1.0, "recall": 0.4}]
    (tmp_path / loop.LOG).write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    paths = reports.write("fusion", verdict, tmp_path, tmp_path)
    assert [path.name for path in paths] == ["fusion-both.png", "fusion-curve.png"]
    for path in paths:
        picture = cv2.imread(str(path))
        assert picture is not None
        assert len(np.unique(picture)) > 10
    assert len(LABELS) == len(verdict.scores["both"].confusion)
