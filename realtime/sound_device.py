"""Sound devices as the microphone sees them: PortAudio, what the loudspeaker plays, times of samples.

PortAudio lists devices once, when it starts. So that a microphone that was plugged in later is found, the
list is made anew before each opening, as long as no stream of ours is running. It cannot name a monitor, so
for `--mic output`, where the voices of the others in a call are, the sound server's own recorder is asked,
in a process of its own that may hang or die without harm.

A sound device counts samples evenly and stamps blocks badly, so the count is believed and the stamps only
steer it: a two-state Kalman filter holds the offset and the drift of the device's clock. Stamps that are
far off are ignored. If they stay far off, sound was lost when blocks also arrive later than the count says;
otherwise the earlier stamps were wrong: PulseAudio was seen to be 0.6 s off for the first second.
"""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from liveaffect.realtime.clock import MS, SECOND
from liveaffect.realtime.devices import ONE_AT_A_TIME, Device, portaudio, sound_inputs
from liveaffect.realtime.errors import MissingLibrary, SourceBusy, SourceError, SourceNotFound

_STAMP_NOISE_S = 0.005
"""How far single stamps scatter."""
_DRIFT_PRIOR = 200e-6
"""Cheap crystals are within 200 ppm of each other."""
_MOST_DRIFT = 1000e-6
_DRIFT_WANDER = 1e-6
"""How much the drift itself may change, per square root of a second."""
_OFFSET_WANDER_S = 20e-6
"""How much the offset may change by itself, per square root of a second."""
_FAR_S = 0.04
"""A stamp this far off is not scatter."""
_PERSISTENT_S = 0.5
"""Stamps that stay far off for so long are believed."""
_MOST_BUFFER_NS = 200 * MS
"""A block that is said to have begun longer before it was complete and handed over has a wrong stamp."""
_LAG_LEAK = 0.02
"""How fast the best arrival is forgotten, seconds a second."""
_LOSS_SHARE = 0.7
"""Of what the stamps are off, how much later blocks must arrive for sound to be missing."""
_FLAGGED_S = 0.005
"""When the device says that it lost sound, a stamp this much later is believed at once."""


class SoundTime:
    """Maps the sample numbers of one device to the run's clock. `observe` first, in order."""

    def __init__(self, rate_hz: int) -> None:
        self._rate_hz = rate_hz
        self._sample = 0
        self._at_ns = 0
        """Estimated time of `_sample`."""
        self._drift = 0.0
        self._started = False
        # Covariance of (offset in s, drift).
        self._p_oo, self._p_od, self._p_dd = _STAMP_NOISE_S**2, 0.0, _DRIFT_PRIOR**2
        self._far_since: int | None = None
        self._far_least_s = self._far_lag_s = 0.0
        self._calm_lag_s = float("inf")
        """How late blocks arrive at the best, with which a later lag is compared."""

    @property
    def drift_ppm(self) -> float:
        """How much longer the device's second is than the clock's, in millionths."""
        return self._drift * 1e6

    def time_of(self, sample: float) -> int:
        """When that sample was or will be captured."""
        nominal_s = (sample - self._sample) / self._rate_hz
        return self._at_ns + round(nominal_s * (1.0 + self._drift) * SECOND)

    def observe(
        self, sample: int, count: int, stamp_ns: int, arrived_ns: int, *, flagged: bool = False
    ) -> int:
        """Take in a block of `count` from `sample` on; returns how many samples were lost before it.

        The caller adds those to its count, so that `sample` becomes a later number. `stamp_ns` is the
        device's word on when the block began, `arrived_ns` when it was handed over, and `flagged` says
        that the device itself reported a loss here.
        """
        # Nothing arrives before it was captured, and a device's buffer is short: beyond that, stamps lie.
        latest_ns = arrived_ns - count * SECOND // self._rate_hz
        stamp_ns = min(max(stamp_ns, latest_ns - _MOST_BUFFER_NS), latest_ns)
        if not self._started:
            self._started = True
            self._sample, self._at_ns = sample, stamp_ns
        off_s = (stamp_ns - self.time_of(sample)) / SECOND
        lag_s = (arrived_ns - self.time_of(sample + count)) / SECOND
        if flagged and off_s > _FLAGGED_S:
            return self._jump(off_s)
        if abs(off_s) > _FAR_S:
            return self._far(sample, off_s, lag_s)
        self._far_since = None
        passed_s = (sample - self._sample) / self._rate_hz
        self._calm_lag_s = min(lag_s, self._calm_lag_s + _LAG_LEAK * passed_s)
        self._correct(sample, off_s)
        return 0

    def _far(self, sample: int, off_s: float, lag_s: float) -> int:
        if self._far_since is None or off_s * self._far_least_s < 0:
            self._far_since, self._far_least_s, self._far_lag_s = sample, off_s, lag_s
        self._far_least_s = min(self._far_least_s, off_s, key=abs)
        self._far_lag_s = min(self._far_lag_s, lag_s)
        if sample - self._far_since < _PERSISTENT_S * self._rate_hz:
            return 0
        if self._far_lag_s - self._calm_lag_s > _LOSS_SHARE * self._far_least_s > 0:
            return self._jump(self._far_least_s)
        # Blocks still arrive in step with the count, so nothing is missing: the stamps were wrong before.
        self._at_ns = self.time_of(sample) + round(self._far_least_s * SECOND)
        self._sample, self._drift = sample, 0.0
        self._calm_lag_s = self._far_lag_s - self._far_least_s
        self._p_oo, self._p_od, self._p_dd = _STAMP_NOISE_S**2, 0.0, _DRIFT_PRIOR**2
        self._far_since = None
        return 0

    def _jump(self, off_s: float) -> int:
        self._far_since = None
        return round(off_s * self._rate_hz)

    def _correct(self, sample: int, off_s: float) -> None:
        """One step of the filter, from the last sample to this one."""
        dt = (sample - self._sample) / self._rate_hz
        at_ns = self.time_of(sample)
        p_oo = self._p_oo + 2 * dt * self._p_od + dt * dt * self._p_dd + _OFFSET_WANDER_S**2 * dt
        p_od = self._p_od + dt * self._p_dd
        p_dd = self._p_dd + _DRIFT_WANDER**2 * dt
        gain_o = p_oo / (p_oo + _STAMP_NOISE_S**2)
        gain_d = p_od / (p_oo + _STAMP_NOISE_S**2)
        self._sample, self._at_ns = sample, at_ns + round(gain_o * off_s * SECOND)
        self._drift = min(max(self._drift + gain_d * off_s, -_MOST_DRIFT), _MOST_DRIFT)
        self._p_oo, self._p_od, self._p_dd = p_oo * (1 - gain_o), p_od * (1 - gain_o), p_dd - gain_d * p_od


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
        """Lists devices anew; who goes on to open one holds `devices.ONE_AT_A_TIME` until it runs."""
        self._sound = portaudio()
        with ONE_AT_A_TIME:
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
        try:
            entry = self._sound.query_devices(device.index)
        except self._sound.PortAudioError as failure:
            raise _as_fact(device, failure) from failure
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


