"""`liveaffect live`: names of cameras, microphones and outputs become feeds and sinks of a live run."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from pathlib import Path

from realtime.capture.restamped import Restamped
from realtime.clock import MonotonicClock, epoch_ns
from realtime.cue import Cue
from realtime.errors import MissingLibrary, SettingsError, SinkError
from realtime.run.calibrations.device_pairs import stored_offset_ns
from realtime.run.devices import cameras
from realtime.run.gpu_start import GpuStart
from realtime.run.live import Feed, LiveRun
from realtime.run.loading import load_tools
from realtime.run.outputs import Outputs
from realtime.run.settings import Settings
from realtime.run.supervisor import Source
from realtime.run.wiring import Rings, Wiring
from realtime.sinks import Sink
from realtime.sinks.catalogue import open_sink
from realtime.sinks.window import Window

Say = Callable[[str], None]
_LOG = logging.getLogger(__name__)
_URL = re.compile(r"^[a-z][a-z0-9+.-]*://", re.IGNORECASE)


def run_live(settings: Settings, say: Say) -> int:
    """Cameras and microphones as the settings name them, until the user stops it."""
    clock = MonotonicClock()
    feeds = [camera_feed(name, settings, clock) for name in settings.camera if name != "none"]
    feeds += [microphone_feed(name, settings, clock) for name in settings.mic if name != "none"]
    if not feeds:
        raise SettingsError(
            "neither a camera nor a microphone: both are 'none', so there is nothing to watch"
        )
    return run_feeds(feeds, settings, clock, say)


def run_feeds(feeds: list[Feed], settings: Settings, clock: MonotonicClock, say: Say) -> int:
    """A live run over these feeds with the outputs of the settings."""
    sinks = open_outputs(settings, say)
    windows = [sink for sink in sinks if isinstance(sink, Window)]
    gpu = GpuStart(say)

    def make_wiring(rings: Rings, publish: Callable[[tuple[Cue, ...]], None]) -> Wiring:
        tools = load_tools(settings, say)
        gpu.start(tools.awaiting)
        wiring = Wiring(
            rings, tools.networks, tools.make_finders, publish, pieces=tools.pieces, epoch_ns=epoch_ns
        )
        wiring.scheduler.adopt(tools.habit)
        return wiring

    outputs = Outputs(sinks)
    run = LiveRun(feeds, make_wiring, outputs, clock, overlay=settings.overlay, mirrored=settings.mirror)
    for window in windows:
        window.on_key = {"m": run.switch_mirror, "l": run.switch_pace}
    try:
        run.run(seconds=settings.seconds, wants_stop=lambda: any(window.wants_stop for window in windows))
    except KeyboardInterrupt:
        say(run.report())
        raise
    finally:
        gpu.stop()
    say(run.report())
    for report in run.brain.costs():
        _LOG.info(
            "%s: %d times, %.1f ms each, %.1f ms at worst, %d times too long",
            report.name,
            report.calls,
            report.busy_ms,
            report.worst_ms,
            report.overruns,
        )
    return 1 if outputs.failures or run.brain.failed is not None else 0


def open_outputs(settings: Settings, say: Say) -> list[Sink]:
    """The sinks the settings name; without any, a window, or an explanation."""
    if settings.sink:
        return [open_sink(name) for name in settings.sink]
    try:
        return [Window()]
    except (SinkError, MissingLibrary) as error:
        raise SinkError(f"{error} Or name an output: --sink out.mp4, --sink cues.jsonl") from error


def camera_feed(name: str, settings: Settings, clock: MonotonicClock) -> Feed:
    """A camera by index, name or device, a URL, or a file played as if live."""
    from realtime.camera import Camera
    from realtime.capture.grabber import Wish

    if _is_file(name):
        return file_feed(Path(name), clock, settings.av_offset_ns or 0)

    wish = Wish(settings.picture_size, settings.fps)

    def make() -> Source:
        return Camera(name, clock, wish)

    # A URL is not in the list of devices; its pauses just run out.
    watch = None if _URL.match(name) else cameras
    return Feed(make().name, make, pictures=True, sound=False, live=True, watch=watch)


def microphone_feed(name: str, settings: Settings, clock: MonotonicClock) -> Feed:
    """A microphone by index or name, its stamps set right; or a sound file played as if live."""
    from realtime.microphone import Microphone

    if _is_file(name):
        return file_feed(Path(name), clock, settings.av_offset_ns or 0)
    later_ns = _offset_ns(name, settings)

    def make() -> Source:
        microphone = Microphone(name, clock)
        return Restamped(microphone, later_ns) if later_ns else microphone

    return Feed(make().name, make, pictures=False, sound=True, live=True)


def _offset_ns(mic: str, settings: Settings) -> int:
    """How much later this microphone's sound is stamped than the pictures of the first camera."""
    camera = next((name for name in settings.camera if name != "none"), None)
    if settings.av_offset_ns is not None or camera is None:
        return settings.av_offset_ns or 0
    return stored_offset_ns(camera, mic)


def file_feed(path: Path, clock: MonotonicClock, later_ns: int = 0) -> Feed:
    """A file played once as if it were live; `later_ns` as in `Restamped`."""
    from realtime.replay import MediaFile, Paced
    from realtime.run.predict import PICTURES

    if path.suffix.lower() in PICTURES:
        raise SettingsError(
            f"{path} is a picture, and live wants a camera or a video. "
            f"For pictures: liveaffect predict {path}"
        )
    media = MediaFile(path)
    media.open()
    media.close()

    def make() -> Source:
        return Paced(Restamped(MediaFile(path), later_ns), clock)

    return Feed(media.name, make, pictures=media.has_video, sound=media.has_audio, live=False)


def _is_file(name: str) -> bool:
    return not _URL.match(name) and not name.startswith("/dev/") and Path(name).is_file()
