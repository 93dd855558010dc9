"""Clips go through the live path and are reckoned with exactly; figures are about people not fitted on."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from liveaffect.calibration.clips import (
    Clip,
    ClipTrace,
    ClipTraces,
    Engines,
    Remembering,
    faces_watched,
    first_by_hash,
    pairs_watched,
    relived,
    voices_watched,
)
from liveaffect.calibration.held_out import (
    BEGIN,
    END,
    ClipCount,
    Findings,
    Fused,
    Reading,
    ShownCount,
    between_marks,
    find_out,
    folds,
    write_findings,
)
from liveaffect.calibration.reliability import UnfitSamples, tempered
from liveaffect.engines.recipe import LABELS, SAMPLE_RATE, SUBSETS
from liveaffect.engines.scripted_engine import ScriptedFace, ScriptedFusion, ScriptedVoice
from liveaffect.engines.training.scores import read_tables
from liveaffect.realtime.cue import NOT_SURE
from liveaffect.realtime.errors import SettingsError
from liveaffect.realtime.estimate import Confidence
from liveaffect.realtime.testing.engines import CountingEngine, SchooledEngine
from liveaffect.realtime.testing.people import ScriptedFinder
from liveaffect.realtime.window import PIECES

CAST = Engines(
    ScriptedFace(),
    SchooledEngine(ScriptedVoice()),
    ScriptedFusion(),
    (ScriptedFinder(), ScriptedFinder()),
    PIECES,
)


def speech(seconds: float, pitch_hz: float) -> NDArray[np.float32]:
    t = np.arange(round(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    syllables = np.clip(np.sin(2 * np.pi * 4 * t), 0, None)
    return np.asarray(
        0.2 * syllables * sum(np.sin(2 * np.pi * pitch_hz * k * t) / k for k in range(1, 9)), np.float32
    )


def logits_for(label: int, certainty: float) -> NDArray[np.float32]:
    return np.asarray(certainty * np.eye(len(LABELS))[label], np.float32)


@pytest.fixture(scope="module")
def pairs() -> list[ClipTrace]:
    clips = [
        Clip(
            f"take-{k}",
            f"speaker-{k % 3}",
            "calibrate",
            k % 7,
            speech(2.6, 110 + 30 * k),
            logits_for(k % 7, k),
        )
        for k in range(5)
    ]
    found = [watch for watch in pairs_watched(clips, CAST) if watch is not None]
    assert len(found) == 5
    return found


@pytest.fixture(scope="module")
def voices() -> list[ClipTrace]:
    clips = [Clip(f"v{k}", f"s{k}", "test", 2, speech(2.4, 120 + 40 * k)) for k in range(3)]
    found = [watch for watch in voices_watched(clips, CAST) if watch is not None]
    assert len(found) == 3
    return found


def test_reckoning_anew_gives_exactly_what_the_run_showed(
    pairs: list[ClipTrace], voices: list[ClipTrace]
) -> None:
    for watches in (pairs, voices):
        chains = ClipTraces(watches)
        assert chains.largest_difference() < 1e-9
        assert len(chains.scores({})) == sum(int(watch.counted.sum()) for watch in watches)


def test_under_other_temperatures_it_is_what_a_run_with_those_would_show(pairs: list[ClipTrace]) -> None:
    temperatures = {"face": 2.0, "voice": 0.7, "face+voice": 3.0}
    chains = ClipTraces(pairs)
    at = 0
    for watch in pairs:
        for shown in relived(watch, Confidence(fused=temperatures)):
            np.testing.assert_allclose(chains.scores(temperatures)[at], shown.scores, atol=1e-9)
            at += 1


def test_a_pair_has_a_good_face_and_a_voice_that_grows_with_what_was_heard(pairs: list[ClipTrace]) -> None:
    heard = [one for one in pairs[2].estimates if one.voice is not None]
    assert all(one.face is not None and one.face.quality == 1.0 for one in heard)
    with_voice = [one.shares[SUBSETS.index("face+voice")] for one in heard]
    assert with_voice == sorted(with_voice)
    assert with_voice[0] < 0.5 < with_voice[-1]
    assert all(sum(one.shares) == pytest.approx(1) for one in heard)


def test_a_voice_alone_rests_on_the_voice_alone(voices: list[ClipTrace]) -> None:
    assert {one.subset for watch in voices for one in watch.estimates} == {"voice"}
    assert len(Reading("voice", voices).scores(1.0)) == len(ClipTraces(voices).scores({}))
    assert len(Reading("face", voices).clips) == 0


def test_cues_with_little_evidence_and_those_off_the_grid_are_not_counted(pairs: list[ClipTrace]) -> None:
    watch = pairs[0]
    for one, counts in zip(watch.estimates, watch.counted, strict=True):
        assert counts == (one.evidence_ns >= 60_000_000 and one.at_ns % 100_000_000 == 0)
    assert not watch.counted.all()


def test_a_picture_in_which_nobody_is_found_gives_nothing() -> None:
    blank = Clip("blank", "blank", "test", 0, np.full((48, 48), 128, np.uint8))
    assert list(faces_watched([blank], CAST)) == [None]


def test_a_threshold_that_nothing_reaches_leaves_only_not_sure(pairs: list[ClipTrace]) -> None:
    thresholds = {"face": 1.0, "voice": 1.0, "face+voice": 1.0}
    shown = [one for watch in pairs for one in relived(watch, Confidence(thresholds=thresholds))]
    assert {one.label for one in shown} == {NOT_SURE}
    assert any(one.label != NOT_SURE for watch in pairs for one in relived(watch, Confidence()))


class Invented:
    """Answers about clips of `each` cues that are too sure by a factor of two."""

    def __init__(self, clips: int, groups: int, each: int = 4, seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        logits = rng.normal(0, 1.6, (clips, 7))
        chances = tempered(logits, 1.0).cumsum(axis=1)
        truth = (rng.random((clips, 1)) > chances).sum(axis=1).clip(0, 6)
        self._logits = 2.0 * logits
        self._each = each
        self.watches = tuple(
            ClipTrace(f"clip-{k}", f"person-{k % groups}", "calibrate", int(truth[k]), ())
            for k in range(clips)
        )
        self.clips = np.repeat(np.arange(clips), each)

    def take(self, chosen: Sequence[int]) -> Invented:
        part = Invented.__new__(Invented)
        part._logits, part._each = self._logits[list(chosen)], self._each
        part.watches = tuple(self.watches[k] for k in chosen)
        part.clips = np.repeat(np.arange(len(chosen)), self._each)
        return part

    def scores(self, temperature: float) -> NDArray[np.float64]:
        return tempered(self._logits, temperature)[self.clips]


@pytest.fixture(scope="module")
def findings() -> Findings:
    outcome = find_out("voice", Invented(1200, 6), Invented(800, 4, seed=1))
    return Findings(
        {"voice": outcome}, (ClipCount("voice", "test", 9, 8),), (ShownCount("voice", "test", 40, 30, 6),), {}
    )


def test_what_boasts_is_mended_for_people_who_were_not_fitted_on(findings: Findings) -> None:
    outcome = findings.outcomes["voice"]
    assert outcome.fit.temperature == pytest.approx(2.0, rel=0.12)
    for side in ("calibrate", "test"):
        before, after = (outcome.judged[side, "cues", state] for state in ("before", "after"))
        assert before.excess > 0.05
        assert abs(after.excess) < 0.02
        assert after.clips == {"calibrate": 1200, "test": 800}[side]
        assert after.items == 4 * after.clips
        held = outcome.told[side].held()
        assert held.risk_between[0] <= outcome.told[side].promised <= held.risk_between[1]
        assert held.coverage == pytest.approx(0.8, abs=0.05)
    entry = outcome.calibrated()
    assert (entry.groups, entry.clips) == (6, 2000)
    assert set(outcome.told) == {"calibrate", "test", "pooled"}
    assert entry.excess_after < entry.excess_before


def test_what_is_too_unsure_is_not_shown_even_if_that_leaves_less_than_the_promise() -> None:
    vague = Invented(400, 4)
    vague._logits *= 0.2
    outcome = find_out("voice", vague, None)
    assert outcome.promise.coverage == pytest.approx(0.8, abs=0.01)
    assert outcome.calibrated().threshold >= 0.4
    assert outcome.applied.risk < outcome.promise.risk or outcome.promise.threshold >= 0.4


def test_nobody_is_judged_by_a_temperature_that_was_fitted_on_them() -> None:
    answers = Invented(600, 3)
    crossed = find_out("voice", answers, None).told["calibrate"]
    fold = folds([watch.group for watch in answers.watches])
    for one in range(3):
        others = answers.take(np.flatnonzero(fold != one).tolist())
        temperature = find_out("others", others, None).fit.temperature
        here = fold[answers.clips] == one
        np.testing.assert_allclose(crossed.after[here], answers.scores(temperature)[here], atol=1e-9)


def test_few_speakers_are_left_out_one_by_one_and_many_pictures_in_five_parts() -> None:
    assert folds(["b", "a", "b", "c"]).tolist() == [1, 0, 1, 2]
    parts = folds([f"picture-{k % 200}" for k in range(400)])
    assert set(parts) == set(range(5))
    assert (parts[:200] == parts[200:]).all()


def test_too_few_clips_are_refused_by_name_however_many_cues_they_have() -> None:
    with pytest.raises(UnfitSamples, match="voice: 30 items are too few"):
        find_out("voice", Invented(30, 3, each=40), None)


def test_the_choice_of_clips_is_always_the_same_and_depends_on_no_order() -> None:
    names = [f"take-{k}" for k in range(100)]
    chosen = {names[k] for k in first_by_hash(names, 10)}
    assert len(chosen) == 10
    assert chosen == {names[::-1][k] for k in first_by_hash(names[::-1], 10)}
    assert first_by_hash(names, 1000) == list(range(100))


def test_figures_go_between_the_marks_and_can_be_made_again(findings: Findings, tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"# Title\n{BEGIN}\nold figures\n{END}\nthe rest\n")
    text = write_findings(findings, [["evidence"]], tmp_path / "out", page)
    assert write_findings(findings, [["evidence"]], tmp_path / "out", page) == text
    written = page.read_text()
    assert written.startswith(f"# Title\n{BEGIN}\n")
    assert written.endswith(f"{END}\nthe rest\n")
    assert "old figures" not in written
    assert text in written
    assert "| voice | test side | 40 | 0.750 | 0.200 |" in text
    packed = read_tables(tmp_path / "out" / "answers.tar.xz")
    rows = list(csv.DictReader(packed["voice.csv"].splitlines()))
    assert len(rows) == 2000
    assert {row["cues"] for row in rows} == {"4"}
    right = np.mean(
        [
            LABELS[int(np.argmax([float(row[f"after_{label}"]) for label in LABELS]))] == row["label"]
            for row in rows[:1200]
        ]
    )
    assert right == pytest.approx(
        findings.outcomes["voice"].judged["calibrate", "clips", "after"].accuracy, abs=0.003
    )


def test_a_page_without_the_marks_is_refused_by_name() -> None:
    with pytest.raises(SettingsError, match=r"page\.md has no lines"):
        between_marks("nothing here", "figures", Path("page.md"))


def test_the_page_of_this_project_has_the_marks() -> None:
    page = Path(__file__).resolve().parent.parent / "docs" / "confidence.md"
    assert "figures" in between_marks(page.read_text("utf-8"), "figures", page)


def test_fused_answers_of_some_clips_are_those_of_all_for_these_clips(pairs: list[ClipTrace]) -> None:
    every = Fused(ClipTraces(pairs), "face+voice", {"face": 1.5})
    some = every.take([1, 3])
    here = np.isin(every.clips, [1, 3])
    np.testing.assert_allclose(some.scores(2.0), every.scores(2.0)[here], atol=1e-12)


def test_a_piece_of_sound_is_asked_about_once_and_answered_the_same() -> None:
    counting = CountingEngine(ScriptedVoice())
    remembering = Remembering(counting)
    rng = np.random.default_rng(0)
    one, other = (rng.normal(0, 0.1, (1, PIECES.length)).astype(np.float32) for _ in range(2))
    still, loud = np.zeros((1, 64), np.float32), np.ones((1, 64), np.float32)
    first = remembering.infer({"samples": one, "mean": still, "istd": loud})
    both = remembering.infer(
        {"samples": np.concatenate([one, other]), "mean": still.repeat(2, 0), "istd": loud.repeat(2, 0)}
    )
    assert sum(counting.batches) == 2
    np.testing.assert_array_equal(both["logits"][:1], first["logits"])
    remembering.infer({"samples": one, "mean": loud, "istd": loud})
    assert sum(counting.batches) == 3
