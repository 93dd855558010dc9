"""Which guessed words are believed, and which of Whisper's inventions nobody ever sees."""

from __future__ import annotations

import pytest

from liveaffect.engines.protocol import HeardWords, TimedWord
from liveaffect.realtime.utterance import Agreement, plausible, said, without_loops


def words(text: str, *, each_s: float = 0.3, begin_s: float = 0.0) -> tuple[TimedWord, ...]:
    return tuple(
        TimedWord(f" {word}", begin_s + at * each_s, begin_s + (at + 1) * each_s)
        for at, word in enumerate(text.split())
    )


def heard(text: str, *, sureness: float = -0.2, silence: float = 0.05, each_s: float = 0.3) -> HeardWords:
    return HeardWords(words(text, each_s=each_s), sureness, silence, "en")


def test_a_word_is_believed_when_two_guesses_agree_on_it_and_on_all_before_it() -> None:
    agreement = Agreement()
    agreement.take(words("kids are tired"), 2.0)
    assert said(agreement.believed) == ""
    agreement.take(words("Kids are, talking by"), 2.0)
    assert said(agreement.believed) == "Kids are,"
    assert said(agreement.guess) == "talking by"
    agreement.take(words("Kids are talking by the door"), 3.0)
    assert said(agreement.believed) == "Kids are, talking by"


def test_a_word_at_the_cut_is_not_believed_however_often_it_is_guessed() -> None:
    agreement = Agreement()
    for _ in range(3):
        agreement.take(words("half of a wo"), 1.25)
    assert said(agreement.guess).endswith("wo")
    assert "wo" not in said(agreement.believed).split()


def test_in_a_pause_everything_is_believed_and_what_was_wrong_is_corrected() -> None:
    agreement = Agreement()
    agreement.take(words("the docks are"), 2.0)
    agreement.take(words("the docks are sitting"), 3.0)
    agreement.settle(words("dogs are sitting by the door"))
    assert said(agreement.believed) == "dogs are sitting by the door"
    assert agreement.guess == ()


def test_words_whose_sound_is_left_behind_are_handed_out_and_the_rest_move() -> None:
    agreement = Agreement()
    agreement.settle(words("one two three four"))
    left = agreement.leave_behind(2, 0.6)
    assert said(left) == "one two"
    assert said(agreement.believed) == "three four"
    assert agreement.believed[0].begin_s == pytest.approx(0.0)


@pytest.mark.parametrize(
    "text", ["Thank you.", "you", "Thanks for watching!", "Bye. Bye.", "Thank you so much"]
)
def test_what_whisper_writes_in_silence_is_not_shown(text: str) -> None:
    assert plausible(heard(text, sureness=-0.6, silence=0.5), 1.0) == ()
    assert plausible(heard(text), 0.2) == ()


def test_a_clear_thank_you_is_shown() -> None:
    assert said(plausible(heard("Thank you"), 0.8)) == "Thank you"


def test_a_guess_that_is_unsure_or_likely_silence_is_dropped() -> None:
    assert plausible(heard("concert of the", sureness=-2.0), 1.0) == ()
    assert plausible(heard("so we go", sureness=-0.7, silence=0.8), 1.0) == ()


def test_the_beginning_said_again_in_no_time_is_taken_out() -> None:
    sentence = words("dogs are sitting by the door")
    again = words("dogs are", each_s=0.0, begin_s=1.8)
    assert said(
        without_loops((*sentence, *words("dogs are sitting by the door", each_s=0.01, begin_s=1.8)))
    ) == (said(sentence))
    found = plausible(HeardWords((*sentence, *again), -0.1, 0.0, "en"), 2.0)
    assert said(found) == said(sentence)


def test_a_phrase_that_is_really_said_twice_stays() -> None:
    assert len(without_loops(words("no no I said no no I said"))) == 8


def test_a_loop_is_cut_at_its_third_round() -> None:
    assert len(without_loops(words("and asked and asked and asked and asked"))) == 4


def test_nobody_says_twenty_words_in_a_second() -> None:
    text = " ".join(f"w{at}" for at in range(20))
    assert len(plausible(heard(text, each_s=0.06), 1.0)) == 7
