"""PortAudio as the microphone sees it: a thin layer over `sounddevice` that turns its errors into facts.

PortAudio lists devices once, when it starts. So that a microphone that was plugged in later is found, the
list is made anew before each opening, as long as no stream of ours is running.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from liveaffect.realtime.devices import Device, portaudio, sound_inputs
from liveaffect.realtime.errors import SourceBusy, SourceError, SourceNotFound

BLOCK_S = 0.04
"""Length of the blocks asked of the device. Every block wakes a thread, so half as many cost half; a voice is
judged over a second, and nobody notices 20 ms more."""
Heard = Callable[[NDArray[np.float32], float, bool], None]
"""Takes samples (n, channels), how many seconds ago the first was captured, whether sound was lost before."""
_REFUSED_FORMAT = (-9998, -9997)
"""paInvalidChannelCount, paInvalidSampleRate."""
_BUSY = (-9985,)
"""paDeviceUnavailable."""
_LATENCY_S = 0.04

_running: set[int] = set()
_lock = threading.Lock()


class FormatRefused(SourceError):
    """The device does not do this rate or number of channels; another may do."""


class Stream(Protocol):
    """A running input."""

    @property
    def active(self) -> bool:
        """False when the device is gone."""
        ...

    def close(self) -> None:
        """Stop and let go."""
        ...


class SoundSystem(Protocol):
    """The part of PortAudio that is used."""

    def inputs(self) -> list[Device]:
        """All inputs."""
        ...

    def default(self) -> Device | None:
        """The input the system prefers."""
        ...

    def own_format(self, device: Device) -> tuple[int, int]:
        """Rate in Hz and channels that the device does in any case."""
        ...

    def start(self, device: Device, rate_hz: int, channels: int, heard: Heard) -> Stream:
        """Begin to listen. Raises FormatRefused, or another SourceError."""
        ...


class PortAudio:
    """The real sound system."""

    def __init__(self) -> None:
        self._sound = portaudio()
        with _lock:
            if not _running:
                self._sound._terminate()
                self._sound._initialize()

    def inputs(self) -> list[Device]:
        """All inputs."""
        return sound_inputs()

    def default(self) -> Device | None:
        """The input the system prefers."""
        index = int(self._sound.default.device[0])
        return next((device for device in self.inputs() if device.index == index), None)

    def own_format(self, device: Device) -> tuple[int, int]:
        """Rate in Hz and channels that the device does in any case."""
        entry = self._sound.query_devices(device.index)
        return round(entry["default_samplerate"]), int(entry["max_input_channels"])

    def start(self, device: Device, rate_hz: int, channels: int, heard: Heard) -> PortAudioStream:
        """Begin to listen. Raises FormatRefused, or another SourceError."""

        def callback(data: NDArray[np.float32], frames: int, when: Any, status: Any) -> None:
            age_s = when.currentTime - when.inputBufferAdcTime
            if not (when.inputBufferAdcTime > 0 and 0 <= age_s < 10):
                age_s = frames / rate_hz
            heard(data, age_s, bool(status.input_overflow))

        try:
            stream = self._sound.InputStream(
                device=device.index,
                samplerate=rate_hz,
                channels=channels,
                blocksize=round(rate_hz * BLOCK_S),
                dtype="float32",
                latency=_LATENCY_S,
                callback=callback,
            )
            stream.start()
        except self._sound.PortAudioError as failure:
            raise _as_fact(device, failure) from failure
        return PortAudioStream(stream)


class PortAudioStream:
    """A running input."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        with _lock:
            _running.add(id(self))

    @property
    def active(self) -> bool:
        """False when the device is gone."""
        return bool(self._stream.active)

    def close(self) -> None:
        """Drop what is under way and let go."""
        try:
            self._stream.abort(ignore_errors=True)
            self._stream.close(ignore_errors=True)
        finally:
            with _lock:
                _running.discard(id(self))


def _as_fact(device: Device, failure: Exception) -> SourceError:
    code = failure.args[1] if len(failure.args) > 1 else None
    if code in _REFUSED_FORMAT:
        return FormatRefused(f"microphone '{device.name}': {failure}")
    if code in _BUSY:
        return SourceBusy(
            f"microphone '{device.name}' is held by another program. Close it, or choose another"
        )
    if code == -9996:
        return SourceNotFound(f"microphone '{device.name}' is not there any more")
    return SourceError(f"microphone '{device.name}' does not open: {failure}. Is a sound server running?")
