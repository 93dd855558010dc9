"""`liveaffect bench` finds a slowdown of a tenth, and nothing between two runs of one commit."""

from __future__ import annotations

import json
import math
import random
import re
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from liveaffect import cli
from liveaffect.bench import measure, peers, runs, sounds
from liveaffect.bench.measure import Row, measure_calls
from liveaffect.calibration.clips import Clip
from liveaffect.engines import stopwatch
from liveaffect.engines.recipe import LABELS, SAMPLE_RATE
from liveaffect.realtime.clock import SECOND
from liveaffect.settings import Settings


class Machine:
    """Processor and wall time as the bench reads them; its pace changes, as that of a shared machine does."""

    def __init__(self, seed: int, pace: float = 1.0) -> None:
        self.chance = random.Random(seed)
        self.ns = 0.0
        self.pace = pace

    def now(self) -> int:
        self.ns += 100
        return round(self.ns)

    def work(self, us: float) -> float:
        self.pace *= math.exp(self.chance.gauss(0, 0.003))
        self.ns += 1000 * us * self.pace * math.exp(self.chance.gauss(0, 0.05))
        if self.chance.random() < 0.02:
            self.ns += 1000 * us * self.chance.random() * 5
        return 0.0


@pytest.fixture
def record_of(monkeypatch: pytest.MonkeyPatch) -> Callable[..., dict[str, Any]]:
    """A run on a machine of its own, with a stage that costs so many microseconds."""

    def run(seed: int, us: float, pace: float = 1.0) -> dict[str, Any]:
        there = Machine(seed, pace)
        monkeypatch.setattr(stopwatch, "thread_cpu_ns", there.now)
        monkeypatch.setattr(stopwatch, "wall_ns", there.now)
        monkeypatch.setattr(measure, "_plain_arithmetic", lambda: there.work(200))
        calls = {"stage": lambda: there.work(us), "other": lambda: there.work(900)}
        rows = measure_calls(calls)
        return {"machine": {"processor": "one"}, "rows": [row.to_json() for row in rows]}

    return run


@pytest.mark.parametrize("seed", range(4))
def test_a_slowdown_of_a_tenth_is_found_although_the_whole_machine_became_faster(
    record_of: Callable[..., dict[str, Any]], seed: int
) -> None:
    before, after = record_of(seed, 500), record_of(100 + seed, 550, pace=0.6)
    words = {one.name: one.word for one in runs.judge_runs(before, after)}
    assert words == {"stage": "worse", "other": "same"}
    assert {one.name: one.word for one in runs.judge_runs(after, before)}["stage"] == "better"


@pytest.mark.parametrize("seed", range(8))
def test_two_runs_of_one_commit_differ_in_nothing(
    record_of: Callable[..., dict[str, Any]], seed: int
) -> None:
    before, after = record_of(200 + seed, 500), record_of(300 + seed, 500, pace=1.7)
    assert {one.word for one in runs.judge_runs(before, after)} == {"same"}


def test_what_came_went_or_was_measured_elsewhere_is_not_judged() -> None:
    def run(name: str, processor: str = "one") -> dict[str, Any]:
        row = Row(name, 1.0, relative=(1.0,) * 8)
        return {"machine": {"processor": processor}, "rows": [row.to_json()]}

    assert [one.word for one in runs.judge_runs(run("a"), run("b"))] == ["new", "gone"]
    assert [one.word for one in runs.judge_runs(run("a"), run("a", "two"))] == ["not judged"]
    assert [one.line for one in runs.judge_runs(run("a"), run("a"))] == ["a: +0.0% (noise 6.0%)  same"]


def test_a_figure_whose_blocks_lie_apart_says_that_it_did_not_settle() -> None:
    assert measure.apart([1.0] * 12) == 0.0
    assert measure.apart([1.0, 1.5] * 6) > measure.AGREEMENT
    (row,) = measure_calls({"nothing": lambda: None}, blocks=2, block_s=0.0)
    assert row.value >= 0
    assert len(row.relative) == 2


ROWS = [
    Row("a stage", 0.25, budget=0.4, relative=(1.0, 1.0), figures={"least_ms": 0.2}),
    Row("<another>", 3.5, budget=3.0, settled=False),
    Row("not had", math.nan, "s", 0.35, note="shown 0 of 2 times"),
]


def test_a_run_is_a_table_a_record_and_a_page_that_needs_nothing_else(tmp_path: Path) -> None:
    said = runs.report("quick", ROWS, tmp_path)
    table = said.splitlines()
    assert re.fullmatch(r"a stage +0\.25 +ms +0\.4 +within", table[1])
    assert re.fullmatch(r"<another> +3\.5 +ms +3 +over +did not settle", table[2])
    assert re.fullmatch(r"not had +s +0\.35 +over +shown 0 of 2 times", table[3])
    found = runs.read_run(tmp_path)
    assert found["machine"]["processor"]
    assert found["machine"]["vnni"] in (True, False, None)
    assert [row["name"] for row in found["rows"]] == [row.name for row in ROWS]
    text = (tmp_path / "bench.html").read_text()
    assert "&lt;another&gt;" in text
    assert "data:image/png;base64," in text
    assert not re.search(r'(src|href)="(?!data:)', text)


def test_plots_and_tables_hold_what_they_are_given() -> None:
    assert runs.as_text([]) == ""
    assert runs.as_text([{"a": 1, "b": "x"}, {"a": 22, "c": [1, 2]}]).splitlines() == [
        " a  b  c",
        " 1  x",
        "22     1, 2",
    ]
    assert runs.plot({"one": [(1, 2.0), (2, 3.0)]}, x="x", y="y", log=True).startswith("<img ")


