"""Readings fade and vanish when they are too old; the meter stands at who speaks."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from liveaffect.realtime.cue import FACE, NOT_SURE, Caption
from liveaffect.realtime.drawing import canvas
from liveaffect.realtime.overlay import OverlayLayout, View, draw, lay_out, opacity
from liveaffect.realtime.testing import scenes
from liveaffect.realtime.testing.scenes import Picture

# Ages.


def test_a_reading_is_full_until_it_fades_then_less_and_gone_when_it_expires() -> None:
    assert opacity(None, FACE) == 0
    assert opacity(0, FACE) == opacity(300, FACE) == 256
    fading = [opacity(300 + ms, FACE) for ms in range(0, 210, 10)]
    assert fading == sorted(fading, reverse=True)
    assert 0 < fading[12] < 256
    assert fading[-1] == opacity(10**9, FACE) == 0


def test_a_strong_expression_is_underlined_further_than_a_weak_one_and_a_neutral_face_not_at_all() -> None:
    view = replace(scenes.crowd(640, 480, 1), history=())

    def drawn(label: str, strength: float | None) -> Picture:
        said = replace(scenes.cue(label), strength=strength)
        return draw(replace(view, marks=(replace(view.marks[0], cue=said),)))

    ink = [int((drawn("happy", way) != drawn("happy", None)).any(axis=-1).sum()) for way in (0.2, 0.5, 1.0)]
    assert 0 < ink[0] < ink[1] < ink[2]
    assert np.array_equal(drawn("neutral", 0.0), drawn("neutral", None))


def without(view: View, age: int | None, voice: int | None) -> Picture:
    marks = (replace(view.marks[0], face_age_ms=age, voice_age_ms=voice),)
    return draw(replace(view, marks=marks, voice_level=0.0))


@pytest.mark.parametrize(("face", "voice"), [(800, None), (10_000, 2_300), (None, 60_000)])
def test_an_emotion_whose_readings_are_all_too_old_is_no_longer_shown(
    face: int | None, voice: int | None
) -> None:
    view = scenes.crowd(640, 480, 1)
    nothing_said = draw(replace(view, marks=(replace(view.marks[0], cue=None),), voice_level=0.0))
    assert np.array_equal(without(view, face, voice), nothing_said)
    assert not np.array_equal(without(view, 40, None), nothing_said)


def test_a_fresh_voice_keeps_the_emotion_of_a_face_that_is_no_longer_seen() -> None:
    view = scenes.crowd(640, 480, 1)
    shown = lay_out(replace(view, marks=(replace(view.marks[0], face_age_ms=900, voice_age_ms=300),)))
    assert [place.form for place in shown.places] == ["full"]
    assert not np.array_equal(without(view, 900, 300), without(view, 90, 300)), "the face's age must go"


def test_not_sure_without_any_evidence_is_said_with_its_reason() -> None:
    view = scenes.crowd(640, 480, 1)
    said = scenes.cue(NOT_SURE, confidence=0.2, reason="little evidence")
    mark = replace(view.marks[0], cue=said, face_age_ms=None, voice_age_ms=None)
    silent = replace(said, reason=None)
    assert len(lay_out(replace(view, marks=(mark,))).places) == 1
    assert not np.array_equal(
        draw(replace(view, marks=(mark,))), draw(replace(view, marks=(replace(mark, cue=silent),)))
    )


# The voice.


def piece_of(layout: OverlayLayout, what: str) -> list[tuple[int, int, int, int]]:
    return [piece.rect for piece in layout.sprites if piece.what == what]


def test_the_meter_stands_at_the_speaker_and_at_the_edge_when_nobody_in_view_speaks() -> None:
    view = scenes.crowd(640, 480, 4)
    (at_speaker,) = piece_of(lay_out(view), "meter")
    x, y, w, h = (round(v) for v in view.marks[1].box)
    assert at_speaker[1] - (y + h) in range(20)
    assert abs(at_speaker[0] + at_speaker[2] / 2 - (x + w / 2)) <= 1
    silent = tuple(
        replace(mark, cue=replace(mark.cue, speaking=False)) for mark in view.marks if mark.cue is not None
    )
    layout = lay_out(replace(view, marks=silent, nobody=scenes.cue("angry", track=None)))
    (at_edge,) = piece_of(layout, "meter")
    assert at_edge[0] == layout.measures.gap
    assert len(piece_of(layout, "nobody")) == 1


def test_what_a_speaker_says_stands_at_their_face_beyond_the_meter() -> None:
    """A face near the lower edge leaves room over it alone, and the meter takes the first of it."""
    view = scenes.crowd(640, 480, 1)
    mark = replace(view.marks[0], box=(260.0, 330.0, 140.0, 140.0))
    said = (Caption("camera:0", mark.track, "place white in j three", " please"),)
    layout = lay_out(replace(view, marks=(mark,), captions=said, history=()))
    (at_speaker,), (caption,) = piece_of(layout, "meter"), piece_of(layout, "caption")
    assert at_speaker[1] < 330, "the meter should stand over the face here"
    assert at_speaker[1] - layout.measures.gap - caption[3] - 2 <= caption[1] < at_speaker[1]
    assert abs(caption[0] + caption[2] / 2 - 330) <= 1


def test_more_voice_lights_more_of_the_meter() -> None:
    view = replace(scenes.crowd(640, 480, 1), history=())
    green = [
        int((draw(replace(view, voice_level=level)) == canvas.GOOD).all(axis=-1).sum())
        for level in (0.0, 0.25, 0.5, 0.75)
    ]
    assert green == sorted(set(green))
