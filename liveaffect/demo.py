"""`liveaffect demo`: the whole path without camera or microphone.

A drawn head goes through a scene of expressions, so that the label can be seen to follow it; beside it stands
a real portrait that an installed package carries. Both are moved as by a hand-held camera, and espeak-ng says
a few sentences in three voices (without it, a voice made of tones hums them). With a display a window opens
and the demo runs as if live; without one it runs in lock-step and leaves a video and a contact sheet.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from liveaffect.progress import LOADING, ProgressBar, working
from liveaffect.realtime.acting import ActingHead, make_voices
from liveaffect.realtime.clock import SECOND, MonotonicClock
from liveaffect.realtime.errors import EndOfStream, SinkError
from liveaffect.realtime.feeds import Feed
from liveaffect.realtime.frame import AudioBlock, VideoFrame
from liveaffect.realtime.lockstep import Watched, analyse
from liveaffect.realtime.portrait import packaged_portraits
from liveaffect.realtime.replay import MediaFile, Paced, load_picture
from liveaffect.realtime.sinks import Outputs
from liveaffect.realtime.sinks.catalogue import open_sink
from liveaffect.realtime.sinks.files import refusal
from liveaffect.realtime.sinks.window import display_is_there
from liveaffect.settings import Settings
from liveaffect.webcam import run_feeds

SIZE = (640, 480)
FPS = 30.0


class Together:
    """The acting head, a portrait and sound as one source, in the order of their times, for `seconds`."""

    name = "demo"

    def __init__(self, pictures: Sequence[Path], seconds: float) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="liveaffect-demo-")
        self._portraits = ActingHead([load_picture(p) for p in pictures[:1]], SIZE, FPS)
        self._speech = MediaFile(make_voices(Path(self._folder.name)), loop=True)
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
    try:
        out.mkdir(parents=True, exist_ok=True)
    except FileExistsError as error:
        raise SinkError(f"cannot write the demo into {out}: that is a file; name a folder") from error
    except OSError as error:
        raise refusal(out, error) from error
    names = [out / "demo.mp4", out / "demo.sheet.png", out / "demo.jsonl"]
    with working(LOADING):
        tools = settings.load_tools(say)
    outputs = Outputs([open_sink(str(name)) for name in names], notice=settings.notice)
    source = Together(pictures, seconds)
    source.open()
    bar = ProgressBar("demo", seconds)
    try:
        watched = Watched(source, camera=source.name, microphone=source.name)
        summary = analyse(watched, tools, outputs, lambda _: None, bar.show)
        bar.done(summary.media_s)
    finally:
        bar.finish()
        source.close()
        outputs.close()
    say(f"demo: {summary.line()}")
    if outputs.failures:
        return 1
    say("written: " + ", ".join(map(str, names)))
    return 0
