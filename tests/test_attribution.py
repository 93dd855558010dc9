"""Of several faces the one whose jaw follows the sound is named, others are not, and doubt is said aloud."""

from __future__ import annotations

import itertools
from collections.abc import Iterable

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from liveaffect.realtime.attribution import Attribution, AttributionSettings, Voice
from liveaffect.realtime.clock import MS, SECOND
from liveaffect.realtime.signs import ENERGY_STEP_NS, mouth_motion

FRAME_NS = 40 * MS


def syllables(seconds: float, seed: int) -> NDArray[np.float64]:
    """Loudness of running speech, one value per 20 ms: irregular syllables, about four a second."""
    rng = np.random.default_rng(seed)
    out = np.zeros(int(seconds * 50))
    at = 0
    while at < len(out):
        length = int(rng.integers(8, 16))
        out[at : at + length] = (rng.uniform(2, 5) * np.sin(np.linspace(0, np.pi, length)))[: len(out) - at]
        at += length + int(rng.integers(0, 3))
    return out


def jaw(loudness: NDArray[np.float64], seed: int, jitter: float = 0.1) -> NDArray[np.float64]:
    """Motion per picture of a mouth that makes this sound, with a tracker's jitter."""
    opening = loudness[:: FRAME_NS // ENERGY_STEP_NS]
    shake = np.random.default_rng(seed).normal(0, jitter, len(opening))
    return np.diff(opening, prepend=opening[0]) * 0.3 + shake


def play(
    attribution: Attribution,
    loudness: NDArray[np.float64],
    mouths: dict[int, NDArray[np.float64]],
    *,
    begin_ns: int = 0,
    sound_late_ns: int = 0,
) -> list[Voice]:
    """Feed pictures and sound as time goes by; the decisions at every 100 ms."""
    voices: list[Voice] = []
    pictures = 0
    for i, loud in enumerate(loudness):
        now_ns = begin_ns + i * ENERGY_STEP_NS
        attribution.hear([(now_ns + sound_late_ns, float(loud))])
        if i % 2 == 0:
            for track, motion in mouths.items():
                attribution.move(now_ns, track, float(motion[pictures]))
            pictures += 1
        if i % 5 == 4:
            voices.append(attribution.decide(now_ns))
    return voices


def share(voices: Iterable[Voice], track: int | None, state: str = "track") -> float:
    said = [(voice.state, voice.track) for voice in voices]
    return said.count((state, track)) / len(said)  # type: ignore[arg-type]


@pytest.mark.parametrize("seed", range(6))
def test_of_two_moving_mouths_the_one_that_follows_the_sound_is_named(seed: int) -> None:
    heard, other = syllables(5, seed), syllables(5, seed + 100)
    voices = play(Attribution(), heard, {1: jaw(other, 1), 2: jaw(heard, 2)})
    assert share(voices[5:], 2) > 0.95
    assert share(voices[5:], 1) == 0.0


def test_of_sixteen_moving_mouths_the_right_one_is_named() -> None:
    heard = syllables(5, 0)
    mouths = {track: jaw(syllables(5, 50 + track), track) for track in range(1, 17)}
    mouths[11] = jaw(heard, 11)
    voices = play(Attribution(), heard, mouths)
    assert share(voices[10:], 11) > 0.95


def test_a_mouth_that_moves_exactly_against_the_sound_is_not_the_talker() -> None:
    heard = syllables(5, 0)
    aligned = AttributionSettings(lag_search_ns=40 * MS)  # syllables come round again after half a period
    voices = play(Attribution(aligned), heard, {1: -jaw(heard, 1)})
    assert share(voices, 1) == 0.0
    assert voices[-1].state == "nobody in view"


def test_in_silence_nobody_speaks_however_much_mouths_move() -> None:
    voices = play(Attribution(), np.zeros(150), {1: jaw(syllables(3, 1), 1)})
    assert {voice.state for voice in voices} == {"nobody speaks"}


def test_speech_without_a_face_belongs_to_nobody_in_view() -> None:
    voices = play(Attribution(), syllables(2, 0), {})
    assert voices[-1] == Voice("nobody in view", None, 1.0)


def test_speech_over_still_mouths_is_undecided_first_and_nobodys_after_a_while() -> None:
    voices = play(Attribution(), syllables(5, 0), {1: np.zeros(125), 2: np.zeros(125)})
    states = [voice.state for voice in voices]
    first = states.index("nobody in view")
    assert "track" not in states
    assert set(states[:first]) <= {"undecided", "nobody speaks"}
    assert "undecided" in states[:first]
    assert set(states[first:]) == {"nobody in view"}


def test_the_turn_passes_within_a_second_and_a_half_and_nobody_flickers_meanwhile() -> None:
    first, second = syllables(5, 1), syllables(5, 2)
    heard = np.concatenate([first, second])
    quiet = np.zeros(len(first))
    mouths = {1: jaw(np.concatenate([first, quiet]), 1), 2: jaw(np.concatenate([quiet, second]), 2)}
    tracks = [voice.track for voice in play(Attribution(), heard, mouths)]
    assert set(tracks[10:50]) == {1}
    assert set(tracks[65:]) == {2}
    named = [track for track in tracks if track is not None]
    assert sum(a != b for a, b in itertools.pairwise(named)) == 1


def test_everything_known_of_a_track_dies_with_it() -> None:
    attribution = Attribution()
    heard = syllables(3, 0)
    voices = play(attribution, heard, {1: jaw(heard, 1)})
    assert voices[-1].track == 1
    attribution.end(1)
    attribution.end(1)
    assert attribution.decide(3 * SECOND).state == "nobody in view"
    attribution.move(3 * SECOND, 1, 0.0)
    assert attribution.decide(3 * SECOND).track is None


def test_what_is_captured_later_changes_nothing_now() -> None:
    heard = syllables(4, 0)
    mouths = {1: jaw(heard, 1), 2: jaw(syllables(4, 9), 2)}
    knowing, plain = Attribution(), Attribution()
    play(knowing, heard[:100], mouths)
    play(plain, heard[:100], mouths)
    knowing.hear([(2 * SECOND + k * 20 * MS, 9.0) for k in range(10)])
    for k in range(5):
        knowing.move(2 * SECOND + k * FRAME_NS, 2, 3.0)
    assert knowing.decide(2 * SECOND - FRAME_NS) == plain.decide(2 * SECOND - FRAME_NS)


def test_a_constant_offset_between_sound_and_picture_is_learnt() -> None:
    heard = syllables(30, 3)
    mouths = {1: jaw(heard, 1), 2: jaw(syllables(30, 4), 2)}
    attribution = Attribution()
    play(attribution, heard, mouths)
    aligned_ns = attribution.offset_ns
    late = Attribution()
    voices = play(late, heard, mouths, sound_late_ns=80 * MS)
    assert late.offset_ns - aligned_ns == 80 * MS
    assert share(voices[200:], 1) > 0.95


def test_sound_that_the_voice_network_does_not_take_for_speech_is_nobodys_speech() -> None:
    attribution = Attribution()
    heard = syllables(2, 0)
    assert play(attribution, heard, {1: jaw(heard, 1)})[-1].state == "track"
    attribution.judge(0, 2 * SECOND, 0.0)
    assert attribution.decide(2 * SECOND).state == "nobody speaks"


def test_a_track_that_was_lost_for_long_is_not_compared_across_the_gap() -> None:
    attribution = Attribution()
    attribution.move(0, 1, 0.0)
    attribution.move(10 * SECOND, 1, 50.0)
    attribution.hear([(10 * SECOND + k * 20 * MS, 3.0 * (k % 5)) for k in range(20)])
    assert attribution.decide(10 * SECOND + 400 * MS).track is None


def a_face() -> NDArray[np.uint8]:
    """A face as far as matching is concerned: soft structure everywhere."""
    rough = np.random.default_rng(0).uniform(40, 210, (16, 16, 3)).astype(np.float32)
    return np.clip(cv2.resize(rough, (64, 64), interpolation=cv2.INTER_CUBIC), 0, 255).astype(np.uint8)


def with_chin(face: NDArray[np.uint8], down_px: float) -> NDArray[np.uint8]:
    """The same face, its lower part further down."""
    y, x = np.mgrid[0:64, 0:64].astype(np.float32)
    lower = np.clip((y - 42) / 6, 0, 1)
    return np.asarray(cv2.remap(face, x, y - np.float32(down_px) * lower, cv2.INTER_CUBIC), np.uint8)


def test_crops_are_compared_with_the_previous_crop_of_the_same_track() -> None:
    by_crop, by_motion = Attribution(), Attribution()
    heard = syllables(3, 0)
    face, opening = a_face(), 0.0
    crops = [with_chin(face, opening := 0.8 * opening + step) for step in jaw(heard, 1, jitter=0.0)]
    for k, crop in enumerate(crops):
        by_crop.see(k * FRAME_NS, 1, crop)
        by_motion.move(k * FRAME_NS, 1, mouth_motion(crops[k - 1], crop) if k else 0.0)
    for attribution in (by_crop, by_motion):
        attribution.hear([(k * 20 * MS, float(loud)) for k, loud in enumerate(heard)])
    assert by_crop.decide(3 * SECOND) == by_motion.decide(3 * SECOND)
    assert by_crop.decide(3 * SECOND).track == 1


@pytest.mark.parametrize("broken", [float("nan"), float("inf")])
def test_numbers_that_are_not_finite_are_refused_by_name(broken: float) -> None:
    attribution = Attribution()
    with pytest.raises(ValueError, match="track 7 was handed a mouth motion"):
        attribution.move(0, 7, broken)
    with pytest.raises(ValueError, match="loudness at 20000000 ns"):
        attribution.hear([(20 * MS, broken)])
    with pytest.raises(ValueError, match="probability of speech"):
        attribution.judge(0, SECOND, broken)


@settings(max_examples=30, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(0, 3_000), st.integers(1, 3), st.floats(-5, 5), st.floats(0, 8)), max_size=60
    )
)
def test_any_feed_gives_a_probability_and_a_track_that_is_in_view(
    feed: list[tuple[int, int, float, float]],
) -> None:
    attribution, again = Attribution(), Attribution()
    in_view: set[int] = set()
    for at_ms, track, motion, loudness in feed:
        for either in (attribution, again):
            either.move(at_ms * MS, track, motion)
            either.hear([(at_ms * MS, loudness)])
        in_view.add(track)
        voice = attribution.decide(at_ms * MS)
        assert voice == again.decide(at_ms * MS)
        assert 0.0 <= voice.confidence <= 1.0
        assert (voice.state == "track") == (voice.track is not None)
        assert voice.track is None or voice.track in in_view
