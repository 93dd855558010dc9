"""Which cameras and microphones there are, for choosing one by name, for error messages and for `doctor`.

Cameras are read from the kernel's own list on Linux, because opening each number in turn takes seconds and
switches lamps on. Elsewhere there is no list without another package, so cameras go by number there.
"""

from __future__ import annotations

import atexit
import importlib
import re
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TypeVar

from liveaffect.realtime.errors import MissingLibrary, SourceError

T = TypeVar("T")
SYSFS = Path("/sys/class/video4linux")
SOUND_S = 5.0
"""A sound system that is well answers in less than a second; one whose server hangs never does."""
_TURN_S = 0.05
ONE_AT_A_TIME = threading.RLock()
"""Held while PortAudio is asked: to list devices anew it ends and begins again, under whoever asks."""
_hanging: list[threading.Thread] = []
"""Questions to the sound system that nobody waits for any more."""


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
    """The inputs PortAudio knows. Raises MissingLibrary without PortAudio, SourceError if it hangs."""
    return in_time(sound_inputs)


def sound_inputs() -> list[Device]:
    """The same, however long it takes; for who waits in a thread already."""
    sound = portaudio()
    try:
        with ONE_AT_A_TIME:
            systems, entries = sound.query_hostapis(), sound.query_devices()
    except sound.PortAudioError as failure:
        raise SourceError(f"the sound system does not name its devices: {failure}") from failure
    return [
        Device(index, str(entry["name"]), str(systems[entry["hostapi"]]["name"]))
        for index, entry in enumerate(entries)
        if entry["max_input_channels"] > 0
    ]


def portaudio() -> ModuleType:
    """The `sounddevice` module, imported when it is first needed."""
    try:
        sound = importlib.import_module("sounddevice")
    except OSError as failure:
        raise MissingLibrary(
            f"the sound library PortAudio cannot be loaded ({failure}). "
            "Install it: apt-get install libportaudio2. Without it all but microphones works: --mic none"
        ) from failure
    # At the end of the process it would stop the last stream, and wait for ever for a server that hangs.
    atexit.unregister(sound._exit_handler)
    return sound


def in_time(
    ask: Callable[[], T],
    *,
    undo: Callable[[T], object] = lambda _: None,
    given_up: Callable[[], bool] = lambda: False,
    limit_s: float = SOUND_S,
) -> T:
    """The answer of the sound system, asked in a thread that may hang: some servers never answer.

    Raises SourceError after `limit_s`, when nobody wants to know any more, and as long as an earlier question
    hangs. An answer that comes later is undone.
    """
    found: list[T | BaseException] = []
    late = threading.Lock()
    left = False

    def work() -> None:
        try:
            answer: T | BaseException = ask()
        except BaseException as failure:  # noqa: BLE001  it is raised again where somebody waits
            answer = failure
        with late:
            found.append(answer)
            unwanted = left
        if unwanted and not isinstance(answer, BaseException):
            undo(answer)

    _hanging[:] = [thread for thread in _hanging if thread.is_alive()]
    if _hanging:
        raise SourceError(
            "the sound system still does not answer; restart the sound server, or use --mic none"
        )
    thread = threading.Thread(target=work, name="asks the sound system", daemon=True)
    thread.start()
    for _ in range(round(limit_s / _TURN_S)):
        thread.join(_TURN_S)
        if not thread.is_alive() or given_up():
            break
    with late:
        left = not found
    if left:
        _hanging.append(thread)
        raise SourceError(
            f"the sound system did not answer for {limit_s:.0f} s. Is its server stopped? "
            "Restart it (systemctl --user restart pulseaudio, or pipewire), or use --mic none"
        )
    answer = found[0]
    if isinstance(answer, BaseException):
        raise answer
    return answer


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
