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

from liveaffect.engines.recipe import LABELS
from liveaffect.realtime.cue import NOT_SURE, Caption
from liveaffect.realtime.drawing import canvas, panels, signs, text
from liveaffect.realtime.drawing import text as fonts
from liveaffect.realtime.drawing.placer import FORMS, PanelPlacer, WantedPanel, face_room, overlap
from liveaffect.realtime.overlay import Mark, OverlayLayout, PanelPlace, View, draw, lay_out
from liveaffect.realtime.portrait import read_stamp, write_stamp
from liveaffect.realtime.testing import scenes
from liveaffect.realtime.testing.scenes import GOLDEN, difference, load_golden, save_golden

FOLDER = Path(__file__).resolve().parent / "golden"
LIMIT_BYTES = 400_000


# The kept pictures.


@pytest.mark.parametrize("name", GOLDEN)
def test_a_scene_is_drawn_exactly_as_it_was_blessed(name: str) -> None:
    got, want = GOLDEN[name](), load_golden(FOLDER / f"{name}.png")
    if np.array_equal(got, want):
        return
    folder = Path(tempfile.mkdtemp(prefix=f"overlay-{name}-"))
    for what, picture in (("got", got), ("want", want), ("difference", difference(got, want))):
        save_golden(folder / f"{what}.png", picture)
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
    for module in (canvas, fonts, panels, signs, text):
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
        disclosure=drawn(st.booleans()),
        mirrored=drawn(st.booleans()),
    )


def on_picture(view: View, mark: Mark) -> tuple[int, int, int, int]:
    x, y, w, h = (round(v) for v in mark.box)
    return (view.frame.size[0] - x - w if view.mirrored else x), y, w, h


def in_the_box(layout: OverlayLayout) -> set[tuple[int, int, int, int]]:
    """Panels that stand in a corner of their own box because a face fills the picture."""
    panels_only = [piece.rect for piece in layout.sprites if piece.what == "panel"]
    return {rect for place, rect in zip(layout.places, panels_only, strict=True) if place.side == "inside"}


@given(crowds())
@settings(max_examples=120, deadline=None)
def test_nothing_but_a_notice_without_any_room_ever_stands_on_a_face(view: View) -> None:
    layout = lay_out(view)
    faces = [on_picture(view, mark) for mark in view.marks]
    inside = in_the_box(layout)
    for piece in layout.sprites:
        if piece.what in ("notices", "disclosure") or piece.rect in inside:
            continue
        assert not any(overlap(piece.rect, face) for face in faces), piece.what


@given(crowds())
@settings(max_examples=60, deadline=None)
def test_even_a_label_within_a_box_leaves_the_face_in_it_free(view: View) -> None:
    layout = lay_out(view)
    faces = {mark.track: on_picture(view, mark) for mark in view.marks}
    panels_only = [piece.rect for piece in layout.sprites if piece.what == "panel"]
    for place, rect in zip(layout.places, panels_only, strict=True):
        others = [face for track, face in faces.items() if track != place.track]
        assert not any(overlap(rect, face_room(face)) for face in others)
        if place.side == "inside":
            x, y, w, h = faces[place.track]
            corners = itertools.product((rect[0], rect[0] + rect[2]), (rect[1], rect[1] + rect[3]))
            reach = [
                ((px - x - w / 2) / (w / 2)) ** 2 + ((py - y - h / 2) / (h / 2)) ** 2 for px, py in corners
            ]
            assert min(reach) > 1


@given(crowds())
@settings(max_examples=120, deadline=None)
def test_panels_lie_within_the_picture_and_never_on_each_other(view: View) -> None:
    width, height = view.frame.size
    pieces = [piece for piece in lay_out(view).sprites if piece.what != "readings"]
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
    assert [piece.what for piece in pieces].count("disclosure") == view.disclosure


@pytest.mark.parametrize("count", [1, 2, 4, 9, 16])
@pytest.mark.parametrize(
    "size", [(640, 480), (854, 480), (480, 854), (1280, 720), (1920, 1080), (3840, 2160)]
)
def test_that_emotions_are_analysed_is_said_and_covers_nothing_and_nobody(
    size: tuple[int, int], count: int
) -> None:
    """Beside the longest health line, with captions, a notice, a voice out of view and the small timeline."""
    plain = scenes.crowd(*size, count)
    plain = replace(
        plain,
        health=replace(plain.health, fps=59.94, age_ms=1234.0, dropped=12345, skipped=6789, mode="late"),
        nobody=scenes.cue("angry", track=None),
        history=scenes.history(),
        notices=("camera:0 lost; trying again",),
        captions=(
            Caption("mic", 1, "so what do you think", "of it"),
            Caption("mic", None, "nothing at all", ""),
        ),
    )
    view = replace(plain, disclosure=True)
    pieces = {piece.what: piece for piece in lay_out(view).sprites}
    others = [piece.rect for piece in lay_out(view).sprites if piece.what != "disclosure"]
    others += [on_picture(view, mark) for mark in view.marks]
    covered = {rect: shared_px(pieces["disclosure"].rect, rect) for rect in others}
    assert sum(covered.values()) == 0
    assert "health" in pieces
    x, y, w, h = pieces["disclosure"].rect
    changed = (draw(view)[y : y + h, x : x + w] != view.frame.image[y : y + h, x : x + w]).any(axis=-1)
    assert changed.mean() > 0.9, "the mark is there, and whole"
    assert w * h < 0.02 * size[0] * size[1]


