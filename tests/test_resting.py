"""A face is measured by its own rest: small smiles are seen, lasting ones are never taken for rest."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from liveaffect.engines.recipe import LABELS
from liveaffect.realtime.clock import MS, SECOND
from liveaffect.realtime.expression import (
    ANYBODY,
    FACE,
    FULL,
    MOST_RAISED,
    USUAL,
    Evidence,
    Memory,
    Pooled,
    Rest,
)

FRAME_NS = 100 * MS
"""Ten pictures a second, so that ten minutes are soon over."""
HAPPY, SAD = LABELS.index("happy"), LABELS.index("sad")


def odds(**against_neutral: float) -> NDArray[np.float32]:
    """Logits of a look; what is not named stands far below neutral."""
    return np.asarray(
        [
            FACE.temperature * against_neutral.get(label, 0.0 if label == "neutral" else -6.0)
            for label in LABELS
        ],
        np.float32,
    )


class Person:
    """A face that is looked at with every picture."""

    def __init__(self) -> None:
        self.rest = Rest(FACE.temperature)
        self._memory = Memory(FACE, rest=self.rest)
        self._looks = 0

    def shows(self, said: NDArray[np.float32], seconds: float) -> NDArray[np.float64]:
        """What is shown at the end."""
        for _ in range(round(seconds * SECOND / FRAME_NS)):
            self._memory.add(Evidence(self._looks * FRAME_NS, np.zeros(2, np.float32), said, 0.0), FRAME_NS)
            self._looks += 1
        raised = self.believed().logits.astype(np.float64) / FACE.temperature
        powers = np.exp(raised - raised.max())
        return np.asarray(powers / powers.sum())

    def believed(self) -> Pooled:
        pooled = self._memory.read()
        assert pooled is not None
        return pooled[0]


REST, MILD, STRONG = odds(happy=-5.5), odds(happy=-1.5), odds(happy=4.0)


def test_a_small_smile_is_named_on_a_face_whose_rest_is_known_and_on_no_other() -> None:
    stranger, known = Person(), Person()
    assert stranger.shows(MILD, 0.2).argmax() == 0
    known.shows(REST, 4.0)
    assert known.shows(MILD, 1.0).argmax() == HAPPY


def test_rest_stays_neutral_whatever_it_looks_like() -> None:
    for label in LABELS[1:]:
        for height in (-9.0, -4.0, -1.0):
            at_rest = Person().shows(odds(**{label: height}), 8.0)
            assert at_rest.argmax() == 0
            assert at_rest[0] > 0.6


@pytest.mark.parametrize("smile", [MILD, STRONG])
def test_somebody_who_smiles_for_ten_minutes_stays_happy(smile: NDArray[np.float32]) -> None:
    person = Person()
    person.shows(REST, 4.0)
    at_once = person.shows(smile, 1.0)[HAPPY]
    assert person.shows(smile, 600.0)[HAPPY] >= at_once - 0.01
    assert person.shows(REST, 1.0).argmax() == 0


def test_somebody_who_smiles_from_the_first_picture_on_stays_happy_too() -> None:
    person = Person()
    assert person.shows(STRONG, 600.0).argmax() == HAPPY
    assert person.rest.seen_s == 0.0


def test_a_face_that_looks_a_little_sad_at_rest_is_not_called_sad_for_being_tired_of_it() -> None:
    sad_at_rest = odds(sad=-0.7)
    known = Person()
    known.shows(sad_at_rest, 5.0)
    assert known.shows(odds(sad=0.6), 1.0).argmax() == 0
    assert known.shows(odds(sad=4.0), 1.0).argmax() == SAD


def test_one_second_of_rest_is_worth_having_and_a_moment_is_not() -> None:
    trusts = []
    for seconds in (0.1, 1.0, 5.0):
        person = Person()
        person.shows(REST, seconds)
        trusts.append(person.rest.trust)
    assert trusts[0] < 0.3 < 0.6 < trusts[1] < trusts[2] < 1.0


def test_rest_is_learnt_of_the_face_as_it_is_and_not_as_it_was_corrected() -> None:
    person = Person()
    person.shows(REST, 60.0)
    shift = person.rest.taken_out(np.zeros(7, np.float32)) / FACE.temperature
    assert shift[HAPPY] == pytest.approx(
        min(-USUAL + 5.5, MOST_RAISED["happy"]) * person.rest.trust, abs=0.05
    )
    assert shift[0] == 0.0
    assert (shift[SAD:] <= 0.0).all()


def test_strength_goes_from_nothing_at_rest_to_one_at_a_full_smile() -> None:
    person = Person()
    person.shows(REST, 4.0)
    found = []
    for height in (-5.5, -2.0, 1.0, FULL, 9.0):
        person.shows(odds(happy=height), 1.5)
        found.append(person.rest.strength(person.believed())[HAPPY])
    assert found == sorted(found)
    assert found[0] < 0.1
    assert found[-1] == 1.0
    assert found[1] == pytest.approx((-2.0 + 5.5) / (FULL + 5.5), abs=0.05)


def test_the_strength_of_a_stranger_is_counted_from_everybody_s_rest() -> None:
    person = Person()
    person.shows(STRONG, 0.5)
    way = person.rest.strength(person.believed())
    assert way[HAPPY] == pytest.approx((4.0 - ANYBODY) / (FULL - ANYBODY), abs=0.02)
    assert way[0] == 0.0
