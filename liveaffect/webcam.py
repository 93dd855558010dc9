"""`liveaffect live` and `demo`: devices, or a scene without any, become feeds and sinks of a run.

In the demo a drawn head goes through a scene of expressions, so that the label can be seen to follow it;
beside it stands a real portrait that an installed package carries, and espeak-ng says a few sentences in
three voices. With a display a window opens and it runs as if live; without one it runs in lock-step and
leaves a video and a contact sheet.
"""

from __future__ import annotations

import logging
import re
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from liveaffect.engines.gpu_start import GpuStart
from liveaffect.node import Node, expanded, refuse_open_secrets, sink_names, status_server
from liveaffect.progress import LOADING, ProgressBar, working
from liveaffect.realtime.acting import ActingHead, make_voices
from liveaffect.realtime.clock import SECOND, MonotonicClock, epoch_ns
from liveaffect.realtime.cue import Cue
from liveaffect.realtime.device_pairs import stored_offset_ns
from liveaffect.realtime.endings import names_a_file
from liveaffect.realtime.errors import EndOfStream, MissingLibrary, SettingsError, SinkError
from liveaffect.realtime.feeds import Feed, camera_feed, microphone_feed, renamed, stream_feed, told_apart
from liveaffect.realtime.frame import AudioBlock, VideoFrame
from liveaffect.realtime.live import LiveRun
from liveaffect.realtime.lockstep import Watched, analyse
from liveaffect.realtime.portrait import packaged_portraits
from liveaffect.realtime.replay import MediaFile, Paced, load_picture
from liveaffect.realtime.sinks import Outputs, Sink
from liveaffect.realtime.sinks.catalogue import open_sink, refuse_overwriting
from liveaffect.realtime.sinks.files import refusal
from liveaffect.realtime.sinks.network import Alert, NetworkSink
from liveaffect.realtime.sinks.window import WindowSink, display_is_there
from liveaffect.realtime.wiring import Rings, Wiring
from liveaffect.settings import Settings

Say = Callable[[str], None]
_TITLE = re.compile(r"[A-Za-z0-9_-]+")
_LOG = logging.getLogger(__name__)
SIZE = (640, 480)
FPS = 30.0


def run_live(settings: Settings, say: Say) -> int:
    """Cameras and microphones as the settings name them, until the user stops it."""
    if settings.site:
        return run_node(settings, say)
    clock = MonotonicClock()
    settings.check_profile()
    # Before a source is opened: whatever an output would overwrite is still whole.
    read = [Path(name) for name in (*settings.camera, *settings.mic) if names_a_file(name)]
    refuse_overwriting(settings.sink, read)
    feeds = feeds_of(settings, clock)
    if not feeds:
        raise SettingsError(
            "neither a camera nor a microphone: both are 'none', so there is nothing to watch"
        )
    return run_feeds(feeds, settings, clock, say)


def feeds_of(settings: Settings, clock: MonotonicClock) -> list[Feed]:
    """The cameras, then the microphones, as the settings name them."""
    given_ns = settings.av_offset_ns or 0
    size, fps = settings.picture_size, settings.fps
    cameras = [name for name in settings.camera if name != "none"]

    def camera(name: str) -> Feed:
        title, equals, address = name.partition("=")
        if equals and _TITLE.fullmatch(title) and not Path(name).exists():
            if "://" in address:
                return stream_feed(title, expanded(address), clock, size=size, decoder=settings.decoder)
            return renamed(camera(address), f"camera:{title}")
        return camera_feed(name, clock, size=size, fps=fps, later_ns=given_ns)

    return told_apart(
        [
            *map(camera, cameras),
            *(microphone_feed(name, clock, _offset_ns(name, settings)) for name in settings.microphones),
        ]
    )


