"""The overlay is a pure function: same view, same bits; no face is ever covered; what is old vanishes."""

from __future__ import annotations

import itertools
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engines.recipe import LABELS
from realtime.cue import NOT_SURE
from realtime.drawing import glyphs, paint, panels, signs
from realtime.drawing.glyphs import BOLD, REGULAR, fit_text, plain, text_mask, text_width_px, wrap_text
from realtime.drawing.paint import LABEL_COLOURS, PANEL, PANEL_COVER, QUIET, Canvas, Colour, paste
from realtime.drawing.panels import Measures
from realtime.drawing.placing import FORMS, Guest, Room, face_room, overlap, seat_all
from realtime.drawing.strokes import STROKES
from realtime.overlay import Layout, Mark, Seat, View, draw, lay_out, strength
from realtime.testing import scenes
from realtime.testing.golden import GOLDEN, Picture, difference, load, save

FOLDER = Path(__file__).resolve().parent / "golden"
LIMIT_BYTES = 400_000


# The kept pictures.


@pytest.mark.parametrize("name", GOLDEN)
def test_a_scene_is_drawn_exactly_as_it_was_blessed(name: str) -> None:
    got, want = GOLDEN[name](), load(FOLDER / f"{name}.png")
    if np.array_equal(got, want):
        return
    folder = Path(tempfile.mkdtemp(prefix=f"overlay-{name}-"))
    for what, picture in (("got", got), ("want", want), ("difference", difference(got, want))):
        save(folder / f"{what}.png", picture)
    pytest.fail(
        f"'{name}' is drawn otherwise than before: see got, want and difference in {folder}. "
        f"If it is right: python tests/golden/bless.py {name}"
    )


def test_every_kept_picture_belongs_to_a_scene_and_all_are_small() -> None:
    kept = list(FOLDER.glob("*.png"))
    assert {path.stem for path in kept} == set(GOLDEN)
    assert sum(path.stat().st_size for path in kept) <= LIMIT_BYTES


def test_a_single_pixel_that_differs_is_found() -> None:
    want = scenes.background(40, 30)
    got = want.copy()
    got[7, 9, 1] ^= 1
    assert (difference(got, want)[7, 9] == 255).all()
    assert (difference(got, want) == 255).all(axis=-1).sum() == 1


# Purity.


def test_drawing_leaves_the_frame_alone_and_answers_a_new_array() -> None:
    view = scenes.crowd(320, 240, 2)
    before = view.frame.image.copy()
    picture = draw(view)
    assert np.array_equal(view.frame.image, before)
    assert not np.shares_memory(picture, view.frame.image)
    assert picture.shape == before.shape
    assert picture.flags.writeable


def test_the_same_view_gives_the_same_bits_whatever_is_remembered() -> None:
    view = scenes.crowd(640, 480, 4, "busy")
    warm = [draw(view), draw(view)]
    for module in (glyphs, paint, panels, signs):
        for thing in vars(module).values():
            if hasattr(thing, "cache_clear"):
                thing.cache_clear()
    assert all(np.array_equal(picture, draw(view)) for picture in warm)


def test_mirroring_mirrors_the_picture_and_the_places_but_not_the_text() -> None:
    view = scenes.crowd(640, 480, 2)
    image = np.ascontiguousarray(view.frame.image[:, ::-1])
    turned = tuple(replace(mark, box=(640 - mark.box[0] - mark.box[2], *mark.box[1:])) for mark in view.marks)
    by_hand = replace(view, frame=scenes.frame(image), marks=turned)
    assert np.array_equal(draw(replace(view, mirrored=True)), draw(by_hand))


# Where things stand.

sides = st.integers(1, 400)
boxes = st.tuples(st.integers(-150, 700), st.integers(-150, 500), sides, sides)
sizes = st.sampled_from([(160, 120), (320, 240), (640, 480), (480, 640), (1280, 720)])


