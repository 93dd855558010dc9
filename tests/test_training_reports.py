"""The pictures of a report show the figures they are made from."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.image import AxesImage

pytest.importorskip("torch", reason="reports belong to training, which needs torch")

from liveaffect.engines.training import loop
from liveaffect.engines.training.scores import confusion_figure, curve_figure, score, write_pictures


def test_the_darkest_cell_of_a_row_is_what_it_was_mostly_called() -> None:
    axes: Axes = confusion_figure([[9, 1, 0], [0, 2, 8], [5, 0, 15]], "title").axes[0]
    image: AxesImage = axes.images[0]
    darkness = 3 - np.asarray(image.to_rgba(np.asarray(image.get_array())))[..., :3].sum(2)
    assert darkness.argmax(1).tolist() == [0, 2, 2]
    assert [text.get_text() for text in axes.texts][:3] == ["9\n90%", "1\n10%", "0\n0%"]


def test_a_curve_passes_through_the_figures_of_its_log_where_there_are_any() -> None:
    rows = [{"epoch": float(e), "recall": e / 10} | ({"late": 0.5} if e > 5 else {}) for e in range(1, 11)]
    recall, late = curve_figure(rows, ("recall", "late")).axes[0].lines
    np.testing.assert_allclose(np.asarray(recall.get_ydata(), float), np.arange(1, 11) / 10)
    np.testing.assert_allclose(np.asarray(late.get_xdata(), float), np.arange(6, 11))


def test_a_report_holds_a_picture_for_every_verdict_and_the_curve_of_a_log(tmp_path: Path) -> None:
    truth = np.arange(14) % 7
    verdicts = {"fusion-both": score(truth, np.eye(7)[truth], rounds=2)}
    assert [path.name for path in write_pictures(tmp_path / "out", verdicts, tmp_path)] == ["fusion-both.png"]
    rows = [{"epoch": 1.0, "loss": 2.0, "recall": 0.2}, {"epoch": 2.0, "loss": 1.0, "recall": 0.4}]
    (tmp_path / loop.LOG).write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    paths = write_pictures(tmp_path / "out", verdicts, tmp_path)
    assert [path.name for path in paths] == ["fusion-both.png", "curve.png"]
    for path in paths:
        picture = cv2.imread(str(path))
        assert picture is not None
        assert len(np.unique(picture)) > 10
