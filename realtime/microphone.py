"""Sound from a microphone through PortAudio: any rate, any channels in; mono 16 kHz out.

The callback only copies. When a sample was captured follows from its number (`SoundTime`), because
callbacks come in bursts and the first one up to two seconds late. Sound that the device lost is a jump in
the numbers, placed by time, and counted; so are samples that are not numbers.
"""

from __future__ import annotations

import threading
from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from liveaffect.engines.recipe import SAMPLE_RATE
from liveaffect.realtime.clock import SECOND, Clock
from liveaffect.realtime.decode import LOUDEST, Resampler
from liveaffect.realtime.devices import ONE_AT_A_TIME, Device, by_name, devices_in_words, in_time
from liveaffect.realtime.errors import SourceError, SourceLost, SourceNotFound
from liveaffect.realtime.frame import AudioBlock
from liveaffect.realtime.sound_device import FormatRefused, SoundSystem, SoundTime, Stream

_HELD = 256
"""Blocks held between callback and reader, about ten seconds; more is lost and counted."""


@dataclass(frozen=True, slots=True, eq=False)
class _Raw:
    samples: NDArray[np.float32]
    stamp_ns: int
    arrived_ns: int
    flagged: bool
    """The device says that it lost sound before this."""
    missing: int = 0
    """Samples before this that nobody fetched in time."""


class Microphone:
    """One microphone as a source of sound. Opened and read by one thread."""

    def __init__(self, spec: str, clock: Clock, system: SoundSystem | None = None) -> None:
        self._spec = spec
        self._clock = clock
        self._system = system
        self._stream: Stream | None = None
        self._rate_hz = SAMPLE_RATE
        self._raw: deque[_Raw] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self._ready: deque[AudioBlock] = deque()
        self._time = SoundTime(SAMPLE_RATE)
        self._resampler: Resampler | None = None
        self._next_in = 0
        self._next_out = 0
        self._last_ns = 0
        self._losses: Counter[str] = Counter()

    @property
    def name(self) -> str:
        """'mic:' and what the user called it."""
        return f"mic:{self._spec}"

    @property
    def losses(self) -> Mapping[str, int]:
        """Samples lost or mended since opening, by cause; at 16 kHz."""
        return dict(self._losses)

    @property
    def drift_ppm(self) -> float:
        """How much slower the device's clock runs than this machine's, in millionths."""
        return self._time.drift_ppm

    def open(self) -> None:
        """Find it and start it. Raises SourceNotFound, SourceBusy, SourceError or MissingLibrary."""
        if self._closed or self._stream:
            raise SourceError(f"{self.name} was opened before; a source is opened once")
        if self._system is not None:
            self._stream = self._start(self._system)
            return

        def start() -> Stream:
            from liveaffect.realtime.sound_device import PortAudio

            with ONE_AT_A_TIME:
                return self._start(PortAudio())

        self._stream = in_time(start, undo=lambda stream: stream.close(), given_up=lambda: self._closed)

    def _start(self, system: SoundSystem) -> Stream:
        device = self._find(system)
        own_hz, own_channels = system.own_format(device)
        formats = [(SAMPLE_RATE, 1), (own_hz, 1), (own_hz, min(own_channels, 2)), (own_hz, own_channels)]
        refusal: FormatRefused | None = None
        for rate_hz, channels in dict.fromkeys(formats):
            self._rate_hz = rate_hz
            self._time = SoundTime(rate_hz)
            try:
                return system.start(device, rate_hz, channels, self._heard)
            except FormatRefused as failure:
                refusal = failure
        raise SourceError(f"{self.name} does none of {formats} (rate in Hz, channels): {refusal}")

    def read(self, timeout_s: float) -> AudioBlock | None:
        """The next block. Raises SourceLost when the device is gone."""
        while not self._ready:
            with self._changed:
                self._changed.wait_for(lambda: self._raw or self._closed, timeout_s)
                if self._closed or self._stream is None:
                    raise SourceError(f"{self.name} is not open")
                raw = self._raw.popleft() if self._raw else None
            if raw is not None:
                self._take(raw)
            elif not self._stream.active:
                raise SourceLost(f"{self.name} stopped: it was unplugged, or its sound server ended")
            else:
                return None
        return self._ready.popleft()

    def close(self) -> None:
        """Let go. Safe to call twice, and from another thread."""
        with self._changed:
            stream = None if self._closed else self._stream
            self._closed = True
            self._changed.notify_all()
        if stream is not None:
            stream.close()

    def _find(self, system: SoundSystem) -> Device:
        known = system.inputs()
        if self._spec == "default":
            found = system.default()
        elif self._spec.isdecimal():
            found = next((device for device in known if device.index == int(self._spec)), None)
        else:
            found = by_name(known, self._spec)
        if found is None:
            raise SourceNotFound(
                f"no microphone matches '{self._spec}'. {devices_in_words('Microphones', known)}\n"
                "Without one: --mic none"
            )
        return found

    def _heard(self, samples: NDArray[np.float32], age_s: float, flagged: bool) -> None:
        """Runs in PortAudio's thread: copies, and nothing else."""
        now_ns = self._clock.now_ns()
        raw = _Raw(samples.copy(), now_ns - round(age_s * SECOND), now_ns, flagged)
        with self._changed:
            if len(self._raw) >= _HELD:
                gone, after = self._raw.popleft(), self._raw.popleft()
                self._raw.appendleft(replace(after, missing=gone.missing + len(gone.samples)))
            self._raw.append(raw)
            self._changed.notify_all()

    def _take(self, raw: _Raw) -> None:
        self._skip(raw.missing, "samples nobody fetched in time")
        lost = self._time.observe(
            self._next_in, len(raw.samples), raw.stamp_ns, raw.arrived_ns, flagged=raw.flagged
        )
        self._skip(lost, "samples lost by the device")
        mono = raw.samples.mean(axis=1, dtype=np.float32) if raw.samples.ndim == 2 else raw.samples
        good = np.abs(mono) <= LOUDEST
        if not good.all():
            numbers = np.isfinite(mono)
            for cause, of_them in (
                ("samples that were not numbers", ~numbers),
                ("samples that were absurdly loud", numbers & ~good),
            ):
                if of_them.any():
                    self._losses[cause] += int(of_them.sum())
            mono = np.where(good, mono, np.float32(0.0))
        self._next_in += len(mono)
        if self._rate_hz == SAMPLE_RATE:
            self._emit(mono)
            return
        if self._resampler is None:
            self._resampler = Resampler()
            begin = self._next_in - len(mono)
            self._next_out = max(self._next_out, -(-begin * SAMPLE_RATE // self._rate_hz))
        self._emit(self._resampler.push(mono, self._rate_hz))

    def _skip(self, lost: int, cause: str) -> None:
        """Leave a gap. What the resampler still holds belongs before it."""
        if not lost:
            return
        if self._resampler is not None:
            self._emit(self._resampler.flush())
            self._resampler = None
        self._next_in += lost
        self._losses[cause] += round(lost * SAMPLE_RATE / self._rate_hz)

    def _emit(self, samples: NDArray[np.float32]) -> None:
        if self._rate_hz == SAMPLE_RATE:
            self._next_out = self._next_in - len(samples)
        if len(samples) == 0:
            return
        at_ns = self._time.time_of(self._next_out * self._rate_hz / SAMPLE_RATE)
        self._last_ns = max(self._last_ns, at_ns)
        self._ready.append(AudioBlock(self.name, self._next_out, self._last_ns, samples))
        self._next_out += len(samples)