@st.composite
def crowds(drawn: st.DrawFn) -> View:
    width, height = drawn(sizes)
    marks = []
    for track, box in enumerate(drawn(st.lists(boxes, max_size=6))):
        reason = drawn(st.none() | st.sampled_from(["face too small", "face and voice disagree today"]))
        said = scenes.cue(
            NOT_SURE if reason else drawn(st.sampled_from(LABELS)),
            track=track,
            speaking=drawn(st.booleans()),
            reason=reason,
        )
        age = drawn(st.sampled_from([None, 0, 501, 640, 2000]))
        made = scenes.mark(box, drawn(st.sampled_from([said, said, None])), face_age_ms=age)
        marks.append(replace(made, track=track))
    notices = drawn(st.sampled_from([(), ("starting",), ("camera:0 lost; trying again", "no sound")]))
    return View(
        frame=scenes.frame(np.full((height, width, 3), 90, np.uint8)),
        marks=tuple(marks),
        health=scenes.health(),
        nobody=drawn(st.sampled_from([None, scenes.cue("sad", track=None)])),
        voice_level=drawn(st.floats(0, 1)),
        history=drawn(st.sampled_from([(), scenes.history()])),
        notices=notices,
        mirrored=drawn(st.booleans()),
    )


def on_picture(view: View, mark: Mark) -> tuple[int, int, int, int]:
    x, y, w, h = (round(v) for v in mark.box)
    return (view.frame.size[0] - x - w if view.mirrored else x), y, w, h


def in_the_box(layout: Layout) -> set[tuple[int, int, int, int]]:
    """Panels that stand in a corner of their own box because a face fills the picture."""
    panels_only = [piece.rect for piece in layout.pieces if piece.what == "panel"]
    return {rect for seat, rect in zip(layout.seats, panels_only, strict=True) if seat.side == "inside"}


@given(crowds())
@settings(max_examples=120, deadline=None)
def test_nothing_but_a_notice_without_any_room_ever_stands_on_a_face(view: View) -> None:
    layout = lay_out(view)
    faces = [on_picture(view, mark) for mark in view.marks]
    inside = in_the_box(layout)
    for piece in layout.pieces:
        if piece.what == "notices" or piece.rect in inside:
            continue
        assert not any(overlap(piece.rect, face) for face in faces), piece.what


@given(crowds())
@settings(max_examples=60, deadline=None)
def test_even_a_label_within_a_box_leaves_the_face_in_it_free(view: View) -> None:
    layout = lay_out(view)
    faces = {mark.track: on_picture(view, mark) for mark in view.marks}
    panels_only = [piece.rect for piece in layout.pieces if piece.what == "panel"]
    for seat, rect in zip(layout.seats, panels_only, strict=True):
        others = [face for track, face in faces.items() if track != seat.track]
        assert not any(overlap(rect, face_room(face)) for face in others)
        if seat.side == "inside":
            x, y, w, h = faces[seat.track]
            corners = itertools.product((rect[0], rect[0] + rect[2]), (rect[1], rect[1] + rect[3]))
            reach = [
                ((px - x - w / 2) / (w / 2)) ** 2 + ((py - y - h / 2) / (h / 2)) ** 2 for px, py in corners
            ]
            assert min(reach) > 1


@given(crowds())
@settings(max_examples=120, deadline=None)
def test_panels_lie_within_the_picture_and_never_on_each_other(view: View) -> None:
    width, height = view.frame.size
    pieces = [piece for piece in lay_out(view).pieces if piece.what != "sources"]
    for piece in pieces:
        x, y, w, h = piece.rect
        if piece.what != "notices":
            assert x >= 0
            assert y >= 0
            assert x + w <= width
            assert y + h <= height
    for a, b in itertools.combinations(pieces, 2):
        if "notices" not in (a.what, b.what):
            assert not overlap(a.rect, b.rect), (a.what, b.what)


@given(st.integers(1, 90), st.integers(1, 90), st.lists(boxes, max_size=2))
@settings(max_examples=60, deadline=None)
def test_pictures_too_small_for_any_text_are_drawn_all_the_same(
    width: int, height: int, where: list[tuple[int, int, int, int]]
) -> None:
    view = View(
        frame=scenes.frame(np.zeros((height, width, 3), np.uint8)),
        marks=tuple(scenes.mark(box, scenes.cue("happy", track=i)) for i, box in enumerate(where)),
        health=scenes.health(),
        history=scenes.history(),
        notices=("camera:0 lost; trying again",),
    )
    assert draw(view).shape == (height, width, 3)