OUTPUT = "output"
_ENDS_WITHIN_S = 2.0


class LoudspeakerSound:
    """The sound system whose only input is what is played."""

    def inputs(self) -> list[Device]:
        """The one there is."""
        return [Device(0, f"{OUTPUT}: what the loudspeaker plays")]

    def default(self) -> Device | None:
        """The same."""
        return self.inputs()[0]

    def own_format(self, device: Device) -> tuple[int, int]:
        """The recorder converts, so anything."""
        return 48_000, 1

    def start(self, device: Device, rate_hz: int, channels: int, heard: Heard) -> Recorder:
        """Begin to listen. Raises MissingLibrary without the recorder."""
        command = ["parec", "--device=@DEFAULT_MONITOR@", "--format=float32le", f"--rate={rate_hz}"]
        command += [f"--channels={channels}", f"--latency-msec={BLOCK_S * 1000:.0f}"]
        try:
            recorder = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE
            )
        except FileNotFoundError as error:
            way = "sudo apt install pulseaudio-utils (it serves PipeWire, too)"
            if sys.platform != "linux":
                way = "on this system choose a loopback input by name, such as 'Stereo Mix' or 'BlackHole'"
            raise MissingLibrary(f"--mic {OUTPUT} needs the program parec: {way}") from error
        return Recorder(recorder, rate_hz, channels, heard)


class Recorder:
    """One recording; its thread hands on what comes."""

    def __init__(self, recorder: subprocess.Popen[bytes], rate_hz: int, channels: int, heard: Heard) -> None:
        self._recorder = recorder
        self._heard = heard
        self._shape = (round(BLOCK_S * rate_hz), channels)
        self._began = threading.Event()
        self._thread = threading.Thread(target=self._run, name="records what is played", daemon=True)
        self._thread.start()
        # A server that is not there is known within a moment; one that plays nothing may be silent for long.
        if not self._began.wait(0.5) and recorder.poll() is not None:
            self._refuse()

    @property
    def active(self) -> bool:
        """False when the recorder has ended, as it does with its server."""
        return self._recorder.poll() is None

    def close(self) -> None:
        """End it."""
        self._recorder.terminate()
        try:
            self._recorder.wait(_ENDS_WITHIN_S)
        except subprocess.TimeoutExpired:
            self._recorder.kill()
            self._recorder.wait()
        self._thread.join()
        for pipe in (self._recorder.stdout, self._recorder.stderr):
            if pipe is not None:
                pipe.close()

    def _run(self) -> None:
        stream: Any = self._recorder.stdout
        size = 4 * self._shape[0] * self._shape[1]
        while len(data := stream.read(size)) == size:
            self._began.set()
            self._heard(np.frombuffer(data, "<f4").reshape(self._shape), BLOCK_S, False)

    def _refuse(self) -> None:
        said = self._recorder.stderr.read().decode(errors="replace").strip() if self._recorder.stderr else ""
        self.close()
        raise SourceNotFound(f"mic:{OUTPUT}: no sound server answers ({said or 'parec ended'})")
