"""A reading counts fully, then less in a straight line, then nothing; nobody else has a law of ages."""

from __future__ import annotations

import pytest

from liveaffect.realtime.clock import MS, SECOND
from liveaffect.realtime.cue import FACE, VOICE, Lifetime, age_ns


def test_weights_go_down_in_a_straight_line_and_stay_at_nothing() -> None:
    face = [FACE.share(age * MS) for age in (0, 300, 350, 400, 450, 500, 900)]
    assert face == pytest.approx([1, 1, 0.75, 0.5, 0.25, 0, 0])
    assert FACE.share(-50 * MS) == 1.0
    assert FACE.share(None) == 0.0


@pytest.mark.parametrize("lifetime", [FACE, VOICE])
def test_what_counts_nothing_does_not_hold(lifetime: Lifetime) -> None:
    assert lifetime.holds(lifetime.expires_ns - 1)
    assert not lifetime.holds(lifetime.expires_ns)
    assert not lifetime.holds(None)


def test_an_age_is_never_negative_and_without_evidence_there_is_none() -> None:
    assert age_ns(SECOND, 0) == SECOND
    assert age_ns(0, SECOND) == 0
    assert age_ns(SECOND, None) is None


def test_what_expires_before_it_fades_is_refused() -> None:
    with pytest.raises(ValueError, match="fades before it expires, got 600 and 500 ms"):
        Lifetime(600 * MS, 500 * MS)
