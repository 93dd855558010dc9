"""`liveaffect demo`: the whole path without camera or microphone.

Real portraits that installed packages carry are moved as by a hand-held camera, and espeak-ng says a few
sentences (without it, a voice made of tones hums them). With a display a window opens and the demo runs
as if live; without one it runs in lock-step and leaves a video and a contact sheet.
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
import wave
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from engines.recipe import SAMPLE_RATE
from realtime.clock import SECOND, MonotonicClock
from realtime.errors import EndOfStream
from realtime.frame import AudioBlock, VideoFrame
from realtime.portrait import Portraits, packaged_portraits
from realtime.replay import MediaFile, Paced, load_picture
from realtime.run.analyze import ProgressBar, Watched, analyse
from realtime.run.live import Feed
from realtime.run.loading import load_tools
from realtime.run.outputs import Outputs
from realtime.run.settings import Settings
from realtime.run.webcam import run_feeds
from realtime.sinks.catalogue import open_sink
from realtime.sinks.window import display_is_there

SENTENCES = (
    "Hello. This is a demonstration, and nobody is really here.",
    "I am so happy that you came! What a wonderful day.",
    "But sometimes, in the evening, everything is a little sad and slow.",
)
SIZE = (640, 480)
FPS = 30.0


def make_speech(folder: Path) -> Path:
    """A sound file with a few sentences, by espeak-ng or by tones."""
    path = folder / "speech.wav"
    espeak = shutil.which("espeak-ng")
    if espeak is not None:
        done = subprocess.run(
            [espeak, "-w", str(path), "-s", "150", " ".join(SENTENCES)],
            check=False,
            capture_output=True,
            timeout=30,
        )
        if done.returncode == 0 and path.stat().st_size > SAMPLE_RATE:
            return path
    write_wav(path, tone_voice(8.0))
    return path


def tone_voice(seconds: float) -> NDArray[np.float32]:
    """Something with the rhythm and the pitch of speech: syllables of a gliding, buzzing tone."""
    t = np.arange(round(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    pitch_hz = 140 + 25 * np.sin(2 * np.pi * 0.4 * t)
    phase = 2 * np.pi * np.cumsum(pitch_hz) / SAMPLE_RATE
    buzz = sum(np.sin(k * phase) / k for k in range(1, 20))
    syllables = np.clip(np.sin(2 * np.pi * 3.5 * t), 0, None) * (np.sin(2 * np.pi * 0.2 * t) > -0.6)
    return (0.15 * buzz * syllables).astype(np.float32)


def write_wav(path: Path, samples: NDArray[np.float32]) -> None:
    """Mono, 16 kHz, 16 bit."""
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(SAMPLE_RATE)
        file.writeframes((np.clip(samples, -1, 1) * 32767).astype("<i2").tobytes())


class Together:
    """Moving portraits and sound as one source, in the order of their times, for `seconds`."""

    name = "demo"

    def __init__(self, pictures: Sequence[Path], seconds: float) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="liveaffect-demo-")
        self._portraits = Portraits([load_picture(p) for p in pictures], SIZE, FPS)
        self._speech = MediaFile(make_speech(Path(self._folder.name)), loop=True)
        self._end_ns = round(seconds * SECOND)
        self._next: list[VideoFrame | AudioBlock | None] = []

    def open(self) -> None:
        """Both sources, and the first item of each."""
        self._portraits.open()
        self._speech.open()
        self._next = [self._portraits.read(1.0), self._speech.read(1.0)]

    def read(self, timeout_s: float) -> VideoFrame | AudioBlock | None:
        """Whichever of the two comes first."""
        heads = [(item.captured_ns, i) for i, item in enumerate(self._next) if item is not None]
        captured_ns, which = min(heads)
        if captured_ns >= self._end_ns:
            raise EndOfStream
        item = self._next[which]
        self._next[which] = (self._portraits, self._speech)[which].read(timeout_s)
        return None if item is None else replace(item, source=self.name)

    def close(self) -> None:
        """Both sources and the made sound; safe to call twice."""
        self._portraits.close()
        self._speech.close()
        self._folder.cleanup()


def run_demo(
    settings: Settings, *, seconds: float, out: Path, window: str, say: Callable[[str], None]
) -> int:
    """With a display as if live in a window, else in lock-step into `out`."""
    pictures = packaged_portraits()
    if window == "yes" or (window == "auto" and display_is_there()):
        clock = MonotonicClock()

        def make() -> Paced:
            return Paced(Together(pictures, seconds), clock)

        feed = Feed(Together.name, make, pictures=True, sound=True, live=False)
        return run_feeds([feed], settings, clock, say)
    tools = load_tools(settings, say)
    out.mkdir(parents=True, exist_ok=True)
    names = [out / "demo.mp4", out / "demo.sheet.png", out / "demo.jsonl"]
    outputs = Outputs([open_sink(str(name)) for name in names])
    source = Together(pictures, seconds)
    source.open()
    bar = ProgressBar("demo", seconds)
    try:
        watched = Watched(source, camera=source.name, microphone=source.name)
        summary = analyse(watched, tools, outputs, lambda _: None, bar.show)
        bar.finish()
    finally:
        source.close()
        outputs.close()
    say(f"demo: {summary.line()}")
    if outputs.failures:
        return 1
    say("written: " + ", ".join(map(str, names)))
    return 0