def test_compare_ends_with_1_only_if_something_got_worse(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, cost in (("before", 1.0), ("same", 1.01), ("worse", 1.2)):
        rows = [Row("stage", cost, relative=(cost,) * 8).to_json()]
        (tmp_path / name).mkdir()
        record = {"format": 1, "machine": {"processor": "one"}, "rows": rows}
        (tmp_path / name / "bench.json").write_text(json.dumps(record))
    before, same, worse = (str(tmp_path / name) for name in ("before", "same", "worse"))
    assert cli.main(["bench", "compare", before, same]) == 0
    assert cli.main(["bench", "compare", before, worse]) == 1
    assert "stage: +20.0% (noise 6.0%)  worse" in capsys.readouterr().out
    assert cli.main(["bench", "compare", before, str(tmp_path / "none")]) == 1
    assert "is no record of 'liveaffect bench'" in capsys.readouterr().err


def test_a_peer_that_cannot_be_had_says_why_and_a_changed_label_is_timed(tmp_path: Path) -> None:
    (xception,) = [peer for peer in peers.PEERS if peer.needs]
    counted = {"plurality": np.array([0, 0, 2]), "majority": np.array([0, -1, 2])}
    assert peers.accuracy(["neutral", "happy", "sadness"], counted) == {"plurality": 0.667, "majority": 1.0}
    shown = peers.Shown(tmp_path, None, (30,), (0,), {})
    assert "is not in the folder of --data" in peers._row(xception, shown, tmp_path)["why_not"]
    broken = peers.Peer("broken", (), "raise SystemExit('no such library')")
    python = tmp_path / "environments" / "broken" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.symlink_to(sys.executable)
    for name in ("pictures.npy", "sound.npy"):
        np.save(tmp_path / name, np.zeros(3, np.uint8))
    assert peers._row(broken, shown, tmp_path)["why_not"] == "ended with 1: no such library"
    labels = ["neutral"] * 36 + ["happy"] * 60 + ["not sure"] + ["happy"] * 10 + ["neutral"] * 73
    assert peers.response(labels, shown) == {
        "smile_named_s": 0.2,
        "smiles_named": "1 of 1",
        "needless_changes": 1,
        "pictures_with_a_face": 1.0,
    }
    assert peers.response(["neutral"] * 180, shown)["smile_named_s"] is None


def test_a_voice_and_a_word_are_timed_from_when_they_were_heard(monkeypatch: pytest.MonkeyPatch) -> None:
    voice, label, *words = sounds.sound_rows(Settings(voice="small"), None, lambda _: None)
    assert 0.2 < voice.value < 2.0  # not before a first piece of sound can be full
    assert math.isnan(label.value)
    assert "--data" in label.note
    pale, believed = words
    if not math.isnan(pale.value):
        assert 0.0 < pale.value < believed.value < 6.0
    monkeypatch.setattr("shutil.which", lambda _: None)
    assert [row.note for row in sounds.sound_rows(Settings(words="off"), None, lambda _: None)] == [
        sounds.NO_SPEECH,
        sounds.NO_VOICES,
        sounds.NO_SPEECH,
        sounds.NO_SPEECH,
    ]


def test_the_second_recording_of_a_pair_begins_where_its_first_sound_is() -> None:
    def recording(silent_s: float, truth: int) -> Clip:
        content = np.zeros(2 * SAMPLE_RATE, np.float32)
        content[round(silent_s * SAMPLE_RATE) :] = 0.1
        return Clip(f"{truth}", "anna", "calibrate", truth, content)

    (pair,) = sounds.voice_pairs([recording(0.0, 1), recording(0.5, 3)], 1, seed=1)
    second_silent_s = 0.5 if pair.truth == LABELS[3] else 0.0
    sound = np.flatnonzero(np.abs(pair.samples) > 0.05) / SAMPLE_RATE
    gaps = np.flatnonzero(np.diff(sound) > 0.2)
    assert pair.onset_s == pytest.approx(sound[gaps[-1] + 1], abs=0.01)
    assert len(gaps) == 1
    assert second_silent_s <= pair.onset_s - sound[gaps[-1]] - sounds.GAPS_S[0] + 0.01
    assert pair.first_s == pytest.approx(sound[0], abs=0.01)
    assert {pair.first_truth, pair.truth} == {LABELS[1], LABELS[3]}
    times = (pair.first_s - 0.1, pair.first_s + 0.1, pair.onset_s - 0.1, pair.onset_s, pair.end_s + 2.0)
    assert [pair.said_last(at_s) for at_s in times] == ["", *[pair.first_truth] * 2, pair.truth, ""]


def test_time_shown_rightly_and_wrongly_is_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    pair = sounds.VoicePair(np.zeros(1, np.float32), 1.0, "sad", 3.0, 5.0, "happy")
    shown = {0.5: "angry", 1.5: "not sure", 2.0: "sad", 3.5: "sad", 4.0: "happy", 5.5: "happy", 9.0: "sad"}

    def told(*_: object) -> list[SimpleNamespace]:
        return [SimpleNamespace(at_ns=round(at_s * SECOND), label=label) for at_s, label in shown.items()]

    monkeypatch.setattr(sounds, "told", told)
    found = sounds.delays_of([pair], None)  # type: ignore[arg-type]
    assert found.right_s.tolist() == [1.0]
    assert (found.labelled, found.right, found.wrong, found.changes) == (1.0, 3 / 5, 1 / 5, 1.0)