@pytest.mark.parametrize(("size", "count", "form"), [
    ((640, 480), 1, "full"),
    ((1280, 720), 1, "full"),
    ((1920, 1080), 4, "full"),
    ((320, 240), 1, "bars"),
    ((640, 480), 4, "slim"),
    ((640, 480), 9, "label"),
    ((320, 240), 9, "label"),
])  # fmt: skip
def test_panels_shrink_with_the_room_and_equal_faces_get_equal_panels(
    size: tuple[int, int], count: int, form: str
) -> None:
    seats = lay_out(scenes.crowd(*size, count)).seats
    assert [seat.form for seat in seats] == [form] * count


def test_one_person_in_front_gets_the_bars_and_those_behind_a_label() -> None:
    view = scenes.crowd(640, 480, 9)
    front = replace(view.marks[4], box=(230, 150, 160, 160))
    layout = lay_out(replace(view, marks=(*view.marks[:4], front, *view.marks[5:])))
    forms = {seat.track: seat.form for seat in layout.seats}
    assert forms.pop(front.track) in ("full", "bars", "slim")
    assert set(forms.values()) == {"label"}


def test_a_face_at_the_limit_does_not_make_its_panel_jump() -> None:
    """Moved to and fro by two pixels anywhere along the picture, the panel stays where it was."""

    view = scenes.crowd(640, 480, 1)

    def at(x: int) -> View:
        return replace(view, marks=(replace(view.marks[0], box=(x, 150, 140, 140)),), voice_level=0.0)

    def jumps(x: int, *, handed_on: bool) -> int:
        seats = lay_out(at(x)).seats
        count = 0
        for step in range(1, 7):
            after = lay_out(at(x + 2 * (step % 2)), seats if handed_on else ()).seats
            count += after != seats
            seats = after
        return count

    places = range(0, 500, 3)
    assert max(jumps(x, handed_on=False) for x in places) == 6, "no limit was found: the test tests nothing"
    assert max(jumps(x, handed_on=True) for x in places) <= 1


def test_a_panel_at_the_limit_of_two_forms_does_not_change_to_and_fro() -> None:
    """A face so tall that panels fit only beside it moves a pixel sideways where the room gets tight."""
    view = scenes.crowd(640, 480, 1)

    def at(x: int) -> View:
        return replace(view, marks=(replace(view.marks[0], box=(x, 40, 400, 400)),), history=())

    def forms(x: int, seats: tuple[Seat, ...] = ()) -> tuple[tuple[Seat, ...], list[str]]:
        seats = lay_out(at(x), seats).seats
        return seats, [seat.form for seat in seats]

    tight = [x for x in range(20, 220) if forms(x)[1] != forms(x + 1)[1]]
    assert tight, "no limit was found: the test tests nothing"
    for x in tight:
        seats, shown = forms(x)
        changes = 0
        for step in range(8):
            seats, after = forms(x + 1 - step % 2, seats)
            changes += after != shown
            shown = after
        assert changes <= 1


def test_where_a_face_fills_the_picture_only_a_label_that_leaves_it_free_is_put_into_its_box() -> None:
    def seated(name: tuple[int, int]) -> list[str]:
        sizes = dict.fromkeys(FORMS, (99, 99)) | {"name": name}
        room = Room(100, 100, 0, [face_room((0, 0, 100, 100))])
        return [seat.side for seat, _ in seat_all([Guest(1, (0, 0, 100, 100), sizes)], room, 4)]

    assert seated((20, 8)) == ["inside"]
    assert seated((40, 30)) == []


# Ages.


