"""What was measured between cameras and microphones, kept as one small JSON file in the user's settings.

    {"format": 1, "pairs": [{"camera": "...", "microphone": "...", "offset_ns": 120000000, "method": "mouth",
                             "confidence": 0.8}]}

Devices go by their names, because their numbers change when one is plugged in.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from liveaffect.engines.user_folders import config_dir, write_private
from liveaffect.realtime.devices import Device, by_name, list_cameras
from liveaffect.realtime.errors import CalibrationRefused, RealtimeError

FORMAT = 1
MOST_NS = 1_000_000_000
CURE = "liveaffect calibrate av --erase all"


@dataclass(frozen=True, slots=True)
class Pair:
    """One camera and one microphone, and how much later the sound is stamped."""

    camera: str
    microphone: str
    offset_ns: int
    method: str
    confidence: float

    def __str__(self) -> str:
        ms = self.offset_ns / 1_000_000
        return (
            f"{self.camera} with {self.microphone}: {ms:+.0f} ms ({self.method}, "
            f"confidence {self.confidence:.2f})"
        )


def pairs_file() -> Path:
    """Where they are kept."""
    return config_dir() / "av-offsets.json"


def load_pairs(path: Path | None = None) -> list[Pair]:
    """All pairs; none if nothing was measured yet. Raises CalibrationRefused if the file is damaged."""
    path = path or pairs_file()
    try:
        text = path.read_text("utf-8")
    except FileNotFoundError:
        return []
    except (OSError, UnicodeDecodeError) as error:
        raise _damaged_pairs(path, str(error)) from error
    try:
        content = json.loads(text)
    except ValueError as error:
        raise _damaged_pairs(path, f"it is not JSON: {error}") from error
    if not isinstance(content, dict) or not isinstance(content.get("format"), int):
        raise _damaged_pairs(path, "it does not say its format")
    if content["format"] != FORMAT:
        raise CalibrationRefused(
            f"{path} has format {content['format']}, and this version knows {FORMAT}: it was written by "
            f"another version. Use that one, or measure anew after: {CURE}"
        )
    try:
        return [_pair(entry) for entry in content["pairs"]]
    except (KeyError, TypeError, ValueError) as error:
        raise _damaged_pairs(path, f"{type(error).__name__}: {error}") from error


def store_pair(pair: Pair, path: Path | None = None) -> Path:
    """Keep it, in the place of what was known of the same two devices."""
    path = path or pairs_file()
    kept = [p for p in load_pairs(path) if (p.camera, p.microphone) != (pair.camera, pair.microphone)]
    _write_pairs(path, [*kept, pair])
    return path


def erase_pair(camera: str | None, microphone: str | None, path: Path | None = None) -> int:
    """Forget pairs of these devices (None: any), and the whole file when none is left; how many."""
    path = path or pairs_file()
    if camera is None and microphone is None:
        there = path.exists()
        path.unlink(missing_ok=True)
        return int(there)
    before = load_pairs(path)
    kept = [p for p in before if camera not in (None, p.camera) or microphone not in (None, p.microphone)]
    if kept:
        _write_pairs(path, kept)
    else:
        path.unlink(missing_ok=True)
    return len(before) - len(kept)


def stored_offset_ns(camera: str, microphone: str, path: Path | None = None) -> int:
    """What is stored for these two as the user calls them; 0 if nothing is."""
    pairs = load_pairs(path)
    if not pairs:
        # Asking the sound system for names takes a while; nobody should wait for it without need.
        return 0
    names = camera_name(camera), microphone_name(microphone)
    return next((p.offset_ns for p in pairs if (p.camera, p.microphone) == names), 0)


def camera_name(spec: str, devices: Callable[[], list[Device]] = list_cameras) -> str:
    """The device's own name for what the user wrote; that itself where there is no list."""
    return _own_name(spec, devices())


def microphone_name(spec: str) -> str:
    """The device's own name for what the user wrote; that itself without a sound system."""
    from liveaffect.realtime.sound_device import PortAudio

    try:
        system = PortAudio()
        chosen = system.default() if spec == "default" else None
        return chosen.name if chosen is not None else _own_name(spec, system.inputs())
    except RealtimeError:
        return spec


def _own_name(spec: str, known: list[Device]) -> str:
    if spec.isdecimal():
        found = next((device for device in known if device.index == int(spec)), None)
    elif "/" in spec:
        found = next((device for device in known if device.path == spec), None)
    else:
        found = by_name(known, spec)
    return spec if found is None else found.name


def _pair(entry: Mapping[str, Any]) -> Pair:
    camera, microphone, method = entry["camera"], entry["microphone"], entry["method"]
    offset_ns, confidence = entry["offset_ns"], entry["confidence"]
    if not all(isinstance(text, str) for text in (camera, microphone, method)):
        raise ValueError("a name is not text")
    if isinstance(offset_ns, bool) or not isinstance(offset_ns, int) or abs(offset_ns) > MOST_NS:
        raise ValueError(f"an offset of {offset_ns!r} ns makes no sense")
    if not (isinstance(confidence, int | float) and math.isfinite(confidence)):
        raise ValueError(f"a confidence of {confidence!r} makes no sense")
    return Pair(camera, microphone, offset_ns, method, float(confidence))


def _write_pairs(path: Path, pairs: list[Pair]) -> None:
    content = {"format": FORMAT, "pairs": [asdict(pair) for pair in pairs]}
    write_private(path, json.dumps(content, indent=1, allow_nan=False) + "\n")


def _damaged_pairs(path: Path, why: str) -> CalibrationRefused:
    return CalibrationRefused(f"{path} is damaged ({why}). Remove it and measure again: {CURE}")