def shared_px(a: tuple[int, int, int, int], b: tuple[int, int, int, int]) -> int:
    """How many pixels two rectangles share."""
    wide = min(a[0] + a[2], b[0] + b[2]) - max(a[0], b[0])
    high = min(a[1] + a[3], b[1] + b[3]) - max(a[1], b[1])
    return max(0, wide) * max(0, high)


@pytest.mark.parametrize("size", [(640, 480), (480, 640), (1280, 720)])
def test_no_panel_ever_lies_on_the_stamp_that_says_which_picture_it_is(size: tuple[int, int]) -> None:
    image = np.full((size[1], size[0], 3), 90, np.uint8)
    write_stamp(image, 7, 41)
    said = [scenes.cue(NOT_SURE, track=track, reason="face too small") for track in range(4)]
    for y in range(20, size[1] // 2, 8):
        boxes = [(size[0] * track // 4 + 30, y, size[0] // 8, size[0] // 7) for track in range(4)]
        marks = tuple(scenes.mark(box, cue) for box, cue in zip(boxes, said, strict=True))
        view = View(scenes.frame(image), marks, scenes.health(), notices=("camera:1 lost; trying again",))
        assert len(lay_out(view).places) == 4
        assert read_stamp(draw(view)) == (7, 41), y


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
    ((320, 240), 1, "slim"),
    ((640, 480), 4, "slim"),
    ((640, 480), 9, "label"),
    ((320, 240), 9, "name"),
])  # fmt: skip
def test_panels_shrink_with_the_room_and_equal_faces_get_equal_panels(
    size: tuple[int, int], count: int, form: str
) -> None:
    places = lay_out(scenes.crowd(*size, count)).places
    assert [place.form for place in places] == [form] * count


def test_one_person_in_front_gets_the_bars_and_those_behind_a_label() -> None:
    view = scenes.crowd(640, 480, 9)
    front = replace(view.marks[4], box=(230, 150, 160, 160))
    layout = lay_out(replace(view, marks=(*view.marks[:4], front, *view.marks[5:])))
    forms = {place.track: place.form for place in layout.places}
    assert forms.pop(front.track) in ("full", "bars", "slim")
    assert set(forms.values()) == {"label"}


def test_a_face_at_the_limit_does_not_make_its_panel_jump() -> None:
    """Moved to and fro by two pixels anywhere along the picture, the panel stays where it was."""

    view = scenes.crowd(640, 480, 1)

    def at(x: int) -> View:
        return replace(view, marks=(replace(view.marks[0], box=(x, 150, 140, 140)),), voice_level=0.0)

    def jumps(x: int, *, handed_on: bool) -> int:
        places = lay_out(at(x)).places
        count = 0
        for step in range(1, 7):
            after = lay_out(at(x + 2 * (step % 2)), places if handed_on else ()).places
            count += after != places
            places = after
        return count

    spots = range(0, 500, 3)
    assert max(jumps(x, handed_on=False) for x in spots) == 6, "no limit was found: the test tests nothing"
    assert max(jumps(x, handed_on=True) for x in spots) <= 1


def test_a_panel_at_the_limit_of_two_forms_does_not_change_to_and_fro() -> None:
    """A face so tall that panels fit only beside it moves a pixel sideways where the room gets tight."""
    view = scenes.crowd(640, 480, 1)

    def at(x: int) -> View:
        return replace(view, marks=(replace(view.marks[0], box=(x, 40, 400, 400)),), history=())

    def forms(x: int, places: tuple[PanelPlace, ...] = ()) -> tuple[tuple[PanelPlace, ...], list[str]]:
        places = lay_out(at(x), places).places
        return places, [place.form for place in places]

    tight = [x for x in range(20, 220) if forms(x)[1] != forms(x + 1)[1]]
    assert tight, "no limit was found: the test tests nothing"
    for x in tight:
        places, shown = forms(x)
        changes = 0
        for step in range(8):
            places, after = forms(x + 1 - step % 2, places)
            changes += after != shown
            shown = after
        assert changes <= 1


def test_where_a_face_fills_the_picture_only_a_label_that_leaves_it_free_is_put_into_its_box() -> None:
    def seated(name: tuple[int, int]) -> list[str]:
        sizes = dict.fromkeys(FORMS, (99, 99)) | {"name": name}
        room = PanelPlacer((100, 100), 0, [face_room((0, 0, 100, 100))])
        return [place.side for place, _ in room.place([WantedPanel(1, (0, 0, 100, 100), sizes)])]

    assert seated((20, 8)) == ["inside"]
    assert seated((40, 30)) == []