def test_a_reading_is_full_until_it_expires_then_fades_and_is_gone() -> None:
    assert strength(None, 500) == 0
    assert strength(0, 500) == strength(500, 500) == 256
    fading = [strength(500 + ms, 500) for ms in range(0, 260, 10)]
    assert fading == sorted(fading, reverse=True)
    assert 0 < fading[12] < 256
    assert fading[-1] == strength(10**9, 500) == 0


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
    assert [seat.form for seat in shown.seats] == ["full"]
    assert not np.array_equal(without(view, 900, 300), without(view, 90, 300)), "the face's age must go"


def test_not_sure_without_any_evidence_is_said_with_its_reason() -> None:
    view = scenes.crowd(640, 480, 1)
    said = scenes.cue(NOT_SURE, confidence=0.2, reason="little evidence")
    mark = replace(view.marks[0], cue=said, face_age_ms=None, voice_age_ms=None)
    silent = replace(said, reason=None)
    assert len(lay_out(replace(view, marks=(mark,))).seats) == 1
    assert not np.array_equal(
        draw(replace(view, marks=(mark,))), draw(replace(view, marks=(replace(mark, cue=silent),)))
    )


# The voice.


def piece_of(layout: Layout, what: str) -> list[tuple[int, int, int, int]]:
    return [piece.rect for piece in layout.pieces if piece.what == what]


def test_the_meter_stands_at_the_speaker_and_at_the_edge_when_nobody_in_view_speaks() -> None:
    view = scenes.crowd(640, 480, 4)
    (at_speaker,) = piece_of(lay_out(view), "meter")
    x, y, w, h = on_picture(view, view.marks[1])
    assert at_speaker[1] - (y + h) in range(20)
    assert abs(at_speaker[0] + at_speaker[2] / 2 - (x + w / 2)) <= 1
    silent = tuple(
        replace(mark, cue=replace(mark.cue, speaking=False)) for mark in view.marks if mark.cue is not None
    )
    layout = lay_out(replace(view, marks=silent, nobody=scenes.cue("angry", track=None)))
    (at_edge,) = piece_of(layout, "meter")
    assert at_edge[0] == layout.measures.gap
    assert len(piece_of(layout, "nobody")) == 1


def test_more_voice_lights_more_of_the_meter() -> None:
    view = replace(scenes.crowd(640, 480, 1), history=())
    green = [
        int((draw(replace(view, voice_level=level)) == paint.GOOD).all(axis=-1).sum())
        for level in (0.0, 0.25, 0.5, 0.75)
    ]
    assert green == sorted(set(green))


# Legibility.

BLIND = {
    "protan": ((0.152, 1.053, -0.205), (0.115, 0.786, 0.099), (-0.004, -0.048, 1.052)),
    "deutan": ((0.367, 0.861, -0.228), (0.280, 0.673, 0.047), (-0.012, 0.043, 0.969)),
    "tritan": ((1.256, -0.077, -0.179), (-0.078, 0.931, 0.148), (0.005, 0.691, 0.304)),
    "none": ((1, 0, 0), (0, 1, 0), (0, 0, 1)),
}
"""What is left of linear RGB without one kind of cone (Machado and others, 2009, severity 1)."""


def linear(colour: Colour) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    value = np.array(colour) / 255
    return np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)


def luminance(colour: Colour) -> float:
    return float(linear(colour) @ (0.2126, 0.7152, 0.0722))


def lab(colour: Colour, kind: str) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    seen = np.clip(np.array(BLIND[kind]) @ linear(colour), 0, 1)
    xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]) @ seen
    x, y, z = np.cbrt(xyz / (0.9505, 1.0, 1.089))
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


@pytest.mark.parametrize("kind", BLIND)
def test_the_colours_of_the_seven_labels_differ_with_every_kind_of_colour_vision(kind: str) -> None:
    for a, b in itertools.combinations(LABELS, 2):
        apart = float(np.linalg.norm(lab(LABEL_COLOURS[a], kind) - lab(LABEL_COLOURS[b], kind)))
        assert apart >= 10, f"{a} and {b} are {apart:.1f} apart"


