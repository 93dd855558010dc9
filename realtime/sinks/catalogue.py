"""What outputs there are: by the ending of a name, or by the flag that asked for one, which then decides.

The kinds are imported only when they are asked for, because video and windows load large libraries.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from liveaffect.realtime.endings import PICTURES, SOUNDS, VIDEOS
from liveaffect.realtime.errors import SinkError
from liveaffect.realtime.sinks import Sink
from liveaffect.realtime.sinks.files import part_of

Kind = Literal["cues", "table", "video", "sheet", "timeline"]
ENDINGS: dict[Kind, tuple[str, ...]] = {
    "cues": (".jsonl", ".ndjson", ".json"),
    "table": (".csv",),
    "video": (".mp4", ".mkv", ".mov"),
    "sheet": (".sheet.png",),
    "timeline": (".png",),
}
"""The first that fits a name counts."""
WORDS: dict[Kind, str] = {
    "cues": "cues, one a line",
    "table": "cues as a table",
    "video": "the drawn picture with sound",
    "sheet": "a contact sheet",
    "timeline": "a timeline",
}
STDOUT, WINDOW, CAMERA = "-", "window", "camera"
NETWORK = ("mqtt", "nats", "osc")
"""Schemes of servers that cues are sent to; 'ws' is a server of our own, 'lsl' has no address."""


@dataclass(frozen=True, slots=True)
class Named:
    """One output that was asked for."""

    kind: Kind
    name: str

    def open(self, *, sound: bool = True) -> Sink:
        """Open it; `sound` says whether a video needs a place for some. Raises SinkError."""
        if self.kind == "cues":
            from liveaffect.realtime.sinks.files import JsonLines

            return JsonLines(self.name)
        if self.kind == "table":
            from liveaffect.realtime.sinks.files import CsvFile

            return CsvFile(self.name)
        if self.kind == "video":
            from liveaffect.realtime.sinks.video_file import VideoFile

            return VideoFile(self.name, sound=sound)
        if self.kind == "sheet":
            from liveaffect.realtime.sinks.timeline import ContactSheet

            return ContactSheet(self.name)
        from liveaffect.realtime.sinks.timeline import Timeline

        return Timeline(self.name)


def by_ending(name: str) -> Named:
    """The output that a name means by itself. Raises SinkError if it means none."""
    kind: Kind | None = "cues" if name == STDOUT else _kind_of(name)
    if kind is None:
        known = "; ".join(f"{', '.join(ENDINGS[kind])} ({WORDS[kind]})" for kind in ENDINGS)
        raise SinkError(
            f"no output is called '{name}'. There are: window; {STDOUT} or {known}; camera (a virtual one); "
            "ws://127.0.0.1:8765 (cues and overlay for whoever connects); mqtt://, nats://, osc://HOST; lsl"
        )
    return Named(kind, name)


def by_flag(kind: Kind, name: str) -> Named:
    """The output that a flag asks for, unless its name says something else. Raises SinkError."""
    if not Path(name).name:
        raise SinkError(f"cannot write {WORDS[kind]} to '{name}': that names no file")
    told = _kind_of(name)
    fits = (
        told == kind
        or (told, kind) == ("timeline", "sheet")
        or (name == STDOUT and kind in ("cues", "table"))
    )
    foreign = Path(name).suffix.lower() in (*PICTURES, *SOUNDS, *VIDEOS)
    if not fits and (told is not None or foreign or name == STDOUT):
        raise SinkError(
            f"'{name}' was named for {WORDS[kind]}, which is {' or '.join(ENDINGS[kind])}; "
            f"give it such an ending, or another flag"
        )
    return Named(kind, name)


def open_sink(name: str, *, sound: bool = True, token: str = "") -> Sink:
    """The opened output. Raises SinkError for a name that means nothing or a file that cannot be written.

    `token` is what a server of ours wants.
    """
    if name == WINDOW:
        from liveaffect.realtime.sinks.window import WindowSink

        return WindowSink()
    if name == "lsl" or name.partition("://")[0] in NETWORK:
        from liveaffect.realtime.sinks.network import open_network

        return open_network(name)
    if name.startswith("ws://"):
        from liveaffect.realtime.sinks.web import WebSink

        return WebSink(name, token=token)
    if name == CAMERA:
        from liveaffect.realtime.sinks.virtual_camera import VirtualCamera

        return VirtualCamera()
    return by_ending(name).open(sound=sound)


def refuse_overwriting(outputs: Sequence[str], inputs: Sequence[Path]) -> None:
    """Raise SinkError if an output is an input or another output; to be asked before anything is opened.

    Links and other spellings of a path are seen through. The part under which an output grows counts too.
    """
    read = {_identity(path): path for path in inputs}
    written: dict[object, str] = {}
    for name in outputs:
        if _is_device(name) or not Path(name).name:
            continue  # the one takes everything; the other names nothing, and is refused when it is opened
        places = [] if name in (STDOUT, WINDOW) else [Path(name), part_of(Path(name))]
        for key in map(_identity, places):
            if key in read:
                raise SinkError(
                    f"'{name}' would overwrite '{read[key]}', which is to be read; name another output"
                )
        key = _identity(Path(name)) if places else name
        if key in written:
            raise SinkError(f"'{written[key]}' and '{name}' are one and the same output; name another one")
        written[key] = name


def _kind_of(name: str) -> Kind | None:
    return next((kind for kind, endings in ENDINGS.items() if name.lower().endswith(endings)), None)


def _identity(path: Path) -> object:
    """The same for every spelling of one file, whether it exists or not."""
    try:
        found = path.stat()
    except (OSError, ValueError):
        try:
            return path.resolve()
        except (OSError, ValueError, RuntimeError):
            return path
    return found.st_dev, found.st_ino


def _is_device(name: str) -> bool:
    """Whether it takes everything at once, such as /dev/null, which can be named twice."""
    try:
        return name != STDOUT and Path(name).exists() and not Path(name).is_file() and not Path(name).is_dir()
    except (OSError, ValueError):
        return False
