"""What is said is written in any script: joined, turned round, broken without spaces, or as visible boxes."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from liveaffect.realtime.drawing.panels import Measures, caption_panel
from liveaffect.realtime.drawing.text import font_of, text_width_px

M = Measures.of(1280, 720)
WIDE = 420
HEBREW, ARABIC = "\u05e9\u05dc\u05d5\u05dd \u05dc\u05db\u05d5\u05dc\u05dd", "\u0645\u0631\u062d\u0628\u0627"
TODAY = "\u05d4\u05d9\u05d5\u05dd"
JAPANESE = "\u4eca\u65e5\u306f\u3068\u3066\u3082\u5b09\u3057\u3044\u3067\u3059"
LACKED = "\U00012000", "\U00012001"
"""Cuneiform."""


def ink(text: str, guess: str = "", width_px: int = WIDE) -> NDArray[np.int64]:
    """Brightness of the letters, without the plate."""
    light = np.asarray(caption_panel(text, guess, width_px, M).light, np.int64).max(axis=2)
    return np.asarray(np.maximum(light - light[light.shape[0] // 2, 1], 0))


def middle_of_light(picture: NDArray[np.int64]) -> float:
    columns = picture.sum(axis=0)
    return float((columns * np.arange(len(columns))).sum() / columns.sum())


def test_hebrew_begins_at_the_right_and_its_guess_stands_pale_at_the_left() -> None:
    both, sure = ink(HEBREW, TODAY), ink(HEBREW)
    cut = both.shape[1] - sure.shape[1]
    np.testing.assert_array_equal(both[4:-4, -sure.shape[1] + M.pad : -M.pad], sure[4:-4, M.pad : -M.pad])
    left, right = both[:, M.pad : cut], both[:, cut + M.pad : -M.pad]
    assert 0 < left.max() < 0.9 * right.max(), "the guess is as bright as what is believed"


def test_words_from_left_to_right_keep_their_order() -> None:
    assert middle_of_light(ink("mmmm", "i")) < middle_of_light(ink("", "mmmm i"))


def test_arabic_letters_are_joined() -> None:
    from PIL import features

    if not features.check("raqm"):
        pytest.skip("this Pillow cannot shape letters: it is built without Raqm")
    apart = sum(text_width_px(letter, M.cap) for letter in ARABIC)
    assert text_width_px(ARABIC, M.cap) < 0.95 * apart


def test_japanese_without_spaces_is_broken_to_two_lines_that_fit() -> None:
    if font_of(JAPANESE[0]) is None:
        pytest.skip("no font with Japanese: apt-get install fonts-noto-cjk")
    panel = caption_panel(JAPANESE, "", 5 * M.cap, M)
    assert panel.size[0] <= 5 * M.cap
    assert panel.size[1] == 2 * M.gap + M.cap + M.line
    one, other = ink(JAPANESE[0]), ink(JAPANESE[1])
    assert one.max() > 0
    assert one.shape != other.shape or (one != other).any(), "two characters look the same, as boxes do"


def test_a_character_that_no_font_has_is_a_visible_box() -> None:
    if any(font_of(char) for char in LACKED):
        pytest.skip("a font here has cuneiform")
    one, other = (ink(char) for char in LACKED)
    assert one.sum() > 0
    np.testing.assert_array_equal(one, other)
