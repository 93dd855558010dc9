"""Samples are drawn by the stated rule, the same every time; what says nothing is refused by name."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from liveaffect.calibration import samples
from liveaffect.calibration.reliability import UnfitSamples
from liveaffect.calibration.samples import Exam, Pick, Places, draw_picks, freeze_picks, left_over
from liveaffect.engines.protocol import EngineFileError

CONDITIONS = ("plain", "noisy", "far")


def people(each: int = 30, speakers: int = 5, labels: int = 7) -> tuple[Places, list[str]]:
    label = np.repeat(np.arange(labels), each)
    return label, [f"speaker {place % speakers}" for place in range(len(label))]


def test_labels_people_and_conditions_take_turns() -> None:
    label, speaker = people()
    picks = draw_picks(label, speaker, 10, CONDITIONS)
    assert Counter(int(label[pick.at]) for pick in picks) == dict.fromkeys(range(7), 10)
    for wanted in range(7):
        mine = [pick for pick in picks if label[pick.at] == wanted]
        assert set(Counter(speaker[pick.at] for pick in mine).values()) == {2}
        assert set(Counter(pick.condition for pick in mine).values()) == {3, 4}


def test_half_of_a_rare_label_is_left_and_repeats_come_under_another_condition() -> None:
    label, speaker = people(each=40)
    label[label == 5] = 6
    label[:6] = 5
    picks = draw_picks(label, speaker, 9, CONDITIONS)
    rare = [pick for pick in picks if label[pick.at] == 5]
    assert len(rare) == 9
    assert len({pick.at for pick in rare}) == 3
    assert len({(pick.at, pick.condition) for pick in rare}) == 9
    left = left_over(label, picks)
    assert np.count_nonzero(label[left] == 5) == 3
    assert not {pick.at for pick in picks} & set(left.tolist())


def test_what_has_no_label_is_neither_drawn_nor_left_to_judge_by() -> None:
    label, speaker = people()
    label[::3] = -1
    picks = draw_picks(label, speaker, 10, CONDITIONS)
    assert all(label[pick.at] >= 0 for pick in picks)
    assert (label[left_over(label, picks)] >= 0).all()


def test_the_same_items_give_the_same_picks() -> None:
    label, speaker = people()
    assert draw_picks(label, speaker, 8, CONDITIONS) == draw_picks(label, speaker, 8, CONDITIONS)
    assert draw_picks(label, speaker, 8, CONDITIONS) != draw_picks(label, speaker, 8, CONDITIONS, seed=1)


def test_too_few_items_and_only_one_label_are_refused_by_name() -> None:
    label, speaker = people(each=8)
    with pytest.raises(UnfitSamples, match="samples to calibrate INT8 on: 28 items are too few"):
        draw_picks(label, speaker, 10, CONDITIONS)
    alone = np.full(200, 3)
    with pytest.raises(UnfitSamples, match="all 64 items are 'angry'; it takes at least two labels"):
        draw_picks(alone, ["somebody"] * 200, 64, CONDITIONS)
    with pytest.raises(UnfitSamples, match="pictures to judge by: 5 items are too few"):
        Exam({}, np.arange(5)).check("pictures to judge by")


PICKS = [Pick(0, "plain"), Pick(2, "noisy")]
NAMES = ["a", "b", "c"]


def test_samples_are_frozen_once_and_others_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "samples.json"
    first = freeze_picks(path, "face", ["fer+"], NAMES, PICKS)
    before = path.read_bytes()
    assert freeze_picks(path, "face", ["fer+"], NAMES, PICKS) == first
    assert path.read_bytes() == before
    for names, picks in ((["a", "b", "d"], PICKS), (NAMES, PICKS[:1]), (NAMES, [PICKS[0], Pick(2, "far")])):
        with pytest.raises(EngineFileError, match=r"face of fer\+ on are not those frozen in .*changed"):
            freeze_picks(path, "face", ["fer+"], names, picks)
    assert path.read_bytes() == before
    assert freeze_picks(path, "voice", ["nemo"], ["a", "b", "d"], PICKS) != first
    assert set(json.loads(path.read_text())["samples"]) == {"face of fer+", "voice of nemo"}


def test_another_rule_freezes_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "samples.json"
    freeze_picks(path, "face", ["fer+"], NAMES, PICKS)
    monkeypatch.setattr(samples, "RULE", "another rule")
    freeze_picks(path, "face", ["fer+"], NAMES, PICKS[:1])
    assert json.loads(path.read_text())["samples"]["face of fer+"]["items"] == 1


@pytest.mark.parametrize("damage", ["{", "[]", '{"format": 1}', '{"format": 1, "samples": {"face": {}}}'])
def test_damaged_frozen_samples_are_refused_by_name(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "samples.json"
    path.write_text(damage)
    with pytest.raises(EngineFileError, match=r"samples\.json are damaged"):
        freeze_picks(path, "face", ["fer+"], NAMES, PICKS)
    path.write_text('{"format": 2, "samples": {}}')
    with pytest.raises(EngineFileError, match="has format 2, this version reads 1"):
        freeze_picks(path, "face", ["fer+"], NAMES, PICKS)