@pytest.mark.parametrize("behind", [(255, 255, 255), (0, 0, 0), (255, 255, 0)])
def test_text_and_bars_stand_out_from_a_panel_on_any_picture(behind: Colour) -> None:
    picture = np.full((40, 40, 3), behind, np.uint8)
    canvas = Canvas(30, 30)
    canvas.plate(0)
    paste(picture, canvas.sprite(), 5, 5)
    r, g, b = (int(v) for v in picture[20, 20])
    ground = luminance((r, g, b))
    for name, colour in {**LABEL_COLOURS, "quiet text": QUIET}.items():
        assert (luminance(colour) + 0.05) / (ground + 0.05) >= 3, name


@pytest.mark.parametrize("size", [(160, 120), (320, 240), (640, 480), (1280, 720), (3840, 2160)])
def test_text_is_never_smaller_than_seven_pixels_and_grows_with_the_picture(size: tuple[int, int]) -> None:
    m = Measures.of(*size)
    assert m.cap >= 7
    assert m.head >= 8
    assert m.cap >= min(size[0] / 640, size[1] / 480) * 6


# Text.


@given(st.text(max_size=40), st.integers(7, 30), st.sampled_from([REGULAR, BOLD]))
@settings(max_examples=60, deadline=None)
def test_any_text_has_a_mask_in_range_and_only_characters_that_have_strokes(
    text: str, cap_px: int, weight: float
) -> None:
    mask = text_mask(text, cap_px, weight)
    assert int(mask.max(initial=0)) <= 256
    assert all(char in STROKES or char == "\ufffd" for char in plain(text))


def test_accents_are_dropped_and_unknown_characters_become_a_box() -> None:
    assert plain("Büro\tcafé") == "Buro cafe"
    assert plain("日") == "\ufffd"
    assert text_mask("日", 8).any()


def test_every_character_that_is_not_a_space_leaves_ink_and_no_two_small_letters_look_alike() -> None:
    seen: dict[bytes, str] = {}
    for char in "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789":
        ink = text_mask(char, 7)
        assert ink.any(), char
        key = ink.tobytes() + bytes(ink.shape)
        assert key not in seen, f"{char} looks like {seen.get(key)}"
        seen[key] = char


@given(st.text("abc defgh", max_size=60), st.integers(0, 200), st.integers(1, 4))
@settings(max_examples=80, deadline=None)
def test_fitted_and_wrapped_text_keeps_to_its_width(text: str, width: int, lines: int) -> None:
    assert text_width_px(fit_text(text, width, 8), 8) <= max(width, 1)
    wrapped = wrap_text(text, width, 8, lines=lines)
    assert len(wrapped) <= lines
    assert all(text_width_px(part, 8) <= max(width, 1) for part in wrapped)


# Blending.


@given(st.integers(-12, 24), st.integers(-12, 24))
def test_a_sprite_beyond_the_edge_is_cut_and_nothing_else_changes(x: int, y: int) -> None:
    picture = np.full((16, 16, 3), 77, np.uint8)
    canvas = Canvas(10, 10)
    canvas.fill(0, 0, 10, 10, (200, 10, 30))
    paste(picture, canvas.sprite(), x, y)
    inside = (picture == (200, 10, 30)).all(axis=-1)
    assert inside.sum() == max(0, min(16, x + 10) - max(0, x)) * max(0, min(16, y + 10) - max(0, y))
    assert (picture[~inside] == 77).all()


@given(st.integers(0, 255), st.integers(0, 256))
def test_nothing_painted_changes_nothing_and_full_cover_gives_the_exact_colour(
    level: int, cover: int
) -> None:
    picture = np.full((4, 4, 3), level, np.uint8)
    paste(picture, Canvas(4, 4).sprite(), 0, 0)
    assert (picture == level).all()
    canvas = Canvas(4, 4)
    canvas.stamp(0, 0, np.full((4, 4), cover, np.uint16), PANEL)
    paste(picture, canvas.sprite(), 0, 0)
    wanted = [level * (256 - cover) / 256 + c * cover / 256 for c in PANEL]
    assert np.abs(picture[0, 0] - np.array(wanted)).max() <= 1
    assert PANEL_COVER > 192, "less would leave text on white hard to read"
