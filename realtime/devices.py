"""Which cameras and microphones there are, for choosing one by name, for error messages and for `doctor`.

Cameras are read from the kernel's own list on Linux, because opening each number in turn takes seconds and
switches lamps on. Elsewhere there is no list without another package, so cameras go by number there.
"""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from liveaffect.realtime.errors import MissingLibrary

SYSFS = Path("/sys/class/video4linux")


@dataclass(frozen=True, slots=True)
class Device:
    """One camera or microphone."""

    index: int
    """What OpenCV or PortAudio calls it."""
    name: str
    path: str = ""
    """The device file of a camera, or the sound system a microphone belongs to."""

    def __str__(self) -> str:
        return f"{self.index}: {self.name}" + (f" ({self.path})" if self.path else "")


def list_cameras(folder: Path = SYSFS) -> list[Device]:
    """The cameras the kernel knows, by number; empty where it gives no list.

    One camera often has several device files, of which only the first gives pictures.
    """
    found = []
    for entry in folder.glob("video*"):
        number = re.fullmatch(r"video(\d+)", entry.name)
        if number and _text(entry / "index") in ("", "0"):
            name = _text(entry / "name") or entry.name
            found.append(Device(int(number[1]), name, f"/dev/{entry.name}"))
    return sorted(found, key=lambda device: device.index)


def list_microphones() -> list[Device]:
    """The inputs PortAudio knows. Raises MissingLibrary if PortAudio is not installed."""
    sound = portaudio()
    systems = sound.query_hostapis()
    return [
        Device(index, str(entry["name"]), str(systems[entry["hostapi"]]["name"]))
        for index, entry in enumerate(sound.query_devices())
        if entry["max_input_channels"] > 0
    ]


def portaudio() -> ModuleType:
    """The `sounddevice` module, imported when it is first needed."""
    try:
        return importlib.import_module("sounddevice")
    except OSError as failure:
        raise MissingLibrary(
            f"the sound library PortAudio cannot be loaded ({failure}). "
            "Install it: apt-get install libportaudio2. Without it all but microphones works: --mic none"
        ) from failure


def devices_in_words(kind: str, devices: Sequence[Device]) -> str:
    """'Cameras on this machine:' and one line for each, or (none)."""
    lines = [f"  {device}" for device in devices] or ["  (none)"]
    if kind == "Cameras" and sys.platform != "linux":
        lines = ["  (this platform gives no list; try --camera 0, then 1)"]
    return "\n".join([f"{kind} on this machine:", *lines])


def by_name(devices: Sequence[Device], part: str) -> Device | None:
    """The device of that name, else the first whose name contains `part`, else None."""
    wanted = part.casefold()
    fitting = [device for device in devices if wanted in device.name.casefold()]
    exact = [device for device in fitting if device.name.casefold() == wanted]
    return next(iter(exact + fitting), None)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""
