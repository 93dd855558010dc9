"""Every source keeps the same promises, so a reader need not know which one it has."""

from __future__ import annotations

import threading
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from liveaffect.realtime.camera import Camera
from liveaffect.realtime.clock import MonotonicClock
from liveaffect.realtime.devices import Device
from liveaffect.realtime.frame import Source
from liveaffect.realtime.microphone import Microphone
from liveaffect.realtime.portrait import Portraits
from liveaffect.realtime.replay import MediaFile, Paced
from liveaffect.realtime.sound_device import Heard
from liveaffect.realtime.testing.contracts import check_source
from liveaffect.realtime.testing.devices import FakeCamera, FakeSound, ScriptedSource, picture, tone
from liveaffect.realtime.testing.virtual_time import FakeClock

VIDEO, AUDIO, BOTH = frozenset({"video"}), frozenset({"audio"}), frozenset({"video", "audio"})


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two seconds of 64x48 pictures at 25 a second with a tone of 44.1 kHz."""
    path = tmp_path_factory.mktemp("clips") / "clip.mkv"
    with av.open(str(path), "w") as out:
        video = out.add_stream("mpeg4", rate=25)
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        audio = out.add_stream("pcm_s16le", rate=44_100, layout="mono")
        for number in range(50):
            image = np.full((48, 64, 3), 4 * number, np.uint8)
            out.mux(video.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
            wave = (8000 * np.sin(np.arange(1764) / 10)).astype(np.int16)
            sound = av.AudioFrame.from_ndarray(wave[None, :], format="s16", layout="mono")
            sound.sample_rate, sound.pts, sound.time_base = 44_100, number * 1764, Fraction(1, 44_100)
            out.mux(audio.encode(sound))
        out.mux(video.encode(None))
        out.mux(audio.encode(None))
    return path


class SpeakingSound(FakeSound):
    """Speaks by itself, in a thread, from start to close."""

    def start(self, device: Device, rate_hz: int, channels: int, heard: Heard) -> SpeakingSound:
        super().start(device, rate_hz, channels, heard)
        threading.Thread(target=self._speak, daemon=True).start()
        return self

    def _speak(self) -> None:
        pause = threading.Event()
        while self.active:
            self.hear(np.full(self.rate_hz // 500, 0.1, np.float32), age_s=0.002)
            pause.wait(0.002)


def test_a_file_with_pictures_and_sound(clip: Path) -> None:
    check_source(lambda: MediaFile(clip), kinds=BOTH)


def test_a_file_of_which_only_one_kind_is_wanted(clip: Path) -> None:
    check_source(lambda: MediaFile(clip, audio=False), kinds=VIDEO)
    check_source(lambda: MediaFile(clip, video=False), kinds=AUDIO)


def test_a_file_played_as_if_live(clip: Path) -> None:
    class Hasty(MonotonicClock):
        """Runs a hundred times as fast, so that the two seconds do not take two seconds."""

        def now_ns(self) -> int:
            return super().now_ns() * 100

        def wait_until(self, deadline_ns: int, stop: threading.Event) -> bool:
            return super().wait_until(deadline_ns, stop) if self.now_ns() < deadline_ns else not stop.is_set()

    check_source(lambda: Paced(MediaFile(clip), Hasty()), kinds=BOTH)


def test_moving_portraits() -> None:
    face = np.full((60, 50, 3), 180, np.uint8)
    check_source(lambda: Portraits([face, face], (160, 120), frames=45), kinds=VIDEO)


def test_a_camera() -> None:
    device = FakeCamera()
    check_source(lambda: Camera("0", MonotonicClock(), capture=device, devices=list), kinds=VIDEO, live=True)
    assert device.in_use == 0


@pytest.mark.parametrize("rate_hz", [16_000, 48_000])
def test_a_microphone(rate_hz: int) -> None:
    def make() -> Source:
        return Microphone("default", MonotonicClock(), SpeakingSound(rate_hz, 2))

    check_source(make, kinds=AUDIO, live=True)


def test_a_scripted_source() -> None:
    def make() -> Source:
        return ScriptedSource(MonotonicClock(), [(i * 1000, picture(i, i)) for i in range(60)])

    check_source(make, kinds=VIDEO, live=True)


class Broken(ScriptedSource):
    """Breaks one promise."""

    def __init__(self, breach: Callable[[int], tuple[int, int]]) -> None:
        steps = [breach(i) for i in range(60)]
        super().__init__(FakeClock(), [(0, picture(seq, captured_ns)) for seq, captured_ns in steps])


@pytest.mark.parametrize(
    ("breach", "words"),
    [
        (lambda i: (i - (i > 20), i), "came after picture"),
        (lambda i: (i + (i > 20), i), "are missing"),
        (lambda i: (i, i if i < 20 else 5), "time went back"),
        (lambda i: (i + 1, i), "are missing"),
    ],
)
def test_the_contract_itself_notices_a_breach(breach: Callable[[int], tuple[int, int]], words: str) -> None:
    with pytest.raises(AssertionError, match=words):
        check_source(lambda: Broken(breach), kinds=VIDEO, live=True)


def test_the_contract_notices_sound_that_was_promised_and_does_not_come() -> None:
    def make() -> Source:
        return ScriptedSource(
            FakeClock(), [(0, tone(i * 160, 160, i * 10_000_000)) for i in range(60)], "mic:scripted"
        )

    check_source(make, kinds=AUDIO, live=True)
    with pytest.raises(AssertionError, match="pictures: 0"):
        check_source(make, kinds=BOTH, live=True)
