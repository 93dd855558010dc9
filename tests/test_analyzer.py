"""Pictures and sound that a caller brings: the same cues as of a file, bounded, and clear about mistakes."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from liveaffect import Analyzer, Cue, InputRefused, Settings, analyze
from liveaffect.analyzer import PICTURES_WAITING, TOO_FAST, TOO_LATE, UNFETCHED
from liveaffect.caller_input import SoundStream, checked_sound
from liveaffect.realtime.acting import tone_voice
from liveaffect.realtime.blazeface import Found
from liveaffect.realtime.clock import MS, SECOND
from liveaffect.realtime.errors import EndOfStream
from liveaffect.realtime.frame import AudioBlock, VideoFrame
from liveaffect.realtime.replay import Item, MediaFile
from liveaffect.realtime.testing.media import write_media
from liveaffect.realtime.testing.virtual_time import constant_networks
from liveaffect.realtime.wiring import Tools

SCRIPTED = Settings(engine="scripted")
BLACK = np.zeros((240, 320, 3), np.uint8)
Call = Callable[[Analyzer], object]


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_media(tmp_path_factory.mktemp("media")) / "talk.mp4"


def items_of(film: Path) -> Iterator[Item]:
    with closing(MediaFile(film)) as media:
        media.open()
        while True:
            try:
                item = media.read(1.0)
            except EndOfStream:
                return
            assert item is not None
            yield item


def push(analyzer: Analyzer, item: Item, zero_s: float = 0.0) -> None:
    if isinstance(item, VideoFrame):
        analyzer.push_frame(item.image, item.captured_ns / SECOND + zero_s)
    else:
        analyzer.push_sound(item.samples, item.captured_ns / SECOND + zero_s, 16_000)


class Gate:
    """A finder that finds nobody, and not before it may."""

    def __init__(self) -> None:
        self.opened = threading.Event()
        self.entered = threading.Event()
        self.failure: Exception | None = None

    def find(self, image: NDArray[np.uint8]) -> list[Found]:
        self.entered.set()
        assert self.opened.wait(30)
        if self.failure is not None:
            raise self.failure
        return []


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Iterator[Gate]:
    """Every analysis passes it."""
    gate = Gate()
    tools = Tools(constant_networks(), lambda: (gate, gate))
    monkeypatch.setattr(Settings, "load_tools", lambda self, say, live: tools)
    yield gate
    gate.opened.set()


@pytest.fixture(scope="module")
def expected(film: Path) -> list[Cue]:
    return list(analyze(film, settings=SCRIPTED))


@pytest.mark.parametrize("zero_s", [0.0, -7.5, 1.7e9])
def test_pushing_what_is_in_a_file_gives_the_cues_of_the_file_from_any_zero(
    film: Path, expected: list[Cue], zero_s: float
) -> None:
    with Analyzer(wait=True, settings=SCRIPTED) as analyzer:
        cues: list[Cue] = []
        for item in items_of(film):
            push(analyzer, item, zero_s)
            cues += analyzer.cues()
        analyzer.finish()
        cues += analyzer.cues()
        assert analyzer.losses == {}
    assert len(expected) > 10
    shift_ns = round(zero_s * SECOND)
    assert [replace(cue, source="file:talk.mp4", t_ns=cue.t_ns - shift_ns) for cue in cues] == expected


def test_a_caller_that_is_faster_than_the_analysis_loses_pictures_which_are_counted(gate: Gate) -> None:
    with Analyzer(sound=False) as analyzer:
        analyzer.push_frame(BLACK, 0.0)
        assert gate.entered.wait(30)
        for k in range(1, 100):
            analyzer.push_frame(BLACK, k / 25)
        assert analyzer.losses == {TOO_FAST: 99 - PICTURES_WAITING}
        gate.opened.set()
        analyzer.finish()
        assert analyzer.pictures == 1 + PICTURES_WAITING


def test_sound_that_waits_is_bounded_too(gate: Gate) -> None:
    with Analyzer() as analyzer:
        analyzer.push_frame(BLACK, 0.0)
        assert gate.entered.wait(30)
        for k in range(60):
            analyzer.push_sound(np.zeros(16_000, np.float32), float(k), 16_000)
        (lost,) = analyzer.losses.values()
        gate.opened.set()
        assert 49 * 16_000 <= lost <= 50 * 16_000


def test_close_in_the_middle_of_it_ends_the_thread_and_whoever_waits_for_cues(gate: Gate) -> None:
    before, got = set(threading.enumerate()), []
    analyzer = Analyzer(sound=False)
    waiter = threading.Thread(target=lambda: got.append(analyzer.cues(timeout=60)))
    waiter.start()
    for k in range(4):
        analyzer.push_frame(BLACK, k / 25)
    assert gate.entered.wait(30)
    gate.opened.set()
    analyzer.close()
    analyzer.close()
    waiter.join(10)
    assert got == [()]
    assert set(threading.enumerate()) <= before


def test_what_is_told_about_a_picture_cannot_wait_for_the_end(film: Path) -> None:
    refused = list[Exception]()

    def finish(_: object) -> None:
        try:
            analyzer.finish()
        except InputRefused as error:
            refused.append(error)

    with Analyzer(sound=False, settings=SCRIPTED) as analyzer:
        analyzer.on_picture = finish
        analyzer.push_frame(BLACK, 0.0)
        analyzer.finish()
    assert "inside on_picture" in str(refused[0])


def test_cues_come_to_whoever_waits_for_them(film: Path) -> None:
    with Analyzer(settings=SCRIPTED) as analyzer:
        assert analyzer.cues(timeout=0.01) == ()

        def bring() -> None:
            for item in items_of(film):
                push(analyzer, item)
            analyzer.finish()

        caller = threading.Thread(target=bring)
        caller.start()
        found: list[Cue] = []
        while cues := analyzer.cues(timeout=30):
            found += cues
        caller.join()
    assert len(found) > 3
    assert [cue.t for cue in found] == sorted(cue.t for cue in found)


@pytest.mark.parametrize("wait", [False, True])
def test_what_the_analysis_fails_at_reaches_the_caller(gate: Gate, wait: bool) -> None:
    gate.failure = RuntimeError("the lens is broken")
    gate.opened.set()

    def bring(analyzer: Analyzer) -> None:
        analyzer.push_frame(BLACK, 0.0)
        analyzer.finish()

    with Analyzer(sound=False, wait=wait) as analyzer, pytest.raises(RuntimeError, match="lens is broken"):
        bring(analyzer)
    if not wait:
        with pytest.raises(RuntimeError, match="the lens is broken"):
            analyzer.cues()


def test_cues_that_nobody_fetches_are_bounded_and_counted(
    film: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("liveaffect.analyzer.CUES_WAITING", 5)
    with Analyzer(wait=True, settings=SCRIPTED) as analyzer:
        for item in items_of(film):
            push(analyzer, item)
        assert len({cue.t for cue in analyzer.cues()}) == 5
        assert analyzer.losses[UNFETCHED] > 5


def test_sound_alone_and_sound_after_the_camera_was_switched_off_give_cues() -> None:
    voice = tone_voice(6.0)
    with Analyzer(pictures=False, wait=True, settings=SCRIPTED) as alone:
        alone.push_sound(voice, 50.0, 16_000)
        assert {cue.track for cue in alone.cues()} == {None}
    with Analyzer(wait=True, settings=SCRIPTED) as analyzer:
        analyzer.push_frame(BLACK, 0.0)
        for k in range(60):
            analyzer.push_sound(voice[k * 1600 : (k + 1) * 1600], k / 10, 16_000)
        assert max(cue.t for cue in analyzer.cues()) > 5.0
        analyzer.push_frame(BLACK, 0.1)
        assert analyzer.losses == {TOO_LATE: 1}


def test_the_overlay_is_drawn_on_a_copy_in_the_order_of_colours_that_was_given(film: Path) -> None:
    images = [item.image for item in items_of(film) if isinstance(item, VideoFrame)]
    with Analyzer(sound=False, wait=True, settings=SCRIPTED) as analyzer:
        for k, image in enumerate(images):
            analyzer.push_frame(image, k / 25)
        last = images[-1].copy()
        drawn = analyzer.draw(last)
        assert np.array_equal(last, images[-1])
        changed = np.abs(drawn.astype(int) - last).max(axis=2) > 8
        assert 0.02 < changed.mean() < 0.9
        turned = analyzer.draw(np.ascontiguousarray(last[:, :, ::-1]), bgr=True)
        assert np.array_equal(turned[:, :, ::-1], drawn)
        with pytest.raises(InputRefused, match="320x240"):
            analyzer.draw(np.zeros((48, 64, 3), np.uint8))


def test_the_caller_may_use_its_array_again_at_once(gate: Gate) -> None:
    with Analyzer(sound=False) as analyzer:
        mine = BLACK.copy()
        analyzer.push_frame(mine, 0.0)
        mine[:] = 255
        gate.opened.set()
        analyzer.finish()
        frame = analyzer._run.newest
        assert frame is not None
        assert not frame[0].image.any()


def two_pictures(first_s: float, then_s: float) -> Call:
    def call(analyzer: Analyzer) -> None:
        analyzer.push_frame(BLACK, first_s)
        analyzer.push_frame(BLACK, then_s)

    return call


def two_sounds(first_s: float, then_s: float) -> Call:
    def call(analyzer: Analyzer) -> None:
        analyzer.push_sound(np.zeros(16_000, np.float32), first_s, 16_000)
        analyzer.push_sound(np.zeros(16_000, np.float32), then_s, 16_000)

    return call


def picture(image: Any, t: Any = 0.0) -> Call:
    return lambda analyzer: analyzer.push_frame(image, t)


def sound(samples: Any, rate: Any = 16_000) -> Call:
    return lambda analyzer: analyzer.push_sound(samples, 0.0, rate)


@pytest.mark.parametrize(
    ("mistake", "says"),
    [
        (picture("me.jpg"), "NumPy array, and this is a str"),
        (picture(BLACK[:, :, 0]), "Grey pictures"),
        (picture(np.zeros((240, 320, 4), np.uint8)), "transparency"),
        (picture(np.zeros((3, 240, 320), np.uint8)), "Colour comes last"),
        (picture(np.zeros((1, 240, 320, 3), np.uint8)), "one after the other"),
        (picture(np.zeros((240, 320, 3), np.float32)), "255"),
        (picture(np.zeros((8, 320, 3), np.uint8)), "at least 16"),
        (picture(BLACK, "now"), "t is 'now'"),
        (picture(BLACK, float("nan")), "t is nan"),
        (picture(BLACK, 1e300), "time in seconds"),
        (two_pictures(1.0, 0.9), r"t=0\.900000 comes after one of t=1\.000000"),
        (two_pictures(0.0, 33_000.0), "not milliseconds"),
        (two_sounds(5.0, 5.5), r"t=5\.500 comes after sound that reaches to t=6\.000"),
        (sound([0.0]), "NumPy array, and this is a list"),
        (sound(np.zeros((2, 16_000), np.float32)), r"samples\.T"),
        (sound(np.zeros(100, np.uint8)), "unsigned"),
        (sound(np.array([0.0, np.nan, np.inf])), "2 of 3 samples are not finite"),
        (sound(np.array([0.0, 20_000.0])), "divide by 32768"),
        (sound(np.zeros(100, np.float32), 0), "rate is 0"),
        (sound(np.zeros(100, np.float32), -16_000), "rate is -16000"),
        (sound(np.zeros(100, np.float32), 44_100.5), "whole number"),
        (sound(np.zeros(100, np.float32), float("nan")), "rate is nan"),
        (sound(np.zeros(100, np.float32), "48k"), "rate is '48k'"),
        (lambda analyzer: analyzer.cues(timeout=float("nan")), "timeout is nan"),
        (lambda analyzer: analyzer.cues(timeout="1"), "timeout is '1'"),
    ],
)
def test_mistakes_are_refused_with_what_was_given_and_the_way_out(
    gate: Gate, mistake: Call, says: str
) -> None:
    gate.opened.set()
    with Analyzer(wait=True) as analyzer, pytest.raises(InputRefused, match=says):
        mistake(analyzer)


def test_nothing_can_be_pushed_after_the_end_or_of_a_kind_that_was_excluded(gate: Gate) -> None:
    gate.opened.set()
    with Analyzer(sound=False, wait=True) as analyzer:
        with pytest.raises(InputRefused, match="sound=False"):
            analyzer.push_sound(np.zeros(100, np.float32), 0.0, 16_000)
        analyzer.finish()
        analyzer.finish()
        with pytest.raises(InputRefused, match=r"push_frame\(\) after finish"):
            analyzer.push_frame(BLACK, 0.0)
    for call in (lambda: analyzer.push_frame(BLACK, 0.0), lambda: analyzer.draw(BLACK), analyzer.finish):
        with pytest.raises(InputRefused, match="after close"):
            call()
    with pytest.raises(InputRefused, match="neither pictures nor sound"):
        Analyzer(pictures=False, sound=False)


# Sound of any rate.


def click(rate_hz: int, at_s: float, seconds: float = 2.0) -> NDArray[np.float32]:
    samples = np.zeros(round(rate_hz * seconds), np.float32)
    samples[round(rate_hz * at_s)] = 1.0
    return samples


def when(blocks: list[AudioBlock]) -> float:
    """At what time the click is."""
    loudest = max(blocks, key=lambda block: float(np.abs(block.samples).max()))
    return loudest.captured_ns / SECOND + int(np.abs(loudest.samples).argmax()) / 16_000


@pytest.mark.parametrize("rate_hz", [8_000, 11_025, 16_000, 22_050, 44_100, 48_000, 96_000])
def test_sound_of_any_rate_keeps_its_time_and_its_length(rate_hz: int) -> None:
    stream, samples = SoundStream("caller"), click(rate_hz, 1.25)
    blocks = []
    for at in range(0, len(samples), 1000):
        blocks += stream.push(samples[at : at + 1000], 3 * SECOND + at * SECOND // rate_hz, rate_hz)
    blocks += stream.finish()
    assert when(blocks) == pytest.approx(4.25, abs=0.001)
    assert blocks[-1].end == pytest.approx(32_000, abs=2)
    assert [b.first for b in blocks[1:]] == [a.end for a in blocks[:-1]]


def test_a_hole_keeps_its_length_and_jitter_makes_none() -> None:
    stream, rng, quiet = SoundStream("caller"), np.random.default_rng(4), np.zeros(1600, np.float32)
    for k in range(50):
        stream.push(quiet, k * 100 * MS + int(rng.integers(-30, 30)) * MS, 16_000)
    assert stream.lost == 0
    after = stream.push(click(16_000, 0.5), 7 * SECOND, 16_000)
    assert stream.lost == pytest.approx(2 * 16_000, abs=16 * 40)
    assert when(after) == pytest.approx(7.5, abs=0.001)
    assert after[0].first == 5 * 16_000 + stream.lost


def test_the_rate_may_change_in_the_middle() -> None:
    stream = SoundStream("caller")
    stream.push(np.zeros(44_100, np.float32), 0, 44_100)
    after = stream.push(click(48_000, 0.5), SECOND, 48_000)
    assert when(after) == pytest.approx(1.5, abs=0.001)
    assert stream.lost == 0


@pytest.mark.parametrize("dtype", [np.int16, np.int32, np.float64])
def test_whole_numbers_and_two_channels_are_scaled_and_averaged(dtype: type[np.generic]) -> None:
    full = -np.iinfo(dtype).min if issubclass(dtype, np.integer) else 1
    both = np.stack([np.full(1600, full // 2 if full > 1 else 0.5), np.zeros(1600)], axis=1).astype(dtype)
    mono = checked_sound(both)
    assert mono.dtype == np.float32
    assert mono.shape == (1600,)
    assert mono == pytest.approx(0.25)