def run_feeds(feeds: list[Feed], settings: Settings, clock: MonotonicClock, say: Say) -> int:
    """A live run over these feeds with the outputs of the settings."""
    sinks = open_outputs(settings, say, sound=any(feed.sound for feed in feeds))
    windows = [sink for sink in sinks if isinstance(sink, WindowSink)]
    gpu = GpuStart(say)
    outputs = Outputs(sinks, notice=settings.notice)
    run = make_run(feeds, settings, clock, outputs, gpu, say)
    for window in windows:
        window.on_key = {"m": run.switch_mirror, "l": run.switch_pace}
        run.text_scale = window.text_scale

    def wants_stop() -> bool:
        return outputs.all_failed or any(window.wants_stop for window in windows)

    try:
        run.run(seconds=settings.seconds, wants_stop=wants_stop)
    except KeyboardInterrupt:
        say(run.report())
        raise
    finally:
        gpu.stop()
    say(run.report())
    for report in run.analysis.costs():
        _LOG.info(
            "%s: %d times, %.1f ms each, %.1f ms at worst, %d times too long",
            report.name,
            report.calls,
            report.busy_ms,
            report.worst_ms,
            report.overruns,
        )
    return 1 if outputs.failures or run.analysis.failed is not None else 0


def run_node(settings: Settings, say: Say) -> int:
    """Watch until told otherwise; 1 if the analysis failed."""
    refuse_open_secrets((*settings.camera, *settings.sink))
    names = sink_names(settings)
    mics = ("none",) if settings.mic == ("auto",) else settings.mic
    settings = replace(settings, mic=mics, overlay="late", sink=tuple(map(expanded, names)))
    clock = MonotonicClock()
    feeds = feeds_of(settings, clock)
    sinks: list[Sink] = open_outputs(settings, say, sound=False)
    servers = [sink for sink in sinks if isinstance(sink, NetworkSink)]

    def tell(alert: Alert) -> None:
        for sink in servers:
            sink.warn(alert)

    node, outputs, gpu = Node(settings.site, clock, tell), Outputs(sinks), GpuStart(say)
    node.outputs = outputs
    run = node.run = make_run(feeds, settings, clock, outputs, gpu, say)
    run.patient = True
    try:
        server = status_server(node, settings)
    except (SettingsError, MissingLibrary):
        outputs.close()
        raise

    def turn() -> bool:
        node.look()
        return False

    server.start()
    say(f"{len(feeds)} sources of site {settings.site}; http://{settings.host}:{server.port}/healthz")
    try:
        run.run(seconds=settings.seconds, wants_stop=turn)
    finally:
        server.stop()
        gpu.stop()
        say(run.report())
    return 1 if outputs.failures or run.analysis.failed is not None else 0


def make_run(
    feeds: list[Feed], settings: Settings, clock: MonotonicClock, outputs: Outputs, gpu: GpuStart, say: Say
) -> LiveRun:
    """A live run that is not started yet; its networks are loaded when it is. The caller stops `gpu`."""

    pairs = settings.pairs

    def make_wiring(rings: Rings, publish: Callable[[tuple[Cue, ...]], None]) -> Wiring:
        tools = settings.load_tools(say, live=True)
        gpu.start(tools.awaiting)
        wiring = Wiring(
            rings, tools.networks, tools.make_finders, publish, pieces=tools.pieces, epoch_ns=epoch_ns
        )
        if pairs:
            wiring.pair(pairs)
        wiring.hear_words(tools.spoken)
        wiring.scheduler.adopt(tools.profile)
        return wiring

    return LiveRun(feeds, make_wiring, outputs, clock, overlay=settings.overlay, mirrored=settings.mirror)


def open_outputs(settings: Settings, say: Say, *, sound: bool) -> list[Sink]:
    """The sinks the settings name; without any, a window, or an explanation."""
    if settings.sink:
        sinks: list[Sink] = []
        try:
            sinks.extend(open_sink(name, sound=sound, token=settings.token) for name in settings.sink)
        except (SinkError, MissingLibrary):
            Outputs(sinks).close()
            raise
        return sinks
    try:
        return [WindowSink()]
    except (SinkError, MissingLibrary) as error:
        raise SinkError(f"{error} Or name an output: --sink out.mp4, --sink cues.jsonl") from error


def _offset_ns(mic: str, settings: Settings) -> int:
    """How much later this microphone's sound is stamped than the pictures of the first camera."""
    camera = next((name for name in settings.camera if name != "none"), None)
    if settings.av_offset_ns is not None or camera is None:
        return settings.av_offset_ns or 0
    return stored_offset_ns(camera, mic)


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
    if window == "yes" and not display_is_there():
        raise SinkError("there is no display to open a window on; --window no writes the demo into files")
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
