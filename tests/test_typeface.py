"""Text, colours and sprites are legible to everybody and stay within their bounds."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import features

from liveaffect.engines.recipe import LABELS
from liveaffect.realtime.drawing import text
from liveaffect.realtime.drawing import text as fonts
from liveaffect.realtime.drawing.canvas import LABEL_COLOURS, PANEL, PANEL_COVER, QUIET, Canvas, Colour, paste
from liveaffect.realtime.drawing.panels import Measures
from liveaffect.realtime.drawing.text import (
    ascent_px,
    fit_text,
    printable,
    text_mask,
    text_width_px,
    wrap_text,
)

NO_LETTERS = str(Path(fonts.dejavu().path).with_name("STIXSizOneSymReg.ttf"))
"""A font of brackets alone, beside DejaVu in matplotlib."""


def _no_such_program(*command: object, **options: object) -> None:
    raise FileNotFoundError(command)


@pytest.fixture
def nothing_remembered() -> Iterator[None]:
    """Fonts are looked for anew, and what the test found is forgotten after it."""
    kept = list(fonts._found)
    for clear in (True, False):
        fonts._found[:] = [] if clear else kept
        fonts.font_of.cache_clear()
        text_mask.cache_clear()
        text._drawn.cache_clear()
        if clear:
            yield


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


@given(st.text("aZ0 .·é\u0301\n\tש", max_size=40), st.integers(7, 30), st.booleans())
@settings(max_examples=60, deadline=None)
def test_any_text_has_a_mask_in_range(text: str, cap_px: int, bold: bool) -> None:
    mask = text_mask(text, cap_px, bold=bold)
    assert int(mask.max(initial=0)) <= 256
    assert mask.shape[0] == text_mask("a", cap_px, bold=bold).shape[0]


@pytest.mark.parametrize("cap_px", range(7, 40))
def test_capitals_are_as_high_as_asked_for(cap_px: int) -> None:
    ink = np.flatnonzero(text_mask("H", cap_px).max(axis=1) > 128)
    assert abs(len(ink) - cap_px) <= 1
    assert ink[-1] + 1 == ascent_px(cap_px), "it stands on the baseline"


def test_an_accent_is_drawn_however_it_was_typed() -> None:
    assert not np.array_equal(text_mask("Büro", 8), text_mask("Buro", 8))
    assert np.array_equal(text_mask("Bu\u0308ro", 8), text_mask("Büro", 8))
    assert printable("a\tb\x00") == "a b "


def test_a_script_that_dejavu_lacks_is_drawn_in_a_font_of_this_machine(
    monkeypatch: pytest.MonkeyPatch, nothing_remembered: None
) -> None:
    """With a font that was asked for, and never again for another character of the same."""
    other = fonts.FontFile(fonts.dejavu(bold=True).path)
    asked: list[str] = []
    monkeypatch.setattr(fonts, "dejavu", lambda *, bold=False: fonts.FontFile(NO_LETTERS))

    def ask(char: str, *, bold: bool) -> list[fonts.FontFile]:
        asked.append(char)
        return [other]

    monkeypatch.setattr(fonts, "_fonts_for", ask)
    assert fonts.font_of("a") == other
    assert fonts.font_of("b") == other
    assert asked == ["a"]


def test_without_any_font_for_it_a_character_is_a_box_and_not_left_out(
    monkeypatch: pytest.MonkeyPatch, nothing_remembered: None
) -> None:
    monkeypatch.setattr("liveaffect.realtime.drawing.text.subprocess.run", _no_such_program)
    monkeypatch.setattr(fonts, "_BY_NAME", ())
    assert fonts.font_of("日") is None
    assert text_mask("日", 8).any()
    assert np.array_equal(text_mask("日", 8), text_mask("本", 8))
    assert text_width_px("日本", 8) == 2 * text_width_px("日", 8)


def test_a_name_that_is_written_from_right_to_left_is_drawn_so() -> None:
    if not features.check("raqm") or not features.check("fribidi"):
        pytest.skip("this Pillow turns no lines round, as the one for Windows does not")
    word = "שלום"
    last_left = text_mask(word, 20)[:, : text_width_px(word[-1], 20) // 2]
    assert np.array_equal(last_left, text_mask(word[-1], 20)[:, : last_left.shape[1]])


def test_the_font_of_this_machine_spells_a_name_that_dejavu_cannot(nothing_remembered: None) -> None:
    found = fonts.font_of("日")
    if found is None:
        pytest.skip("needs a Japanese font: apt-get install fontconfig fonts-droid-fallback")
    assert not np.array_equal(text_mask("日", 20), text_mask("本", 20))


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
