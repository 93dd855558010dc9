"""Names become sources: a camera, a microphone or a file, and whether it lives or ends.

A feed can make its source anew at any time, because a source that failed is never repaired.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from liveaffect.realtime.clock import Clock
from liveaffect.realtime.devices import list_cameras
from liveaffect.realtime.endings import PICTURES, names_a_file
from liveaffect.realtime.errors import SettingsError
from liveaffect.realtime.frame import Renamed, Restamped, Source
from liveaffect.realtime.replay import MediaFile, Paced
from liveaffect.realtime.shared_screen import SharedScreen, names_a_screen

_URL = re.compile(r"^[a-z][a-z0-9+.-]*://", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Feed:
    """One source of a live run."""

    name: str
    make: Callable[[], Source]
    pictures: bool
    sound: bool
    live: bool
    """False: its end is the end; True: it is opened again for ever."""
    watch: Callable[[], object] | None = None
    """Changes when devices come or go, so that a device that is back is noticed at once."""


def camera_feed(
    name: str, clock: Clock, *, size: tuple[int, int] = (640, 480), fps: float = 30.0, later_ns: int = 0
) -> Feed:
    """A camera by index, name or device, a URL, the screen, or a file (`later_ns` as in `Restamped`)."""
    from liveaffect.realtime.camera import Camera, CaptureFormat

    if names_a_screen(name):

        def shared() -> Source:
            return SharedScreen(name, clock, fps)

        return Feed(shared().name, shared, pictures=True, sound=False, live=True)
    if names_a_file(name):
        return file_feed(Path(name), clock, later_ns)

    asked = CaptureFormat(size, fps)

    def make() -> Source:
        return Camera(name, clock, asked)

    # A URL is not in the list of devices; its pauses just run out.
    watch = None if _URL.match(name) else list_cameras
    return Feed(make().name, make, pictures=True, sound=False, live=True, watch=watch)


def stream_feed(name: str, url: str, clock: Clock, *, size: tuple[int, int], decoder: str) -> Feed:
    """A network camera under a name of its own, which is all that anybody sees of it."""
    from liveaffect.realtime.camera import Camera
    from liveaffect.realtime.stream import StreamCapture

    def make() -> Source:
        return Camera(
            url,
            clock,
            capture=lambda target: StreamCapture(str(target), f"camera:{name}", size, decoder),
            title=name,
        )

    return Feed(make().name, make, pictures=True, sound=False, live=True)


def microphone_feed(name: str, clock: Clock, later_ns: int = 0) -> Feed:
    """A microphone by index or name, its stamps set right; what is played; or a sound file as if live."""
    from liveaffect.realtime.microphone import Microphone
    from liveaffect.realtime.sound_device import OUTPUT, LoudspeakerSound

    if names_a_file(name):
        return file_feed(Path(name), clock, later_ns, pictures=False)

    def make() -> Source:
        microphone = Microphone(name, clock, LoudspeakerSound() if name == OUTPUT else None)
        return Restamped(microphone, later_ns) if later_ns else microphone

    return Feed(make().name, make, pictures=False, sound=True, live=True)


def file_feed(path: Path, clock: Clock, later_ns: int = 0, *, pictures: bool = True) -> Feed:
    """A file played once as if it were live, or its sound alone; `later_ns` as in `Restamped`."""

    if path.suffix.lower() in PICTURES:
        raise SettingsError(
            f"{path} is a picture, and live wants a camera or a video. "
            f"For pictures: liveaffect predict {path}"
        )
    media = MediaFile(path)
    media.open()
    media.close()
    if not (pictures or media.has_audio):
        raise SettingsError(f"there is no sound in {path} to hear as a microphone")

    def make() -> Source:
        return Paced(Restamped(MediaFile(path, video=pictures), later_ns), clock)

    return Feed(media.name, make, pictures=pictures and media.has_video, sound=media.has_audio, live=False)


def told_apart(feeds: Sequence[Feed]) -> list[Feed]:
    """The same feeds under names of their own: the second film called a.mp4 becomes file:a.mp4#2.

    Everything behind a source is kept by its name. A device cannot be opened twice: SettingsError.
    """
    seen: Counter[str] = Counter()
    out: list[Feed] = []
    for feed in feeds:
        seen[feed.name] += 1
        if seen[feed.name] == 1:
            out.append(feed)
            continue
        if feed.live:
            raise SettingsError(f"{feed.name} is named twice; a device is opened once")
        out.append(renamed(feed, f"{feed.name}#{seen[feed.name]}"))
    return out


def renamed(feed: Feed, name: str) -> Feed:
    """The same under another name."""

    def make() -> Source:
        return Renamed(feed.make(), name)

    return replace(feed, name=name, make=make)
