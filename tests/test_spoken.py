"""Words stand at whoever said them, count for a while, and are gone with the person."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from liveaffect.engines.recipe import LABELS, SUBSETS
from liveaffect.realtime.attribution import Voice
from liveaffect.realtime.clock import MS, SECOND
from liveaffect.realtime.estimate import (
    WORDS_GAIN,
    Estimate,
    Labeller,
    Opinion,
    Reason,
    SpokenOpinion,
    softmax,
)
from liveaffect.realtime.expression import Pooled
from liveaffect.realtime.networks import spoken_opinion
from liveaffect.realtime.spoken import SpokenWords
from liveaffect.realtime.utterance import Utterance, Word

HAPPY = tuple(6.0 if label == "happy" else 0.0 for label in LABELS)
NEUTRAL = tuple(6.0 if label == "neutral" else 0.0 for label in LABELS)


def judge(text: str) -> tuple[float, ...]:
    return HAPPY if "glad" in text else NEUTRAL


def utterance(
    text: str, begin_ns: int, *, number: int = 1, guess: str = "", language: str = "en"
) -> Utterance:
    step = 300 * MS
    texts = [(word, True) for word in text.split()] + [(word, False) for word in guess.split()]
    words = tuple(
        Word(f" {word}", begin_ns + at * step, begin_ns + (at + 1) * step, final)
        for at, (word, final) in enumerate(texts)
    )
    return Utterance("mic", number, words, False, words[-1].end_ns, language)


def voice(track: int | None) -> Voice:
    return Voice("nobody in view" if track is None else "track", track, 1.0)


def run(
    spoken: SpokenWords, owners: Sequence[int | None], forms: dict[int, Utterance], begin: int = 0
) -> int:
    """One grid point of 100 ms for each owner; `forms` come at the point of that number."""
    now_ns = 0
    for at, owner in enumerate(owners, start=begin):
        now_ns = at * 100 * MS
        spoken.hear(now_ns, voice(owner), [forms[at]] if at in forms else [])
    return now_ns


def test_words_stand_at_the_person_whose_voice_it_was() -> None:
    spoken = SpokenWords("mic", judge)
    now_ns = run(
        spoken,
        [1] * 12 + [2] * 14,
        {11: utterance("I am glad", 0), 25: utterance("so is he", 1300 * MS, number=2)},
    )
    assert {(caption.track, caption.text) for caption in spoken.captions(now_ns)} == {
        (1, "I am glad"),
        (2, "so is he"),
    }
    told = spoken.evidence(1, now_ns)
    assert told is not None
    assert tuple(told.logits) == HAPPY


def test_words_of_nobody_in_view_are_nobodys() -> None:
    spoken = SpokenWords("mic", judge)
    now_ns = run(spoken, [None] * 15, {12: utterance("I am glad", 0)})
    assert [caption.track for caption in spoken.captions(now_ns)] == [None]
    assert spoken.evidence(None, now_ns) is not None
    assert spoken.evidence(1, now_ns) is None


def test_a_guess_is_shown_pale_and_tells_nothing() -> None:
    spoken = SpokenWords("mic", judge)
    now_ns = run(spoken, [1] * 12, {8: utterance("I am", 0, guess="glad")})
    assert [(caption.text, caption.guess) for caption in spoken.captions(now_ns)] == [("I am", "glad")]
    told = spoken.evidence(1, now_ns)
    assert told is not None
    assert tuple(told.logits) == NEUTRAL


def test_captions_and_evidence_go_after_a_while() -> None:
    spoken = SpokenWords("mic", judge)
    run(spoken, [1] * 12, {11: utterance("I am glad", 0)})
    assert spoken.captions(4 * SECOND)
    assert not spoken.captions(6 * SECOND)
    assert spoken.evidence(1, 8 * SECOND) is None


def test_a_caption_goes_though_somebody_else_speaks_on_without_a_pause() -> None:
    spoken = SpokenWords("mic", judge)
    said = utterance("I am glad so is he and they are all of them still here to be heard", 0)
    now_ns = run(spoken, [1] * 9 + [2] * 45, {53: said})
    assert [caption.track for caption in spoken.captions(now_ns)] == [2]


def test_who_leaves_takes_their_words_along() -> None:
    spoken = SpokenWords("mic", judge)
    now_ns = run(spoken, [1] * 12, {11: utterance("I am glad", 0)})
    spoken.forget(1)
    assert spoken.evidence(1, now_ns) is None


def test_another_language_says_nothing_until_it_is_translated() -> None:
    spoken = SpokenWords("mic", lambda text: judge(text) if text else None)
    now_ns = run(spoken, [1] * 12, {11: utterance("glad is no German", 0, language="de")})
    assert spoken.evidence(1, now_ns) is None
    assert spoken.captions(now_ns)


def test_neutral_words_change_nothing_and_emotional_ones_fade() -> None:
    spoken = SpokenWords("mic", judge)
    now_ns = run(spoken, [1] * 12, {11: utterance("by the door", 0)})
    plain = spoken_opinion(spoken.evidence(1, now_ns), now_ns)
    assert plain is not None
    others = softmax(np.zeros(7))
    assert plain.weight == 0.0
    assert plain.joined(others) is others
    glad = SpokenWords("mic", judge)
    now_ns = run(glad, [1] * 12, {11: utterance("I am glad", 0)})
    leads = [
        opinion.lead
        for later_ns in (0, 2 * SECOND, 3 * SECOND, 5 * SECOND)
        if (opinion := spoken_opinion(glad.evidence(1, now_ns), now_ns + later_ns)) is not None
    ]
    assert leads[0] > 0.9
    assert leads == sorted(leads, reverse=True)
    assert leads[-1] < 0.5


@pytest.mark.parametrize("fresh", [1.0, 0.4])
def test_words_count_by_a_power_of_how_much_likelier_than_neutral_they_make_a_label(fresh: float) -> None:
    opinion, others = SpokenOpinion((0.2, 0.6, 0.1, 0.1, 0.0, 0.0, 0.0), fresh), (0.4, 0.1, *(0.1,) * 5)
    joined = opinion.joined(others)
    assert sum(joined) == pytest.approx(1.0)
    assert joined[1] / joined[0] == pytest.approx(0.25 * 3 ** (WORDS_GAIN * fresh))
    assert joined[2] / joined[0] == pytest.approx(0.25), "less likely than neutral is no evidence against"


@pytest.mark.parametrize(("label", "reason"), [("happy", None), ("sad", Reason.DISAGREEMENT)])
def test_an_answer_must_be_surer_where_words_tell_of_another_emotion(label: str, reason: str | None) -> None:
    logits = np.zeros((len(SUBSETS), len(LABELS)))
    logits[SUBSETS.index("face"), LABELS.index("happy")] = np.log(6)
    told = SpokenOpinion(softmax(np.array([6.0 * (one == label) for one in LABELS])))
    look = Pooled(np.zeros(64, np.float32), np.zeros(7, np.float32))
    estimate = Estimate(
        at_ns=0,
        track=1,
        face=Opinion(0, look, look),
        evidence_ns=SECOND,
        logits=logits,
        shares=tuple(float(subset == "face") for subset in SUBSETS),
        words=told,
    )
    assert Labeller().label(replace(estimate, words=None)).label == "happy"
    assert Labeller().label(estimate).reason == reason
